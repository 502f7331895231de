//! The canaries, their targets and unrelated Deployments; the task that makes Deployments ready; the record of the canaries' phases.

use std::{
    collections::{BTreeSet, HashMap},
    ops::Range,
    sync::{Arc, Mutex},
};

use flagger_rs::api::canary::{Canary, CanaryPhase};
use futures::{StreamExt, stream};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Namespace};
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams, PostParams},
    runtime::{WatchStreamExt, watcher},
};
use serde_json::{Value, json};
use tokio::{task::JoinHandle, time::Instant};

/// The number of canaries in a namespace.
const PER_NAMESPACE: usize = 250;
/// The number of canaries whose Services have cluster IPs. With 7,500 such Services, the API server takes 0.7 s for the next one.
const WITH_ADDRESS: usize = 1_000;
/// The number of concurrent writes.
const AT_A_TIME: usize = 24;
/// The analysis interval in seconds: the shortest that Flagger allows.
pub const INTERVAL: u64 = 10;

/// The name of the n-th canary and of its target.
pub fn name(n: usize) -> String {
    format!("app-{n:05}")
}

/// The namespace of the n-th canary.
pub fn namespace(n: usize) -> String {
    format!("load-{:03}", n / PER_NAMESPACE)
}

/// Creates these canaries with their targets, and unrelated Deployments.
pub async fn create(client: &Client, canaries: Range<usize>, unrelated: Range<usize>) {
    let own = canaries.clone().map(namespace);
    let others = unrelated
        .clone()
        .map(|n| format!("others-{}", namespace(n)));
    create_namespaces(client, own.chain(others)).await;
    write("unrelated Deployments", unrelated, async |n| {
        let api: Api<Deployment> =
            Api::namespaced(client.clone(), &format!("others-{}", namespace(n)));
        let object = serde_json::from_value(deployment(&format!("other-{n:05}"))).unwrap();
        api.create(&PostParams::default(), &object).await.map(drop)
    })
    .await;
    write("canaries", canaries, async |n| {
        let api: Api<Deployment> = Api::namespaced(client.clone(), &namespace(n));
        let object = serde_json::from_value(deployment(&name(n))).unwrap();
        api.create(&PostParams::default(), &object).await?;
        create_canary(client, n).await
    })
    .await;
}

/// Creates these canaries, without targets.
pub async fn create_canaries(client: &Client, canaries: Range<usize>) {
    create_namespaces(client, canaries.clone().map(namespace)).await;
    write("canaries", canaries, async |n| {
        create_canary(client, n).await
    })
    .await;
}

async fn create_canary(client: &Client, n: usize) -> Result<(), kube::Error> {
    let api: Api<Canary> = Api::namespaced(client.clone(), &namespace(n));
    let mut object = canary(&name(n));
    object["spec"]["service"]["headless"] = json!(n >= WITH_ADDRESS);
    let object = serde_json::from_value(object).unwrap();
    api.create(&PostParams::default(), &object).await.map(drop)
}

/// Creates those of these namespaces that do not exist.
async fn create_namespaces(client: &Client, names: impl Iterator<Item = String>) {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    for name in names.collect::<BTreeSet<_>>() {
        let object = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
        match namespaces.create(&PostParams::default(), &object).await {
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            other => drop(other.unwrap()),
        }
    }
}

/// Creates these hostile canaries with their targets, each in a namespace of its own.
pub async fn create_hostile(client: &Client, canaries: Range<usize>, metrics: usize) {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    write("hostile canaries", canaries, async |n| {
        let name = hostile_name(n);
        let object = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
        namespaces.create(&PostParams::default(), &object).await?;
        let api: Api<Deployment> = Api::namespaced(client.clone(), &name);
        let object = serde_json::from_value(deployment(&name)).unwrap();
        api.create(&PostParams::default(), &object).await?;
        let metric = |n| json!({"name": format!("metric-{n}"), "query": format!("query-{n}"), "thresholdRange": {"max": 1}});
        let mut object = canary(&name);
        object["spec"]["metricsServer"] = json!(format!("http://{name}:9090"));
        object["spec"]["analysis"]["threshold"] = json!(1000);
        object["spec"]["analysis"]["metrics"] = (0..metrics).map(metric).collect();
        let api: Api<Canary> = Api::namespaced(client.clone(), &name);
        let object = serde_json::from_value(object).unwrap();
        api.create(&PostParams::default(), &object).await.map(drop)
    })
    .await;
}

