//! Listens for webhooks and answers them.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures::TryStreamExt;
use regex::Regex;
use tokio::{net::TcpListener, sync::watch, time::timeout};
use tracing::{error, info, warn};

use super::{
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
    shell::telemetry::server,
    snapshot::Secret,
};

/// The maximum length of a body, in bytes.
const MAX_BODY: usize = 1 << 20;
/// The time within which a body must arrive.
const ARRIVAL: Duration = Duration::from_secs(30);
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
    metrics: Arc<Metrics>,
}

/// Serves until `stop` changes. After this function returns, no process that a task started is left.
pub async fn serve(
    config: Config,
    listener: TcpListener,
    stop: watch::Receiver<Stop>,
) -> Result<(), String> {
    let metrics = Metrics::new().map_err(|error| format!("metrics: {error}"))?;
    let metrics = Arc::new(metrics);
    let runner = Runner::new(config.timeout, config.concurrency, metrics.clone());
    let runner = Arc::new(runner);
    let tester = LoadTester {
        namespaces: config.namespaces,
        allowed: config.allowed,
        token: config.token,
        gates: StoredGates::load(config.gates).await?,
        runner: runner.clone(),
        metrics,
    };
    let router = Router::new().fallback(answer).with_state(Arc::new(tester));
    let (stopped, loads) = (reached(stop.clone(), Stop::Soon), runner.clone());
    let soon = async move {
        stopped.await;
        info!("shutting down the task runner");
        loads.end_loads();
    };
    let served = tokio::select! {
        served = server::run(listener, router, GRACE, soon) => served,
        () = reached(stop, Stop::Now) => Ok(()),
    };
    runner.end().await;
    info!("HTTP server stopped");
    served.map_err(|error| format!("HTTP server: {error}"))
}

/// Waits until the load tester must stop with at least this urgency.
async fn reached(mut stop: watch::Receiver<Stop>, at: Stop) {
    // If the sender is gone, no signal can arrive any more: wait forever.
    if stop.wait_for(|stop| *stop >= at).await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn answer(State(tester): State<Arc<LoadTester>>, request: Request) -> Response {
    let endpoint = Endpoint::at(request.uri().path());
    match endpoint {
        Endpoint::Health => return "OK".into_response(),
        Endpoint::Metrics => return server::metrics_response(tester.metrics.render()),
        Endpoint::Approve | Endpoint::Halt | Endpoint::Gate(..) | Endpoint::Task => {}
    }
    if !tester.knows(request.headers()) {
        warn!(
            "refused a call of {} without the token",
            request.uri().path()
        );
        let challenge = [(header::WWW_AUTHENTICATE, "Bearer")];
        let why =
            "Unauthorized: send `Authorization: Bearer TOKEN`, or call http://flagger:TOKEN@…";
        return (StatusCode::UNAUTHORIZED, challenge, why).into_response();
    }
    let (status, body) = match endpoint {
        Endpoint::Health | Endpoint::Metrics | Endpoint::Approve => (200, "OK".to_owned()),
        Endpoint::Halt => forbidden(),
        Endpoint::Gate(..) | Endpoint::Task => match call(request).await {
            Err(answer) => answer,
            Ok(call) if !tester.serves(&call.namespace) => {
                warn!(canary = call.canary(), "-namespace-regexp does not match");
                forbidden()
            }
            Ok(call) => match endpoint {
                Endpoint::Gate(gate, action) => tester.gate(gate, action, &call).await,
                _ => tester.task(&call).await,
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

/// Reads the call from a request. The error is the answer to a request that cannot be read.
async fn call(request: Request) -> Result<Call, Answer> {
    let answer = match timeout(ARRIVAL, body(request)).await {
        Ok(Ok(body)) if body.len() > MAX_BODY => {
            (413, format!("the body is longer than {MAX_BODY} bytes"))
        }
        Ok(Ok(body)) => match Call::read(&body) {
            Ok(call) => return Ok(call),
            Err(error) => (400, error.to_string()),
        },
        Ok(Err(error)) => (400, error.to_string()),
        Err(_) => {
            let seconds = ARRIVAL.as_secs();
            (408, format!("the body did not arrive within {seconds} s"))
        }
    };
    error!("decoding the request body failed: {}", answer.1);
    Err(answer)
}

/// Reads a body to its end, because a caller that still sends does not read the answer. Drops the part beyond the maximum.
async fn body(request: Request) -> Result<Vec<u8>, axum::Error> {
    let mut chunks = request.into_body().into_data_stream();
    let mut body = Vec::new();
    while let Some(chunk) = chunks.try_next().await? {
        if body.len() <= MAX_BODY {
            body.extend_from_slice(&chunk);
        }
    }
    Ok(body)
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

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use futures::stream;
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_arrive_is_given_up() {
        let never = stream::pending::<Result<Vec<u8>, std::io::Error>>();
        let request = Request::new(Body::from_stream(never));
        let start = Instant::now();
        let (status, why) = call(request).await.unwrap_err();
        assert_eq!(start.elapsed(), ARRIVAL);
        assert_eq!(status, 408);
        assert_eq!(why, "the body did not arrive within 30 s");
    }
}
