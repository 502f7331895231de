//! The walkthrough with nothing simulated: `cargo run --release --example demo -- --mesh`.
//!
//! A cell with Istio, Envoy and Prometheus; the operator's own build, the sample application and the load tester as pods; and a client
//! that calls through the gateway 200 times a second from before the Canary exists until the end.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use futures::TryStreamExt;
use k8s_openapi::api::core::v1::Event;
use kube::{
    Api,
    runtime::{WatchStreamExt, watcher},
};
use testbed::{
    Cell,
    client::{Client, Tally},
    programs,
    wait::until,
};

use super::{CANARY, PATIENCE, Problem, Row, file, print_report, row, say, show_events};
use flagger_rs::api::canary::Canary;

const PER_SECOND: u32 = 200;
/// By so many percentage points a measured share may differ from the intended one.
const TOLERANCE: f64 = 4.0;
/// Shorter times say too little of a share.
const ENOUGH: Duration = Duration::from_secs(5);

/// A bad version, and what must stand in the event that says why it is rolled back.
const BAD: [(&str, &[&str], &str, &str); 4] = [
    (
        "3.1.2",
        &["--error-rate=0.3"],
        "errs on 30% of requests",
        "advancement success rate",
    ),
    (
        "3.1.3",
        &["--delay=700ms"],
        "takes 700 ms",
        "advancement request duration",
    ),
    (
        "3.1.4",
        &["--never-ready"],
        "never gets ready",
        "no progress",
    ),
    (
        "3.1.5",
        &["--crash-after=40"],
        "crashes every 40 requests",
        "Rolling back",
    ),
];

/// One status of the Canary, from when on.
struct Period {
    from: Instant,
    phase: String,
    weight: i32,
}

struct Mesh<'a> {
    cell: &'a Cell,
    client: Arc<Client>,
    periods: Arc<Mutex<Vec<Period>>>,
    watch: tokio::task::JoinHandle<()>,
}

impl Drop for Mesh<'_> {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

pub async fn play(keep: bool) -> Result<bool, Problem> {
    let folder = programs::build(&["flagger", "testbed", "podinfo", "loadtester"])?;
    let mut images = programs::images(&folder);
    images.push(programs::operator(&folder.join("flagger")));
    images.extend(BAD.map(|(tag, flags, ..)| programs::podinfo(&folder, tag, flags)));
    testbed::binaries::find_or_build(&[testbed::binaries::CONTROL_PLANE, testbed::binaries::MESH])?;
    let start = Instant::now();
    say("Starting a cell: control plane, istiod, gateway, Prometheus");
    let mut cell = Cell::start(&folder.join("testbed"), &images).await?;
    say(&format!(
        "It is up after {:.1} s. Installing",
        start.elapsed().as_secs_f64()
    ));
    let report = walk(&cell).await?;
    let good = report.iter().all(|row| row.1 == row.2);
    print_report(&report);
    if keep {
        cell.keep_folder();
        say("Everything goes on. Look at it from another terminal, and end it here with Ctrl-C:");
        println!(
            "  export KUBECONFIG={}\n  kubectl -n test get canary -w",
            cell.kubeconfig().display()
        );
        println!(
            "  gateway http://{}, Prometheus http://{}",
            cell.gateway, cell.prometheus
        );
        tokio::signal::ctrl_c().await?;
    }
    cell.stop().await;
    Ok(good)
}

async fn walk(cell: &Cell) -> Result<Vec<Row>, Problem> {
    let kubectl = cell.kubectl();
    kubectl
        .apply(&std::fs::read_to_string(file(
            "examples/walkthrough/ingress-gateway.yaml",
        ))?)
        .await?;
    // Users call the application before it has a Canary.
    kubectl
        .apply(&std::fs::read_to_string(file("tests/mesh/before.yaml"))?)
        .await?;
    for folder in ["kustomize/istio", "kustomize/podinfo", "kustomize/tester"] {
        print!(
            "$ kubectl apply -k {folder}\n{}",
            kubectl.apply_kustomize(&file(folder)).await?
        );
    }
    for (namespace, name) in [
        ("test", "podinfo"),
        ("test", "flagger-loadtester"),
        ("istio-system", "flagger"),
    ] {
        cell.available(namespace, name).await?;
    }
    let mut mesh = Mesh::new(cell).await?;
    let mut rows = mesh.bootstrap().await?;
    rows.extend(mesh.release("3.1.1").await?);
    for (tag, _, fault, why) in BAD {
        rows.extend(mesh.rollback(tag, fault, why).await?);
    }
    Ok(rows)
}

