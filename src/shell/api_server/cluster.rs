//! Reads of objects as they are, and writes that are conditional on what was observed.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{
    Client,
    api::{GetParams, ListParams, ObjectList, Patch, PatchParams, PostParams},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{
    leadership::Leadership,
    raw_object::RawObject,
    request::{ClusterError, Prepared, READ_DEADLINE, WRITE_DEADLINE, requests_for, send},
};
use crate::{
    shell::telemetry::operator_metrics::OperatorMetrics,
    snapshot::{Action, Kind, ObjectRef, Write},
    workload::metadata::MANAGER,
};

/// The maximum number of objects in one page of a list.
const PAGE: u32 = 100;

/// The API server, with the right to write while the Lease is held. Clones are the same.
#[derive(Clone)]
pub struct Cluster {
    clients: Clients,
    leadership: Leadership,
    metrics: OperatorMetrics,
}

/// The clients of a process that leads.
#[derive(Clone)]
pub struct Clients {
    /// Reads and writes. Each request has a deadline; until then, kube repeats it while the API server is too busy.
    pub(super) requests: Client,
    /// The client for watches. It does not retry: kube would pause for up to minutes before it repeats a watch. The cache retries within
    /// seconds, and reads the objects that it cannot watch.
    pub(super) watches: Client,
}

impl From<Client> for Clients {
    /// Uses one client for both.
    fn from(client: Client) -> Self {
        Self {
            requests: client.clone(),
            watches: client,
        }
    }
}

/// A request together with the labels under which it is counted.
pub(super) struct Outgoing {
    pub verb: &'static str,
    pub kind: &'static str,
    pub request: Prepared,
}

impl Cluster {
    /// Reads at any time, and writes while `leadership` lasts.
    pub fn new(
        clients: impl Into<Clients>,
        leadership: Leadership,
        metrics: OperatorMetrics,
    ) -> Self {
        Self {
            clients: clients.into(),
            leadership,
            metrics,
        }
    }

    /// Reads an object from the API server. Returns `None` if the object or its kind does not exist.
    ///
    /// # Errors
    /// The API server refused or is unreachable.
    pub async fn get(&self, object: &ObjectRef) -> Result<Option<RawObject>, ClusterError> {
        let requests = requests_for(object.kind, Some(&object.namespace));
        let read = self.read(Outgoing {
            verb: "get",
            kind: object.kind.name(),
            request: requests.get(&object.name, &GetParams::default()),
        });
        match read.await {
            Err(ClusterError::Refused { code: 404, .. }) => Ok(None),
            other => other.map(Some),
        }
    }

    /// Lists the objects of a kind, in a namespace or in all namespaces, that a label selects: all objects, but of pods only the first
    /// page. The API server sorts them by namespace and name.
    ///
    /// # Errors
    /// The API server refused or is unreachable, or an object is nested too deeply to be read.
    pub async fn list(
        &self,
        kind: Kind,
        namespace: Option<&str>,
        selector: Option<&str>,
    ) -> Result<Vec<Value>, ClusterError> {
        let requests = requests_for(kind, namespace);
        let mut params = ListParams::default().limit(PAGE);
        params.label_selector = selector.map(str::to_owned);
        let mut found = Vec::new();
        loop {
            let page: ObjectList<RawObject> = self
                .read(Outgoing {
                    verb: "list",
                    kind: kind.name(),
                    request: requests.list(&params),
                })
                .await?;
            params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
            // Read one page of pods: the caller looks for the reason of a failure, and a workload may have thousands of pods.
            if kind == Kind::Pod {
                params.continue_token = None;
            }
            for object in page.items {
                let object = object.value().map_err(|error| {
                    ClusterError::Unreadable(format!("a {}: {error}", kind.name()))
                });
                found.push(object?);
            }
            if params.continue_token.is_none() {
                return Ok(found);
            }
        }
    }

    /// Returns the other manager that wrote an object last, as `metadata.managedFields` names it. Ignores writes of the status. Returns
    /// `None` if the operator itself wrote last, or if the object does not exist.
    ///
    /// # Errors
    /// The API server refused or is unreachable.
    pub async fn other_manager(&self, object: &ObjectRef) -> Result<Option<String>, ClusterError> {
        let last = self.managers(object).await?.pop();
        Ok(last.filter(|manager| manager != MANAGER))
    }

    /// Returns the manager other than the operator that wrote an object last.
    ///
    /// # Errors
    /// The API server refused or is unreachable.
    pub async fn last_other_manager(
        &self,
        object: &ObjectRef,
    ) -> Result<Option<String>, ClusterError> {
        let mut others = self.managers(object).await?;
        others.retain(|manager| manager != MANAGER);
        Ok(others.pop())
    }

    /// The managers that wrote an object, the last one at the end. Ignores writes of the status.
    async fn managers(&self, object: &ObjectRef) -> Result<Vec<String>, ClusterError> {
        #[derive(Deserialize)]
        struct Managed {
            metadata: ObjectMeta,
        }
        let requests = requests_for(object.kind, Some(&object.namespace));
        let read = self.read::<Managed>(Outgoing {
            verb: "get",
            kind: object.kind.name(),
            request: requests.get(&object.name, &GetParams::default()),
        });
        let mut managed = match read.await {
            Ok(managed) => managed.metadata.managed_fields.unwrap_or_default(),
            Err(ClusterError::Refused { code: 404, .. }) => Vec::new(),
            Err(error) => return Err(error),
        };
        managed.retain(|entry| entry.subresource.as_deref().unwrap_or_default().is_empty());
        managed.sort_by_key(|entry| entry.time.as_ref().map(|time| time.0));
        Ok(managed
            .into_iter()
            .filter_map(|entry| entry.manager)
            .collect())
    }

