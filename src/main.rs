//! The operator's process: reads its arguments, joins its parts, ends well.

use std::{process::ExitCode, sync::Arc, time::Duration};

use flagger_rs::{
    api,
    args::{self, Command, Config, Form},
    metrics::endpoint::public,
    notifications::chats::{Chat, Slack, Teams},
    shell::{
        answer::Answers,
        check,
        cluster::Cluster,
        controller::{self, Operator},
        http::Http,
        leadership::Leadership,
        lease::{self, Candidate},
        meters::Meters,
        probe,
        report::{Global, Reporter},
        server::{self, Health},
        telemetry::{self, Recorder},
    },
};
use kube::{Client, config::KubeConfigOptions};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
};
use tracing::{error, info, warn};

/// The longest that the API server may be silent: it ends each watch after half a minute.
const SILENCE: Duration = Duration::from_secs(40);
/// How long news may take once the process is told to stop.
const FAREWELL: Duration = Duration::from_secs(2);

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    if let Some(code) = probe::called_as_wget() {
        return code;
    }
    let command = match args::parse(std::env::args().skip(1), |name| std::env::var(name).ok()) {
        Ok(command) => command,
        Err(exit) => {
            if exit.code == 0 {
                print!("{}", exit.text);
            } else {
                eprint!("{}", exit.text);
            }
            return ExitCode::from(exit.code);
        }
    };
    let result = match command {
        Command::Crds => api::crds_yaml()
            .map(|yaml| print!("{yaml}"))
            .map_err(|error| error.to_string()),
        Command::Run(config) => run(*config),
        Command::Check(config, form) => {
            // Nobody logs here: a problem goes to where problems of commands go.
            return check(*config, form).unwrap_or_else(|problem| {
                eprintln!("{problem}");
                ExitCode::FAILURE
            });
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            error!("{problem}");
            ExitCode::FAILURE
        }
    }
}

