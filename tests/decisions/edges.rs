//! Rare situations: after a failed promotion, after an edit in the middle of a release, on deletion.

use flagger_rs::{api::canary::CanaryPhase, snapshot::Kind};
use serde_json::{Value, json};

use super::simulation::{Simulation, release, release_of};

/// A release whose promotion failed: the primary cannot run version 2.
fn failed_promotion(spec: Value) -> Simulation {
    let mut sim = release_of(spec);
    sim.broken = Some("podinfo:2");
    sim.run_until(CanaryPhase::Failed);
    sim
}

fn is_fixed_by(mut sim: Simulation, image: &str) {
    sim.image(image);
    sim.run_until(CanaryPhase::Succeeded);
    assert!(
        sim.outcome()
            .contains(&format!("primary Some(String(\"{image}\"))")),
        "{}",
        sim.outcome()
    );
}

#[test]
fn after_a_failed_promotion_a_second_fix_that_replaces_the_first_rolls_out() {
    let mut sim = failed_promotion(json!({"analysis": {"stepWeight": 50}}));
    sim.image("podinfo:3");
    sim.run_until_phase(CanaryPhase::Progressing);
    is_fixed_by(sim, "podinfo:4");
}

#[test]
fn after_a_failed_promotion_and_a_bad_fix_another_fix_rolls_out() {
    let mut sim = failed_promotion(json!({"analysis": {"stepWeight": 50, "threshold": 1}}));
    sim.metric = "1".to_owned();
    sim.image("podinfo:3");
    sim.run(100);
    sim.metric = "100".to_owned();
    is_fixed_by(sim, "podinfo:4");
}

/// The obstacle for the primary, for example a missing node, no longer exists.
#[test]
fn a_version_whose_promotion_failed_can_be_tried_again() {
    let mut sim = failed_promotion(json!({"analysis": {"stepWeight": 50, "threshold": 1}}));
    sim.metric = "1".to_owned();
    sim.image("podinfo:3");
    sim.run(100);
    assert_eq!(sim.snapshot.phase(), CanaryPhase::Failed);
    sim.broken = None;
    sim.metric = "100".to_owned();
    is_fixed_by(sim, "podinfo:2");
}

#[test]
fn after_a_failed_promotion_of_an_ab_test_a_fix_rolls_out() {
    let analysis =
        json!({"iterations": 2, "match": [{"headers": {"x-user": {"exact": "insider"}}}]});
    is_fixed_by(failed_promotion(json!({"analysis": analysis})), "podinfo:3");
}

#[test]
fn after_a_failed_promotion_without_a_mesh_a_fix_rolls_out() {
    let spec = json!({"provider": "kubernetes", "analysis": {"iterations": 2}});
    is_fixed_by(failed_promotion(spec), "podinfo:3");
}

#[test]
fn after_a_failed_promotion_of_blue_green_with_copies_a_fix_rolls_out() {
    let spec = json!({"analysis": {"iterations": 2, "mirror": true}});
    is_fixed_by(failed_promotion(spec), "podinfo:3");
}

#[test]
fn after_a_failed_promotion_a_fix_without_analysis_rolls_out() {
    let mut sim = failed_promotion(json!({"analysis": {"stepWeight": 50}}));
    sim.snapshot.canary.spec.skip_analysis = true;
    is_fixed_by(sim, "podinfo:3");
}

/// Only requests that matched reached the canary. Without the match, all other requests must not reach it at once.
#[test]
fn an_ab_test_that_becomes_a_canary_does_not_get_all_the_traffic() {
    let analysis =
        json!({"iterations": 5, "match": [{"headers": {"x-user": {"exact": "insider"}}}]});
    let mut sim = release(analysis);
    while sim.canary_weight() == 0 {
        sim.reconcile();
    }
    sim.edit("analysis", &json!({"stepWeight": 20, "threshold": 5}));
    sim.routed.clear();
    sim.run(3);
    assert!(
        sim.routed.iter().all(|weight| *weight <= 20),
        "{:?}",
        sim.routed
    );
    sim.run_until(CanaryPhase::Succeeded);
}

