//! Requests of `flagger check`: all Canaries, and the rights of this account. An access review is an exception to the rule that only the
//! leader writes (see [`super`]).

use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::{
    api::{ListParams, ObjectList, PostParams},
    core::Request,
};
use serde_json::Value;

use super::{
    cluster::{Cluster, Outgoing},
    raw_object::RawObject,
    request::{ClusterError, requests, requests_for},
};
use crate::snapshot::Kind;

/// The most canaries in one page of a list.
const PAGE: u32 = 100;

impl Cluster {
    /// Lists all Canaries of a namespace, or of all namespaces, sorted by namespace and name.
    ///
    /// # Errors
    /// The API server refused or is unreachable, or an object is nested too deeply to be read.
    pub async fn list_canaries(&self, namespace: Option<&str>) -> Result<Vec<Value>, ClusterError> {
        let requests = requests_for(Kind::Canary, namespace);
        let mut params = ListParams::default().limit(PAGE);
        let mut found = Vec::new();
        loop {
            let page: ObjectList<RawObject> = self
                .read(Outgoing {
                    verb: "list",
                    kind: Kind::Canary.name(),
                    request: requests.list(&params),
                })
                .await?;
            params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
            for canary in page.items {
                let canary = canary.value();
                found.push(
                    canary
                        .map_err(|error| ClusterError::Unreadable(format!("a Canary: {error}")))?,
                );
            }
            if params.continue_token.is_none() {
                return Ok(found);
            }
        }
    }

    /// Asks whether this account has a right.
    ///
    /// # Errors
    /// The API server refused or is unreachable.
    pub async fn is_allowed(&self, right: ResourceAttributes) -> Result<bool, ClusterError> {
        let review = SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec {
                resource_attributes: Some(right),
                ..SelfSubjectAccessReviewSpec::default()
            },
            ..SelfSubjectAccessReview::default()
        };
        let reviews: Request = requests(
            "authorization.k8s.io",
            "v1",
            "selfsubjectaccessreviews",
            None,
        );
        let body = serde_json::to_vec(&review).unwrap_or_default();
        let answer: SelfSubjectAccessReview = self
            .read(Outgoing {
                verb: "create",
                kind: "SelfSubjectAccessReview",
                request: reviews.create(&PostParams::default(), body),
            })
            .await?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    }
}

#[cfg(test)]
mod tests;
