//! Runs one pod: its network, its folder, its sidecar, its containers, and its status.

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures::future::join_all;
use k8s_openapi::{
    api::core::v1::{
        Container, EnvVar, EnvVarSource, HTTPGetAction, ObjectFieldSelector, Pod, Probe,
    },
    apimachinery::pkg::util::intstr::IntOrString,
    jiff::Timestamp,
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
};
use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinHandle};

use super::{
    container::{self, State},
    envoy,
    kubelet::Kubelet,
    network::{self, PodNetwork},
};
use crate::Error;

/// The proxy's name among the containers.
pub const PROXY: &str = "istio-proxy";

/// The folder and network of a pod, shared by its containers.
pub struct Sandbox {
    /// Its folder.
    pub folder: PathBuf,
    /// Its address.
    pub ip: Ipv4Addr,
    /// Deleted with the pod. `None` for a pod in the node's network.
    network: Option<PodNetwork>,
}

/// A pod's folder, below the cell's folder.
pub fn folder(cell: &Path, namespace: &str, name: &str) -> PathBuf {
    cell.join("pods").join(format!("{namespace}_{name}"))
}

/// Starts a pod's containers.
struct Runner {
    kubelet: Arc<Kubelet>,
    sandbox: Arc<Sandbox>,
    pod: Pod,
}

/// Runs a pod until `stop` is true, and deletes it. Returns an error if the pod did not start.
pub async fn run(
    kubelet: &Arc<Kubelet>,
    pod: &Pod,
    mut stop: watch::Receiver<bool>,
) -> Result<(), Error> {
    kubelet.bind(pod).await?;
    if let Some(what) = unsupported(pod) {
        return Err(Error::Failed(format!("a cell does not support {what}")));
    }
    let sandbox = Arc::new(sandbox(kubelet, pod).await?);
    let start = Timestamp::now();
    let injected = sandbox.network.is_some() && kubelet.injects(pod).await?;
    let runner = Runner {
        kubelet: kubelet.clone(),
        sandbox,
        pod: pod.clone(),
    };
    // The proxy starts before the other containers and stops after them.
    let (proxy_stop, proxy_stopped) = watch::channel(false);
    let proxy = if injected {
        Some(runner.proxy(proxy_stopped, &mut stop).await?)
    } else {
        None
    };
    let containers = pod.spec.iter().flat_map(|spec| spec.containers.clone());
    let (states, tasks): (Vec<_>, Vec<_>) = containers
        .map(|container| runner.container(container, stop.clone()))
        .unzip();
    let reporting = tokio::spawn(report_status(
        kubelet.clone(),
        pod.clone(),
        runner.sandbox.ip,
        start,
        states,
    ));
    join_all(tasks).await;
    proxy_stop.send_replace(true);
    join_all(proxy).await;
    reporting.abort();
    remove(kubelet.client.clone(), pod.clone()).await;
    Ok(())
}

impl Runner {
    /// Starts a container, which runs until `stop` is true.
    fn container(
        &self,
        container: Container,
        stop: watch::Receiver<bool>,
    ) -> (watch::Receiver<State>, JoinHandle<()>) {
        let (state, receiver) = watch::channel(State::new(&container));
        let task = container::Task {
            kubelet: self.kubelet.clone(),
            sandbox: self.sandbox.clone(),
            pod: self.pod.clone(),
            spec: container,
            state,
        };
        (receiver, tokio::spawn(container::run(task, stop)))
    }

