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

/// The route of the first step is written before the status. An operator that crashes in between repeats the step: requests are mirrored
/// for an interval, and the gate of the traffic is asked and reported.
#[test]
fn a_crash_at_any_write_of_a_mirrored_release_cuts_no_interval_short() {
    let gate =
        json!({"name": "gate", "type": "confirm-traffic-increase", "url": "http://hooks/gate"});
    let analysis = json!({"stepWeight": 20, "maxWeight": 40, "mirror": true, "webhooks": [gate]});
    let play = |crash: Option<usize>| {
        let mut sim = release(analysis.clone());
        sim.crash_after = crash;
        sim.run_until(CanaryPhase::Succeeded);
        sim
    };
    let mirrored_for =
        |sim: &Simulation| sim.seconds("canary 20") - sim.seconds("canary 0 mirrored");
    let passed =
        |sim: &Simulation| sim.count_notified("Confirm-traffic-increase check gate passed");
    let undisturbed = play(None);
    assert_eq!(mirrored_for(&undisturbed), 10);
    let mut repeated = 0;
    for crash in 1..=undisturbed.writes {
        let sim = play(Some(crash));
        let transcript = sim.transcript();
        assert!(
            mirrored_for(&sim) >= 10,
            "crashed after write {crash}:\n{transcript}"
        );
        let lines: Vec<_> = transcript.lines().collect();
        let is_uncommitted =
            |pair: &[&str]| pair[0].ends_with("mirrored") && pair[1].ends_with("CRASH");
        if lines.windows(2).any(is_uncommitted) {
            assert_eq!(passed(&sim), passed(&undisturbed), "{transcript}");
            repeated += 1;
        }
    }
    assert_eq!(repeated, 1);
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
