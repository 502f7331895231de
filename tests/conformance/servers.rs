//! The fake servers that the operator calls, on one port. Each call is recorded for the scenario whose namespace it contains.
//!
//! `/prom…/api/v1/query` is a metrics server, `/hook/NAMESPACE/NAME` a webhook, `/events` the event webhook, `/chat/…` a chat.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};

use crate::{
    rig::Stage,
    seen::{Seen, usual},
};

/// The running servers. Dropping them stops them.
pub struct Servers(JoinHandle<()>);

impl Drop for Servers {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Servers {
    pub fn start(listener: TcpListener, stage: Arc<Stage>) -> Self {
        let router = Router::new().fallback(answer).with_state(stage);
        // The server stops when the task is aborted.
        Self(tokio::spawn(async move {
            drop(axum::serve(listener, router).await)
        }))
    }
}

async fn answer(State(stage): State<Arc<Stage>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20)
        .await
        .unwrap_or_default();
    let body = String::from_utf8_lossy(&body);
    let (method, path) = (head.method.as_str(), head.uri.path());
    if path.starts_with("/prom") {
        let form = if method == "POST" {
            body.as_ref()
        } else {
            head.uri.query().unwrap_or_default()
        };
        let mut pairs = url::form_urlencoded::parse(form.as_bytes());
        let query = pairs
            .find(|(key, _)| key == "query")
            .map(|(_, query)| query.into_owned());
        let query = query.unwrap_or_default();
        if !path.ends_with("/api/v1/query") {
            return "Prometheus is Healthy.".into_response();
        }
        let seen = stage.owner(path).or_else(|| stage.owner(&query));
        let value = seen.map_or_else(
            || usual(&query),
            |seen| seen.asked(method, path, &head.headers, &query),
        );
        return metric(&value);
    }
    if let Some((namespace, name)) = path
        .strip_prefix("/hook/")
        .and_then(|rest| rest.split_once('/'))
    {
        let seen = stage.of(namespace);
        return hook(seen.map(|seen| seen.called(method, name, &head.headers, &body)));
    }
    if path.starts_with("/events") {
        let parsed: Value = serde_json::from_str(&body).unwrap_or_default();
        let seen = stage.of(parsed["namespace"].as_str().unwrap_or_default());
        seen.into_iter()
            .for_each(|seen: &Arc<Seen>| seen.noticed(&body));
        return "{}".into_response();
    }
    if let Some(path) = path.strip_prefix("/chat") {
        let seen = stage.owner(&body).or_else(|| stage.owner(path));
        seen.into_iter()
            .for_each(|seen| seen.alerted(path, &head.headers, &body));
        return "ok".into_response();
    }
    StatusCode::NOT_FOUND.into_response()
}

fn hook(answer: Option<Value>) -> Response {
    let answer = answer.unwrap_or_else(|| json!(200));
    let code = answer.get(0).unwrap_or(&answer).as_u64();
    let code = code.and_then(|code| StatusCode::from_u16(u16::try_from(code).ok()?).ok());
    let text = answer
        .get(1)
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    (code.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), text).into_response()
}

/// Returns the response of a metrics server with this value, or one of the faulty responses that scenarios name.
fn metric(answer: &Value) -> Response {
    let result = match answer.as_str() {
        Some("HTTP 500") => {
            let body = r#"{"status":"error","errorType":"internal","error":"out of order"}"#;
            return (
                StatusCode::INTERNAL_SERVER_ERROR,
                [(header::CONTENT_TYPE, "application/json")],
                body,
            )
                .into_response();
        }
        Some("garbage") => {
            return (
                [(header::CONTENT_TYPE, "text/html")],
                "<html>not json</html>",
            )
                .into_response();
        }
        Some("empty") => json!([]),
        Some("matrix") => json!([{"metric": {}, "values": [[1, "1"], [2, "2"]]}]),
        Some(text) => json!([{"metric": {}, "value": [1_700_000_000.123, text]}]),
        None => json!([{"metric": {}, "value": [1_700_000_000.123, answer.to_string()]}]),
    };
    let body = json!({"status": "success", "data": {"resultType": "vector", "result": result}});
    (
        [(header::CONTENT_TYPE, "application/json")],
        body.to_string(),
    )
        .into_response()
}
