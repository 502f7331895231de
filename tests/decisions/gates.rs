//! Webhooks that hold a release, roll it back, or let it continue.

use flagger_rs::api::canary::CanaryPhase;
use serde_json::{Value, json};

use super::{
    simulation::{Simulation, release},
    transcript,
};

fn gated(kind: &str, analysis: Value) -> Simulation {
    let mut all = json!({"webhooks": [{"name": "gate", "type": kind, "url": "http://hooks/gate"}]});
    for (key, value) in analysis.as_object().unwrap() {
        all[key] = value.clone();
    }
    let mut sim = release(all);
    sim.closed.insert("gate");
    sim
}

fn seconds(sim: &mut Simulation, seconds: i64) {
    let end = sim.snapshot.now.as_second() + seconds;
    while sim.snapshot.now.as_second() < end {
        sim.reconcile();
    }
}

#[test]
fn a_new_version_waits_until_it_is_approved() {
    let mut sim = gated("confirm-rollout", json!({"stepWeight": 50}));
    seconds(&mut sim, 25);
    assert_eq!(sim.snapshot.phase(), CanaryPhase::Waiting);
    sim.closed.clear();
    sim.run_until(CanaryPhase::Succeeded);
    transcript("confirm-rollout", &sim);
}

#[test]
fn a_good_version_waits_for_its_promotion_at_the_weight_that_is_routed() {
    let mut sim = gated(
        "confirm-promotion",
        json!({"stepWeight": 50, "maxWeight": 50}),
    );
    seconds(&mut sim, 55);
    assert_eq!(sim.snapshot.phase(), CanaryPhase::WaitingPromotion);
    assert_eq!(
        sim.snapshot.canary.status.as_ref().unwrap().canary_weight,
        50
    );
    sim.closed.clear();
    sim.run_until(CanaryPhase::Succeeded);
    transcript("confirm-promotion", &sim);
}

/// Flagger alternates between the last iteration and the gate, and repeats the event of the iteration each time.
#[test]
fn blue_green_at_its_gate_neither_repeats_nor_loses_an_iteration() {
    let mut sim = gated("confirm-promotion", json!({"iterations": 2}));
    seconds(&mut sim, 65);
    sim.closed.clear();
    sim.run_until(CanaryPhase::Succeeded);
    let sent = |text: &str| {
        sim.notified
            .iter()
            .filter(|line| line.contains(text))
            .count()
    };
    assert_eq!(sent("canary iteration 2/2"), 1);
    transcript("confirm-promotion-blue-green", &sim);
}

#[test]
fn the_metrics_are_still_checked_while_a_version_waits_for_its_promotion() {
    let mut sim = gated(
        "confirm-promotion",
        json!({"stepWeight": 50, "maxWeight": 50, "threshold": 2}),
    );
    while sim.snapshot.phase() != CanaryPhase::WaitingPromotion {
        sim.reconcile();
    }
    sim.metric = "42".to_owned();
    sim.run_until(CanaryPhase::Failed);
    let event =
        "Warning [WaitingPromotion] Rolling back podinfo.test failed checks threshold reached 2";
    assert!(
        sim.notified.iter().any(|line| line == event),
        "{}",
        sim.transcript()
    );
}

/// Flagger sends the alert at every step.
#[test]
fn a_closed_gate_is_reported_once_and_then_less_and_less_often() {
    for gate in [
        "confirm-rollout",
        "confirm-traffic-increase",
        "confirm-promotion",
    ] {
        let mut sim = gated(gate, json!({"stepWeight": 50, "maxWeight": 50}));
        seconds(&mut sim, 5 * 3600);
        let alerts = sim.count_notified("alert Warn");
        assert_eq!(alerts, 4, "{gate}: {:#?}", sim.notified);
    }
}

#[test]
fn the_traffic_stays_until_its_increase_is_approved() {
    let mut sim = gated(
        "confirm-traffic-increase",
        json!({"stepWeight": 50, "maxWeight": 50}),
    );
    seconds(&mut sim, 35);
    assert!(sim.routed.is_empty());
    sim.closed.clear();
    sim.run_until(CanaryPhase::Succeeded);
    transcript("confirm-traffic-increase", &sim);
}