    /// Carries out a write. Returns the object as it is then.
    ///
    /// # Errors
    /// The object has changed ([`ClusterError::Lost`]), this process does not lead, or the API server refused or is unreachable.
    pub async fn apply(&self, write: &Write) -> Result<RawObject, ClusterError> {
        let Write { object, action, .. } = write;
        let requests = requests_for(object.kind, Some(&object.namespace));
        let params = PostParams::default();
        let kind = object.kind.name();
        match action {
            Action::Create(value) => {
                let create = self.write(Outgoing {
                    verb: "create",
                    kind,
                    request: requests.create(&params, value.to_string().into_bytes()),
                });
                create.await.map_err(|error| lost_if(error, object, &[409]))
            }
            Action::Replace(value) => {
                let body = value.to_string().into_bytes();
                let replace = self.write(Outgoing {
                    verb: "update",
                    kind,
                    request: requests.replace(&object.name, &params, body),
                });
                let replaced = replace.await;
                replaced.map_err(|error| lost_if(error, object, &[404, 409]))
            }
            Action::Patch(patch) => self.patch(object, patch).await,
        }
    }

    /// Sends a JSON Patch that begins with tests. The API server answers 422 both to a failed test and to an invalid result; only a fresh
    /// read shows which it was.
    async fn patch(&self, object: &ObjectRef, patch: &Value) -> Result<RawObject, ClusterError> {
        let requests = requests_for(object.kind, Some(&object.namespace));
        let json_patch = serde_json::from_value(patch.clone()).unwrap_or_default();
        let patched = self
            .write(Outgoing {
                verb: "patch",
                kind: object.kind.name(),
                request: requests.patch(
                    &object.name,
                    &PatchParams::default(),
                    &Patch::<()>::Json(json_patch),
                ),
            })
            .await;
        match patched {
            Err(refused @ ClusterError::Refused { code: 422, .. }) => match self.get(object).await?
            {
                Some(now) if now.value().is_ok_and(|now| tests_hold(patch, &now)) => Err(refused),
                _ => Err(lost(object)),
            },
            other => other.map_err(|error| lost_if(error, object, &[404, 409])),
        }
    }

    /// Writes the status of a Canary whose resourceVersion is still `version`. Returns the Canary as it is then.
    ///
    /// # Errors
    /// The Canary has changed ([`ClusterError::Lost`]), this process does not lead, or the API server refused or is unreachable.
    pub async fn commit(
        &self,
        canary: &ObjectRef,
        version: &str,
        status: Value,
    ) -> Result<RawObject, ClusterError> {
        let patch = json!({"metadata": {"resourceVersion": version}, "status": status});
        let requests = requests_for(Kind::Canary, Some(&canary.namespace));
        let patched = self
            .write(Outgoing {
                verb: "patch",
                kind: Kind::Canary.name(),
                request: requests.patch_subresource(
                    "status",
                    &canary.name,
                    &PatchParams::default(),
                    &Patch::Merge(patch),
                ),
            })
            .await;
        patched.map_err(|error| lost_if(error, canary, &[404, 409]))
    }

    /// Whether this process leads. Another process writes nothing and notifies nobody.
    pub fn may_write(&self) -> bool {
        self.leadership.may_write()
    }

    /// The metrics under which requests are counted.
    pub(super) const fn metrics(&self) -> &OperatorMetrics {
        &self.metrics
    }

    /// The clients for the lists and watches of the cache.
    pub(super) const fn clients(&self) -> &Clients {
        &self.clients
    }

    /// Sends a request that writes, if this process leads.
    pub(super) async fn write<T: DeserializeOwned>(
        &self,
        outgoing: Outgoing,
    ) -> Result<T, ClusterError> {
        if !self.may_write() {
            return Err(ClusterError::NotLeader);
        }
        let written = self.send(WRITE_DEADLINE, outgoing).await;
        written.map_err(|error| {
            if self.may_write() {
                error
            } else {
                ClusterError::NotLeader
            }
        })
    }

    /// Sends a request that changes nothing.
    pub(super) async fn read<T: DeserializeOwned>(
        &self,
        outgoing: Outgoing,
    ) -> Result<T, ClusterError> {
        self.send(READ_DEADLINE, outgoing).await
    }

    async fn send<T: DeserializeOwned>(
        &self,
        deadline: Duration,
        outgoing: Outgoing,
    ) -> Result<T, ClusterError> {
        self.metrics.request(outgoing.verb, outgoing.kind);
        let client: &Client = &self.clients.requests;
        send(client, deadline, outgoing.request).await
    }
}

fn lost(object: &ObjectRef) -> ClusterError {
    ClusterError::Lost(format!("{} {}", object.kind.name(), object.name))
}

/// Turns refusals with these codes into [`ClusterError::Lost`].
fn lost_if(error: ClusterError, object: &ObjectRef, codes: &[u16]) -> ClusterError {
    match error.code() {
        Some(code) if codes.contains(&code) => lost(object),
        _ => error,
    }
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

#[cfg(test)]
mod tests;
