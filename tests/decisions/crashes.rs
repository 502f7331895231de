//! Checks that a release ends the same if the operator crashes after any of its writes.

use flagger_rs::api::canary::CanaryPhase;
use serde_json::{Value, json};

use super::simulation::{Simulation, release};

/// Crashes after each write in turn. The outcome and the steps must be those of a release without a crash.
fn crash_at_every_write(analysis: &Value, metric: &str, end: CanaryPhase) {
    crash_at_every_write_of(|| release(analysis.clone()), metric, end);
}

/// Like `crash_at_every_write`, for a release that begins in this way.
pub fn crash_at_every_write_of(start: impl Fn() -> Simulation, metric: &str, end: CanaryPhase) {
    let play = |crash: Option<usize>| {
        let mut sim = start();
        sim.metric = metric.to_owned();
        sim.crash_after = crash;
        sim.run_until(end);
        sim
    };
    let undisturbed = play(None);
    assert!(undisturbed.writes > 5);
    for crash in 1..=undisturbed.writes {
        let sim = play(Some(crash));
        assert_eq!(
            sim.outcome(),
            undisturbed.outcome(),
            "crashed after write {crash}:\n{}",
            sim.transcript()
        );
        let steps = |sim: &Simulation| {
            sim.routed
                .iter()
                .copied()
                .fold(Vec::new(), |mut all: Vec<u8>, w| {
                    if all.last() != Some(&w) {
                        all.push(w);
                    }
                    all
                })
        };
        assert_eq!(
            steps(&sim),
            steps(&undisturbed),
            "crashed after write {crash}: the steps differ"
        );
        let ends = sim
            .notified
            .iter()
            .filter(|line| line.contains("Promotion completed!") || line.contains("Canary failed!"))
            .count();
        assert!(
            ends >= 1,
            "crashed after write {crash}: no event announced the end"
        );
    }
}

#[test]
fn a_crash_at_any_write_of_a_release_loses_nothing() {
    crash_at_every_write(
        &json!({"stepWeight": 20, "maxWeight": 50}),
        "100",
        CanaryPhase::Succeeded,
    );
}

#[test]
fn a_crash_at_any_write_of_a_rollback_completes_it() {
    crash_at_every_write(
        &json!({"stepWeight": 20, "threshold": 2}),
        "97.5",
        CanaryPhase::Failed,
    );
}

#[test]
fn a_crash_at_any_write_of_blue_green_loses_nothing() {
    crash_at_every_write(&json!({"iterations": 2}), "100", CanaryPhase::Succeeded);
}