/// An edit that sets the version under analysis again is no change.
#[test]
fn a_newer_version_is_promoted_step_by_step_after_an_older_one() {
    let mut sim = release(
        json!({"maxWeight": 41, "stepWeight": 33, "stepWeightPromotion": 1, "threshold": 2}),
    );
    sim.run(8);
    sim.image("podinfo:2");
    sim.run(30);
    sim.image("podinfo:4");
    sim.run_until(CanaryPhase::Succeeded);
    assert!(sim.outcome().contains("podinfo:4"), "{}", sim.outcome());
    assert_eq!(sim.canary_weight(), 0);
}

/// Flagger's status has weight 0 and iteration -1 while it waits.
#[test]
fn a_promotion_that_waited_under_flagger_keeps_waiting_at_the_routed_weight() {
    let gate = json!([{"name": "gate", "type": "confirm-promotion", "url": "http://hooks/gate"}]);
    let mut sim = release(json!({"stepWeight": 10, "maxWeight": 50, "webhooks": gate}));
    sim.closed.insert("gate");
    sim.run_until_phase(CanaryPhase::WaitingPromotion);
    let status = sim.snapshot.canary.status.as_mut().unwrap();
    (status.canary_weight, status.iterations) = (0, -1);
    status.last_applied_spec = Some("76c965d4bf".to_owned());
    status.last_promoted_spec = Some("5f56684589".to_owned());
    sim.routed.clear();
    sim.run(50);
    assert!(sim.routed.is_empty(), "{}", sim.transcript());
    let status = sim.snapshot.canary.status.clone().unwrap();
    assert_eq!((status.canary_weight, status.iterations), (50, 0));
    sim.closed.clear();
    sim.run_until(CanaryPhase::Succeeded);
}

/// The analysed version is promoted. The changed config is part of the next version.
#[test]
fn a_config_that_changes_while_the_primary_rolls_out_does_not_undo_the_promotion() {
    let mut sim = release(json!({"stepWeight": 50}));
    let name = sim.snapshot.reference(Kind::ConfigMap, "color");
    let color = |color: &str| json!({"metadata": {"name": "color", "namespace": "test"}, "data": {"color": color}});
    let target = sim.snapshot.reference(Kind::Deployment, "podinfo");
    sim.snapshot.objects.get_mut(&target).unwrap()["spec"]["template"]["spec"]["containers"][0]["envFrom"] =
        json!([{"configMapRef": {"name": "color"}}]);
    sim.store(name.clone(), color("red"));
    sim.run_until_phase(CanaryPhase::Promoting);
    sim.run(1);
    sim.store(name, color("blue"));
    let before = sim.notified.len();
    sim.run_until(CanaryPhase::Succeeded);
    let restarts = sim.notified[before..]
        .iter()
        .filter(|line| line.contains("Restarting"));
    assert_eq!(restarts.count(), 0, "{}", sim.transcript());
}

#[test]
fn a_failed_version_can_be_released_again_after_a_return_to_the_promoted_one() {
    let mut sim = release(json!({"stepWeight": 20, "threshold": 1}));
    sim.metric = "1".to_owned();
    sim.run_until(CanaryPhase::Failed);
    sim.image("podinfo:1");
    sim.run(30);
    assert_eq!(sim.snapshot.phase(), CanaryPhase::Failed);
    sim.metric = "100".to_owned();
    is_fixed_by(sim, "podinfo:2");
}

/// A closed gate keeps the version without pods, too.
#[test]
fn a_version_that_waits_after_a_failure_has_no_pods() {
    let gate = json!([{"name": "gate", "type": "confirm-rollout", "url": "http://hooks/gate"}]);
    let mut sim = release(json!({"stepWeight": 20, "threshold": 1, "webhooks": gate}));
    sim.metric = "1".to_owned();
    sim.run_until_phase(CanaryPhase::Failed);
    sim.closed.insert("gate");
    sim.image("podinfo:3");
    sim.run(60);
    assert_eq!(sim.snapshot.phase(), CanaryPhase::Waiting);
    assert_eq!(
        sim.snapshot.target().unwrap()["spec"]["replicas"],
        0,
        "{}",
        sim.transcript()
    );
}

#[test]
fn a_rollback_that_is_suspended_in_the_middle_still_sends_its_alert() {
    let mut sim = release(json!({"stepWeight": 20, "threshold": 1}));
    sim.metric = "1".to_owned();
    while sim.canary_weight() == 0 {
        sim.reconcile();
    }
    while sim.canary_weight() > 0 {
        sim.reconcile();
    }
    sim.snapshot.canary.spec.suspend = true;
    sim.run(30);
    let alerts = sim
        .notified
        .iter()
        .filter(|line| line.contains("alert Error"));
    assert_eq!(alerts.count(), 1, "{}", sim.transcript());
}

