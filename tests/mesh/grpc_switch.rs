//! A user turns `spec.service.grpc` on, and in the middle of a release off, while a gRPC client calls: the operator changes the kind of its
//! route, and no call is lost.

use std::time::Duration;

use serde_json::{Value, json};
use testbed::wait::until;

use crate::{grpc, rig::Rig};

const HOST: &str = "rpc.example.com";
const STEPS: [i64; 2] = [30, 60];

/// A Canary with a route of the operator to the Gateway `public` of this namespace, which has this address.
pub async fn no_call_is_lost(rig: &Rig, address: &str, namespace: &str) {
    canary(rig, namespace, false).await;
    rig.reach("Initialized").await;
    until(Duration::from_secs(60), "a call", async || {
        let report = grpc::calls(rig, address, HOST, &["--total=1"]).await?;
        let statuses = &report["statusCodeDistribution"];
        let is_answered = statuses["OK"] == 1;
        is_answered.then_some(()).ok_or_else(|| report.to_string())
    })
    .await
    .unwrap();
    let switches = async {
        canary(rig, namespace, true).await;
        only_route(rig, ["grpcroute", "httproute"]).await;
        rig.image("3.1.0").await;
        rig.weight(STEPS[0]).await;
        canary(rig, namespace, false).await;
        rig.weight(STEPS[1]).await;
        rig.reach("Succeeded").await;
        rig.until_idle().await;
        only_route(rig, ["httproute", "grpcroute"]).await;
        grpc::interrupt(rig).await;
    };
    tokio::join!(grpc::no_call_fails(rig, address, HOST), switches);
}

/// Waits until the route of the first kind leads the calls, and that of the other kind has no parents any more.
async fn only_route(rig: &Rig, [leading, former]: [&str; 2]) {
    let parents = async |kind: &str| {
        let path = "jsonpath={.spec.parentRefs[*].name}";
        rig.kubectl(&["-n", "test", "get", kind, "rpc", "-o", path])
            .await
    };
    until(Duration::from_secs(60), leading, async || {
        let seen = [parents(leading).await, parents(former).await];
        let is_it = [seen[0].as_str(), &seen[1]] == ["public", ""];
        is_it.then_some(()).ok_or_else(|| format!("{seen:?}"))
    })
    .await
    .unwrap();
}

async fn canary(rig: &Rig, namespace: &str, grpc: bool) {
    let mut service = json!({"name": "rpc", "port": 9999, "portName": "grpc", "appProtocol": "kubernetes.io/h2c",
        "hosts": [HOST], "gatewayRefs": [{"name": "public", "namespace": namespace}]});
    if grpc {
        service["grpc"] = json!({});
    }
    let canary: Value = json!({"apiVersion": "flagger.app/v1beta1", "kind": "Canary", "metadata": {"name": "podinfo", "namespace": "test"},
        "spec": {"provider": "gatewayapi:v1", "revertOnDeletion": true,
            "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "podinfo"},
            "autoscalerRef": {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "name": "podinfo"},
            "service": service, "analysis": {"interval": "10s", "threshold": 2, "stepWeights": STEPS}}});
    let applied = rig.cell.kubectl().apply(&canary.to_string()).await;
    applied.unwrap();
}
