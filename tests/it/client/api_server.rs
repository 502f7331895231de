//! An API server with one Canary, which tests change. It refuses reads of all other objects.

use std::{convert::Infallible, future::pending, sync::Arc};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use futures::stream;
use serde_json::{Value, json};
use testbed::folder::Folder;
use tokio::{net::TcpListener, sync::watch};

/// The server, and a kubeconfig for it.
pub struct ApiServer {
    canary: watch::Sender<Value>,
    hanging: watch::Receiver<bool>,
    folder: Folder,
}

impl ApiServer {
    /// Starts with a Canary of this status.
    pub async fn start(status: Value) -> Self {
        let (canary, changes) = watch::channel(canary(1, status));
        let (hangs, hanging) = watch::channel(false);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new()
            .fallback(answer)
            .with_state(Arc::new((changes, hangs)));
        tokio::spawn(async move { axum::serve(listener, router).await });
        let folder = Folder::new().unwrap();
        let kubeconfig = json!({"apiVersion": "v1", "kind": "Config", "current-context": "c", "users": [],
            "contexts": [{"name": "c", "context": {"cluster": "c", "namespace": "test"}}],
            "clusters": [{"name": "c", "cluster": {"server": format!("http://{address}")}}]});
        std::fs::write(folder.path().join("config"), kubeconfig.to_string()).unwrap();
        Self {
            canary,
            hanging,
            folder,
        }
    }

    /// The path of the kubeconfig.
    pub fn kubeconfig(&self) -> String {
        self.folder.path().join("config").display().to_string()
    }

    /// Waits until the server has received a read of a workload that it does not answer, because the status has the field `hangs`.
    pub async fn hangs(&self) {
        let mut hanging = self.hanging.clone();
        hanging.wait_for(|hangs| *hangs).await.unwrap();
    }

    /// The operator writes this status.
    pub fn set(&self, status: Value) {
        self.canary.send_modify(|now| {
            let version = now["metadata"]["resourceVersion"].as_str().unwrap();
            let version: u64 = version.parse().unwrap();
            *now = canary(version + 1, status);
        });
    }
}

fn canary(version: u64, status: Value) -> Value {
    json!({"apiVersion": "flagger.app/v1beta1", "kind": "Canary",
        "metadata": {"name": "podinfo", "namespace": "test", "resourceVersion": version.to_string(), "uid": "u",
            "creationTimestamp": "2026-11-20T10:00:00Z"},
        "spec": {"targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "podinfo"}, "service": {"port": 9898},
            "analysis": {"interval": "1m", "threshold": 5, "stepWeight": 10, "maxWeight": 50}},
        "status": status})
}

type Shared = Arc<(watch::Receiver<Value>, watch::Sender<bool>)>;

async fn answer(State(shared): State<Shared>, request: Request) -> Response {
    let (changes, hangs) = &*shared;
    let uri = request.uri();
    let query = uri.query().unwrap_or_default();
    let now = changes.borrow().clone();
    match uri.path() {
        "/apis/flagger.app/v1beta1/namespaces/test/canaries/podinfo" => body(StatusCode::OK, &now),
        "/apis/flagger.app/v1beta1/namespaces/test/canaries" if query.contains("watch=true") => {
            events(changes.clone())
        }
        "/apis/flagger.app/v1beta1/namespaces/test/canaries" => {
            let list = json!({"apiVersion": "flagger.app/v1beta1", "kind": "CanaryList",
                "metadata": {"resourceVersion": now["metadata"]["resourceVersion"]}, "items": [now]});
            body(StatusCode::OK, &list)
        }
        "/apis/flagger.app/v1beta1/canaries" => {
            refused(404, "the server could not find the requested resource")
        }
        "/apis/flagger-rs.github.io/v1alpha1/namespaces/test/releases"
            if query.contains("flagger-rs.github.io%2Fcanary-uid%3Du")
                && now["status"]["recorded"] == true =>
        {
            body(StatusCode::OK, &releases())
        }
        "/apis/flagger-rs.github.io/v1alpha1/namespaces/test/releases"
            if now["status"]["recorded"] == false =>
        {
            refused(404, "the server could not find the requested resource")
        }
        path if path.contains("/deployments/") && now["status"]["hangs"] == true => {
            hangs.send_replace(true);
            pending().await
        }
        path if path.contains("/canaries/") => {
            refused(404, "canaries.flagger.app \"nobody\" not found")
        }
        _ => refused(403, "is forbidden: not yours"),
    }
}

/// The records of two releases, the older one first.
fn releases() -> Value {
    let release = |name: &str, from: &str, to: &str, result: &str, day: u8| {
        json!({"apiVersion": "flagger-rs.github.io/v1alpha1", "kind": "Release", "metadata": {"name": name, "namespace": "test"},
            "spec": {"canary": "podinfo", "revision": to, "strategy": "canary", "result": result, "trigger": "argocd",
                "images": [{"name": "podinfod", "from": format!("podinfo:{from}"), "to": format!("podinfo:{to}")}],
                "startedAt": format!("2026-11-{day}T10:00:00Z"), "endedAt": format!("2026-11-{day}T10:05:00Z"),
                "cause": {"code": "Threshold", "sentence": format!("Because of {to}.")},
                "steps": 5, "reached": 2, "weight": 20}})
    };
    json!({"apiVersion": "flagger-rs.github.io/v1alpha1", "kind": "ReleaseList", "metadata": {},
        "items": [release("podinfo-1", "1", "2", "Promoted", 20), release("podinfo-2", "2", "3", "Failed", 21)]})
}

fn refused(code: u16, message: &str) -> Response {
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": message, "reason": "Refused"});
    body(StatusCode::from_u16(code).unwrap(), &status)
}

fn body(status: StatusCode, value: &Value) -> Response {
    (
        status,
        [("content-type", "application/json")],
        value.to_string(),
    )
        .into_response()
}

/// Each change of the Canary from now on.
fn events(changes: watch::Receiver<Value>) -> Response {
    // A change between the list and the watch is sent, too.
    let mut changes = changes;
    changes.mark_changed();
    let events = stream::unfold(changes, async |mut changes| {
        changes.changed().await.ok()?;
        let event = json!({"type": "MODIFIED", "object": &*changes.borrow_and_update()});
        let line = Bytes::from(format!("{event}\n"));
        Some((Ok::<_, Infallible>(line), changes))
    });
    (
        StatusCode::OK,
        [("content-type", "application/json")],
        Body::from_stream(events),
    )
        .into_response()
}
