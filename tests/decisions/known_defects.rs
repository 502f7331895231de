//! What users of Flagger fear, each as a test that fails on what Flagger does (R, T and Q are its known defects).

use super::*;
use model::release_of;

fn canary(model: &Model) -> u8 {
    rollout::weights(&model.snapshot).unwrap().canary
}

fn looks(model: &mut Model, looks: usize) {
    for _ in 0..looks {
        model.reconcile();
    }
}

fn count(model: &Model, what: &str) -> usize {
    model.transcript().matches(what).count()
}

fn at_the_first_step(analysis: Value) -> Model {
    let mut model = release(analysis);
    while canary(&model) == 0 {
        model.reconcile();
    }
    model
}

/// R1
#[test]
fn a_release_without_analysis_that_is_cut_off_leaves_the_primary_its_pods() {
    let start = || release_of(json!({"skipAnalysis": true, "analysis": {"stepWeight": 50}}));
    crash_at_every_write_with(start, 3);
    for crash in 1..8 {
        let mut model = start();
        model.crash_after = Some(crash);
        model.run_until(CanaryPhase::Succeeded);
        assert_eq!(model.snapshot.primary().unwrap()["spec"]["replicas"], 2);
    }
}

fn crash_at_every_write_with(start: impl Fn() -> Model, least: usize) {
    let mut whole = start();
    whole.run_until(CanaryPhase::Succeeded);
    assert!(whole.writes >= least);
    for crash in 1..=whole.writes {
        let mut model = start();
        model.crash_after = Some(crash);
        model.run_until(CanaryPhase::Succeeded);
        assert_eq!(model.outcome(), whole.outcome(), "{crash}");
    }
}

/// R2, Q7
#[test]
fn a_promotion_in_steps_whose_last_status_was_lost_is_not_stuck() {
    let mut model = release(json!({"stepWeight": 50, "stepWeightPromotion": 25}));
    model.run_until_phase(CanaryPhase::Promoting);
    looks(&mut model, 1);
    model.route(0);
    model.run_until(CanaryPhase::Succeeded);
}

/// R3
#[test]
fn a_crash_in_a_promotion_restarts_the_primarys_pods_once() {
    for crash in 1..=12 {
        let mut model = release(json!({"stepWeight": 50, "maxWeight": 50}));
        model.crash_after = Some(crash);
        model.run_until(CanaryPhase::Succeeded);
        assert_eq!(
            count(&model, "patch  Deployment podinfo-primary: template"),
            1
        );
    }
}

/// R4, T1, Q6
#[test]
fn a_version_that_comes_while_the_primary_is_not_ready_is_not_swallowed() {
    let mut model = release(json!({"stepWeight": 50, "threshold": 1}));
    model.metric = "1".to_owned();
    model.run_until(CanaryPhase::Failed);
    looks(&mut model, 30);
    model.broken = Some("podinfo:1");
    model.image("podinfo:3");
    looks(&mut model, 60);
    assert_eq!(model.snapshot.phase(), CanaryPhase::Failed);
    model.broken = None;
    model.metric = "100".to_owned();
    model.run_until(CanaryPhase::Succeeded);
    assert!(model.outcome().contains("podinfo:3"), "{}", model.outcome());
}

/// R15
#[test]
fn a_version_that_comes_between_the_checks_and_the_copy_is_not_promoted_unseen() {
    let mut model = release(json!({"stepWeight": 50, "maxWeight": 50}));
    model.run_until_phase(CanaryPhase::Promoting);
    model.image("podinfo:3");
    let before = model.routed.len();
    model.run_until(CanaryPhase::Succeeded);
    assert_eq!(model.routed[before..], [0, 50, 0], "it is judged anew");
}

/// Drift
#[test]
fn a_route_that_somebody_edits_is_repaired_at_the_weight_it_has() {
    let mut model = at_the_first_step(json!({"stepWeight": 20}));
    let name = model.snapshot.reference(Kind::VirtualService, "podinfo");
    let hosts = |model: &Model| model.snapshot.objects[&name]["spec"]["hosts"].clone();
    let wanted = hosts(&model);
    model.snapshot.objects.get_mut(&name).unwrap()["spec"]["hosts"] = json!(["elsewhere"]);
    looks(&mut model, 2);
    assert_eq!(hosts(&model), wanted);
    model.run_until(CanaryPhase::Succeeded);
    assert!(model.judged.is_sorted(), "{:?}", model.judged);
}

/// T4, Q4
#[test]
fn a_version_whose_pods_never_get_ready_ends_with_one_alert_that_says_why() {
    let mut model = release(json!({"stepWeight": 50}));
    model.dead = true;
    model.run_until(CanaryPhase::Failed);
    let alerts: Vec<_> = model
        .told
        .iter()
        .filter(|line| line.starts_with("alert Error"))
        .collect();
    assert_eq!(alerts.len(), 1, "{alerts:?}");
    assert!(
        alerts[0].contains("Progress deadline exceeded canary deployment podinfo.test not ready"),
        "{alerts:?}"
    );
}

