//! The node agent: binds pods to its one node and runs them as processes.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::{
    api::{
        coordination::v1::Lease,
        core::v1::{Namespace, Node, Pod},
    },
    jiff::Timestamp,
};
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams, PostParams},
    runtime::{WatchStreamExt, watcher},
};
use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinHandle, time::sleep};

use super::{container, network, pod};
use crate::{Error, binaries::Binaries};

const NODE: &str = "node";
/// The interval of the node's heartbeats.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// The pause before another try after an error.
const RETRY: Duration = Duration::from_millis(500);

/// Shared by all pods.
pub struct Kubelet {
    /// A client of the API server.
    pub client: Client,
    /// The cell's folder.
    pub folder: PathBuf,
    /// This program, whose subcommands are `enter`, `proxy` and `probe`.
    pub own: PathBuf,
    /// Envoy's folder.
    pub envoy: PathBuf,
}

/// Runs pods until the process ends.
pub async fn serve(client: Client, folder: &Path, binaries: &Binaries) -> Result<(), Error> {
    let own = std::env::current_exe().map_err(|e| Error::io(folder, e))?;
    let envoy = binaries
        .path("envoy")?
        .parent()
        .unwrap_or(folder)
        .to_owned();
    let kubelet = Arc::new(Kubelet {
        client: client.clone(),
        folder: folder.to_owned(),
        own,
        envoy,
    });
    tokio::join!(heartbeat(client), kubelet.pods());
    Ok(())
}

async fn heartbeat(client: Client) {
    let nodes: Api<Node> = Api::all(client.clone());
    let leases: Api<Lease> = Api::namespaced(client, "kube-node-lease");
    let apply = PatchParams::apply("testbed").force();
    loop {
        let now = Timestamp::now();
        let room = json!({"cpu": "64", "memory": "64Gi", "pods": "1000"});
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}});
        let status = json!({"apiVersion": "v1", "kind": "Node", "status": {"capacity": room, "allocatable": room,
            "addresses": [{"type": "InternalIP", "address": network::NODE_IP}],
            "conditions": [{"type": "Ready", "status": "True", "reason": "Ready", "lastHeartbeatTime": now, "lastTransitionTime": now}]}});
        let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": NODE},
            "spec": {"holderIdentity": NODE, "leaseDurationSeconds": 40, "renewTime": format!("{now:.6}")}});
        let written = async {
            nodes.patch(NODE, &apply, &Patch::Apply(node)).await?;
            nodes
                .patch_status(NODE, &apply, &Patch::Apply(status))
                .await?;
            leases.patch(NODE, &apply, &Patch::Apply(lease)).await
        };
        sleep(if written.await.is_ok() {
            HEARTBEAT
        } else {
            RETRY
        })
        .await;
    }
}

/// A running pod. Sending `true` to `stop` ends it.
struct Running {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Kubelet {
    async fn pods(self: Arc<Self>) {
        let mut running: HashMap<String, Running> = HashMap::new();
        let all: Api<Pod> = Api::all(self.client.clone());
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
            running.retain(|_, pod| !pod.task.is_finished());
            let uid = pod.uid().unwrap_or_default();
            let deleting = pod.metadata.deletion_timestamp.is_some();
            match (running.get(&uid), deleting) {
                // The task deletes the pod when all its processes have ended.
                (Some(pod), true) => {
                    pod.stop.send_replace(true);
                }
                (Some(_), false) => {}
                (None, true) => {
                    tokio::spawn(pod::remove(self.client.clone(), pod));
                }
                (None, false) => {
                    let (stop, stopped) = watch::channel(false);
                    let task = tokio::spawn(self.clone().run(pod, stopped));
                    running.insert(uid, Running { stop, task });
                }
            }
        }
    }

    async fn run(self: Arc<Self>, pod: Pod, mut stop: watch::Receiver<bool>) {
        loop {
            match pod::run(&self, &pod, stop.clone()).await {
                Ok(()) => return,
                Err(error) => {
                    eprintln!(
                        "{}/{}: {error}",
                        pod.namespace().unwrap_or_default(),
                        pod.name_any()
                    );
                    let _ = pod::report(&self.client, &pod, &error.to_string()).await;
                }
            }
            tokio::select! {
                // Nothing runs yet: delete the object.
                () = container::stopped(&mut stop) => return pod::remove(self.client.clone(), pod).await,
                () = sleep(RETRY) => {}
            }
        }
    }

    /// Binds the pod to the node, unless it is bound.
    pub async fn bind(&self, pod: &Pod) -> Result<(), kube::Error> {
        let bound = pod
            .spec
            .as_ref()
            .is_some_and(|spec| spec.node_name.is_some());
        if bound {
            return Ok(());
        }
        let (name, api) = (pod.name_any(), self.api(pod));
        let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": {"kind": "Node", "name": NODE}});
        let bound: Result<Value, _> = api
            .create_subresource("binding", &name, &PostParams::default(), &binding)
            .await;
        match bound {
            // An earlier try bound it.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            other => other.map(|_| ()),
        }
    }

    /// Whether Istio would inject its proxy into the pod.
    pub async fn injects(&self, pod: &Pod) -> Result<bool, kube::Error> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let namespace = namespaces.get(&pod.namespace().unwrap_or_default()).await?;
        let on = namespace
            .labels()
            .get("istio-injection")
            .is_some_and(|value| value == "enabled");
        let key = "sidecar.istio.io/inject";
        let own = pod.labels().get(key).or_else(|| pod.annotations().get(key));
        Ok(own.map_or(on, |value| value == "true"))
    }

    /// The API of the pod's namespace.
    pub fn api(&self, pod: &Pod) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default())
    }
}
