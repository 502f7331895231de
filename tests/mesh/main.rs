//! Releases that move real traffic: `cargo test --features mesh`.
//!
//! One cell with Istio, Envoy and Prometheus, the walkthrough on it, and a client that calls through the gateway 200 times a second from
//! before the Canary exists until after it is gone. Whatever happens on the way, no call is lost. Beside it, the same with Contour.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::pedantic,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "tests say what they mean by their names, and end where something is wrong"
)]

mod command_line;
mod contour;
mod rig;

use std::time::Duration;

use rig::{Rig, THREE_ONE_ZERO};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn no_request_is_lost_from_the_adoption_to_the_deletion() {
    let rig = Rig::start().await;
    adoption(&rig).await;
    release_while_all_but_the_traffic_breaks(&rig).await;
    bad_version(&rig).await;
    pods_and_node_in_trouble(&rig).await;
    assert_eq!(
        rig.rejected().await,
        0,
        "Envoy takes all that the operator routes"
    );
    configuration_that_envoy_rejects(&rig).await;
    load_tester_gone(&rig).await;
    deletion(&rig).await;
    rig.end();
}

/// A Deployment that serves users gets its Canary.
async fn adoption(rig: &Rig) {
    let story = rig.story("adoption");
    rig.canary(json!({})).await;
    rig.reach("Initialized").await;
    rig.rest().await;
    assert_eq!(rig.replicas("podinfo").await, 0, "the target is at rest");
    let tally = story.no_request_lost().await;
    assert_eq!(tally.share(THREE_ONE_ZERO), 100.0);
}

/// The operator is killed, Prometheus comes back with nothing, and istiod is restarted, each in the middle.
async fn release_while_all_but_the_traffic_breaks(rig: &Rig) {
    let story = rig.story("release");
    // The gap is longer than a usual release puts up with.
    rig.canary(json!({"threshold": 15})).await;
    rig.image("3.1.1").await;
    rig.weight(25).await;
    rig.kill("mesh-provider=istio").await;
    rig.weight(50).await;
    // It has forgotten all, and finds no pod to ask.
    let binding = ["delete", "clusterrolebinding", "prometheus"];
    rig.kubectl(&binding).await;
    rig.delete_pods("istio-system", "app=prometheus").await;
    story
        .told("no values found for istio metric request-success-rate")
        .await;
    rig.cell.kubectl().apply(BINDING).await.unwrap();
    rig.reach("Promoting").await;
    assert_eq!(rig.rejected().await, 0);
    rig.delete_pods("istio-system", "app=istiod").await;
    rig.reach("Succeeded").await;
    rig.rest().await;
    rig.cell.available("istio-system", "istiod").await.unwrap();
    story.no_request_lost().await;
    let after = rig.story("after the release").short().await;
    assert_eq!(after.share("3.1.1"), 100.0, "{after}");
    rig.canary(json!({})).await;
}

/// It errs on three of ten requests: it is rolled back, and no other version fails one.
async fn bad_version(rig: &Rig) {
    let story = rig.story("rollback");
    rig.image("3.1.2").await;
    rig.weight(25).await;
    rig.reach("Failed").await;
    rig.rest().await;
    let tally = story.no_request_lost().await;
    assert!(tally.failed["3.1.2"] > 0);
    assert_eq!(tally.failed.len(), 1, "{tally}");
    story.told("advancement success rate").await;
}

/// A pod of the canary crashes, and goes; then the node's agent stops answering for 30 s.
async fn pods_and_node_in_trouble(rig: &Rig) {
    let story = rig.story("trouble");
    rig.image("3.1.3").await;
    rig.weight(25).await;
    rig.kill_a_canary().await;
    rig.weight(50).await;
    let kubelet = "testbed kubelet";
    rig.signal("-STOP", kubelet).await;
    // That it does not answer for so long is what happens here.
    tokio::time::sleep(Duration::from_secs(30)).await;
    rig.signal("-CONT", kubelet).await;
    rig.reach("Succeeded").await;
    rig.rest().await;
    story.no_request_lost().await;
}

/// Envoy refuses the routes, so the version that gets weight gets no traffic: that is not taken for a success.
async fn configuration_that_envoy_rejects(rig: &Rig) {
    let story = rig.story("rejected configuration");
    rig.canary(json!({"webhooks": []})).await;
    rig.cell.kubectl().apply(REJECTED).await.unwrap();
    rig.image("3.1.4").await;
    rig.reach("Failed").await;
    let tally = story.no_request_lost().await;
    assert_eq!(tally.share("3.1.3"), 100.0, "{tally}");
    assert!(rig.rejected().await > 0);
    story.told("is not receiving traffic").await;
    rig.kubectl(&["-n", "istio-system", "delete", "envoyfilter", "rejected"])
        .await;
    rig.rest().await;
    rig.canary(json!({})).await;
}

async fn load_tester_gone(rig: &Rig) {
    let story = rig.story("no load tester");
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
    rig.rest().await;
    story.no_request_lost().await;
    story
        .told("advancement pre-rollout check acceptance-test failed")
        .await;
}

async fn deletion(rig: &Rig) {
    let story = rig.story("deletion");
    rig.delete_canary().await;
    assert_eq!(rig.replicas("podinfo").await, 2, "the target serves");
    let tally = story.no_request_lost().await;
    assert!(tally.served["3.1.5"] > 0);
    let after = rig.story("after the deletion").short().await;
    assert_eq!(after.share("3.1.5"), 100.0, "{after}");
}

/// What lets Prometheus find pods.
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
