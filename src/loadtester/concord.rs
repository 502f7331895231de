//! Concord: starts a process on a Concord server and polls it until it ends. Requests, answers and messages are those of Flagger's load
//! tester.

use std::{fmt::Write, time::Duration};

use serde::Deserialize;
use sha2::{Digest, Sha256};
use url::Url;

use super::{Metadata, Progress};
use crate::snapshot::{HttpRequest, Method, Origin, Secret};

/// The path of processes on the server.
const PROCESSES: &str = "/api/v1/process";
/// The time limit of one request.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A process to start, and how to poll it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    server: String,
    /// The fields of the form that starts the process, in order.
    fields: Vec<(String, String)>,
    /// The path of the file with the value of the header `Authorization`.
    pub key_path: String,
    /// The pause before each poll.
    pub interval: Duration,
    /// The limit of that pause. A job with a longer pause ends after this time. (Flagger does not use the limit otherwise.)
    pub patience: Duration,
}

/// The reason why a process cannot be started or polled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConcordError {
    /// The metadata have no such key.
    #[error("`{0}` is required with type concord")]
    Missing(&'static str),
    /// An argument would override the endpoint.
    #[error("You cannot override Endpoint through arguments. You must override Endpoint directly")]
    EndpointOverridden,
    /// The value of this key is not an integer.
    #[error("unable to convert `{0}` to int")]
    NotAnInteger(&'static str),
    /// The value of `server` is not a URL.
    #[error("`server` is not a URL: {0}")]
    NotAServer(url::ParseError),
    /// The answer to the start of the process is not JSON; the text is the parser's.
    #[error("{0}")]
    NotJson(String),
    /// The answer to the start of the process has no id.
    #[error("Concord's answer has no instanceId")]
    NoInstance,
    /// The answer to a poll is not JSON; the text is the parser's.
    #[error("failed checking status: {0}")]
    StatusNotJson(String),
}

impl Job {
    /// Reads the process from the hook's metadata.
    pub fn of(metadata: &Metadata) -> Result<Self, ConcordError> {
        let required = |key: &'static str| {
            let value = metadata.get(key).cloned();
            value.ok_or(ConcordError::Missing(key))
        };
        let server = required("server")?;
        let (org, project, repo) = (required("org")?, required("project")?, required("repo")?);
        let entrypoint = required("entrypoint")?;
        let key_path = required("apiKeyPath")?;
        let mut fields = vec![
            ("org".to_owned(), org),
            ("project".to_owned(), project),
            ("repo".to_owned(), repo),
            ("entryPoint".to_owned(), entrypoint),
            ("arguments.endpoint".to_owned(), required("endpoint")?),
        ];
        if metadata.contains_key("arguments.endpoint") {
            return Err(ConcordError::EndpointOverridden);
        }
        let arguments = metadata
            .iter()
            .filter(|(key, _)| key.starts_with("arguments."));
        fields.extend(arguments.map(|(key, value)| (key.clone(), value.clone())));
        Ok(Self {
            server,
            fields,
            key_path,
            // Flagger panics with an interval of 0.
            interval: seconds(metadata, "pollInterval", 5)?.max(Duration::from_secs(1)),
            patience: seconds(metadata, "pollTimeout", 30)?,
        })
    }

    /// The request that starts the process. `key` is the content of the key file.
    pub fn start(&self, key: &str) -> Result<HttpRequest, ConcordError> {
        let (kind, form) = form(&self.fields);
        let mut request = self.request(Method::Post, PROCESSES, key)?;
        request
            .headers
            .push(("Content-Type".to_owned(), Secret(kind)));
        request.body = Some(form);
        Ok(request)
    }

    /// The request that polls the process.
    pub fn poll(&self, instance: &str, key: &str) -> Result<HttpRequest, ConcordError> {
        self.request(Method::Get, &format!("{PROCESSES}/{instance}"), key)
    }

    fn request(&self, method: Method, path: &str, key: &str) -> Result<HttpRequest, ConcordError> {
        let url = Url::parse(&self.server).and_then(|server| server.join(path));
        let url = url.map_err(ConcordError::NotAServer)?;
        // A newline at the end of the file does not belong to the key.
        let key = key.trim();
        let header = ("Authorization".to_owned(), Secret(key.to_owned()));
        Ok(HttpRequest {
            method,
            url: Secret(url.into()),
            headers: Some(header)
                .filter(|_| !key.is_empty())
                .into_iter()
                .collect(),
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

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Process {
    instance_id: String,
    status: String,
}

/// Reads the id of the started process.
pub fn instance(body: &str) -> Result<String, ConcordError> {
    let process: Process =
        serde_json::from_str(body).map_err(|error| ConcordError::NotJson(error.to_string()))?;
    if process.instance_id.is_empty() {
        return Err(ConcordError::NoInstance);
    }
    Ok(process.instance_id)
}

/// Reads the progress of the process.
pub fn progress(instance: &str, body: &str) -> Result<Progress, ConcordError> {
    let process: Process = serde_json::from_str(body)
        .map_err(|error| ConcordError::StatusNotJson(error.to_string()))?;
    let failed = |how| Progress::Failed(format!("concord instanceID: {instance} {how}"));
    Ok(match process.status.as_str() {
        "FINISHED" => Progress::Finished,
        "FAILED" => failed("failed"),
        // These two are final too. Flagger continues to poll.
        "CANCELLED" => failed("was cancelled"),
        "TIMED_OUT" => failed("timed out"),
        _ => Progress::Running,
    })
}

fn seconds(metadata: &Metadata, key: &'static str, default: u64) -> Result<Duration, ConcordError> {
    let seconds = match metadata.get(key) {
        None => default,
        Some(value) => {
            let seconds: i64 = value.parse().map_err(|_| ConcordError::NotAnInteger(key))?;
            u64::try_from(seconds).unwrap_or(0)
        }
    };
    Ok(Duration::from_secs(seconds))
}

/// The content type and the text of a form. The boundary is a hash of the fields, so that no field contains it.
fn form(fields: &[(String, String)]) -> (String, String) {
    let boundary = format!("{:x}", Sha256::digest(format!("{fields:?}")));
    let mut text = String::new();
    for (name, value) in fields {
        let name = name.replace('\\', "\\\\").replace('"', "\\\"");
        let name = name.replace('\r', "%0D").replace('\n', "%0A");
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"
        );
    }
    let _ = write!(text, "--{boundary}--\r\n");
    (format!("multipart/form-data; boundary={boundary}"), text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(more: &[(&str, &str)]) -> Metadata {
        let mut metadata: Metadata = [
            ("server", "https://concord.test/ui/"),
            ("org", "my org"),
            ("project", "my project"),
            ("repo", "my repo"),
            ("entrypoint", "my-entrypoint"),
            ("endpoint", "example.org/path/to/thing"),
            ("apiKeyPath", "/key"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into();
        metadata.extend(
            more.iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned())),
        );
        metadata
    }

    #[test]
    fn a_process_is_started_with_a_form() {
        let job = Job::of(&metadata(&[
            ("arguments.test", "works"),
            ("type", "concord"),
        ]))
        .unwrap();
        let request = job.start("hush\n").unwrap();
        assert_eq!(request.url.0, "https://concord.test/api/v1/process");
        assert_eq!(
            request.headers[0],
            ("Authorization".to_owned(), Secret("hush".to_owned()))
        );
        let (_, boundary) = request.headers[1].1.0.split_once("boundary=").unwrap();
        let body = request.body.unwrap();
        let parts: Vec<_> = body.split(&format!("--{boundary}")).collect();
        let field = |name: &str, value: &str| {
            format!("\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
        };
        assert_eq!(
            parts,
            [
                "",
                &field("org", "my org"),
                &field("project", "my project"),
                &field("repo", "my repo"),
                &field("entryPoint", "my-entrypoint"),
                &field("arguments.endpoint", "example.org/path/to/thing"),
                &field("arguments.test", "works"),
                "--\r\n"
            ]
        );
    }

    #[test]
    fn a_process_is_polled_until_it_ends() {
        let job = Job::of(&metadata(&[("pollInterval", "1")])).unwrap();
        let times = (job.interval.as_secs(), job.patience.as_secs());
        assert_eq!(times, (1, 30));
        assert_eq!(
            instance(r#"{"instanceId":"i-1","ok":true}"#).unwrap(),
            "i-1"
        );
        let request = job.poll("i-1", "").unwrap();
        assert_eq!(request.url.0, "https://concord.test/api/v1/process/i-1");
        assert_eq!((request.headers, request.body), (Vec::new(), None));
        let failed = |why: &str| Progress::Failed(why.to_owned());
        for (status, expected) in [
            ("ENQUEUED", Progress::Running),
            ("FINISHED", Progress::Finished),
            ("FAILED", failed("concord instanceID: i-1 failed")),
            ("CANCELLED", failed("concord instanceID: i-1 was cancelled")),
            ("TIMED_OUT", failed("concord instanceID: i-1 timed out")),
        ] {
            let body = format!(r#"{{"instanceId":"i-1","status":"{status}"}}"#);
            assert_eq!(progress("i-1", &body), Ok(expected));
        }
        let error = progress("i-1", "<html>").unwrap_err().to_string();
        assert!(error.starts_with("failed checking status: "), "{error}");
        assert_eq!(instance("{}"), Err(ConcordError::NoInstance));
    }

    #[test]
    fn wrong_metadata_have_flaggers_errors() {
        for key in [
            "server",
            "org",
            "project",
            "repo",
            "entrypoint",
            "apiKeyPath",
            "endpoint",
        ] {
            let mut metadata = metadata(&[]);
            metadata.remove(key);
            assert_eq!(
                Job::of(&metadata).unwrap_err().to_string(),
                format!("`{key}` is required with type concord")
            );
        }
        for (key, value, why) in [
            (
                "pollInterval",
                "1s",
                "unable to convert `pollInterval` to int",
            ),
            ("pollTimeout", "", "unable to convert `pollTimeout` to int"),
            (
                "arguments.endpoint",
                "x",
                "You cannot override Endpoint through arguments. You must override Endpoint directly",
            ),
        ] {
            let error = Job::of(&metadata(&[(key, value)])).unwrap_err();
            assert_eq!(error.to_string(), why);
        }
        let job = Job::of(&metadata(&[("server", "example.org")])).unwrap();
        let error = job.start("").unwrap_err().to_string();
        assert!(error.contains("`server`"), "{error}");
    }
}
