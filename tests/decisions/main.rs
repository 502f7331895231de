//! What `decide` does, in virtual time: transcripts that a user can read, a crash at every write, and worlds that nobody would build.

mod bootstrap;
mod configs;
mod edges;
mod examples;
mod fears;
mod gates;
pub mod model;
mod preview;
mod properties;
mod routes;
mod scalers;
mod targets;
mod withdrawal;

use std::fs;

use flagger_rs::{
    api::canary::CanaryPhase,
    rollout::{self, Decision},
    snapshot::Kind,
};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::cluster::folder;
use model::{Model, release, release_of};

/// The transcript of a story; `UPDATE_TRANSCRIPTS=1` writes it anew.
fn transcript(name: &str, model: &Model) {
    let path = folder("tests/transcripts").join(format!("{name}.txt"));
    let seen = model.transcript();
    if std::env::var_os("UPDATE_TRANSCRIPTS").is_some() {
        fs::write(&path, &seen).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        seen == expected,
        "{} differs; seen:\n{seen}",
        path.display()
    );
}

#[test]
fn a_canary_release() {
    let mut model = release(json!({"stepWeight": 20, "maxWeight": 50}));
    model.run_until(CanaryPhase::Succeeded);
    transcript("canary", &model);
}

/// Flagger takes 45 writes, and 254 reads.
#[test]
fn a_release_of_ten_steps_takes_as_many_writes_as_it_must() {
    let mut model = release(json!({"stepWeight": 10, "webhooks": []}));
    model.run_until(CanaryPhase::Succeeded);
    let events = model.told.iter().filter(|line| !line.starts_with("alert"));
    // The run and its pods; ten steps of a route and a status; the promotion's intent and template; the way back of the traffic; the
    // canary down, the end, and that it was told.
    let writes = 2 + 10 * 2 + 2 + 2 + 3;
    assert_eq!((model.writes, events.count()), (writes, 15));
}

#[test]
fn a_rollback_on_failed_checks() {
    let mut model = release(json!({"stepWeight": 20, "threshold": 2}));
    model.metric = "97.5".to_owned();
    model.run_until(CanaryPhase::Failed);
    transcript("rollback", &model);
}

#[test]
fn a_blue_green_release() {
    let mut model = release(json!({"iterations": 2}));
    model.run_until(CanaryPhase::Succeeded);
    transcript("blue-green", &model);
}

#[test]
fn a_promotion_step_by_step() {
    let mut model = release(json!({"stepWeight": 50, "stepWeightPromotion": 25}));
    model.run_until(CanaryPhase::Succeeded);
    transcript("promotion-steps", &model);
}

#[test]
fn a_release_without_analysis() {
    let mut model = release(json!({"stepWeight": 50}));
    model.snapshot.canary.spec.skip_analysis = true;
    model.run_until(CanaryPhase::Succeeded);
    transcript("skip-analysis", &model);
}

#[test]
fn an_ab_test() {
    let mut model =
        release(json!({"iterations": 2, "match": [{"headers": {"x-user": {"exact": "insider"}}}]}));
    model.run_until(CanaryPhase::Succeeded);
    transcript("ab-testing", &model);
}

/// Every prefix of every plan is safe, and the end is the same.
fn crash_at_every_write(analysis: &Value, metric: &str, end: CanaryPhase) {
    crash_at_every_write_of(|| release(analysis.clone()), metric, end);
}

