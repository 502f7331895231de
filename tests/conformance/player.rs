//! Plays a scenario: runs the actions and waits of its script in order.

use std::{fs, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use regex::Regex;
use serde_json::{Value, json};
use testbed::wait::until;

use crate::{
    cluster::{Cluster, Name, Refused, STRATEGIC},
    objects::{FLAGGER, complete},
    scenario::{Event, Image, Ready, Release, Scenario, Start, Verb},
    seen::Seen,
};

/// The API of Knative Services.
const KNATIVE: &str = "serving.knative.dev/v1";
/// The longest wait for one condition.
const PATIENCE: Duration = Duration::from_secs(300);
/// How many seconds pass before a new step begins, so that late effects are recorded in the step that caused them.
const PAUSE: f64 = 2.0;
/// Matches queries of a success rate.
const SUCCESS_RATE: &str = "(!~|status!|code!|classification!)";

/// The scenario cannot continue. Its notes contain the reason.
pub struct Stopped;

type Outcome = Result<(), Stopped>;

/// Plays one scenario.
pub struct Player<'a> {
    pub scenario: &'a Scenario,
    pub cluster: Cluster,
    pub seen: &'a Seen,
    /// The address of the fake servers.
    pub servers: &'a str,
}

impl Player<'_> {
    /// Plays the complete script.
    pub async fn play(&self) {
        let played = async {
            self.begin().await?;
            for verb in &self.scenario.script {
                self.verb(verb).await?;
            }
            self.pause(1.0).await;
            if !self.seen.has_snapshot("end") {
                self.snapshot("end").await?;
            }
            Ok(())
        };
        let _: Outcome = played.await;
        self.end().await;
    }

    async fn begin(&self) -> Outcome {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.scenario.namespace}});
        let made = self.cluster.create(&namespace).await;
        self.done("create Namespace", made.map(drop))
    }

    /// Deletes the objects of the scenario, so that they cost no more CPU time.
    async fn end(&self) {
        self.seen.close();
        let canaries = self
            .cluster
            .list(FLAGGER, "Canary")
            .await
            .unwrap_or_default();
        let unbind = json!({"metadata": {"finalizers": null}, "spec": {"revertOnDeletion": false}});
        for canary in canaries {
            // It is no error if the Canary is deleted in between.
            let _ = self.cluster.patch(&Name::of(&canary), &unbind).await;
            let _ = self.cluster.delete(&Name::of(&canary)).await;
        }
        let _ = self
            .cluster
            .delete(&Name::new("v1", "Namespace", &self.scenario.namespace))
            .await;
    }

    async fn verb(&self, verb: &Verb) -> Outcome {
        match verb {
            Verb::Step(name) => self.step(name).await,
            Verb::Idle(seconds) => {
                self.pause(*seconds).await;
                self.knative_routes().await?;
            }
            Verb::Snapshot(at) => self.snapshot(at).await?,
            Verb::Apply(object) => self.apply(object).await?,
            Verb::KubectlApply(object) => self.kubectl_apply(self.filled(object)).await?,
            Verb::Manifest(file) => self.manifest(file).await?,
            Verb::Patch { object, with } => {
                self.patch(&Name::read(object), &self.filled(with)).await?
            }
            Verb::PatchCanary(spec) => {
                let patch = json!({"spec": self.filled(spec)});
                self.patch(&Name::new(FLAGGER, "Canary", "podinfo"), &patch)
                    .await?;
            }
            Verb::Delete(object) => {
                let deleted = self.cluster.delete(&Name::read(object)).await;
                self.done(&format!("delete {object}"), deleted)?;
            }
            Verb::Gone(object) => self.gone(&Name::read(object)).await?,
            Verb::Image(Image::Tag(tag)) => self.image(tag, "Deployment", "podinfo").await?,
            Verb::Image(Image::Of { tag, kind, name }) => self.image(tag, kind, name).await?,
            Verb::Ready(ready) => self.ready(ready).await?,
            Verb::Phase(phase) => self.phase(phase).await?,
            Verb::Weight(weight) => self.weight(*weight).await?,
            Verb::Event(Event::Once(pattern)) => self.event(pattern, 1).await?,
            Verb::Event(Event::Times { pattern, count }) => self.event(pattern, *count).await?,
            Verb::Metric { query, answers } => self.seen.metric(query, answers),
            Verb::Hook { name, answers } => self.seen.hook(name, answers),
            Verb::Start(start) => self.start(start).await?,
            Verb::Release(release) => self.release(release).await?,
            Verb::Fail(release) => self.fail(release).await?,
        }
        Ok(())
    }

    // Actions.

    async fn step(&self, name: &str) {
        self.pause(PAUSE).await;
        self.seen.step(name);
    }

    /// Waits, so that late effects are recorded too.
    async fn pause(&self, seconds: f64) {
        tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
    }

    /// Waits until each Knative Service sends its requests to a Revision. A busy machine may need more than the time of the script.
    async fn knative_routes(&self) -> Outcome {
        let routes = async || {
            let services = self.cluster.list(KNATIVE, "Service").await;
            let services = services.unwrap_or_default();
            services.iter().all(|it| it["status"]["traffic"].is_array())
        };
        self.wait("the routes of Knative Services", routes).await
    }

    async fn start(&self, start: &Start) -> Outcome {
        self.workload(start).await?;
        self.step("bootstrap").await;
        self.apply(&json!({"canary": start.canary})).await?;
        self.phase("Initialized").await?;
        self.snapshot("initialized").await
    }

    async fn workload(&self, start: &Start) -> Outcome {
        let different = if start.podinfo.is_null() {
            json!({})
        } else {
            start.podinfo.clone()
        };
        let workload = json!({"podinfo": different});
        self.apply(&workload).await?;
        if !start.ready {
            return Ok(());
        }
        let Name { kind, name, .. } = Name::of(&complete(&workload));
        self.ready(&Ready {
            kind,
            name,
            pods: None,
        })
        .await
    }

    async fn release(&self, release: &Release) -> Outcome {
        let (tag, kind, until) = match release {
            Release::Tag(tag) => (tag, "Deployment", "Succeeded"),
            Release::Of { tag, kind, until } => {
                (tag, kind.as_str(), until.as_deref().unwrap_or("Succeeded"))
            }
        };
        self.step(&format!("release {tag}")).await;
        self.image(tag, kind, "podinfo").await?;
        self.phase(until).await
    }

    async fn fail(&self, release: &Release) -> Outcome {
        let (tag, kind) = match release {
            Release::Tag(tag) => (tag, "Deployment"),
            Release::Of { tag, kind, .. } => (tag, kind.as_str()),
        };
        self.step(&format!("rollback {tag}")).await;
        self.seen.metric(SUCCESS_RATE, &[json!(42)]);
        self.image(tag, kind, "podinfo").await?;
        self.phase("Failed").await?;
        self.seen.metric(SUCCESS_RATE, &[json!(100)]);
        Ok(())
    }

    async fn apply(&self, object: &Value) -> Outcome {
        let object = self.named(self.filled(&complete(object)));
        let applied = self.cluster.apply(&object).await;
        self.done(&format!("apply {}", object["kind"]), applied.map(drop))
    }

    async fn kubectl_apply(&self, object: Value) -> Outcome {
        let object = self.named(complete(&object));
        let applied = self.cluster.kubectl_apply(object.clone()).await;
        self.done(
            &format!("kubectl apply {}", object["kind"]),
            applied.map(drop),
        )
    }

    /// Applies a file of the walkthrough as users get it, but with a shorter interval and the addresses of the fake servers.
    async fn manifest(&self, file: &str) -> Outcome {
        let path = format!("{}/examples/walkthrough/{file}", env!("CARGO_MANIFEST_DIR"));
        let text = fs::read_to_string(path).unwrap();
        let chat = STANDARD.encode(format!("{}/chat/on-call", self.servers));
        let text = text
            .replace(
                "interval: 1m\n    threshold",
                "interval: 10s\n    threshold",
            )
            .replace("http://flagger-loadtester.test/", "$HOOKS/loadtester")
            .replace("<encoded webhook URL>", &chat)
            .replace("namespace: test\n", "namespace: $NS\n");
        for document in text.split("\n---\n") {
            let object: Value = serde_saphyr::from_str(document).unwrap();
            self.kubectl_apply(self.filled(&object)).await?;
        }
        Ok(())
    }

    async fn patch(&self, of: &Name, with: &Value) -> Outcome {
        let patched = self.cluster.patch(of, with).await;
        self.done(&format!("patch {}/{}", of.kind, of.name), patched.map(drop))
    }

    async fn image(&self, tag: &str, kind: &str, name: &str) -> Outcome {
        let container = json!({"name": "podinfod", "image": format!("stefanprodan/podinfo:{tag}")});
        let patch = json!({"spec": {"template": {"spec": {"containers": [container]}}}});
        let of = Name::new("apps/v1", kind, name);
        let patched = self.cluster.patch_as(STRATEGIC, &of, &patch).await;
        self.done(&format!("image of {kind}/{name}"), patched.map(drop))
    }

    /// Records all objects and the tables of `kubectl get -o wide`.
    async fn snapshot(&self, at: &str) -> Outcome {
        self.pause(1.0).await;
        for kind in ["Canary", "MetricTemplate", "AlertProvider"] {
            let table = self.cluster.table(FLAGGER, kind).await;
            match table {
                Ok(table) => tabulate(&table, |line| self.seen.table(line)),
                Err(refused) => self.done(&format!("get {kind}"), Err(refused))?,
            }
        }
        self.seen.snapshot(at);
        Ok(())
    }

    // Waits.

    /// Waits for a phase, and then until the target's connections have drained: the target keeps its pods until then. Flagger does not
    /// wait for connections, so the recordings are comparable only afterwards.
    async fn phase(&self, phase: &str) -> Outcome {
        let seen = async || self.seen.phases().iter().any(|seen| seen == phase);
        self.wait(&format!("phase {phase}"), seen).await?;
        let drained = async || {
            let last = self.seen.lines("status").pop();
            last.is_some_and(|line| !line.contains("Draining True "))
        };
        self.wait("the target's connections to end", drained).await
    }

    async fn weight(&self, weight: u64) -> Outcome {
        let weight = format!(" weight={weight} ");
        let seen = async || {
            self.seen
                .lines("status")
                .iter()
                .any(|line| line.contains(&weight))
        };
        self.wait(&format!("weight{weight}"), seen).await
    }

    async fn event(&self, pattern: &str, count: usize) -> Outcome {
        let regex = Regex::new(pattern).unwrap();
        let is_seen = async || {
            let lines = [self.seen.lines("notices"), self.seen.lines("hooks")].concat();
            lines.iter().filter(|line| regex.is_match(line)).count() >= count
        };
        self.wait(&format!("event {pattern}"), is_seen).await
    }

    async fn ready(&self, ready: &Ready) -> Outcome {
        let of = Name::new("apps/v1", &ready.kind, &ready.name);
        let is_ready = async || {
            let workload = self.cluster.get(&of).await.ok().flatten();
            workload.is_some_and(|workload| is_rolled_out(&workload, ready.pods))
        };
        self.wait(&format!("{} {} ready", ready.kind, ready.name), is_ready)
            .await
    }

    async fn gone(&self, of: &Name) -> Outcome {
        let is_gone = async || matches!(self.cluster.get(of).await, Ok(None));
        self.wait(&format!("{} {} gone", of.kind, of.name), is_gone)
            .await
    }

    async fn wait(&self, what: &str, condition: impl AsyncFn() -> bool) -> Outcome {
        let waited = until(PATIENCE, what, async || {
            if condition().await {
                Ok(())
            } else {
                Err(String::new())
            }
        });
        waited.await.map_err(|_| {
            self.seen.note(&format!("TIMEOUT waiting for {what}"));
            Stopped
        })
    }

    fn done(&self, what: &str, answer: Result<(), Refused>) -> Outcome {
        answer.map_err(|refused| {
            self.seen.note(&format!(
                "SCRIPT {what} refused: {} {}",
                refused.code, refused.why
            ));
            Stopped
        })
    }

    // Placeholders and defaults in the objects of a script.

    fn filled(&self, value: &Value) -> Value {
        let hooks = format!("{}/hook/{}", self.servers, self.scenario.namespace);
        let text = value.to_string();
        let text = text
            .replace("$HOOKS", &hooks)
            .replace("$FAKES", self.servers)
            .replace("$NS", &self.scenario.namespace);
        serde_json::from_str(&text).unwrap()
    }

    /// Adds the namespace of the scenario if the object has none.
    fn named(&self, mut object: Value) -> Value {
        let metadata = &mut object["metadata"];
        if metadata.get("namespace").is_none() {
            metadata["namespace"] = json!(self.scenario.namespace);
        }
        object
    }
}

