//! A proxy between an operator and the API server. It logs requests, and injects the faults of networks, crashes and overloaded servers.
//!
//! The proxy terminates TLS with a certificate of its own. It forwards the client's token, so that the client keeps its rights. An operator
//! that uses [`Proxy::kubeconfig`] goes through the proxy.

mod request;

use std::{
    convert::Infallible,
    fmt, fs, future,
    path::{Path, PathBuf},
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use axum::body::{Body, to_bytes};
use futures::{StreamExt, stream};
use http::{Request, Response, StatusCode};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use kube::{Client, Config, config::KubeConfigOptions};
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{JoinHandle, JoinSet},
};
use tokio_rustls::TlsAcceptor;

use crate::{Error, https::self_signed};
pub use request::LoggedRequest;

/// The name that the kubeconfigs of a bed expect in a certificate.
const NAME: &str = "kubernetes.default.svc";

/// A fault of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The request is not forwarded and not answered; the connection stays open.
    Hold,
    /// The request is forwarded and not answered; the connection stays open.
    Swallow,
    /// The request is forwarded, and the connection closes instead of an answer.
    Close,
    /// The request is not forwarded, and answered with this status.
    Answer(u16),
    /// The request is forwarded after this time.
    Late(Duration),
    /// The request freezes the proxy, as [`Proxy::freeze`] does, and is forwarded at the thaw.
    Freeze,
    /// The answer stops, and the connection stays open. Applies to answers under way too.
    Stall,
}

/// A fault, and the requests that it applies to.
struct Plan {
    applies_to: Box<dyn Fn(&LoggedRequest) -> bool + Send>,
    /// The number of matching requests that pass before the fault.
    pass: usize,
    /// The number of requests that the fault still applies to.
    left: usize,
    fault: Fault,
    happened: watch::Sender<Option<LoggedRequest>>,
}

/// Waits for a planned fault. A fault of a forwarded request has happened when the API server has answered.
pub struct Occurrence(watch::Receiver<Option<LoggedRequest>>);

impl Occurrence {
    /// Waits until the fault has happened. Returns the latest request that it happened to.
    pub async fn within(&mut self, patience: Duration) -> Result<LoggedRequest, Error> {
        let happened = tokio::time::timeout(patience, self.0.wait_for(Option::is_some)).await;
        let request = happened.ok().and_then(Result::ok);
        let request = request.and_then(|request| request.clone());
        request.ok_or_else(|| Error::Timeout {
            what: "a request that a plan applies to".to_owned(),
            last: "no such request was sent".to_owned(),
        })
    }
}

