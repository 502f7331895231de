//! Fake servers for an operator: metrics, webhooks and chats. One HTTP server per bed is the proxy for all names of the walkthrough.

mod query;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    http::{Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, GroupVersionKind},
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};

use crate::Error;

/// How long load that the load tester generates counts as traffic.
const LOAD: Duration = Duration::from_secs(60);

/// A scripted answer, in place of the usual one.
#[derive(Clone, Debug)]
pub enum Answer {
    /// Answers with this status and body.
    Raw(u16, String),
    /// Never answers.
    Hang,
    /// Gives the usual answer after this time.
    Slow(Duration),
}

/// A request that was received.
#[derive(Clone, Debug)]
pub struct Call {
    /// The host and path of the request.
    pub to: String,
    /// The body; null if it was not JSON.
    pub body: Value,
}

/// The servers. Dropping them stops them.
pub struct Fakes {
    shared: Arc<Shared>,
    port: u16,
    server: JoinHandle<()>,
}

struct Shared {
    client: Client,
    state: Mutex<Received>,
}

#[derive(Default)]
struct Received {
    calls: Vec<Call>,
    queries: Vec<String>,
    answers: BTreeMap<String, Answer>,
    authorizations: Vec<(String, String)>,
    values: BTreeMap<(String, String), f64>,
    loaded: BTreeMap<(String, String), Instant>,
}

impl Drop for Fakes {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Fakes {
    /// Starts the server. It computes metrics from the routes and pods that this client reads.
    pub async fn start(client: Client) -> Result<Self, Error> {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .map_err(|e| Error::io("loopback".as_ref(), e))?;
        let port = listener
            .local_addr()
            .map_err(|e| Error::io("loopback".as_ref(), e))?
            .port();
        let shared = Arc::new(Shared {
            client,
            state: Mutex::default(),
        });
        let router = Router::new().fallback(answer).with_state(shared.clone());
        // The server ends when the task is aborted.
        let server = tokio::spawn(async move { drop(axum::serve(listener, router).await) });
        Ok(Self {
            shared,
            port,
            server,
        })
    }

    /// The URL of the proxy: requests through it to any host (`http://prometheus:9090`, `http://flagger-loadtester.test/`) arrive here.
    pub fn proxy(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// All requests so far whose `HOST/PATH` starts with `to`.
    pub fn calls(&self, to: &str) -> Vec<Call> {
        self.received()
            .calls
            .iter()
            .filter(|call| call.to.starts_with(to))
            .cloned()
            .collect()
    }

    /// All metric queries so far.
    pub fn queries(&self) -> Vec<String> {
        self.received().queries.clone()
    }

    /// The headers `Authorization` of all requests so far whose `HOST/PATH` starts with `to`. Requests without the header do not count.
    pub fn authorizations(&self, to: &str) -> Vec<String> {
        let received = self.received();
        let found = received.authorizations.iter();
        let found = found.filter(|(host, _)| host.starts_with(to));
        found.map(|(_, value)| value.clone()).collect()
    }

    /// From now on, requests whose `HOST/PATH` starts with `to`, and metric queries that contain `to`, get this answer.
    pub fn script(&self, to: &str, answer: Answer) {
        self.received().answers.insert(to.to_owned(), answer);
    }

    /// From now on, these requests get the usual answer again.
    pub fn unscript(&self, to: &str) {
        self.received().answers.remove(to);
    }

    /// Sets the share (percent) of requests to the canaries in a namespace that are answered with status 200; the others get 500. The
    /// status codes that a query selects decide what it finds.
    pub fn success_rate(&self, namespace: &str, value: f64) {
        self.received()
            .values
            .insert((namespace.to_owned(), "rate".to_owned()), value);
    }

    /// Sets the 99th percentile of the latency (milliseconds) of the canaries in a namespace.
    pub fn latency(&self, namespace: &str, value: f64) {
        self.received()
            .values
            .insert((namespace.to_owned(), "latency".to_owned()), value);
    }

    fn received(&self) -> MutexGuard<'_, Received> {
        self.shared.received()
    }
}

impl Shared {
    fn received(&self) -> MutexGuard<'_, Received> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The value of a built-in metric. `None` if the canary has no traffic, given its routes, its pods and recent load.
    async fn measured(&self, query: &str) -> Option<f64> {
        let label = |name: &str| {
            let after = query.split_once(&format!("{name}\""))?.1;
            after.split('"').next().map(str::to_owned)
        };
        let by_istio = label("destination_workload_namespace=")
            .and_then(|namespace| Some((namespace, label("destination_workload=~")?)));
        // Queries of an application's own metrics select pods by name, and are in seconds.
        let by_itself = || {
            let pods = label("kubernetes_pod_name=~")?;
            Some((
                label("kubernetes_namespace=")?,
                pods.split_once("-[")?.0.to_owned(),
            ))
        };
        let is_istio = by_istio.is_some();
        let (namespace, target) = by_istio.or_else(by_itself)?;
        let is_rate = !query.contains("_bucket");
        let (loaded, value) = {
            let received = self.received();
            let key = (
                namespace.clone(),
                if is_rate { "rate" } else { "latency" }.to_owned(),
            );
            let loaded = received
                .loaded
                .get(&(namespace.clone(), target.clone()))
                .is_some_and(|at| at.elapsed() < LOAD);
            (
                loaded,
                received
                    .values
                    .get(&key)
                    .copied()
                    .unwrap_or(if is_rate { 100.0 } else { 20.0 }),
            )
        };
        if !self.is_ready(&namespace, &target).await
            || !(loaded || (is_istio && self.routed(&namespace, &target).await?))
        {
            return None;
        }
        if is_rate {
            query::quotient(query, value)
        } else if is_istio {
            Some(value)
        } else {
            Some(value / 1000.0)
        }
    }

