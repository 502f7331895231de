//! A person promotes, skips, pauses, resumes, aborts or retries a release by an annotation of the Canary.

use flagger_rs::{
    api::{action::ANNOTATION, canary::CanaryPhase, status::ConditionType},
    snapshot::{Kind, RefusedWrite, revision::revision},
};
use serde_json::{Value, json};

use super::simulation::{Simulation, release_of};

/// The revision that a person sees: at a gate before a run, that of the target.
pub fn seen(sim: &Simulation) -> String {
    let status = sim.snapshot.canary.status.as_ref().unwrap();
    if status.phase == CanaryPhase::Waiting {
        return revision(&sim.snapshot.target().unwrap()["spec"]["template"]);
    }
    status.last_applied_spec.clone().unwrap_or_default()
}

/// Asks for an action on the present revision, now.
pub fn ask(sim: &mut Simulation, verb: &str, id: &str) {
    let revision = seen(sim);
    let now = sim.snapshot.now;
    annotate(
        sim,
        &format!("{verb} {revision} {id} {now} jane@example.com errors at the checkout"),
    );
}

pub fn annotate(sim: &mut Simulation, line: &str) {
    let annotations = &mut sim.snapshot.canary.metadata.annotations;
    let annotations = annotations.get_or_insert_default();
    annotations.insert(ANNOTATION.to_owned(), line.to_owned());
}

pub fn is_annotated(sim: &Simulation) -> bool {
    let annotations = sim.snapshot.canary.metadata.annotations.as_ref();
    annotations.is_some_and(|annotations| annotations.contains_key(ANNOTATION))
}

pub fn has(sim: &Simulation, type_: ConditionType) -> bool {
    sim.snapshot
        .canary
        .status
        .as_ref()
        .unwrap()
        .has_condition(type_)
}

/// A release of ten steps, reconciled until the canary has a weight.
fn at_first_weight(spec: Value) -> Simulation {
    let mut sim = release_of(spec);
    while sim.canary_weight() == 0 {
        sim.reconcile();
    }
    sim
}

fn steps() -> Value {
    json!({"analysis": {"stepWeight": 10, "maxWeight": 50}})
}

#[test]
fn an_abort_returns_the_traffic_at_once_and_names_the_author() {
    let mut sim = at_first_weight(steps());
    let asked = sim.snapshot.now;
    ask(&mut sim, "abort", "a1");
    while sim.canary_weight() != 0 {
        sim.reconcile();
    }
    let took = sim.snapshot.now.duration_since(asked).as_secs();
    assert!(took <= 1, "{took} s: {}", sim.transcript());
    sim.run_until(CanaryPhase::Failed);
    let why = "aborted by jane@example.com: errors at the checkout";
    assert_eq!(
        sim.count_notified(&format!("Rolling back podinfo.test {why}")),
        1,
        "{:#?}",
        sim.notified
    );
    assert!(!is_annotated(&sim));
    sim.run(100);
    assert_eq!(sim.snapshot.phase(), CanaryPhase::Failed);
}

#[test]
fn a_pause_holds_the_weight_while_checks_go_on() {
    let mut sim = at_first_weight(steps());
    annotate(&mut sim, "pause");
    sim.run(100);
    assert_eq!(sim.canary_weight(), 10, "{}", sim.transcript());
    assert!(has(&sim, ConditionType::Paused) && !is_annotated(&sim));
    ask(&mut sim, "resume", "r1");
    sim.run_until(CanaryPhase::Succeeded);
    assert!(!has(&sim, ConditionType::Paused));

    let mut sim = at_first_weight(steps());
    annotate(&mut sim, "pause");
    sim.run(30);
    sim.metric = "10".to_owned();
    sim.run_until(CanaryPhase::Failed);
    assert_eq!(sim.count_notified("failed checks threshold reached"), 1);
}

/// An action in the short form has no ID. A second action of this form is a new action, too.
#[test]
fn a_release_can_be_paused_by_hand_again() {
    let mut sim = at_first_weight(steps());
    for id in ["r1", "r2"] {
        annotate(&mut sim, "pause");
        let weight = sim.canary_weight();
        sim.run(60);
        assert_eq!(sim.canary_weight(), weight, "{}", sim.transcript());
        assert!(!is_annotated(&sim));
        ask(&mut sim, "resume", id);
        while sim.canary_weight() == weight {
            sim.reconcile();
        }
    }
}

