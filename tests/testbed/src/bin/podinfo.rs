//! A sample application with the paths, metrics and shutdown behaviour of stefanprodan/podinfo. Tests release it.
//!
//! Flags make it faulty. Started as `podcli` it is podinfo's probe client: `podcli check http ADDRESS`.
#![forbid(unsafe_code)]

use std::{
    env,
    error::Error,
    fs,
    net::Ipv4Addr,
    process::{self, ExitCode},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    extract::{Path, Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use clap::{Args, Parser};
use prometheus::{
    HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry, TextEncoder,
};
use rand::{SeedableRng, rngs::SmallRng};
use rand_distr::{Distribution, LogNormal};
use serde_json::{Value, json};
use testbed::{
    apps::{called_as, duration, log, probe},
    grpc,
};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::{sleep, timeout},
};

/// The timeout of a probe.
const PROBE: Duration = Duration::from_secs(1);
/// How long the application goes on serving after SIGTERM, so that endpoints and proxies can drop it first.
const DRAIN: Duration = Duration::from_secs(3);
/// How long requests in flight may take after that.
const FINISH: Duration = Duration::from_secs(5);

/// A sample application.
#[derive(Parser)]
struct Flags {
    /// The port for requests; 0 takes a free port.
    #[arg(long, default_value_t = 9898)]
    port: u16,
    /// The port for metrics only; 0 takes a free port.
    #[arg(long, default_value_t = 9797)]
    port_metrics: u16,
    /// The port for gRPC; 0 takes a free port.
    #[arg(long, default_value_t = 9999)]
    grpc_port: u16,
    #[command(flatten)]
    faults: Faults,
    #[command(flatten)]
    _ignored: Ignored,
}

/// Faults, which affect all requests but those for probes, metrics, `/version` and `/token`.
#[derive(Args)]
struct Faults {
    /// The share of requests that are answered with 500, evenly spread.
    #[arg(long, default_value = "0", value_parser = share)]
    error_rate: f64,
    /// The delay of every request (`800ms`, `2s`).
    #[arg(long, default_value = "0s", value_parser = duration)]
    delay: Duration,
    /// The delay varies by a lognormal law with this σ; the flag `--delay` is its median.
    #[arg(long, default_value_t = 0.0)]
    spread: f64,
    /// The application never becomes ready.
    #[arg(long)]
    never_ready: bool,
    /// The process exits with 1 at the request after this many.
    #[arg(long)]
    crash_after: Option<u32>,
}

/// Flags of podinfo that have no effect here.
#[derive(Args)]
struct Ignored {
    #[arg(long, hide = true)]
    grpc_service_name: Option<String>,
    #[arg(long, hide = true)]
    level: Option<String>,
}

struct App {
    version: HeaderValue,
    hostname: String,
    faults: Faults,
    /// The number of requests so far that faults may affect.
    taken: AtomicU32,
    /// Whether SIGTERM was received.
    closing: AtomicBool,
    registry: Registry,
    requests: IntCounterVec,
    durations: HistogramVec,
    grpc_calls: IntCounter,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let result = if called_as("podcli") {
        check().await
    } else {
        serve(Flags::parse()).await
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{e}");
            ExitCode::FAILURE
        }
    }
}

async fn check() -> Result<(), Box<dyn Error>> {
    let args: Vec<_> = env::args().skip(1).collect();
    match &args[..] {
        [check, http, address] if check == "check" && http == "http" => {
            Ok(probe(address, PROBE).await?)
        }
        _ => Err("usage: podcli check http ADDRESS".into()),
    }
}

async fn serve(flags: Flags) -> Result<(), Box<dyn Error>> {
    let mut terminated = signal(SignalKind::terminate())?;
    let app = Arc::new(App::new(flags.faults)?);
    let traffic = TcpListener::bind((Ipv4Addr::UNSPECIFIED, flags.port)).await?;
    let scraped = TcpListener::bind((Ipv4Addr::UNSPECIFIED, flags.port_metrics)).await?;
    let calls = TcpListener::bind((Ipv4Addr::UNSPECIFIED, flags.grpc_port)).await?;
    log(&format!(
        "Starting podinfo {} on port {}, metrics on port {}, gRPC on port {}",
        app.version(),
        traffic.local_addr()?.port(),
        scraped.local_addr()?.port(),
        calls.local_addr()?.port(),
    ));

    let (close, mut closing) = watch::channel(false);
    // This server ends with the process.
    tokio::spawn(axum::serve(scraped, metrics_only(app.clone())).into_future());
    let grpc = grpc::serve(calls, app.grpc_calls.clone(), closing.clone());
    let grpc = tokio::spawn(grpc);
    let server = axum::serve(traffic, router(app.clone()))
        .with_graceful_shutdown(async move { grpc::closed(&mut closing).await });
    let server = tokio::spawn(server.into_future());

    terminated.recv().await;
    log("Shutting down");
    app.closing.store(true, Relaxed);
    sleep(DRAIN).await;
    close.send_replace(true);
    match timeout(FINISH, async { tokio::join!(server, grpc) }).await {
        Ok((server, grpc)) => {
            grpc?;
            Ok(server??)
        }
        Err(_) => Ok(()),
    }
}

fn metrics_only(app: Arc<App>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .with_state(app)
}

fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/", get(info))
        .route("/status/{code}", get(status))
        .route("/delay/{seconds}", get(delay))
        // Faults affect only the routes above.
        .route_layer(middleware::from_fn_with_state(app.clone(), fail))
        .route("/version", get(version))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/token", post(token))
        .route("/metrics", get(metrics))
        // Covers every response, also for unknown paths.
        .layer(middleware::from_fn_with_state(app.clone(), observe))
        .with_state(app)
}

