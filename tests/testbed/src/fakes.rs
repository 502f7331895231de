//! What the operator calls: metrics, webhooks, chats. One server per bed, reached under the names of the walkthrough through a proxy.

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

/// Direct load counts as traffic for so long.
const LOAD: Duration = Duration::from_secs(60);

/// How a server answers when it does not simply do its work.
#[derive(Clone, Debug)]
pub enum Answer {
    /// This status and body.
    Raw(u16, String),
    /// Nothing, ever.
    Hang,
    /// As usual, but after this long.
    Slow(Duration),
}

/// A call that was received.
#[derive(Clone, Debug)]
pub struct Call {
    /// The host and path that were called.
    pub to: String,
    /// The body, if it was JSON.
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
    state: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    calls: Vec<Call>,
    queries: Vec<String>,
    answers: BTreeMap<String, Answer>,
    values: BTreeMap<(String, String), f64>,
    loaded: BTreeMap<(String, String), Instant>,
}

impl Drop for Fakes {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Fakes {
    /// Starts the servers; metrics come from what this client sees.
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
        // Ends with the task.
        let server = tokio::spawn(async move { drop(axum::serve(listener, router).await) });
        Ok(Self {
            shared,
            port,
            server,
        })
    }

    /// The proxy through which `http://flagger-loadtester.test/`, `http://prometheus:9090` and any other name lead here.
    pub fn proxy(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// All calls of a path's beginning (`HOST/PATH`) so far.
    pub fn calls(&self, to: &str) -> Vec<Call> {
        self.seen()
            .calls
            .iter()
            .filter(|call| call.to.starts_with(to))
            .cloned()
            .collect()
    }

    /// All metric queries so far.
    pub fn queries(&self) -> Vec<String> {
        self.seen().queries.clone()
    }

    /// From now on, calls to `HOST/PATH` (its beginning), or queries that contain this text, are answered so.
    pub fn script(&self, to: &str, answer: Answer) {
        self.seen().answers.insert(to.to_owned(), answer);
    }

    /// From now on, as usual again.
    pub fn unscript(&self, to: &str) {
        self.seen().answers.remove(to);
    }

    /// The success rate (percent) of a target's canary, from now on.
    pub fn success_rate(&self, namespace: &str, value: f64) {
        self.seen()
            .values
            .insert((namespace.to_owned(), "rate".to_owned()), value);
    }

    /// The 99th percentile (milliseconds) of a target's canary, from now on.
    pub fn latency(&self, namespace: &str, value: f64) {
        self.seen()
            .values
            .insert((namespace.to_owned(), "latency".to_owned()), value);
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.shared.seen()
    }
}

impl Shared {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The value of a built-in metric, as the routes and pods would make it: none without traffic.
    async fn measured(&self, query: &str) -> Option<f64> {
        let label = |name: &str| {
            let after = query.split_once(&format!("{name}\""))?.1;
            after.split('"').next().map(str::to_owned)
        };
        let by_istio = label("destination_workload_namespace=")
            .and_then(|namespace| Some((namespace, label("destination_workload=~")?)));
        // An application reports its pods by name, and seconds.
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
            let seen = self.seen();
            let key = (
                namespace.clone(),
                if is_rate { "rate" } else { "latency" }.to_owned(),
            );
            let loaded = seen
                .loaded
                .get(&(namespace.clone(), target.clone()))
                .is_some_and(|at| at.elapsed() < LOAD);
            (
                loaded,
                seen.values
                    .get(&key)
                    .copied()
                    .unwrap_or(if is_rate { 100.0 } else { 20.0 }),
            )
        };
        if !self.answers(&namespace, &target).await
            || !(loaded || (is_istio && self.routed(&namespace, &target).await?))
        {
            return None;
        }
        Some(if is_istio || is_rate {
            value
        } else {
            value / 1000.0
        })
    }

    /// Whether pods of the target are ready. A target without pods is a Service, whose pods are somebody else's.
    async fn answers(&self, namespace: &str, target: &str) -> bool {
        for (kind, plural, ready) in [
            ("Deployment", "deployments", "/status/readyReplicas"),
            ("DaemonSet", "daemonsets", "/status/numberReady"),
        ] {
            if let Some(workload) = self
                .get("apps", "v1", kind, plural, namespace, target)
                .await
            {
                return workload.pointer(ready).and_then(Value::as_i64) > Some(0);
            }
        }
        true
    }

    /// Whether the canary gets traffic from the VirtualService; `None` if its weights make no sense.
    async fn routed(&self, namespace: &str, target: &str) -> Option<bool> {
        let service = self
            .get(
                "networking.istio.io",
                "v1beta1",
                "VirtualService",
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
        group: &str,
        version: &str,
        kind: &str,
        plural: &str,
        namespace: &str,
        name: &str,
    ) -> Option<Value> {
        let resource =
            ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
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
    if parts.uri.path().ends_with("/api/v1/query") {
        return prometheus(&shared, &parts.method, &parts.uri, &body).await;
    }
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let scripted = {
        let mut seen = shared.seen();
        seen.calls.push(Call {
            to: to.clone(),
            body: body.clone(),
        });
        if let (Some(name), Some(namespace)) = (body["name"].as_str(), body["namespace"].as_str())
            && body.pointer("/metadata/cmd").is_some()
        {
            seen.loaded
                .insert((namespace.to_owned(), name.to_owned()), Instant::now());
        }
        seen.answers
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
        let mut seen = shared.seen();
        seen.queries.push(query.clone());
        seen.answers
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
