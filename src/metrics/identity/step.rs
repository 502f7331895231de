//! The steps of an exchange, and its result.

use std::{borrow::Cow, time::Duration};

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use url::form_urlencoded;

use super::sigv4::{Keys, sign};
use crate::snapshot::{HttpRequest, HttpResponse, Method, Origin, Secret, excerpt, go};

/// The longest that one attempt of a request may take. The endpoints are near, or built for much traffic.
const TIMEOUT: Duration = Duration::from_secs(4);
/// The longest lifetime of a token. No cloud gives more; a longer lifetime is an error of the answer and is cut to this one.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// The errors of AWS about keys that have expired or were deleted.
const OUTDATED: [&str; 3] = ["ExpiredToken", "UnrecognizedClient", "InvalidClientTokenId"];

/// The next step of an exchange.
pub enum Step {
    /// Read this file of the operator's pod.
    Read(String),
    /// Send this request. An answer with another status than 200 ends the exchange.
    Call(HttpRequest),
    /// The exchange is complete.
    Done(Grant),
}

/// The result of an exchange.
pub struct Grant {
    /// The proof of the identity.
    pub pass: Pass,
    /// The time at which the proof expires.
    pub until: Timestamp,
}

/// The proof of an identity to a cloud.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pass {
    /// A token for the `Authorization` header.
    Token(Secret),
    /// Keys that sign requests to AWS.
    Keys(Keys),
}

impl Pass {
    /// Adds the proof to a request that is sent now, in place of any other `Authorization`.
    #[must_use]
    pub fn on(&self, mut request: HttpRequest, now: Timestamp) -> HttpRequest {
        request
            .headers
            .retain(|(name, _)| !name.eq_ignore_ascii_case("authorization"));
        match self {
            Self::Token(Secret(token)) => {
                let value = Secret(format!("Bearer {token}"));
                request.headers.push(("Authorization".to_owned(), value));
                request
            }
            Self::Keys(keys) => sign(request, keys, now),
        }
    }

    /// Whether a server does not accept the proof, but may accept a newer one.
    pub fn is_rejected(&self, answer: &HttpResponse) -> bool {
        match self {
            Self::Token(_) => answer.status == 401,
            Self::Keys(_) => {
                let mut names = OUTDATED.iter();
                matches!(answer.status, 400 | 401 | 403) && names.any(|it| answer.body.contains(it))
            }
        }
    }

    /// Hides the proof in an answer that repeats it.
    #[must_use]
    pub fn hide(&self, answer: HttpResponse) -> HttpResponse {
        match self {
            Self::Token(Secret(token)) => hide(answer, &[token]),
            Self::Keys(keys) => {
                let token = keys.token.as_ref().map_or("", |token| &token.0);
                hide(answer, &[&keys.secret.0, token])
            }
        }
    }
}

/// Hides secret texts in an answer, because the answer may become part of an event.
fn hide(mut answer: HttpResponse, secrets: &[&str]) -> HttpResponse {
    for secret in secrets {
        if !secret.is_empty() && answer.body.contains(secret) {
            answer.body = answer.body.replace(secret, "[redacted]");
        }
    }
    answer
}

/// The reason why an exchange has no result. No text quotes a file, or an answer with status 200, because they may contain a token. In the
/// text of a refusal, the secrets of the request are hidden.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// A variable of the pod's environment is missing.
    #[error("the operator's pod has no variable {name}: {advice}")]
    NotSet {
        /// The variable.
        name: &'static str,
        /// The remedy.
        advice: &'static str,
    },
    /// An endpoint refused.
    #[error("{host} answers {status}")]
    Refused {
        /// The host of the endpoint.
        host: String,
        /// The status, and an excerpt of the reason.
        status: String,
    },
    /// An answer or a file does not have the documented form.
    #[error("{what} is not as documented: it has no usable {field}")]
    Unreadable {
        /// The answer or the file.
        what: &'static str,
        /// The field that is missing or wrong.
        field: &'static str,
    },
}

