//! Releases of targets that are no Deployment, or whose pods never become ready.

use flagger_rs::{
    api::{canary::CanaryPhase, status::ConditionType},
    snapshot::Kind,
};
use serde_json::json;

use super::{simulation::release_of, transcript};

#[test]
fn a_daemon_set_is_released() {
    let target = json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "podinfo"});
    let analysis = json!({"stepWeight": 50, "maxWeight": 50});
    let mut sim = release_of(json!({"targetRef": target, "analysis": analysis}));
    sim.run_until(CanaryPhase::Succeeded);
    transcript("daemon-set", &sim);
    let primary = sim.snapshot.primary().unwrap();
    let template = &primary["spec"]["template"]["spec"];
    assert_eq!(template["containers"][0]["image"], "podinfo:2");
    assert_eq!(template.get("nodeSelector"), None, "it runs on all nodes");
}

/// Flagger cannot initialize a Canary whose target is a Service.
#[test]
fn a_service_is_released() {
    let target = json!({"apiVersion": "v1", "kind": "Service", "name": "podinfo"});
    let analysis = json!({"stepWeight": 50, "maxWeight": 50});
    let mut sim = release_of(json!({"targetRef": target, "analysis": analysis}));
    let service = |sim: &super::simulation::Simulation, name: &str| {
        sim.snapshot.object(Kind::Service, name).unwrap()["spec"].clone()
    };
    assert_eq!(
        service(&sim, "podinfo-primary")["selector"],
        json!({"app": "podinfo:1"})
    );
    sim.run_until(CanaryPhase::Succeeded);
    transcript("service", &sim);
    for name in ["podinfo-primary", "podinfo-canary"] {
        assert_eq!(service(&sim, name)["selector"], json!({"app": "podinfo:2"}));
        assert_eq!(
            service(&sim, name).get("clusterIP"),
            None,
            "it has an address of its own"
        );
    }
    assert_eq!(sim.canary_weight(), 0);
}

#[test]
fn a_version_that_never_gets_ready_is_rolled_back() {
    let analysis = json!({"stepWeight": 50});
    let mut sim = release_of(json!({"progressDeadlineSeconds": 60, "analysis": analysis}));
    sim.dead = true;
    sim.run_until(CanaryPhase::Failed);
    assert!(sim.routed.is_empty());
    transcript("broken-image", &sim);
}

#[test]
fn a_version_whose_pods_crash_fails_with_their_reason_even_if_they_cannot_be_listed() {
    for (failed_lists, reason) in [
        (
            0,
            " A pod tells why: container podinfo: CrashLoopBackOff, exit code 137 (OOMKilled), 6 restarts.",
        ),
        (1, ""),
    ] {
        let analysis = json!({"stepWeight": 50});
        let mut sim = release_of(json!({"progressDeadlineSeconds": 60, "analysis": analysis}));
        let pod = json!({"status": {"containerStatuses": [{"name": "podinfo", "ready": false, "restartCount": 6,
            "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}]}});
        sim.kept.push((Kind::Pod, pod));
        sim.failed_lists = failed_lists;
        sim.dead = true;
        sim.run_until(CanaryPhase::Failed);
        let verdict = sim
            .snapshot
            .status()
            .condition(ConditionType::Verdict)
            .unwrap();
        let text = verdict.message.as_deref().unwrap();
        assert_eq!(verdict.reason, "NotReady");
        let of_pods = text.split_once(" A pod").map_or("", |(_, of_pods)| of_pods);
        assert_eq!(of_pods, reason.trim_start_matches(" A pod"), "{text}");
    }
}
