//! Listens for webhooks and answers them.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension, Router,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use regex::Regex;
use tokio::{net::TcpListener, sync::watch};
use tracing::{error, info, warn};

use super::{
    bodies::{self, Bodies},
    gates::StoredGates,
    metrics::Metrics,
    runner::{Answer, Runner},
};
use crate::{
    loadtester::{
        args::Config,
        call::{Action, Call, Endpoint},
        gate::Gate,
        task::{Allowed, Task},
        token,
    },
    shell::{
        http_server::{self, ClientClock, Limits},
        telemetry::page::MetricsPage,
    },
    snapshot::Secret,
};

/// The maximum number of connections besides those that wait for a task. `-concurrency` limits the latter.
const CONNECTIONS: usize = 256;
/// The time that a caller has for its request, and then for reading the answer. It includes the arrival of the body.
const CALLER: Duration = Duration::from_secs(60);
/// The time that callers may continue to wait for a task after a signal to stop. By default, Kubernetes kills a pod after 30 s. (Flagger
/// waits for a minute.)
const GRACE: Duration = Duration::from_secs(20);

/// How urgently the load tester must stop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stop {
    /// The load tester continues.
    #[default]
    No,
    /// The load tester stops when the tasks that callers wait for have ended, or after a short time.
    Soon,
    /// The load tester stops at once.
    Now,
}

/// The state that answers need.
struct LoadTester {
    namespaces: Option<Regex>,
    allowed: Option<Allowed>,
    token: Option<Secret>,
    gates: StoredGates,
    runner: Arc<Runner>,
    bodies: Bodies,
    metrics: MetricsPage,
}

/// Serves until `stop` changes. After this function returns, no process in the process group of a task is left.
pub async fn serve(
    config: Config,
    listener: TcpListener,
    stop: watch::Receiver<Stop>,
) -> Result<(), String> {
    let metrics = Metrics::new().map_err(|error| format!("metrics: {error}"))?;
    let metrics = Arc::new(metrics);
    let runner = Runner::new(config.timeout, config.concurrency, metrics.clone());
    let runner = Arc::new(runner);
    let limits = Limits {
        connections: CONNECTIONS + usize::from(config.concurrency),
        client: CALLER,
        grace: GRACE,
    };
    let tester = LoadTester {
        namespaces: config.namespaces,
        allowed: config.allowed,
        token: config.token,
        gates: StoredGates::load(config.gates).await?,
        runner: runner.clone(),
        bodies: Bodies::default(),
        metrics: MetricsPage::new(move || metrics.render()),
    };
    let router = Router::new().fallback(answer).with_state(Arc::new(tester));
    let (stopped, loads) = (reached(stop.clone(), Stop::Soon), runner.clone());
    let soon = async move {
        stopped.await;
        info!("shutting down the task runner");
        loads.end_loads();
    };
    tokio::select! {
        () = http_server::serve(listener, router, limits, soon) => {}
        () = reached(stop, Stop::Now) => {}
    }
    runner.end().await;
    info!("HTTP server stopped");
    Ok(())
}

/// Waits until the load tester must stop with at least this urgency.
async fn reached(mut stop: watch::Receiver<Stop>, at: Stop) {
    // If the sender is gone, no signal can arrive any more: wait forever.
    if stop.wait_for(|stop| *stop >= at).await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn answer(
    State(tester): State<Arc<LoadTester>>,
    Extension(clock): Extension<ClientClock>,
    request: Request,
) -> Response {
    let path = request.uri().path().to_owned();
    let endpoint = Endpoint::at(&path);
    match endpoint {
        Endpoint::Health => return "OK".into_response(),
        Endpoint::Metrics => return tester.metrics.response(),
        Endpoint::Approve | Endpoint::Halt | Endpoint::Gate(..) | Endpoint::Task => {}
    }
    if !tester.knows(request.headers()) {
        bodies::skip(request).await;
        warn!("refused a call of {path} without the token");
        let challenge = [(header::WWW_AUTHENTICATE, "Bearer")];
        let why =
            "Unauthorized: send `Authorization: Bearer TOKEN`, or call http://flagger:TOKEN@…";
        return (StatusCode::UNAUTHORIZED, challenge, why).into_response();
    }
    let (status, body) = match endpoint {
        Endpoint::Health | Endpoint::Metrics => (200, "OK".to_owned()),
        Endpoint::Approve => {
            bodies::skip(request).await;
            (200, "OK".to_owned())
        }
        Endpoint::Halt => {
            bodies::skip(request).await;
            forbidden()
        }
        Endpoint::Gate(..) | Endpoint::Task => match tester.bodies.call(request).await {
            Err(answer) => answer,
            Ok(call) if !tester.serves(&call.namespace) => {
                warn!(canary = call.canary(), "-namespace-regexp does not match");
                forbidden()
            }
            Ok(call) => match endpoint {
                Endpoint::Gate(gate, action) => tester.gate(gate, action, &call).await,
                _ => {
                    let _waiting = clock.pause();
                    tester.task(&call).await
                }
            },
        },
    };
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if body.is_empty() {
        // As in Go, an answer without a body has no content type.
        return status.into_response();
    }
    (status, body).into_response()
}

fn forbidden() -> Answer {
    (403, "Forbidden".to_owned())
}

impl LoadTester {
    fn knows(&self, headers: &HeaderMap) -> bool {
        let given = headers.get(header::AUTHORIZATION);
        let given = given.and_then(|value| value.to_str().ok());
        self.token
            .as_ref()
            .is_none_or(|token| token::is_known(token, given))
    }

    fn serves(&self, namespace: &str) -> bool {
        let namespaces = self.namespaces.as_ref();
        namespaces.is_none_or(|namespaces| namespaces.is_match(namespace))
    }

    async fn gate(&self, gate: Gate, action: Action, call: &Call) -> Answer {
        let (name, key) = (gate.name(), gate.key(&call.canary()));
        let open = match self.gates.act(action, &key).await {
            Ok(open) => open,
            Err(why) => {
                error!("{key} {name} is unchanged: {why}");
                return (500, why);
            }
        };
        match action {
            Action::Check => info!("{key} {name} check: approved {open}"),
            Action::Open => info!("{key} {name} opened"),
            Action::Close => info!("{key} {name} closed"),
        }
        match action {
            Action::Check if open => (200, "Approved".to_owned()),
            Action::Check => forbidden(),
            Action::Open | Action::Close => (202, String::new()),
        }
    }

    async fn task(&self, call: &Call) -> Answer {
        let canary = call.canary();
        match Task::of(&call.metadata, self.allowed.as_ref()) {
            Ok(task) => self.runner.take(canary, task).await,
            Err(refusal) => {
                error!(canary, "task refused: {refusal}");
                (refusal.status(), refusal.to_string())
            }
        }
    }
}
