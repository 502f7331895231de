//! Releases behind Contour: its control plane moves the traffic, and the Prometheus of the operator's overlay measures its Envoy.

use serde_json::{Value, json};

use crate::{
    overlay,
    rig::{Rig, THREE_ONE_ZERO, cell, read},
};

/// The steps of a release, in percent.
const STEPS: [i64; 2] = [30, 50];

#[tokio::test(flavor = "multi_thread")]
async fn no_request_is_lost_on_contour() {
    let rig = start().await;
    adoption(&rig).await;
    bad_version(&rig).await;
    release(&rig).await;
    deletion(&rig).await;
    rig.end();
}

/// Starts a cell with Contour, the operator's overlay and the application. The client is running already.
async fn start() -> Rig {
    let cell = cell().await;
    // These tests do not use Istio.
    let istio = [
        "-n",
        "istio-system",
        "scale",
        "deployment",
        "--all",
        "--replicas=0",
    ];
    cell.kubectl().run(&istio).await.unwrap();
    let envoy = cell.contour().await.unwrap();
    overlay::operator(&cell, "tests/mesh/contour", "projectcontour").await;
    cell.kubectl().apply(BEFORE).await.unwrap();
    overlay::application(&cell).await;
    let root = read("examples/tutorial/contour.yaml");
    cell.kubectl().apply(&root).await.unwrap();
    Rig::with_client(cell, Some(envoy)).await
}

/// Applies the example's Canary with quick steps, for the existing Service.
async fn canary(rig: &Rig, threshold: u8, steps: &[i64]) {
    let mut canary: Value =
        serde_saphyr::from_str(&read("examples/canaries/contour.yaml")).unwrap();
    let spec = &mut canary["spec"];
    spec["revertOnDeletion"] = json!(true);
    spec["autoscalerRef"] = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "name": "podinfo"});
    // Envoy counts errors after retries, so the application's own errors must not be retried.
    let retries = json!({"attempts": 3, "perTryTimeout": "15s", "retryOn": "gateway-error,connect-failure,refused-stream"});
    spec["service"] = json!({"port": 9898, "timeout": "60s", "retries": retries});
    let mut metrics = spec["analysis"]["metrics"].clone();
    // Neither the speed of this machine nor the metrics of an earlier version may fail a check.
    metrics[1]["thresholdRange"]["max"] = json!(30_000);
    for metric in metrics.as_array_mut().unwrap() {
        metric["interval"] = json!("20s");
    }
    spec["analysis"] = json!({"interval": "10s", "threshold": threshold, "stepWeights": steps, "metrics": metrics});
    let canary = canary.to_string();
    rig.cell.kubectl().apply(&canary).await.unwrap();
}

/// Creates a Canary for a Service whose HTTPProxy is included by a root. The operator takes the HTTPProxy over.
async fn adoption(rig: &Rig) {
    let observed = rig.observe("Contour: adoption");
    canary(rig, 5, &STEPS).await;
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

/// Releases a version that fails three of ten requests. It is rolled back, and no other version fails a request.
async fn bad_version(rig: &Rig) {
    // Prometheus may need two steps to see the counter of errors grow.
    canary(rig, 2, &[30, 40, 50]).await;
    let observed = rig.observe("Contour: rollback");
    rig.image("3.1.2").await;
    rig.reach("Failed").await;
    let tally = observed.no_request_lost().await;
    assert!(tally.failed["3.1.2"] > 0);
    assert_eq!(tally.failed.len(), 1, "{tally}");
    observed.event("advancement success rate").await;
    let after = rig
        .observe("Contour: after the rollback")
        .one_second()
        .await;
    assert_eq!(after.share(THREE_ONE_ZERO), 100.0, "{after}");
}

/// Releases a good version, and checks the share of each step.
async fn release(rig: &Rig) {
    canary(rig, 5, &STEPS).await;
    let observed = rig.observe("Contour: release");
    rig.image("3.1.1").await;
    for weight in STEPS {
        rig.weight(weight).await;
        let step = rig.observe("Contour: step");
        rig.until("the next step", |canary| {
            let status = canary.status.as_ref().unwrap();
            status.canary_weight != weight || status.phase.as_str() == "Promoting"
        })
        .await;
        let tally = step.no_request_lost().await;
        let share = tally.share("3.1.1");
        assert!((share - weight as f64).abs() < 5.0, "{weight}%: {tally}");
    }
    rig.reach("Succeeded").await;
    observed.no_request_lost().await;
    let after = rig.observe("Contour: after the release").one_second().await;
    assert_eq!(after.share("3.1.1"), 100.0, "{after}");
}

/// Deletes the Canary right after the release, while the target's pods still exist: the operator waits only for Contour.
async fn deletion(rig: &Rig) {
    let observed = rig.observe("Contour: deletion");
    rig.delete_canary().await;
    observed.no_request_lost().await;
    let args = [
        "-n",
        "test",
        "get",
        "httpproxy",
        "podinfo",
        "-o",
        "jsonpath={.spec.routes[*].services[*].name}",
    ];
    assert_eq!(rig.kubectl(&args).await, "podinfo", "as before the Canary");
    let after = rig
        .observe("Contour: after the deletion")
        .one_second()
        .await;
    assert_eq!(after.share("3.1.1"), 100.0, "{after}");
}

/// The application's namespace, and the route to it before it has a Canary. `examples/tutorial/contour.yaml` includes the HTTPProxy.
const BEFORE: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: test}
---
apiVersion: v1
kind: Service
metadata: {name: podinfo, namespace: test}
spec:
  selector: {app: podinfo}
  ports: [{name: http, port: 9898, targetPort: 9898}]
---
apiVersion: projectcontour.io/v1
kind: HTTPProxy
metadata: {name: podinfo, namespace: test}
spec:
  routes:
  - conditions: [{prefix: /}]
    services: [{name: podinfo, port: 9898}]
";