/// A running proxy. Dropping it closes its connections.
pub struct Proxy {
    shared: Arc<Shared>,
    /// A kubeconfig whose server is this proxy.
    pub kubeconfig: PathBuf,
    server: JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Proxy {
    /// Starts a proxy for the API server of a kubeconfig. Writes a kubeconfig with the same token to `FOLDER/NAME.kubeconfig`.
    pub async fn start(name: &str, kubeconfig: &Path, folder: &Path) -> Result<Self, Error> {
        let failed = |why: &dyn fmt::Display| Error::Failed(format!("the proxy {name}: {why}"));
        let text = fs::read_to_string(kubeconfig).map_err(|e| Error::io(kubeconfig, e))?;
        let mut through_proxy: Value = serde_json::from_str(&text).map_err(|e| failed(&e))?;
        let mut config = Config::from_custom_kubeconfig(
            serde_json::from_str(&text).map_err(|e| failed(&e))?,
            &KubeConfigOptions::default(),
        )
        .await
        .map_err(|e| failed(&e))?;
        // The client's requests have their own token, and the client retries by itself.
        config.auth_info = kube::config::AuthInfo::default();
        config.default_retry = false;
        let (tls, certificate) = self_signed(NAME)?;
        let listener = TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.map_err(|e| failed(&e))?;
        let port = listener.local_addr().map_err(|e| failed(&e))?.port();
        let shared = Arc::new(Shared {
            upstream: Client::try_from(config)?,
            start: Instant::now(),
            log: Mutex::default(),
            plans: Mutex::default(),
            line: watch::Sender::default(),
        });
        let authority = folder.join(format!("{name}.crt"));
        fs::write(&authority, certificate).map_err(|e| Error::io(&authority, e))?;
        if let Some(cluster) = through_proxy.pointer_mut("/clusters/0/cluster") {
            *cluster = json!({"server": format!("https://127.0.0.1:{port}"), "certificate-authority": authority, "tls-server-name": NAME});
        }
        let kubeconfig = folder.join(format!("{name}.kubeconfig"));
        fs::write(&kubeconfig, through_proxy.to_string()).map_err(|e| Error::io(&kubeconfig, e))?;
        let server = accept(listener, tls, shared.clone());
        Ok(Self {
            shared,
            kubeconfig,
            server: tokio::spawn(server),
        })
    }

    /// The time since the proxy's start, comparable to [`LoggedRequest::at`].
    pub fn age(&self) -> Duration {
        self.shared.start.elapsed()
    }

    /// All requests so far.
    pub fn log(&self) -> Vec<LoggedRequest> {
        lock(&self.shared.log).clone()
    }

    /// Applies a fault to one matching request, after `pass` others from now on.
    pub fn once(
        &self,
        fault: Fault,
        pass: usize,
        applies_to: impl Fn(&LoggedRequest) -> bool + Send + 'static,
    ) -> Occurrence {
        self.plan(fault, pass, 1, applies_to)
    }

    /// Applies a fault to all matching requests from now on.
    pub fn always(
        &self,
        fault: Fault,
        applies_to: impl Fn(&LoggedRequest) -> bool + Send + 'static,
    ) -> Occurrence {
        self.plan(fault, 0, usize::MAX, applies_to)
    }

    fn plan(
        &self,
        fault: Fault,
        pass: usize,
        times: usize,
        applies_to: impl Fn(&LoggedRequest) -> bool + Send + 'static,
    ) -> Occurrence {
        let (happened, occurrence) = watch::channel(None);
        lock(&self.shared.plans).push(Plan {
            applies_to: Box::new(applies_to),
            pass,
            left: times,
            fault,
            happened,
        });
        Occurrence(occurrence)
    }

    /// Ends all faults. Requests that were held, swallowed or stalled stay so.
    pub fn no_plans(&self) {
        lock(&self.shared.plans).clear();
    }

    /// Forwards nothing in either direction until [`Proxy::thaw`].
    pub fn freeze(&self) {
        self.shared.line.send_modify(|line| line.frozen = true);
    }

    /// Ends a freeze.
    pub fn thaw(&self) {
        self.shared.line.send_modify(|line| line.frozen = false);
    }

    /// Existing connections stay open, but nothing is forwarded on them any more. New connections work.
    pub fn forget_connections(&self) {
        self.shared.line.send_modify(|line| line.age += 1);
    }
}

struct Shared {
    upstream: Client,
    start: Instant,
    log: Mutex<Vec<LoggedRequest>>,
    plans: Mutex<Vec<Plan>>,
    line: watch::Sender<Line>,
}

/// The state of the connections.
#[derive(Default)]
struct Line {
    frozen: bool,
    /// The number of times that the connections were cut. Connections of an earlier age forward nothing.
    age: u64,
}

async fn accept(listener: TcpListener, tls: TlsAcceptor, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    connections.spawn(serve(stream, tls.clone(), shared.clone()));
                }
            }
            // Drop finished connections.
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(stream: TcpStream, tls: TlsAcceptor, shared: Arc<Shared>) {
    let age = shared.line.borrow().age;
    shared.passes(age).await;
    // A client that gives up during the handshake connects again.
    let Ok(stream) = tls.accept(stream).await else {
        return;
    };
    let answer = service_fn(|request| shared.clone().answer(request, age));
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), answer);
    // The client sees how the connection ended.
    let _ = connection.await;
}

/// An error that closes the connection instead of an answer.
type Closed = Box<dyn std::error::Error + Send + Sync>;

impl Shared {
    /// Waits while the proxy is frozen. Waits for ever if connections of this age forward nothing any more.
    async fn passes(&self, age: u64) {
        let mut line = self.line.subscribe();
        let open = pin!(line.wait_for(|line| !line.frozen && line.age == age));
        if open.await.is_err() {
            future::pending::<Infallible>().await;
        }
    }

