//! The walkthrough on a control plane without nodes: pods are objects that an agent marks ready, metrics and chats are fakes.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command},
    sync::{Arc, Mutex},
    time::Instant,
};

use futures::TryStreamExt;
use k8s_openapi::api::core::v1::Event;
use kube::{
    Api,
    runtime::{WatchStreamExt, watcher},
};
use serde_json::Value;
use testbed::{Bed, operator::Operator, programs, wait::until};

use super::{
    CANARY, Error, PATIENCE, file, read,
    report::{self, Check},
    say, show_events,
};
use flagger_rs::api::canary::Canary;

/// A part of the walkthrough.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Canary,
    Rollback,
    BlueGreen,
    Alerts,
}

/// All parts, in their order, with their names on the command line.
pub const PARTS: [(&str, Part); 4] = [
    ("canary", Part::Canary),
    ("rollback", Part::Rollback),
    ("blue-green", Part::BlueGreen),
    ("alerts", Part::Alerts),
];

/// Plays these parts. Returns whether everything was as expected.
pub async fn play(parts: &[Part], keep: bool, dashboard: bool) -> Result<bool, Error> {
    let program = programs::build(&["flagger"])?.join("flagger");
    let start = Instant::now();
    say("Starting a control plane");
    let bed = Bed::start().await?;
    say(&format!(
        "It is up after {:.1} s. Installing the operator",
        start.elapsed().as_secs_f64()
    ));
    let operator = install(&bed, &program).await?;
    let _pages = dashboard
        .then(|| Pages::serve(&bed, &program))
        .transpose()?;
    let passed = report::print(&play_parts(&bed, &program, parts).await?);
    if keep || dashboard {
        say("Everything keeps running. Look at it from another terminal; Ctrl-C here ends it:");
        println!(
            "  export KUBECONFIG={}\n  kubectl -n test get canary -w\n  {} -n test get podinfo",
            bed.plane.kubeconfig().display(),
            program.display()
        );
        // `main` handles Ctrl-C.
        std::future::pending::<()>().await;
    }
    operator.terminate().await?;
    bed.stop().await;
    Ok(passed)
}

/// The dashboard as a process, which ends with this value.
struct Pages(Child);

impl Pages {
    /// Serves the pages of the demo's cluster. The process prints their address.
    fn serve(bed: &Bed, program: &Path) -> Result<Self, Error> {
        say("Open this address in a browser to see the releases:");
        let mut command = Command::new(program);
        command.arg("dashboard").arg("--kubeconfig");
        Ok(Self(command.arg(bed.plane.kubeconfig()).spawn()?))
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn play_parts(bed: &Bed, program: &Path, parts: &[Part]) -> Result<Vec<Check>, Error> {
    let mut demo = Demo::new(bed, program);
    let mut checks = Vec::new();
    for part in parts {
        checks.extend(demo.play(*part).await?);
    }
    Ok(checks)
}

/// Section 1 of the walkthrough: installs the operator, the application and the load tester.
async fn install(bed: &Bed, program: &Path) -> Result<Operator, Error> {
    let (output, kubeconfig) = bed.install(&file("kustomize/istio")).await?;
    print!("$ kubectl apply -k kustomize/istio\n{output}");
    bed.apply(&read("examples/walkthrough/ingress-gateway.yaml")?)
        .await?;
    bed.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: test, labels: {istio-injection: enabled}}").await?;
    for folder in ["kustomize/podinfo", "kustomize/tester"] {
        let output = bed.apply_kustomize(&file(folder)).await?;
        print!("$ kubectl apply -k {folder}\n{output}");
    }
    let args = [
        "-log-level=info",
        "-include-label-prefix=app.kubernetes.io",
        "-mesh-provider=istio",
        "-metrics-server=http://prometheus:9090",
        "-event-webhook=http://events/all",
    ];
    Ok(bed.operator("flagger", program, &kubeconfig, &args).await?)
}

/// The outcome that a run is expected to have.
struct Expected {
    phase: &'static str,
    /// The lines of `kubectl get canary -w`.
    table: &'static [&'static str],
    events: Vec<String>,
    /// The second line of `kubectl flagger explain`, with the reason why the run failed. It is empty if the version was promoted.
    cause: &'static str,
}