impl<'a> Mesh<'a> {
    async fn new(cell: &'a Cell) -> Result<Self, Problem> {
        let probe = Client::start(cell.gateway, "app.example.com", 10)?;
        until(
            PATIENCE,
            "the gateway to serve the application",
            async || {
                let recently = Instant::now().checked_sub(Duration::from_secs(1));
                let seen = probe.since(recently.unwrap_or_else(Instant::now));
                if seen.calls > 3 && seen.lost() == 0 {
                    Ok(())
                } else {
                    Err(seen.to_string())
                }
            },
        )
        .await?;
        drop(probe);
        say(&format!(
            "A client calls http://app.example.com/ {PER_SECOND} times a second from here on"
        ));
        let client = Arc::new(Client::start(cell.gateway, "app.example.com", PER_SECOND)?);
        let periods = Arc::new(Mutex::new(Vec::new()));
        let canaries: Api<Canary> = Api::namespaced(cell.client(), "test");
        let events: Api<Event> = Api::namespaced(cell.client(), "test");
        let shown = show(canaries, periods.clone(), client.clone(), cell.client());
        let watch = tokio::spawn(async move {
            tokio::join!(shown, show_events(events));
        });
        Ok(Self {
            cell,
            client,
            periods,
            watch,
        })
    }

    async fn bootstrap(&mut self) -> Result<Vec<Row>, Problem> {
        say("2. Bootstrap, under traffic: kubectl apply -f podinfo-canary.yaml");
        let start = Instant::now();
        let text = std::fs::read_to_string(file("examples/walkthrough/podinfo-canary.yaml"))?;
        let text = text.replace(
            "interval: 1m\n    threshold",
            "interval: 10s\n    threshold",
        );
        self.cell.kubectl().apply(&text).await?;
        self.reach(0, "Initialized").await?;
        let tally = self.tally(start).await;
        Ok(vec![lost("bootstrap", &tally)])
    }

    async fn release(&mut self, tag: &str) -> Result<Vec<Row>, Problem> {
        say(&format!("3. Canary release: image {tag}"));
        let (start, seen) = self.set_image(tag).await?;
        self.reach(seen, "Succeeded").await?;
        let tally = self.tally(start).await;
        let table = self.table(seen).join(", ");
        let mut rows = vec![
            row(
                &format!("{tag}: kubectl get canary -w"),
                &CANARY.join(", "),
                &table,
            ),
            lost(&format!("{tag}: release"), &tally),
            row(
                &format!("{tag}: requests that failed"),
                "{}",
                &format!("{:?}", tally.failed),
            ),
        ];
        rows.extend(self.shares(tag, seen));
        Ok(rows)
    }

    async fn rollback(&mut self, tag: &str, fault: &str, why: &str) -> Result<Vec<Row>, Problem> {
        say(&format!("4. Rollback: image {tag}, which {fault}"));
        let (start, seen) = self.set_image(tag).await?;
        self.reach(seen, "Failed").await?;
        let tally = self.tally(start).await;
        let others: Vec<_> = tally
            .failed
            .keys()
            .filter(|version| *version != tag)
            .collect();
        let told = self
            .cell
            .kubectl()
            .run(&[
                "-n",
                "test",
                "get",
                "events",
                "-o",
                "jsonpath={.items[*].message}",
            ])
            .await?;
        Ok(vec![
            row(
                &format!("{tag} ({fault}): ends"),
                "Failed 0",
                self.table(seen).last().map_or("", |line| line),
            ),
            row(
                &format!("{tag}: an event says `{why}`"),
                "true",
                &told.contains(why).to_string(),
            ),
            lost(&format!("{tag}: rollback"), &tally),
            row(
                &format!("{tag}: requests that a good version failed"),
                "[]",
                &format!("{others:?}"),
            ),
        ])
    }

    async fn set_image(&self, tag: &str) -> Result<(Instant, usize), Problem> {
        let seen = self.periods.lock().unwrap().len();
        let image = format!("podinfod=stefanprodan/podinfo:{tag}");
        let args = ["-n", "test", "set", "image", "deployment/podinfo", &image];
        self.cell.kubectl().run(&args).await?;
        Ok((Instant::now(), seen))
    }

