//! Releases that move real traffic: `cargo test --features mesh`.
//!
//! A cell with Istio, Envoy and Prometheus runs the walkthrough, while a client sends 200 requests a second through the gateway, from
//! before the Canary exists until after its deletion. No request may be lost, whichever component fails. `contour.rs` does the same with
//! Contour, and `gateway_api.rs` with routes of the user on Istio's gateway and on Envoy Gateway, for requests and for gRPC.
//! `prometheus.rs` checks the Prometheus of the overlays, `monitoring.rs` the dashboard and the alerts, `regressions.rs` the error rates of
//! comparisons.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::pedantic,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "the names of tests say what they test, and a test may panic"
)]

mod command_line;
mod contour;
mod counting;
#[path = "../files/mod.rs"]
mod files;
mod gateway_api;
mod grpc;
mod grpc_switch;
mod monitoring;
mod overlay;
mod prometheus;
#[path = "../files/monitoring.rs"]
mod queries;
mod regressions;
mod rig;

use std::time::Duration;

use rig::{Rig, THREE_ONE_ZERO};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn no_request_is_lost_from_the_adoption_to_the_deletion() {
    let rig = Rig::start().await;
    adoption(&rig).await;
    release_while_components_fail(&rig).await;
    monitoring::each_query_returns_data(rig.cell.prometheus()).await;
    bad_version(&rig).await;
    compared_versions(&rig).await;
    pods_and_node_fail(&rig).await;
    assert_eq!(
        rig.rejected().await,
        0,
        "Envoy accepts all routes of the operator"
    );
    envoy_rejects_configuration(&rig).await;
    load_tester_is_missing(&rig).await;
    deletion(&rig).await;
    rig.end();
}

/// Creates a Canary for a Deployment that serves traffic.
async fn adoption(rig: &Rig) {
    let observed = rig.observe("adoption");
    rig.canary(json!({})).await;
    rig.reach("Initialized").await;
    rig.until_idle().await;
    assert_eq!(
        rig.replicas("podinfo").await,
        0,
        "the target is scaled to zero"
    );
    let tally = observed.no_request_lost().await;
    assert_eq!(tally.share(THREE_ONE_ZERO), 100.0);
}

/// In the middle of a release, the operator is killed, Prometheus loses its data, and istiod is restarted.
async fn release_while_components_fail(rig: &Rig) {
    let observed = rig.observe("release");
    // The gap in the metrics is longer than the usual threshold allows.
    rig.canary(json!({"threshold": 15})).await;
    rig.image("3.1.1").await;
    rig.weight(25).await;
    rig.kill("mesh-provider=istio").await;
    rig.weight(50).await;
    // Prometheus restarts without data, and without the right to find pods.
    let binding = ["delete", "clusterrolebinding", "prometheus"];
    rig.kubectl(&binding).await;
    rig.delete_pods("istio-system", "app=prometheus").await;
    observed
        .event("no values found for istio metric request-success-rate")
        .await;
    rig.cell.kubectl().apply(BINDING).await.unwrap();
    rig.reach("Promoting").await;
    assert_eq!(rig.rejected().await, 0);
    rig.delete_pods("istio-system", "app=istiod").await;
    rig.reach("Succeeded").await;
    rig.until_idle().await;
    rig.cell.available("istio-system", "istiod").await.unwrap();
    observed.no_request_lost().await;
    let after = rig.observe("after the release").one_second().await;
    assert_eq!(after.share("3.1.1"), 100.0, "{after}");
    rig.canary(json!({})).await;
}

/// Releases a version that fails three of ten requests. It is rolled back, and no other version fails a request.
async fn bad_version(rig: &Rig) {
    let observed = rig.observe("rollback");
    rig.image("3.1.2").await;
    rig.weight(25).await;
    rig.reach("Failed").await;
    rig.until_idle().await;
    let tally = observed.no_request_lost().await;
    assert!(tally.failed["3.1.2"] > 0);
    assert_eq!(tally.failed.len(), 1, "{tally}");
    observed.event("advancement success rate").await;
}

