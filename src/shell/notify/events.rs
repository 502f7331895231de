//! Event objects on Canaries: one for each canary, type and message. A repetition counts it up. Events that each step may repeat are
//! limited for each canary, so that one Canary with many failing checks does not fill the API server.

mod limit;

use std::{collections::HashMap, sync::Mutex, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Event, EventSource, ObjectReference},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use limit::{Admission, Limits};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};
use tracing::warn;

use crate::{
    api::canary::Canary,
    notifications::EventKind,
    shell::{
        api_server::{Cluster, ClusterError},
        clock,
        lock::lock,
        telemetry::logs::canary_name,
    },
    snapshot::{Kind, revision::digest},
};

/// The longest time for writing an Event, including all requests and the wait for a slot.
const DEADLINE: Duration = Duration::from_secs(5);
/// The maximum number of Events whose counts are kept in memory.
const MAX_COUNTS: usize = 4096;
/// The maximum number of Events that are written at the same time.
const PARALLEL_WRITES: usize = 32;
/// The text of the Event that replaces the Events beyond the limit of a canary.
const LIMITED: &str = "Too many such events in a short time: one each five minutes is written here; the operator's log and event webhooks have all of \
                       them";

/// Writes Events.
pub struct Events {
    cluster: Cluster,
    /// How often each Event happened, by the name of the Event: a request can set a count, but not increment it. A count that is not in
    /// memory is read from the API server.
    counts: Mutex<HashMap<String, i32>>,
    slots: Semaphore,
    limits: Limits,
}

impl Events {
    pub fn new(cluster: Cluster) -> Self {
        Self {
            cluster,
            counts: Mutex::default(),
            slots: Semaphore::new(PARALLEL_WRITES),
            limits: Limits::default(),
        }
    }

    /// Writes an Event that each step may repeat, unless the canary had too many of them. Then the count of a known Event still grows: the
    /// next Event of this text that is written has the full count.
    pub async fn write_recurring(&self, canary: &Canary, kind: EventKind, message: &str) {
        let uid = canary.metadata.uid.as_deref().unwrap_or_default();
        match self.limits.admit(uid, Instant::now()) {
            Admission::Admitted => self.write(canary, kind, message).await,
            refused => {
                let event = new_event(canary, kind, message).metadata;
                if let Some(count) = lock(&self.counts).get_mut(&event.name.unwrap_or_default()) {
                    *count = count.saturating_add(1);
                }
                if refused == Admission::Exhausted {
                    self.write(canary, EventKind::Warning, LIMITED).await;
                }
            }
        }
    }

    /// Writes an Event. A failure is only logged.
    pub async fn write(&self, canary: &Canary, kind: EventKind, message: &str) {
        let mut event = new_event(canary, kind, message);
        let problem = match timeout(DEADLINE, self.create_or_count(&mut event)).await {
            Ok(Ok(count)) => {
                let mut counts = lock(&self.counts);
                if counts.len() >= MAX_COUNTS {
                    counts.clear();
                }
                counts.insert(event.metadata.name.unwrap_or_default(), count);
                return;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the API server does not answer".to_owned(),
        };
        warn!(
            canary = canary_name(canary),
            "event cannot be written: {problem}"
        );
    }

    /// Creates the Event, or counts an existing one up. Returns the new count.
    async fn create_or_count(&self, event: &mut Event) -> Result<i32, ClusterError> {
        // This fails only for a closed semaphore, and nothing closes it.
        let _slot = self.slots.acquire().await;
        let meta = event.metadata.clone();
        let known = meta
            .name
            .as_ref()
            .and_then(|name| lock(&self.counts).get(name).copied());
        if let Some(count) = known
            && self.cluster.count_event(&meta, count + 1, now()).await?
        {
            return Ok(count + 1);
        }
        // The wait for a slot may have taken seconds: the Event has the time at which it is created.
        let at = Some(Time(now()));
        (event.first_timestamp, event.last_timestamp) = (at.clone(), at);
        if self.cluster.create_event(event).await? {
            return Ok(1);
        }
        // An earlier process has written the Event: continue its count.
        let count = self.cluster.event_count(&meta).await? + 1;
        self.cluster.count_event(&meta, count, now()).await?;
        Ok(count)
    }
}

fn new_event(canary: &Canary, kind: EventKind, message: &str) -> Event {
    let meta = &canary.metadata;
    let uid = meta.uid.as_deref().unwrap_or_default();
    let canary_name = meta.name.as_deref().unwrap_or_default();
    let digest = digest(&format!("{uid}/{}/{message}", kind.as_str()), 8);
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{canary_name}.{digest}")),
            namespace: meta.namespace.clone(),
            ..ObjectMeta::default()
        },
        involved_object: ObjectReference {
            api_version: Some(Kind::Canary.api_version()),
            kind: Some("Canary".to_owned()),
            name: meta.name.clone(),
            namespace: meta.namespace.clone(),
            uid: meta.uid.clone(),
            resource_version: meta.resource_version.clone(),
            ..ObjectReference::default()
        },
        type_: Some(kind.as_str().to_owned()),
        reason: Some("Synced".to_owned()),
        message: Some(message.to_owned()),
        source: Some(EventSource {
            component: Some("flagger".to_owned()),
            host: None,
        }),
        count: Some(1),
        reporting_component: Some("flagger".to_owned()),
        reporting_instance: Some(String::new()),
        ..Event::default()
    }
}

/// Returns the current time in whole seconds, the resolution of Events.
fn now() -> Timestamp {
    Timestamp::from_second(clock::now().as_second()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
