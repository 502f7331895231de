//! The walkthrough on a control plane without data plane: pods are names, metrics and chats are fakes.

use std::{
    path::Path,
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

use super::{CANARY, PATIENCE, Problem, Row, file, print_report, row, say, show_events};
use flagger_rs::api::canary::Canary;

/// What is played.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Canary,
    Rollback,
    BlueGreen,
    Alerts,
}

pub const PARTS: [(&str, Part); 4] = [
    ("canary", Part::Canary),
    ("rollback", Part::Rollback),
    ("blue-green", Part::BlueGreen),
    ("alerts", Part::Alerts),
];

pub async fn play(parts: &[Part], keep: bool) -> Result<bool, Problem> {
    let program = programs::build(&["flagger"])?.join("flagger");
    let start = Instant::now();
    say("Starting a control plane");
    let bed = Bed::start().await?;
    say(&format!(
        "It is up after {:.1} s. Installing",
        start.elapsed().as_secs_f64()
    ));
    let operator = install(&bed, &program).await?;
    let report = play_parts(&bed, parts).await?;
    let good = report.iter().all(|row| row.1 == row.2);
    print_report(&report);
    if keep {
        say("Everything goes on. Look at it from another terminal, and end it here with Ctrl-C:");
        println!(
            "  export KUBECONFIG={}\n  kubectl -n test get canary -w",
            bed.plane.kubeconfig().display()
        );
        // Ctrl-C is noticed above.
        std::future::pending::<()>().await;
    }
    operator.terminate().await?;
    bed.stop().await;
    Ok(good)
}

async fn play_parts(bed: &Bed, parts: &[Part]) -> Result<Vec<Row>, Problem> {
    let mut demo = Demo::new(bed);
    let mut report = Vec::new();
    for part in parts {
        report.extend(demo.play(*part).await?);
    }
    Ok(report)
}

/// What section 1 of the walkthrough does.
async fn install(bed: &Bed, program: &Path) -> Result<Operator, Problem> {
    let (said, kubeconfig) = bed.install(&file("kustomize/istio")).await?;
    print!("$ kubectl apply -k kustomize/istio\n{said}");
    bed.apply(&std::fs::read_to_string(file(
        "examples/walkthrough/ingress-gateway.yaml",
    ))?)
    .await?;
    bed.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: test, labels: {istio-injection: enabled}}").await?;
    print!(
        "$ kubectl apply -k kustomize/podinfo\n{}",
        bed.apply_kustomize(&file("kustomize/podinfo")).await?
    );
    print!(
        "$ kubectl apply -k kustomize/tester\n{}",
        bed.apply_kustomize(&file("kustomize/tester")).await?
    );
    let args = [
        "-log-level=info",
        "-include-label-prefix=app.kubernetes.io",
        "-mesh-provider=istio",
        "-metrics-server=http://prometheus:9090",
        "-event-webhook=http://events/all",
    ];
    Ok(bed.operator("flagger", program, &kubeconfig, &args).await?)
}

struct Demo<'a> {
    bed: &'a Bed,
    table: Arc<Mutex<Vec<String>>>,
    watch: tokio::task::JoinHandle<()>,
    told: usize,
}

impl Drop for Demo<'_> {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

impl<'a> Demo<'a> {
    fn new(bed: &'a Bed) -> Self {
        let table = Arc::new(Mutex::new(Vec::new()));
        let canaries: Api<Canary> = Api::namespaced(bed.client(), "test");
        let events: Api<Event> = Api::namespaced(bed.client(), "test");
        let (shown, told) = (show(canaries, table.clone()), show_events(events));
        let watch = tokio::spawn(async move {
            tokio::join!(shown, told);
        });
        Self {
            bed,
            table,
            watch,
            told: 0,
        }
    }

