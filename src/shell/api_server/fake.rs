//! An API server for unit tests. A function answers, and each request is recorded.

use std::{
    future::pending,
    sync::{Arc, Mutex},
};

use kube::Client;
use serde_json::{Value, json};

use super::{Cluster, Leadership};
use crate::shell::{lock::lock, telemetry::canary_metrics::CanaryMetrics};

/// A request that the API server received.
#[derive(Clone, Debug)]
pub struct Request {
    /// The method and the path with its query.
    pub line: String,
    /// The media type of the body.
    pub content_type: String,
    /// The body; null if there is none.
    pub body: Value,
}

/// Status and body of an answer; `None` if the API server never answers.
pub type Answer = Option<(u16, Value)>;

/// The API server. Clones are the same.
#[derive(Clone)]
pub struct FakeApiServer {
    answer: Arc<dyn Fn(&Request) -> Answer + Send + Sync>,
    requests: Arc<Mutex<Vec<Request>>>,
    metrics: CanaryMetrics,
}

impl FakeApiServer {
    pub fn answering(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        Self {
            answer: Arc::new(answer),
            requests: Arc::default(),
            metrics: CanaryMetrics::new().unwrap(),
        }
    }

    /// A cluster behind this API server; there can be one.
    pub fn cluster(&self, leadership: Leadership) -> Cluster {
        let metrics = self.metrics.operator_metrics().unwrap();
        Cluster::new(self.client(), leadership, metrics)
    }

    /// The metrics of that cluster, as `/metrics` has them.
    pub fn metrics(&self) -> String {
        self.metrics.render()
    }

    pub fn client(&self) -> Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let server = server.clone();
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect_bytes().await?;
                let content_type = head.headers.get("content-type");
                let content_type = content_type.and_then(|value| value.to_str().ok());
                let request = Request {
                    line: format!("{} {}", head.method, head.uri),
                    content_type: content_type.unwrap_or_default().to_owned(),
                    body: serde_json::from_slice(&body).unwrap_or_default(),
                };
                lock(&server.requests).push(request.clone());
                let Some((status, body)) = (server.answer)(&request) else {
                    return pending().await;
                };
                let body = kube::client::Body::from(body.to_string().into_bytes());
                let answer = http::Response::builder().status(status).body(body);
                Ok::<_, kube::Error>(answer.unwrap())
            }
        });
        Client::new(service, "default")
    }

    /// Methods and paths of the requests that arrived since they were last taken.
    pub fn take_lines(&self) -> Vec<String> {
        let requests = self.take();
        requests.into_iter().map(|request| request.line).collect()
    }

    /// The requests that arrived since they were last taken.
    pub fn take(&self) -> Vec<Request> {
        std::mem::take(&mut lock(&self.requests))
    }
}

/// The API server refuses with this status.
#[expect(clippy::unnecessary_wraps, reason = "this is one of several answers")]
pub fn refusal(code: u16) -> Answer {
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": "Refused",
        "message": format!("refused with {code}")});
    Some((code, status))
}
