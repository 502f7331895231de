//! The readiness and the interval before a step: it needs enough ready pods on both sides, and a whole interval after the step before.

use std::collections::BTreeMap;

use flagger_rs::{
    api::canary::CanaryPhase,
    shell::controller::reconcile_state::ReconcileState,
    snapshot::{Kind, ObjectRef, Progress},
};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::simulation::{Rollout, Simulation, release, release_of};

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
    // Between the last two steps, the primary gets the version.
    assert_eq!(gaps, [10, 10, 20], "{steps:?}\n{}", sim.transcript());
}

/// The interval counts from the end of a step that took longer than an interval. Otherwise the next step would follow at once, and would
/// judge a version without requests.
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

/// The workloads that a run waits for, and the phases in which it does.
const WAITS: [(&str, CanaryPhase); 7] = [
    ("podinfo", CanaryPhase::Progressing),
    ("podinfo-primary", CanaryPhase::Progressing),
    ("podinfo", CanaryPhase::WaitingPromotion),
    ("podinfo-primary", CanaryPhase::WaitingPromotion),
    ("podinfo", CanaryPhase::Promoting),
    ("podinfo-primary", CanaryPhase::Promoting),
    ("podinfo-primary", CanaryPhase::Finalising),
];

/// A release in this phase. Before it lost a pod, it has waited at a gate for longer than its deadline of 60 s, if the phase has one.
fn in_phase(kind: &str, phase: CanaryPhase) -> Simulation {
    let gate =
        json!({"name": "promotion", "type": "confirm-promotion", "url": "http://hooks/gate"});
    let analysis =
        json!({"stepWeight": 50, "maxWeight": 50, "stepWeightPromotion": 10, "webhooks": [gate]});
    let target = json!({"apiVersion": "apps/v1", "kind": kind, "name": "podinfo"});
    let mut sim = release_of(
        json!({"targetRef": target, "progressDeadlineSeconds": 60, "analysis": analysis}),
    );
    if phase == CanaryPhase::WaitingPromotion {
        sim.closed.insert("gate");
    }
    sim.run_until_phase(phase);
    if phase == CanaryPhase::WaitingPromotion {
        sim.run(200);
    }
    sim
}

fn has_failed(sim: &Simulation) -> bool {
    let conditions = sim.snapshot.status().conditions.iter().flatten();
    let mut types = conditions.map(|condition| condition.type_.as_str());
    sim.snapshot.phase() == CanaryPhase::Failed || types.any(|type_| type_ == "RollingBack")
}

/// The deadline counts from the loss of the pod, whatever the release has waited for before. Kubernetes calls such a workload available,
/// because its strategy allows a pod to be missing. Kubernetes' own deadline does not count after a workload was scaled.
#[test]
fn a_release_that_lacks_one_pod_fails_after_its_deadline_in_every_phase() {
    for kind in ["Deployment", "DaemonSet"] {
        for (workload, phase) in WAITS {
            let mut sim = in_phase(kind, phase);
            sim.short = Some(workload);
            let lost = sim.snapshot.now.as_second();
            while !has_failed(&sim) && sim.snapshot.now.as_second() < lost + 200 {
                sim.reconcile();
            }
            let took = sim.snapshot.now.as_second() - lost;
            let which = format!("{kind} {workload} in {phase}");
            assert!(
                (60..=72).contains(&took),
                "{which}: {took}\n{}",
                sim.transcript()
            );
        }
    }
}

#[test]
fn a_release_that_gets_its_pod_back_within_the_deadline_goes_on() {
    for (workload, phase) in WAITS {
        let mut sim = in_phase("Deployment", phase);
        for _ in 0..3 {
            sim.short = Some(workload);
            sim.run(45);
            sim.short = None;
            sim.run(2);
        }
        sim.closed.clear();
        sim.run_until(CanaryPhase::Succeeded);
    }
}

/// As with Kubernetes' own deadline, a rollout of many pods may take long, if pods keep becoming ready.
#[test]
fn a_rollout_that_makes_progress_does_not_reach_the_deadline() {
    let mut memory = ReconcileState::default();
    let workload = ObjectRef {
        kind: Kind::Deployment,
        namespace: "test".into(),
        name: "podinfo".into(),
    };
    let mut stalled = |second: i64, rollout: i64, pods: i64| {
        let progress = [(workload.clone(), Progress { rollout, pods })].into();
        let now = Timestamp::from_second(second).unwrap();
        memory.stalled(progress, now)[&workload].as_second()
    };
    assert_eq!(stalled(10, 1, 3), 10);
    assert_eq!(stalled(20, 1, 3), 10, "no pod more");
    assert_eq!(stalled(30, 1, 4), 30, "one more");
    assert_eq!(stalled(40, 1, 3), 30, "one fewer");
    assert_eq!(
        stalled(50, 1, 4),
        30,
        "a pod that comes and goes is no progress"
    );
    assert_eq!(stalled(60, 2, 0), 60, "another rollout");
    assert!(
        memory
            .stalled(BTreeMap::new(), Timestamp::from_second(70).unwrap())
            .is_empty()
    );
}