    async fn play(&mut self, part: Part) -> Result<Vec<Row>, Problem> {
        match part {
            Part::Canary => {
                say("2. Bootstrap: kubectl apply -f podinfo-canary.yaml");
                let mut rows = self.bootstrap("podinfo-canary.yaml").await?;
                say("3. Canary release: image 3.1.1");
                rows.extend(self.release("3.1.1", &CANARY, &RELEASED).await?);
                Ok(rows)
            }
            Part::Rollback => {
                let mut rows = self.bootstrap("podinfo-canary.yaml").await?;
                say("4. Rollback of a canary: image 3.1.2, which errs");
                rows.extend(self.rollback("3.1.2").await?);
                Ok(rows)
            }
            Part::BlueGreen => {
                say(
                    "5. Blue/green: kubectl delete the Canary, scale podinfo up, kubectl apply -f podinfo-bg.yaml",
                );
                self.start_over().await?;
                let mut rows = self.bootstrap("podinfo-bg.yaml").await?;
                rows.extend(
                    self.release("3.1.3", &BLUE_GREEN, &blue_green_events())
                        .await?,
                );
                Ok(rows)
            }
            Part::Alerts => {
                say("6. Slack: podinfo-alert.yaml and podinfo-canary-alert.yaml");
                self.start_over().await?;
                let url = "aHR0cDovL3NsYWNrL29uLWNhbGw="; // http://slack/on-call
                let manifest =
                    std::fs::read_to_string(file("examples/walkthrough/podinfo-alert.yaml"))?;
                self.bed
                    .apply(&manifest.replace("<encoded webhook URL>", url))
                    .await?;
                self.bootstrap("podinfo-canary-alert.yaml").await?;
                self.release("3.1.5", &CANARY, &RELEASED).await?;
                self.rollback("3.1.6").await?;
                Ok(self.chat())
            }
        }
    }

    /// Applies a Canary of the walkthrough; what the bootstrap made.
    async fn bootstrap(&mut self, manifest: &str) -> Result<Vec<Row>, Problem> {
        let text = std::fs::read_to_string(file(&format!("examples/walkthrough/{manifest}")))?;
        self.bed
            .apply(&text.replace(
                "interval: 1m\n    threshold",
                "interval: 10s\n    threshold",
            ))
            .await?;
        self.idle(&["Initialized", "Succeeded", "Failed"]).await?;
        let made = self
            .bed
            .kubectl(&[
                "-n",
                "test",
                "get",
                "deployment/podinfo-primary",
                "hpa/podinfo-primary",
                "service/podinfo",
                "service/podinfo-canary",
                "service/podinfo-primary",
                "destinationrule/podinfo-canary",
                "destinationrule/podinfo-primary",
                "virtualservice/podinfo",
                "-o",
                "name",
            ])
            .await?;
        let hosts = self
            .bed
            .kubectl(&[
                "-n",
                "test",
                "get",
                "virtualservice/podinfo",
                "-o",
                "jsonpath={.spec.hosts} {.spec.gateways}",
            ])
            .await?;
        self.told = self.told().len();
        Ok(vec![
            row("bootstrap: objects", "8", &made.lines().count().to_string()),
            row(
                "bootstrap: hosts and gateways",
                r#"["app.example.com","podinfo"] ["public-gateway.istio-system.svc.cluster.local"]"#,
                &hosts,
            ),
            row(
                "bootstrap: podinfo's replicas",
                "0",
                &self
                    .bed
                    .kubectl(&[
                        "-n",
                        "test",
                        "get",
                        "deployment/podinfo",
                        "-o",
                        "jsonpath={.spec.replicas}",
                    ])
                    .await?,
            ),
        ])
    }

    async fn release(
        &mut self,
        tag: &str,
        table: &[&str],
        events: &[String],
    ) -> Result<Vec<Row>, Problem> {
        self.run(tag, "Succeeded", table, events).await
    }

    async fn rollback(&mut self, tag: &str) -> Result<Vec<Row>, Problem> {
        self.bed.fakes.success_rate("test", 97.5);
        let mut events = vec![
            "New revision detected! Scaling up podinfo.test".to_owned(),
            "Starting canary analysis for podinfo.test".to_owned(),
            "Pre-rollout check acceptance-test passed".to_owned(),
            "Advance podinfo.test canary weight 10".to_owned(),
        ];
        events.extend(std::iter::repeat_n(
            "Halt podinfo.test advancement success rate 97.50% < 99%".to_owned(),
            5,
        ));
        events.push("Rolling back podinfo.test failed checks threshold reached 5".to_owned());
        events.push("Canary failed! Scaling down podinfo.test".to_owned());
        let rows = self
            .run(
                tag,
                "Failed",
                &["Progressing 0", "Progressing 10", "Failed 0"],
                &events,
            )
            .await;
        self.bed.fakes.success_rate("test", 100.0);
        rows
    }

