//! nGrinder: clones a test on an nGrinder server, starts it and polls it until it ends. Requests, answers and messages are those of
//! Flagger's load tester.

use std::time::Duration;

use base64::{DecodeError, Engine, engine::general_purpose::STANDARD};
use serde_json::Value;
use url::Url;

use super::{Metadata, Progress};
use crate::{
    api::duration,
    snapshot::{HttpRequest, Method, Origin, Secret},
};

/// The time limit of one request.
const TIMEOUT: Duration = Duration::from_secs(60);
/// The pause before each poll if the metadata name none. Flagger has the same.
const INTERVAL: Duration = Duration::from_secs(1);

/// A test to clone and start, and how to poll it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    server: Url,
    /// The id of the test to clone.
    pub clone: i64,
    authorization: Secret,
    /// The pause before each poll.
    pub interval: Duration,
}

/// The reason why a test cannot be started or polled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NGrinderError {
    /// The metadata lack one of the required keys.
    #[error("server, clone, username and passwd are required metadata")]
    Missing,
    /// The value of `server` is not a URL.
    #[error("invalid url: {server}: {error}")]
    NotAServer {
        /// The value.
        server: String,
        /// The parser's error.
        error: url::ParseError,
    },
    /// The server's URL cannot be joined with the path of a request.
    #[error("invalid url: {0}")]
    NotABase(url::ParseError),
    /// The value of `clone` is not an integer.
    #[error("metadata clone must be integer: strconv.Atoi: parsing {0:?}: invalid syntax")]
    NotAnInteger(String),
    /// The value of `passwd` is not base64; the number is the position of the first wrong byte.
    #[error("metadata password is invalid: illegal base64 data at input byte {0}")]
    NotBase64(usize),
    /// The answer is not JSON.
    #[error("json unmarshalling failed: {error} for {body}")]
    NotJson {
        /// The parser's error.
        error: String,
        /// The body of the answer.
        body: String,
    },
    /// nGrinder refused the request. The text is the body of the answer.
    #[error("request failed: {0}")]
    Refused(String),
    /// The answer to the start of the test has no id. The text is the body of the answer.
    #[error("nGrinder's answer has no id: {0}")]
    NoId(String),
}

impl Job {
    /// Reads the test from the hook's metadata.
    pub fn of(metadata: &Metadata) -> Result<Self, NGrinderError> {
        let text = |key: &str| metadata.get(key).filter(|value| !value.is_empty());
        let (Some(server), Some(clone), Some(user), Some(password)) = (
            text("server"),
            text("clone"),
            text("username"),
            text("passwd"),
        ) else {
            return Err(NGrinderError::Missing);
        };
        let server = Url::parse(server).map_err(|error| NGrinderError::NotAServer {
            server: server.clone(),
            error,
        })?;
        let clone = clone
            .parse()
            .map_err(|_| NGrinderError::NotAnInteger(clone.clone()))?;
        let decoded = STANDARD.decode(password).map_err(|error| {
            NGrinderError::NotBase64(match error {
                DecodeError::InvalidByte(at, _) => at,
                _ => password.len(),
            })
        })?;
        let mut pair = format!("{user}:").into_bytes();
        pair.extend(decoded);
        let interval = text("pollInterval").and_then(|interval| duration::parse(interval));
        Ok(Self {
            server,
            clone,
            authorization: Secret(format!("Basic {}", STANDARD.encode(pair))),
            interval: interval.map_or(INTERVAL, |interval| {
                interval.max(Duration::from_millis(100))
            }),
        })
    }

    /// The request that clones the test and starts the clone.
    pub fn start(&self) -> Result<HttpRequest, NGrinderError> {
        self.request(Method::Post, &format!("{}/clone_and_start", self.clone))
    }

    /// The request that polls the started test.
    pub fn poll(&self, id: i64) -> Result<HttpRequest, NGrinderError> {
        self.request(Method::Get, &format!("{id}/status"))
    }

    /// The request that stops the started test.
    pub fn stop(&self, id: i64) -> Result<HttpRequest, NGrinderError> {
        self.request(Method::Put, &format!("{id}?action=stop"))
    }

    fn request(&self, method: Method, path: &str) -> Result<HttpRequest, NGrinderError> {
        let url = self.server.join(&format!("perftest/api/{path}"));
        let url = url.map_err(NGrinderError::NotABase)?;
        Ok(HttpRequest {
            method,
            url: Secret(url.into()),
            headers: vec![("Authorization".to_owned(), self.authorization.clone())],
            body: None,
            timeout: TIMEOUT,
            retries: 0,
            budget: None,
            proxy: None,
            insecure_skip_verify: false,
            origin: Origin::User,
        })
    }
}

