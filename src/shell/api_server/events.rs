//! Requests for Event objects: an exception to the rule that writes are conditional (see [`super`]).

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::Event,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use kube::{
    api::{GetParams, Patch, PatchParams, PostParams},
    core::Request,
};
use serde_json::json;

use super::{
    cluster::{Cluster, Outgoing},
    request::{ClusterError, requests},
};

const KIND: &str = "Event";

impl Cluster {
    /// Creates an Event. Returns `false` if there already is one of this name.
    ///
    /// # Errors
    /// This process does not lead, or the API server refused or is unreachable.
    pub async fn create_event(&self, event: &Event) -> Result<bool, ClusterError> {
        let body = serde_json::to_vec(event).unwrap_or_default();
        let created = self.write::<Event>(Outgoing {
            verb: "create",
            kind: KIND,
            request: event_requests(&event.metadata).create(&PostParams::default(), body),
        });
        match created.await {
            Ok(_) => Ok(true),
            Err(ClusterError::Refused { code: 409, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Returns how often an existing Event has been counted.
    ///
    /// # Errors
    /// The Event does not exist, or the API server refused or is unreachable.
    pub async fn event_count(&self, event: &ObjectMeta) -> Result<i32, ClusterError> {
        let read = self.read::<Event>(Outgoing {
            verb: "get",
            kind: KIND,
            request: event_requests(event).get(name(event), &GetParams::default()),
        });
        Ok(read.await?.count.unwrap_or(1))
    }

    /// Sets the count of an existing Event and the time when it happened last. Returns `false` if the Event has expired.
    ///
    /// # Errors
    /// This process does not lead, or the API server refused or is unreachable.
    pub async fn count_event(
        &self,
        event: &ObjectMeta,
        count: i32,
        last: Timestamp,
    ) -> Result<bool, ClusterError> {
        let patch = Patch::Merge(json!({"count": count, "lastTimestamp": Time(last)}));
        let patched = self.write::<Event>(Outgoing {
            verb: "patch",
            kind: KIND,
            request: event_requests(event).patch(name(event), &PatchParams::default(), &patch),
        });
        match patched.await {
            Ok(_) => Ok(true),
            Err(ClusterError::Refused { code: 404, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn event_requests(event: &ObjectMeta) -> Request {
    let namespace = event.namespace.as_deref().unwrap_or_default();
    requests("", "v1", "events", Some(namespace))
}

fn name(event: &ObjectMeta) -> &str {
    event.name.as_deref().unwrap_or_default()
}