/// The name of the n-th hostile canary, of its target, of its namespace and of its metric server.
pub fn hostile_name(n: usize) -> String {
    format!("app-hostile-{n:04}")
}

/// Starts the releases of hostile canaries.
pub async fn release_hostile(client: &Client, canaries: Range<usize>) {
    for n in canaries {
        let name = hostile_name(n);
        let api: Api<Deployment> = Api::namespaced(client.clone(), &name);
        let image = json!({"spec": {"template": {"spec": {"containers": [{"name": "app", "image": "app:2"}]}}}});
        let patch = Patch::Strategic(image);
        api.patch(&name, &PatchParams::default(), &patch)
            .await
            .unwrap();
    }
}

/// Sets the version of targets. Returns the instant at which the API server acknowledged each write.
pub async fn release(
    client: &Client,
    which: impl Iterator<Item = usize>,
    version: &str,
) -> Vec<(usize, Instant)> {
    stream::iter(which)
        .map(async |n| {
            let api: Api<Deployment> = Api::namespaced(client.clone(), &namespace(n));
            let image = json!({"spec": {"template": {"spec": {"containers": [{"name": "app", "image": format!("app:{version}")}]}}}});
            api.patch(&name(n), &PatchParams::default(), &Patch::Strategic(image)).await.unwrap();
            (n, Instant::now())
        })
        .buffer_unordered(4)
        .collect()
        .await
}

/// Changes unrelated Deployments.
pub async fn touch(client: &Client, which: impl Iterator<Item = usize>, with: &str) {
    stream::iter(which)
        .for_each_concurrent(AT_A_TIME, async |n| {
            let api: Api<Deployment> =
                Api::namespaced(client.clone(), &format!("others-{}", namespace(n)));
            let touched = json!({"metadata": {"annotations": {"touched": with}}});
            let name = format!("other-{n:05}");
            let patch = Patch::Merge(touched);
            api.patch(&name, &PatchParams::default(), &patch)
                .await
                .unwrap();
        })
        .await;
}

async fn write(
    what: &str,
    which: Range<usize>,
    write: impl AsyncFn(usize) -> Result<(), kube::Error>,
) {
    let (written, count) = (std::cell::Cell::new(0), which.len());
    stream::iter(which)
        .for_each_concurrent(AT_A_TIME, async |n| {
            write(n).await.unwrap();
            written.set(written.get() + 1);
            if written.get() % 1000 == 0 || written.get() == count {
                eprintln!("load: {} of {count} {what}", written.get());
            }
        })
        .await;
}

/// A typical Deployment, of about 3 KB.
pub fn deployment(name: &str) -> Value {
    let probe = json!({"httpGet": {"path": "/healthz", "port": 9898}, "initialDelaySeconds": 5, "timeoutSeconds": 5});
    json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name, "labels": {"app": name, "team": "shop"}, "annotations": {"owner": "shop@example.com"}},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": name}}, "revisionHistoryLimit": 5,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0}},
            "template": {"metadata": {"labels": {"app": name}, "annotations": {"prometheus.io/scrape": "true", "prometheus.io/port": "9797"}},
                "spec": {"containers": [{"name": "app", "image": "app:1", "imagePullPolicy": "IfNotPresent",
                    "ports": [{"name": "http", "containerPort": 9898}, {"name": "http-metrics", "containerPort": 9797}],
                    "command": ["./app", "--port=9898", "--port-metrics=9797", "--level=info", "--random-error=false"],
                    "env": [{"name": "UI_COLOR", "value": "#34577c"}, {"name": "UI_MESSAGE", "value": name}],
                    "livenessProbe": probe, "readinessProbe": probe,
                    "resources": {"limits": {"cpu": "2", "memory": "512Mi"}, "requests": {"cpu": "100m", "memory": "64Mi"}}}]}}}})
}