fn crash_at_every_write_of(start: impl Fn() -> Model, metric: &str, end: CanaryPhase) {
    let story = |crash: Option<usize>| {
        let mut model = start();
        model.metric = metric.to_owned();
        model.crash_after = crash;
        model.run_until(end);
        model
    };
    let whole = story(None);
    assert!(whole.writes > 5);
    for crash in 1..=whole.writes {
        let model = story(Some(crash));
        assert_eq!(
            model.outcome(),
            whole.outcome(),
            "crashed after write {crash}:\n{}",
            model.transcript()
        );
        let steps = |model: &Model| {
            model
                .routed
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
            steps(&model),
            steps(&whole),
            "crashed after write {crash}: a step was added or skipped"
        );
        let ends = model
            .told
            .iter()
            .filter(|line| line.contains("Promotion completed!") || line.contains("Canary failed!"))
            .count();
        assert!(
            ends >= 1,
            "crashed after write {crash}: the end was never told"
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

#[test]
fn flaggers_own_hash_of_the_same_version_is_no_new_version() {
    let mut model = release(json!({"stepWeight": 20}));
    model.run_until(CanaryPhase::Succeeded);
    let told = model.told.len();
    let status = model.snapshot.canary.status.as_mut().unwrap();
    status.last_applied_spec = Some("76c965d4bf".to_owned());
    status.last_promoted_spec = Some("76c965d4bf".to_owned());
    for _ in 0..5 {
        model.reconcile();
    }
    let status = model.snapshot.canary.status.clone().unwrap();
    assert_eq!(status.phase, CanaryPhase::Succeeded);
    assert!(
        status.last_applied_spec.unwrap().starts_with("v1-"),
        "it is known by our name now"
    );
    assert_eq!(model.told.len(), told, "in silence");
}

#[test]
fn a_version_that_failed_is_run_again_when_it_comes_back() {
    let mut model = release(json!({"stepWeight": 50, "threshold": 1}));
    model.metric = "42".to_owned();
    model.run_until(CanaryPhase::Failed);
    model.metric = "100".to_owned();
    model.image("podinfo:1");
    for _ in 0..25 {
        model.reconcile();
    }
    assert_eq!(
        model.snapshot.phase(),
        CanaryPhase::Failed,
        "there is nothing new"
    );
    model.image("podinfo:2");
    model.run_until(CanaryPhase::Succeeded);
    assert!(model.outcome().contains("podinfo:2"), "{}", model.outcome());
}

/// Flagger would route everything to the broken primary and scale the healthy canary to zero.
#[test]
fn after_a_failed_promotion_traffic_stays_on_the_healthy_side_and_a_fix_rolls_out() {
    let mut model = release(json!({"stepWeight": 50}));
    model.broken = Some("podinfo:2");
    model.run_until(CanaryPhase::Failed);
    assert_eq!(rollout::weights(&model.snapshot).unwrap().canary, 100);
    assert_eq!(model.snapshot.target().unwrap()["spec"]["replicas"], 2);
    model.image("podinfo:3");
    model.run_until(CanaryPhase::Succeeded);
    assert_eq!(rollout::weights(&model.snapshot).unwrap().canary, 0);
    transcript("failed-promotion", &model);
}

/// A canary with `revertOnDeletion` whose Service and VirtualService were there before it.
fn reverted(crash: Option<usize>) -> Model {
    let mut model = release(json!({"stepWeight": 50}));
    model.snapshot.canary.spec.revert_on_deletion = true;
    model.run_until(CanaryPhase::Succeeded);
    model.crash_after = crash.map(|crash| model.writes + crash);
    model.delete();
    for _ in 0..200 {
        model.reconcile();
    }
    model
}

#[test]
fn a_deletion_gives_back_what_was_taken_over() {
    let model = reverted(None);
    assert!(model.is_gone(), "{}", model.transcript());
    assert_eq!(model.snapshot.target().unwrap()["spec"]["replicas"], 2);
    transcript("revert-on-deletion", &model);
}

#[test]
fn a_crash_at_any_write_of_a_deletion_loses_nothing() {
    let whole = reverted(None);
    for crash in 1..8 {
        let model = reverted(Some(crash));
        assert!(model.is_gone(), "{}", model.transcript());
        assert_eq!(model.outcome(), whole.outcome());
    }
}

#[test]
fn a_deletion_waits_for_no_target_for_ever() {
    let mut model = release(json!({"stepWeight": 50}));
    model.snapshot.canary.spec.revert_on_deletion = true;
    model.reconcile();
    let target = model.snapshot.reference(Kind::Deployment, "podinfo");
    model.snapshot.objects.remove(&target);
    model.delete();
    for _ in 0..10 {
        model.reconcile();
    }
    assert!(model.is_gone(), "{}", model.transcript());
}

/// Flagger scales down in the same breath as it routes: what is on its way meets pods that end.
#[test]
fn a_rollback_loses_no_request_that_is_on_its_way() {
    let mut model = release(json!({"stepWeight": 20, "threshold": 2}));
    model.metric = "97.5".to_owned();
    model.run_until(CanaryPhase::Failed);
    let moved = model.seconds("primary 100 canary 0");
    let down = model.seconds("patch  Deployment podinfo: replicas 0");
    assert!(down - moved >= 10, "{}", model.transcript());
}

#[test]
fn weights_that_somebody_edits_between_runs_are_put_back() {
    let mut model = release(json!({"stepWeight": 50}));
    model.run_until(CanaryPhase::Succeeded);
    model.route(30);
    for _ in 0..3 {
        model.reconcile();
    }
    assert_eq!(rollout::weights(&model.snapshot).unwrap().canary, 0);
}

/// The analysis said no; that the primary is not ready in that moment does not make it yes.
#[test]
fn a_rollback_waits_for_a_primary_that_blinks_and_does_not_move_traffic_to_the_bad_version() {
    let mut model = release(json!({"stepWeight": 20, "threshold": 1}));
    model.metric = "97.5".to_owned();
    while rollout::weights(&model.snapshot).unwrap().canary == 0 {
        model.reconcile();
    }
    model.broken = Some("podinfo:1");
    for _ in 0..60 {
        model.reconcile();
    }
    assert_eq!(rollout::weights(&model.snapshot).unwrap().canary, 20);
    model.broken = None;
    model.run_until(CanaryPhase::Failed);
    assert_eq!(rollout::weights(&model.snapshot).unwrap().canary, 0);
}

/// The commonest fix is to go back.
#[test]
fn after_a_failed_promotion_the_version_before_can_be_released() {
    let mut model = release(json!({"stepWeight": 50}));
    model.broken = Some("podinfo:2");
    model.run_until(CanaryPhase::Failed);
    model.image("podinfo:1");
    model.run_until(CanaryPhase::Succeeded);
    assert_eq!(rollout::weights(&model.snapshot).unwrap().canary, 0);
}

fn phases() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "",
        "Initializing",
        "Initialized",
        "Waiting",
        "Progressing",
        "WaitingPromotion",
        "Promoting",
        "Finalising",
        "Succeeded",
        "Failed",
        "Terminating",
        "Terminated",
    ])
}

