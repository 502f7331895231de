//! The HTTP server for `/metrics`, `/healthz` and `/readyz`.

use std::{
    future::ready,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use axum::{Router, http::StatusCode, routing::any};
use tokio::{net::TcpListener, time::Instant};

use super::{canary_metrics::CanaryMetrics, page::MetricsPage};
use crate::shell::{
    http_server::{self, Limits},
    lock::lock,
};

/// The clients are probes and a few scrapers on the same network, and answers need no computation.
const LIMITS: Limits = Limits {
    connections: 256,
    client: Duration::from_secs(15),
    // As in Flagger.
    grace: Duration::from_secs(3),
};

/// Without a heartbeat for this long, the process is not healthy.
const SILENCE: Duration = Duration::from_secs(60);

/// The health of the process, as probes see it. Clones share it.
#[derive(Clone, Default)]
pub struct Health(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    role: Role,
    /// The time of the last heartbeat, while canaries are reconciled.
    heartbeat: Option<Instant>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Role {
    /// The API server was not reached yet.
    #[default]
    Starting,
    /// Another process leads.
    StandingBy,
    /// This process leads and fills its cache.
    Syncing,
    /// This process leads and reconciles canaries.
    Leading,
}

impl Health {
    /// Records that the API server was reached, and that this process does not lead.
    pub fn standing_by(&self) {
        *self.state() = State {
            role: Role::StandingBy,
            heartbeat: None,
        };
    }

    /// Records that this process leads, and that its cache is not filled yet.
    pub fn syncing(&self) {
        self.state().role = Role::Syncing;
    }

    /// Records that the cache is filled, and that canaries are reconciled from now on.
    pub fn leading(&self) {
        *self.state() = State {
            role: Role::Leading,
            heartbeat: Some(Instant::now()),
        };
    }

    /// Records that canaries are still reconciled.
    pub fn heartbeat(&self) {
        self.state().heartbeat = Some(Instant::now());
    }

    /// Returns whether the process is ready. A process that stands by is ready, too: it waits until it is elected.
    fn readiness(&self) -> Result<&'static str, &'static str> {
        match self.state().role {
            Role::Starting => Err("the API server was not reached yet"),
            Role::StandingBy => Ok("standing by"),
            Role::Syncing => Err("canaries are being listed"),
            Role::Leading => Ok("leading"),
        }
    }

    fn liveness(&self) -> Result<&'static str, &'static str> {
        let heartbeat = self.state().heartbeat;
        if heartbeat.is_none_or(|at| at.elapsed() < SILENCE) {
            Ok("OK")
        } else {
            Err("the queue of canaries has not moved for a minute")
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.0)
    }
}

/// Serves metrics and health until `stop` completes. Slow clients are cut off a few seconds later.
pub async fn serve(
    listener: TcpListener,
    metrics: CanaryMetrics,
    health: Health,
    stop: impl Future<Output = ()>,
) {
    let page = MetricsPage::new(move || metrics.render());
    let readiness = health.clone();
    let router = Router::new()
        .route(
            "/healthz",
            any(move || ready(probe_response(health.liveness()))),
        )
        .route(
            "/readyz",
            any(move || ready(probe_response(readiness.readiness()))),
        )
        .route("/metrics", any(move || ready(page.response())));
    http_server::serve(listener, router, LIMITS, stop).await;
}

fn probe_response(state: Result<&'static str, &'static str>) -> (StatusCode, &'static str) {
    match state {
        Ok(state) => (StatusCode::OK, state),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, why),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
        sync::oneshot,
        task::JoinHandle,
        time::{sleep, timeout},
    };

    use super::*;
    use crate::shell::http_server::listen;

    async fn start(health: Health) -> (u16, oneshot::Sender<()>, JoinHandle<()>) {
        let listener = listen(0).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (stop, stopped) = oneshot::channel();
        let metrics = CanaryMetrics::new().unwrap();
        metrics.info("1", "istio");
        let serving = serve(listener, metrics, health, async { drop(stopped.await) });
        (port, stop, tokio::spawn(serving))
    }

    async fn call(address: impl Into<std::net::IpAddr>, port: u16, line: &str) -> String {
        let mut stream = TcpStream::connect((address.into(), port)).await.unwrap();
        let request = format!("{line} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    #[tokio::test]
    async fn health_and_metrics_are_served_and_nothing_else() {
        let (port, _stop, _serving) = start(Health::default()).await;
        let v4 = Ipv4Addr::LOCALHOST;
        for method in ["GET", "POST"] {
            let text = call(v4, port, &format!("{method} /healthz")).await;
            assert!(text.starts_with("HTTP/1.1 200") && text.ends_with("\r\n\r\nOK"));
        }
        let text = call(v4, port, "GET /metrics").await;
        assert!(text.contains("text/plain; version=0.0.4"));
        assert!(text.contains("flagger_info{mesh_provider=\"istio\",version=\"1\"} 1\n"));
        assert!(call(v4, port, "GET /").await.starts_with("HTTP/1.1 404"));
    }

    #[tokio::test]
    async fn a_process_is_ready_while_it_stands_by_and_once_it_leads_with_a_filled_cache() {
        let health = Health::default();
        let (port, _stop, _serving) = start(health.clone()).await;
        let status = async || {
            let text = call(Ipv4Addr::LOCALHOST, port, "GET /readyz").await;
            text.split(' ').nth(1).unwrap().to_owned()
        };
        assert_eq!(status().await, "503", "the API server was not reached");
        health.standing_by();
        assert_eq!(status().await, "200", "another process leads");
        health.syncing();
        assert_eq!(status().await, "503", "the cache is not filled");
        health.leading();
        assert_eq!(status().await, "200");
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_stopped_reconciling_is_not_healthy() {
        let health = Health::default();
        assert!(health.liveness().is_ok(), "it has not begun yet");
        health.leading();
        sleep(SILENCE / 2).await;
        health.heartbeat();
        sleep(SILENCE / 2).await;
        assert!(health.liveness().is_ok());
        sleep(SILENCE / 2).await;
        assert!(health.liveness().is_err());
    }

    #[tokio::test]
    async fn an_occupied_port_is_an_error() {
        let taken = listen(0).await.unwrap();
        assert!(listen(taken.local_addr().unwrap().port()).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_is_answered_while_more_clients_scrape_than_there_is_room_for() {
        let (port, _stop, _serving) = start(Health::default()).await;
        let mut scrapes = Vec::new();
        for _ in 0..2 * LIMITS.connections {
            let address = (Ipv4Addr::LOCALHOST, port);
            let mut scrape = TcpStream::connect(address).await.unwrap();
            scrape
                .write_all(b"GET /metrics HTTP/1.1\r\n")
                .await
                .unwrap();
            scrapes.push(scrape);
        }
        let probe = call(Ipv4Addr::LOCALHOST, port, "GET /healthz");
        let answer = timeout(Duration::from_secs(1), probe).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let mut last = scrapes.pop().unwrap();
        last.write_all(b"Host: h\r\n\r\n").await.unwrap();
        let mut text = String::new();
        last.read_to_string(&mut text).await.unwrap();
        assert!(text.contains("flagger_info"), "{text}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_never_finishes_does_not_delay_the_shutdown() {
        let (port, stop, serving) = start(Health::default()).await;
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))
            .await
            .unwrap();
        stream
            .write_all(b"GET /healthz HTTP/1.1\r\n")
            .await
            .unwrap();
        // Once a later request is answered, the incomplete one has arrived.
        call(Ipv4Addr::LOCALHOST, port, "GET /healthz").await;
        stop.send(()).unwrap();
        let ended = timeout(Duration::from_secs(20), serving).await;
        assert!(ended.is_ok_and(|ended| ended.is_ok()));
    }
}