    /// Until the Canary is in a phase that it was not in before.
    async fn reach(&self, seen: usize, phase: &str) -> Result<(), Problem> {
        until(PATIENCE, phase, async || {
            let table = self.table(seen);
            let there = table.last().is_some_and(|line| line.starts_with(phase));
            if there {
                Ok(())
            } else {
                Err(format!("{table:?}"))
            }
        })
        .await?;
        Ok(())
    }

    fn table(&self, seen: usize) -> Vec<String> {
        let periods = self.periods.lock().unwrap();
        periods
            .iter()
            .skip(seen)
            .map(|period| format!("{} {}", period.phase, period.weight))
            .collect()
    }

    /// All calls since then, when those on their way have ended, and when the pods that go have gone.
    async fn tally(&self, start: Instant) -> Tally {
        tokio::time::sleep(Duration::from_secs(5)).await;
        let tally = self.client.since(start);
        println!("           {tally}");
        tally
    }

    /// The measured share of the new version at each weight.
    fn shares(&self, tag: &str, seen: usize) -> Vec<Row> {
        let periods = self.periods.lock().unwrap();
        let steps = periods.iter().skip(seen).zip(periods.iter().skip(seen + 1));
        let long = steps
            .filter(|(step, next)| step.phase == "Progressing" && next.from - step.from > ENOUGH);
        long.map(|(step, next)| {
            let share = self.client.between(step.from, next.from).share(tag);
            let intended = f64::from(step.weight);
            let seen = if (share - intended).abs() <= TOLERANCE {
                intended
            } else {
                share
            };
            row(
                &format!(
                    "{tag}: share at weight {}: measured {share:.1}%",
                    step.weight
                ),
                &format!("{intended}%"),
                &format!("{seen}%"),
            )
        })
        .collect()
    }
}

fn lost(what: &str, tally: &Tally) -> Row {
    let seen = if tally.lost() == 0 {
        "0".to_owned()
    } else {
        format!("{} {:?}", tally.lost(), tally.lost)
    };
    row(
        &format!("{what}: lost of {} requests", tally.calls),
        "0",
        &seen,
    )
}

/// `kubectl get canary -w`, and what the time before each line was like for the client and for the operator.
async fn show(
    canaries: Api<Canary>,
    periods: Arc<Mutex<Vec<Period>>>,
    client: Arc<Client>,
    api: kube::Client,
) {
    let start = Instant::now();
    let changes = watcher(canaries, watcher::Config::default())
        .default_backoff()
        .applied_objects();
    let mut changes = Box::pin(changes);
    while let Ok(Some(canary)) = changes.try_next().await {
        let status = canary.status.unwrap_or_default();
        let now = Instant::now();
        let (phase, weight) = (
            status.phase.as_str().to_owned(),
            i32::try_from(status.canary_weight).unwrap_or(0),
        );
        {
            let mut periods = periods.lock().unwrap();
            if let Some(last) = periods.last() {
                if last.phase == phase && last.weight == weight {
                    continue;
                }
                println!(
                    "           intended {}%, measured: {}",
                    last.weight,
                    client.between(last.from, now)
                );
            }
            println!(
                "{:>5.0} s  podinfo  {phase:<18}{weight:>4}",
                start.elapsed().as_secs_f64()
            );
            periods.push(Period {
                from: now,
                phase,
                weight,
            });
        }
        if let Some(seen) = operator_saw(&api).await {
            println!("           the operator saw {seen}");
        }
    }
}

/// The latest results of the checks, from the operator's own metrics.
async fn operator_saw(client: &kube::Client) -> Option<String> {
    let pods: Api<k8s_openapi::api::core::v1::Pod> =
        Api::namespaced(client.clone(), "istio-system");
    let pods = pods
        .list(&kube::api::ListParams::default().labels("app=flagger"))
        .await
        .ok()?;
    let name = pods.items.first()?.metadata.name.clone()?;
    let path = format!("/api/v1/namespaces/istio-system/pods/{name}:8080/proxy/metrics");
    let text = client
        .request_text(http::Request::get(path).body(Vec::new()).ok()?)
        .await
        .ok()?;
    let value = |metric: &str| {
        let label = format!("metric=\"{metric}\"");
        let line = text.lines().find(|line| {
            line.starts_with("flagger_canary_metric_analysis{") && line.contains(&label)
        })?;
        line.rsplit(' ').next()?.parse::<f64>().ok()
    };
    let (rate, duration) = (value("request-success-rate")?, value("request-duration")?);
    Some(format!("success rate {rate:.2}%, p99 {duration:.1} ms"))
}
