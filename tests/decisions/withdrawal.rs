//! A canary without ready pods loses its traffic at once.

use flagger_rs::{
    api::{canary::CanaryPhase, status::ConditionType},
    snapshot::Kind,
};
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

/// The canary loses its pods, gets them back, and gets the weight that it had. Until then nothing is checked.
fn lose_pods(sim: &mut Simulation) {
    let before = sim.canary_weight();
    sim.dead = true;
    sim.reconcile();
    assert_eq!(sim.canary_weight(), 0, "{}", sim.transcript());
    sim.dead = false;
    for _ in 0..30 {
        if sim.canary_weight() == 0 && sim.snapshot.phase() != CanaryPhase::Failed {
            sim.reconcile();
        }
    }
    if sim.snapshot.phase() != CanaryPhase::Failed {
        assert_eq!(sim.canary_weight(), before, "{}", sim.transcript());
    }
}

/// A person gave the version another weight while its pods were gone. The operator does not restore the old weight.
#[test]
fn a_version_whose_routes_others_changed_after_the_loss_repeats_its_steps() {
    let mut sim = at_weight(40);
    sim.dead = true;
    sim.reconcile();
    assert_eq!(sim.canary_weight(), 0, "{}", sim.transcript());
    let steps = sim.routed.len();
    sim.dead = false;
    sim.route(5);
    sim.run_until(CanaryPhase::Succeeded);
    assert_eq!(sim.routed[steps..], [20, 40, 0], "{}", sim.transcript());
}

/// An eviction is no failed check. If the operator counted it as one, a threshold of 1 would end the release.
#[test]
fn a_version_that_loses_its_pods_once_gets_its_traffic_back_and_no_hook_is_repeated() {
    for threshold in [1, 5] {
        let mut sim = release(
            json!({"stepWeight": 20, "maxWeight": 60, "threshold": threshold, "webhooks": [
                {"name": "acceptance", "type": "pre-rollout", "url": "http://hooks/acceptance"}]}),
        );
        while sim.canary_weight() < 40 {
            sim.reconcile();
        }
        lose_pods(&mut sim);
        let status = sim.snapshot.canary.status.clone().unwrap();
        assert_eq!((status.failed_checks, status.canary_weight), (0, 40));
        sim.run_until(CanaryPhase::Succeeded);
        assert_eq!(sim.routed, [20, 40, 0, 40, 60, 0], "{}", sim.transcript());
        assert_eq!(sim.count_notified("check acceptance passed"), 1);
    }
}