struct Demo<'a> {
    bed: &'a Bed,
    /// The operator's program, which is the command line, too.
    program: PathBuf,
    /// The lines of `kubectl get canary -w` so far.
    table: Arc<Mutex<Vec<String>>>,
    watch: tokio::task::JoinHandle<()>,
    /// The number of events before the current run.
    earlier_events: usize,
}

impl Drop for Demo<'_> {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

impl<'a> Demo<'a> {
    fn new(bed: &'a Bed, program: &Path) -> Self {
        let table = Arc::new(Mutex::new(Vec::new()));
        let canaries: Api<Canary> = Api::namespaced(bed.client(), "test");
        let events: Api<Event> = Api::namespaced(bed.client(), "test");
        let (table_shown, events_shown) = (show(canaries, table.clone()), show_events(events));
        let watch = tokio::spawn(async move {
            tokio::join!(table_shown, events_shown);
        });
        Self {
            bed,
            program: program.to_owned(),
            table,
            watch,
            earlier_events: 0,
        }
    }

    async fn play(&mut self, part: Part) -> Result<Vec<Check>, Error> {
        match part {
            Part::Canary => {
                say("2. Bootstrap: kubectl apply -f podinfo-canary.yaml");
                let mut checks = self.bootstrap("podinfo-canary.yaml").await?;
                say("3. Canary release: image 3.1.1");
                checks.extend(self.run("3.1.1", released()).await?);
                Ok(checks)
            }
            Part::Rollback => {
                let mut checks = self.bootstrap("podinfo-canary.yaml").await?;
                say("4. Rollback of a canary: image 3.1.2, which returns errors");
                checks.extend(self.rollback("3.1.2").await?);
                Ok(checks)
            }
            Part::BlueGreen => {
                say(
                    "5. Blue/green: kubectl delete the Canary, scale podinfo up, kubectl apply -f podinfo-bg.yaml",
                );
                self.start_over().await?;
                let mut checks = self.bootstrap("podinfo-bg.yaml").await?;
                checks.extend(self.run("3.1.3", blue_green()).await?);
                Ok(checks)
            }
            Part::Alerts => {
                say("6. Slack: podinfo-alert.yaml and podinfo-canary-alert.yaml");
                self.start_over().await?;
                let url = "aHR0cDovL3NsYWNrL29uLWNhbGw="; // http://slack/on-call
                let manifest = read("examples/walkthrough/podinfo-alert.yaml")?;
                self.bed
                    .apply(&manifest.replace("<encoded webhook URL>", url))
                    .await?;
                self.bootstrap("podinfo-canary-alert.yaml").await?;
                self.run("3.1.5", released()).await?;
                self.rollback("3.1.6").await?;
                Ok(vec![self.chat()])
            }
        }
    }

    /// Runs kubectl in the namespace `test` with arguments that are separated by spaces.
    async fn kubectl(&self, args: &str) -> Result<String, Error> {
        let args: Vec<_> = ["-n", "test"]
            .into_iter()
            .chain(args.split_whitespace())
            .collect();
        Ok(self.bed.kubectl(&args).await?)
    }

    /// Applies a Canary of the walkthrough, and checks the objects that the operator created for it.
    async fn bootstrap(&mut self, manifest: &str) -> Result<Vec<Check>, Error> {
        let text = read(&format!("examples/walkthrough/{manifest}"))?;
        let (slow, fast) = (
            "interval: 1m\n    threshold",
            "interval: 10s\n    threshold",
        );
        self.bed.apply(&text.replace(slow, fast)).await?;
        self.until_idle(&["Initialized", "Succeeded", "Failed"])
            .await?;
        let objects = "get deployment/podinfo-primary hpa/podinfo-primary service/podinfo service/podinfo-canary \
             service/podinfo-primary destinationrule/podinfo-canary destinationrule/podinfo-primary virtualservice/podinfo -o name";
        let objects = self.kubectl(objects).await?;
        let hosts = "get virtualservice/podinfo -o jsonpath={.spec.hosts}{.spec.gateways}";
        let hosts = self.kubectl(hosts).await?;
        let replicas = "get deployment/podinfo -o jsonpath={.spec.replicas}";
        let replicas = self.kubectl(replicas).await?;
        self.earlier_events = self.events().len();
        Ok(vec![
            Check::new(
                "bootstrap: objects",
                "8",
                &objects.lines().count().to_string(),
            ),
            Check::new(
                "bootstrap: hosts and gateways",
                r#"["app.example.com","podinfo"]["public-gateway.istio-system.svc.cluster.local"]"#,
                &hosts,
            ),
            Check::new("bootstrap: podinfo's replicas", "0", &replicas),
        ])
    }