fn is_rolled_out(workload: &Value, pods: Option<u64>) -> bool {
    let status = |name: &str| workload["status"][name].as_u64().unwrap_or(0);
    if workload["status"]["observedGeneration"] != workload["metadata"]["generation"] {
        return false;
    }
    if workload["kind"] == "DaemonSet" {
        let wanted = status("desiredNumberScheduled");
        return wanted > 0 && status("numberReady") == wanted;
    }
    let wanted = pods.or_else(|| workload["spec"]["replicas"].as_u64());
    Some(status("availableReplicas")) == wanted && status("updatedReplicas") == status("replicas")
}

/// Calls `line` for each line of a table, with times masked.
fn tabulate(table: &Value, mut line: impl FnMut(&str)) {
    let (columns, rows) = (
        table["columnDefinitions"].as_array(),
        table["rows"].as_array(),
    );
    let (Some(columns), Some(rows)) = (columns, rows.filter(|rows| !rows.is_empty())) else {
        return;
    };
    let names: Vec<_> = columns
        .iter()
        .filter_map(|column| column["name"].as_str())
        .collect();
    line(
        &names
            .iter()
            .map(|name| name.to_uppercase())
            .collect::<Vec<_>>()
            .join(" | "),
    );
    for row in rows {
        let cells = row["cells"].as_array().into_iter().flatten().zip(&names);
        let cells: Vec<_> = cells
            .map(|(cell, name)| match cell {
                Value::Null => String::new(),
                Value::Bool(true) => "True".to_owned(),
                Value::Bool(false) => "False".to_owned(),
                Value::String(text)
                    if !text.is_empty() && ["Age", "LastTransitionTime"].contains(name) =>
                {
                    "<time>".to_owned()
                }
                Value::String(text) => text.clone(),
                other => other.to_string(),
            })
            .collect();
        line(&cells.join(" | "));
    }
}
