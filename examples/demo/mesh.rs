//! The walkthrough under real traffic: `cargo run --profile demo --bin demo -- --mesh`.
//!
//! Starts a cell with Istio, Envoy and Prometheus. The operator, the sample application and the load tester run in it as pods. A client
//! sends 200 requests a second through the gateway, from before the Canary exists until the end.

mod periods;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::Event;
use kube::Api;
use testbed::{
    Cell, binaries,
    cell::namespaces,
    client::{Client, Tally},
    programs,
    wait::until,
};

use super::{
    CANARY, Error, PATIENCE, file, read,
    report::{self, Check},
    say, show_events,
};
use flagger_rs::api::canary::Canary;
use periods::{Periods, show};

const PER_SECOND: u32 = 200;

/// A version that must be rolled back.
struct Bad {
    tag: &'static str,
    flags: &'static [&'static str],
    fault: &'static str,
    /// Text in the event that gives the reason for the rollback.
    reason: &'static str,
    /// The most requests that may be lost: when all pods of the version have crashed, requests reach no ready pod until the operator
    /// routes all traffic to the primary.
    lost_at_most: usize,
}

const BAD: [Bad; 4] = [
    Bad {
        tag: "3.1.2",
        flags: &["--error-rate=0.3"],
        fault: "fails 30% of requests",
        reason: "advancement success rate",
        lost_at_most: 0,
    },
    Bad {
        tag: "3.1.3",
        flags: &["--delay=700ms"],
        fault: "takes 700 ms",
        reason: "advancement request duration",
        lost_at_most: 0,
    },
    Bad {
        tag: "3.1.4",
        flags: &["--never-ready"],
        fault: "never gets ready",
        reason: "progress deadline exceeded",
        lost_at_most: 0,
    },
    Bad {
        tag: "3.1.5",
        flags: &["--crash-after=40"],
        fault: "crashes every 40 requests",
        reason: "has no ready pod",
        lost_at_most: PER_SECOND as usize,
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

pub async fn play(keep: bool) -> Result<bool, Error> {
    // Fail before the long build, not after it.
    namespaces::allowed()?;
    let folder = programs::build(&["flagger", "testbed", "podinfo", "loadtester"])?;
    let mut images = programs::images(&folder);
    images.push(programs::operator(&folder.join("flagger")));
    images.extend(BAD.map(|bad| programs::podinfo(&folder, bad.tag, bad.flags)));
    binaries::find_or_build(&[binaries::CONTROL_PLANE, binaries::MESH, binaries::CRDS])?;
    let start = Instant::now();
    say("Starting a cell: control plane, istiod, gateway, Prometheus");
    let cell = Cell::start(&folder.join("testbed"), &images).await?;
    say(&format!(
        "It is up after {:.1} s. Installing the operator",
        start.elapsed().as_secs_f64()
    ));
    let passed = report::print(&walk(&cell).await?);
    if keep {
        say("Everything keeps running. Look at it from another terminal; Ctrl-C here ends it:");
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
        // `main` handles Ctrl-C.
        std::future::pending::<()>().await;
    }
    Ok(passed)
}

async fn walk(cell: &Cell) -> Result<Vec<Check>, Error> {
    let kubectl = cell.kubectl();
    kubectl
        .apply(&read("examples/walkthrough/ingress-gateway.yaml")?)
        .await?;
    // The application serves traffic before it has a Canary.
    kubectl.apply(&read("tests/mesh/before.yaml")?).await?;
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
    let mut checks = mesh.bootstrap().await?;
    checks.extend(mesh.release("3.1.1").await?);
    let mut allowed = 0;
    for bad in &BAD {
        let (of_bad, lost) = mesh.rollback(bad).await?;
        checks.extend(of_bad);
        allowed += lost.min(bad.lost_at_most);
    }
    say(&format!(
        "The client's requests, {PER_SECOND} a second, in each phase"
    ));
    mesh.periods.print(&mesh.client);
    let all = mesh.client.since(mesh.begin).await;
    checks.push(lost("from the beginning to the end", &all, allowed));
    Ok(checks)
}

impl<'a> Mesh<'a> {
    async fn new(cell: &'a Cell) -> Result<Self, Error> {
        let probe = Client::start(cell.gateway(), "app.example.com", 10)?;
        until(
            PATIENCE,
            "the gateway to serve the application",
            async || {
                let recently = Instant::now().checked_sub(Duration::from_secs(1));
                let tally = probe.since(recently.unwrap_or_else(Instant::now)).await;
                if tally.calls > 3 && tally.lost() == 0 {
                    Ok(())
                } else {
                    Err(tally.to_string())
                }
            },
        )
        .await?;
        drop(probe);
        say(&format!(
            "A client sends {PER_SECOND} requests a second to http://app.example.com/ from here on"
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

    async fn bootstrap(&mut self) -> Result<Vec<Check>, Error> {
        say("2. Bootstrap, under traffic: kubectl apply -f podinfo-canary.yaml");
        let start = Instant::now();
        self.periods.begin("bootstrap");
        let text = read("examples/walkthrough/podinfo-canary.yaml")?;
        let text = text.replace(
            "interval: 1m\n    threshold",
            "interval: 10s\n    threshold",
        );
        self.cell.kubectl().apply(&text).await?;
        self.reach(0, "Initialized").await?;
        let tally = self.tally(start).await?;
        Ok(vec![lost("bootstrap", &tally, 0)])
    }

    async fn release(&mut self, tag: &str) -> Result<Vec<Check>, Error> {
        say(&format!("3. Canary release: image {tag}"));
        let (start, earlier) = self.set_image(tag).await?;
        self.reach(earlier, "Succeeded").await?;
        let tally = self.tally(start).await?;
        let table = self.periods.table(earlier).join(", ");
        let mut checks = vec![
            Check::new(
                &format!("{tag}: kubectl get canary -w"),
                &CANARY.join(", "),
                &table,
            ),
            lost(&format!("{tag}: release"), &tally, 0),
            Check::new(
                &format!("{tag}: requests that failed"),
                "{}",
                &format!("{:?}", tally.failed),
            ),
        ];
        checks.extend(self.periods.shares(&self.client, tag, earlier));
        Ok(checks)
    }

    /// Releases a bad version. Returns the checks and the number of lost requests.
    async fn rollback(&mut self, bad: &Bad) -> Result<(Vec<Check>, usize), Error> {
        let Bad {
            tag, fault, reason, ..
        } = *bad;
        say(&format!("4. Rollback: image {tag}, which {fault}"));
        let (start, earlier) = self.set_image(tag).await?;
        self.reach(earlier, "Failed").await?;
        let tally = self.tally(start).await?;
        let others: Vec<_> = tally
            .failed
            .keys()
            .filter(|version| *version != tag)
            .collect();
        let messages = "jsonpath={.items[*].message}";
        let args = ["-n", "test", "get", "events", "-o", messages];
        let messages = self.cell.kubectl().run(&args).await?;
        let checks = vec![
            Check::new(
                &format!("{tag} ({fault}): ends"),
                "Failed 0",
                self.periods.table(earlier).last().map_or("", |line| line),
            ),
            Check::new(
                &format!("{tag}: an event says `{reason}`"),
                "true",
                &messages.contains(reason).to_string(),
            ),
            lost(&format!("{tag}: rollback"), &tally, bad.lost_at_most),
            Check::new(
                &format!("{tag}: requests that a good version failed"),
                "[]",
                &format!("{others:?}"),
            ),
        ];
        Ok((checks, tally.lost()))
    }

    /// Sets the target's image. Returns the instant of the change, and the number of periods before it.
    async fn set_image(&self, tag: &str) -> Result<(Instant, usize), Error> {
        let earlier = self.periods.begin(tag);
        let image = format!("podinfod=stefanprodan/podinfo:{tag}");
        let args = ["-n", "test", "set", "image", "deployment/podinfo", &image];
        self.cell.kubectl().run(&args).await?;
        Ok((Instant::now(), earlier))
    }

    /// Waits until the Canary is in this phase, in a period after the first `earlier` ones.
    async fn reach(&self, earlier: usize, phase: &str) -> Result<(), Error> {
        until(PATIENCE, phase, async || {
            let table = self.periods.table(earlier);
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

    /// Waits until the canary is idle and the target's pods are gone. Returns all requests since `start`.
    async fn tally(&self, start: Instant) -> Result<Tally, Error> {
        until(PATIENCE, "the canary to be idle", async || {
            let canary = self.canaries.get("podinfo").await;
            let status = canary.map_err(|e| e.to_string())?.status;
            let conditions = status.and_then(|status| status.conditions);
            conditions
                .is_some_and(|conditions| conditions.len() == 1)
                .then_some(())
                .ok_or_else(|| "a run or a notification is pending".to_owned())
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

/// Checks that no request was lost, or at most `allowed`.
fn lost(what: &str, tally: &Tally, allowed: usize) -> Check {
    let count = tally.lost();
    let expected = match allowed {
        0 => "0".to_owned(),
        most => format!("{most} at most"),
    };
    let observed = if count <= allowed {
        expected.clone()
    } else {
        format!("{count} {:?}", tally.lost)
    };
    let what = format!("{what}: lost of {} requests: {count}", tally.calls);
    Check::new(&what, &expected, &observed)
}
