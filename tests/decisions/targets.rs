//! Releases of what is no Deployment.

use flagger_rs::{api::canary::CanaryPhase, rollout, snapshot::Kind};
use serde_json::json;

use super::{model::release_of, transcript};

#[test]
fn a_daemon_set_is_released() {
    let target = json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "podinfo"});
    let analysis = json!({"stepWeight": 50, "maxWeight": 50});
    let mut model = release_of(json!({"targetRef": target, "analysis": analysis}));
    model.run_until(CanaryPhase::Succeeded);
    transcript("daemon-set", &model);
    let primary = model.snapshot.primary().unwrap();
    let template = &primary["spec"]["template"]["spec"];
    assert_eq!(template["containers"][0]["image"], "podinfo:2");
    assert_eq!(template.get("nodeSelector"), None, "it runs on all nodes");
}

/// Flagger cannot initialize it.
#[test]
fn a_service_is_released() {
    let target = json!({"apiVersion": "v1", "kind": "Service", "name": "podinfo"});
    let analysis = json!({"stepWeight": 50, "maxWeight": 50});
    let mut model = release_of(json!({"targetRef": target, "analysis": analysis}));
    let service = |model: &super::model::Model, name: &str| {
        model.snapshot.object(Kind::Service, name).unwrap()["spec"].clone()
    };
    assert_eq!(
        service(&model, "podinfo-primary")["selector"],
        json!({"app": "podinfo:1"})
    );
    model.run_until(CanaryPhase::Succeeded);
    transcript("service", &model);
    for name in ["podinfo-primary", "podinfo-canary"] {
        assert_eq!(
            service(&model, name)["selector"],
            json!({"app": "podinfo:2"})
        );
        assert_eq!(
            service(&model, name).get("clusterIP"),
            None,
            "its own address"
        );
    }
    assert_eq!(rollout::weights(&model.snapshot).unwrap().canary, 0);
}

#[test]
fn a_version_that_never_gets_ready_is_rolled_back() {
    let analysis = json!({"stepWeight": 50});
    let mut model = release_of(json!({"progressDeadlineSeconds": 60, "analysis": analysis}));
    model.dead = true;
    model.run_until(CanaryPhase::Failed);
    assert!(model.routed.is_empty());
    transcript("broken-image", &model);
}