/// The fields of forms, and the headers, that prove an identity to an endpoint.
const SECRET_FIELDS: [&str; 6] = [
    "assertion",
    "client_secret",
    "client_assertion",
    "authorization",
    "WebIdentityToken",
    "X-aws-ec2-metadata-token",
];

/// The error about an answer with another status than 200.
pub fn refusal(request: &HttpRequest, response: HttpResponse) -> IdentityError {
    let form = form_urlencoded::parse(request.body.as_deref().unwrap_or_default().as_bytes());
    let headers = request.headers.iter();
    let headers = headers.map(|(name, value)| (Cow::from(name), Cow::from(&value.0)));
    let is_secret = |name: &str| SECRET_FIELDS.iter().any(|it| it.eq_ignore_ascii_case(name));
    let secrets = form.chain(headers).filter(|(name, _)| is_secret(name));
    let secrets = secrets.flat_map(|(_, value)| {
        let encoded: String = form_urlencoded::byte_serialize(value.as_bytes()).collect();
        [value.into_owned(), encoded]
    });
    let secrets: Vec<_> = secrets.collect();
    let secrets: Vec<_> = secrets.iter().map(String::as_str).collect();
    let response = hide(response, &secrets);
    let url = url::Url::parse(&request.url.0).ok();
    let host = url.as_ref().and_then(url::Url::host_str);
    let status = go::status(response.status);
    let body = excerpt(response.body.trim());
    IdentityError::Refused {
        host: host.unwrap_or_default().to_owned(),
        status: if body.is_empty() {
            status
        } else {
            format!("{status}: {body}")
        },
    }
}

/// A GET request to an endpoint of the administrator's choice.
pub fn get(url: String, headers: &[(&str, &str)]) -> HttpRequest {
    let headers = headers.iter().map(|(name, value)| {
        let value = Secret((*value).to_owned());
        ((*name).to_owned(), value)
    });
    HttpRequest {
        method: Method::Get,
        url: Secret(url),
        headers: headers.collect(),
        body: None,
        timeout: TIMEOUT,
        retries: 1,
        budget: Some(2 * TIMEOUT),
        proxy: None,
        insecure_skip_verify: false,
        origin: Origin::Administrator,
    }
}

/// A POST request with a form.
pub fn post(url: String, form: &[(&str, &str)]) -> HttpRequest {
    let mut body = form_urlencoded::Serializer::new(String::new());
    body.extend_pairs(form);
    HttpRequest {
        method: Method::Post,
        body: Some(body.finish()),
        ..get(
            url,
            &[("Content-Type", "application/x-www-form-urlencoded")],
        )
    }
}

/// Reads the answer of an OAuth endpoint: a token and its lifetime in seconds, which Azure's metadata service writes as text.
pub fn oauth(what: &'static str, body: &str, now: Timestamp) -> Result<Step, IdentityError> {
    let unreadable = |field| IdentityError::Unreadable { what, field };
    let answer: OAuth = serde_json::from_str(body).map_err(|_| unreadable("JSON"))?;
    let token = answer.access_token.filter(|token| is_sendable(token));
    let token = token.ok_or_else(|| unreadable("access_token"))?;
    let seconds = match &answer.expires_in {
        Value::String(text) => text.parse().ok(),
        other => other.as_u64(),
    };
    let lifetime = Duration::from_secs(seconds.ok_or_else(|| unreadable("expires_in"))?);
    Ok(Step::Done(Grant {
        pass: Pass::Token(Secret(token)),
        until: now
            .checked_add(lifetime.min(LONGEST))
            .unwrap_or(Timestamp::MAX),
    }))
}

/// Whether a header may contain this text.
pub fn is_sendable(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[derive(Deserialize)]
struct OAuth {
    access_token: Option<String>,
    #[serde(default)]
    expires_in: Value,
}
