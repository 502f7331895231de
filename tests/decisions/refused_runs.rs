//! Runs that an edit of the Canary makes impossible. Their versions must not keep traffic without an analysis.

use flagger_rs::{
    api::canary::{CanaryMetric, CanaryPhase},
    rollout,
    snapshot::Weights,
};
use serde_json::json;

use super::{
    routers::{ROUTERS, Row},
    routes::on,
    simulation::{Simulation, release, release_of},
};

/// An A/B test by a header, on each router that can run it.
fn ab_tests() -> impl Iterator<Item = (&'static Row, Simulation)> {
    let rows = ROUTERS.iter().filter(|row| row.tests());
    rows.map(|row| {
        let header = json!({"headers": {"x-user": {"exact": "insider"}}});
        let analysis = json!({"threshold": 1, "iterations": 50, "match": [header]});
        (row, on(row.provider, analysis))
    })
}

/// Any change of a Canary.
type Edit = fn(&mut Simulation);

/// The changes that make a run impossible, and a part of the reason that users read.
const EDITS: [(Edit, &str); 6] = [
    (
        |sim| {
            sim.snapshot
                .canary
                .spec
                .analysis
                .as_mut()
                .unwrap()
                .step_weight = Some(0)
        },
        "spec.analysis.stepWeight: must be greater than 0",
    ),
    (
        |sim| sim.snapshot.canary.spec.service.port = 0,
        "spec.service.port: 0 is not a port",
    ),
    (
        |sim| sim.snapshot.canary.spec.analysis = None,
        "spec.analysis: required",
    ),
    (
        |sim| sim.conflict("older.test"),
        "older.test has the same target",
    ),
    (
        |sim| {
            let analysis = sim.snapshot.canary.spec.analysis.as_mut().unwrap();
            analysis.metrics = vec![CanaryMetric::default(); 101];
        },
        "spec.analysis.metrics: 101 entries, but at most 100 are supported",
    ),
    (
        too_many_combinations,
        "1000000 combined conditions, but at most 1000 are supported",
    ),
];

fn too_many_combinations(sim: &mut Simulation) {
    let conditions = |header: &str| vec![json!({"headers": {header: {"exact": "x"}}}); 1000];
    let spec = &mut sim.snapshot.canary.spec;
    spec.service.match_ = Some(conditions("a"));
    spec.analysis.as_mut().unwrap().match_ = conditions("b");
}

fn steps(confirm: bool) -> Simulation {
    let mut analysis = json!({"stepWeight": 20, "maxWeight": 40, "threshold": 5});
    if confirm {
        analysis["webhooks"] = json!([{"name": "approve", "type": "confirm-promotion", "url": "http://hooks/approve"}]);
    }
    let mut sim = release(analysis);
    if confirm {
        sim.closed.insert("approve");
    }
    sim
}

fn position(sim: &Simulation) -> (CanaryPhase, u8) {
    (sim.snapshot.phase(), sim.canary_weight())
}

fn run_until_position(sim: &mut Simulation, end: (CanaryPhase, u8)) {
    for _ in 0..500 {
        if position(sim) == end {
            return;
        }
        sim.reconcile();
    }
    panic!("{end:?} was never reached:\n{}", sim.transcript());
}

#[test]
fn a_version_under_analysis_that_can_no_longer_be_judged_is_rolled_back() {
    for (confirm, phase, weight) in [
        (false, CanaryPhase::Progressing, 20),
        (true, CanaryPhase::WaitingPromotion, 40),
    ] {
        for (edit, why) in EDITS {
            let mut sim = steps(confirm);
            run_until_position(&mut sim, (phase, weight));
            edit(&mut sim);
            // One reconcile records the decision, the next one moves the traffic.
            sim.run(2);
            assert_eq!(sim.canary_weight(), 0, "{phase} {why}");
            sim.run(120);
            assert_eq!(position(&sim), (CanaryPhase::Failed, 0), "{phase} {why}");
            for start in ["Warning [", "alert Error"] {
                let is_reported = |line: &String| line.starts_with(start) && line.contains(why);
                assert!(
                    sim.notified.iter().any(is_reported),
                    "{start} {why}: {:#?}",
                    sim.notified
                );
            }
        }
    }
}

#[test]
fn a_promotion_ends_although_the_canary_became_invalid() {
    for phase in [CanaryPhase::Promoting, CanaryPhase::Finalising] {
        for (edit, why) in EDITS {
            let mut sim = steps(false);
            sim.run_until_phase(phase);
            edit(&mut sim);
            sim.run(300);
            assert_eq!(position(&sim), (CanaryPhase::Succeeded, 0), "{phase} {why}");
            assert!(sim.outcome().contains("podinfo:2"), "{}", sim.outcome());
        }
    }
}