    /// Starts the proxy, and waits until it is ready: the requests of an application that starts earlier would bypass it.
    async fn proxy(
        &self,
        proxy_stop: watch::Receiver<bool>,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<JoinHandle<()>, Error> {
        let (mut state, task) = self.container(sidecar(&self.pod)?, proxy_stop);
        tokio::select! {
            // On an error the container has ended already.
            _ = state.wait_for(|state| state.ready) => {}
            () = container::stopped(stop) => {}
        }
        let mark = json!({"metadata": {"annotations": {"sidecar.istio.io/status": "{}"}}});
        let (api, name) = (self.kubelet.api(&self.pod), self.pod.name_any());
        api.patch(&name, &PatchParams::default(), &Patch::Merge(mark))
            .await?;
        Ok(task)
    }
}

/// A feature that the pod uses and a cell does not support. Such a pod must not start, because it would behave wrongly.
fn unsupported(pod: &Pod) -> Option<&'static str> {
    let spec = pod.spec.as_ref()?;
    let containers = &spec.containers;
    let volumes = spec.volumes.iter().flatten();
    if spec.init_containers.iter().flatten().next().is_some() {
        Some("init containers")
    } else if spec
        .restart_policy
        .as_deref()
        .is_some_and(|policy| policy != "Always")
    {
        Some("pods that complete")
    } else if containers
        .iter()
        .any(|container| container.env_from.is_some())
    {
        Some("environment from ConfigMaps and Secrets")
    } else if volumes
        .into_iter()
        .any(|volume| volume.config_map.is_some() || volume.secret.is_some())
    {
        Some("volumes from ConfigMaps and Secrets")
    } else {
        None
    }
}

/// Deletes the object of a pod whose processes have ended, but not a newer pod of the same name.
pub async fn remove(client: Client, pod: Pod) {
    let pods: Api<Pod> = Api::namespaced(client, &pod.namespace().unwrap_or_default());
    let params = DeleteParams {
        preconditions: Some(Preconditions {
            uid: pod.uid(),
            resource_version: None,
        }),
        ..DeleteParams::default().grace_period(0)
    };
    loop {
        match pods.delete(&pod.name_any(), &params).await {
            Ok(_) => return,
            Err(kube::Error::Api(status)) if [404, 409].contains(&status.code) => return,
            // The API server may be down.
            Err(_) => tokio::time::sleep(Duration::from_millis(500)).await,
        }
    }
}

/// Writes the reason why a pod does not start into its status.
pub async fn report(client: &Client, pod: &Pod, why: &str) -> Result<Pod, kube::Error> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
    let status =
        json!({"status": {"phase": "Pending", "reason": "FailedCreatePodSandBox", "message": why}});
    pods.patch_status(
        &pod.name_any(),
        &PatchParams::default(),
        &Patch::Strategic(status),
    )
    .await
}

async fn sandbox(kubelet: &Kubelet, pod: &Pod) -> Result<Sandbox, Error> {
    let spec = pod.spec.clone().unwrap_or_default();
    let (name, namespace) = (pod.name_any(), pod.namespace().unwrap_or_default());
    let folder = folder(&kubelet.folder, &namespace, &name);
    let network = match spec.host_network {
        Some(true) => None,
        _ => Some(PodNetwork::new()?),
    };
    let node: Ipv4Addr = network::NODE_IP.parse().unwrap_or(Ipv4Addr::LOCALHOST);
    let ip = network.as_ref().map_or(node, |network| network.address);
    let account = folder.join("serviceaccount");
    for folder in [&account, &folder.join("tmp")] {
        fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
    }
    let write = |file: &str, text: &str| {
        let file = folder.join(file);
        fs::write(&file, text).map_err(|e| Error::io(&file, e))
    };
    write("hostname", &name)?;
    write(
        "hosts",
        &format!("127.0.0.1 localhost\n::1 localhost\n{ip} {name}\n"),
    )?;
    write(
        "resolv.conf",
        &format!(
            "nameserver {}\nsearch {namespace}.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n",
            network::DNS_IP
        ),
    )?;
    if let Some(network) = &network {
        write("netns", &network.name)?;
    }
    if spec.automount_service_account_token != Some(false) {
        let of = spec.service_account_name.as_deref().unwrap_or("default");
        let ca = kubelet.folder.join("certs/apiserver.crt");
        let ca = fs::read_to_string(&ca).map_err(|e| Error::io(&ca, e))?;
        write("serviceaccount/token", &token(kubelet, pod, of).await?)?;
        write("serviceaccount/ca.crt", &ca)?;
        write("serviceaccount/namespace", &namespace)?;
    }
    Ok(Sandbox {
        folder,
        ip,
        network,
    })
}

