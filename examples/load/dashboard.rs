//! Measures `flagger dashboard` with many open pages, while canaries take steps. This program plays the operator: it writes the steps into the
//! status of each canary, so that the machine is free for the process that is measured.

use std::{
    ops::Range,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use flagger_rs::{
    api::{
        canary::Canary,
        release::{CANARY_UID, Release, RunEvidence},
    },
    records,
};
use futures::{StreamExt, stream};
use k8s_openapi::{api::apps::v1::Deployment, jiff::Timestamp};
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use testbed::{Bed, control_plane::free_ports, process::Process, programs, wait::until};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    task::JoinHandle,
    time::{interval, sleep},
};

use super::{
    Size,
    lab::PATIENCE,
    report::Figure,
    workloads::{self, INTERVAL},
};

/// The number of open pages of one user.
const PAGES_OF_A_USER: usize = 10;
/// The time between the openings of two pages: no multiple of it is a second.
const BETWEEN: Duration = Duration::from_millis(37);
/// The time before the measurement.
const BEFORE: Duration = Duration::from_secs(15);
/// The time of the measurement.
const MEASURED: Duration = Duration::from_secs(60);

/// The messages that open pages have received, and the steps that were written meanwhile.
#[derive(Default)]
struct Counts {
    bytes: AtomicU64,
    messages: AtomicU64,
    steps: AtomicU64,
}

impl Counts {
    fn now(&self) -> [f64; 3] {
        [&self.bytes, &self.messages, &self.steps].map(|count| count.load(Relaxed) as f64)
    }
}

/// Measures the dashboard.
pub async fn all(size: Size) -> Vec<Figure> {
    let program = match &size.program {
        Some(program) => program.clone(),
        None => {
            let folder = programs::build_release(&["flagger"]).unwrap();
            folder.join("flagger")
        }
    };
    let bed = Bed::start().await.unwrap();
    let crds = concat!(env!("CARGO_MANIFEST_DIR"), "/../crds/ALL-IN-ONE.yaml");
    bed.apply(&std::fs::read_to_string(crds).unwrap())
        .await
        .unwrap();
    bed.plane.stop_controllers().await;
    let binding = "create clusterrolebinding load --clusterrole=cluster-admin --group=load";
    bed.kubectl(&binding.split(' ').collect::<Vec<_>>())
        .await
        .unwrap();
    let client = bed.client();
    workloads::create_canaries(&client, 0..size.canaries).await;
    let progressing = size.canaries - size.progressing..size.canaries;
    create_records(&client, progressing.clone().take(size.pages)).await;
    set_all(&client, 0..progressing.start).await;
    let counts = Arc::new(Counts::default());
    let operator = tokio::spawn(take_steps(client.clone(), progressing, counts.clone()));

    let [port] = free_ports().unwrap();
    let dashboard = start(&program, port, &bed).await;
    let mut pages = Vec::new();
    for page in 0..size.pages {
        pages.push(tokio::spawn(open(port, page, size.clone(), counts.clone())));
        // People do not open their pages at the same instant.
        sleep(BETWEEN).await;
    }
    sleep(BEFORE).await;
    let figures = measure(&dashboard, &counts, &size).await;
    assert!(
        !operator.is_finished() && !pages.iter().any(JoinHandle::is_finished),
        "a page was closed"
    );
    operator.abort();
    pages.iter().for_each(JoinHandle::abort);
    dashboard.terminate(PATIENCE).await.unwrap();
    bed.stop().await;
    figures
}

/// Starts the dashboard. Its users come through a proxy: this program.
async fn start(program: &Path, port: u16, bed: &Bed) -> Process {
    let args = [
        "dashboard".to_owned(),
        format!("--listen=127.0.0.1:{port}"),
        "--auth=headers".to_owned(),
        "--trusted-proxy=127.0.0.1".to_owned(),
        format!("--kubeconfig={}", bed.plane.kubeconfig().display()),
    ];
    let process = Process::start("dashboard", program, &args, &[], bed.folder()).unwrap();
    until(PATIENCE, "the dashboard to be ready", async || {
        let failed = |error: std::io::Error| error.to_string();
        let (mut line, request) = (
            String::new(),
            format!("GET /readyz HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n"),
        );
        let mut stream = TcpStream::connect(("127.0.0.1", port))
            .await
            .map_err(failed)?;
        stream.write_all(request.as_bytes()).await.map_err(failed)?;
        BufReader::new(stream)
            .read_line(&mut line)
            .await
            .map_err(failed)?;
        line.contains(" 200 ").then_some(()).ok_or(line)
    })
    .await
    .unwrap();
    process
}

