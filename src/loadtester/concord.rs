//! Concord: starts a process there and asks for it until it has ended. What is sent, read and said is Flagger's.

use std::{fmt::Write, time::Duration};

use serde::Deserialize;
use sha2::{Digest, Sha256};
use url::Url;

use super::{Metadata, Progress};
use crate::snapshot::{HttpRequest, Method, Secret};

/// Where processes are, below the server's origin.
const PROCESSES: &str = "/api/v1/process";
/// The longest that one call may take.
const CALL: Duration = Duration::from_secs(60);

/// A process to start, and how to ask for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    server: String,
    /// The fields of the form that starts it, in order.
    fields: Vec<(String, String)>,
    /// The file with what goes into `Authorization`.
    pub key_path: String,
    /// The pause before each question.
    pub interval: Duration,
    /// The longest that the pause may be; Flagger counts no further.
    pub patience: Duration,
}

impl Job {
    /// The process that metadata describe, or what is wrong with them.
    pub fn of(metadata: &Metadata) -> Result<Self, String> {
        let required = |key: &str| {
            let value = metadata.get(key).cloned();
            value.ok_or_else(|| format!("`{key}` is required with type concord"))
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
            return Err("You cannot override Endpoint through arguments. You must override Endpoint directly".to_owned());
        }
        let arguments = metadata
            .iter()
            .filter(|(key, _)| key.starts_with("arguments."));
        fields.extend(arguments.map(|(key, value)| (key.clone(), value.clone())));
        Ok(Self {
            server,
            fields,
            key_path,
            // Go ends where an interval is none.
            interval: seconds(metadata, "pollInterval", 5)?.max(Duration::from_secs(1)),
            patience: seconds(metadata, "pollTimeout", 30)?,
        })
    }

    /// The call that starts the process; `key` is what is in the file.
    pub fn start(&self, key: &str) -> Result<HttpRequest, String> {
        let (kind, form) = form(&self.fields);
        let mut request = self.call(Method::Post, PROCESSES, key)?;
        request
            .headers
            .push(("Content-Type".to_owned(), Secret(kind)));
        request.body = Some(form);
        Ok(request)
    }

    /// The call that asks how far it is.
    pub fn ask(&self, instance: &str, key: &str) -> Result<HttpRequest, String> {
        self.call(Method::Get, &format!("{PROCESSES}/{instance}"), key)
    }

    fn call(&self, method: Method, path: &str, key: &str) -> Result<HttpRequest, String> {
        let url = Url::parse(&self.server).and_then(|server| server.join(path));
        let url = url.map_err(|error| format!("`server` is no address of a server: {error}"))?;
        // A newline at the end of a file is no part of what it says.
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
            timeout: CALL,
            retries: 0,
            budget: None,
            proxy: None,
            insecure_skip_verify: false,
        })
    }
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Process {
    instance_id: String,
    status: String,
}

/// The id of the process that was started.
pub fn instance(body: &str) -> Result<String, String> {
    let process: Process = serde_json::from_str(body).map_err(|error| error.to_string())?;
    if process.instance_id.is_empty() {
        return Err("Concord's answer has no instanceId".to_owned());
    }
    Ok(process.instance_id)
}

/// How far the process is.
pub fn progress(instance: &str, body: &str) -> Result<Progress, String> {
    let process: Process =
        serde_json::from_str(body).map_err(|error| format!("failed checking status: {error}"))?;
    let failed = |how| Progress::Failed(format!("concord instanceID: {instance} {how}"));
    Ok(match process.status.as_str() {
        "FINISHED" => Progress::Finished,
        "FAILED" => failed("failed"),
        // Flagger asks on, though these do not change any more either.
        "CANCELLED" => failed("was cancelled"),
        "TIMED_OUT" => failed("timed out"),
        _ => Progress::Running,
    })
}

fn seconds(metadata: &Metadata, key: &str, default: u64) -> Result<Duration, String> {
    let seconds = match metadata.get(key) {
        None => default,
        Some(value) => {
            let seconds: i64 = value
                .parse()
                .map_err(|_| format!("unable to convert `{key}` to int"))?;
            u64::try_from(seconds).unwrap_or(0)
        }
    };
    Ok(Duration::from_secs(seconds))
}

/// A form's content type and text. What divides its parts is made from them, so that it is in none.
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
    fn a_process_is_asked_for_until_it_has_ended() {
        let job = Job::of(&metadata(&[("pollInterval", "1")])).unwrap();
        let times = (job.interval.as_secs(), job.patience.as_secs());
        assert_eq!(times, (1, 30));
        assert_eq!(
            instance(r#"{"instanceId":"i-1","ok":true}"#).unwrap(),
            "i-1"
        );
        let request = job.ask("i-1", "").unwrap();
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
        assert!(
            progress("i-1", "<html>")
                .unwrap_err()
                .starts_with("failed checking status: ")
        );
        assert!(instance("{}").unwrap_err().contains("instanceId"));
    }

    #[test]
    fn what_is_wrong_is_told_in_flaggers_words() {
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
            let why = format!("`{key}` is required with type concord");
            assert_eq!(Job::of(&metadata), Err(why));
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
            assert_eq!(Job::of(&metadata(&[(key, value)])), Err(why.to_owned()));
        }
        let job = Job::of(&metadata(&[("server", "example.org")])).unwrap();
        assert!(job.start("").unwrap_err().contains("`server`"));
    }
}
