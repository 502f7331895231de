//! Known defects of Flagger that are fixed here. Each test would fail with Flagger's behaviour.

use flagger_rs::{api::canary::CanaryPhase, snapshot::Kind};
use serde_json::{Value, json};

use super::simulation::{Simulation, release, release_of};

fn at_the_first_step(analysis: Value) -> Simulation {
    let mut sim = release(analysis);
    while sim.canary_weight() == 0 {
        sim.reconcile();
    }
    sim
}

/// Flagger can leave the primary without pods.
#[test]
fn a_crash_in_a_release_without_analysis_leaves_the_pods_of_the_primary() {
    let start = || release_of(json!({"skipAnalysis": true, "analysis": {"stepWeight": 50}}));
    crash_at_every_write_with(start, 3);
    for crash in 1..8 {
        let mut sim = start();
        sim.crash_after = Some(crash);
        sim.run_until(CanaryPhase::Succeeded);
        assert_eq!(sim.snapshot.primary().unwrap()["spec"]["replicas"], 2);
    }
}

fn crash_at_every_write_with(start: impl Fn() -> Simulation, least: usize) {
    let mut undisturbed = start();
    undisturbed.run_until(CanaryPhase::Succeeded);
    assert!(undisturbed.writes >= least);
    for crash in 1..=undisturbed.writes {
        let mut sim = start();
        sim.crash_after = Some(crash);
        sim.run_until(CanaryPhase::Succeeded);
        assert_eq!(sim.outcome(), undisturbed.outcome(), "{crash}");
    }
}

#[test]
fn a_promotion_in_steps_whose_last_status_was_lost_is_not_stuck() {
    let mut sim = release(json!({"stepWeight": 50, "stepWeightPromotion": 25}));
    sim.run_until_phase(CanaryPhase::Promoting);
    sim.run(1);
    sim.route(0);
    sim.run_until(CanaryPhase::Succeeded);
}

#[test]
fn a_crash_in_a_promotion_restarts_the_primarys_pods_once() {
    for crash in 1..=12 {
        let mut sim = release(json!({"stepWeight": 50, "maxWeight": 50}));
        sim.crash_after = Some(crash);
        sim.run_until(CanaryPhase::Succeeded);
        assert_eq!(sim.count("patch  Deployment podinfo-primary: template"), 1);
    }
}

#[test]
fn a_version_that_arrives_while_the_primary_is_not_ready_is_released_later() {
    let mut sim = release(json!({"stepWeight": 50, "threshold": 1}));
    sim.metric = "1".to_owned();
    sim.run_until(CanaryPhase::Failed);
    sim.run(30);
    sim.broken = Some("podinfo:1");
    sim.image("podinfo:3");
    sim.run(60);
    assert_eq!(sim.snapshot.phase(), CanaryPhase::Failed);
    sim.broken = None;
    sim.metric = "100".to_owned();
    sim.run_until(CanaryPhase::Succeeded);
    assert!(sim.outcome().contains("podinfo:3"), "{}", sim.outcome());
}

#[test]
fn a_version_that_arrives_between_the_checks_and_the_promotion_is_analysed_first() {
    let mut sim = release(json!({"stepWeight": 50, "maxWeight": 50}));
    sim.run_until_phase(CanaryPhase::Promoting);
    sim.image("podinfo:3");
    let before = sim.routed.len();
    sim.run_until(CanaryPhase::Succeeded);
    assert_eq!(
        sim.routed[before..],
        [0, 50, 0],
        "it is analysed from the first step"
    );
}

#[test]
fn a_route_that_somebody_edits_is_repaired_at_the_weight_it_has() {
    let mut sim = at_the_first_step(json!({"stepWeight": 20}));
    let name = sim.snapshot.reference(Kind::VirtualService, "podinfo");
    let hosts = |sim: &Simulation| sim.snapshot.objects[&name]["spec"]["hosts"].clone();
    let wanted = hosts(&sim);
    sim.snapshot.objects.get_mut(&name).unwrap()["spec"]["hosts"] = json!(["elsewhere"]);
    sim.run(2);
    assert_eq!(hosts(&sim), wanted);
    sim.run_until(CanaryPhase::Succeeded);
    assert!(sim.analysed.is_sorted(), "{:?}", sim.analysed);
}

