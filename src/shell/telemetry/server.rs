//! `/metrics`, `/healthz` and `/readyz`.

use std::{
    future::ready,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::any,
};
use tokio::{
    net::TcpListener,
    sync::oneshot,
    time::{Instant, sleep},
};

use super::canary_metrics::Recorder;

/// How long calls under way may take once we are told to stop, as in Flagger.
const GRACE: Duration = Duration::from_secs(3);

/// A schedule that was not heard of for so long does not look at canaries any more.
const SILENCE: Duration = Duration::from_secs(60);

/// How the process fares, as its probes see it.
#[derive(Clone, Default)]
pub struct Health(Arc<Mutex<Signs>>);

#[derive(Default)]
struct Signs {
    /// Whether it stands for election, or leads.
    stands: bool,
    /// Whether it may write.
    leads: bool,
    synced: bool,
    beat: Option<Instant>,
}

impl Health {
    /// The API server was reached: from now on this process takes its turn.
    pub fn stands(&self) {
        self.signs().stands = true;
    }

    /// Whether this process leads.
    pub fn leads(&self, leads: bool) {
        self.signs().leads = leads;
    }

    /// Whether all that canaries look at is known.
    pub fn is_synced(&self, synced: bool) {
        let mut signs = self.signs();
        signs.synced = synced;
        signs.beat = synced.then(Instant::now);
    }

    /// Canaries are being looked at.
    pub fn beat(&self) {
        self.signs().beat = Some(Instant::now());
    }

    /// Ready: a leader knows what there is to know; who waits for its turn has to be there, and no more.
    fn ready(&self) -> Result<&'static str, &'static str> {
        let signs = self.signs();
        match (signs.stands, signs.leads, signs.synced) {
            (false, ..) => Err("the API server was not reached yet"),
            (true, false, _) => Ok("standing by"),
            (true, true, false) => Err("canaries are being listed"),
            (true, true, true) => Ok("leading"),
        }
    }

    fn alive(&self) -> Result<&'static str, &'static str> {
        let beat = self.signs().beat;
        if beat.is_none_or(|beat| beat.elapsed() < SILENCE) {
            Ok("OK")
        } else {
            Err("canaries are not looked at any more")
        }
    }

    fn signs(&self) -> MutexGuard<'_, Signs> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Listens on a port, for both versions of IP where there are both.
pub async fn listen(port: u16) -> std::io::Result<TcpListener> {
    match TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))).await {
        Ok(listener) => Ok(listener),
        Err(_) => TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))).await,
    }
}

/// Serves the operator's until told to stop; a client that is slow then is not waited for.
pub async fn serve(
    listener: TcpListener,
    recorder: Recorder,
    health: Health,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let scraped = move || {
        let text = recorder.render();
        async move { metrics(text) }
    };
    let readiness = health.clone();
    let router = Router::new()
        .route("/healthz", any(move || ready(said(health.alive()))))
        .route("/readyz", any(move || ready(said(readiness.ready()))))
        .route("/metrics", any(scraped));
    run(listener, router, GRACE, stop).await
}

/// Metrics, as Prometheus reads them.
pub fn metrics(text: String) -> Response {
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

/// Serves until told to stop, and then for as long as calls under way take, but no longer than `grace`.
pub async fn run(
    listener: TcpListener,
    router: Router,
    grace: Duration,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let (stopping, told) = oneshot::channel();
    let serving = axum::serve(listener, router).with_graceful_shutdown(async move {
        stop.await;
        // Fails only if nobody waits any more.
        let _ = stopping.send(());
    });
    let end = async {
        // Without the word there is no end: serving has one of its own.
        match told.await {
            Ok(()) => sleep(grace).await,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        served = serving => served,
        () = end => Ok(()),
    }
}

fn said(sign: Result<&'static str, &'static str>) -> (StatusCode, &'static str) {
    match sign {
        Ok(well) => (StatusCode::OK, well),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, why),
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
        task::JoinHandle,
        time::timeout,
    };

    use super::*;

    async fn start(health: Health) -> (u16, oneshot::Sender<()>, JoinHandle<std::io::Result<()>>) {
        let listener = listen(0).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (stop, stopped) = oneshot::channel();
        let recorder = Recorder::new().unwrap();
        recorder.info("1", "istio");
        let serving = serve(listener, recorder, health, async { drop(stopped.await) });
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
    async fn ready_is_who_waits_for_its_turn_and_who_leads_and_knows_all() {
        let health = Health::default();
        let (port, _stop, _serving) = start(health.clone()).await;
        let status = async || {
            let text = call(Ipv4Addr::LOCALHOST, port, "GET /readyz").await;
            text.split(' ').nth(1).unwrap().to_owned()
        };
        assert_eq!(status().await, "503", "the API server was not reached");
        health.stands();
        assert_eq!(status().await, "200", "another leads");
        health.leads(true);
        assert_eq!(status().await, "503", "it has not seen all canaries");
        health.is_synced(true);
        assert_eq!(status().await, "200");
    }

    #[tokio::test(start_paused = true)]
    async fn a_schedule_that_stopped_is_not_healthy() {
        let health = Health::default();
        assert!(health.alive().is_ok(), "there is none yet");
        health.is_synced(true);
        sleep(SILENCE / 2).await;
        health.beat();
        sleep(SILENCE / 2).await;
        assert!(health.alive().is_ok());
        sleep(SILENCE / 2).await;
        assert!(health.alive().is_err());
    }

    #[tokio::test]
    async fn a_port_that_is_taken_is_an_error() {
        let taken = listen(0).await.unwrap();
        assert!(listen(taken.local_addr().unwrap().port()).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_never_finishes_does_not_hold_up_the_end() {
        let (port, stop, serving) = start(Health::default()).await;
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))
            .await
            .unwrap();
        stream
            .write_all(b"GET /healthz HTTP/1.1\r\n")
            .await
            .unwrap();
        // Once a later call is answered, this one has arrived, as far as it goes.
        call(Ipv4Addr::LOCALHOST, port, "GET /healthz").await;
        stop.send(()).unwrap();
        let ended = timeout(Duration::from_secs(20), serving).await;
        assert!(ended.is_ok_and(|ended| ended.unwrap().is_ok()));
    }
}
