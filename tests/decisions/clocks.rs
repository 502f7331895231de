//! Releases that a process continues whose clock is five minutes behind that of the process before it.

use flagger_rs::api::canary::CanaryPhase;
use jiff::SignedDuration;
use serde_json::{Value, json};

use super::simulation::{Simulation, release};

/// The longest time until the next write: an interval, and the seconds that reconciliations take.
const INTERVAL: i64 = 10;

/// The phases in which a release waits, and the analysis of that release.
fn waits() -> Vec<(CanaryPhase, Value)> {
    use CanaryPhase as P;
    let gate = |kind| json!({"stepWeight": 50, "maxWeight": 50, "webhooks": [{"name": "gate", "type": kind, "url": "http://hooks/gate"}]});
    let weights = json!({"stepWeight": 50, "maxWeight": 50});
    vec![
        (P::Waiting, gate("confirm-rollout")),
        (P::WaitingPromotion, gate("confirm-promotion")),
        (P::Progressing, weights.clone()),
        (P::Progressing, json!({"iterations": 2})),
        (P::Promoting, weights.clone()),
        (P::Finalising, weights),
    ]
}

/// Seconds until the operator writes something.
fn until_the_next_write(sim: &mut Simulation) -> i64 {
    let (start, writes) = (sim.snapshot.now.as_second(), sim.writes);
    while sim.writes == writes && sim.snapshot.now.as_second() < start + 1000 {
        sim.reconcile();
    }
    sim.snapshot.now.as_second() - start
}

fn behind(sim: &mut Simulation) {
    sim.hand_over(SignedDuration::from_mins(5));
    sim.closed.clear();
}

#[test]
fn each_phase_goes_on_within_an_interval_if_its_status_is_from_the_future() {
    for (phase, analysis) in waits() {
        let mut sim = release(analysis.clone());
        sim.closed.insert("gate");
        sim.run_until_phase(phase);
        behind(&mut sim);
        let waited = until_the_next_write(&mut sim);
        assert!(waited <= INTERVAL + 1, "{phase} {analysis}: {waited} s");
        sim.run_until(CanaryPhase::Succeeded);
    }
}

#[test]
fn an_initialization_goes_on_within_an_interval_if_its_status_is_from_the_future() {
    let mut sim = Simulation::new(json!({"analysis": {"stepWeight": 50}}));
    sim.run_until_phase(CanaryPhase::Initializing);
    behind(&mut sim);
    let waited = until_the_next_write(&mut sim);
    assert!(waited <= INTERVAL + 1, "{waited} s");
    sim.run_until(CanaryPhase::Initialized);
}

#[test]
fn a_failed_version_is_scaled_to_zero_in_time_if_its_status_is_from_the_future() {
    let mut sim = release(json!({"stepWeight": 50, "threshold": 1}));
    sim.run_until_phase(CanaryPhase::Progressing);
    sim.metric = "42".to_owned();
    sim.run_until_phase(CanaryPhase::Failed);
    behind(&mut sim);
    let start = sim.snapshot.now.as_second();
    sim.run_until(CanaryPhase::Failed);
    let waited = sim.snapshot.now.as_second() - start;
    assert!(waited <= INTERVAL + 1, "{waited} s");
}

#[test]
fn a_deletion_goes_on_in_time_if_its_status_is_from_the_future() {
    let mut sim = release(json!({"stepWeight": 50}));
    sim.snapshot.canary.spec.revert_on_deletion = true;
    sim.run_until(CanaryPhase::Succeeded);
    sim.delete();
    sim.run_until_phase(CanaryPhase::Terminating);
    behind(&mut sim);
    let start = sim.snapshot.now.as_second();
    while !sim.is_gone() && sim.snapshot.now.as_second() < start + 1000 {
        sim.reconcile();
    }
    let waited = sim.snapshot.now.as_second() - start;
    assert!(waited <= 3 * INTERVAL, "{waited} s");
}