    async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        age: u64,
    ) -> Result<Response<Body>, Closed> {
        let at = self.start.elapsed();
        self.passes(age).await;
        let path = request
            .uri()
            .path_and_query()
            .map_or("", |path| path.as_str());
        let logged = LoggedRequest::new(at, request.method(), path);
        let number = {
            let mut log = lock(&self.log);
            log.push(logged.clone());
            log.len() - 1
        };
        let planned = self.planned(&logged);
        let fault = planned.as_ref().map(|(fault, _)| *fault);
        let happened = || {
            if let Some((_, occurrence)) = &planned {
                occurrence.send_replace(Some(logged.clone()));
            }
        };
        match fault {
            Some(Fault::Answer(code)) => {
                self.answered(number, code);
                happened();
                return refuse(code);
            }
            Some(Fault::Hold) => {
                happened();
                future::pending::<Infallible>().await;
            }
            Some(Fault::Freeze) => {
                self.line.send_modify(|line| line.frozen = true);
                happened();
                self.passes(age).await;
            }
            Some(Fault::Late(time)) => {
                happened();
                tokio::time::sleep(time).await;
            }
            None | Some(Fault::Swallow | Fault::Close | Fault::Stall) => {}
        }
        let answer = self.forward(request).await?;
        match fault {
            Some(Fault::Swallow) => {
                happened();
                future::pending::<Infallible>().await;
            }
            Some(Fault::Close) => {
                happened();
                return Err("closed as planned".into());
            }
            _ => {}
        }
        self.passes(age).await;
        self.answered(number, answer.status().as_u16());
        Ok(answer.map(|body| self.pass_on(body, logged, age)))
    }

    async fn forward(&self, request: Request<Incoming>) -> Result<Response<Body>, Closed> {
        let (head, body) = request.into_parts();
        let body = to_bytes(Body::new(body), usize::MAX).await?;
        let request = Request::from_parts(head, kube::client::Body::from(body.to_vec()));
        Ok(self.upstream.send(request).await?.map(Body::new))
    }

    /// Forwards an answer's body, until a fault stalls it.
    fn pass_on(self: &Arc<Self>, body: Body, logged: LoggedRequest, age: u64) -> Body {
        let from = (body.into_data_stream(), self.clone(), logged);
        Body::from_stream(stream::unfold(
            from,
            move |(mut body, shared, logged)| async move {
                let chunk = body.next().await;
                shared.passes(age).await;
                if shared.stalls(&logged) {
                    future::pending::<Infallible>().await;
                }
                Some((chunk?, (body, shared, logged)))
            },
        ))
    }

    fn answered(&self, number: usize, code: u16) {
        if let Some(logged) = lock(&self.log).get_mut(number) {
            logged.code = Some(code);
            logged.took = self.start.elapsed().saturating_sub(logged.at);
        }
    }

    /// The fault of a request, and the channel to report it on.
    fn planned(
        &self,
        logged: &LoggedRequest,
    ) -> Option<(Fault, watch::Sender<Option<LoggedRequest>>)> {
        let mut plans = lock(&self.plans);
        let matches = |plan: &&mut Plan| plan.fault != Fault::Stall && (plan.applies_to)(logged);
        let mut found = None;
        for plan in plans.iter_mut().filter(matches) {
            if plan.pass > 0 {
                plan.pass -= 1;
            } else if plan.left > 0 && found.is_none() {
                plan.left -= 1;
                found = Some((plan.fault, plan.happened.clone()));
            }
        }
        found
    }

    fn stalls(&self, logged: &LoggedRequest) -> bool {
        let mut plans = lock(&self.plans);
        let stalls = |plan: &&mut Plan| plan.fault == Fault::Stall && (plan.applies_to)(logged);
        let plan = plans.iter_mut().find(stalls);
        if let Some(plan) = &plan {
            plan.happened.send_replace(Some(logged.clone()));
        }
        plan.is_some()
    }
}

/// An error answer like those of the API server.
fn refuse(code: u16) -> Result<Response<Body>, Closed> {
    let status = json!({"apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure", "code": code,
        "reason": StatusCode::from_u16(code)?.canonical_reason().unwrap_or_default().replace(' ', ""), "message": "refused as planned"});
    let mut answer = Response::builder()
        .status(code)
        .header("content-type", "application/json");
    if code == 429 {
        answer = answer.header("retry-after", "1");
    }
    Ok(answer.body(Body::from(status.to_string()))?)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
