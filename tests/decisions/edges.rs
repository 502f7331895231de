//! What meets a release at its edges: a promotion that failed, an edit, a take-over, a deletion of something odd.

use super::*;
use model::release_of;

fn canary(model: &Model) -> u8 {
    rollout::weights(&model.snapshot).unwrap().canary
}

fn looks(model: &mut Model, looks: usize) {
    for _ in 0..looks {
        model.reconcile();
    }
}

/// A release whose promotion failed: the primary cannot run version 2.
fn failed_promotion(spec: Value) -> Model {
    let mut model = release_of(spec);
    model.broken = Some("podinfo:2");
    model.run_until(CanaryPhase::Failed);
    model
}

fn is_fixed_by(mut model: Model, image: &str) {
    model.image(image);
    model.run_until(CanaryPhase::Succeeded);
    assert!(
        model
            .outcome()
            .contains(&format!("primary Some(String(\"{image}\"))")),
        "{}",
        model.outcome()
    );
}

#[test]
fn after_a_failed_promotion_a_fix_of_the_fix_rolls_out() {
    let mut model = failed_promotion(json!({"analysis": {"stepWeight": 50}}));
    model.image("podinfo:3");
    model.run_until_phase(CanaryPhase::Progressing);
    is_fixed_by(model, "podinfo:4");
}

#[test]
fn after_a_failed_promotion_and_a_fix_that_is_bad_another_rolls_out() {
    let mut model = failed_promotion(json!({"analysis": {"stepWeight": 50, "threshold": 1}}));
    model.metric = "1".to_owned();
    model.image("podinfo:3");
    looks(&mut model, 100);
    model.metric = "100".to_owned();
    is_fixed_by(model, "podinfo:4");
}

/// What kept the primary from it, a missing node perhaps, is over.
#[test]
fn a_version_whose_promotion_failed_can_be_tried_again() {
    let mut model = failed_promotion(json!({"analysis": {"stepWeight": 50, "threshold": 1}}));
    model.metric = "1".to_owned();
    model.image("podinfo:3");
    looks(&mut model, 100);
    assert_eq!(model.snapshot.phase(), CanaryPhase::Failed);
    model.broken = None;
    model.metric = "100".to_owned();
    is_fixed_by(model, "podinfo:2");
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
    let mut model = failed_promotion(json!({"analysis": {"stepWeight": 50}}));
    model.snapshot.canary.spec.skip_analysis = true;
    is_fixed_by(model, "podinfo:3");
}

/// It had its share of the traffic by a test that is gone now: everybody else must not get it at once.
#[test]
fn an_ab_test_that_becomes_a_canary_does_not_get_all_the_traffic() {
    let analysis =
        json!({"iterations": 5, "match": [{"headers": {"x-user": {"exact": "insider"}}}]});
    let mut model = release(analysis);
    while canary(&model) == 0 {
        model.reconcile();
    }
    model.edit("analysis", &json!({"stepWeight": 20, "threshold": 5}));
    model.routed.clear();
    looks(&mut model, 3);
    assert!(
        model.routed.iter().all(|weight| *weight <= 20),
        "{:?}",
        model.routed
    );
    model.run_until(CanaryPhase::Succeeded);
}

/// Flagger's status says weight 0 and iteration -1 while it waits.
#[test]
fn a_promotion_that_waits_in_flagger_waits_here_at_the_weight_that_is_routed() {
    let gate = json!([{"name": "gate", "type": "confirm-promotion", "url": "http://hooks/gate"}]);
    let mut model = release(json!({"stepWeight": 10, "maxWeight": 50, "webhooks": gate}));
    model.closed.insert("gate");
    model.run_until_phase(CanaryPhase::WaitingPromotion);
    let status = model.snapshot.canary.status.as_mut().unwrap();
    (status.canary_weight, status.iterations) = (0, -1);
    status.last_applied_spec = Some("76c965d4bf".to_owned());
    status.last_promoted_spec = Some("5f56684589".to_owned());
    model.routed.clear();
    looks(&mut model, 50);
    assert!(model.routed.is_empty(), "{}", model.transcript());
    let status = model.snapshot.canary.status.clone().unwrap();
    assert_eq!((status.canary_weight, status.iterations), (50, 0));
    model.closed.clear();
    model.run_until(CanaryPhase::Succeeded);
}

/// What is promoted is what was analysed; the change is a version of its own, afterwards.
#[test]
fn a_config_that_changes_while_the_primary_rolls_out_does_not_undo_the_promotion() {
    let mut model = release(json!({"stepWeight": 50}));
    let name = model.snapshot.reference(Kind::ConfigMap, "color");
    let color = |color: &str| json!({"metadata": {"name": "color", "namespace": "test"}, "data": {"color": color}});
    let target = model.snapshot.reference(Kind::Deployment, "podinfo");
    model.snapshot.objects.get_mut(&target).unwrap()["spec"]["template"]["spec"]["containers"][0]
        ["envFrom"] = json!([{"configMapRef": {"name": "color"}}]);
    model.store(name.clone(), color("red"));
    model.run_until_phase(CanaryPhase::Promoting);
    looks(&mut model, 1);
    model.store(name, color("blue"));
    let before = model.told.len();
    model.run_until(CanaryPhase::Succeeded);
    let restarts = model.told[before..]
        .iter()
        .filter(|line| line.contains("Restarting"));
    assert_eq!(restarts.count(), 0, "{}", model.transcript());
}

