//! nGrinder: clones a test there, starts it, and asks for it until it has ended. What is sent, read and said is Flagger's.

use std::time::Duration;

use base64::{DecodeError, Engine, engine::general_purpose::STANDARD};
use serde_json::Value;
use url::Url;

use super::{Metadata, Progress};
use crate::{
    api::duration,
    snapshot::{HttpRequest, Method, Secret},
};

/// The longest that one call may take.
const CALL: Duration = Duration::from_secs(60);
/// The pause before each question, where none is said; Flagger's.
const INTERVAL: Duration = Duration::from_secs(1);

/// A test to clone, and how to ask for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    server: Url,
    /// The id of the test that is cloned.
    pub clone: i64,
    authorization: Secret,
    /// The pause before each question.
    pub interval: Duration,
}

impl Job {
    /// The test that metadata describe, or what is wrong with them.
    pub fn of(metadata: &Metadata) -> Result<Self, String> {
        let text = |key: &str| metadata.get(key).filter(|value| !value.is_empty());
        let (Some(server), Some(clone), Some(user), Some(password)) = (
            text("server"),
            text("clone"),
            text("username"),
            text("passwd"),
        ) else {
            return Err("server, clone, username and passwd are required metadata".to_owned());
        };
        let server =
            Url::parse(server).map_err(|error| format!("invalid url: {server}: {error}"))?;
        let clone = clone.parse().map_err(|_| {
            format!(
                "metadata clone must be integer: strconv.Atoi: parsing {clone:?}: invalid syntax"
            )
        })?;
        let decoded = STANDARD.decode(password).map_err(|error| {
            let at = match error {
                DecodeError::InvalidByte(at, _) => at,
                _ => password.len(),
            };
            format!("metadata password is invalid: illegal base64 data at input byte {at}")
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

    /// The call that clones the test and starts it.
    pub fn start(&self) -> Result<HttpRequest, String> {
        self.call(Method::Post, &format!("{}/clone_and_start", self.clone))
    }

    /// The call that asks how far it is.
    pub fn ask(&self, id: i64) -> Result<HttpRequest, String> {
        self.call(Method::Get, &format!("{id}/status"))
    }

    /// The call that stops it.
    pub fn stop(&self, id: i64) -> Result<HttpRequest, String> {
        self.call(Method::Put, &format!("{id}?action=stop"))
    }

    fn call(&self, method: Method, path: &str) -> Result<HttpRequest, String> {
        let url = self.server.join(&format!("perftest/api/{path}"));
        let url = url.map_err(|error| format!("invalid url: {error}"))?;
        Ok(HttpRequest {
            method,
            url: Secret(url.into()),
            headers: vec![("Authorization".to_owned(), self.authorization.clone())],
            body: None,
            timeout: CALL,
            retries: 0,
            budget: None,
            proxy: None,
            insecure_skip_verify: false,
        })
    }
}

/// The id of the test that was started.
pub fn started(body: &str) -> Result<i64, String> {
    let answer = answer(body)?;
    let id = answer.get("id").and_then(Value::as_i64);
    id.ok_or_else(|| format!("nGrinder's answer has no id: {body}"))
}

/// How far the test is.
pub fn progress(body: &str) -> Result<Progress, String> {
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

fn answer(body: &str) -> Result<Value, String> {
    let answer: Value = serde_json::from_str(body)
        .map_err(|error| format!("json unmarshalling failed: {error} for {body}"))?;
    if answer.get("success") == Some(&Value::Bool(false)) {
        return Err(format!("request failed: {body}"));
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(more: &[(&str, &str)]) -> Result<Job, String> {
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
    fn a_test_is_cloned_started_asked_for_and_stopped() {
        let job = job(&[]).unwrap();
        let id = started(r#"{"status": "READY","id": 961}"#).unwrap();
        for (request, method, url) in [
            (
                job.start(),
                Method::Post,
                "http://ngrinder:8080/perftest/api/960/clone_and_start",
            ),
            (
                job.ask(id),
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
    fn the_interval_is_what_is_asked_for() {
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
    fn how_far_a_test_is_stands_in_its_first_status() {
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
            assert_eq!(progress(body), expected, "{body}");
        }
        assert!(
            progress("<html>")
                .unwrap_err()
                .starts_with("json unmarshalling failed: ")
        );
        assert!(started("{}").unwrap_err().contains("no id"));
    }

    #[test]
    fn what_is_wrong_is_told_in_flaggers_words() {
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
            let told = job(&[(key, value)]).unwrap_err();
            assert!(told.starts_with(why), "{told}");
        }
    }
}