/// Counts and times a request, and adds the version to the response.
async fn observe(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = request.method().to_string();
    let path = label(request.uri().path());
    let mut response = next.run(request).await;

    let status = response.status();
    app.requests.with_label_values(&[status.as_str()]).inc();
    app.durations
        .with_label_values(&[method.as_str(), path, status.as_str()])
        .observe(started.elapsed().as_secs_f64());
    let headers = response.headers_mut();
    headers.insert("x-version", app.version.clone());
    if app.closing.load(Relaxed) {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Applies the faults: exits, waits or fails.
async fn fail(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let before = app.taken.fetch_add(1, Relaxed);
    if app.faults.crash_after.is_some_and(|limit| before >= limit) {
        process::exit(1);
    }
    sleep(app.faults.delay.mul_f64(factor(before, app.faults.spread))).await;
    if errs(before, app.faults.error_rate) {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    next.run(request).await
}

/// The factor of the delay of the request after `before` others.
fn factor(before: u32, spread: f64) -> f64 {
    let mut random = SmallRng::seed_from_u64(u64::from(before));
    LogNormal::new(0.0, spread).map_or(1.0, |law| law.sample(&mut random))
}

/// Whether the request after `before` others is one of the failing share.
fn errs(before: u32, rate: f64) -> bool {
    let failed = |requests: f64| (requests * rate).round();
    failed(f64::from(before) + 1.0) > failed(f64::from(before))
}

async fn info(State(app): State<Arc<App>>) -> Json<Value> {
    Json(json!({
        "hostname": app.hostname,
        "version": app.version(),
        "message": format!("greetings from podinfo {}", app.version()),
    }))
}

async fn version(State(app): State<Arc<App>>) -> Json<Value> {
    Json(json!({ "version": app.version(), "commit": "unknown" }))
}

async fn healthz() -> Json<Value> {
    Json(json!({ "status": "OK" }))
}

async fn readyz(State(app): State<Arc<App>>) -> Response {
    if app.faults.never_ready || app.closing.load(Relaxed) {
        StatusCode::SERVICE_UNAVAILABLE.into_response()
    } else {
        healthz().await.into_response()
    }
}

async fn status(Path(code): Path<u16>) -> Response {
    match StatusCode::from_u16(code) {
        Ok(status) if !status.is_informational() => {
            (status, Json(json!({ "status": code }))).into_response()
        }
        _ => StatusCode::BAD_REQUEST.into_response(),
    }
}

async fn delay(Path(seconds): Path<u64>) -> Json<Value> {
    sleep(Duration::from_secs(seconds)).await;
    Json(json!({ "delay": seconds }))
}

async fn token() -> Json<Value> {
    Json(json!({ "token": "podinfo-sample-token", "expires_at": "2099-01-01T00:00:00Z" }))
}

async fn metrics(State(app): State<Arc<App>>) -> Response {
    match TextEncoder::new().encode_to_string(&app.registry.gather()) {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(e) => (StatusCode::INTERNAL_SERVER_ERROR, e.to_string()).into_response(),
    }
}

impl App {
    fn new(faults: Faults) -> Result<Self, Box<dyn Error>> {
        let version =
            env::var("IMAGE_TAG").unwrap_or_else(|_| env!("CARGO_PKG_VERSION").to_owned());
        let hostname = env::var("HOSTNAME")
            .or_else(|_| fs::read_to_string("/proc/sys/kernel/hostname"))?
            .trim()
            .to_owned();
        let requests = IntCounterVec::new(
            Opts::new("http_requests_total", "The total number of HTTP requests."),
            &["status"],
        )?;
        let durations = HistogramVec::new(
            HistogramOpts::new(
                "http_request_duration_seconds",
                "Seconds spent serving HTTP requests.",
            ),
            &["method", "path", "status"],
        )?;
        let grpc_calls = IntCounter::new("grpc_calls_total", "The total number of gRPC calls.")?;
        let registry = Registry::new();
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(durations.clone()))?;
        registry.register(Box::new(grpc_calls.clone()))?;
        Ok(Self {
            version: version.parse()?,
            hostname,
            faults,
            taken: AtomicU32::new(0),
            closing: AtomicBool::new(false),
            registry,
            requests,
            durations,
            grpc_calls,
        })
    }

    fn version(&self) -> &str {
        self.version.to_str().unwrap_or_default()
    }
}

/// The label for a path in podinfo's metrics.
fn label(path: &str) -> &'static str {
    match path.split('/').nth(1) {
        Some("") => "root",
        Some("status") => "status_code",
        Some("delay") => "delay_wait",
        Some("version") => "version",
        Some("healthz") => "healthz",
        Some("readyz") => "readyz",
        Some("token") => "token",
        Some("metrics") => "metrics",
        _ => "other",
    }
}

/// Reads a number from 0 to 1.
fn share(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|share| (0.0..=1.0).contains(share))
        .ok_or_else(|| format!("`{text}` is not a number from 0 to 1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_the_given_share_and_are_evenly_spread() {
        for (rate, per_hundred) in [
            (0.0, 0),
            (0.01, 1),
            (0.29, 29),
            (0.3, 30),
            (0.5, 50),
            (1.0, 100),
        ] {
            for start in [0, 100, 4_000_000_000] {
                let failing: Vec<u32> = (start..start + 100).filter(|n| errs(*n, rate)).collect();
                assert_eq!(failing.len(), per_hundred, "{rate} from {start}");
                // The distance between errors is 1/rate, rounded up or down.
                for pair in failing.windows(2) {
                    let apart = f64::from(pair[1] - pair[0]);
                    assert!((apart - 1.0 / rate).abs() < 1.0, "{rate}: {pair:?}");
                }
            }
        }
    }
}
