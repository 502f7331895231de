//! The gRPC server of the sample application. It has one method, `grpc.health.v1.Health/Check`; a library for gRPC would be more code than
//! this method.

use std::convert::Infallible;

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, header};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::{Body, Bytes, Incoming},
    server::conn::http2,
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prometheus::IntCounter;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

const CHECK: &str = "/grpc.health.v1.Health/Check";
const STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// The status of a call that succeeded.
const OK: HeaderValue = HeaderValue::from_static("0");
/// The status of a call of a method that does not exist.
const UNIMPLEMENTED: HeaderValue = HeaderValue::from_static("12");
/// `HealthCheckResponse { status: SERVING }` in an uncompressed frame: a zero, four bytes with the length, and the message.
const SERVING: Bytes = Bytes::from_static(&[0, 0, 0, 0, 2, 8, 1]);

/// Serves until `close` is true and the calls in flight are answered. `calls` counts the calls of this method.
pub async fn serve(listener: TcpListener, calls: IntCounter, mut close: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                // An error is that of one connection.
                if let Ok((stream, _)) = accepted {
                    connections.spawn(connection(stream, calls.clone(), close.clone()));
                }
            }
            () = closed(&mut close) => break,
        }
        // Forget the connections that have ended.
        while connections.try_join_next().is_some() {}
    }
    while connections.join_next().await.is_some() {}
}

/// Waits until this is true, or until its sender is gone.
pub async fn closed(close: &mut watch::Receiver<bool>) {
    let _ = close.wait_for(|close| *close).await;
}

async fn connection(stream: TcpStream, calls: IntCounter, mut close: watch::Receiver<bool>) {
    let service = service_fn(|request| answer(request, calls.clone()));
    let io = TokioIo::new(stream);
    let mut connection =
        std::pin::pin!(http2::Builder::new(TokioExecutor::new()).serve_connection(io, service));
    tokio::select! {
        // An error ends the connection, and the client calls again.
        _ = connection.as_mut() => {}
        () = closed(&mut close) => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}

async fn answer(
    request: Request<Incoming>,
    calls: IntCounter,
) -> Result<Response<impl Body<Data = Bytes, Error = Infallible>>, Infallible> {
    let (message, status) = match request.uri().path() {
        CHECK => (SERVING, OK),
        _ => (Bytes::new(), UNIMPLEMENTED),
    };
    // A server that answers before the end of a request resets its stream.
    let _ = request.into_body().collect().await;
    if status == OK {
        calls.inc();
    }
    let trailers = HeaderMap::from_iter([(STATUS, status)]);
    let body = Full::new(message).with_trailers(async { Some(Ok(trailers)) });
    let mut response = Response::new(body);
    let kind = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(response)
}
