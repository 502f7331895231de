//! The leader election: one process at a time may write. Processes compete for a Lease (`flagger-leader-election`, as in Flagger) by
//! conditional writes.
//!
//! The times are shorter than Flagger's. A candidate honours the *holder's* `leaseDurationSeconds`, counted from its own observation, so
//! the clocks of two machines are never compared. A leader that could not renew in time stops writing, and its last write has ended by the
//! time another process may lead.

use std::time::Duration;

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{
    Client,
    api::{GetParams, PostParams},
    core::Request,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tracing::{info, warn};

use super::{
    leadership::Leadership,
    request::{ClusterError, Prepared, requests, send},
};
use crate::{shell::clock, snapshot::Shard};

#[cfg(test)]
mod tests;

/// The name of the Lease, as in Flagger.
const NAME: &str = "flagger-leader-election";
/// How long other processes honour a holder that does not renew.
const DURATION: Duration = Duration::from_secs(15);
/// How long after its last renewal a holder still writes.
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// The pause between two attempts.
const RETRY: Duration = Duration::from_secs(2);
/// A leader resigns if its right to write lasts for less than this.
const MIN_REMAINING: Duration = Duration::from_millis(250);
/// The longest time that an attempt may take.
const ATTEMPT: Duration = Duration::from_secs(4);

/// A process that competes for the Lease.
pub struct Candidate {
    client: Client,
    namespace: String,
    name: String,
    identity: String,
    until: watch::Sender<Instant>,
}

/// The name of the Lease. Each shard has its own, because its leader leads only there.
pub fn name(shard: Option<&Shard>) -> String {
    match shard {
        Some(shard) => format!("{NAME}-{}", shard.digest()),
        None => NAME.to_owned(),
    }
}

/// The result of a renewal.
enum Renewal {
    Renewed,
    Lost,
    /// Another write came between the read and the write of this process: a user edited the Lease, or an earlier write of this process
    /// succeeded although its answer was lost. The next attempt shows which it was. Until then the right to write is not extended.
    Unclear,
}

/// The holder of the Lease, as a candidate observed it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Observed {
    holder: Option<String>,
    version: Option<String>,
    duration: Duration,
    /// When the candidate first saw this version of the Lease.
    since: Instant,
}

impl Candidate {
    /// Returns a candidate with this identity for the Lease of a shard in a namespace, and the right that it may gain.
    pub(super) fn new(
        client: Client,
        namespace: &str,
        shard: Option<&Shard>,
        identity: String,
    ) -> (Self, Leadership) {
        let (until, right) = watch::channel(Instant::now());
        let candidate = Self {
            client,
            namespace: namespace.to_owned(),
            name: name(shard),
            identity,
            until,
        };
        (candidate, Leadership::until(right))
    }

    /// Returns when this process holds the Lease.
    pub async fn acquire(&self) {
        let mut observed: Option<Observed> = None;
        loop {
            let started = Instant::now();
            match timeout(ATTEMPT, self.try_acquire(&mut observed)).await {
                Ok(Ok(true)) => {
                    self.until.send_replace(started + RENEW_DEADLINE);
                    info!("Acting as elected leader");
                    return;
                }
                Ok(Ok(false)) => {}
                Ok(Err(error)) => self.log_failure("acquired", &error.to_string()),
                Err(_) => self.log_failure("acquired", "the API server does not answer"),
            }
            sleep(RETRY).await;
        }
    }

    /// Renews the Lease until it is lost, and returns then.
    pub async fn keep(&self) {
        let mut held = None;
        // Never wait beyond the end of the right to write: this process must resign by then.
        let left = || {
            self.until
                .borrow()
                .saturating_duration_since(Instant::now())
        };
        loop {
            sleep(RETRY.min(left() / 2)).await;
            let started = Instant::now();
            match timeout(ATTEMPT.min(left()), self.renew(&mut held)).await {
                Ok(Ok(Renewal::Renewed)) => {
                    self.until.send_replace(started + RENEW_DEADLINE);
                }
                Ok(Ok(Renewal::Lost)) => break,
                Ok(Ok(Renewal::Unclear)) => {}
                Ok(Err(error)) => self.log_failure("renewed", &error.to_string()),
                Err(_) => self.log_failure("renewed", "the API server does not answer"),
            }
            if left() < MIN_REMAINING {
                break;
            }
        }
        self.until.send_replace(Instant::now());
        warn!("Leadership lost");
    }

    /// Releases the Lease, so that the next leader need not wait until it expires.
    pub async fn release(&self) {
        let is_held = *self.until.borrow() > Instant::now();
        self.until.send_replace(Instant::now());
        if !is_held {
            return;
        }
        let released = timeout(ATTEMPT, async {
            let Some(mut lease) = self.get().await? else {
                return Ok(());
            };
            let spec = lease.spec.get_or_insert_default();
            if spec.holder_identity.as_ref() == Some(&self.identity) {
                spec.holder_identity = Some(String::new());
                spec.lease_duration_seconds = Some(1);
                spec.renew_time = Some(MicroTime(clock::now()));
                self.replace(&lease).await?;
            }
            Ok::<_, ClusterError>(())
        });
        if let Ok(Err(error)) = released.await {
            self.log_failure("released", &error.to_string());
        }
    }

