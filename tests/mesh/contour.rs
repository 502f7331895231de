//! The same on Contour: its own control plane moves the traffic, and the Prometheus of the operator's overlay measures its Envoy.

use serde_json::{Value, json};
use testbed::{binaries, cell::images::Image};

use crate::rig::{Rig, THREE_ONE_ZERO, file, read};

/// The steps of a release, in percent.
const STEPS: [i64; 2] = [30, 50];

/// With what the stories on Istio leave: a Deployment that serves, without a Canary.
pub async fn stories(rig: &mut Rig) {
    let envoy = rig.cell.contour().await.unwrap();
    application(rig).await;
    operator(rig).await;
    rig.move_users(envoy.outside).await;
    adoption(rig).await;
    bad_version(rig).await;
    release(rig).await;
    deletion(rig).await;
}

/// Contour's operator in place of Istio's, and the Prometheus of its overlay.
async fn operator(rig: &Rig) {
    let set = tokio::task::spawn_blocking(|| binaries::find_or_build(&[binaries::MESH]));
    let set = set.await.unwrap().unwrap();
    let prometheus = Image::new("flagger-prometheus", set.path("prometheus").unwrap());
    let config = read("kustomize/base/prometheus/prometheus.yml");
    let prometheus = prometheus.file("prometheus.yml", &config);
    rig.cell.image(&prometheus).unwrap();
    let istios = ["-n", "istio-system", "delete", "deployment", "flagger"];
    rig.kubectl(&istios).await;
    let overlay = file("tests/mesh/contour");
    rig.cell.kubectl().apply_kustomize(&overlay).await.unwrap();
    for name in ["flagger", "flagger-prometheus"] {
        rig.cell.available("projectcontour", name).await.unwrap();
    }
}

/// The application without proxies of its own, ready as soon as it answers, behind an HTTPProxy.
async fn application(rig: &Rig) {
    let no_proxies = ["label", "namespace", "test", "istio-injection-"];
    rig.kubectl(&no_proxies).await;
    let image = format!("stefanprodan/podinfo:{THREE_ONE_ZERO}");
    let container =
        json!({"name": "podinfod", "image": image, "readinessProbe": {"initialDelaySeconds": 0}});
    let spec = json!({"minReadySeconds": 0, "template": {"spec": {"containers": [container]}}});
    let patch = json!({"spec": spec}).to_string();
    let deployment = ["-n", "test", "patch", "deployment", "podinfo", "-p", &patch];
    rig.kubectl(&deployment).await;
    let kubectl = rig.cell.kubectl();
    kubectl.apply(BEFORE).await.unwrap();
    let root = read("examples/tutorial/contour.yaml");
    kubectl.apply(&root).await.unwrap();
    let rollout = ["-n", "test", "rollout", "status", "deployment/podinfo"];
    rig.kubectl(&rollout).await;
}

/// The example's Canary in quick steps, for the Service that is there.
async fn canary(rig: &Rig, threshold: u8, steps: &[i64]) {
    let mut canary: Value =
        serde_saphyr::from_str(&read("examples/canaries/contour.yaml")).unwrap();
    let spec = &mut canary["spec"];
    spec["revertOnDeletion"] = json!(true);
    spec["autoscalerRef"] = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "name": "podinfo"});
    // Envoy counts what is left after retries, so the application's own errors are not retried.
    let retries = json!({"attempts": 3, "perTryTimeout": "15s", "retryOn": "gateway-error,connect-failure,refused-stream"});
    spec["service"] = json!({"port": 9898, "timeout": "60s", "retries": retries});
    let mut metrics = spec["analysis"]["metrics"].clone();
    // How fast this machine is decides nothing here, nor what the version before did.
    metrics[1]["thresholdRange"]["max"] = json!(30_000);
    for metric in metrics.as_array_mut().unwrap() {
        metric["interval"] = json!("20s");
    }
    spec["analysis"] = json!({"interval": "10s", "threshold": threshold, "stepWeights": steps, "metrics": metrics});
    let canary = canary.to_string();
    rig.cell.kubectl().apply(&canary).await.unwrap();
}

/// The HTTPProxy that the root includes leads to the Service; the operator takes it over.
async fn adoption(rig: &Rig) {
    let story = rig.story("Contour: adoption");
    canary(rig, 5, &STEPS).await;
    rig.reach("Initialized").await;
    rig.rest().await;
    assert_eq!(rig.replicas("podinfo").await, 0, "the target is at rest");
    let tally = story.no_request_lost().await;
    assert_eq!(tally.share(THREE_ONE_ZERO), 100.0);
}

/// It errs on three of ten requests, which Envoy counts: it is rolled back, and no other version fails one.
async fn bad_version(rig: &Rig) {
    // It may take two steps until Prometheus has seen a counter of errors grow.
    canary(rig, 2, &[30, 40, 50]).await;
    let story = rig.story("Contour: rollback");
    rig.image("3.1.2").await;
    rig.reach("Failed").await;
    let tally = story.no_request_lost().await;
    assert!(tally.failed["3.1.2"] > 0);
    assert_eq!(tally.failed.len(), 1, "{tally}");
    story.told("advancement success rate").await;
    let after = rig.story("Contour: after the rollback").short().await;
    assert_eq!(after.share(THREE_ONE_ZERO), 100.0, "{after}");
}

/// Each step's share is as intended.
async fn release(rig: &Rig) {
    canary(rig, 5, &STEPS).await;
    let story = rig.story("Contour: release");
    rig.image("3.1.1").await;
    for weight in STEPS {
        rig.weight(weight).await;
        let step = rig.story("Contour: step");
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
    story.no_request_lost().await;
    let after = rig.story("Contour: after the release").short().await;
    assert_eq!(after.share("3.1.1"), 100.0, "{after}");
}

/// Right after the release, while the target's pods are still there: nothing but Contour is waited for.
async fn deletion(rig: &Rig) {
    let story = rig.story("Contour: deletion");
    rig.delete_canary().await;
    story.no_request_lost().await;
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
    let after = rig.story("Contour: after the deletion").short().await;
    assert_eq!(after.share("3.1.1"), 100.0, "{after}");
}

/// How users reach the application before there is a Canary; `examples/tutorial/contour.yaml` includes it.
const BEFORE: &str = "
apiVersion: projectcontour.io/v1
kind: HTTPProxy
metadata: {name: podinfo, namespace: test}
spec:
  routes:
  - conditions: [{prefix: /}]
    services: [{name: podinfo, port: 9898}]
";
