//! What does each kind of release do, and how does it end?

use flagger_rs::api::canary::CanaryPhase;
use serde_json::json;

use super::{simulation::release, transcript};

#[test]
fn a_canary_release() {
    let mut sim = release(json!({"stepWeight": 20, "maxWeight": 50}));
    sim.run_until(CanaryPhase::Succeeded);
    transcript("canary", &sim);
}

/// Flagger takes 45 writes, and 254 reads.
#[test]
fn a_release_of_ten_steps_takes_as_many_writes_as_it_must() {
    let mut sim = release(json!({"stepWeight": 10, "webhooks": []}));
    sim.run_until(CanaryPhase::Succeeded);
    let events = sim
        .notified
        .iter()
        .filter(|line| !line.starts_with("alert"));
    // The run and its pods; ten steps of a route and a status; the promotion's intent and template; the way back of the traffic; the
    // canary down, the end, and that it was told.
    let writes = 2 + 10 * 2 + 2 + 2 + 3;
    assert_eq!((sim.writes, events.count()), (writes, 15));
}

#[test]
fn a_rollback_on_failed_checks() {
    let mut sim = release(json!({"stepWeight": 20, "threshold": 2}));
    sim.metric = "97.5".to_owned();
    sim.run_until(CanaryPhase::Failed);
    transcript("rollback", &sim);
}

#[test]
fn a_blue_green_release() {
    let mut sim = release(json!({"iterations": 2}));
    sim.run_until(CanaryPhase::Succeeded);
    transcript("blue-green", &sim);
}

#[test]
fn a_promotion_step_by_step() {
    let mut sim = release(json!({"stepWeight": 50, "stepWeightPromotion": 25}));
    sim.run_until(CanaryPhase::Succeeded);
    transcript("promotion-steps", &sim);
}

#[test]
fn a_release_without_analysis() {
    let mut sim = release(json!({"stepWeight": 50}));
    sim.snapshot.canary.spec.skip_analysis = true;
    sim.run_until(CanaryPhase::Succeeded);
    transcript("skip-analysis", &sim);
}

#[test]
fn an_ab_test() {
    let mut sim =
        release(json!({"iterations": 2, "match": [{"headers": {"x-user": {"exact": "insider"}}}]}));
    sim.run_until(CanaryPhase::Succeeded);
    transcript("ab-testing", &sim);
}

#[test]
fn flaggers_own_hash_of_the_same_version_is_no_new_version() {
    let mut sim = release(json!({"stepWeight": 20}));
    sim.run_until(CanaryPhase::Succeeded);
    let told = sim.notified.len();
    let status = sim.snapshot.canary.status.as_mut().unwrap();
    status.last_applied_spec = Some("76c965d4bf".to_owned());
    status.last_promoted_spec = Some("76c965d4bf".to_owned());
    sim.run(5);
    let status = sim.snapshot.canary.status.clone().unwrap();
    assert_eq!(status.phase, CanaryPhase::Succeeded);
    assert!(
        status.last_applied_spec.unwrap().starts_with("v1-"),
        "it is known by our name now"
    );
    assert_eq!(sim.notified.len(), told, "in silence");
}

#[test]
fn a_version_that_failed_is_run_again_when_it_comes_back() {
    let mut sim = release(json!({"stepWeight": 50, "threshold": 1}));
    sim.metric = "42".to_owned();
    sim.run_until(CanaryPhase::Failed);
    sim.metric = "100".to_owned();
    sim.image("podinfo:1");
    sim.run(25);
    assert_eq!(
        sim.snapshot.phase(),
        CanaryPhase::Failed,
        "there is nothing new"
    );
    sim.image("podinfo:2");
    sim.run_until(CanaryPhase::Succeeded);
    assert!(sim.outcome().contains("podinfo:2"), "{}", sim.outcome());
}

/// Flagger would route everything to the broken primary and scale the healthy canary to zero.
#[test]
fn after_a_failed_promotion_traffic_stays_on_the_healthy_side_and_a_fix_rolls_out() {
    let mut sim = release(json!({"stepWeight": 50}));
    sim.broken = Some("podinfo:2");
    sim.run_until(CanaryPhase::Failed);
    assert_eq!(sim.canary_weight(), 100);
    assert_eq!(sim.snapshot.target().unwrap()["spec"]["replicas"], 2);
    sim.image("podinfo:3");
    sim.run_until(CanaryPhase::Succeeded);
    assert_eq!(sim.canary_weight(), 0);
    transcript("failed-promotion", &sim);
}

/// Flagger scales down in the same breath as it routes: what is on its way meets pods that end.
#[test]
fn a_rollback_loses_no_request_that_is_on_its_way() {
    let mut sim = release(json!({"stepWeight": 20, "threshold": 2}));
    sim.metric = "97.5".to_owned();
    sim.run_until(CanaryPhase::Failed);
    let moved = sim.seconds("primary 100 canary 0");
    let down = sim.seconds("patch  Deployment podinfo: replicas 0");
    assert!(down - moved >= 10, "{}", sim.transcript());
}

#[test]
fn weights_that_somebody_edits_between_runs_are_put_back() {
    let mut sim = release(json!({"stepWeight": 50}));
    sim.run_until(CanaryPhase::Succeeded);
    sim.route(30);
    sim.run(3);
    assert_eq!(sim.canary_weight(), 0);
}

/// The analysis said no; that the primary is not ready in that moment does not make it yes.
#[test]
fn a_rollback_waits_for_a_primary_that_blinks_and_does_not_move_traffic_to_the_bad_version() {
    let mut sim = release(json!({"stepWeight": 20, "threshold": 1}));
    sim.metric = "97.5".to_owned();
    while sim.canary_weight() == 0 {
        sim.reconcile();
    }
    sim.broken = Some("podinfo:1");
    sim.run(60);
    assert_eq!(sim.canary_weight(), 20);
    sim.broken = None;
    sim.run_until(CanaryPhase::Failed);
    assert_eq!(sim.canary_weight(), 0);
}

/// The commonest fix is to go back.
#[test]
fn after_a_failed_promotion_the_version_before_can_be_released() {
    let mut sim = release(json!({"stepWeight": 50}));
    sim.broken = Some("podinfo:2");
    sim.run_until(CanaryPhase::Failed);
    sim.image("podinfo:1");
    sim.run_until(CanaryPhase::Succeeded);
    assert_eq!(sim.canary_weight(), 0);
}
