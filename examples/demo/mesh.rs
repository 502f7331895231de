//! The walkthrough with nothing simulated: `cargo run --release --example demo -- --mesh`.
//!
//! A cell with Istio, Envoy and Prometheus; the operator's own build, the sample application and the load tester as pods; and a client
//! that calls through the gateway 200 times a second from before the Canary exists until the end.

mod seen;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::Event;
use kube::Api;
use testbed::{
    Cell, binaries,
    cell::spaces,
    client::{Client, Tally},
    programs,
    wait::until,
};

use super::{CANARY, PATIENCE, Problem, Row, file, print_report, row, say, show_events};
use flagger_rs::api::canary::Canary;
use seen::{Periods, show};

const PER_SECOND: u32 = 200;

/// A bad version.
struct Bad {
    tag: &'static str,
    flags: &'static [&'static str],
    fault: &'static str,
    /// What must stand in the event that says why it is rolled back.
    why: &'static str,
    /// So many requests may find no pod of it: those of the moments from a crash of all its pods to the traffic's return.
    lost: usize,
}

const BAD: [Bad; 4] = [
    Bad {
        tag: "3.1.2",
        flags: &["--error-rate=0.3"],
        fault: "errs on 30% of requests",
        why: "advancement success rate",
        lost: 0,
    },
    Bad {
        tag: "3.1.3",
        flags: &["--delay=700ms"],
        fault: "takes 700 ms",
        why: "advancement request duration",
        lost: 0,
    },
    Bad {
        tag: "3.1.4",
        flags: &["--never-ready"],
        fault: "never gets ready",
        why: "progress deadline exceeded",
        lost: 0,
    },
    Bad {
        tag: "3.1.5",
        flags: &["--crash-after=40"],
        fault: "crashes every 40 requests",
        why: "has no ready pod",
        lost: PER_SECOND as usize,
    },
];

struct Mesh<'a> {
    cell: &'a Cell,
    client: Arc<Client>,
    canaries: Api<Canary>,
    begin: Instant,
    periods: Arc<Periods>,
    watch: tokio::task::JoinHandle<()>,
}

impl Drop for Mesh<'_> {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

pub async fn play(keep: bool) -> Result<bool, Problem> {
    // Better known before a long build than after it.
    spaces::allowed()?;
    let folder = programs::build(&["flagger", "testbed", "podinfo", "loadtester"])?;
    let mut images = programs::images(&folder);
    images.push(programs::operator(&folder.join("flagger")));
    images.extend(BAD.map(|bad| programs::podinfo(&folder, bad.tag, bad.flags)));
    binaries::find_or_build(&[binaries::CONTROL_PLANE, binaries::MESH, binaries::CRDS])?;
    let start = Instant::now();
    say("Starting a cell: control plane, istiod, gateway, Prometheus");
    let cell = Cell::start(&folder.join("testbed"), &images).await?;
    say(&format!(
        "It is up after {:.1} s. Installing",
        start.elapsed().as_secs_f64()
    ));
    let report = walk(&cell).await?;
    let good = report.iter().all(|row| row.1 == row.2);
    print_report(&report);
    if keep {
        say("Everything goes on. Look at it from another terminal, and end it here with Ctrl-C:");
        println!(
            "  export KUBECONFIG={}\n  {} -n test get canary -w",
            cell.kubeconfig().display(),
            cell.kubectl().program().display()
        );
        println!(
            "  gateway http://{}, Prometheus http://{}",
            cell.gateway(),
            cell.prometheus()
        );
        // Ctrl-C is noticed above.
        std::future::pending::<()>().await;
    }
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
    let mut excused = 0;
    for bad in &BAD {
        let (seen, lost) = mesh.rollback(bad).await?;
        rows.extend(seen);
        excused += lost.min(bad.lost);
    }
    say(&format!(
        "What the client saw, {PER_SECOND} requests a second"
    ));
    mesh.periods.print(&mesh.client);
    let all = mesh.client.since(mesh.begin).await;
    rows.push(lost("from the beginning to the end", &all, excused));
    Ok(rows)
}

