//! An API server with canaries in two namespaces, and with users of different rights. It records each request with its user.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    extract::{Request, State},
    http::{Method, StatusCode, header::AUTHORIZATION},
    response::{IntoResponse, Response},
};
use futures::stream;
use jiff::Timestamp;
use serde_json::{Value, json};
use testbed::folder::Folder;
use tokio::{net::TcpListener, sync::watch};

/// The server, and kubeconfigs for it.
pub struct ManyUsers {
    state: Arc<Shared>,
    folder: Folder,
    address: String,
}

/// A request: its method with its path, its user, and its body.
#[derive(Clone, Debug)]
pub struct Received {
    pub line: String,
    pub user: String,
    pub body: Value,
}

struct Shared {
    /// By namespace and name.
    canaries: Mutex<BTreeMap<(String, String), Value>>,
    version: watch::Sender<u64>,
    received: Mutex<Vec<Received>>,
    /// The answers for other objects, each with a part of the path of its request.
    answers: Mutex<Vec<(String, Value)>>,
    /// The tokens that have expired.
    expired: Mutex<Vec<String>>,
}

impl Shared {
    /// The user of a token; `None` if nobody has it, or if it has expired.
    fn user(&self, token: &str) -> Option<&'static str> {
        let has_expired = self.expired.lock().unwrap().iter().any(|it| it == token);
        let mut users = USERS.iter().filter(|_| !has_expired);
        users.find(|(known, _)| *known == token).map(|it| it.1)
    }
}

/// The user of each token.
const USERS: [(&str, &str); 5] = [
    (
        "of-process",
        "system:serviceaccount:flagger-dashboard:flagger-dashboard",
    ),
    ("of-admin", "admin@example.com"),
    ("of-jane", "jane@example.com"),
    ("of-viewer", "viewer@example.com"),
    (
        "of-proxy",
        "system:serviceaccount:flagger-dashboard:proxied",
    ),
];

/// Whether a user has a right to canaries and to what belongs to them.
fn is_allowed(user: &str, verb: &str, namespace: Option<&str>) -> bool {
    let reads = ["get", "list", "watch"].contains(&verb);
    match user {
        "admin@example.com" => true,
        "jane@example.com" => {
            namespace == Some("shop") && (reads || ["patch", "pause", "abort"].contains(&verb))
        }
        "viewer@example.com" => namespace == Some("shop") && reads,
        // The rights of kustomize/dashboard: no `get`.
        user if user.starts_with("system:serviceaccount:") => ["list", "watch"].contains(&verb),
        _ => false,
    }
}