async fn measure(dashboard: &Process, counts: &Counts, size: &Size) -> Vec<Figure> {
    let (usage, before) = (dashboard.usage().unwrap(), counts.now());
    sleep(MEASURED).await;
    let (now, after) = (dashboard.usage().unwrap(), counts.now());
    let seconds = MEASURED.as_secs_f64();
    let [bytes, messages, steps] = [0, 1, 2].map(|count| (after[count] - before[count]) / seconds);
    let pages = size.pages as f64;
    eprintln!(
        "load: {steps:.0} steps in a second; in each, a page received {:.2} messages and {:.1} kB",
        messages / pages,
        bytes / pages / 1e3
    );
    let expected = size.progressing as f64 / INTERVAL as f64;
    assert!(
        steps > 0.9 * expected && messages > 0.0,
        "the machine is too slow for {expected} steps in a second"
    );
    let processor = now.processor.saturating_sub(usage.processor);
    let of = format!(
        "{} open pages, {} of {} canaries progressing",
        size.pages, size.progressing, size.canaries
    );
    let figure = |what: &str, goal, value, unit| Figure {
        what: format!("{what}, {of}"),
        flagger: "-",
        goal,
        value,
        unit,
    };
    let percent = 100.0 * processor.as_secs_f64() / seconds;
    vec![
        figure(
            "dashboard: memory",
            100.0,
            now.resident_bytes as f64 / 1e6,
            "MB",
        ),
        figure(
            "dashboard: peak of memory",
            100.0,
            now.peak_bytes as f64 / 1e6,
            "MB",
        ),
        figure("dashboard: CPU", 10.0, percent, "% of a core"),
    ]
}

/// The address of the n-th open page, as a part of the query: half of the pages are lists that all users share, a quarter lists of a namespace
/// each, and a quarter pages of one canary in a run.
fn address(page: usize, size: &Size) -> String {
    let user = page / PAGES_OF_A_USER;
    match page % 4 {
        0 => "%2F".to_owned(),
        1 => format!(
            "%2F%3Fq%3Dns%253A{}",
            workloads::namespace(250 * (user % 20))
        ),
        2 => "%2F%3Fq%3Dphase%253Aprogressing".to_owned(),
        _ => {
            let canary = size.canaries - size.progressing + page % size.progressing;
            let (namespace, name) = (workloads::namespace(canary), workloads::name(canary));
            format!("%2Fc%2F{namespace}%2F{name}")
        }
    }
}

/// Keeps a page open. Returns if the server closes it, or refuses to follow it.
async fn open(port: u16, page: usize, size: Size, counts: Arc<Counts>) {
    let user = page / PAGES_OF_A_USER;
    let of = address(page, &size);
    let request = format!(
        "GET /events?of={of} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nX-Forwarded-User: user-{user}\r\nX-Forwarded-Groups: load\r\n\r\n"
    );
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let (mut reader, mut line) = (BufReader::with_capacity(1 << 16, stream), Vec::new());
    loop {
        line.clear();
        let bytes = reader.read_until(b'\n', &mut line).await.unwrap();
        if bytes == 0 || line.starts_with(b"event: busy") || line.starts_with(b"event: login") {
            return;
        }
        counts.bytes.fetch_add(bytes as u64, Relaxed);
        let is_message = line.starts_with(b"id: ");
        counts.messages.fetch_add(is_message.into(), Relaxed);
    }
}

