//! The API server: reads of objects as they are, and writes that lose against what was not seen.

use std::time::Duration;

use kube::{
    Client,
    api::{GetParams, Patch, PatchParams, PostParams},
    core::{Request, request::Error as InvalidRequest},
};
use serde_json::{Value, json};

use super::{leadership::Leadership, meters::Meters, served::Served};
use crate::snapshot::{Action, Kind, ObjectRef, Write};

/// The longest that a read may take.
const READ_DEADLINE: Duration = Duration::from_secs(10);
/// The longest that a write may take: less than the time between the renew deadline of the lease and its end, so that no write
/// of a leader that was replaced is under way.
const WRITE_DEADLINE: Duration = Duration::from_secs(4);

/// Why a call of the API server came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The object is not any more what was observed: observe again, decide again.
    #[error("{0:?} changed meanwhile")]
    Lost(String),
    /// The API server refused; its words.
    #[error("{message}")]
    Refused {
        /// The HTTP status.
        code: u16,
        /// What it said.
        message: String,
    },
    /// The API server could not be reached, or did not answer in time.
    #[error("API server unreachable: {0}")]
    Unreachable(String),
    /// This process does not hold the lease any more.
    #[error("not the leader any more")]
    NotLeader,
}

impl ClusterError {
    /// A closed set of names, for logs and metrics.
    pub const fn category(&self) -> &'static str {
        match self {
            Self::Lost(_) => "lost",
            Self::Refused { .. } => "refused",
            Self::Unreachable(_) => "unreachable",
            Self::NotLeader => "not_leader",
        }
    }
}

/// The API server, with the right to write as long as the lease is held.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    leadership: Leadership,
    meters: Meters,
}

impl Cluster {
    /// Reads at any time, writes under `leadership`.
    pub const fn new(client: Client, leadership: Leadership, meters: Meters) -> Self {
        Self {
            client,
            leadership,
            meters,
        }
    }

    /// An object as the API server has it; `None` if it does not exist, or if its kind does not.
    pub async fn get(&self, object: &ObjectRef) -> Result<Option<Served>, ClusterError> {
        let request =
            request(object.kind, &object.namespace).get(&object.name, &GetParams::default());
        self.meters.request("get", object.kind.name());
        match self.call(READ_DEADLINE, request).await {
            Err(ClusterError::Refused { code: 404, .. }) => Ok(None),
            other => other.map(Some),
        }
    }

    /// Carries out one write; the object as it is then.
    pub async fn apply(&self, write: &Write) -> Result<Served, ClusterError> {
        let Write { object, action, .. } = write;
        let verb = match action {
            Action::Create(_) => "create",
            Action::Replace(_) => "update",
            Action::Patch(_) => "patch",
        };
        self.meters.request(verb, object.kind.name());
        let to = request(object.kind, &object.namespace);
        let params = PostParams::default();
        let lost = || ClusterError::Lost(format!("{} {}", object.kind.name(), object.name));
        match action {
            Action::Create(value) => match self
                .write(to.create(&params, value.to_string().into_bytes()))
                .await
            {
                Err(ClusterError::Refused { code: 409, .. }) => Err(lost()),
                other => other,
            },
            Action::Replace(value) => {
                match self
                    .write(to.replace(&object.name, &params, value.to_string().into_bytes()))
                    .await
                {
                    Err(ClusterError::Refused {
                        code: 404 | 409, ..
                    }) => Err(lost()),
                    other => other,
                }
            }
            Action::Patch(patch) => self.patch(object, patch).await,
        }
    }

    /// A JSON Patch that begins with tests. The API server answers 422 to a failed test and to an invalid result alike;
    /// only a fresh look tells them apart.
    async fn patch(&self, object: &ObjectRef, patch: &Value) -> Result<Served, ClusterError> {
        let lost = || ClusterError::Lost(format!("{} {}", object.kind.name(), object.name));
        let request = request(object.kind, &object.namespace).patch(
            &object.name,
            &PatchParams::default(),
            &Patch::<()>::Json(serde_json::from_value(patch.clone()).unwrap_or_default()),
        );
        match self.write(request).await {
            Err(ClusterError::Refused {
                code: 404 | 409, ..
            }) => Err(lost()),
            Err(refused @ ClusterError::Refused { code: 422, .. }) => match self.get(object).await?
            {
                Some(now) if now.value().is_ok_and(|now| tests_hold(patch, &now)) => Err(refused),
                _ => Err(lost()),
            },
            other => other,
        }
    }

    /// Writes a Canary's status, if the Canary is still the one that was observed; the Canary as it is then.
    pub async fn commit(
        &self,
        namespace: &str,
        name: &str,
        version: &str,
        status: Value,
    ) -> Result<Served, ClusterError> {
        self.meters.request("patch", Kind::Canary.name());
        let patch = json!({"metadata": {"resourceVersion": version}, "status": status});
        let request = request(Kind::Canary, namespace).patch_subresource(
            "status",
            name,
            &PatchParams::default(),
            &Patch::Merge(patch),
        );
        match self.write(request).await {
            Err(ClusterError::Refused {
                code: 404 | 409, ..
            }) => Err(ClusterError::Lost(format!("Canary {name}"))),
            other => other,
        }
    }

    /// What asks the API server.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Counts a request that is not sent from here.
    pub fn count(&self, verb: &str, kind: &str) {
        self.meters.request(verb, kind);
    }

    /// Whether this process leads: whoever does not, writes nothing, and tells nobody.
    pub fn may_write(&self) -> bool {
        self.leadership.may_write()
    }

    /// A call that writes: sent only as long as the lease is ours.
    async fn write(
        &self,
        request: Result<http::Request<Vec<u8>>, InvalidRequest>,
    ) -> Result<Served, ClusterError> {
        if !self.may_write() {
            return Err(ClusterError::NotLeader);
        }
        let written = self.call(WRITE_DEADLINE, request).await;
        written.map_err(|error| {
            if self.may_write() {
                error
            } else {
                ClusterError::NotLeader
            }
        })
    }

    async fn call(
        &self,
        deadline: Duration,
        request: Result<http::Request<Vec<u8>>, InvalidRequest>,
    ) -> Result<Served, ClusterError> {
        let request = request.map_err(|e| ClusterError::Refused {
            code: 400,
            message: e.to_string(),
        })?;
        match tokio::time::timeout(deadline, self.client.request(request)).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(kube::Error::Api(status))) if status.code >= 500 || status.code == 429 => {
                Err(ClusterError::Unreachable(status.message.clone()))
            }
            Ok(Err(kube::Error::Api(status))) => Err(ClusterError::Refused {
                code: status.code,
                message: status.message.clone(),
            }),
            Ok(Err(error)) => Err(ClusterError::Unreachable(error.to_string())),
            Err(_) => Err(ClusterError::Unreachable(format!(
                "no answer within {} s",
                deadline.as_secs()
            ))),
        }
    }
}

/// The requests for a kind of object in a namespace.
fn request(kind: Kind, namespace: &str) -> Request {
    let path = match kind.group_version() {
        ("", version) => format!("/api/{version}"),
        (group, version) => format!("/apis/{group}/{version}"),
    };
    Request::new(format!("{path}/namespaces/{namespace}/{}", kind.plural()))
}

/// Whether every `test` of a JSON Patch holds for an object.
fn tests_hold(patch: &Value, object: &Value) -> bool {
    patch
        .as_array()
        .into_iter()
        .flatten()
        .filter(|operation| operation["op"] == "test")
        .all(|test| {
            let path = test["path"].as_str().unwrap_or_default();
            object.pointer(path).unwrap_or(&Value::Null) == &test["value"]
        })
}
