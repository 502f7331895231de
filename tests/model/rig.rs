//! The complete operator on the model, and the actions of a user.

use std::{sync::Arc, time::Duration};

use flagger_rs::{
    notifications::chats::{Chat, Slack},
    shell::{
        api_server::{Cluster, Leadership},
        clock,
        controller::{self, Operator, Records, answers::Answers},
        notify::{GlobalReceivers, Notifier},
        telemetry::{canary_metrics::CanaryMetrics, server::Health},
    },
    snapshot::{Origin, Secret, Settings, Shard, Watched},
};
use serde_json::{Value, json};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{Instant, sleep_until},
};

use super::{
    controllers,
    fake_servers::FakeServers,
    faults::OPERATORS,
    patch,
    server::Model,
    store::{Key, Part, Store, Writer},
};

pub const NAMESPACE: &str = "test";
/// The longest wait for a condition, on the model's clock. After a lost watch event, a list repairs the cache within about an hour.
const PATIENCE: Duration = Duration::from_secs(2 * 3600);
/// The time until a killed operator is started again.
const RESTART: Duration = Duration::from_secs(5);

/// A cluster, the servers around it, and an operator.
pub struct Rig {
    pub model: Model,
    pub servers: FakeServers,
    tasks: Vec<JoinHandle<()>>,
    operator: Option<JoinHandle<()>>,
    /// The metrics of the operator that was started last.
    metrics: Option<CanaryMetrics>,
    kills: watch::Receiver<Option<String>>,
    /// The number of killed operators so far.
    killed: usize,
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.tasks
            .iter()
            .chain(&self.operator)
            .for_each(JoinHandle::abort);
    }
}

impl Rig {
    /// A cluster with controllers, whose clock starts at a whole second.
    pub async fn new() -> Self {
        let fraction = clock::now().subsec_nanosecond();
        tokio::time::sleep(Duration::from_nanos(
            1_000_000_000 - u64::try_from(fraction).unwrap(),
        ))
        .await;
        let model = Model::new(clock::now());
        Self {
            servers: FakeServers::default(),
            tasks: vec![tokio::spawn(controllers::run(model.clone()))],
            operator: None,
            metrics: None,
            kills: model.kills(),
            killed: 0,
            model,
        }
    }

    /// Starts an operator under this name. An earlier one is aborted.
    pub fn start(&mut self, name: &'static str) {
        if let Some(earlier) = self.operator.take() {
            earlier.abort();
        }
        self.operator = Some(self.run(name, Watched::default()));
    }

    /// Starts an operator of the canaries that a label selector matches. Earlier ones continue.
    pub fn start_shard(&mut self, name: &'static str, selector: &str) {
        let watched = Watched {
            namespace: None,
            shard: Some(Shard::parse(selector).unwrap()),
        };
        let running = self.run(name, watched);
        self.tasks.push(running);
    }

    fn run(&mut self, name: &str, watched: Watched) -> JoinHandle<()> {
        let client = self.model.client(name);
        let http = self.servers.http(&self.model, name);
        let canary_metrics = CanaryMetrics::new().unwrap();
        let operator_metrics = canary_metrics.operator_metrics().unwrap();
        self.metrics = Some(canary_metrics.clone());
        let cluster = Cluster::new(client, Leadership::always(), operator_metrics.clone());
        let chat = Chat {
            service: &Slack,
            address: Secret("http://slack/global".into()),
            token: None,
            proxy: None,
            username: "flagger".into(),
            channel: "general".into(),
            origin: Origin::Administrator,
        };
        let global = GlobalReceivers {
            chat: Some(chat),
            event_webhook: Some(Secret("http://events/all".into())),
            ..GlobalReceivers::default()
        };
        let notifier = Notifier::new(cluster.clone(), http.clone(), global);
        let (trigger, triggers) = mpsc::unbounded_channel();
        let operator = Operator {
            cluster: cluster.clone(),
            settings: Arc::new(settings()),
            notifier: notifier.clone(),
            canary_metrics,
            operator_metrics,
            answers: Arc::new(Answers::new(cluster, http, notifier, trigger.clone())),
            records: Records::keeping(3),
        };
        tokio::spawn(async move {
            controller::run(
                watched,
                Arc::new(operator),
                (trigger, triggers),
                Health::default(),
                std::future::pending(),
            )
            .await;
        })
    }

