//! An overlay of the operator that has a Prometheus, and the application without sidecars.

use serde_json::json;
use testbed::{Cell, binaries, cell::images::Image};

use crate::rig::{file, read};

/// Installs an overlay, which puts the operator and Prometheus into this namespace.
pub async fn operator(cell: &Cell, overlay: &str, namespace: &str) {
    let set = tokio::task::spawn_blocking(|| binaries::find_or_build(&[binaries::MESH]));
    let set = set.await.unwrap().unwrap();
    let prometheus = Image::new("flagger-prometheus", set.path("prometheus").unwrap());
    let config = read("kustomize/base/prometheus/prometheus.yml");
    let prometheus = prometheus.file("prometheus.yml", &config);
    cell.image(&prometheus).unwrap();
    cell.kubectl()
        .apply_kustomize(&file(overlay))
        .await
        .unwrap();
    for name in ["flagger", "flagger-prometheus"] {
        cell.available(namespace, name).await.unwrap();
    }
}

/// Installs the application, without a delay before it is ready. Its namespace must exist.
pub async fn application(cell: &Cell) {
    let kubectl = cell.kubectl();
    kubectl
        .apply_kustomize(&file("kustomize/podinfo"))
        .await
        .unwrap();
    let container = json!({"name": "podinfod", "readinessProbe": {"initialDelaySeconds": 0}});
    let spec = json!({"minReadySeconds": 0, "template": {"spec": {"containers": [container]}}});
    let patch = json!({"spec": spec}).to_string();
    let deployment = ["-n", "test", "patch", "deployment", "podinfo", "-p", &patch];
    kubectl.run(&deployment).await.unwrap();
    let rollout = ["-n", "test", "rollout", "status", "deployment/podinfo"];
    kubectl.run(&rollout).await.unwrap();
}
