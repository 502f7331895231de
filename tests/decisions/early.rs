//! Comparisons between two ticks: a version that is worse is not served until the next tick, and one that is proven good need not wait for it.

use flagger_rs::{api::canary::CanaryPhase, snapshot::Kind};
use serde_json::{Value, json};

use super::{
    actions::ask,
    comparison::{BOTH, comparison, release, until, verdict},
    simulation::{Simulation, Traffic},
};

/// Seconds from the first share of the traffic to the present.
fn seconds(sim: &mut Simulation, until_weight: u8) -> i64 {
    let start = sim.snapshot.now.as_second();
    until(sim, |sim| sim.canary_weight() == until_weight);
    sim.snapshot.now.as_second() - start
}

fn early() -> Value {
    json!({"compare": {"advance": "early"}})
}

#[test]
fn a_version_that_is_worse_loses_its_traffic_before_the_next_tick() {
    for (interval, most) in [("1m", 35), ("2m", 65), ("59s", 65)] {
        let traffic = Traffic {
            canary_fails: 0.05,
            ..Traffic::of(1000.0)
        };
        let mut sim = release(&BOTH, &json!({"compare": {}}), traffic);
        let analysis = sim.snapshot.canary.spec.analysis.as_mut().unwrap();
        interval.clone_into(&mut analysis.interval);
        until(&mut sim, |sim| sim.canary_weight() == 10);
        let took = seconds(&mut sim, 0);
        let text = sim.transcript();
        assert!(
            (most - 10..most).contains(&took),
            "{interval}: {took}\n{text}"
        );
        assert!(verdict(&sim).starts_with("Regression "), "{text}");
        sim.run_until(CanaryPhase::Failed);
    }
}

/// Only a regression ends a step before its tick.
#[test]
fn nothing_else_acts_between_two_ticks() {
    type Break = fn(&mut Traffic);
    let breaks: [Break; 6] = [
        |_| {},
        |it| it.is_down = true,
        |it| it.lacks_canary = true,
        |it| it.lags = 600,
        |it| it.ignores_weights = true,
        |it| it.per_second = 0.1,
    ];
    for breaks in breaks {
        let mut sim = release(&BOTH, &json!({"compare": {}}), Traffic::of(1000.0));
        until(&mut sim, |sim| sim.canary_weight() == 10);
        breaks(sim.traffic.as_mut().unwrap());
        let (start, notified) = (sim.snapshot.now.as_second(), sim.notified.len());
        let before = sim.snapshot.status().clone();
        while sim.snapshot.now.as_second() < start + 55 {
            sim.reconcile();
        }
        let after = sim.snapshot.status();
        assert_eq!(after.last_transition_time, before.last_transition_time);
        assert_eq!((after.canary_weight, after.failed_checks), (10, 0));
        assert_eq!((verdict(&sim).as_str(), sim.notified.len()), ("", notified));
    }
}

#[test]
fn a_version_that_is_proven_good_takes_its_steps_in_half_of_the_time_if_asked() {
    for (fields, most) in [(early(), 40), (json!({"compare": {}}), 65)] {
        let mut sim = release(&BOTH, &fields, Traffic::of(20_000.0));
        until(&mut sim, |sim| sim.canary_weight() == 20);
        for weight in [30, 40, 50] {
            let took = seconds(&mut sim, weight);
            let text = sim.transcript();
            assert!(
                (most - 15..most).contains(&took),
                "{weight}: {took}\n{text}"
            );
        }
        sim.run_until(CanaryPhase::Succeeded);
        assert_eq!(sim.routed, [10, 20, 30, 40, 50, 0], "{}", sim.transcript());
    }
}

/// A step ends early only with the consent of all metrics, with enough requests, and unless a person paused the release.
#[test]
fn a_step_does_not_end_early_without_proof_or_consent() {
    let lasts_a_minute = |sim: &mut Simulation| {
        until(sim, |sim| sim.canary_weight() == 20);
        let took = seconds(sim, 30);
        assert!((50..65).contains(&took), "{took}\n{}", sim.transcript());
    };
    // Few requests prove nothing.
    lasts_a_minute(&mut release(&BOTH, &early(), Traffic::of(100.0)));
    let mut mixed = release(&BOTH, &early(), Traffic::of(20_000.0));
    let analysis = mixed.snapshot.canary.spec.analysis.as_mut().unwrap();
    analysis.metrics[1].compare.as_mut().unwrap().advance = None;
    lasts_a_minute(&mut mixed);
    let mut paused = release(&BOTH, &early(), Traffic::of(20_000.0));
    until(&mut paused, |sim| sim.canary_weight() == 20);
    ask(&mut paused, "pause", "x1");
    let start = paused.snapshot.now.as_second();
    until(&mut paused, |sim| {
        sim.snapshot.now.as_second() > start + 300
    });
    assert_eq!(paused.canary_weight(), 20);
    assert!(comparison(&paused).is_some());
}

/// A paused version, and one that waits for the approval of its promotion, are still rolled back as soon as they are worse.
#[test]
fn a_version_that_waits_is_compared_between_two_ticks_too() {
    let mut sim = release(&BOTH, &json!({"compare": {}}), Traffic::of(1000.0));
    until(&mut sim, |sim| sim.canary_weight() == 20);
    ask(&mut sim, "pause", "x1");
    let start = sim.snapshot.now.as_second();
    until(&mut sim, |sim| sim.snapshot.now.as_second() > start + 120);
    sim.traffic.as_mut().unwrap().canary_fails = 0.2;
    let took = seconds(&mut sim, 0);
    assert!(took < 50, "{took}\n{}", sim.transcript());
}

/// A proxy that has not applied the new route sends requests to pods that are about to end.
#[test]
fn a_version_that_still_gets_requests_after_its_rollback_keeps_its_pods_for_five_intervals() {
    for (moves_late, is_down, intervals) in [
        (0, false, 1),
        (100, false, 3),
        (1000, false, 5),
        (1000, true, 1),
    ] {
        let mut sim = release(&BOTH, &json!({"compare": {}}), Traffic::of(1000.0));
        until(&mut sim, |sim| sim.canary_weight() == 20);
        ask(&mut sim, "pause", "x1");
        let start = sim.snapshot.now.as_second();
        until(&mut sim, |sim| sim.snapshot.now.as_second() > start + 1000);
        ask(&mut sim, "abort", "x2");
        until(&mut sim, |sim| sim.canary_weight() == 0);
        let traffic = sim.traffic.as_mut().unwrap();
        (traffic.moves_late, traffic.is_down) = (moves_late, is_down);
        let start = sim.snapshot.now.as_second();
        let target = sim.snapshot.reference(Kind::Deployment, "podinfo");
        until(&mut sim, |sim| {
            sim.snapshot.objects[&target]["spec"]["replicas"] == 0
        });
        let took = sim.snapshot.now.as_second() - start;
        let text = sim.transcript();
        assert!(
            (intervals * 60..intervals * 60 + 20).contains(&took),
            "{moves_late} {took}\n{text}"
        );
        let reports = sim.count_notified("requests after its traffic had moved away");
        assert_eq!(i64::try_from(reports).unwrap(), intervals - 1, "{text}");
    }
}