    /// Whether the target has at least one ready pod. A target that is a Service counts as ready.
    async fn is_ready(&self, namespace: &str, target: &str) -> bool {
        for (kind, plural, ready) in [
            ("Deployment", "deployments", "/status/readyReplicas"),
            ("DaemonSet", "daemonsets", "/status/numberReady"),
        ] {
            if let Some(workload) = self
                .get(
                    &GroupVersionKind::gvk("apps", "v1", kind),
                    plural,
                    namespace,
                    target,
                )
                .await
            {
                return workload.pointer(ready).and_then(Value::as_i64) > Some(0);
            }
        }
        true
    }

    /// Whether the VirtualService routes traffic to the canary. `None` if its weights do not add up to 100.
    async fn routed(&self, namespace: &str, target: &str) -> Option<bool> {
        let service = self
            .get(
                &GroupVersionKind::gvk("networking.istio.io", "v1beta1", "VirtualService"),
                "virtualservices",
                namespace,
                target,
            )
            .await?;
        let routes = service.pointer("/spec/http/0/route")?.as_array()?;
        let weight = |host: &str| {
            routes
                .iter()
                .find(|route| route.pointer("/destination/host") == Some(&json!(host)))?
                .get("weight")?
                .as_i64()
        };
        let (primary, canary) = (
            weight(&format!("{target}-primary"))?,
            weight(&format!("{target}-canary"))?,
        );
        (primary + canary == 100).then_some(canary > 0)
    }

    async fn get(
        &self,
        kind: &GroupVersionKind,
        plural: &str,
        namespace: &str,
        name: &str,
    ) -> Option<Value> {
        let resource = ApiResource::from_gvk_with_plural(kind, plural);
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), namespace, &resource);
        let object = api.get_opt(name).await.ok()??;
        serde_json::to_value(object).ok()
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20)
        .await
        .unwrap_or_default();
    let host = parts.uri.host().map(str::to_owned).or_else(|| {
        let host = parts.headers.get(header::HOST)?.to_str().ok()?;
        Some(host.split(':').next().unwrap_or_default().to_owned())
    });
    let to = format!("{}{}", host.unwrap_or_default(), parts.uri.path());
    if let Some(value) = parts.headers.get(header::AUTHORIZATION) {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        shared.received().authorizations.push((to.clone(), value));
    }
    if parts.uri.path().ends_with("/api/v1/query") {
        return prometheus(&shared, &parts.method, &parts.uri, &body).await;
    }
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let scripted = {
        let mut received = shared.received();
        received.calls.push(Call {
            to: to.clone(),
            body: body.clone(),
        });
        if let (Some(name), Some(namespace)) = (body["name"].as_str(), body["namespace"].as_str())
            && body.pointer("/metadata/cmd").is_some()
        {
            received
                .loaded
                .insert((namespace.to_owned(), name.to_owned()), Instant::now());
        }
        received
            .answers
            .iter()
            .find(|(prefix, _)| to.starts_with(prefix.as_str()))
            .map(|(_, answer)| answer.clone())
    };
    scripted_or(scripted, StatusCode::OK.into_response()).await
}

async fn prometheus(shared: &Shared, method: &Method, uri: &Uri, body: &Bytes) -> Response {
    let form = if *method == Method::POST {
        String::from_utf8_lossy(body).into_owned()
    } else {
        uri.query().unwrap_or_default().to_owned()
    };
    let query = url::form_urlencoded::parse(form.as_bytes())
        .find(|(key, _)| key == "query")
        .map(|(_, value)| value.into_owned());
    let query = query.unwrap_or_default();
    let scripted = {
        let mut received = shared.received();
        received.queries.push(query.clone());
        received
            .answers
            .iter()
            .find(|(text, _)| query.contains(text.as_str()))
            .map(|(_, answer)| answer.clone())
    };
    let value = if query == "vector(1)" {
        Some(1.0)
    } else {
        shared.measured(&query).await
    };
    let samples: Vec<_> = value
        .iter()
        .map(|value| json!({"metric": {}, "value": [0, value.to_string()]}))
        .collect();
    let usual = json!({"status": "success", "data": {"resultType": "vector", "result": samples}})
        .to_string();
    scripted_or(scripted, usual.into_response()).await
}

async fn scripted_or(scripted: Option<Answer>, usual: Response) -> Response {
    match scripted {
        None => usual,
        Some(Answer::Raw(status, body)) => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            (status, Body::from(body)).into_response()
        }
        Some(Answer::Hang) => std::future::pending().await,
        Some(Answer::Slow(time)) => {
            tokio::time::sleep(time).await;
            usual
        }
    }
}
