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
//! | which addresses are there? | `server.rs`, `assets.rs`; all of them share a `state.rs` |
//!
//! # Threat model
//!
//! Trusted are the API server, the machine that the process runs on, and the proxy that `--trusted-proxy` names. Visitors, other sites in their browsers,
//! and everybody who writes objects that are shown, are not.
//!
//! | threat | protection | test |
//! | --- | --- | --- |
//! | somebody on the network uses the rights of the user who started the process | without a login, only a loopback address is served | `without_a_login_only_this_machine_is_served` |
//! | a site whose name resolves to this machine reads the pages (DNS rebinding) | without a login, `Host` must be a name of this machine | `without_a_login_only_the_names_of_this_machine_are_answered` |
//! | another user of the same machine opens a page without a login | none: use `--auth=token` on a machine that you share | |
//! | a visitor sees canaries of other namespaces | a namespace is shown if the visitor may list its canaries, asked again each minute | `a_visitor_sees_the_namespaces_whose_canaries_the_visitor_may_list` |
//! | a visitor does with the rights of the process what the visitor may not do | each request about one canary has the visitor's own login | `each_visitor_sees_and_does_what_their_own_account_may`, `each_visitor_has_a_login_of_their_own` |
//! | an action in the name of another user | the author is the user whom the API server names | `each_visitor_sees_and_does_what_their_own_account_may` |
//! | an action for a version that the visitor has not seen | the form names the version of the page | `a_form_of_another_site_does_nothing` |
//! | a form of another site acts with the session of a visitor | `Origin` must be this server's; the cookie is `SameSite=Strict` | `a_form_must_be_of_a_page_of_this_server`, `a_form_of_another_site_does_nothing` |
//! | a script reads the session | the cookie is `HttpOnly`, and does not contain the token | `a_session_ends_when_its_token_expires_and_when_the_visitor_logs_out` |
//! | an expired or revoked token | tokens are reviewed again each minute, also for open pages | the same, `an_open_page_follows_its_canary_and_ends_with_the_login` |
//! | somebody sends the headers of a proxy | they count from a trusted network only, once, and never name users and groups of Kubernetes itself | `the_headers_of_a_user_count_from_a_trusted_proxy_only` |
//! | markup or script in names, labels, events, hook answers and records | each text is escaped, and pages run scripts of this server only | `hostile_texts_are_escaped_and_cut_wherever_they_are`, `pages_run_no_script_of_others_and_are_in_no_frame` |
//! | texts that hide others, or of megabytes | direction marks are removed, texts are cut, rows are limited | `hostile_texts_are_escaped_and_cut_wherever_they_are`, `a_record_of_an_attacker_is_shown_without_harm` |
//! | a link leads to another site after the login | only addresses of pages are followed | `a_login_leads_to_no_other_server` |
//! | a page in a frame of another site collects clicks | no site may frame it but those that are named | `pages_run_no_script_of_others_and_are_in_no_frame` |
//! | somebody tries tokens, or floods the API server with reviews | each address has a burst of 100 unknown tokens, then five a second | `an_address_that_tries_many_tokens_is_slowed_down` |
//! | a client does not read | nothing is queued for it, the system keeps less than 1 MB, and its connection ends after 15 seconds | `a_client_that_does_not_read_is_dropped`, `of_five_hundred_pages_those_that_do_not_read_are_dropped_and_the_others_go_on` |
//! | one visitor opens many pages | 20 are followed for each visitor, 512 in all | `one_visitor_cannot_take_the_places_of_all` |
//! | a changed file of a library | the files are a part of the program, with a checksum | `the_files_of_others_have_the_checksums_of_their_package` |
//!
//! The process speaks HTTP without TLS: outside of a loopback address, a gateway with TLS belongs in front of it.

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
mod state;
#[cfg(test)]
mod tests;
mod visitor;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use kube::api::ListParams;
use tokio::{
    net::{TcpListener, TcpSocket},
    signal::unix::{SignalKind, signal},
};

use self::{
    content::Contents,
    fleet::Fleet,
    gate::Gate,
    network::Network,
    policy::Policy,
    state::{Dashboard, STREAMS},
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
    connections: 2 * STREAMS,
    client: Duration::from_secs(15),
    grace: Duration::from_secs(2),
};

/// The bytes that the system keeps for a client, in about. Without a limit it keeps up to 4 MB.
const KEPT: u32 = 128 << 10;

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
    let visitors = Visitors::connect(reach).await;
    let visitors = visitors.map_err(|error| Stop::unconnected(&error, &typed))?;
    // Visitors have kubeconfigs of their own.
    let commands = match auth {
        Auth::None => typed.clone(),
        _ => Typed::new("kubectl flagger", &[]),
    };
    let namespace = namespace(&visitors, reach, &typed).await?;
    let listener = self::listen(listen);
    let listener =
        listener.map_err(|error| wrong(format!("cannot listen on {listen}: {error}")))?;
    let mut interrupts = [SignalKind::interrupt(), SignalKind::terminate()].map(signal);
    let fleet = Fleet::default();
    let follows = fleet.clone();
    let person = visitors.own().clone();
    tokio::spawn(async move { follows.follow(person, namespace.as_deref()).await });
    let gate = Gate::new(visitors, auth, trusted);
    let dashboard = Arc::new(Dashboard::new(gate, Contents::new(fleet, commands), policy));
    let address = listener.local_addr()?;
    print(&format!("The dashboard is at http://{address}/\n"))?;
    let stop = async {
        let waits = interrupts
            .iter_mut()
            .flatten()
            .map(|it| Box::pin(it.recv()));
        futures::future::select_all(waits).await;
    };
    http_server::serve(listener, server::router(dashboard), LIMITS, stop).await;
    Ok(Code::Yes)
}

/// Listens on an address. What the system keeps for a client that does not read is limited, because it counts as memory of the container.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    socket.set_reuseaddr(true)?;
    socket.set_send_buffer_size(KEPT)?;
    socket.bind(address)?;
    socket.listen(u32::try_from(STREAMS).unwrap_or(u32::MAX))
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