#[test]
fn a_skip_ends_one_step() {
    let mut sim = at_first_weight(
        json!({"analysis": {"interval": "10m", "stepWeight": 10, "maxWeight": 50}}),
    );
    let asked = sim.snapshot.now;
    ask(&mut sim, "skip", "s1");
    while sim.canary_weight() == 10 {
        sim.reconcile();
    }
    assert_eq!(sim.canary_weight(), 20);
    assert!(
        sim.snapshot.now.duration_since(asked).as_secs() <= 1,
        "{}",
        sim.transcript()
    );
    assert!(!has(&sim, ConditionType::SkipRequested));
    while sim.snapshot.now.duration_since(asked).as_secs() < 300 {
        sim.reconcile();
        assert_eq!(sim.canary_weight(), 20);
    }
}

#[test]
fn a_promotion_by_hand_takes_no_further_steps_and_still_drains() {
    for spec in [
        steps(),
        json!({"analysis": {"iterations": 5}}),
        json!({"analysis": {"iterations": 5, "match": [{"headers": {"x-user": {"exact": "insider"}}}]}}),
    ] {
        let mut sim = release_of(spec);
        sim.run_until_phase(CanaryPhase::Progressing);
        sim.run(10);
        ask(&mut sim, "promote", "p1");
        sim.run_until(CanaryPhase::Succeeded);
        let status = sim.snapshot.canary.status.as_ref().unwrap();
        assert_eq!(status.last_promoted_spec, status.last_applied_spec);
        assert!(!has(&sim, ConditionType::PromoteRequested));
        for text in [
            "podinfo.test: Promotion without further steps and checks requested by jane",
            "alert Info: Promotion finished, requested by jane@example.com: errors at",
        ] {
            assert_eq!(sim.count_notified(text), 1, "{:#?}", sim.notified);
        }
    }
}

#[test]
fn a_promotion_by_hand_waits_for_the_pods() {
    let mut sim = release_of(steps());
    sim.run_until_phase(CanaryPhase::Progressing);
    sim.unready = Some("podinfo");
    ask(&mut sim, "promote", "p1");
    sim.run(30);
    assert_eq!(
        sim.snapshot.phase(),
        CanaryPhase::Progressing,
        "{}",
        sim.transcript()
    );
    sim.unready = None;
    sim.run_until(CanaryPhase::Succeeded);
}

#[test]
fn a_failed_version_is_released_again_on_request() {
    let mut sim = release_of(steps());
    sim.metric = "10".to_owned();
    sim.run_until(CanaryPhase::Failed);
    sim.metric = "100".to_owned();
    sim.run(60);
    assert_eq!(sim.snapshot.phase(), CanaryPhase::Failed);
    ask(&mut sim, "retry", "t1");
    sim.run_until(CanaryPhase::Succeeded);
    assert!(!has(&sim, ConditionType::RetryRequested));
    assert!(!is_annotated(&sim));
}

/// The approval applies to the version that waits, and to no later version.
#[test]
fn an_approval_at_a_gate_is_for_the_version_that_waits() {
    let gate = json!([{"name": "confirm-rollout", "type": "confirm-rollout", "url": "http://hooks/confirm-rollout"}]);
    let mut sim = release_of(
        json!({"analysis": {"interval": "10s", "threshold": 5, "stepWeight": 10, "webhooks": gate}}),
    );
    sim.closed.insert("confirm-rollout");
    sim.run_until_phase(CanaryPhase::Waiting);
    let approved = seen(&sim);
    sim.image("podinfo:4");
    let now = sim.snapshot.now;
    annotate(
        &mut sim,
        &format!("resume {approved} r1 {now} jane approved"),
    );
    sim.run(30);
    assert_eq!(
        sim.snapshot.phase(),
        CanaryPhase::Waiting,
        "{}",
        sim.transcript()
    );
    assert_eq!(
        sim.count_notified("it means the revision"),
        1,
        "{:#?}",
        sim.notified
    );
    ask(&mut sim, "resume", "r2");
    sim.run_until_phase(CanaryPhase::Progressing);
}

/// A tool may apply a saved annotation again after another action. It has no effect then.
#[test]
fn an_older_action_that_comes_back_is_removed_and_has_no_effect() {
    let mut sim = at_first_weight(steps());
    ask(&mut sim, "pause", "k1");
    let line = sim.snapshot.canary.metadata.annotations.as_ref().unwrap()[ANNOTATION].clone();
    sim.run(6);
    ask(&mut sim, "resume", "k2");
    sim.run(6);
    annotate(&mut sim, &line);
    sim.run(6);
    assert!(
        !is_annotated(&sim) && !has(&sim, ConditionType::Paused),
        "{}",
        sim.transcript()
    );
    sim.run_until(CanaryPhase::Succeeded);
}