/// T6
#[test]
fn that_a_canary_is_suspended_is_told_once() {
    let mut model = at_the_first_step(json!({"stepWeight": 20}));
    model.snapshot.canary.spec.suspend = true;
    let (writes, now) = (model.writes, model.snapshot.now);
    // Nothing is tick while it is suspended.
    while model.snapshot.now.as_second() < now.as_second() + 9 {
        model.reconcile();
    }
    assert_eq!(
        count(&model, "skipping canary run as object is suspended"),
        1
    );
    assert_eq!(model.writes, writes);
    model.snapshot.canary.spec.suspend = false;
    model.run_until(CanaryPhase::Succeeded);
}

/// T9
#[test]
fn a_metric_that_fails_does_not_hide_the_next() {
    let metrics = json!([{"name": "request-success-rate", "thresholdRange": {"min": 99}},
        {"name": "errors", "query": "vector(2)", "thresholdRange": {"max": 1}}]);
    let mut model = at_the_first_step(json!({"stepWeight": 20, "metrics": metrics}));
    model.metric = "42".to_owned();
    looks(&mut model, 30);
    for text in ["success rate 42.00% < 99%", "errors 42.00 > 1"] {
        assert!(model.told.iter().any(|line| line.contains(text)), "{text}");
    }
}

/// T10, Q17
#[test]
fn going_back_to_what_is_promoted_ends_the_run_and_starts_no_other() {
    let mut model = at_the_first_step(json!({"stepWeight": 20}));
    model.image("podinfo:1");
    model.run_until(CanaryPhase::Succeeded);
    looks(&mut model, 60);
    assert_eq!(canary(&model), 0);
    assert_eq!(count(&model, "Copying"), 0);
    assert_eq!(count(&model, "Run ended without a promotion"), 1);
    assert_eq!(count(&model, "New revision detected!"), 1);
    assert_eq!(model.snapshot.target().unwrap()["spec"]["replicas"], 0);
    let status = model.snapshot.canary.status.clone().unwrap();
    assert_eq!(status.last_applied_spec, status.last_promoted_spec);
}

/// T13, Q37
#[test]
fn the_younger_of_two_canaries_of_one_target_says_so_and_does_nothing() {
    let mut model = release(json!({"stepWeight": 20}));
    model.snapshot.conflicting_canary = Some("older.test".to_owned());
    looks(&mut model, 50);
    assert_eq!(model.writes, 1, "the condition");
    let said = "canary podinfo.test is not run: older.test has the same target podinfo.test";
    assert_eq!(
        model.told.iter().filter(|line| line.contains(said)).count(),
        1
    );
    let conditions = model
        .snapshot
        .canary
        .status
        .clone()
        .unwrap()
        .conditions
        .unwrap();
    assert!(conditions.iter().any(|c| c.type_ == "TargetConflict"));
    model.snapshot.conflicting_canary = None;
    model.run_until(CanaryPhase::Succeeded);
}

/// Q8
#[test]
fn steps_that_lead_nowhere_are_refused_and_not_run_for_ever() {
    for analysis in [json!({"stepWeight": 0}), json!({"stepWeights": [50, 20]})] {
        let mut model = release(analysis);
        looks(&mut model, 50);
        let status = model.snapshot.canary.status.clone().unwrap();
        let mut conditions = status.conditions.into_iter().flatten();
        assert!(conditions.any(|c| {
            c.type_ == "Invalid"
                && c.message
                    .unwrap()
                    .contains("invalid canary spec: spec.analysis.step")
        }));
        assert!(model.routed.is_empty());
    }
}

/// Q10
#[test]
fn an_ab_test_with_fewer_iterations_than_it_had_is_not_stuck() {
    let test = |iterations: i64| json!({"iterations": iterations, "threshold": 5, "match": [{"headers": {"x-user": {"exact": "insider"}}}]});
    let mut model = release(test(5));
    while model.snapshot.canary.status.as_ref().unwrap().iterations < 3 {
        model.reconcile();
    }
    model.edit("analysis", &test(2));
    model.run_until(CanaryPhase::Succeeded);
    assert_eq!(count(&model, "canary iteration 4/"), 0);
}

/// Q10
#[test]
fn blue_green_with_fewer_iterations_than_it_had_meets_the_traffic_all_the_same() {
    let mut model = release(json!({"iterations": 5}));
    while model.snapshot.canary.status.as_ref().unwrap().iterations < 4 {
        model.reconcile();
    }
    model.edit("analysis", &json!({"iterations": 2, "threshold": 5}));
    model.run_until(CanaryPhase::Succeeded);
    assert_eq!(model.routed, [100, 0]);
}