/// A token of a ServiceAccount that is bound to the pod.
async fn token(kubelet: &Kubelet, pod: &Pod, account: &str) -> Result<String, Error> {
    let accounts: Api<k8s_openapi::api::core::v1::ServiceAccount> =
        Api::namespaced(kubelet.client.clone(), &pod.namespace().unwrap_or_default());
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 86400,
        "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": pod.name_any(), "uid": pod.uid()}}});
    let answer: Value = accounts
        .create_subresource("token", account, &PostParams::default(), &request)
        .await?;
    let token = answer.pointer("/status/token").and_then(Value::as_str);
    Ok(token.unwrap_or_default().to_owned())
}

/// The proxy, as a container that the kubelet adds.
fn sidecar(pod: &Pod) -> Result<Container, Error> {
    let labels = serde_json::to_string(pod.labels()).map_err(|e| Error::Failed(e.to_string()))?;
    let value = |name: &str, value: String| EnvVar {
        name: name.to_owned(),
        value: Some(value),
        value_from: None,
    };
    let field = |name: &str, path: &str| EnvVar {
        name: name.to_owned(),
        value: None,
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                field_path: path.to_owned(),
                ..ObjectFieldSelector::default()
            }),
            ..EnvVarSource::default()
        }),
    };
    Ok(Container {
        name: PROXY.to_owned(),
        image: Some("istio/proxyv2".to_owned()),
        args: Some(["proxy", "sidecar"].map(str::to_owned).to_vec()),
        env: Some(vec![
            field("POD_NAME", "metadata.name"),
            field("POD_NAMESPACE", "metadata.namespace"),
            field("INSTANCE_IP", "status.podIP"),
            value("ISTIO_METAJSON_LABELS", labels),
            value("ISTIO_META_WORKLOAD_NAME", workload(pod)),
        ]),
        readiness_probe: Some(Probe {
            http_get: Some(HTTPGetAction {
                path: Some("/healthz/ready".to_owned()),
                port: IntOrString::Int(envoy::READY_PORT.into()),
                ..HTTPGetAction::default()
            }),
            ..Probe::default()
        }),
        ..Container::default()
    })
}

/// The name of the pod's workload as Istio determines it: of the Deployment for a pod of a ReplicaSet.
fn workload(pod: &Pod) -> String {
    let owner = pod
        .owner_references()
        .iter()
        .find(|owner| owner.controller == Some(true));
    let Some(owner) = owner else {
        return pod.name_any();
    };
    let hash = pod.labels().get("pod-template-hash");
    let deployment = hash.and_then(|hash| owner.name.strip_suffix(&format!("-{hash}")));
    deployment.unwrap_or(&owner.name).to_owned()
}

/// Writes the pod's status whenever it changes.
async fn report_status(
    kubelet: Arc<Kubelet>,
    pod: Pod,
    ip: Ipv4Addr,
    start: Timestamp,
    mut states: Vec<watch::Receiver<State>>,
) {
    let (api, name) = (kubelet.api(&pod), pod.name_any());
    let mut ready_since = None;
    loop {
        let current: Vec<State> = states
            .iter_mut()
            .map(|state| state.borrow_and_update().clone())
            .collect();
        let ready = current.iter().all(|state| state.ready);
        let now = Timestamp::now();
        if ready_since.is_none_or(|(was, _)| was != ready) {
            ready_since = Some((ready, now));
        }
        let since = ready_since.map_or(now, |(_, since)| since);
        let condition = |kind: &str, holds: bool, at: Timestamp| {
            json!({
            "type": kind, "status": if holds { "True" } else { "False" }, "lastTransitionTime": at})
        };
        let status = json!({"status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
            "hostIP": network::NODE_IP, "startTime": start,
            "conditions": [
                condition("PodScheduled", true, start), condition("PodReadyToStartContainers", true, start),
                condition("Initialized", true, start), condition("ContainersReady", ready, since), condition("Ready", ready, since)],
            "containerStatuses": current.iter().map(State::status).collect::<Vec<_>>()}});
        let written = api
            .patch_status(&name, &PatchParams::default(), &Patch::Strategic(status))
            .await;
        if written.is_err() {
            tokio::time::sleep(Duration::from_millis(500)).await;
            continue;
        }
        let changes = states.iter_mut().map(|state| Box::pin(state.changed()));
        if futures::future::select_all(changes).await.0.is_err() {
            return;
        }
    }
}
