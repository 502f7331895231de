//! Requests for records of releases: an exception to the rule that writes are conditional (see [`super`]).

use kube::{
    api::{DeleteParams, Patch, PatchParams},
    core::Request,
};
use serde_json::Value;

use super::{
    cluster::{Cluster, Outgoing},
    request::{ClusterError, requests_for},
};
use crate::snapshot::{Kind, ObjectRef};

impl Cluster {
    /// Changes a record by a JSON merge patch.
    ///
    /// # Errors
    /// This process does not lead, or the API server refused or is unreachable.
    pub async fn patch_release(
        &self,
        object: &ObjectRef,
        patch: Value,
    ) -> Result<(), ClusterError> {
        let patched = self.write::<Value>(Outgoing {
            verb: "patch",
            kind: Kind::Release.name(),
            request: requests(object).patch(
                &object.name,
                &PatchParams::default(),
                &Patch::Merge(patch),
            ),
        });
        patched.await.map(|_| ())
    }

    /// Deletes a record. One that is gone already is no error.
    ///
    /// # Errors
    /// This process does not lead, or the API server refused or is unreachable.
    pub async fn delete_release(&self, object: &ObjectRef) -> Result<(), ClusterError> {
        let deleted = self.write::<Value>(Outgoing {
            verb: "delete",
            kind: Kind::Release.name(),
            request: requests(object).delete(&object.name, &DeleteParams::default()),
        });
        match deleted.await {
            Ok(_) | Err(ClusterError::Refused { code: 404, .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn requests(object: &ObjectRef) -> Request {
    requests_for(object.kind, Some(&object.namespace))
}
