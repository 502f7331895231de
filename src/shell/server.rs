//! `/metrics` and `/healthz`.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use axum::{Router, http::header, routing::any};
use tokio::net::TcpListener;

use super::telemetry::Recorder;

/// Listens on a port, for both versions of IP where there are both.
pub async fn listen(port: u16) -> std::io::Result<TcpListener> {
    match TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))).await {
        Ok(listener) => Ok(listener),
        Err(_) => TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))).await,
    }
}

/// Serves until told to stop.
pub async fn serve(
    listener: TcpListener,
    recorder: Recorder,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let metrics = move || {
        let text = recorder.render();
        async move {
            (
                [(
                    header::CONTENT_TYPE,
                    "text/plain; version=0.0.4; charset=utf-8",
                )],
                text,
            )
        }
    };
    let router = Router::new()
        .route("/healthz", any(|| async { "OK" }))
        .route("/metrics", any(metrics));
    axum::serve(listener, router)
        .with_graceful_shutdown(stop)
        .await
}
