//! A canary that cannot answer gets no traffic.

use flagger_rs::{api::canary::CanaryPhase, rollout, snapshot::Kind};
use serde_json::json;

use super::{
    model::{Model, release},
    transcript,
};

fn at_weight(weight: u8) -> Model {
    let mut model = release(json!({"stepWeight": 20, "maxWeight": 40, "threshold": 2}));
    while canary(&model) < weight {
        model.reconcile();
    }
    model
}

fn canary(model: &Model) -> u8 {
    rollout::weights(&model.snapshot).unwrap().canary
}

/// Flagger leaves a fifth of the clients with errors until the progress deadline, ten minutes by default.
#[test]
fn clients_do_not_meet_a_canary_whose_pods_are_gone() {
    let mut model = at_weight(20);
    model.dead = true;
    model.reconcile();
    assert_eq!(canary(&model), 0);
    model.dead = false;
    model.run_until(CanaryPhase::Succeeded);
    transcript("canary-without-pods", &model);
}

#[test]
fn a_version_that_keeps_losing_its_pods_is_rolled_back() {
    let mut model = at_weight(20);
    for _ in 0..2 {
        model.dead = true;
        model.reconcile();
        model.dead = false;
        for _ in 0..25 {
            model.reconcile();
        }
    }
    model.run_until(CanaryPhase::Failed);
}

#[test]
fn clients_do_not_meet_a_canary_that_somebody_deleted() {
    let mut model = at_weight(20);
    let target = model.snapshot.reference(Kind::Deployment, "podinfo");
    let deleted = model.snapshot.objects.remove(&target).unwrap();
    model.reconcile();
    assert_eq!(canary(&model), 0);
    model.snapshot.objects.insert(target, deleted);
    model.run_until(CanaryPhase::Succeeded);
}

#[test]
fn a_promotion_whose_canary_dies_goes_on() {
    let mut model = at_weight(40);
    model.run_until_phase(CanaryPhase::Promoting);
    model.dead = true;
    model.reconcile();
    model.reconcile();
    assert_eq!(canary(&model), 0);
    model.dead = false;
    model.run_until(CanaryPhase::Succeeded);
}

#[test]
fn a_new_version_whose_pods_take_the_place_of_the_old_ones_is_no_failed_check() {
    let mut model = at_weight(20);
    model.image("podinfo:3");
    model.dead = true;
    model.reconcile();
    let status = model.snapshot.canary.status.clone().unwrap();
    assert_eq!(canary(&model), 0);
    assert_eq!((status.failed_checks, status.canary_weight), (0, 0));
    let last = model.told.last().unwrap();
    assert!(last.contains("Restarting analysis"), "{last}");
    model.dead = false;
    model.run_until(CanaryPhase::Succeeded);
    assert!(model.outcome().contains("podinfo:3"), "{}", model.outcome());
}

/// With the status, what the version had come to was lost: it would be promoted without having served since.
#[test]
fn a_version_whose_withdrawal_was_cut_off_takes_its_steps_anew() {
    let mut model = at_weight(40);
    model.dead = true;
    model.crash_after = Some(model.writes + 1);
    model.reconcile();
    assert_eq!(canary(&model), 0);
    let weight = model.snapshot.canary.status.as_ref().unwrap().canary_weight;
    assert_eq!(weight, 40, "no status was written");
    model.dead = false;
    let steps = model.routed.len();
    model.run_until(CanaryPhase::Succeeded);
    assert_eq!(model.routed[steps..], [20, 40, 0]);
}

#[test]
fn an_ab_test_whose_traffic_was_taken_back_has_all_its_iterations_anew() {
    let test = json!([{"headers": {"x-canary": {"exact": "insider"}}}]);
    let mut model = release(json!({"iterations": 2, "match": test}));
    while canary(&model) == 0 {
        model.reconcile();
    }
    model.dead = true;
    model.crash_after = Some(model.writes + 1);
    model.reconcile();
    assert_eq!(canary(&model), 0);
    model.dead = false;
    let iteration = |model: &Model, what| {
        let told = model.told.iter();
        told.filter(|line| line.contains(what)).count()
    };
    let before = iteration(&model, "canary iteration 1/2");
    model.run_until(CanaryPhase::Succeeded);
    assert_eq!(iteration(&model, "canary iteration 1/2"), before + 1);
}
