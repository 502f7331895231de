//! Requests of `plan`: reads, writes as dry runs, and questions about rights, all with the rights of the person. None of them stores
//! anything.

use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec, SubjectAccessReview,
    SubjectAccessReviewSpec,
};
use kube::api::{GetParams, Patch, PatchParams, PostParams, ValidationDirective};
use serde_json::Value;

use super::{
    calls,
    person::Person,
    raw_object::RawObject,
    request::{ClusterError, Prepared, READ_DEADLINE, requests, requests_for, send},
};
use crate::snapshot::{Action, HttpRequest, HttpResponse, ObjectRef, Write};

/// How the API server treats fields that it does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// It drops them, as for the operator.
    Dropped,
    /// It refuses the write, as for `kubectl apply`.
    Refused,
}

impl Person {
    /// Reads an object as the operator reads it; `None` if it, or its kind, does not exist.
    ///
    /// # Errors
    /// The API server refused or is unreachable.
    pub async fn read(&self, object: &ObjectRef) -> Result<Option<Value>, ClusterError> {
        let request = requests_for(object.kind, Some(&object.namespace));
        let request = request.get(&object.name, &GetParams::default());
        match send::<RawObject>(&self.client, READ_DEADLINE, request).await {
            Ok(read) => value(object, &read).map(Some),
            Err(ClusterError::Refused { code: 404, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Tries a write as a dry run. Returns the object as it would be then.
    ///
    /// # Errors
    /// The API server refused or is unreachable.
    pub async fn dry_run(&self, write: &Write, unknown: Unknown) -> Result<Value, ClusterError> {
        let Write { object, action, .. } = write;
        let requests = requests_for(object.kind, Some(&object.namespace));
        let params = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        let request = match action {
            Action::Create(value) => requests
                .create(&params, value.to_string().into_bytes())
                .map(|request| strict(request, unknown)),
            Action::Replace(value) => {
                requests.replace(&object.name, &params, value.to_string().into_bytes())
            }
            Action::Patch(patch) => {
                let patch = serde_json::from_value(patch.clone()).unwrap_or_default();
                let params = PatchParams {
                    dry_run: true,
                    field_validation: (unknown == Unknown::Refused)
                        .then_some(ValidationDirective::Strict),
                    ..PatchParams::default()
                };
                requests.patch(&object.name, &params, &Patch::<()>::Json(patch))
            }
        };
        // Wait longer than the operator would for a write: admission webhooks may be slow, and the wait delays no release.
        let request: Prepared = request;
        let tried = send::<RawObject>(&self.client, READ_DEADLINE, request).await?;
        value(object, &tried)
    }

    /// Whether this person has a right.
    ///
    /// # Errors
    /// The API server refused or is unreachable.
    pub async fn i_may(&self, right: ResourceAttributes) -> Result<bool, ClusterError> {
        let review = SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec {
                resource_attributes: Some(right),
                ..SelfSubjectAccessReviewSpec::default()
            },
            ..SelfSubjectAccessReview::default()
        };
        let body = serde_json::to_vec(&review).unwrap_or_default();
        let answer = self.review("selfsubjectaccessreviews", body).await?;
        Ok(answer["status"]["allowed"] == true)
    }

    /// Whether an account of a namespace has a right.
    ///
    /// # Errors
    /// The API server refused, because the person may not ask this, or is unreachable.
    pub async fn may(
        &self,
        (namespace, name): (&str, &str),
        right: ResourceAttributes,
    ) -> Result<bool, ClusterError> {
        let groups = [
            "system:serviceaccounts".to_owned(),
            format!("system:serviceaccounts:{namespace}"),
            "system:authenticated".to_owned(),
        ];
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(format!("system:serviceaccount:{namespace}:{name}")),
                groups: Some(groups.to_vec()),
                resource_attributes: Some(right),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let body = serde_json::to_vec(&review).unwrap_or_default();
        let answer = self.review("subjectaccessreviews", body).await?;
        Ok(answer["status"]["allowed"] == true)
    }

    async fn review(&self, plural: &str, body: Vec<u8>) -> Result<Value, ClusterError> {
        let reviews = requests("authorization.k8s.io", "v1", plural, None);
        let request = reviews.create(&PostParams::default(), body);
        send(&self.client, READ_DEADLINE, request).await
    }

    /// Sends the request of a metric provider to the API server.
    ///
    /// # Errors
    /// The API server is unreachable.
    pub async fn call(&self, request: &HttpRequest) -> Result<HttpResponse, String> {
        calls::answer(&self.client, request).await
    }
}

fn value(object: &ObjectRef, read: &RawObject) -> Result<Value, ClusterError> {
    let name = || format!("{} {}", object.kind.name(), object.name);
    read.value()
        .map_err(|error| ClusterError::Unreadable(format!("{}: {error}", name())))
}

/// The request to create an object; kube has no parameter for unknown fields there.
fn strict(mut request: http::Request<Vec<u8>>, unknown: Unknown) -> http::Request<Vec<u8>> {
    if unknown == Unknown::Refused
        && let Ok(uri) = format!("{}&fieldValidation=Strict", request.uri()).parse()
    {
        *request.uri_mut() = uri;
    }
    request
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{shell::api_server::fake::FakeApiServer, snapshot::Kind};

    #[tokio::test]
    async fn every_write_is_a_dry_run() {
        let server = FakeApiServer::answering(|_| Some((200, json!({"metadata": {"name": "a"}}))));
        let person = Person::of(server.client(), "test");
        for action in [
            Action::Create(json!({})),
            Action::Replace(json!({})),
            Action::Patch(json!([])),
        ] {
            let object = ObjectRef {
                kind: Kind::Service,
                namespace: "test".to_owned(),
                name: "a".to_owned(),
            };
            let write = Write {
                object,
                action,
                failure: String::new(),
            };
            for unknown in [Unknown::Dropped, Unknown::Refused] {
                person.dry_run(&write, unknown).await.unwrap();
            }
        }
        let lines = server.take_lines();
        assert_eq!(lines.len(), 6);
        for line in &lines {
            assert!(line.contains("dryRun=All"), "{line}");
        }
        let strict = lines
            .iter()
            .filter(|line| line.contains("fieldValidation=Strict"));
        assert_eq!(strict.count(), 2, "{lines:?}");
    }
}
