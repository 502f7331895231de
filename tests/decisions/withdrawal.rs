//! A canary that cannot answer gets no traffic.

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

/// Flagger leaves a fifth of the clients with errors until the progress deadline, ten minutes by default.
#[test]
fn clients_do_not_meet_a_canary_whose_pods_are_gone() {
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
fn clients_do_not_meet_a_canary_that_somebody_deleted() {
    let mut sim = at_weight(20);
    let target = sim.snapshot.reference(Kind::Deployment, "podinfo");
    let deleted = sim.snapshot.objects.remove(&target).unwrap();
    sim.reconcile();
    assert_eq!(sim.canary_weight(), 0);
    sim.snapshot.objects.insert(target, deleted);
    sim.run_until(CanaryPhase::Succeeded);
}

#[test]
fn a_promotion_whose_canary_dies_goes_on() {
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
fn a_new_version_whose_pods_take_the_place_of_the_old_ones_is_no_failed_check() {
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

/// With the status, what the version had come to was lost: it would be promoted without having served since.
#[test]
fn a_version_whose_withdrawal_was_cut_off_takes_its_steps_anew() {
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
fn an_ab_test_whose_traffic_was_taken_back_has_all_its_iterations_anew() {
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
        let told = sim.notified.iter();
        told.filter(|line| line.contains(what)).count()
    };
    let before = iteration(&sim, "canary iteration 1/2");
    sim.run_until(CanaryPhase::Succeeded);
    assert_eq!(iteration(&sim, "canary iteration 1/2"), before + 1);
}