#[test]
fn a_version_that_keeps_losing_its_pods_is_rolled_back_for_that_reason() {
    let mut sim = at_weight(20);
    let crashed = json!({"name": "app", "ready": false, "restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}}});
    let pod = json!({"status": {"containerStatuses": [crashed]}});
    sim.kept.push((Kind::Pod, pod));
    for _ in 0..3 {
        while sim.canary_weight() == 0 {
            sim.reconcile();
        }
        lose_pods(&mut sim);
    }
    sim.run_until(CanaryPhase::Failed);
    let why = "Warning [Progressing] Rolling back podinfo.test all ready pods lost 3 times";
    assert_eq!(sim.count_notified(why), 1, "{:#?}", sim.notified);
    let alert = "alert Error: All ready pods lost 3 times";
    assert_eq!(sim.count_notified(alert), 1, "{:#?}", sim.notified);
    let verdict = { sim.snapshot.status() }.condition(ConditionType::Verdict);
    let sentence = verdict.and_then(|verdict| verdict.message.as_deref());
    let why = "The canary lost all its ready pods 3 times; the threshold is 2. A pod tells why: container app: CrashLoopBackOff, 3 restarts.";
    assert_eq!(sentence, Some(why));
}

/// The next run begins without the losses of this one.
#[test]
fn losses_count_within_one_run() {
    let mut sim = at_weight(20);
    lose_pods(&mut sim);
    lose_pods(&mut sim);
    sim.image("podinfo:3");
    while sim.canary_weight() != 0 {
        sim.reconcile();
    }
    while sim.canary_weight() < 20 {
        sim.reconcile();
    }
    lose_pods(&mut sim);
    sim.run_until(CanaryPhase::Succeeded);
}

/// A release that waits for its approval is analysed again, and then asks for the approval again.
#[test]
fn a_version_that_waits_for_its_promotion_and_loses_its_pods_is_analysed_again() {
    let mut sim = release(
        json!({"stepWeight": 20, "maxWeight": 40, "threshold": 1, "webhooks": [
        {"name": "gate", "type": "confirm-promotion", "url": "http://hooks/gate"}]}),
    );
    sim.closed.insert("gate");
    sim.run_until_phase(CanaryPhase::WaitingPromotion);
    sim.dead = true;
    sim.reconcile();
    let place = (sim.snapshot.phase(), sim.canary_weight());
    assert_eq!(place, (CanaryPhase::Progressing, 0));
    sim.dead = false;
    sim.run_until_phase(CanaryPhase::WaitingPromotion);
    assert_eq!(sim.canary_weight(), 40);
    sim.closed.clear();
    sim.run_until(CanaryPhase::Succeeded);
    assert_eq!(sim.routed, [20, 40, 0, 40, 0], "{}", sim.transcript());
    assert_eq!(sim.count_notified("alert Info: New revision"), 1);
}

/// The alert was sent when the run began.
#[test]
fn a_newer_version_sends_no_second_alert_from_any_phase() {
    for phase in [
        CanaryPhase::Progressing,
        CanaryPhase::WaitingPromotion,
        CanaryPhase::Promoting,
    ] {
        let mut sim = release(json!({"stepWeight": 20, "maxWeight": 40, "webhooks": [
            {"name": "gate", "type": "confirm-promotion", "url": "http://hooks/gate"}]}));
        if phase == CanaryPhase::WaitingPromotion {
            sim.closed.insert("gate");
        }
        sim.run_until_phase(phase);
        sim.image("podinfo:3");
        sim.closed.clear();
        sim.run_until(CanaryPhase::Succeeded);
        assert!(sim.outcome().contains("podinfo:3"), "{}", sim.outcome());
        let alerts = sim.count_notified("alert Info: New revision detected, progressing");
        assert_eq!(alerts, 1, "{phase}: {:#?}", sim.notified);
    }
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
    assert!(!status.has_condition(ConditionType::PodsLost));
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

/// A second crash between the write of a route and that of the status must not make a repeated step look like a finished one.
#[test]
fn a_second_crash_at_any_write_of_repeated_steps_cuts_none_short() {
    let test = json!([{"headers": {"x-canary": {"exact": "insider"}}}]);
    for analysis in [
        json!({"stepWeight": 20, "maxWeight": 60}),
        json!({"iterations": 3, "match": test}),
    ] {
        let play = |crash: Option<usize>| {
            let mut sim = release(analysis.clone());
            let progress = |sim: &Simulation| {
                let status = sim.snapshot.canary.status.clone().unwrap_or_default();
                (status.canary_weight, status.iterations)
            };
            while ![(40, 0), (0, 2)].contains(&progress(&sim)) {
                sim.reconcile();
            }
            sim.dead = true;
            sim.crash_after = Some(sim.writes + 1);
            sim.reconcile();
            sim.dead = false;
            let (start, writes) = (sim.snapshot.now, sim.writes);
            sim.crash_after = crash.map(|write| writes + write);
            sim.run_until_phase(CanaryPhase::Promoting);
            let repeated = sim.snapshot.now.duration_since(start);
            (repeated, sim.writes - writes, sim.transcript())
        };
        let (undisturbed, writes, transcript) = play(None);
        assert!(undisturbed.as_secs() >= 30, "{transcript}");
        for crash in 1..=writes {
            let (repeated, _, transcript) = play(Some(crash));
            assert!(
                repeated >= undisturbed,
                "crashed after write {crash}:\n{transcript}"
            );
        }
    }
}