/// The canary loses its pods after all traffic has returned to the primary.
#[test]
fn a_canary_without_pods_after_the_promotion_is_no_failure() {
    let mut sim = release(json!({"stepWeight": 50, "maxWeight": 50}));
    sim.run_until_phase(CanaryPhase::Promoting);
    sim.dead = true;
    sim.run_until(CanaryPhase::Succeeded);
}

#[test]
fn the_deletion_of_the_younger_of_two_conflicting_canaries_leaves_the_target_to_the_older() {
    let mut sim = release(json!({"stepWeight": 50}));
    sim.snapshot.canary.spec.revert_on_deletion = true;
    sim.run_until(CanaryPhase::Succeeded);
    sim.conflict("older.test");
    sim.delete();
    sim.run(100);
    assert!(sim.is_gone(), "{}", sim.transcript());
    assert_eq!(sim.snapshot.target().unwrap()["spec"]["replicas"], 0);
}

/// The primary is deleted with its Canary. If the target had no pods at that time, nothing would answer requests.
#[test]
fn the_finalizer_stays_until_the_target_can_be_restored() {
    let target = json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "podinfo"});
    let mut sim = release_of(json!({"targetRef": target, "analysis": {"stepWeight": 50}}));
    sim.snapshot.canary.spec.revert_on_deletion = true;
    sim.run_until(CanaryPhase::Succeeded);
    let target = sim.snapshot.reference(Kind::DaemonSet, "podinfo");
    let strategy = |sim: &mut Simulation, strategy: &str| {
        let target = sim.snapshot.objects.get_mut(&target).unwrap();
        target["spec"]["updateStrategy"] = json!({"type": strategy});
    };
    strategy(&mut sim, "OnDelete");
    sim.delete();
    sim.run(50);
    assert!(!sim.is_gone(), "{}", sim.transcript());
    strategy(&mut sim, "RollingUpdate");
    sim.run(200);
    assert!(sim.is_gone(), "{}", sim.transcript());
    let selector = "/spec/template/spec/nodeSelector";
    assert_eq!(sim.snapshot.target().unwrap().pointer(selector), None);
}

/// The user returns to the promoted version, and sets the newer version again before the run has ended.
#[test]
fn a_version_that_comes_back_while_its_run_ends_is_not_forgotten() {
    let mut sim = release(json!({"stepWeight": 20}));
    while sim.canary_weight() == 0 {
        sim.reconcile();
    }
    sim.image("podinfo:1");
    while sim
        .snapshot
        .canary
        .status
        .as_ref()
        .unwrap()
        .conditions
        .as_ref()
        .unwrap()
        .len()
        == 1
    {
        sim.reconcile();
    }
    is_fixed_by(sim, "podinfo:2");
}

#[test]
fn targets_of_all_kinds_are_restored_on_deletion() {
    for (version, kind) in [("apps/v1", "DaemonSet"), ("v1", "Service")] {
        let target = json!({"apiVersion": version, "kind": kind, "name": "podinfo"});
        let mut sim = release_of(json!({"targetRef": target, "analysis": {"stepWeight": 50}}));
        sim.snapshot.canary.spec.revert_on_deletion = true;
        sim.run_until(CanaryPhase::Succeeded);
        sim.delete();
        sim.run(200);
        assert!(sim.is_gone(), "{}", sim.transcript());
        let selector = "/spec/template/spec/nodeSelector";
        assert_eq!(sim.snapshot.target().unwrap().pointer(selector), None);
    }
}

/// The A/B test has not passed its checks before the first request yet.
#[test]
fn an_ab_test_that_has_not_begun_gets_no_request_when_its_route_is_made_again() {
    let test = json!([{"headers": {"x-canary": {"exact": "insider"}}}]);
    let mut sim = release(json!({"iterations": 2, "match": test}));
    sim.run_until_phase(CanaryPhase::Progressing);
    sim.run(3);
    assert_eq!(sim.snapshot.status().iterations, 0);
    let route = sim.snapshot.reference(Kind::VirtualService, "podinfo");
    sim.snapshot.objects.remove(&route).unwrap();
    sim.reconcile();
    assert_eq!(sim.canary_weight(), 0, "{}", sim.transcript());
    sim.run_until(CanaryPhase::Succeeded);
}
