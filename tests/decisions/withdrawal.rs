//! A canary without ready pods loses its traffic at once.

use flagger_rs::{api::canary::CanaryPhase, snapshot::Kind};
use serde_json::json;

use super::{
    simulation::{Simulation, release},
    transcript,
};

fn at_weight(weight: u8) -> Simulation {
    let mut sim = release(json!({"stepWeight": 20, "maxWeight": 40, "threshold": 2}));
    while sim.canary_weight() < weight {
        sim.reconcile();
    }
    sim
}

/// With Flagger, a fifth of the requests fails until the progress deadline, ten minutes by default.
#[test]
fn a_canary_whose_pods_are_gone_gets_no_traffic() {
    let mut sim = at_weight(20);
    sim.dead = true;
    sim.reconcile();
    assert_eq!(sim.canary_weight(), 0);
    sim.dead = false;
    sim.run_until(CanaryPhase::Succeeded);
    transcript("canary-without-pods", &sim);
}

#[test]
fn a_version_that_keeps_losing_its_pods_is_rolled_back() {
    let mut sim = at_weight(20);
    for _ in 0..2 {
        sim.dead = true;
        sim.reconcile();
        sim.dead = false;
        sim.run(25);
    }
    sim.run_until(CanaryPhase::Failed);
}

#[test]
fn a_canary_whose_target_was_deleted_gets_no_traffic() {
    let mut sim = at_weight(20);
    let target = sim.snapshot.reference(Kind::Deployment, "podinfo");
    let deleted = sim.snapshot.objects.remove(&target).unwrap();
    sim.reconcile();
    assert_eq!(sim.canary_weight(), 0);
    sim.snapshot.objects.insert(target, deleted);
    sim.run_until(CanaryPhase::Succeeded);
}

#[test]
fn a_promotion_continues_if_the_canary_loses_its_pods() {
    let mut sim = at_weight(40);
    sim.run_until_phase(CanaryPhase::Promoting);
    sim.dead = true;
    sim.reconcile();
    sim.reconcile();
    assert_eq!(sim.canary_weight(), 0);
    sim.dead = false;
    sim.run_until(CanaryPhase::Succeeded);
}

#[test]
fn a_new_version_that_replaces_all_pods_is_no_failed_check() {
    let mut sim = at_weight(20);
    sim.image("podinfo:3");
    sim.dead = true;
    sim.reconcile();
    let status = sim.snapshot.canary.status.clone().unwrap();
    assert_eq!(sim.canary_weight(), 0);
    assert_eq!((status.failed_checks, status.canary_weight), (0, 0));
    let last = sim.notified.last().unwrap();
    assert!(last.contains("Restarting analysis"), "{last}");
    sim.dead = false;
    sim.run_until(CanaryPhase::Succeeded);
    assert!(sim.outcome().contains("podinfo:3"), "{}", sim.outcome());
}

/// The crash prevents the write of the status, which still has the old weight. The version must not be promoted on it.
#[test]
fn a_version_whose_withdrawal_was_interrupted_by_a_crash_repeats_its_steps() {
    let mut sim = at_weight(40);
    sim.dead = true;
    sim.crash_after = Some(sim.writes + 1);
    sim.reconcile();
    assert_eq!(sim.canary_weight(), 0);
    let weight = sim.snapshot.canary.status.as_ref().unwrap().canary_weight;
    assert_eq!(weight, 40, "no status was written");
    sim.dead = false;
    let steps = sim.routed.len();
    sim.run_until(CanaryPhase::Succeeded);
    assert_eq!(sim.routed[steps..], [20, 40, 0]);
}

#[test]
fn an_ab_test_whose_traffic_was_withdrawn_repeats_all_its_iterations() {
    let test = json!([{"headers": {"x-canary": {"exact": "insider"}}}]);
    let mut sim = release(json!({"iterations": 2, "match": test}));
    while sim.canary_weight() == 0 {
        sim.reconcile();
    }
    sim.dead = true;
    sim.crash_after = Some(sim.writes + 1);
    sim.reconcile();
    assert_eq!(sim.canary_weight(), 0);
    sim.dead = false;
    let iteration = |sim: &Simulation, what| {
        let sent = sim.notified.iter();
        sent.filter(|line| line.contains(what)).count()
    };
    let before = iteration(&sim, "canary iteration 1/2");
    sim.run_until(CanaryPhase::Succeeded);
    assert_eq!(iteration(&sim, "canary iteration 1/2"), before + 1);
}
