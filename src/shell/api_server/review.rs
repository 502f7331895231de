//! The rights of this account, for `flagger check`. An access review is an exception to the rule that only the leader writes (see
//! [`super`]).

use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::{api::PostParams, core::Request};

use super::{
    cluster::{Cluster, Outgoing},
    request::{ClusterError, requests},
};

impl Cluster {
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