    async fn rollback(&mut self, tag: &str) -> Result<Vec<Check>, Error> {
        self.bed.fakes.success_rate("test", 97.5);
        let checks = self.run(tag, failed()).await;
        self.bed.fakes.success_rate("test", 100.0);
        checks
    }

    /// Sets the target's image, waits for the end of the run, and compares its phases and events with the expected ones.
    async fn run(&mut self, tag: &str, expected: Expected) -> Result<Vec<Check>, Error> {
        let earlier = self.table.lock().unwrap().len();
        let image = format!("podinfod=stefanprodan/podinfo:{tag}");
        self.kubectl(&format!("set image deployment/podinfo {image}"))
            .await?;
        until(PATIENCE, "a run to begin", async || {
            let table = self.table.lock().unwrap();
            table[earlier..]
                .iter()
                .any(|line| line.starts_with("Progressing"))
                .then_some(())
                .ok_or_else(|| format!("{table:?}"))
        })
        .await?;
        self.until_idle(&[expected.phase]).await?;
        let events = self.events();
        let new_events = events[self.earlier_events..].to_vec();
        self.earlier_events = events.len();
        let lines = self.table.lock().unwrap()[earlier..].to_vec();
        let explanation = self.explain()?;
        Ok(vec![
            Check::new(
                &format!("{tag}: kubectl get canary -w"),
                &expected.table.join(", "),
                &lines.join(", "),
            ),
            Check::new(
                &format!("{tag}: events"),
                &expected.events.join("\n"),
                &new_events.join("\n"),
            ),
            Check::new(
                &format!("{tag}: kubectl flagger explain podinfo"),
                expected.cause,
                explanation.lines().nth(1).unwrap_or_default(),
            ),
        ])
    }

    /// Prints the output of `kubectl flagger explain` for the last release.
    fn explain(&self) -> Result<String, Error> {
        let mut command = Command::new(&self.program);
        command.args(["explain", "podinfo", "-n", "test"]);
        let output = command
            .env("KUBECONFIG", self.bed.plane.kubeconfig())
            .output()?;
        let text = String::from_utf8(output.stdout)? + &String::from_utf8(output.stderr)?;
        print!("$ kubectl flagger explain podinfo -n test\n{text}");
        Ok(text)
    }

    /// Deletes the Canary and scales the Deployment up by hand.
    async fn start_over(&mut self) -> Result<(), Error> {
        for args in [
            "delete canary podinfo --ignore-not-found",
            "wait --for=delete deployment/podinfo-primary --timeout=60s",
            "scale deployment/podinfo --replicas=2",
            "rollout status deployment/podinfo --timeout=60s",
        ] {
            self.kubectl(args).await?;
        }
        Ok(())
    }

    /// Checks the messages that arrived in the chat channel.
    fn chat(&self) -> Check {
        let expected = [
            "New Deployment detected, initialization completed.",
            "New revision detected, progressing canary analysis.",
            "Canary analysis completed successfully, promotion finished.",
            "New revision detected, progressing canary analysis.",
            "Failed checks threshold reached 5",
        ];
        let calls = self.bed.fakes.calls("slack/on-call");
        let texts: Vec<_> = calls
            .iter()
            .map(|call| {
                let text = call.body.pointer("/attachments/0/text");
                text.and_then(Value::as_str).unwrap_or_default()
            })
            .collect();
        Check::new(
            "alerts: the channel on-call-alerts",
            &expected.join("\n"),
            &texts.join("\n"),
        )
    }

