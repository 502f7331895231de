//! Starts one test bed with the operator, and plays all scenarios on it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::join_all;
use kube::Client;
use serde_json::Value;
use testbed::{
    Bed,
    bed::ROUTERS,
    operator::{Launch, Operator},
};
use tokio::net::TcpListener;

use crate::{
    cluster::Cluster, compare, departures::Departures, player::Player, scenario::Scenario,
    seen::Seen, servers::Servers, transcript, watches::Watches,
};

/// The pause between the starts of two scenarios. If all started at once, the load would be greater than in a real cluster.
const APART: Duration = Duration::from_millis(500);

/// The recordings of all scenarios, by namespace.
pub struct Stage(BTreeMap<String, Arc<Seen>>);

impl Stage {
    fn new(scenarios: &[&Scenario], port: u16) -> Self {
        let seen = |s: &&Scenario| (s.namespace.clone(), Arc::new(Seen::new(&s.namespace, port)));
        Self(scenarios.iter().map(seen).collect())
    }

    pub fn of(&self, namespace: &str) -> Option<&Arc<Seen>> {
        self.0.get(namespace)
    }

    /// Returns the scenario whose namespace is a word of the text. If there are several, returns the one with the longest namespace.
    pub fn owner(&self, text: &str) -> Option<&Arc<Seen>> {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric());
        let named = words.filter_map(|word| self.0.get(word));
        named.max_by_key(|seen| seen.namespace.len())
    }
}

/// Plays these scenarios. Returns the differences from Flagger, and the failures.
pub async fn play(scenarios: &[&Scenario], departures: &Departures) -> Vec<String> {
    let begin = Instant::now();
    let mut bed = Bed::start().await.unwrap();
    for kinds in ROUTERS {
        bed.apply(kinds).await.unwrap();
    }
    let overlay = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/all-routers");
    let (_, kubeconfig) = bed.install(&overlay).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let servers = format!("http://127.0.0.1:{port}");
    let stage = Arc::new(Stage::new(scenarios, port));
    let _servers = Servers::start(listener, stage.clone());
    let _watches = Watches::start(&bed.client(), &stage);
    let operator = start(&bed, &kubeconfig, &servers).await;
    eprintln!(
        "{} scenarios; ready after {} s",
        scenarios.len(),
        begin.elapsed().as_secs()
    );

    let run = Run {
        client: bed.client(),
        stage,
        servers,
        departures,
        begin,
    };
    let played = scenarios
        .iter()
        .enumerate()
        .map(|(number, scenario)| run.one(number, scenario));
    let mut failed: Vec<String> = join_all(played).await.into_iter().flatten().collect();
    match operator.terminate().await {
        Ok(status) if status.success() => {}
        ended => failed.push(format!("the operator does not end with 0: {ended:?}")),
    }
    if !failed.is_empty() {
        bed.keep_folder();
    }
    bed.stop().await;
    failed
}

/// Starts the operator with flags that users of Flagger set.
async fn start(bed: &Bed, kubeconfig: &Path, servers: &str) -> Operator {
    let metrics = format!("-metrics-server={servers}/prom");
    let slack = format!("-slack-url={servers}/chat/global");
    let events = format!("-event-webhook={servers}/events");
    let flags = [
        "-kubeconfig-qps=500",
        "-kubeconfig-burst=1000",
        "-mesh-provider=istio",
        "-slack-channel=general",
        "-control-loop-interval=1s",
        "-threadiness=4",
        "-include-label-prefix=keep.example.com/",
        &metrics,
        &slack,
        &events,
    ];
    let program = Path::new(env!("CARGO_BIN_EXE_flagger"));
    let launch = Launch {
        name: "flagger",
        program,
        kubeconfig,
        // The operator calls the servers directly.
        proxy: "",
        args: &flags,
        logs: bed.folder(),
    };
    Operator::start(launch).await.unwrap()
}

struct Run<'a> {
    client: Client,
    stage: Arc<Stage>,
    servers: String,
    departures: &'a Departures,
    begin: Instant,
}

impl Run<'_> {
    async fn one(&self, number: usize, scenario: &Scenario) -> Option<String> {
        tokio::time::sleep(APART * u32::try_from(number).unwrap_or(0)).await;
        let (name, begin) = (&scenario.name, Instant::now());
        let seen = self.stage.of(&scenario.namespace).unwrap();
        let player = Player {
            scenario,
            cluster: Cluster::new(self.client.clone(), &scenario.namespace),
            seen,
            servers: &self.servers,
        };
        player.play().await;
        let recording = seen.result(name, &scenario.does);
        transcript::write(name, &recording);
        let failed = self.judge(scenario, seen, &recording);
        let verdict = match &failed {
            Some(_) => "DIFFERS",
            None => "the same",
        };
        let (all, own) = (self.begin.elapsed().as_secs(), begin.elapsed().as_secs());
        eprintln!("{all:4} s  {name:34} {own:4} s  {verdict}");
        failed
    }

    fn judge(&self, scenario: &Scenario, seen: &Seen, recording: &Value) -> Option<String> {
        let notes = seen.notes();
        // A scenario whose wait timed out is incomplete. Its recording cannot be compared, and no departure can explain the timeout.
        if !notes.is_empty() {
            return Some(format!("{}: {}", scenario.name, notes.join("; ")));
        }
        let golden = transcript::golden(&scenario.name);
        compare::differences(&scenario.name, &golden, recording, self.departures)
    }
}