/// A pre-rollout hook has effects. So it is called once, when no gate holds the version any more.
#[test]
fn no_hook_is_called_behind_a_closed_gate() {
    let hook = |name: &str, kind: &str| json!({"name": name, "type": kind, "url": format!("http://hooks/{name}")});
    let hooks = [
        hook("acceptance", "pre-rollout"),
        hook("gate", "confirm-traffic-increase"),
    ];
    let mut sim = release(json!({"stepWeight": 50, "maxWeight": 50, "webhooks": hooks}));
    sim.closed.insert("gate");
    seconds(&mut sim, 65);
    assert_eq!(
        (sim.count("call   gate"), sim.count("call   acceptance")),
        (6, 0),
        "{}",
        sim.transcript()
    );
    assert_eq!(sim.count_notified("Starting canary analysis"), 0);
    sim.closed.clear();
    sim.run_until(CanaryPhase::Succeeded);
    assert_eq!(sim.count("call   acceptance"), 1, "{}", sim.transcript());
    // Before the first step and before the promotion.
    assert_eq!(
        sim.count_notified("Confirm-traffic-increase check gate passed"),
        2
    );
}

/// Iterations of an earlier strategy do not open the gate of the first traffic.
#[test]
fn an_ab_test_that_becomes_a_canary_gets_no_traffic_behind_a_closed_gate() {
    let test = json!([{"headers": {"x-user": {"exact": "insider"}}}]);
    let mut sim = gated(
        "confirm-traffic-increase",
        json!({"iterations": 5, "match": test}),
    );
    while sim.snapshot.status().iterations < 2 {
        sim.reconcile();
    }
    let gate =
        json!([{"name": "gate", "type": "confirm-traffic-increase", "url": "http://hooks/gate"}]);
    sim.edit(
        "analysis",
        &json!({"stepWeight": 20, "threshold": 5, "webhooks": gate}),
    );
    sim.route(0);
    sim.routed.clear();
    seconds(&mut sim, 65);
    assert!(
        sim.routed.iter().all(|weight| *weight == 0),
        "{}",
        sim.transcript()
    );
    sim.closed.clear();
    sim.run_until(CanaryPhase::Succeeded);
}

#[test]
fn a_muted_gate_sends_no_alert() {
    let hook = json!({"name": "gate", "type": "confirm-rollout", "url": "http://hooks/gate", "muteAlert": true});
    let mut sim = release(json!({"stepWeight": 50, "webhooks": [hook]}));
    sim.closed.insert("gate");
    seconds(&mut sim, 30);
    assert!(
        sim.notified
            .iter()
            .any(|line| line.contains("waiting for approval gate"))
    );
    assert!(!sim.notified.iter().any(|line| line.contains("alert")));
}

#[test]
fn a_rollback_webhook_rolls_a_version_back() {
    let mut sim = gated("rollback", json!({"stepWeight": 20}));
    seconds(&mut sim, 25);
    sim.closed.clear();
    sim.run_until(CanaryPhase::Failed);
    transcript("rollback-by-hook", &sim);
}

/// Flagger runs such a version nevertheless.
#[test]
fn a_version_that_is_withdrawn_by_its_user_while_it_waits_is_not_run() {
    let mut sim = gated("confirm-rollout", json!({"stepWeight": 50}));
    seconds(&mut sim, 15);
    assert_eq!(sim.snapshot.phase(), CanaryPhase::Waiting);
    sim.image("podinfo:1");
    sim.closed.clear();
    sim.run_until(CanaryPhase::Succeeded);
    assert!(sim.routed.is_empty());
}

#[test]
fn a_newer_version_takes_the_place_of_the_one_that_waits() {
    let mut sim = gated("confirm-rollout", json!({"stepWeight": 50}));
    seconds(&mut sim, 15);
    sim.image("podinfo:3");
    sim.closed.clear();
    sim.run_until(CanaryPhase::Succeeded);
    assert!(sim.outcome().contains("podinfo:3"), "{}", sim.outcome());
}

#[test]
fn a_hook_that_fails_holds_the_version_back_and_then_rolls_it_back() {
    for (kind, check, routed) in [
        ("pre-rollout", "pre-rollout check", &[][..]),
        ("rollout", "external check", &[20, 0]),
    ] {
        let mut sim = gated(kind, json!({"stepWeight": 20, "threshold": 2}));
        sim.run_until(CanaryPhase::Failed);
        assert_eq!(sim.routed, routed, "{}", sim.transcript());
        let why =
            format!("Warning [Progressing] Halt podinfo.test advancement {check} gate failed ");
        assert_eq!(sim.count_notified(&why), 2, "{:#?}", sim.notified);
    }
}
