//! The process of the operator: reads its arguments, connects its parts, and shuts down cleanly.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a binary reads its arguments and environment"
)]

use std::{io::Write as _, process::ExitCode, sync::Arc, time::Duration};

use flagger_rs::{
    api,
    cli::{
        self, Command, Config, Output,
        client::{Program, is_meant},
    },
    metrics::endpoint::public,
    notifications::chats::{Chat, Slack, Teams},
    shell::{
        api_server::{Clients, Cluster, ConnectError, Connection, Leadership, lease},
        check::{self, CheckError},
        client,
        controller::{self, Operator, Records, answers::Answers},
        http_server,
        notify::{GlobalReceivers, Notifier},
        outside::{http::Http, probe},
        telemetry::{
            canary_metrics::CanaryMetrics,
            logs,
            operator_metrics::OperatorMetrics,
            server::{self, Health},
        },
    },
    snapshot::Origin,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
};
use tracing::{error, info, warn};

/// How long notifications may take to be delivered after a signal to stop.
const LAST_NOTIFICATIONS: Duration = Duration::from_secs(2);

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// The reason why the process ends with an error.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Check(#[from] CheckError),
    #[error("metrics: {0}")]
    Metrics(String),
    #[error("HTTP server cannot listen on {port}: {error}")]
    Listen { port: u16, error: std::io::Error },
    #[error("HTTP server: {0}")]
    Serve(tokio::task::JoinError),
    #[error("signals: {0}")]
    Signals(std::io::Error),
}

fn main() -> ExitCode {
    if let Some(code) = probe::called_as_wget() {
        return code;
    }
    let mut args = std::env::args();
    let program = Program::called(&args.next().unwrap_or_default());
    let args: Vec<_> = args.collect();
    if is_meant(program, &args) {
        return for_people(program, &args);
    }
    let command = match cli::parse(args, |name| std::env::var(name).ok()) {
        Ok(command) => command,
        Err(exit) => {
            if exit.code == 0 {
                show(&exit.text);
            } else {
                eprint!("{}", exit.text);
            }
            return ExitCode::from(exit.code);
        }
    };
    match command {
        Command::Crds => match api::crds_yaml() {
            Ok(yaml) => {
                show(&yaml);
                ExitCode::SUCCESS
            }
            Err(error) => failed(&error),
        },
        Command::Check(config, output) => {
            check(*config, output).unwrap_or_else(|error| failed(&error))
        }
        Command::Run(config) => match run(*config) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                error!("{error}");
                ExitCode::FAILURE
            }
        },
    }
}

/// Carries out a command of a person or of a pipeline.
#[tokio::main(flavor = "current_thread")]
async fn for_people(program: Program, args: &[String]) -> ExitCode {
    let code = client::run(program, args, |name| std::env::var(name).ok());
    ExitCode::from(Box::pin(code).await)
}