/// The primary has this version already. A release would analyse it again, and the analysis could fail.
#[test]
fn a_version_whose_user_has_gone_back_is_not_released_again() {
    let mut sim = release_of(steps());
    let promoted =
        sim.snapshot.primary().unwrap()["spec"]["template"]["spec"]["containers"][0]["image"]
            .clone();
    let before = sim.snapshot.status().last_promoted_spec.clone();
    sim.metric = "10".to_owned();
    sim.run_until(CanaryPhase::Failed);
    sim.image(promoted.as_str().unwrap());
    sim.run(30);
    ask(&mut sim, "retry", "t1");
    sim.run(30);
    assert_eq!(
        sim.snapshot.phase(),
        CanaryPhase::Failed,
        "{}",
        sim.transcript()
    );
    assert_eq!(
        sim.count_notified("the target is back at the version of the primary"),
        1
    );
    assert_eq!(sim.snapshot.status().last_promoted_spec, before);
    let verdict = sim.snapshot.status().condition(ConditionType::Verdict);
    let sentence = verdict.unwrap().message.clone().unwrap();
    let expected = "The target is back at the version of the primary. The version before was rolled back: 5 failed checks";
    assert!(sentence.starts_with(expected), "{sentence}");
}

/// The operator dies after each write. The action has one effect, and is reported once or not at all.
#[test]
fn a_crash_at_any_write_repeats_no_action() {
    for verb in ["abort", "promote", "skip", "pause"] {
        let run = |crash: Option<usize>| {
            let mut sim = at_first_weight(steps());
            sim.crash_after = crash.map(|crash| sim.writes + crash);
            ask(&mut sim, verb, "x1");
            sim.run(200);
            if verb == "pause" {
                assert_eq!(sim.canary_weight(), 10, "{}", sim.transcript());
                ask(&mut sim, "resume", "x2");
            }
            sim.run(400);
            assert!(!is_annotated(&sim), "{verb} {crash:?}");
            sim
        };
        let undisturbed = run(None);
        for crash in 1..8 {
            let sim = run(Some(crash));
            assert_eq!(
                sim.outcome(),
                undisturbed.outcome(),
                "{verb} {crash}: {}",
                sim.transcript()
            );
            assert!(
                sim.count_notified("requested by") <= 2,
                "{:#?}",
                sim.notified
            );
        }
    }
}

/// A policy, or a webhook that fails, may refuse the removal of the annotation. The traffic of an aborted version must move nevertheless.
#[test]
fn an_annotation_that_cannot_be_removed_holds_nothing_up() {
    let mut sim = at_first_weight(steps());
    ask(&mut sim, "abort", "a1");
    while sim.snapshot.phase() == CanaryPhase::Progressing {
        let canary = sim.snapshot.reference(Kind::Canary, "podinfo");
        let refused = RefusedWrite {
            object: canary.clone(),
            why: "denied the request".to_owned(),
            generation: None,
        };
        sim.snapshot.refused = Some(refused);
        sim.memory.mark_written(&canary);
        sim.reconcile();
        assert!(is_annotated(&sim), "the removal is refused");
    }
    sim.snapshot.refused = None;
    sim.run_until(CanaryPhase::Failed);
    assert_eq!(sim.canary_weight(), 0);
    assert!(!is_annotated(&sim));
}

/// A GitOps tool that has the annotation in its repository applies the annotation again and again.
#[test]
fn an_action_that_comes_back_is_removed_and_has_no_effect() {
    let mut sim = at_first_weight(steps());
    ask(&mut sim, "skip", "s1");
    let line = sim.snapshot.canary.metadata.annotations.as_ref().unwrap()[ANNOTATION].clone();
    while sim.canary_weight() == 10 {
        sim.reconcile();
    }
    for _ in 0..2 {
        annotate(&mut sim, &line);
        // Another actor undoes the removal, so the operator repeats it with growing pauses, like any such write.
        sim.run(100);
        assert!(!is_annotated(&sim));
    }
    let events = sim.count_notified("podinfo.test: Skip of this step requested by");
    assert_eq!(events, 1, "{:#?}", sim.notified);
    assert_eq!(sim.count_notified("refused"), 0);
}