    /// The metrics of the operator.
    pub fn metrics(&self) -> String {
        self.metrics.as_ref().unwrap().render()
    }

    /// Creates an object as a user.
    pub fn create(&self, plural: &str, object: Value) {
        let key = Key::new(
            plural,
            NAMESPACE,
            object["metadata"]["name"].as_str().unwrap(),
        );
        self.model
            .write("user", |store, by| store.create(&key, object, by))
            .unwrap();
    }

    /// Changes an object as a user, with a merge patch.
    pub fn patch(&self, plural: &str, name: &str, change: Value) {
        patch_as_user(&self.model, plural, name, &change);
    }

    pub fn get(&self, plural: &str, name: &str) -> Value {
        self.model
            .get(plural, NAMESPACE, name)
            .map(|object| (*object).clone())
            .unwrap_or_default()
    }

    /// All objects of a kind.
    pub fn all(&self, plural: &str) -> Vec<Value> {
        let store = self.model.store();
        let of_kind = store.all().filter(|(key, _)| key.plural == plural);
        of_kind.map(|(_, object)| (**object).clone()).collect()
    }

    /// The image of a Deployment; empty without one.
    pub fn image_of(&self, name: &str) -> String {
        let image = self.get("deployments", name);
        let image = image.pointer("/spec/template/spec/containers/0/image");
        image.and_then(Value::as_str).unwrap_or_default().to_owned()
    }

    /// Deletes an object as a user.
    pub fn delete(&self, plural: &str, name: &str) {
        let key = Key::new(plural, NAMESPACE, name);
        let delete = |store: &mut Store, by: &Writer| store.delete(&key, &json!({}), by);
        self.model.write("user", delete).map(drop).unwrap();
    }

    /// Creates the walkthrough's target and Canary, with changes to its spec.
    pub fn walkthrough(&self, spec: Value) {
        self.target("podinfo");
        self.canary("podinfo", spec);
    }