impl ManyUsers {
    /// Starts with the canaries `shop/checkout` and `secret/ledger`, both in a run.
    pub async fn start() -> Self {
        let state = Arc::new(Shared {
            canaries: Mutex::default(),
            version: watch::Sender::new(1),
            received: Mutex::default(),
            answers: Mutex::default(),
            expired: Mutex::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let router = Router::new().fallback(answer).with_state(state.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let server = Self {
            state,
            folder: Folder::new().unwrap(),
            address,
        };
        server.set(
            "shop",
            "checkout",
            json!({"phase": "Progressing", "canaryWeight": 10}),
        );
        server.set(
            "secret",
            "ledger",
            json!({"phase": "Progressing", "canaryWeight": 10}),
        );
        server
    }

    /// The path of a kubeconfig with this token.
    pub fn kubeconfig(&self, token: &str) -> String {
        let path = self.folder.path().join(token);
        let kubeconfig = json!({"apiVersion": "v1", "kind": "Config", "current-context": "c",
            "users": [{"name": "u", "user": {"token": token}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "namespace": "shop", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": {"server": format!("http://{}", self.address)}}]});
        std::fs::write(&path, kubeconfig.to_string()).unwrap();
        path.display().to_string()
    }

    /// The operator writes this status.
    pub fn set(&self, namespace: &str, name: &str, mut status: Value) {
        for (field, value) in [
            ("failedChecks", json!(0)),
            ("iterations", json!(0)),
            ("lastAppliedSpec", json!("v1-b")),
            ("lastPromotedSpec", json!("v1-a")),
            // An older time would be of an operator that gives no sign any more.
            ("lastTransitionTime", json!(Timestamp::now())),
        ] {
            status[field] = value;
        }
        let mut canaries = self.state.canaries.lock().unwrap();
        let version = *self.state.version.borrow() + 1;
        let canary = json!({"apiVersion": "flagger.app/v1beta1", "kind": "Canary",
            "metadata": {"name": name, "namespace": namespace, "resourceVersion": version.to_string(), "uid": format!("uid-{name}")},
            "spec": {"targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name}, "service": {"port": 80},
                "analysis": {"interval": "1m", "threshold": 5, "stepWeight": 10, "maxWeight": 50}},
            "status": status});
        canaries.insert((namespace.to_owned(), name.to_owned()), canary);
        self.state.version.send_replace(version);
    }

    /// Changes a canary.
    #[allow(dead_code, reason = "not all test targets use it")]
    pub fn edit(&self, namespace: &str, name: &str, change: impl FnOnce(&mut Value)) {
        let version = *self.state.version.borrow() + 1;
        let mut canaries = self.state.canaries.lock().unwrap();
        let key = (namespace.to_owned(), name.to_owned());
        let canary = canaries.get_mut(&key).unwrap();
        change(canary);
        canary["metadata"]["resourceVersion"] = json!(version.to_string());
        self.state.version.send_replace(version);
    }

    /// Answers reads whose path contains this text with this object, if their user may read there. The last answer counts.
    #[allow(dead_code, reason = "not all test targets use it")]
    pub fn answer(&self, part: &str, object: Value) {
        let mut answers = self.state.answers.lock().unwrap();
        answers.push((part.to_owned(), object));
    }

    /// The token is not accepted any more.
    #[allow(dead_code, reason = "not all test targets use it")]
    pub fn expire(&self, token: &str) {
        self.state.expired.lock().unwrap().push(token.to_owned());
    }

    /// The requests so far whose method and path contain a text.
    pub fn received(&self, text: &str) -> Vec<Received> {
        let received = self.state.received.lock().unwrap();
        received
            .iter()
            .filter(|it| it.line.contains(text))
            .cloned()
            .collect()
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = to_bytes(body, 1 << 20).await.unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let token = head
        .headers
        .get(AUTHORIZATION)
        .and_then(|it| it.to_str().ok());
    let token = token
        .and_then(|it| it.strip_prefix("Bearer "))
        .unwrap_or_default();
    let Some(user) = shared.user(token) else {
        return refused(401, "Unauthorized");
    };
    let impersonated = head
        .headers
        .get("impersonate-user")
        .and_then(|it| it.to_str().ok());
    let user = impersonated.unwrap_or(user).to_owned();
    let line = format!("{} {}", head.method, head.uri);
    let received = Received {
        line,
        user: user.clone(),
        body: body.clone(),
    };
    shared.received.lock().unwrap().push(received);
    match head.method {
        Method::POST => review(&shared, head.uri.path(), &user, body),
        Method::PATCH => act(&shared, head.uri.path(), &user, &body),
        _ => read(&shared, &head.uri, &user),
    }
}

fn review(shared: &Shared, path: &str, user: &str, mut body: Value) -> Response {
    body["status"] = match path.rsplit('/').next() {
        Some("tokenreviews") => {
            let user = shared.user(body["spec"]["token"].as_str().unwrap());
            json!({"authenticated": user.is_some(), "user": {"username": user}})
        }
        Some("selfsubjectaccessreviews") => {
            let right = &body["spec"]["resourceAttributes"];
            let verb = right["verb"].as_str().unwrap();
            json!({"allowed": is_allowed(user, verb, right["namespace"].as_str())})
        }
        Some("selfsubjectreviews") => json!({"userInfo": {"username": user}}),
        _ => return refused(404, "page not found"),
    };
    ok(&body)
}

/// The namespace and the name in a path.
fn place(path: &str) -> (Option<&str>, Option<&str>) {
    let mut words = path
        .split('/')
        .skip_while(|word| *word != "namespaces")
        .skip(1);
    let namespace = words.next();
    (namespace, words.nth(1))
}

/// The policy of `kustomize/actions` decides by the verb in the line.
fn act(shared: &Shared, path: &str, user: &str, body: &Value) -> Response {
    let line = body["metadata"]["annotations"]["flagger-rs.github.io/action"].as_str();
    let verb = line
        .and_then(|line| line.split(' ').next())
        .unwrap_or_default();
    let (namespace, name) = place(path);
    if !is_allowed(user, verb, namespace) {
        return refused(
            403,
            &format!("{user} may not {verb} canary {}", name.unwrap_or_default()),
        );
    }
    let key = (namespace.unwrap().to_owned(), name.unwrap().to_owned());
    ok(&shared.canaries.lock().unwrap()[&key])
}

fn read(shared: &Arc<Shared>, uri: &axum::http::Uri, user: &str) -> Response {
    let (path, query) = (uri.path(), uri.query().unwrap_or_default());
    let (namespace, name) = place(path);
    let verb = if name.is_some() { "get" } else { "list" };
    if !is_allowed(user, verb, namespace) {
        return refused(403, &format!("{user} may not {verb} in {namespace:?}"));
    }
    let line = uri.to_string();
    let answers = shared.answers.lock().unwrap().clone();
    if let Some((_, object)) = answers.iter().rfind(|(part, _)| line.contains(part)) {
        return ok(object);
    }
    if !path.contains("/canaries") {
        let list = json!({"apiVersion": "v1", "kind": "List", "metadata": {}, "items": []});
        return if name.is_some() {
            refused(404, "deployments.apps \"x\" not found")
        } else {
            ok(&list)
        };
    }
    if query.contains("watch=true") {
        let mut query = query.split('&');
        let since = query.find_map(|it| it.strip_prefix("resourceVersion="));
        return changes(shared.clone(), since.unwrap_or_default());
    }
    let canaries = shared.canaries.lock().unwrap();
    if let (Some(namespace), Some(name)) = (namespace, name) {
        let found = canaries.get(&(namespace.to_owned(), name.to_owned()));
        return found.map_or_else(|| refused(404, "canaries.flagger.app \"x\" not found"), ok);
    }
    let items: Vec<_> = canaries.values().collect();
    ok(
        &json!({"apiVersion": "flagger.app/v1beta1", "kind": "CanaryList",
        "metadata": {"resourceVersion": shared.version.borrow().to_string()}, "items": items}),
    )
}

/// All canaries, whenever one of them changes, and at once if one has changed since that version.
fn changes(shared: Arc<Shared>, since: &str) -> Response {
    let mut versions = shared.version.subscribe();
    if versions.borrow().to_string() != since {
        versions.mark_changed();
    }
    let events = stream::unfold((shared, versions), async |(shared, mut versions)| {
        versions.changed().await.ok()?;
        let line = |canary| format!("{}\n", json!({"type": "MODIFIED", "object": canary}));
        let lines: String = shared.canaries.lock().unwrap().values().map(line).collect();
        Some((Ok::<_, Infallible>(Bytes::from(lines)), (shared, versions)))
    });
    (
        [("content-type", "application/json")],
        Body::from_stream(events),
    )
        .into_response()
}

fn refused(code: u16, message: &str) -> Response {
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": message, "reason": "Refused"});
    (StatusCode::from_u16(code).unwrap(), ok(&status)).into_response()
}

fn ok(value: &Value) -> Response {
    ([("content-type", "application/json")], value.to_string()).into_response()
}