    /// Waits until the canary is in one of these phases, and every notification of the run is sent.
    async fn until_idle(&self, phases: &[&str]) -> Result<(), Error> {
        let canaries: Api<Canary> = Api::namespaced(self.bed.client(), "test");
        until(PATIENCE, &phases.join(" or "), async || {
            let canary = canaries
                .get("podinfo")
                .await
                .map_err(|error| error.to_string())?;
            let status = canary.status.unwrap_or_default();
            // The operator keeps a condition of its own as long as notifications are pending.
            let is_all_sent = { status.conditions.iter().flatten() }
                .all(|condition| ["Promoted", "Verdict"].contains(&condition.type_.as_str()));
            (phases.contains(&status.phase.as_str()) && is_all_sent)
                .then_some(())
                .ok_or_else(|| format!("{status:?}"))
        })
        .await?;
        Ok(())
    }

    /// The texts of all events that the event webhook has received so far.
    fn events(&self) -> Vec<String> {
        let calls = self.bed.fakes.calls("events/all");
        let texts = calls.iter().filter_map(|call| {
            call.body
                .pointer("/metadata/eventMessage")?
                .as_str()
                .map(str::to_owned)
        });
        texts
            .filter(|text| !text.contains("waiting for rollout to finish"))
            .collect()
    }
}

/// Prints the Canary's status whenever it changes, like `kubectl get canary -w`, and appends it to the table.
async fn show(canaries: Api<Canary>, table: Arc<Mutex<Vec<String>>>) {
    let start = Instant::now();
    let mut changes = Box::pin(
        watcher(canaries, watcher::Config::default())
            .default_backoff()
            .applied_objects(),
    );
    while let Ok(Some(canary)) = changes.try_next().await {
        let status = canary.status.unwrap_or_default();
        let line = format!("{} {}", status.phase, status.canary_weight);
        let mut table = table.lock().unwrap();
        if table.last() != Some(&line) {
            println!(
                "{:>5.0} s  podinfo  {:<18}{:>4}",
                start.elapsed().as_secs_f64(),
                status.phase.as_str(),
                status.canary_weight
            );
            table.push(line);
        }
    }
}

const BEGUN: [&str; 3] = [
    "New revision detected! Scaling up podinfo.test",
    "Starting canary analysis for podinfo.test",
    "Pre-rollout check acceptance-test passed",
];
const PROMOTED: [&str; 3] = [
    "Copying podinfo.test template spec to podinfo-primary.test",
    "Routing all traffic to primary",
    "Promotion completed! Scaling down podinfo.test",
];

/// A canary release that succeeds.
fn released() -> Expected {
    let weights =
        [10, 20, 30, 40, 50].map(|weight| format!("Advance podinfo.test canary weight {weight}"));
    let mut events = BEGUN.map(str::to_owned).to_vec();
    events.extend(weights);
    events.extend(PROMOTED.map(str::to_owned));
    Expected {
        phase: "Succeeded",
        table: &CANARY,
        events,
        cause: "",
    }
}

/// A canary release whose success rate is too low at the first weight.
fn failed() -> Expected {
    let mut events = BEGUN.map(str::to_owned).to_vec();
    events.push("Advance podinfo.test canary weight 10".to_owned());
    let halt = "Halt podinfo.test advancement success rate 97.50% < 99%".to_owned();
    events.extend(std::iter::repeat_n(halt, 5));
    events.push("Rolling back podinfo.test failed checks threshold reached 5".to_owned());
    events.push("Canary failed! Scaling down podinfo.test".to_owned());
    Expected {
        phase: "Failed",
        table: &["Progressing 0", "Progressing 10", "Failed 0"],
        events,
        cause: "5 failed checks reached the threshold of 5. In the last one, request-success-rate was 97.5 %, below the minimum 99 %.",
    }
}

/// A blue/green release that succeeds.
fn blue_green() -> Expected {
    let mut events = BEGUN.map(str::to_owned).to_vec();
    events.extend((1..=10).map(|i| format!("Advance podinfo.test canary iteration {i}/10")));
    events.push("Routing all traffic to canary".to_owned());
    events.extend(PROMOTED.map(str::to_owned));
    Expected {
        phase: "Succeeded",
        table: &[
            "Progressing 0",
            "Promoting 0",
            "Finalising 0",
            "Succeeded 0",
        ],
        events,
        cause: "",
    }
}
