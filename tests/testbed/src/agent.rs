//! A node agent: binds pods to its one node, makes them Running and Ready, and removes them when they are deleted.
//!
//! No container runs. The tag of a pod's first image selects its behaviour: `broken…` never becomes ready, `brokenprimary…` becomes ready
//! if it is no pod of a primary, `slowN` becomes ready after N seconds. Of `half…`, every second pod of a ReplicaSet becomes ready (of
//! `halfcanary…`, all pods of a primary do).

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::{
    api::{
        coordination::v1::Lease,
        core::v1::{Node, Pod},
    },
    jiff::Timestamp,
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    runtime::{WatchStreamExt, watcher},
};
use serde_json::{Value, json};
use tokio::{task::JoinHandle, time::sleep};

use crate::knative;

const NODE: &str = "node";
/// How long a pod takes to become ready.
const READY: Duration = Duration::from_millis(200);
/// The interval of the node's heartbeats.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// A running agent. Dropping it stops it.
pub struct Agent(Vec<JoinHandle<()>>);

impl Drop for Agent {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

impl Agent {
    /// Starts the agent.
    pub fn start(client: Client) -> Self {
        Self(vec![
            tokio::spawn(node(client.clone())),
            tokio::spawn(pods(client.clone())),
            tokio::spawn(knative::run(client)),
        ])
    }
}

async fn node(client: Client) {
    let nodes: Api<Node> = Api::all(client.clone());
    let leases: Api<Lease> = Api::namespaced(client, "kube-node-lease");
    let apply = PatchParams::apply("testbed").force();
    loop {
        let now = Timestamp::now();
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE, "labels": {"kubernetes.io/os": "linux"}}});
        let status = json!({"apiVersion": "v1", "kind": "Node", "status": {
            "capacity": {"cpu": "64", "memory": "64Gi", "pods": "1000"}, "allocatable": {"cpu": "64", "memory": "64Gi", "pods": "1000"},
            "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
            "conditions": [{"type": "Ready", "status": "True", "reason": "Ready", "lastHeartbeatTime": now, "lastTransitionTime": now}]}});
        let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": NODE},
            "spec": {"holderIdentity": NODE, "leaseDurationSeconds": 40, "renewTime": format!("{now:.6}")}});
        let heartbeat = async {
            nodes.patch(NODE, &apply, &Patch::Apply(node)).await?;
            nodes
                .patch_status(NODE, &apply, &Patch::Apply(status))
                .await?;
            leases.patch(NODE, &apply, &Patch::Apply(lease)).await
        };
        // The API server may be down: try again soon.
        let pause = if heartbeat.await.is_ok() {
            HEARTBEAT
        } else {
            Duration::from_millis(200)
        };
        sleep(pause).await;
    }
}

async fn pods(client: Client) {
    let started = Arc::new(Mutex::new(HashSet::new()));
    // The pods of each ReplicaSet, in the order in which they were made.
    let mut siblings = HashMap::<_, Vec<_>>::new();
    let all: Api<Pod> = Api::all(client.clone());
    let mut changes = watcher(all, watcher::Config::default())
        .default_backoff()
        .touched_objects()
        .boxed();
    loop {
        // The watcher recovers from errors by itself.
        let Ok(pod) = changes.try_next().await else {
            continue;
        };
        let Some(pod) = pod else { return };
        let uid = pod.uid().unwrap_or_default();
        if pod.metadata.deletion_timestamp.is_some() {
            started
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(&uid);
            tokio::spawn(remove(client.clone(), pod));
        } else if started
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(uid.clone())
        {
            let (client, started) = (client.clone(), started.clone());
            let of = pod.metadata.generate_name.clone();
            let siblings = siblings.entry(of.unwrap_or_default()).or_default();
            let number = siblings.iter().position(|sibling| *sibling == uid);
            let will_be_ready = becomes_ready(&pod, number.unwrap_or(siblings.len()));
            if number.is_none() {
                siblings.push(uid.clone());
            }
            tokio::spawn(async move {
                if run(client, &pod, will_be_ready).await.is_err() {
                    // The pod's next change tries again.
                    started
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .remove(&uid);
                }
            });
        }
    }
}

/// The tag of its first image.
fn tag(pod: &Pod) -> &str {
    let mut containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let image = containers.next().and_then(|first| first.image.as_deref());
    let parts = image.and_then(|image| image.rsplit_once(':'));
    parts.map_or("", |(_, tag)| tag)
}

/// Whether a pod becomes ready, after so many others of the same ReplicaSet.
fn becomes_ready(pod: &Pod, number: usize) -> bool {
    let tag = tag(pod);
    let is_primary = pod.name_any().contains("-primary-");
    let is_half = tag.starts_with("half") && !(tag.starts_with("halfcanary") && is_primary);
    let is_broken = tag.starts_with("broken") && (is_primary || !tag.starts_with("brokenprimary"));
    !is_broken && (!is_half || number.is_multiple_of(2))
}

async fn run(client: Client, pod: &Pod, will_be_ready: bool) -> Result<(), kube::Error> {
    let pods: Api<Pod> = Api::namespaced(client, &pod.namespace().unwrap_or_default());
    let name = pod.name_any();
    if pod
        .spec
        .as_ref()
        .is_some_and(|spec| spec.node_name.is_none())
    {
        let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": {"kind": "Node", "name": NODE}});
        let _: k8s_openapi::apimachinery::pkg::apis::meta::v1::Status = pods
            .create_subresource("binding", &name, &PostParams::default(), &binding)
            .await?;
    }
    let delay = tag(pod)
        .strip_prefix("slow")
        .and_then(|seconds| seconds.parse().ok())
        .map_or(READY, Duration::from_secs);
    let start = Timestamp::now();
    pods.patch_status(
        &name,
        &PatchParams::default(),
        &Patch::Strategic(status(pod, start, false)),
    )
    .await?;
    if !will_be_ready {
        return Ok(());
    }
    sleep(delay).await;
    pods.patch_status(
        &name,
        &PatchParams::default(),
        &Patch::Strategic(status(pod, start, true)),
    )
    .await?;
    Ok(())
}

/// A running pod's status.
fn status(pod: &Pod, start: Timestamp, ready: bool) -> Value {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let statuses: Vec<_> = containers
        .map(|container| {
            json!({"name": container.name, "image": container.image, "imageID": container.image, "ready": ready, "started": true,
                "restartCount": 0, "containerID": "testbed://0", "state": {"running": {"startedAt": start}}})
        })
        .collect();
    let condition = |kind: &str, holds: bool| json!({"type": kind, "status": if holds { "True" } else { "False" }, "lastTransitionTime": Timestamp::now()});
    json!({"status": {"phase": "Running", "podIP": "10.0.0.2", "podIPs": [{"ip": "10.0.0.2"}], "hostIP": "10.0.0.1", "startTime": start,
        "conditions": [condition("PodScheduled", true), condition("Initialized", true), condition("ContainersReady", ready), condition("Ready", ready)],
        "containerStatuses": statuses}})
}

async fn remove(client: Client, pod: Pod) {
    let pods: Api<Pod> = Api::namespaced(client, &pod.namespace().unwrap_or_default());
    // The pod may be deleted already.
    let _ = pods
        .delete(&pod.name_any(), &DeleteParams::default().grace_period(0))
        .await;
}