    /// Creates a target and its autoscaler.
    pub fn target(&self, name: &str) {
        self.create("deployments", json!({"metadata": {"name": name, "labels": {"app": name}},
            "spec": {"selector": {"matchLabels": {"app": name}}, "progressDeadlineSeconds": 60, "template": template(name, "3.1.0")}}));
        self.create("horizontalpodautoscalers", json!({"metadata": {"name": name},
            "spec": {"minReplicas": 2, "maxReplicas": 4, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name}}}));
    }

    /// Creates the walkthrough's Canary for a target, with changes to its spec.
    pub fn canary(&self, name: &str, spec: Value) {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/examples/walkthrough/podinfo-canary.yaml"
        );
        let mut canary: Value =
            serde_saphyr::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        canary["metadata"]["name"] = json!(name);
        canary["spec"]["targetRef"]["name"] = json!(name);
        canary["spec"]["autoscalerRef"]["name"] = json!(name);
        json_patch::merge(&mut canary["spec"], &spec);
        self.create("canaries", canary);
    }

    /// Releases a version of the walkthrough's target as a user.
    pub fn image(&self, tag: &str) {
        self.release("deployments", "podinfo", tag);
    }

    /// Releases a version of a target as a user.
    pub fn release(&self, plural: &str, name: &str, tag: &str) {
        let containers = template(name, tag)["spec"]["containers"].clone();
        let change = json!({"spec": {"template": {"spec": {"containers": containers}}}});
        self.patch(plural, name, change);
    }

    /// Waits until the canary is in this phase, and no notification or step is pending.
    pub async fn until_phase(&mut self, phase: &str) {
        let is_there = |rig: &Self| {
            let status = &rig.get("canaries", "podinfo")["status"];
            let mut conditions = status["conditions"].as_array().into_iter().flatten();
            let lasts = |condition: &Value| {
                [
                    "Promoted",
                    "PromotionFailed",
                    "Action",
                    "Verdict",
                    "RouteRefs",
                    "GrpcRoute",
                ]
                .iter()
                .any(|type_| condition["type"] == *type_)
            };
            status["phase"] == phase && conditions.all(lasts)
        };
        self.until(&format!("phase {phase}"), is_there).await;
    }

    /// Waits until a condition holds.
    pub async fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        let is_in_time = self.within(PATIENCE, &holds).await;
        assert!(
            is_in_time,
            "timed out waiting for {what}:\n{}",
            self.transcript()
        );
    }

    /// Waits until a condition holds. Returns false if it does not within this time.
    pub async fn within(&mut self, time: Duration, holds: impl Fn(&Self) -> bool) -> bool {
        let end = Instant::now() + time;
        while !holds(self) {
            if !self.wait(end, true).await {
                return false;
            }
        }
        true
    }

    /// Lets this many seconds pass.
    pub async fn pass(&mut self, seconds: u64) {
        let end = Instant::now() + Duration::from_secs(seconds);
        while self.wait(end, false).await {}
    }

    /// Waits until the operator is killed, which restarts it, or with `changes` until any object changes. Returns false at `end`.
    async fn wait(&mut self, end: Instant, changes: bool) -> bool {
        let (mut revisions, mut kills) = (self.model.revisions(), self.kills.clone());
        tokio::select! {
            () = sleep_until(end) => false,
            changed = revisions.changed(), if changes => changed.is_ok(),
            _ = kills.changed() => {
                self.kills = kills;
                if let Some(killed) = self.operator.take() {
                    killed.abort();
                }
                tokio::time::sleep(RESTART).await;
                self.killed += 1;
                self.start(OPERATORS[self.killed]);
                true
            }
        }
    }

    /// The writes so far, one a line.
    pub fn transcript(&self) -> String {
        let history = self.model.history();
        let lines = history.iter().map(|change| {
            let what = match (&change.before, &change.after) {
                (None, _) => "create",
                (_, None) => "delete",
                _ => "write ",
            };
            let after = change.after.as_deref().cloned().unwrap_or_default();
            let status = match change.key.plural {
                "canaries" => after["status"].to_string(),
                "virtualservices" => after
                    .pointer("/spec/http")
                    .map(Value::to_string)
                    .unwrap_or_default(),
                "deployments" => format!(
                    "{} {}",
                    after["spec"]["replicas"], after["status"]["readyReplicas"]
                ),
                "events" => after["message"].to_string(),
                _ => String::new(),
            };
            format!(
                "{} {:<12} {what} {} {} {status}\n",
                change.at, change.by, change.key.plural, change.key.name
            )
        });
        lines.collect()
    }
}

/// Changes an object as a user, with a merge patch.
pub fn patch_as_user(model: &Model, plural: &str, name: &str, change: &Value) {
    let key = Key::new(plural, NAMESPACE, name);
    let write = |store: &mut Store, by: &Writer| {
        let old = store.get(&key)?;
        let wanted = patch::apply("application/merge-patch+json", (*old).clone(), change)?;
        store.update(&key, Part::Main, wanted, by)
    };
    model.write("user", write).unwrap();
}

/// The pod template of a version.
pub fn template(name: &str, tag: &str) -> Value {
    let container = json!({"name": "podinfod", "image": format!("podinfo:{tag}"), "ports": [{"name": "http", "containerPort": 9898}]});
    json!({"metadata": {"labels": {"app": name}}, "spec": {"containers": [container]}})
}

fn settings() -> Settings {
    Settings {
        mesh_provider: "istio".into(),
        metrics_server: "http://prometheus:9090".into(),
        selector_labels: vec!["app".into(), "name".into(), "app.kubernetes.io/name".into()],
        include_label_prefix: vec![],
        config_tracking: true,
        no_cross_namespace_refs: false,
        cluster_name: String::new(),
        ingress_annotations_prefix: "nginx.ingress.kubernetes.io".into(),
        ingress_class: String::new(),
    }
}