fn analyses() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!({"stepWeight": 20, "maxWeight": 50})),
        Just(json!({"stepWeights": [1, 10, 80]})),
        Just(json!({"iterations": 3})),
        Just(json!({"iterations": 2, "match": [{}]})),
        Just(json!({"stepWeight": -5, "threshold": -1, "interval": "nonsense"})),
        Just(json!({"stepWeight": 30, "mirror": true, "stepWeightPromotion": 20})),
        Just(json!({"iterations": 1, "mirror": true})),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// Whatever the world looks like, there is a decision, and no plan of it is unsafe.
    #[test]
    fn every_world_has_a_decision_and_every_plan_is_safe(
        analysis in analyses(),
        phase in phases(),
        weight in -10_i64..120,
        iterations in -2_i64..6,
        failed in -1_i64..8,
        canary_ready in 0_i64..3,
        primary_ready in 0_i64..3,
        routed in 0_u8..=100,
        applied in prop::option::of("(v1-)?[a-f0-9]{4}"),
        gone in prop::collection::vec(0_usize..8, 0..4),
        condition in prop::option::of(prop::sample::select(vec!["RollingBack", "Reverting", "NoticePending", "Invalid", "TargetConflict"])),
        reason in "(FailedChecks|FailedPromotion|Promoted|Skipped|x)",
    ) {
        let mut model = release(analysis);
        for _ in 0..6 { model.reconcile(); }
        model.arrange(phase, weight, iterations, failed, canary_ready, primary_ready, routed, applied, &gone, condition, &reason);
        for _ in 0..3 {
            match rollout::decide(&model.snapshot, &rollout::Evidence::new()) {
                Decision::Do(plan) => prop_assert_eq!(rollout::audit(&model.snapshot, &plan), Ok(()), "{:?}", plan),
                Decision::Ask(questions, _) => prop_assert!(!questions.is_empty()),
                Decision::Wait(..) => {}
            }
            model.reconcile();
        }
    }
}
