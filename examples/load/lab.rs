//! The control plane, the operator, and the figures measured so far.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use flagger_rs::api::canary::CanaryPhase as P;
use kube::Client;
use testbed::{
    Audit, Bed,
    bed::ACCOUNT,
    operator::{Launch, Operator},
    programs,
    wait::until,
};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};

use super::{
    Size,
    report::Figure,
    servers::Servers,
    workloads::{self, History},
};

/// The longest wait for all canaries to reach a state.
pub const PATIENCE: Duration = Duration::from_secs(1800);

pub struct Lab {
    pub bed: Bed,
    pub client: Client,
    program: PathBuf,
    pub kubeconfig: PathBuf,
    pub proxy: String,
    pub servers: Servers,
    pub history: History,
    tasks: [JoinHandle<()>; 2],
    pub size: Size,
    figures: Vec<Figure>,
}

impl Lab {
    /// Starts a control plane and installs the operator's manifests; the operator itself does not run yet.
    pub async fn start(size: Size) -> Self {
        let bed = Bed::start().await.unwrap();
        let overlay = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../kustomize/istio"));
        let (_, kubeconfig) = bed.install(overlay).await.unwrap();
        bed.plane.stop_controllers().await;
        let (servers, history) = (Servers::default(), History::default());
        let client = bed.client();
        let tasks = [
            workloads::make_deployments_ready(client.clone()),
            history.start(client.clone()),
        ];
        Self {
            program: match &size.program {
                Some(program) => program.clone(),
                None => {
                    let folder = programs::build_release(&["flagger"]).unwrap();
                    folder.join("flagger")
                }
            },
            proxy: servers.start().await,
            client,
            bed,
            kubeconfig,
            servers,
            history,
            tasks,
            size,
            figures: Vec::new(),
        }
    }

    /// Stops everything. Returns the figures.
    pub async fn stop(self) -> Vec<Figure> {
        self.tasks.iter().for_each(JoinHandle::abort);
        self.bed.stop().await;
        self.figures
    }

    /// Adds a figure and prints it.
    pub fn add(&mut self, figure: Figure) {
        let Figure {
            what,
            value,
            unit,
            goal,
            ..
        } = &figure;
        eprintln!("load: {what}: {value:.3} {unit} (≤ {goal})");
        self.figures.push(figure);
    }

    /// Starts a process of the operator. Returns it with the time that it took to be ready.
    pub async fn operator(&self) -> (Operator, Duration) {
        let args = [
            "-mesh-provider=istio",
            "-metrics-server=http://prometheus:9090",
            "-slack-url=http://slack/hook",
            "-slack-channel=general",
            "-event-webhook=http://events/all",
            "-log-level=error",
        ];
        let begun = Instant::now();
        let operator = Operator::start(Launch {
            name: "flagger",
            program: &self.program,
            kubeconfig: &self.kubeconfig,
            proxy: &self.proxy,
            args: &args,
            logs: self.bed.folder(),
        });
        let operator = operator.await.unwrap();
        operator.ready(PATIENCE).await.unwrap();
        (operator, begun.elapsed())
    }

    /// Waits until this many canaries are idle, and their last events are sent.
    pub async fn until_idle(&self, canaries: usize) {
        let mut reported = 0;
        let idle = [P::Initialized, P::Succeeded, P::Failed];
        until(PATIENCE, "all canaries to be idle", async || {
            let now = self.history.count(&idle);
            if now / 500 != reported / 500 {
                eprintln!("load: {now} of {canaries} idle");
                reported = now;
            }
            if now >= canaries {
                Ok(())
            } else {
                Err(now.to_string())
            }
        })
        .await
        .unwrap();
        sleep(Duration::from_secs(15)).await;
    }

    /// The instants at which the weight of a canary was raised, since `then`.
    pub fn weights_since(&self, n: usize, then: Instant) -> Vec<Instant> {
        let all = self.history.since(n, then);
        let steps = all
            .iter()
            .filter(|(_, phase, weight)| *phase == P::Progressing && *weight > 0);
        steps.map(|(at, ..)| *at).collect()
    }

    /// All requests that the operator has sent to the API server so far.
    pub fn requests(&self) -> Vec<Audit> {
        let mut lines = self.bed.audit().unwrap();
        lines.retain(|line| line.user == ACCOUNT);
        lines
    }
}