    /// Sets the image and watches until the end.
    async fn run(
        &mut self,
        tag: &str,
        end: &str,
        table: &[&str],
        events: &[String],
    ) -> Result<Vec<Row>, Problem> {
        let seen = self.table.lock().unwrap().len();
        self.bed
            .kubectl(&[
                "-n",
                "test",
                "set",
                "image",
                "deployment/podinfo",
                &format!("podinfod=stefanprodan/podinfo:{tag}"),
            ])
            .await?;
        until(PATIENCE, "a run to begin", async || {
            let table = self.table.lock().unwrap();
            table[seen..]
                .iter()
                .any(|line| line.starts_with("Progressing"))
                .then_some(())
                .ok_or_else(|| format!("{table:?}"))
        })
        .await?;
        self.idle(&[end]).await?;
        let told = self.told();
        let news = told[self.told..].to_vec();
        self.told = told.len();
        let lines = self.table.lock().unwrap()[seen..].to_vec();
        Ok(vec![
            row(
                &format!("{tag}: kubectl get canary -w"),
                &table.join(", "),
                &lines.join(", "),
            ),
            row(
                &format!("{tag}: events"),
                &events.join("\n"),
                &news.join("\n"),
            ),
        ])
    }

    /// Deletes the Canary and scales the Deployment up by hand.
    async fn start_over(&mut self) -> Result<(), Problem> {
        self.bed
            .kubectl(&[
                "-n",
                "test",
                "delete",
                "canary",
                "podinfo",
                "--ignore-not-found",
            ])
            .await?;
        self.bed
            .kubectl(&[
                "-n",
                "test",
                "wait",
                "--for=delete",
                "deployment/podinfo-primary",
                "--timeout=60s",
            ])
            .await?;
        self.bed
            .kubectl(&["-n", "test", "scale", "deployment/podinfo", "--replicas=2"])
            .await?;
        self.bed
            .kubectl(&[
                "-n",
                "test",
                "rollout",
                "status",
                "deployment/podinfo",
                "--timeout=60s",
            ])
            .await?;
        Ok(())
    }

    /// What arrived in the channel.
    fn chat(&self) -> Vec<Row> {
        let expected = [
            "New Deployment detected, initialization completed.",
            "New revision detected, progressing canary analysis.",
            "Canary analysis completed successfully, promotion finished.",
            "New revision detected, progressing canary analysis.",
            "Failed checks threshold reached 5",
        ];
        let texts: Vec<String> = self
            .bed
            .fakes
            .calls("slack/on-call")
            .iter()
            .map(|call| {
                call.body
                    .pointer("/attachments/0/text")
                    .and_then(Value::as_str)
                    .unwrap_or_default()
                    .to_owned()
            })
            .collect();
        vec![row(
            "alerts: the channel on-call-alerts",
            &expected.join("\n"),
            &texts.join("\n"),
        )]
    }

    /// Until the canary is in one of these phases, and all is told.
    async fn idle(&self, phases: &[&str]) -> Result<(), Problem> {
        let canaries: Api<Canary> = Api::namespaced(self.bed.client(), "test");
        until(PATIENCE, &phases.join(" or "), async || {
            let canary = canaries
                .get("podinfo")
                .await
                .map_err(|error| error.to_string())?;
            let status = canary.status.unwrap_or_default();
            let is_told = status
                .conditions
                .as_ref()
                .is_none_or(|conditions| conditions.len() <= 1);
            (phases.contains(&status.phase.as_str()) && is_told)
                .then_some(())
                .ok_or_else(|| format!("{status:?}"))
        })
        .await?;
        Ok(())
    }

    /// The texts of all events so far, as the event webhook was told them.
    fn told(&self) -> Vec<String> {
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

/// `kubectl get canary -w`
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

const BLUE_GREEN: [&str; 4] = [
    "Progressing 0",
    "Promoting 0",
    "Finalising 0",
    "Succeeded 0",
];

static RELEASED: std::sync::LazyLock<Vec<String>> = std::sync::LazyLock::new(|| {
    let mut events = vec![
        "New revision detected! Scaling up podinfo.test".to_owned(),
        "Starting canary analysis for podinfo.test".to_owned(),
        "Pre-rollout check acceptance-test passed".to_owned(),
    ];
    events.extend(
        [10, 20, 30, 40, 50].map(|weight| format!("Advance podinfo.test canary weight {weight}")),
    );
    events.extend(promoted());
    events
});

fn blue_green_events() -> Vec<String> {
    let mut events = vec![
        "New revision detected! Scaling up podinfo.test".to_owned(),
        "Starting canary analysis for podinfo.test".to_owned(),
        "Pre-rollout check acceptance-test passed".to_owned(),
    ];
    events.extend((1..=10).map(|i| format!("Advance podinfo.test canary iteration {i}/10")));
    events.push("Routing all traffic to canary".to_owned());
    events.extend(promoted());
    events
}

fn promoted() -> [String; 3] {
    [
        "Copying podinfo.test template spec to podinfo-primary.test".to_owned(),
        "Routing all traffic to primary".to_owned(),
        "Promotion completed! Scaling down podinfo.test".to_owned(),
    ]
}