#[test]
fn a_failed_version_that_was_taken_back_can_be_tried_again() {
    let mut model = release(json!({"stepWeight": 20, "threshold": 1}));
    model.metric = "1".to_owned();
    model.run_until(CanaryPhase::Failed);
    model.image("podinfo:1");
    looks(&mut model, 30);
    assert_eq!(model.snapshot.phase(), CanaryPhase::Failed);
    model.metric = "100".to_owned();
    is_fixed_by(model, "podinfo:2");
}

/// What holds a version back holds back its pods too.
#[test]
fn a_version_that_waits_after_a_failure_has_no_pods() {
    let gate = json!([{"name": "gate", "type": "confirm-rollout", "url": "http://hooks/gate"}]);
    let mut model = release(json!({"stepWeight": 20, "threshold": 1, "webhooks": gate}));
    model.metric = "1".to_owned();
    model.run_until_phase(CanaryPhase::Failed);
    model.closed.insert("gate");
    model.image("podinfo:3");
    looks(&mut model, 60);
    assert_eq!(model.snapshot.phase(), CanaryPhase::Waiting);
    assert_eq!(
        model.snapshot.target().unwrap()["spec"]["replicas"],
        0,
        "{}",
        model.transcript()
    );
}

#[test]
fn who_suspends_in_the_middle_of_a_rollback_still_hears_of_it() {
    let mut model = release(json!({"stepWeight": 20, "threshold": 1}));
    model.metric = "1".to_owned();
    while rollout::weights(&model.snapshot).unwrap().canary == 0 {
        model.reconcile();
    }
    while canary(&model) > 0 {
        model.reconcile();
    }
    model.snapshot.canary.spec.suspend = true;
    looks(&mut model, 30);
    let alerts = model
        .told
        .iter()
        .filter(|line| line.contains("alert Error"));
    assert_eq!(alerts.count(), 1, "{}", model.transcript());
}

/// The canary died when traffic had left it already.
#[test]
fn a_promotion_that_is_done_but_for_the_canary_is_no_failure() {
    let mut model = release(json!({"stepWeight": 50, "maxWeight": 50}));
    model.run_until_phase(CanaryPhase::Promoting);
    model.dead = true;
    model.run_until(CanaryPhase::Succeeded);
}

#[test]
fn the_deletion_of_the_younger_of_two_canaries_leaves_the_target_to_the_older() {
    let mut model = release(json!({"stepWeight": 50}));
    model.snapshot.canary.spec.revert_on_deletion = true;
    model.run_until(CanaryPhase::Succeeded);
    model.snapshot.conflicting_canary = Some("older.test".to_owned());
    model.delete();
    looks(&mut model, 100);
    assert!(model.is_gone(), "{}", model.transcript());
    assert_eq!(model.snapshot.target().unwrap()["spec"]["replicas"], 0);
}

/// The primary goes with the Canary: without its pods, and with the target at zero, nobody answers.
#[test]
fn a_deletion_does_not_drop_a_target_that_it_cannot_give_back_yet() {
    let mut model = release(json!({"stepWeight": 50}));
    model.snapshot.canary.spec.revert_on_deletion = true;
    model.run_until(CanaryPhase::Succeeded);
    model.edit("provider", &json!("kuma"));
    model.delete();
    looks(&mut model, 50);
    assert!(!model.is_gone(), "{}", model.transcript());
    model.edit("provider", &json!("istio"));
    looks(&mut model, 200);
    assert!(model.is_gone(), "{}", model.transcript());
    assert_eq!(model.snapshot.target().unwrap()["spec"]["replicas"], 2);
}

/// Taken back, and not after all: before the end of the run that was on its way.
#[test]
fn a_version_that_comes_back_while_its_run_ends_is_not_forgotten() {
    let mut model = release(json!({"stepWeight": 20}));
    while canary(&model) == 0 {
        model.reconcile();
    }
    model.image("podinfo:1");
    while model
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
        model.reconcile();
    }
    is_fixed_by(model, "podinfo:2");
}

#[test]
fn targets_of_all_kinds_are_given_back() {
    for (version, kind) in [("apps/v1", "DaemonSet"), ("v1", "Service")] {
        let target = json!({"apiVersion": version, "kind": kind, "name": "podinfo"});
        let mut model = release_of(json!({"targetRef": target, "analysis": {"stepWeight": 50}}));
        model.snapshot.canary.spec.revert_on_deletion = true;
        model.run_until(CanaryPhase::Succeeded);
        model.delete();
        looks(&mut model, 200);
        assert!(model.is_gone(), "{}", model.transcript());
        let selector = "/spec/template/spec/nodeSelector";
        assert_eq!(model.snapshot.target().unwrap().pointer(selector), None);
    }
}