/// Compares versions with the primary. One that fails 5 of 100 requests is rolled back at its first weight, where its success rate of 95 %
/// is within the threshold; one that is as good as the primary is promoted.
async fn compared_versions(rig: &Rig) {
    let compare = json!({"maxIncrease": 0.5});
    let metrics = json!([
        {"name": "request-success-rate", "thresholdRange": {"min": 90}, "compare": compare},
        {"name": "request-duration", "thresholdRange": {"max": 500}, "compare": compare, "mode": "observe"},
    ]);
    rig.canary(json!({"interval": "30s", "metrics": metrics}))
        .await;
    let observed = rig.observe("regression");
    rig.image("3.1.9").await;
    rig.weight(25).await;
    rig.reach("Failed").await;
    rig.until_idle().await;
    let tally = observed.no_request_lost().await;
    assert!(tally.failed["3.1.9"] > 0);
    observed
        .event("Rolling back podinfo.test regression found request-success-rate")
        .await;
    let record = rig.last_record().await;
    assert_eq!(record["result"], "Failed");
    assert_eq!(record["weight"], 25, "{record}");
    let sentence = record["cause"]["sentence"].as_str().unwrap();
    assert!(
        sentence.starts_with("The canary is worse than the primary: request-success-rate: "),
        "{sentence}"
    );

    let observed = rig.observe("comparison");
    rig.image("3.1.8").await;
    rig.reach("Succeeded").await;
    rig.until_idle().await;
    observed.no_request_lost().await;
    rig.canary(json!({})).await;
}

/// A pod of the canary crashes and is deleted. Then the kubelet stops for 30 s.
async fn pods_and_node_fail(rig: &Rig) {
    let observed = rig.observe("trouble");
    rig.image("3.1.3").await;
    rig.weight(25).await;
    rig.kill_a_canary().await;
    rig.weight(50).await;
    let kubelet = "testbed kubelet";
    rig.signal("-STOP", kubelet).await;
    // The time for which the kubelet does not answer.
    tokio::time::sleep(Duration::from_secs(30)).await;
    rig.signal("-CONT", kubelet).await;
    rig.reach("Succeeded").await;
    rig.until_idle().await;
    observed.no_request_lost().await;
}

/// Envoy rejects the routes, so the canary gets weight but no traffic. The release must fail.
async fn envoy_rejects_configuration(rig: &Rig) {
    let observed = rig.observe("rejected configuration");
    rig.canary(json!({"webhooks": []})).await;
    rig.cell.kubectl().apply(REJECTED).await.unwrap();
    rig.image("3.1.4").await;
    rig.reach("Failed").await;
    let tally = observed.no_request_lost().await;
    assert_eq!(tally.share("3.1.3"), 100.0, "{tally}");
    assert!(rig.rejected().await > 0);
    observed.event("is not receiving traffic").await;
    rig.kubectl(&["-n", "istio-system", "delete", "envoyfilter", "rejected"])
        .await;
    rig.until_idle().await;
    rig.canary(json!({})).await;
}

async fn load_tester_is_missing(rig: &Rig) {
    let observed = rig.observe("no load tester");
    rig.kubectl(&[
        "-n",
        "test",
        "scale",
        "deployment/flagger-loadtester",
        "--replicas=0",
    ])
    .await;
    rig.image("3.1.5").await;
    rig.reach("Failed").await;
    rig.until_idle().await;
    observed.no_request_lost().await;
    observed
        .event("advancement pre-rollout check acceptance-test failed")
        .await;
}

async fn deletion(rig: &Rig) {
    let observed = rig.observe("deletion");
    rig.delete_canary().await;
    assert_eq!(rig.replicas("podinfo").await, 2, "the target serves");
    let tally = observed.no_request_lost().await;
    assert!(tally.served["3.1.5"] > 0);
    let after = rig.observe("after the deletion").one_second().await;
    assert_eq!(after.share("3.1.5"), 100.0, "{after}");
}

/// The binding that gives Prometheus the right to find pods.
const BINDING: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: prometheus}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}
subjects: [{kind: ServiceAccount, name: prometheus, namespace: istio-system}]
";

/// A header without a name: Envoy's own validation refuses it.
const REJECTED: &str = "
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: rejected, namespace: istio-system}
spec:
  workloadSelector: {labels: {istio: ingressgateway}}
  configPatches:
  - applyTo: ROUTE_CONFIGURATION
    match: {context: GATEWAY}
    patch:
      operation: MERGE
      value: {request_headers_to_add: [{header: {key: '', value: x}}]}
";