/// Prints what would come first if the operator were run.
#[tokio::main]
async fn check(config: Config, form: Form) -> Result<ExitCode, String> {
    for remark in &config.remarks {
        eprintln!("{remark}");
    }
    let (client, _) = connect(&config).await?;
    let watched = config.namespace.as_deref();
    let lease = config.leader_election.then_some(config.lease_namespace);
    let report = check::check(client, watched, config.settings, lease.as_deref()).await?;
    match form {
        Form::Table => print!("{report}"),
        Form::Json => println!("{:#}", report.json()),
    }
    Ok(if report.is_clean() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// One thread does it all: no look computes for long, and handing work from thread to thread took more time than the work.
#[tokio::main(flavor = "current_thread")]
async fn run(config: Config) -> Result<(), String> {
    telemetry::start_logging(&config.log_level, config.log_json);
    let (version, provider) = (
        env!("CARGO_PKG_VERSION"),
        config.settings.mesh_provider.as_str(),
    );
    info!("Starting flagger-rs version {version} mesh provider {provider}");
    for remark in &config.remarks {
        warn!("{remark}");
    }
    let (client, api_server) = connect(&config).await?;
    tokio::spawn(probe_metrics(config.settings.metrics_server.clone()));
    let recorder = Recorder::new().map_err(|error| format!("metrics: {error}"))?;
    recorder.info(version, provider);
    let stop = stop_signal()?;
    let listener = server::listen(config.port)
        .await
        .map_err(|error| format!("HTTP server cannot listen on {}: {error}", config.port))?;
    let health = Health::default();
    let serving = tokio::spawn(server::serve(
        listener,
        recorder.clone(),
        health.clone(),
        stopped(stop.clone()),
    ));
    health.stands();
    let meters = recorder
        .meters()
        .map_err(|error| format!("metrics: {error}"))?;
    let lead = |clients: Clients, leadership: Leadership| {
        lead(
            &config,
            clients,
            leadership,
            recorder.clone(),
            meters.clone(),
            health.clone(),
            stop.clone(),
        )
    };
    if config.leader_election {
        let identity = lease::identity();
        info!(
            "Starting leader election id: {identity} namespace: {}",
            config.lease_namespace
        );
        let (candidate, leadership) = Candidate::new(client, &config.lease_namespace, identity);
        let clients = Clients::new(&leadership, api_server)?;
        while !*stop.borrow() {
            tokio::select! {
                () = candidate.acquire() => {}
                () = stopped(stop.clone()) => break,
            }
            // A leader that lost the lease drops its looks, its questions and its caches, and stands again; it writes and tells nothing
            // any more.
            tokio::select! {
                () = lead(clients.clone(), leadership.clone()) => {}
                () = candidate.keep() => {}
            }
            health.leads(false);
            health.is_synced(false);
        }
        candidate.release().await;
    } else {
        let leadership = Leadership::always();
        lead(Clients::new(&leadership, api_server)?, leadership).await;
    }
    serving
        .await
        .map_err(|error| error.to_string())?
        .map_err(|error| format!("HTTP server: {error}"))?;
    info!("stopped");
    Ok(())
}

/// What a leader speaks to the API server with.
#[derive(Clone)]
struct Clients {
    /// Reads and writes, each with a deadline: within it, kube tries again what the API server had no time for.
    client: Client,
    /// Watches. Here kube's own pauses, of up to minutes, would be time in which nobody watches and nobody knows: the caches try again in
    /// seconds, and ask for what they cannot watch.
    watching: Client,
}

impl Clients {
    fn new(leadership: &Leadership, config: kube::Config) -> Result<Self, String> {
        let mut unretried = config.clone();
        unretried.default_retry = false;
        Ok(Self {
            client: leadership.client(config).map_err(no_client)?,
            watching: leadership.client(unretried).map_err(no_client)?,
        })
    }
}

/// Runs releases for as long as this process leads.
async fn lead(
    config: &Config,
    Clients { client, watching }: Clients,
    leadership: Leadership,
    recorder: Recorder,
    meters: Meters,
    health: Health,
    stop: watch::Receiver<bool>,
) {
    health.leads(true);
    let http = Http::new(meters.clone());
    let cluster = Cluster::new(client.clone(), leadership, meters.clone());
    let global = Global {
        chat: chat(config),
        event_webhook: config.event_webhook.clone(),
    };
    let reporter = Reporter::new(client, cluster.clone(), http.clone(), global);
    let (touch, touched) = mpsc::unbounded_channel();
    let operator = Operator {
        cluster,
        settings: Arc::new(config.settings.clone()),
        reporter: reporter.clone(),
        recorder,
        meters,
        answers: Arc::new(Answers::new(http, reporter.clone(), touch.clone())),
    };
    controller::run(
        watching,
        config.namespace.as_deref(),
        Arc::new(operator),
        (touch, touched),
        health.clone(),
        stopped(stop),
    )
    .await;
    // What is left to tell is told as long as this process leads; a chat that hangs is not waited for.
    let _ = tokio::time::timeout(FAREWELL, reporter.all_told()).await;
}

/// The operator's own chat: Teams before Slack, as in Flagger; one of Slack without a channel is an error that only costs the alerts.
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
    })
}

/// A client that can see our CRDs, and how another is made.
async fn connect(config: &Config) -> Result<(Client, kube::Config), String> {
    let mut kube = match &config.kubeconfig {
        Some(path) => {
            let kubeconfig = kube::config::Kubeconfig::read_from(path)
                .map_err(|error| format!("Error building kubeconfig: {error}"))?;
            kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
                .await
                .map_err(|error| error.to_string())
        }
        None => kube::Config::infer()
            .await
            .map_err(|error| error.to_string()),
    }
    .map_err(|error| format!("Error building kubeconfig: {error}"))?;
    // A connection that says nothing for longer than a watch lasts is dead; whoever waits on it is told.
    kube.read_timeout = Some(SILENCE);
    kube.reset_reader_on_write = true;
    if let Some(master) = &config.master {
        kube.cluster_url = master
            .parse()
            .map_err(|error| format!("-master: {error}"))?;
    }
    let client = Client::try_from(kube.clone()).map_err(no_client)?;
    let version = client
        .apiserver_version()
        .await
        .map_err(|error| format!("Error calling Kubernetes API: {error}"))?;
    info!("Connected to Kubernetes API {}", version.git_version);
    Ok((client, kube))
}

#[expect(clippy::needless_pass_by_value, reason = "what is given to `map_err`")]
fn no_client(error: kube::Error) -> String {
    format!("Error building kubernetes clientset: {error}")
}

/// Says whether the metrics server is there; releases say so again when they need it.
async fn probe_metrics(address: String) {
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

/// Turns true on the first SIGTERM or SIGINT; the second ends the process at once.
fn stop_signal() -> Result<watch::Receiver<bool>, String> {
    let listen = |kind| signal(kind).map_err(|error| format!("signals: {error}"));
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