/// While the operator pauses between two removals, the release must go on.
#[test]
fn an_action_that_is_put_back_all_the_time_holds_nothing_up() {
    let take = |is_put_back: bool| {
        let mut sim = at_first_weight(steps());
        ask(&mut sim, "skip", "s1");
        let annotations = sim.snapshot.canary.metadata.annotations.as_ref();
        let line = annotations.unwrap()[ANNOTATION].clone();
        while sim.snapshot.phase() != CanaryPhase::Succeeded {
            sim.reconcile();
            if is_put_back {
                annotate(&mut sim, &line);
            }
            assert!(sim.snapshot.now.as_second() < 3_600, "{}", sim.transcript());
        }
        sim.snapshot.now
    };
    assert_eq!(take(true), take(false));
}

#[test]
fn an_action_that_is_not_possible_is_refused_with_the_reason_and_removed() {
    let mut sim = at_first_weight(steps());
    let revision = sim
        .snapshot
        .canary
        .status
        .as_ref()
        .unwrap()
        .last_applied_spec
        .clone()
        .unwrap();
    let now = sim.snapshot.now;
    let old = now - jiff::SignedDuration::from_mins(16);
    for (n, (line, why)) in [
        (
            format!("promote v1-00000000 i1 {now} jane"),
            "it means the revision v1-00000000, but the revision is",
        ),
        (
            format!("promote {revision} i2 {old} jane"),
            "is more than 15 minutes from now",
        ),
        (
            format!("retry {revision} i3 {now} jane"),
            "it is not possible in the phase Progressing: no version has failed",
        ),
        (
            format!("resume {revision} i4 {now} jane"),
            "the release is not paused",
        ),
        (
            "promote".to_owned(),
            "promote needs REVISION ID TIME AUTHOR",
        ),
        (
            "stop it".to_owned(),
            "the verb \"stop\" is not promote, skip",
        ),
        ("x".repeat(200_000), "the line has 200000 bytes"),
    ]
    .into_iter()
    .enumerate()
    {
        annotate(&mut sim, &line);
        for _ in 0..6 {
            sim.reconcile();
        }
        assert!(!is_annotated(&sim), "{n}");
        assert_eq!(sim.count_notified(why), 1, "{n}: {:#?}", sim.notified);
    }
    sim.run_until(CanaryPhase::Succeeded);
}

/// A closed gate does not delay a person's action.
#[test]
fn a_gate_is_opened_by_a_person() {
    for (gate, phase, verbs) in [
        (
            "confirm-rollout",
            CanaryPhase::Waiting,
            ["resume", "skip", "promote"],
        ),
        (
            "confirm-promotion",
            CanaryPhase::WaitingPromotion,
            ["resume", "skip", "promote"],
        ),
    ] {
        for verb in verbs {
            let hooks = json!([{"name": "gate", "type": gate, "url": "http://hooks/gate"}]);
            let mut sim = release_of(json!({"analysis": {"stepWeight": 50, "webhooks": hooks}}));
            sim.closed.insert("gate");
            sim.run_until_phase(phase);
            ask(&mut sim, verb, "g1");
            sim.run_until(CanaryPhase::Succeeded);
            assert!(!is_annotated(&sim), "{gate} {verb}");
            let opened = sim.count_notified("podinfo.test: Opening of the gate requested by");
            assert_eq!(opened, usize::from(verb != "promote"), "{gate} {verb}");
        }
    }
}

/// The person asked for the earlier version, which a newer one has replaced.
#[test]
fn a_newer_version_is_not_promoted_in_the_name_of_the_author_of_an_action() {
    let hooks = json!([{"name": "gate", "type": "confirm-rollout", "url": "http://hooks/gate"}]);
    let mut sim = release_of(json!({"analysis": {"stepWeight": 50, "webhooks": hooks}}));
    sim.closed.insert("gate");
    sim.run_until_phase(CanaryPhase::Waiting);
    sim.unready = Some("podinfo");
    ask(&mut sim, "promote", "p1");
    sim.run_until_phase(CanaryPhase::Progressing);
    sim.image("podinfo:3");
    sim.unready = None;
    sim.run_until(CanaryPhase::Succeeded);
    assert_eq!(
        sim.count_notified("Restarting analysis"),
        1,
        "{:#?}",
        sim.notified
    );
    assert_eq!(sim.count_notified("Promotion finished, requested by"), 0);
    assert_eq!(
        sim.count_notified("Advance podinfo.test canary weight 50"),
        1
    );
}