/// Prints a text. Ignores errors, because the reader may close the pipe early, as `head` does.
fn show(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// Prints the error of a command. Only the operator writes logs.
fn failed(error: &impl std::fmt::Display) -> ExitCode {
    eprintln!("{error}");
    ExitCode::FAILURE
}

/// Prints the first action of the operator for each canary.
#[tokio::main]
async fn check(config: Config, output: Output) -> Result<ExitCode, Failure> {
    for warning in &config.warnings {
        eprintln!("{warning}");
    }
    let connection = connect(&config).await?;
    let (_, metrics) = metrics()?;
    let lease_namespace = config.leader_election.then_some(config.lease_namespace);
    let cluster = connection.reader(metrics);
    let report = check::check(
        cluster,
        config.watched,
        config.settings,
        lease_namespace.as_deref(),
        config.release_history > 0,
    )
    .await?;
    match output {
        Output::Table => show(&report.to_string()),
        Output::Json => show(&format!("{:#}\n", report.json())),
    }
    Ok(if report.is_clean() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Runs the operator on one thread: no reconciliation computes for long, and it took more time to hand work to other threads than to do it.
#[tokio::main(flavor = "current_thread")]
async fn run(config: Config) -> Result<(), Failure> {
    logs::start_logging(&config.log_level, config.log_json);
    let (version, provider) = (
        env!("CARGO_PKG_VERSION"),
        config.settings.mesh_provider.as_str(),
    );
    info!("Starting flagger-rs version {version} mesh provider {provider}");
    for warning in &config.warnings {
        warn!("{warning}");
    }
    let connection = connect(&config).await?;
    tokio::spawn(probe_metrics_server(config.settings.metrics_server.clone()));
    let (canary_metrics, operator_metrics) = metrics()?;
    canary_metrics.info(version, provider);
    let stop = stop_signal()?;
    let port = config.port;
    let listener = http_server::listen(port)
        .await
        .map_err(|error| Failure::Listen { port, error })?;
    let health = Health::default();
    let serving = tokio::spawn(server::serve(
        listener,
        canary_metrics.clone(),
        health.clone(),
        stopped(stop.clone()),
    ));
    health.standing_by();
    let process = Process {
        config,
        canary_metrics,
        operator_metrics,
        health,
        stop,
    };
    process.lead_when_elected(&connection).await?;
    serving.await.map_err(Failure::Serve)?;
    info!("stopped");
    Ok(())
}

/// The parts of the process that outlive a term as the leader.
struct Process {
    config: Config,
    canary_metrics: CanaryMetrics,
    operator_metrics: OperatorMetrics,
    health: Health,
    stop: watch::Receiver<bool>,
}

impl Process {
    /// Reconciles canaries whenever this process leads, until a signal to stop.
    async fn lead_when_elected(&self, connection: &Connection) -> Result<(), ConnectError> {
        if !self.config.leader_election {
            let leadership = Leadership::always();
            self.lead(connection.clients(&leadership)?, leadership)
                .await;
            return Ok(());
        }
        let (identity, namespace) = (lease::identity(), &self.config.lease_namespace);
        let shard = self.config.watched.shard.as_ref();
        info!("Starting leader election id: {identity} namespace: {namespace}");
        let (candidate, leadership) = connection.candidate(namespace, shard, identity);
        let clients = connection.clients(&leadership)?;
        while !*self.stop.borrow() {
            tokio::select! {
                () = candidate.acquire() => {}
                () = stopped(self.stop.clone()) => break,
            }
            // When the Lease is lost, all reconciliations, questions and caches are dropped. From then on this process writes nothing and
            // notifies nobody until it is elected again.
            tokio::select! {
                () = self.lead(clients.clone(), leadership.clone()) => {}
                () = candidate.keep() => {}
            }
            self.health.standing_by();
        }
        candidate.release().await;
        Ok(())
    }

    /// Reconciles canaries until a signal to stop.
    async fn lead(&self, clients: Clients, leadership: Leadership) {
        self.health.syncing();
        let http = Http::new(
            self.operator_metrics.clone(),
            self.config.destinations.clone(),
        );
        let cluster = Cluster::new(clients, leadership, self.operator_metrics.clone());
        let http = http.with_api_server(cluster.calls());
        let global = GlobalReceivers {
            chat: chat(&self.config),
            event_webhook: self.config.event_webhook.clone(),
            other_namespaces: self.config.settings.other_namespaces(),
        };
        let notifier = Notifier::new(cluster.clone(), http.clone(), global);
        let (trigger, triggers) = mpsc::unbounded_channel();
        let operator = Operator {
            cluster: cluster.clone(),
            settings: Arc::new(self.config.settings.clone()),
            notifier: notifier.clone(),
            canary_metrics: self.canary_metrics.clone(),
            operator_metrics: self.operator_metrics.clone(),
            answers: Arc::new(Answers::new(
                cluster,
                http,
                notifier.clone(),
                trigger.clone(),
            )),
            records: Records::keeping(self.config.release_history),
        };
        controller::run(
            self.config.watched.clone(),
            Arc::new(operator),
            (trigger, triggers),
            self.health.clone(),
            stopped(self.stop.clone()),
        )
        .await;
        // Deliver what is still queued while this process leads, but do not wait for a hanging chat.
        let _ = tokio::time::timeout(LAST_NOTIFICATIONS, notifier.all_delivered()).await;
    }
}

/// Returns the operator's own chat: Teams if it has an address, otherwise Slack, as in Flagger. Slack without a channel or a user is logged
/// as an error and turns alerts off.
fn chat(config: &Config) -> Option<Chat> {
    let Config { slack, teams, .. } = config;
    if let Some(address) = &teams.url {
        return Some(Chat {
            service: &Teams,
            address: address.clone(),
            token: None,
            proxy: teams.proxy.clone(),
            username: slack.user.clone(),
            channel: slack.channel.clone(),
            origin: Origin::Administrator,
        });
    }
    let address = slack.url.clone()?;
    if slack.channel.is_empty() || slack.user.is_empty() {
        error!("Notifier: -slack-channel and -slack-user must not be empty, alerts are off");
        return None;
    }
    Some(Chat {
        service: &Slack,
        address,
        token: slack.token.clone(),
        proxy: slack.proxy.clone(),
        username: slack.user.clone(),
        channel: slack.channel.clone(),
        origin: Origin::Administrator,
    })
}

async fn connect(config: &Config) -> Result<Connection, ConnectError> {
    Connection::open(config.kubeconfig.as_deref(), config.master.as_deref()).await
}

fn metrics() -> Result<(CanaryMetrics, OperatorMetrics), Failure> {
    let canary_metrics =
        CanaryMetrics::new().map_err(|error| Failure::Metrics(error.to_string()))?;
    let operator_metrics = canary_metrics
        .operator_metrics()
        .map_err(|error| Failure::Metrics(error.to_string()))?;
    Ok((canary_metrics, operator_metrics))
}

/// Logs whether the metrics server answers. A release that needs an unreachable one reports that itself.
async fn probe_metrics_server(address: String) {
    let shown = public(&address);
    let answer = match prometheus_http_query::Client::try_from(address) {
        Ok(client) => client.query("vector(1)").get().await.map(drop),
        Err(error) => Err(error),
    };
    match answer {
        Ok(()) => info!("Connected to metrics server {shown}"),
        Err(error) => warn!("Metrics server {shown} unreachable {error}"),
    }
}

/// Returns a channel that turns true on the first SIGTERM or SIGINT. The second one ends the process at once.
fn stop_signal() -> Result<watch::Receiver<bool>, Failure> {
    let listen = |kind| signal(kind).map_err(Failure::Signals);
    let (mut terminate, mut interrupt) = (
        listen(SignalKind::terminate())?,
        listen(SignalKind::interrupt())?,
    );
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(async move {
        for _ in 0..2 {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if stop.send_replace(true) {
                std::process::exit(1);
            }
        }
    });
    Ok(stopped)
}

async fn stopped(mut stop: watch::Receiver<bool>) {
    // The sender lives as long as the process.
    let _ = stop.wait_for(|stop| *stop).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The service, the address and the proxy of the chat for these flags.
    fn chat_of(flags: &[&str]) -> Option<(String, String, Option<String>)> {
        let parsed = cli::parse(flags.iter().map(|flag| (*flag).to_owned()), |_| None);
        let Ok(Command::Run(config)) = parsed else {
            panic!("{flags:?} do not run the operator")
        };
        let Chat {
            service,
            address,
            proxy,
            ..
        } = chat(&config)?;
        let proxy = proxy.map(|proxy| proxy.0);
        Some((service.name().to_owned(), address.0, proxy))
    }

    #[test]
    fn teams_wins_over_slack_and_slack_needs_a_channel_and_a_user() {
        let slack = [
            "-slack-url=http://slack",
            "-slack-proxy-url=http://a",
            "-slack-channel=c",
        ];
        let teams = ["-msteams-url=http://teams", "-msteams-proxy-url=http://b"];
        let named = |name: &str, proxy: &str| {
            let (address, proxy) = (format!("http://{name}"), format!("http://{proxy}"));
            Some((name.to_owned(), address, Some(proxy)))
        };
        assert_eq!(chat_of(&slack), named("slack", "a"));
        let both = [&slack[..], &teams[..]].concat();
        let (service, address, proxy) = chat_of(&both).unwrap();
        assert_eq!(
            (service.as_str(), address.as_str()),
            ("msteams", "http://teams")
        );
        assert_eq!(proxy.as_deref(), Some("http://b"));
        assert_eq!(chat_of(&slack[..2]), None, "no channel");
        let no_user = [&slack[..], &["-slack-user="]].concat();
        assert_eq!(chat_of(&no_user), None);
        assert_eq!(chat_of(&[]), None);
    }

    #[test]
    fn the_bot_of_slack_has_the_token_the_channel_and_the_user_of_the_flags() {
        let flags = [
            "-slack-url=http://slack",
            "-slack-token=hush",
            "-slack-channel=c",
            "-slack-user=u",
        ];
        let parsed = cli::parse(flags.map(str::to_owned), |_| None);
        let Ok(Command::Run(config)) = parsed else {
            panic!("{flags:?} do not run the operator")
        };
        let chat = chat(&config).unwrap();
        assert_eq!((chat.channel.as_str(), chat.username.as_str()), ("c", "u"));
        assert_eq!(chat.token.unwrap().0, "hush");
        assert_eq!(chat.origin, Origin::Administrator);
    }
}
