//! `flagger dashboard`: serves the pages of [`crate::dashboard`], and keeps open ones up to date.
//!
//! | question | place |
//! | --- | --- |
//! | who is a visitor? | `gate.rs`, `network.rs` |
//! | what may a visitor see and do? | `visitor.rs` |
//! | which canaries are there? | `fleet.rs`: one watch for all visitors |
//! | what is in a page? | `content.rs`, `setup.rs` |
//! | how do open pages follow changes? | `live.rs` |
//! | which requests are refused? | `policy.rs`, `pace.rs`, `refusal.rs` |
//! | which addresses are there? | `server.rs`, `assets.rs` |

mod assets;
mod content;
mod fleet;
mod gate;
mod live;
mod network;
mod pace;
mod policy;
mod refusal;
mod server;
mod setup;
mod visitor;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use kube::api::ListParams;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};

use self::{
    content::Contents, fleet::Fleet, gate::Gate, network::Network, policy::Policy,
    server::Dashboard,
};
use super::{
    api_server::{person::Resource, visitors::Visitors},
    client::{Stop, Wanted, print, remark},
    http_server::{self, Limits},
};
use crate::{
    cli::client::{Auth, Code, Dashboard as Args, Reach},
    snapshot::Kind,
    view::Typed,
};

/// Browsers open a connection for each file and each open page.
const LIMITS: Limits = Limits {
    connections: 2 * server::STREAMS,
    client: Duration::from_secs(15),
    grace: Duration::from_secs(2),
};

/// Serves the dashboard until the process is interrupted.
pub async fn run(reach: &Reach, typed: Typed, args: &Args) -> Result<Code, Stop> {
    let listen = address(&args.listen)?;
    let auth = auth(args, listen)?;
    let trusted = trusted(args, auth)?;
    let wrong = |text: String| Stop::because(Code::Usage, text);
    let policy = Policy::new(
        auth == Auth::None,
        args.origin.as_deref(),
        &args.frame_ancestor,
    );
    let policy = policy.map_err(wrong)?;
    let visitors = Visitors::connect(reach).await?;
    let namespace = namespace(&visitors, reach, &typed).await?;
    let listener = TcpListener::bind(listen).await;
    let listener =
        listener.map_err(|error| wrong(format!("cannot listen on {listen}: {error}")))?;
    let mut interrupts = [SignalKind::interrupt(), SignalKind::terminate()].map(signal);
    let fleet = Fleet::default();
    let follows = fleet.clone();
    let person = visitors.own().clone();
    tokio::spawn(async move { follows.follow(person, namespace.as_deref()).await });
    let gate = Gate::new(visitors, auth, trusted);
    let dashboard = Arc::new(Dashboard::new(gate, Contents::new(fleet, typed), policy));
    let address = listener.local_addr()?;
    print(&format!("The dashboard is at http://{address}/\n"))?;
    let stop = async {
        let waits = interrupts
            .iter_mut()
            .flatten()
            .map(|it| Box::pin(it.recv()));
        futures::future::select_all(waits).await;
    };
    http_server::serve(listener, dashboard.router(), LIMITS, stop).await;
    Ok(Code::Yes)
}

/// The address to listen on.
fn address(text: &str) -> Result<SocketAddr, Stop> {
    let text = text.replace("localhost:", "127.0.0.1:");
    text.parse().map_err(|_| {
        let text = "--listen needs an address and a port, such as 127.0.0.1:8765";
        Stop::because(Code::Usage, text)
    })
}

/// The kind of login. Off this machine, there must be one.
fn auth(args: &Args, listen: SocketAddr) -> Result<Auth, Stop> {
    let auth = args
        .auth
        .or_else(|| listen.ip().is_loopback().then_some(Auth::None));
    match auth {
        Some(Auth::None) | None if !listen.ip().is_loopback() => Err(Stop::because(
            Code::Usage,
            format!(
                "without a login, everybody who reaches {listen} would have your rights\nTry: --auth=token, --auth=forwarded or --auth=headers, or listen on 127.0.0.1"
            ),
        )),
        auth => Ok(auth.unwrap_or(Auth::None)),
    }
}

/// The networks of trusted proxies.
fn trusted(args: &Args, auth: Auth) -> Result<Vec<Network>, Stop> {
    let wrong = |text: String| Stop::because(Code::Usage, text);
    if (auth == Auth::Headers) == args.trusted_proxy.is_empty() {
        let text = "--auth=headers needs --trusted-proxy, the network of the proxy that sends the headers, and no other --auth has it";
        return Err(wrong(text.to_owned()));
    }
    let network = |text: &String| {
        let network = Network::parse(text);
        network.ok_or_else(|| {
            wrong(format!(
                "--trusted-proxy: {text:?} is no network such as 10.0.0.0/8"
            ))
        })
    };
    args.trusted_proxy.iter().map(network).collect()
}

/// The namespace to show; `None` for all. A user who may not list the canaries of all namespaces sees those of the context's namespace.
async fn namespace(
    visitors: &Visitors,
    reach: &Reach,
    typed: &Typed,
) -> Result<Option<String>, Stop> {
    let (own, params) = (visitors.own(), ListParams::default().limit(1));
    let canaries = Resource::of(Kind::Canary);
    let list = async |namespace: Option<&str>| {
        let wanted = Wanted {
            verb: "list",
            namespace,
            canary: None,
            typed,
        };
        let listed = own.page(canaries, namespace, &params).await;
        listed.map_err(|error| (error.code(), wanted.failed(&error)))
    };
    let namespace = match &reach.namespace {
        Some(namespace) => Some(namespace.as_str()),
        None => match list(None).await {
            Ok(_) => return Ok(None),
            Err((Some(403), _)) => {
                remark(&format!(
                    "you may not list the canaries of all namespaces; those of {} are shown",
                    own.namespace()
                ));
                Some(own.namespace())
            }
            Err((_, stop)) => return Err(stop),
        },
    };
    list(namespace).await.map_err(|(_, stop)| stop)?;
    Ok(namespace.map(str::to_owned))
}

/// Reports an error of the process, which goes on.
fn log(text: &str) {
    remark(text);
}