/// The targets, the primaries and a record of the release of some canaries, as their pages show them.
async fn create_records(client: &Client, canaries: impl Iterator<Item = usize>) {
    let (evidence, params) = (records::pack(&evidence()), PostParams::default());
    for n in canaries {
        let (name, namespace) = (workloads::name(n), workloads::namespace(n));
        let deployments: Api<Deployment> = Api::namespaced(client.clone(), &namespace);
        for name in [name.clone(), format!("{name}-primary")] {
            let object = serde_json::from_value(workloads::deployment(&name)).unwrap();
            deployments.create(&params, &object).await.unwrap();
        }
        let canaries: Api<Canary> = Api::namespaced(client.clone(), &namespace);
        let uid = canaries.get(&name).await.unwrap().uid().unwrap();
        let record = json!({"apiVersion": "flagger-rs.github.io/v1alpha1", "kind": "Release",
            "metadata": {"name": format!("{name}-1"), "labels": {CANARY_UID: uid}},
            "spec": {"canary": name, "revision": "v1-b", "from": "v1-a", "strategy": "canary", "result": "Running", "steps": 10,
                "images": [{"name": "app", "from": "app:1", "to": "app:2"}], "startedAt": Timestamp::now().to_string(), "evidence": evidence}});
        let releases: Api<Release> = Api::namespaced(client.clone(), &namespace);
        let record = serde_json::from_value(record).unwrap();
        releases.create(&params, &record).await.unwrap();
    }
}

/// The measurements of ten steps.
fn evidence() -> RunEvidence {
    let metric = |name: &str| json!({"name": name, "provider": "prometheus", "host": "prometheus:9090", "query": "histogram_quantile(0.99, sum(rate(istio_request_duration_milliseconds_bucket[1m])) by (le))", "window": "1m", "max": 500.0});
    let measurement = |step: i64| {
        let at = Timestamp::from_second(1_796_000_000 + 10 * step).unwrap();
        json!({"at": at.to_string(), "weight": 10 * step, "values": [{"metric": 0, "value": 99.5}, {"metric": 1, "value": 120.0 + step as f64}]})
    };
    let measurements: Vec<_> = (1..=10).map(measurement).collect();
    let evidence = json!({"metrics": [metric("request-success-rate"), metric("request-duration")], "measurements": measurements});
    serde_json::from_value(evidence).unwrap()
}

/// Writes the status of canaries between two runs.
async fn set_all(client: &Client, canaries: Range<usize>) {
    stream::iter(canaries)
        .for_each_concurrent(16, async |n| set(client, n, "Succeeded", 0).await)
        .await;
}

/// Takes the steps of these canaries, one in each interval. Does not end.
async fn take_steps(client: Client, canaries: Range<usize>, counts: Arc<Counts>) {
    let mut seconds = interval(Duration::from_secs(1));
    for second in 0.. {
        seconds.tick().await;
        let weight = 10 * (1 + second / INTERVAL % 10);
        let which = canaries
            .clone()
            .filter(|n| *n as u64 % INTERVAL == second % INTERVAL);
        stream::iter(which)
            .for_each_concurrent(16, async |n| {
                set(&client, n, "Progressing", weight).await;
                counts.steps.fetch_add(1, Relaxed);
            })
            .await;
    }
}

async fn set(client: &Client, n: usize, phase: &str, weight: u64) {
    let canaries: Api<Canary> = Api::namespaced(client.clone(), &workloads::namespace(n));
    let status: Value = json!({"status": {"phase": phase, "canaryWeight": weight, "failedChecks": 0, "iterations": 0,
        "lastAppliedSpec": "v1-b", "lastPromotedSpec": "v1-a", "lastTransitionTime": Timestamp::now().to_string(),
        "conditions": [{"type": "Promoted", "status": "Unknown", "reason": phase, "message": "New revision detected, progressing canary analysis.",
            "lastUpdateTime": Timestamp::now().to_string(), "lastTransitionTime": Timestamp::now().to_string()}]}});
    let patch = Patch::Merge(status);
    let name = workloads::name(n);
    canaries
        .patch_status(&name, &PatchParams::default(), &patch)
        .await
        .unwrap();
}