#[test]
fn a_version_whose_pods_never_get_ready_ends_with_one_alert_that_names_the_reason() {
    let mut sim = release(json!({"stepWeight": 50}));
    sim.dead = true;
    sim.run_until(CanaryPhase::Failed);
    let alerts: Vec<_> = sim
        .notified
        .iter()
        .filter(|line| line.starts_with("alert Error"))
        .collect();
    assert_eq!(alerts.len(), 1, "{alerts:?}");
    assert!(
        alerts[0].contains("Progress deadline exceeded canary deployment podinfo.test not ready"),
        "{alerts:?}"
    );
}

#[test]
fn a_suspended_canary_is_reported_once() {
    let mut sim = at_the_first_step(json!({"stepWeight": 20}));
    sim.snapshot.canary.spec.suspend = true;
    let (writes, now) = (sim.writes, sim.snapshot.now);
    // There are no ticks while it is suspended.
    while sim.snapshot.now.as_second() < now.as_second() + 9 {
        sim.reconcile();
    }
    assert_eq!(sim.count("skipping canary run as object is suspended"), 1);
    assert_eq!(sim.writes, writes);
    sim.snapshot.canary.spec.suspend = false;
    sim.run_until(CanaryPhase::Succeeded);
}

#[test]
fn a_metric_that_fails_does_not_hide_the_next() {
    let metrics = json!([{"name": "request-success-rate", "thresholdRange": {"min": 99}},
        {"name": "errors", "query": "vector(2)", "thresholdRange": {"max": 1}}]);
    let mut sim = at_the_first_step(json!({"stepWeight": 20, "metrics": metrics}));
    sim.metric = "42".to_owned();
    sim.run(30);
    for text in ["success rate 42.00% < 99%", "errors 42.00 > 1"] {
        assert!(
            sim.notified.iter().any(|line| line.contains(text)),
            "{text}"
        );
    }
}

#[test]
fn a_return_to_the_promoted_version_ends_the_run_and_starts_no_other() {
    let mut sim = at_the_first_step(json!({"stepWeight": 20}));
    sim.image("podinfo:1");
    sim.run_until(CanaryPhase::Succeeded);
    sim.run(60);
    assert_eq!(sim.canary_weight(), 0);
    assert_eq!(sim.count("Copying"), 0);
    assert_eq!(sim.count("Run ended without a promotion"), 1);
    assert_eq!(sim.count("New revision detected!"), 1);
    assert_eq!(sim.snapshot.target().unwrap()["spec"]["replicas"], 0);
    let status = sim.snapshot.canary.status.clone().unwrap();
    assert_eq!(status.last_applied_spec, status.last_promoted_spec);
}

#[test]
fn the_younger_of_two_canaries_of_one_target_reports_the_conflict_and_does_nothing() {
    let mut sim = release(json!({"stepWeight": 20}));
    sim.conflict("older.test");
    sim.run(50);
    assert_eq!(sim.writes, 1, "the condition");
    let event = "canary podinfo.test is not run: older.test has the same target podinfo.test";
    assert_eq!(
        sim.notified
            .iter()
            .filter(|line| line.contains(event))
            .count(),
        1
    );
    let conditions = sim
        .snapshot
        .canary
        .status
        .clone()
        .unwrap()
        .conditions
        .unwrap();
    assert!(conditions.iter().any(|c| c.type_ == "TargetConflict"));
    sim.snapshot.conflicting_canary = None;
    sim.run_until(CanaryPhase::Succeeded);
}

#[test]
fn step_weights_that_never_reach_an_end_are_refused() {
    for analysis in [json!({"stepWeight": 0}), json!({"stepWeights": [50, 20]})] {
        let mut sim = release(analysis);
        sim.run(50);
        let status = sim.snapshot.canary.status.clone().unwrap();
        let mut conditions = status.conditions.into_iter().flatten();
        assert!(conditions.any(|c| {
            c.type_ == "Invalid"
                && c.message
                    .unwrap()
                    .contains("invalid canary spec: spec.analysis.step")
        }));
        assert!(sim.routed.is_empty());
    }
}