    async fn try_acquire(&self, observed: &mut Option<Observed>) -> Result<bool, ClusterError> {
        let Some(lease) = self.get().await? else {
            let lease = Lease {
                metadata: ObjectMeta {
                    name: Some(self.name.clone()),
                    ..ObjectMeta::default()
                },
                spec: Some(self.spec_of_holder(None)),
            };
            return Ok(unless_conflict(self.create(&lease).await)?.is_some());
        };
        let now = Instant::now();
        let current = observe(&lease, observed.as_ref(), now);
        let before = observed.replace(current.clone());
        if before.is_none_or(|before| before.holder != current.holder)
            && let Some(holder) = &current.holder
        {
            info!("Another instance has been elected as leader: {holder}");
        }
        let is_held_by_other = current.holder.is_some_and(|holder| holder != self.identity);
        if is_held_by_other && now < current.since + current.duration {
            return Ok(false);
        }
        Ok(self.take(lease).await?.is_some())
    }

    /// Renews with a single write: `held` is the Lease as the last write of this process left it. Reads the Lease only if another process
    /// has written since.
    async fn renew(&self, held: &mut Option<Lease>) -> Result<Renewal, ClusterError> {
        if let Some(mut lease) = held.take() {
            lease.spec = Some(self.spec_of_holder(lease.spec.take()));
            match self.replace(&lease).await {
                Ok(lease) => {
                    *held = Some(lease);
                    return Ok(Renewal::Renewed);
                }
                Err(error) if matches!(error.code(), Some(404 | 409)) => {}
                Err(error) => return Err(error),
            }
        }
        let Some(lease) = self.get().await? else {
            return Ok(Renewal::Lost);
        };
        let holder = lease
            .spec
            .as_ref()
            .and_then(|spec| spec.holder_identity.as_ref());
        if holder != Some(&self.identity) {
            return Ok(Renewal::Lost);
        }
        *held = self.take(lease).await?;
        Ok(if held.is_some() {
            Renewal::Renewed
        } else {
            Renewal::Unclear
        })
    }

    /// Writes the Lease on condition that it still has the resourceVersion that was read. Returns the Lease as it is then, or `None` if
    /// another process wrote first.
    async fn take(&self, mut lease: Lease) -> Result<Option<Lease>, ClusterError> {
        lease.spec = Some(self.spec_of_holder(lease.spec.take()));
        unless_conflict(self.replace(&lease).await)
    }

    /// Returns the spec of the Lease with this process as the holder.
    fn spec_of_holder(&self, before: Option<LeaseSpec>) -> LeaseSpec {
        let now = Some(MicroTime(clock::now()));
        let is_new = before.is_none();
        let before = before.unwrap_or_default();
        let is_renewal = before.holder_identity.as_ref() == Some(&self.identity);
        let transitions = before.lease_transitions.unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: if is_renewal {
                before.acquire_time.clone()
            } else {
                now.clone()
            },
            renew_time: now,
            lease_transitions: Some(if is_renewal || is_new {
                transitions
            } else {
                transitions + 1
            }),
            ..before
        }
    }

    async fn get(&self) -> Result<Option<Lease>, ClusterError> {
        let get = self.requests().get(&self.name, &GetParams::default());
        match self.send(get).await {
            Err(ClusterError::Refused { code: 404, .. }) => Ok(None),
            other => other.map(Some),
        }
    }

    async fn create(&self, lease: &Lease) -> Result<Lease, ClusterError> {
        let body = serde_json::to_vec(lease).unwrap_or_default();
        let create = self.requests().create(&PostParams::default(), body);
        self.send(create).await
    }

    async fn replace(&self, lease: &Lease) -> Result<Lease, ClusterError> {
        let body = serde_json::to_vec(lease).unwrap_or_default();
        let replace = self
            .requests()
            .replace(&self.name, &PostParams::default(), body);
        self.send(replace).await
    }

    fn requests(&self) -> Request {
        requests("coordination.k8s.io", "v1", "leases", Some(&self.namespace))
    }

    async fn send(&self, request: Prepared) -> Result<Lease, ClusterError> {
        send(&self.client, ATTEMPT, request).await
    }

    fn log_failure(&self, action: &str, why: &str) {
        let (name, namespace) = (&self.name, &self.namespace);
        warn!("leader election: Lease {name}.{namespace} cannot be {action}: {why}");
    }
}

/// Observes a Lease. Its age counts from when this version was first seen.
fn observe(lease: &Lease, before: Option<&Observed>, now: Instant) -> Observed {
    let spec = lease.spec.clone().unwrap_or_default();
    let version = lease.metadata.resource_version.clone();
    let since = before
        .filter(|before| before.version == version)
        .map_or(now, |before| before.since);
    Observed {
        holder: spec.holder_identity.filter(|holder| !holder.is_empty()),
        version,
        duration: Duration::from_secs(
            spec.lease_duration_seconds
                .and_then(|s| u64::try_from(s).ok())
                .unwrap_or(0),
        ),
        since,
    }
}

/// Returns `None` for a write that failed because another process wrote first: that is no error.
fn unless_conflict<T>(result: Result<T, ClusterError>) -> Result<Option<T>, ClusterError> {
    match result {
        Err(ClusterError::Refused { code: 409, .. }) => Ok(None),
        other => other.map(Some),
    }
}

/// Returns `<host name>_<uuid>`, as in Flagger.
pub fn identity() -> String {
    let read = |path: &str| {
        std::fs::read_to_string(path)
            .unwrap_or_default()
            .trim()
            .to_owned()
    };
    format!(
        "{}_{}",
        read("/proc/sys/kernel/hostname"),
        read("/proc/sys/kernel/random/uuid")
    )
}