/// Reads the id of the started test.
pub fn started(body: &str) -> Result<i64, NGrinderError> {
    let answer = answer(body)?;
    let id = answer.get("id").and_then(Value::as_i64);
    id.ok_or_else(|| NGrinderError::NoId(body.to_owned()))
}

/// Reads the progress of the test.
pub fn progress(body: &str) -> Result<Progress, NGrinderError> {
    let answer = answer(body)?;
    let status = answer
        .pointer("/status/0/status_id")
        .and_then(Value::as_str);
    Ok(match status {
        Some("FINISHED") => Progress::Finished,
        Some(status @ ("STOP_BY_ERROR" | "CANCELED" | "UNKNOWN")) => {
            Progress::Failed(format!("nGrinder says {status}"))
        }
        Some(_) | None => Progress::Running,
    })
}

fn answer(body: &str) -> Result<Value, NGrinderError> {
    let answer: Value = serde_json::from_str(body).map_err(|error| NGrinderError::NotJson {
        error: error.to_string(),
        body: body.to_owned(),
    })?;
    if answer.get("success") == Some(&Value::Bool(false)) {
        return Err(NGrinderError::Refused(body.to_owned()));
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(more: &[(&str, &str)]) -> Result<Job, NGrinderError> {
        let mut metadata: Metadata = [
            ("server", "http://ngrinder:8080"),
            ("clone", "960"),
            ("username", "admin"),
            ("passwd", "YWRtaW4="),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into();
        metadata.extend(
            more.iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned())),
        );
        Job::of(&metadata)
    }

    #[test]
    fn a_test_is_cloned_started_polled_and_stopped() {
        let job = job(&[]).unwrap();
        let id = started(r#"{"status": "READY","id": 961}"#).unwrap();
        for (request, method, url) in [
            (
                job.start(),
                Method::Post,
                "http://ngrinder:8080/perftest/api/960/clone_and_start",
            ),
            (
                job.poll(id),
                Method::Get,
                "http://ngrinder:8080/perftest/api/961/status",
            ),
            (
                job.stop(id),
                Method::Put,
                "http://ngrinder:8080/perftest/api/961?action=stop",
            ),
        ] {
            let request = request.unwrap();
            assert_eq!((request.method, request.url.0.as_str()), (method, url));
            assert_eq!(request.headers[0].1.0, "Basic YWRtaW46YWRtaW4=");
        }
    }

    #[test]
    fn the_interval_is_that_of_the_metadata() {
        for (text, millis) in [
            ("1s", 1000),
            ("10s", 10_000),
            ("soon", 1000),
            ("0s", 100),
            ("", 1000),
        ] {
            let job = job(&[("pollInterval", text)]).unwrap();
            assert_eq!(job.interval.as_millis(), millis, "{text}");
        }
    }

    #[test]
    fn the_first_status_is_the_progress_of_a_test() {
        for (body, expected) in [
            (
                r#"{"status": [{"status_id": "FINISHED"}]}"#,
                Ok(Progress::Finished),
            ),
            (
                r#"{"status": [{"status_id": "TESTING"}]}"#,
                Ok(Progress::Running),
            ),
            (r#"{"status": []}"#, Ok(Progress::Running)),
            (
                r#"{"status": [{"status_id": "CANCELED"}]}"#,
                Ok(Progress::Failed("nGrinder says CANCELED".to_owned())),
            ),
            (
                r#"{"success": false}"#,
                Err(r#"request failed: {"success": false}"#.to_owned()),
            ),
        ] {
            let read = progress(body).map_err(|error| error.to_string());
            assert_eq!(read, expected, "{body}");
        }
        let error = progress("<html>").unwrap_err().to_string();
        assert!(error.starts_with("json unmarshalling failed: "), "{error}");
        assert_eq!(started("{}"), Err(NGrinderError::NoId("{}".to_owned())));
    }

    #[test]
    fn wrong_metadata_have_flaggers_errors() {
        let missing = "server, clone, username and passwd are required metadata";
        for (key, value, why) in [
            ("server", "", missing),
            ("clone", "", missing),
            ("username", "", missing),
            ("passwd", "", missing),
            ("server", "ngrinder", "invalid url: ngrinder: "),
            (
                "clone",
                "x",
                "metadata clone must be integer: strconv.Atoi: parsing \"x\": invalid syntax",
            ),
            (
                "passwd",
                "YQ!=",
                "metadata password is invalid: illegal base64 data at input byte 2",
            ),
        ] {
            let error = job(&[(key, value)]).unwrap_err().to_string();
            assert!(error.starts_with(why), "{error}");
        }
    }
}