fn canary(name: &str) -> Value {
    json!({"apiVersion": "flagger.app/v1beta1", "kind": "Canary", "metadata": {"name": name},
        "spec": {"targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name}, "progressDeadlineSeconds": 60,
            "service": {"port": 80, "targetPort": 9898},
            "analysis": {"interval": format!("{INTERVAL}s"), "threshold": 1, "maxWeight": 100, "stepWeight": 10, "metrics": [
                {"name": "request-success-rate", "thresholdRange": {"min": 99}, "interval": "1m"},
                {"name": "request-duration", "thresholdRange": {"max": 500}, "interval": "30s"}]}}})
}

/// Plays the Deployment controller: sets the status of a canary's Deployments to ready whenever their spec changes.
pub fn make_deployments_ready(client: Client) -> JoinHandle<()> {
    tokio::spawn(async move {
        let deployments: Api<Deployment> = Api::all(client.clone());
        watcher(deployments, watcher::Config::default())
            .default_backoff()
            .touched_objects()
            .filter_map(async |deployment| deployment.ok())
            .for_each_concurrent(AT_A_TIME, async |deployment| {
                let observed = deployment.status.as_ref().and_then(|status| status.observed_generation);
                if observed == deployment.metadata.generation || !deployment.name_any().starts_with("app-") {
                    return;
                }
                let replicas = deployment.spec.replicas;
                let api: Api<Deployment> = Api::namespaced(client.clone(), &deployment.namespace().unwrap());
                let status = json!({"status": {"observedGeneration": deployment.metadata.generation, "replicas": replicas,
                    "updatedReplicas": replicas, "readyReplicas": replicas, "availableReplicas": replicas, "conditions": [
                        {"type": "Available", "status": "True", "reason": "MinimumReplicasAvailable"},
                        {"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"}]}});
                // The Deployment may have been deleted meanwhile.
                drop(api.patch_status(&deployment.name_any(), &PatchParams::default(), &Patch::Merge(status)).await);
            })
            .await;
    })
}

/// The instant at which a change of a canary was observed, and the canary's phase and weight from then on.
type Change = (Instant, CanaryPhase, i64);

/// All changes of each canary's phase and weight.
#[derive(Clone, Default)]
pub struct History(Arc<Mutex<HashMap<String, Vec<Change>>>>);

impl History {
    /// Starts to watch the canaries.
    pub fn start(&self, client: Client) -> JoinHandle<()> {
        let history = self.clone();
        tokio::spawn(async move {
            let canaries: Api<Canary> = Api::all(client);
            watcher(canaries, watcher::Config::default())
                .default_backoff()
                .touched_objects()
                .for_each(async |canary| {
                    let Ok(canary) = canary else { return };
                    let Some(status) = &canary.status else { return };
                    let now = (Instant::now(), status.phase, status.canary_weight);
                    let mut history = history.0.lock().unwrap();
                    let all = history.entry(canary.name_any()).or_default();
                    if all
                        .last()
                        .is_none_or(|last| (last.1, last.2) != (now.1, now.2))
                    {
                        all.push(now);
                    }
                })
                .await;
        })
    }

    /// The number of canaries that are in one of these phases now.
    pub fn count(&self, phases: &[CanaryPhase]) -> usize {
        let history = self.0.lock().unwrap();
        history
            .values()
            .filter(|all| all.last().is_some_and(|last| phases.contains(&last.1)))
            .count()
    }

    /// All changes of a canary since this instant.
    pub fn since(&self, n: usize, then: Instant) -> Vec<Change> {
        let history = self.0.lock().unwrap();
        let all = history.get(&name(n)).into_iter().flatten();
        all.filter(|(at, ..)| *at >= then).copied().collect()
    }
}
