//! Webhooks that hold a release, send it back, or let it pass.

use flagger_rs::api::canary::CanaryPhase;
use serde_json::{Value, json};

use super::{
    model::{Model, release},
    transcript,
};

fn gated(kind: &str, analysis: Value) -> Model {
    let mut all = json!({"webhooks": [{"name": "gate", "type": kind, "url": "http://hooks/gate"}]});
    for (key, value) in analysis.as_object().unwrap() {
        all[key] = value.clone();
    }
    let mut model = release(all);
    model.closed.insert("gate");
    model
}

fn seconds(model: &mut Model, seconds: i64) {
    let end = model.snapshot.now.as_second() + seconds;
    while model.snapshot.now.as_second() < end {
        model.reconcile();
    }
}

#[test]
fn a_new_version_waits_until_it_is_approved() {
    let mut model = gated("confirm-rollout", json!({"stepWeight": 50}));
    seconds(&mut model, 25);
    assert_eq!(model.snapshot.phase(), CanaryPhase::Waiting);
    model.closed.clear();
    model.run_until(CanaryPhase::Succeeded);
    transcript("confirm-rollout", &model);
}

#[test]
fn a_good_version_waits_for_its_promotion_at_the_weight_that_is_routed() {
    let mut model = gated(
        "confirm-promotion",
        json!({"stepWeight": 50, "maxWeight": 50}),
    );
    seconds(&mut model, 55);
    assert_eq!(model.snapshot.phase(), CanaryPhase::WaitingPromotion);
    assert_eq!(
        model.snapshot.canary.status.as_ref().unwrap().canary_weight,
        50
    );
    model.closed.clear();
    model.run_until(CanaryPhase::Succeeded);
    transcript("confirm-promotion", &model);
}

/// Flagger alternates between the last iteration and the gate, and says the iteration again each time.
#[test]
fn blue_green_at_its_gate_neither_repeats_nor_loses_an_iteration() {
    let mut model = gated("confirm-promotion", json!({"iterations": 2}));
    seconds(&mut model, 65);
    model.closed.clear();
    model.run_until(CanaryPhase::Succeeded);
    let said = |text: &str| model.told.iter().filter(|line| line.contains(text)).count();
    assert_eq!(said("canary iteration 2/2"), 1);
    transcript("confirm-promotion-blue-green", &model);
}

#[test]
fn a_version_that_waits_for_its_promotion_is_still_judged() {
    let mut model = gated(
        "confirm-promotion",
        json!({"stepWeight": 50, "maxWeight": 50, "threshold": 2}),
    );
    while model.snapshot.phase() != CanaryPhase::WaitingPromotion {
        model.reconcile();
    }
    model.metric = "42".to_owned();
    model.run_until(CanaryPhase::Failed);
    let said =
        "Warning [WaitingPromotion] Rolling back podinfo.test failed checks threshold reached 2";
    assert!(
        model.told.iter().any(|line| line == said),
        "{}",
        model.transcript()
    );
}

/// Flagger tells it at every step.
#[test]
fn a_closed_gate_is_told_once_and_then_ever_less_often() {
    let mut model = gated("confirm-traffic-increase", json!({"stepWeight": 50}));
    seconds(&mut model, 5 * 3600);
    let told = model.told.iter().filter(|line| line.contains("alert Warn"));
    assert_eq!(told.count(), 4, "{}", model.transcript());
    let mut model = gated("confirm-rollout", json!({"stepWeight": 50}));
    seconds(&mut model, 5 * 3600);
    let told = model.told.iter().filter(|line| line.contains("alert Warn"));
    assert_eq!(told.count(), 4, "{}", model.transcript());
}

#[test]
fn the_traffic_stays_until_its_increase_is_approved() {
    let mut model = gated(
        "confirm-traffic-increase",
        json!({"stepWeight": 50, "maxWeight": 50}),
    );
    seconds(&mut model, 35);
    assert!(model.routed.is_empty());
    model.closed.clear();
    model.run_until(CanaryPhase::Succeeded);
    transcript("confirm-traffic-increase", &model);
}

#[test]
fn a_muted_gate_sends_no_alert() {
    let hook = json!({"name": "gate", "type": "confirm-rollout", "url": "http://hooks/gate", "muteAlert": true});
    let mut model = release(json!({"stepWeight": 50, "webhooks": [hook]}));
    model.closed.insert("gate");
    seconds(&mut model, 30);
    assert!(
        model
            .told
            .iter()
            .any(|line| line.contains("waiting for approval gate"))
    );
    assert!(!model.told.iter().any(|line| line.contains("alert")));
}

#[test]
fn a_user_sends_a_version_back() {
    let mut model = gated("rollback", json!({"stepWeight": 20}));
    seconds(&mut model, 25);
    model.closed.clear();
    model.run_until(CanaryPhase::Failed);
    transcript("rollback-by-hook", &model);
}

/// Flagger runs what was taken back.
#[test]
fn a_version_that_is_taken_back_while_it_waits_is_not_run() {
    let mut model = gated("confirm-rollout", json!({"stepWeight": 50}));
    seconds(&mut model, 15);
    assert_eq!(model.snapshot.phase(), CanaryPhase::Waiting);
    model.image("podinfo:1");
    model.closed.clear();
    model.run_until(CanaryPhase::Succeeded);
    assert!(model.routed.is_empty());
}

#[test]
fn a_newer_version_takes_the_place_of_the_one_that_waits() {
    let mut model = gated("confirm-rollout", json!({"stepWeight": 50}));
    seconds(&mut model, 15);
    model.image("podinfo:3");
    model.closed.clear();
    model.run_until(CanaryPhase::Succeeded);
    assert!(model.outcome().contains("podinfo:3"), "{}", model.outcome());
}
