//! A proxy between an operator and the API server: it writes down what is asked, and makes happen what a network, a crash and an
//! overloaded server do.
//!
//! It stands where the connection is encrypted, with a certificate of its own; the token of who asks passes through, so that rights are
//! the same. An operator is led through it by [`Proxy::kubeconfig`].

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
use http::{Method, Request, Response, StatusCode};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use kube::{Client, Config, config::KubeConfigOptions};
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{JoinHandle, JoinSet},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, pki_types::PrivateKeyDer},
};

use crate::Error;

/// The name that the kubeconfigs of a bed expect in a certificate.
const NAME: &str = "kubernetes.default.svc";

/// A request that was received.
#[derive(Clone, Debug)]
pub struct Asked {
    /// How long after the proxy's start it was sent; those that a frozen line held are in the log when that ends.
    pub at: Duration,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`.
    pub verb: &'static str,
    /// The resource, with its subresource if there is one (`canaries/status`).
    pub resource: String,
    /// Which object; empty for lists, watches and what is created.
    pub name: String,
    /// The path, with its query.
    pub path: String,
    /// The answer's HTTP status, if one was given.
    pub code: Option<u16>,
    /// How long the answer took: its head, of a watch.
    pub took: Duration,
}

impl Asked {
    /// Whether it is to change something.
    pub fn is_write(&self) -> bool {
        !matches!(self.verb, "get" | "list" | "watch")
    }

    /// Whether it is a watch of a resource.
    pub fn watches(&self, resource: &str) -> bool {
        self.verb == "watch" && self.resource == resource
    }

    fn new(at: Duration, method: &Method, path: &str) -> Self {
        let (plain, query) = path.split_once('?').unwrap_or((path, ""));
        let mut parts = plain.split('/').filter(|part| !part.is_empty());
        // `/api/v1/…` and `/apis/GROUP/VERSION/…`.
        let skipped = if parts.next() == Some("api") { 1 } else { 2 };
        let mut parts = parts.skip(skipped);
        let mut resource = parts.next().unwrap_or_default().to_owned();
        if resource == "namespaces" {
            // `namespaces/NAMESPACE/RESOURCE/…`, unless it is the Namespace that is meant.
            let namespace = parts.next().unwrap_or_default();
            match parts.next() {
                Some(inside) => inside.clone_into(&mut resource),
                None => return Self::of(at, method, query, resource, namespace, path),
            }
        }
        let name = parts.next().unwrap_or_default();
        if let Some(sub) = parts.next() {
            resource = format!("{resource}/{sub}");
        }
        Self::of(at, method, query, resource, name, path)
    }

    fn of(
        at: Duration,
        method: &Method,
        query: &str,
        resource: String,
        name: &str,
        path: &str,
    ) -> Self {
        let verb = match method.as_str() {
            "POST" => "create",
            "PUT" => "update",
            "PATCH" => "patch",
            "DELETE" => "delete",
            _ if query.contains("watch=true") || query.contains("watch=1") => "watch",
            _ if name.is_empty() => "list",
            _ => "get",
        };
        Self {
            at,
            verb,
            resource,
            name: name.to_owned(),
            path: path.to_owned(),
            code: None,
            took: Duration::ZERO,
        }
    }
}

impl fmt::Display for Asked {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            at,
            verb,
            resource,
            name,
            ..
        } = self;
        write!(to, "{:8.3} s {verb} {resource} {name}", at.as_secs_f64())?;
        match self.code {
            Some(code) => write!(to, " → {code} ({} ms)", self.took.as_millis()),
            None => to.write_str(" → no answer"),
        }
    }
}

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is not forwarded and not answered; the connection stays open.
    Hold,
    /// It is done and never answered; the connection stays open.
    Swallow,
    /// It is done, and the connection ends instead of an answer.
    Close,
    /// It is not forwarded; this status is answered.
    Answer(u16),
    /// The line freezes with it, as [`Proxy::freeze`] does: it is forwarded when that ends.
    Freeze,
    /// Its answer stops where it is, and the connection stays open: also of those that are being answered already.
    Stall,
}

/// Which requests something happens to.
struct Plan {
    which: Box<dyn Fn(&Asked) -> bool + Send>,
    /// So many that are meant pass before.
    pass: usize,
    /// To so many it happens then.
    left: usize,
    fault: Fault,
    met: watch::Sender<Option<Asked>>,
}

/// Tells when a plan's fault happened: of what is done nevertheless, when it is done.
pub struct Met(watch::Receiver<Option<Asked>>);

impl Met {
    /// Until it happened; to what, at last.
    pub async fn within(&mut self, patience: Duration) -> Result<Asked, Error> {
        let met = tokio::time::timeout(patience, self.0.wait_for(Option::is_some)).await;
        let asked = met.ok().and_then(Result::ok).and_then(|met| met.clone());
        asked.ok_or_else(|| Error::Timeout {
            what: "a request that a plan is for".to_owned(),
            last: "none such was sent".to_owned(),
        })
    }
}

/// A running proxy. Dropping it closes its connections.
pub struct Proxy {
    shared: Arc<Shared>,
    /// Leads who follows it through this proxy.
    pub kubeconfig: PathBuf,
    server: JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Proxy {
    /// Stands before the API server that a kubeconfig leads to. Its own kubeconfig, with the same token, is `FOLDER/NAME.kubeconfig`.
    pub async fn start(name: &str, kubeconfig: &Path, folder: &Path) -> Result<Self, Error> {
        let failed = |why: &dyn fmt::Display| Error::Failed(format!("the proxy {name}: {why}"));
        let text = fs::read_to_string(kubeconfig).map_err(|e| Error::io(kubeconfig, e))?;
        let mut led: Value = serde_json::from_str(&text).map_err(|e| failed(&e))?;
        let mut config = Config::from_custom_kubeconfig(
            serde_json::from_str(&text).map_err(|e| failed(&e))?,
            &KubeConfigOptions::default(),
        )
        .await
        .map_err(|e| failed(&e))?;
        // Who asks says so in the request, and tries again if it will.
        config.auth_info = kube::config::AuthInfo::default();
        config.default_retry = false;
        let rcgen::CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed([NAME.to_owned()]).map_err(|e| failed(&e))?;
        let key = PrivateKeyDer::try_from(signing_key.serialize_der()).map_err(|e| failed(&e))?;
        let tls = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .map_err(|e| failed(&e))?;
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
        fs::write(&authority, cert.pem()).map_err(|e| Error::io(&authority, e))?;
        if let Some(cluster) = led.pointer_mut("/clusters/0/cluster") {
            *cluster = json!({"server": format!("https://127.0.0.1:{port}"), "certificate-authority": authority, "tls-server-name": NAME});
        }
        let kubeconfig = folder.join(format!("{name}.kubeconfig"));
        fs::write(&kubeconfig, led.to_string()).map_err(|e| Error::io(&kubeconfig, e))?;
        let server = accept(listener, TlsAcceptor::from(Arc::new(tls)), shared.clone());
        Ok(Self {
            shared,
            kubeconfig,
            server: tokio::spawn(server),
        })
    }

    /// How long it has been there: what [`Asked::at`] counts.
    pub fn age(&self) -> Duration {
        self.shared.start.elapsed()
    }

    /// All that was asked so far.
    pub fn log(&self) -> Vec<Asked> {
        lock(&self.shared.log).clone()
    }

    /// From now on, after `pass` requests of those that are meant, this happens to the next one.
    pub fn once(
        &self,
        fault: Fault,
        pass: usize,
        which: impl Fn(&Asked) -> bool + Send + 'static,
    ) -> Met {
        self.plan(fault, pass, 1, which)
    }

    /// From now on, this happens to all requests that are meant.
    pub fn always(&self, fault: Fault, which: impl Fn(&Asked) -> bool + Send + 'static) -> Met {
        self.plan(fault, 0, usize::MAX, which)
    }

    fn plan(
        &self,
        fault: Fault,
        pass: usize,
        times: usize,
        which: impl Fn(&Asked) -> bool + Send + 'static,
    ) -> Met {
        let (met, happened) = watch::channel(None);
        lock(&self.shared.plans).push(Plan {
            which: Box::new(which),
            pass,
            left: times,
            fault,
            met,
        });
        Met(happened)
    }

    /// Nothing happens to requests any more. What was held, swallowed or stalled stays so.
    pub fn no_plans(&self) {
        lock(&self.shared.plans).clear();
    }

    /// Not a byte goes either way until the line is thawed; then all goes on where it was.
    pub fn freeze(&self) {
        self.shared.line.send_modify(|line| line.frozen = true);
    }

    /// Ends a freeze.
    pub fn thaw(&self) {
        self.shared.line.send_modify(|line| line.frozen = false);
    }

    /// The connections that there are lead nowhere any more, and nobody is told: they stay open. New ones are as ever.
    pub fn forget_connections(&self) {
        self.shared.line.send_modify(|line| line.age += 1);
    }
}

struct Shared {
    upstream: Client,
    start: Instant,
    log: Mutex<Vec<Asked>>,
    plans: Mutex<Vec<Plan>>,
    line: watch::Sender<Line>,
}

/// What connects both sides.
#[derive(Default)]
struct Line {
    frozen: bool,
    /// Connections of an earlier age are dead.
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
            // Only so that they do not pile up.
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(stream: TcpStream, tls: TlsAcceptor, shared: Arc<Shared>) {
    let age = shared.line.borrow().age;
    shared.passes(age).await;
    // Who gives up in the midst of it comes again.
    let Ok(stream) = tls.accept(stream).await else {
        return;
    };
    let answer = service_fn(|request| shared.clone().answer(request, age));
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), answer);
    // How it ended is the other side's business.
    let _ = connection.await;
}

/// Ends the connection instead of an answer.
type Closed = Box<dyn std::error::Error + Send + Sync>;

impl Shared {
    /// Returns while the line of a connection of this age is open: never, if it is dead.
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
        let asked = Asked::new(at, request.method(), path);
        let number = {
            let mut log = lock(&self.log);
            log.push(asked.clone());
            log.len() - 1
        };
        let planned = self.planned(&asked);
        let fault = planned.as_ref().map(|(fault, _)| *fault);
        let happened = || {
            if let Some((_, met)) = &planned {
                met.send_replace(Some(asked.clone()));
            }
        };
        match fault {
            Some(Fault::Answer(code)) => {
                self.answered(number, code);
                happened();
                return refusal(code);
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
            None | Some(Fault::Hold | Fault::Freeze | Fault::Answer(_) | Fault::Stall) => {}
        }
        self.passes(age).await;
        self.answered(number, answer.status().as_u16());
        Ok(answer.map(|body| self.pass_on(body, asked, age)))
    }

    async fn forward(&self, request: Request<Incoming>) -> Result<Response<Body>, Closed> {
        let (head, body) = request.into_parts();
        let body = to_bytes(Body::new(body), usize::MAX).await?;
        let request = Request::from_parts(head, kube::client::Body::from(body.to_vec()));
        Ok(self.upstream.send(request).await?.map(Body::new))
    }

    /// An answer's body, as it comes, as long as nothing happens to it.
    fn pass_on(self: &Arc<Self>, body: Body, asked: Asked, age: u64) -> Body {
        let from = (body.into_data_stream(), self.clone(), asked);
        Body::from_stream(stream::unfold(
            from,
            move |(mut body, shared, asked)| async move {
                let chunk = body.next().await;
                shared.passes(age).await;
                if shared.stalls(&asked) {
                    future::pending::<Infallible>().await;
                }
                Some((chunk?, (body, shared, asked)))
            },
        ))
    }

    fn answered(&self, number: usize, code: u16) {
        if let Some(asked) = lock(&self.log).get_mut(number) {
            asked.code = Some(code);
            asked.took = self.start.elapsed().saturating_sub(asked.at);
        }
    }

    /// What happens to a request, and who is to be told.
    fn planned(&self, asked: &Asked) -> Option<(Fault, watch::Sender<Option<Asked>>)> {
        let mut plans = lock(&self.plans);
        let meant = |plan: &&mut Plan| plan.fault != Fault::Stall && (plan.which)(asked);
        let mut found = None;
        for plan in plans.iter_mut().filter(meant) {
            if plan.pass > 0 {
                plan.pass -= 1;
            } else if plan.left > 0 && found.is_none() {
                plan.left -= 1;
                found = Some((plan.fault, plan.met.clone()));
            }
        }
        found
    }

    fn stalls(&self, asked: &Asked) -> bool {
        let mut plans = lock(&self.plans);
        let stalls = |plan: &&mut Plan| plan.fault == Fault::Stall && (plan.which)(asked);
        let plan = plans.iter_mut().find(stalls);
        if let Some(plan) = &plan {
            plan.met.send_replace(Some(asked.clone()));
        }
        plan.is_some()
    }
}

/// An answer as the API server gives it when it refuses.
fn refusal(code: u16) -> Result<Response<Body>, Closed> {
    let said = json!({"apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure", "code": code,
        "reason": StatusCode::from_u16(code)?.canonical_reason().unwrap_or_default().replace(' ', ""), "message": "refused as planned"});
    let answer = Response::builder()
        .status(code)
        .header("content-type", "application/json");
    Ok(answer.body(Body::from(said.to_string()))?)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(method: &str, path: &str) -> String {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let Asked {
            verb,
            resource,
            name,
            ..
        } = Asked::new(Duration::ZERO, &method, path);
        format!("{verb} {resource} {name}")
    }

    #[test]
    fn a_request_is_told_in_kubernetes_words() {
        for (method, path, words) in [
            ("GET", "/api/v1/pods?limit=100", "list pods "),
            (
                "GET",
                "/apis/apps/v1/deployments?watch=true",
                "watch deployments ",
            ),
            (
                "GET",
                "/apis/apps/v1/namespaces/test/deployments/app",
                "get deployments app",
            ),
            (
                "POST",
                "/api/v1/namespaces/test/events?x=y",
                "create events ",
            ),
            (
                "PATCH",
                "/apis/flagger.app/v1beta1/namespaces/test/canaries/app/status",
                "patch canaries/status app",
            ),
            ("GET", "/api/v1/namespaces/test", "get namespaces test"),
            ("GET", "/api/v1/namespaces", "list namespaces "),
        ] {
            assert_eq!(asked(method, path), words);
        }
    }
}