#[test]
fn an_ab_test_whose_iterations_are_reduced_is_not_stuck() {
    let test = |iterations: i64| json!({"iterations": iterations, "threshold": 5, "match": [{"headers": {"x-user": {"exact": "insider"}}}]});
    let mut sim = release(test(5));
    while sim.snapshot.canary.status.as_ref().unwrap().iterations < 3 {
        sim.reconcile();
    }
    sim.edit("analysis", &test(2));
    sim.run_until(CanaryPhase::Succeeded);
    assert_eq!(sim.count("canary iteration 4/"), 0);
}

#[test]
fn blue_green_whose_iterations_are_reduced_still_gets_all_traffic_before_its_promotion() {
    let mut sim = release(json!({"iterations": 5}));
    while sim.snapshot.canary.status.as_ref().unwrap().iterations < 4 {
        sim.reconcile();
    }
    sim.edit("analysis", &json!({"iterations": 2, "threshold": 5}));
    sim.run_until(CanaryPhase::Succeeded);
    assert_eq!(sim.routed, [100, 0]);
}

fn conflict_about_a_service(sim: &mut Simulation) {
    sim.conflict("older.test");
    let conflict = sim.snapshot.conflicting_canary.as_mut().unwrap();
    (conflict.object.kind, conflict.object.name) = (Kind::Service, "shop".to_owned());
}

#[test]
fn a_canary_whose_service_belongs_to_an_older_one_writes_nothing_and_names_it() {
    let mut sim = release(json!({"stepWeight": 20}));
    conflict_about_a_service(&mut sim);
    sim.run(50);
    assert_eq!(sim.writes, 1, "the condition");
    let event = "canary podinfo.test is not run: older.test has the Service shop, too; give one of both another target, service name or autoscaler";
    assert_eq!(sim.count_notified(event), 1, "{:?}", sim.notified);
}

/// If the run did not end, a bad version would keep its traffic.
#[test]
fn a_run_ends_although_an_older_canary_comes_to_claim_its_service() {
    let mut sim = at_the_first_step(json!({"stepWeight": 20, "threshold": 1}));
    conflict_about_a_service(&mut sim);
    sim.metric = "1".to_owned();
    sim.run_until_phase(CanaryPhase::Failed);
    assert_eq!(sim.canary_weight(), 0);
}

/// The older canary leads the Service of this name, which the user made, to its own primary.
#[test]
fn the_deletion_of_a_canary_leaves_the_service_that_an_older_one_claims() {
    let mut sim = release(json!({"stepWeight": 50}));
    sim.snapshot.canary.spec.revert_on_deletion = true;
    sim.run_until(CanaryPhase::Succeeded);
    sim.conflict("older.test");
    let conflict = sim.snapshot.conflicting_canary.as_mut().unwrap();
    (conflict.object.kind, conflict.object.name) = (Kind::Service, "podinfo".to_owned());
    let name = sim.snapshot.reference(Kind::Service, "podinfo");
    let before = sim.snapshot.objects[&name].clone();
    sim.delete();
    sim.run(200);
    assert!(sim.is_gone(), "{}", sim.transcript());
    assert_eq!(sim.snapshot.objects[&name], before);
}

#[test]
fn a_canary_whose_service_belongs_to_an_older_one_is_reverted_when_it_is_deleted() {
    let mut sim = release(json!({"stepWeight": 50}));
    sim.snapshot.canary.spec.revert_on_deletion = true;
    sim.run_until(CanaryPhase::Succeeded);
    conflict_about_a_service(&mut sim);
    sim.delete();
    sim.run(200);
    assert!(sim.is_gone(), "{}", sim.transcript());
    assert_eq!(sim.snapshot.target().unwrap()["spec"]["replicas"], 2);
}