/// A user corrects the Canary: the next version is released.
#[test]
fn a_corrected_canary_releases_the_next_version() {
    for (edit, why) in EDITS {
        let mut sim = steps(false);
        run_until_position(&mut sim, (CanaryPhase::Progressing, 20));
        let before = sim.snapshot.canary.spec.clone();
        edit(&mut sim);
        sim.run(120);
        sim.snapshot.canary.spec = before;
        sim.snapshot.conflicting_canary = None;
        sim.image("podinfo:3");
        sim.run_until(CanaryPhase::Succeeded);
        assert!(sim.outcome().contains("podinfo:3"), "{why}");
    }
}

/// A user changes the conditions of a running test to conditions that the provider cannot express. No other request reaches the canary.
#[test]
fn an_ab_test_that_becomes_inexpressible_is_rolled_back() {
    for (row, mut sim) in ab_tests() {
        let (provider, rules) = (row.provider, row.rules.unwrap());
        let route = sim.snapshot.reference(rules.kind, rules.name);
        while rollout::weights(&sim.snapshot) != Some(Weights::CANARY) {
            sim.reconcile();
        }
        let before = sim.snapshot.objects[&route].clone();
        let analysis = sim.snapshot.canary.spec.analysis.as_mut().unwrap();
        let test = std::mem::replace(&mut analysis.match_, vec![json!({"unknown": "x"})]);
        sim.reconcile();
        assert_eq!(sim.snapshot.objects[&route], before, "{provider}");
        sim.reconcile();
        assert_eq!(
            rollout::weights(&sim.snapshot),
            Some(Weights::PRIMARY),
            "{provider}"
        );
        sim.run(120);
        assert_eq!(sim.snapshot.phase(), CanaryPhase::Failed, "{provider}");
        let is_reported = |line: &String| line.contains("run cannot go on: spec.analysis.match");
        assert!(sim.notified.iter().any(is_reported), "{:?}", sim.notified);
        let analysis = sim.snapshot.canary.spec.analysis.as_mut().unwrap();
        analysis.match_ = test;
        sim.image("podinfo:3");
        while rollout::weights(&sim.snapshot) != Some(Weights::CANARY) {
            sim.reconcile();
        }
    }
}

/// The rollback writes routes, and must not build all combinations of the conditions for them.
#[test]
fn an_ab_test_with_too_many_conditions_is_rolled_back() {
    for (Row { provider, .. }, mut sim) in ab_tests() {
        while rollout::weights(&sim.snapshot) != Some(Weights::CANARY) {
            sim.reconcile();
        }
        too_many_combinations(&mut sim);
        sim.run(2);
        let weights = rollout::weights(&sim.snapshot);
        assert_eq!(weights, Some(Weights::PRIMARY), "{provider}");
        sim.run(120);
        assert_eq!(sim.snapshot.phase(), CanaryPhase::Failed, "{provider}");
    }
}

/// A TrafficSplit cannot send only some requests to the canary.
#[test]
fn a_run_in_steps_that_becomes_an_inexpressible_ab_test_is_rolled_back() {
    let mut sim = release_of(json!({"provider": "linkerd", "analysis": {"stepWeight": 20}}));
    run_until_position(&mut sim, (CanaryPhase::Progressing, 20));
    let test = json!([{"headers": {"x-user": {"exact": "insider"}}}]);
    sim.edit("analysis", &json!({"iterations": 2, "match": test}));
    sim.run(120);
    assert_eq!(position(&sim), (CanaryPhase::Failed, 0));
    assert!(sim.count_notified("use another provider") > 0);
}

/// The version has passed its A/B test.
#[test]
fn an_ab_test_that_becomes_inexpressible_in_its_promotion_is_promoted() {
    for (Row { provider, .. }, mut sim) in ab_tests() {
        let analysis = sim.snapshot.canary.spec.analysis.as_mut().unwrap();
        analysis.iterations = Some(2);
        sim.run_until_phase(CanaryPhase::Promoting);
        let analysis = sim.snapshot.canary.spec.analysis.as_mut().unwrap();
        analysis.match_ = vec![json!({"unknown": "x"})];
        sim.run(200);
        let end = (sim.snapshot.phase(), rollout::weights(&sim.snapshot));
        let expected = (CanaryPhase::Succeeded, Some(Weights::PRIMARY));
        assert_eq!(end, expected, "{provider}");
    }
}