impl<'a> Mesh<'a> {
    async fn new(cell: &'a Cell) -> Result<Self, Problem> {
        let probe = Client::start(cell.gateway(), "app.example.com", 10)?;
        until(
            PATIENCE,
            "the gateway to serve the application",
            async || {
                let recently = Instant::now().checked_sub(Duration::from_secs(1));
                let seen = probe.since(recently.unwrap_or_else(Instant::now)).await;
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
        let client = Arc::new(Client::start(
            cell.gateway(),
            "app.example.com",
            PER_SECOND,
        )?);
        let begin = Instant::now();
        let periods = Arc::new(Periods::default());
        let canaries: Api<Canary> = Api::namespaced(cell.client(), "test");
        let events: Api<Event> = Api::namespaced(cell.client(), "test");
        let shown = show(
            canaries.clone(),
            periods.clone(),
            client.clone(),
            cell.client(),
        );
        let watch = tokio::spawn(async move {
            tokio::join!(shown, show_events(events));
        });
        Ok(Self {
            cell,
            client,
            canaries,
            begin,
            periods,
            watch,
        })
    }

    async fn bootstrap(&mut self) -> Result<Vec<Row>, Problem> {
        say("2. Bootstrap, under traffic: kubectl apply -f podinfo-canary.yaml");
        let start = Instant::now();
        self.periods.begin("bootstrap");
        let text = std::fs::read_to_string(file("examples/walkthrough/podinfo-canary.yaml"))?;
        let text = text.replace(
            "interval: 1m\n    threshold",
            "interval: 10s\n    threshold",
        );
        self.cell.kubectl().apply(&text).await?;
        self.reach(0, "Initialized").await?;
        let tally = self.tally(start).await?;
        Ok(vec![lost("bootstrap", &tally, 0)])
    }

    async fn release(&mut self, tag: &str) -> Result<Vec<Row>, Problem> {
        say(&format!("3. Canary release: image {tag}"));
        let (start, seen) = self.set_image(tag).await?;
        self.reach(seen, "Succeeded").await?;
        let tally = self.tally(start).await?;
        let table = self.periods.table(seen).join(", ");
        let mut rows = vec![
            row(
                &format!("{tag}: kubectl get canary -w"),
                &CANARY.join(", "),
                &table,
            ),
            lost(&format!("{tag}: release"), &tally, 0),
            row(
                &format!("{tag}: requests that failed"),
                "{}",
                &format!("{:?}", tally.failed),
            ),
        ];
        rows.extend(self.periods.shares(&self.client, tag, seen));
        Ok(rows)
    }

    /// What is expected and seen, and how many requests were lost.
    async fn rollback(&mut self, bad: &Bad) -> Result<(Vec<Row>, usize), Problem> {
        let Bad {
            tag, fault, why, ..
        } = *bad;
        say(&format!("4. Rollback: image {tag}, which {fault}"));
        let (start, seen) = self.set_image(tag).await?;
        self.reach(seen, "Failed").await?;
        let tally = self.tally(start).await?;
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
        let rows = vec![
            row(
                &format!("{tag} ({fault}): ends"),
                "Failed 0",
                self.periods.table(seen).last().map_or("", |line| line),
            ),
            row(
                &format!("{tag}: an event says `{why}`"),
                "true",
                &told.contains(why).to_string(),
            ),
            lost(&format!("{tag}: rollback"), &tally, bad.lost),
            row(
                &format!("{tag}: requests that a good version failed"),
                "[]",
                &format!("{others:?}"),
            ),
        ];
        Ok((rows, tally.lost()))
    }

    async fn set_image(&self, tag: &str) -> Result<(Instant, usize), Problem> {
        let seen = self.periods.begin(tag);
        let image = format!("podinfod=stefanprodan/podinfo:{tag}");
        let args = ["-n", "test", "set", "image", "deployment/podinfo", &image];
        self.cell.kubectl().run(&args).await?;
        Ok((Instant::now(), seen))
    }

    /// Until the Canary is in a phase that it was not in before.
    async fn reach(&self, seen: usize, phase: &str) -> Result<(), Problem> {
        until(PATIENCE, phase, async || {
            let table = self.periods.table(seen);
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

    /// All calls since then, up to when nothing is under way and the pods that go have gone.
    async fn tally(&self, start: Instant) -> Result<Tally, Problem> {
        until(PATIENCE, "the canary to be at rest", async || {
            let canary = self.canaries.get("podinfo").await;
            let status = canary.map_err(|e| e.to_string())?.status;
            let conditions = status.and_then(|status| status.conditions);
            conditions
                .is_some_and(|conditions| conditions.len() == 1)
                .then_some(())
                .ok_or_else(|| "something is under way".to_owned())
        })
        .await?;
        let gone = [
            "-n",
            "test",
            "wait",
            "--for=delete",
            "pods",
            "-l",
            "app=podinfo",
            "--timeout=60s",
        ];
        self.cell.kubectl().run(&gone).await?;
        let tally = self.client.since(start).await;
        println!("           {tally}");
        Ok(tally)
    }
}

/// That no request was lost, but for so many.
fn lost(what: &str, tally: &Tally, excused: usize) -> Row {
    let (expected, seen) = match (tally.lost(), excused) {
        (seen, 0) => ("0".to_owned(), seen),
        (seen, most) => (format!("{most} at most"), seen),
    };
    let good = seen <= excused;
    row(
        &format!("{what}: lost of {} requests: {seen}", tally.calls),
        &expected,
        &if good {
            expected.clone()
        } else {
            format!("{seen} {:?}", tally.lost)
        },
    )
}
