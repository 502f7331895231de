//! Each kind of release from its start to its end.

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
fn a_release_of_ten_steps_takes_29_writes_and_15_events() {
    let mut sim = release(json!({"stepWeight": 10, "webhooks": []}));
    sim.run_until(CanaryPhase::Succeeded);
    let events = sim
        .notified
        .iter()
        .filter(|line| !line.starts_with("alert"));
    // Start: status and pods; ten steps: route and status each; promotion: condition and template; traffic back: route and status;
    // end: pods of the canary, status, and the condition after the notifications were sent.
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
fn a_status_with_flaggers_hash_of_the_same_version_starts_no_run() {
    let mut sim = release(json!({"stepWeight": 20}));
    sim.run_until(CanaryPhase::Succeeded);
    let before = sim.notified.len();
    let status = sim.snapshot.canary.status.as_mut().unwrap();
    status.last_applied_spec = Some("76c965d4bf".to_owned());
    status.last_promoted_spec = Some("76c965d4bf".to_owned());
    sim.run(5);
    let status = sim.snapshot.canary.status.clone().unwrap();
    assert_eq!(status.phase, CanaryPhase::Succeeded);
    assert!(
        status.last_applied_spec.unwrap().starts_with("v1-"),
        "our revision replaces Flagger's hash"
    );
    assert_eq!(sim.notified.len(), before, "no notification is sent");
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
        "the promoted version is no new version"
    );
    sim.image("podinfo:2");
    sim.run_until(CanaryPhase::Succeeded);
    assert!(sim.outcome().contains("podinfo:2"), "{}", sim.outcome());
}

/// Flagger would route everything to the broken primary and scale the healthy canary to zero.
#[test]
fn after_a_failed_promotion_the_primary_is_restored_and_a_fix_takes_its_steps() {
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

/// Flagger scales the canary to zero right after it routes traffic away: requests in flight reach pods that terminate.
#[test]
fn a_rollback_waits_for_requests_in_flight_before_it_scales_down() {
    let mut sim = release(json!({"stepWeight": 20, "threshold": 2}));
    sim.metric = "97.5".to_owned();
    sim.run_until(CanaryPhase::Failed);
    let moved = sim.seconds("primary 100 canary 0");
    let down = sim.seconds("patch  Deployment podinfo: replicas 0");
    assert!(down - moved >= 10, "{}", sim.transcript());
}

#[test]
fn weights_that_somebody_edits_between_runs_are_restored() {
    let mut sim = release(json!({"stepWeight": 50}));
    sim.run_until(CanaryPhase::Succeeded);
    sim.route(30);
    sim.run(3);
    assert_eq!(sim.canary_weight(), 0);
}

/// The canary has failed its analysis. Even if the primary is not ready, the canary must not get its traffic.
#[test]
fn a_rollback_waits_until_the_primary_is_ready_and_sends_no_more_traffic_to_the_bad_version() {
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
