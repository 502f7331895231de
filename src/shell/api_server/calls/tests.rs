use std::time::Duration;

use super::*;
use crate::{
    shell::api_server::{
        Leadership,
        fake::{FakeApiServer, refusal},
    },
    snapshot::{Origin, Secret},
};

fn request(method: Method) -> HttpRequest {
    HttpRequest {
        method,
        url: Secret("https://kubernetes.default.svc/apis/a/v1/b?c=d+e".to_owned()),
        headers: vec![(
            "Content-Type".to_owned(),
            Secret("application/json".to_owned()),
        )],
        body: Some(r#"{"a":1}"#.to_owned()),
        timeout: Duration::from_secs(5),
        retries: 0,
        budget: None,
        proxy: None,
        insecure_skip_verify: false,
        origin: Origin::ApiServer,
    }
}

#[tokio::test]
async fn a_call_has_the_path_and_the_body_of_its_request_and_the_words_of_the_api_server() {
    let server = FakeApiServer::answering(|request| match request.line.split_once(' ') {
        Some(("GET", _)) => Some((200, json!({"value": "1"}))),
        _ => refusal(403),
    });
    let cluster = server.cluster(Leadership::always());
    for (method, verb, status, body) in [
        (Method::Get, "GET", 200, r#"{"value":"1"}"#),
        (
            Method::Post,
            "POST",
            403,
            r#"{"message":"refused with 403"}"#,
        ),
        (
            Method::Delete,
            "DELETE",
            403,
            r#"{"message":"refused with 403"}"#,
        ),
    ] {
        let answer = cluster.calls()(&request(method)).await.unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (status, body));
        let [sent] = server.take().try_into().unwrap();
        assert_eq!(sent.line, format!("{verb} /apis/a/v1/b?c=d+e"));
        assert_eq!(sent.content_type, "application/json");
        assert_eq!(sent.body, json!({"a": 1}));
    }
    let metrics = server.metrics();
    for verb in ["get", "create", "delete"] {
        let line = format!(r#"flagger_rs_api_requests_total{{kind="Metric",verb="{verb}"}} 1"#);
        assert!(metrics.contains(&line), "{line}: {metrics}");
    }
}

#[tokio::test]
async fn a_process_that_does_not_lead_reads_and_writes_nothing() {
    let server = FakeApiServer::answering(|_| Some((200, json!({}))));
    let cluster = server.cluster(Leadership::never());
    for method in [Method::Post, Method::Delete] {
        let error = cluster.calls()(&request(method)).await.unwrap_err();
        assert_eq!(error, "this process is not the leader any more");
    }
    assert!(cluster.calls()(&request(Method::Get)).await.is_ok());
    assert_eq!(server.take_lines().len(), 1);
}

#[tokio::test]
async fn an_endless_answer_is_an_error() {
    let long = |length: usize| json!("x".repeat(length));
    for (length, is_read) in [(200 << 10, true), (300 << 10, false)] {
        let server = FakeApiServer::answering(move |_| Some((200, long(length))));
        let cluster = server.cluster(Leadership::always());
        let answer = cluster.calls()(&request(Method::Get)).await;
        assert_eq!(answer.is_ok(), is_read, "{length}");
        let error = answer.err().unwrap_or_default();
        assert!(
            is_read || error.ends_with("the answer is larger than 256 KiB"),
            "{error}"
        );
    }
}
