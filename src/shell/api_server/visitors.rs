//! Access to the API server for the visitors of a dashboard. Each request about one canary is sent with the visitor's own token, or
//! impersonates the visitor, so that the dashboard can do nothing that the visitor may not do. Only the list of all canaries, and the reviews of
//! tokens, use the dashboard's own account.

use http::{HeaderMap, HeaderName, HeaderValue, header::AUTHORIZATION};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use kube::{Client, api::PostParams, client::Body, config::AuthInfo};

use super::{
    person::{NoConnection, Person},
    request::{ClusterError, READ_DEADLINE, requests, send},
};
use crate::cli::client::Reach;

const IMPERSONATE_USER: HeaderName = HeaderName::from_static("impersonate-user");
const IMPERSONATE_GROUP: HeaderName = HeaderName::from_static("impersonate-group");

/// The API server, for a process that acts for several people.
pub struct Visitors {
    own: Person,
    /// Has the address and the certificates of the API server, and no login.
    anonymous: Client,
}

impl Visitors {
    /// Connects as kubectl does. Sends no request.
    ///
    /// # Errors
    /// The kubeconfig is missing or wrong.
    pub async fn connect(reach: &Reach) -> Result<Self, NoConnection> {
        let config = Person::config(reach).await?;
        let mut anonymous = config.clone();
        anonymous.auth_info = AuthInfo::default();
        let nobody = Reach {
            as_user: None,
            as_groups: Vec::new(),
            ..reach.clone()
        };
        Ok(Self {
            own: Person::with(config, reach)?,
            anonymous: Person::with(anonymous, &nobody)?.client,
        })
    }

    /// Visitors who all share this client; for tests.
    #[cfg(test)]
    pub fn of(client: Client) -> Self {
        Self {
            own: Person::of(client.clone(), "test"),
            anonymous: client,
        }
    }

    /// The process itself.
    pub const fn own(&self) -> &Person {
        &self.own
    }

    /// A visitor with a token of their own; `None` if no token has this form.
    pub fn with_token(&self, token: &str) -> Option<Person> {
        let mut bearer = HeaderValue::from_str(&format!("Bearer {token}")).ok()?;
        bearer.set_sensitive(true);
        let headers = HeaderMap::from_iter([(AUTHORIZATION, bearer)]);
        Some(Person {
            client: with_headers(&self.anonymous, headers),
            namespace: self.own.namespace.clone(),
        })
    }

    /// A visitor whom a proxy names, by impersonation; `None` if no user or group has this form.
    pub fn impersonating(&self, user: &str, groups: &[String]) -> Option<Person> {
        let mut headers = HeaderMap::new();
        headers.insert(IMPERSONATE_USER, HeaderValue::from_str(user).ok()?);
        for group in groups {
            headers.append(IMPERSONATE_GROUP, HeaderValue::from_str(group).ok()?);
        }
        Some(Person {
            client: with_headers(&self.own.client, headers),
            namespace: self.own.namespace.clone(),
        })
    }

    /// The name of the user that a token belongs to; `None` if the API server does not accept the token.
    ///
    /// # Errors
    /// The API server refused the review, or is unreachable.
    pub async fn user_of(&self, token: &str) -> Result<Option<String>, ClusterError> {
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: token.to_owned(),
                ..TokenReviewSpec::default()
            },
            ..TokenReview::default()
        };
        let body = serde_json::to_vec(&review).unwrap_or_default();
        let reviews = requests("authentication.k8s.io", "v1", "tokenreviews", None);
        let request = reviews.create(&PostParams::default(), body);
        let answer: TokenReview = send(&self.own.client, READ_DEADLINE, request).await?;
        let status = answer.status.unwrap_or_default();
        if status.authenticated != Some(true) {
            return Ok(None);
        }
        Ok(status.user.and_then(|user| user.username))
    }
}

impl Person {
    /// The same person, who means this namespace if a request names none.
    #[must_use]
    pub fn within(&self, namespace: &str) -> Self {
        Self {
            client: self.client.clone(),
            namespace: namespace.to_owned(),
        }
    }
}

/// A client that adds these headers to each request. It shares the connections of the other client.
fn with_headers(client: &Client, headers: HeaderMap) -> Client {
    let (inner, namespace) = (client.clone(), client.default_namespace().to_owned());
    let service = tower::service_fn(move |mut request: http::Request<Body>| {
        let inner = inner.clone();
        for (name, value) in &headers {
            request.headers_mut().append(name, value.clone());
        }
        async move { inner.send(request).await }
    });
    Client::new(service, namespace)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::{shell::api_server::fake::FakeApiServer, snapshot::Kind};

    #[tokio::test]
    async fn each_visitor_has_a_login_of_their_own() {
        let server = wiremock::MockServer::start().await;
        let config = kube::Config::new(server.uri().parse().unwrap());
        let mut own = config.clone();
        own.auth_info.token = Some("of-the-process".to_owned().into());
        let reach = Reach::default();
        let visitors = Visitors {
            own: Person::with(own, &reach).unwrap(),
            anonymous: Person::with(config, &reach).unwrap().client,
        };
        let jane = visitors.with_token("of-jane").unwrap();
        let kim = visitors
            .impersonating("kim", &["on-call".to_owned(), "dev".to_owned()])
            .unwrap();
        for (person, token, user, groups) in [
            (&jane, "Bearer of-jane", None, &[][..]),
            (
                &kim,
                "Bearer of-the-process",
                Some("kim"),
                &["on-call", "dev"],
            ),
        ] {
            server.reset().await;
            let refused = person.get(Kind::Canary, "shop", "web").await;
            assert_eq!(refused.unwrap_err().code(), Some(404));
            let request = server.received_requests().await.unwrap().remove(0);
            let sent = |name: &str| {
                let values = request.headers.get_all(name).iter();
                values
                    .map(|it| it.to_str().unwrap().to_owned())
                    .collect::<Vec<_>>()
            };
            assert_eq!(sent("authorization"), [token]);
            assert_eq!(sent("impersonate-user"), Vec::from_iter(user));
            assert_eq!(sent("impersonate-group"), groups);
        }
        assert!(visitors.with_token("a\r\nb").is_none());
        assert!(visitors.impersonating("a\nb", &[]).is_none());
    }

    #[tokio::test]
    async fn a_token_that_the_api_server_does_not_accept_belongs_to_nobody() {
        let answers = Arc::new(std::sync::Mutex::new(vec![
            json!({"spec": {}, "status": {"authenticated": false, "user": {"username": "x"}}}),
            json!({"spec": {}, "status": {"authenticated": true, "user": {"username": "jane"}}}),
        ]));
        let server = FakeApiServer::answering(move |_| Some((201, answers.lock().unwrap().pop()?)));
        let own = Person::of(server.client(), "test");
        let anonymous = server.client();
        let visitors = Visitors { own, anonymous };
        let known = visitors.user_of("good").await.unwrap();
        assert_eq!(known.as_deref(), Some("jane"));
        assert_eq!(visitors.user_of("bad").await.unwrap(), None);
    }
}
