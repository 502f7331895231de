//! When a step is taken: with enough ready pods on both sides, and a whole interval after the step before.

use flagger_rs::api::canary::CanaryPhase;
use serde_json::{Value, json};

use super::simulation::{Rollout, Simulation, release};

/// A release at its first weight, when its next step is due and each side has these pods.
fn at_a_tick(analysis: Value, canary: Rollout, primary: Rollout) -> Simulation {
    let mut analysis = analysis;
    analysis["stepWeight"] = json!(20);
    let mut sim = release(analysis);
    while sim.snapshot.phase() != CanaryPhase::Progressing || sim.canary_weight() == 0 {
        sim.reconcile();
    }
    while sim.snapshot.tick.is_none() {
        sim.reconcile();
    }
    sim.notified.clear();
    sim.frozen = true;
    sim.roll_out("podinfo", canary);
    sim.roll_out("podinfo-primary", primary);
    sim
}

/// The warning about pods that are not ready; empty if the step is taken.
fn waits(analysis: Value, canary: Rollout, primary: Rollout) -> String {
    let mut sim = at_a_tick(analysis, canary, primary);
    let weight = sim.canary_weight();
    while sim.frozen && sim.canary_weight() == weight {
        sim.reconcile();
    }
    assert_eq!(
        sim.notified.iter().any(|line| line.contains("not ready")),
        sim.canary_weight() == weight
    );
    let of_pods = sim.notified.iter().find(|line| line.contains("not ready"));
    of_pods.cloned().unwrap_or_default()
}

#[test]
fn each_side_has_its_own_ready_threshold() {
    use Rollout::{Partly, Ready};
    let canary_waits = "Warning [Progressing] canary deployment podinfo.test not ready: waiting for rollout to finish: 1 of 2 (readyThreshold 100%) updated replicas are available";
    let primary_waits = "Warning [Progressing] podinfo-primary.test not ready: waiting for rollout to finish: 1 of 2 (readyThreshold 100%) updated replicas are available";
    let none = || json!({});
    assert_eq!(waits(none(), Ready, Ready), "");
    assert_eq!(waits(none(), Partly, Ready), canary_waits);
    assert_eq!(waits(none(), Ready, Partly), primary_waits);
    let canary = || json!({"canaryReadyThreshold": 50});
    assert_eq!(waits(canary(), Partly, Ready), "");
    assert_eq!(waits(canary(), Ready, Partly), primary_waits);
    let primary = || json!({"primaryReadyThreshold": 50});
    assert_eq!(waits(primary(), Partly, Ready), canary_waits);
    assert_eq!(waits(primary(), Ready, Partly), "");
}

/// The seconds at which the canary's weight changed.
fn steps(sim: &Simulation) -> Vec<i64> {
    let transcript = sim.transcript();
    let of_routes = transcript
        .lines()
        .filter(|line| line.contains("       primary "));
    let second = |line: &str| line.split_whitespace().next()?.parse().ok();
    of_routes.map(|line| second(line).unwrap()).collect()
}

#[test]
fn a_step_comes_an_interval_after_the_step_before() {
    let mut sim = release(json!({"stepWeight": 20, "maxWeight": 60}));
    sim.run_until(CanaryPhase::Succeeded);
    let steps = steps(&sim);
    let gaps: Vec<_> = steps.windows(2).map(|pair| pair[1] - pair[0]).collect();
    // Between the last two, the primary gets the version.
    assert_eq!(gaps, [10, 10, 20], "{steps:?}\n{}", sim.transcript());
}

/// The interval counts from the end of a step that took longer than one. Otherwise the next step would follow at once, and a version
/// would be judged by the requests of no time.
#[test]
fn a_step_comes_a_whole_interval_after_a_slow_one() {
    let mut sim = release(json!({"stepWeight": 20, "maxWeight": 60}));
    sim.answers_take = 12;
    sim.run_until(CanaryPhase::Succeeded);
    let mut routed_at = None;
    for line in sim.transcript().lines() {
        let second: i64 = line.split_whitespace().next().unwrap().parse().unwrap();
        if line.contains("       primary ") {
            routed_at = Some(second);
        } else if line.contains("call ")
            && let Some(routed) = routed_at.take()
        {
            assert!(second - routed >= 10, "{line}\n{}", sim.transcript());
        }
    }
}

/// A burst of edits is one run, of the last version.
#[test]
fn a_burst_of_edits_is_one_run() {
    let mut sim = release(json!({"stepWeight": 20}));
    sim.image("podinfo:3");
    sim.reconcile();
    sim.image("podinfo:4");
    sim.run_until(CanaryPhase::Succeeded);
    assert_eq!(
        sim.count_notified("New revision detected! Scaling up podinfo.test"),
        1,
        "{:?}",
        sim.notified
    );
    assert!(sim.outcome().contains("podinfo:4"), "{}", sim.outcome());
}
