//! Google Cloud Monitoring: its projects and its errors.

use serde_json::json;

use super::answer;
use crate::metrics::{Server, ServerError};

fn stackdriver(secret: &[(&str, &str)]) -> Result<Server, ServerError> {
    let secret = secret.iter();
    let secret = secret.map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    let spec = serde_json::from_value(json!({"type": "stackdriver"})).unwrap();
    Server::of(&spec, Some(&secret.collect()), None)
}

#[test]
fn a_project_of_google_is_one_part_of_the_path_and_its_key_goes_to_google_only() {
    for project in ["a/b", "..", "a?b", "a#b", "a@b", "é", "a%2fb"] {
        let error = stackdriver(&[("project", project)])
            .unwrap_err()
            .to_string();
        assert!(error.contains("the ID of a project"), "{project}: {error}");
    }
    let server = stackdriver(&[("project", "example.com:p")]).unwrap();
    assert_eq!(server.hosts(), ["monitoring.googleapis.com"]);
    let key = [("project", "p"), ("serviceAccountKey", "hush")];
    let server = stackdriver(&key).unwrap();
    let hosts = ["monitoring.googleapis.com", "oauth2.googleapis.com"];
    assert_eq!(server.hosts(), hosts);
    assert!(!format!("{server:?}").contains("hush"));
}

/// Each row has the status, the body, the error about a query, and whether the server is online.
#[test]
fn googles_own_words_about_a_refusal_are_shown() {
    let server = stackdriver(&[("project", "p")]).unwrap();
    let body = |code: u16, status: &str| {
        json!({"error": {"code": code, "message": "m", "status": status}}).to_string()
    };
    for (status, body, text, is_online) in [
        (
            400,
            body(400, "INVALID_ARGUMENT"),
            "INVALID_ARGUMENT: m",
            true,
        ),
        (
            400,
            body(400, "FAILED_PRECONDITION"),
            "FAILED_PRECONDITION: m",
            false,
        ),
        (
            401,
            body(401, "UNAUTHENTICATED"),
            "UNAUTHENTICATED: m",
            false,
        ),
        (
            403,
            body(403, "PERMISSION_DENIED"),
            "PERMISSION_DENIED: m",
            false,
        ),
        (404, "<html>".to_owned(), "404 Not Found: <html>", false),
        (
            429,
            body(429, "RESOURCE_EXHAUSTED"),
            "RESOURCE_EXHAUSTED: m",
            false,
        ),
        (503, String::new(), "503 Service Unavailable: ", false),
    ] {
        let answer = answer(status, &body);
        let error = server.value(&answer).unwrap_err().to_string();
        assert_eq!(error, format!("error requesting stackdriver: {text}"));
        let online = server.online(Ok(&answer));
        assert_eq!(online.is_ok(), is_online, "{body}");
    }
}
