use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::{
    cli,
    shell::controller::observe::empty_snapshot,
    snapshot::{Conflict, Kind},
};

const TRANSITION: &str = "2026-01-02T03:04:00Z";

fn canary(uid: &str, interval: &str, phase: &str) -> Canary {
    serde_json::from_value(json!({"apiVersion": "flagger.app/v1beta1", "kind": "Canary",
        "metadata": {"name": "web", "namespace": "shop", "uid": uid},
        "spec": {"targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}, "service": {"port": 80},
            "analysis": {"interval": interval, "threshold": 1, "stepWeight": 10}},
        "status": {"phase": phase, "canaryWeight": 0, "failedChecks": 0, "iterations": 0, "lastTransitionTime": TRANSITION}}))
    .unwrap()
}

/// A snapshot this long after the last transition.
fn snapshot(canary: Canary, seconds: f64) -> Snapshot {
    let Ok(cli::Command::Run(config)) = cli::parse([], |_| None) else {
        panic!("the operator runs without arguments")
    };
    let reference = crate::snapshot::ObjectRef {
        kind: Kind::Canary,
        namespace: "shop".to_owned(),
        name: "web".to_owned(),
    };
    let mut snapshot = empty_snapshot(canary, &reference, &Arc::new(config.settings));
    let transition: Timestamp = TRANSITION.parse().unwrap();
    let later = SignedDuration::try_from_secs_f64(seconds).unwrap();
    snapshot.now = transition + later;
    snapshot
}

#[test]
fn the_next_step_is_a_whole_interval_after_the_transition_plus_the_jitter() {
    let of = canary("u-1", "20s", "Progressing");
    let offset = jitter(&of).as_secs_f64();
    for (passed, tick) in [
        (0.0, 20.0),
        (1.0, 20.0),
        (19.0, 20.0),
        (26.0, 40.0),
        (59.0, 60.0),
        (66.0, 80.0),
    ] {
        for requeue in [Requeue::AtTick, Requeue::Ready, Requeue::Approval(3)] {
            let wait = time_until(&snapshot(of.clone(), passed), requeue);
            let at = passed + wait.as_secs_f64();
            assert!((at - tick - offset).abs() < 0.001, "{passed}: {at}");
        }
    }
}

#[test]
fn a_canary_waits_for_its_instant_and_not_at_all_if_it_has_passed() {
    let at = |seconds: i64| {
        let transition: Timestamp = TRANSITION.parse().unwrap();
        Requeue::At(transition + SignedDuration::from_secs(seconds))
    };
    let now = snapshot(canary("u-1", "20s", "Progressing"), 7.0);
    assert_eq!(time_until(&now, at(12)), Duration::from_secs(5));
    assert_eq!(time_until(&now, at(3)), Duration::ZERO);
    assert_eq!(time_until(&now, Requeue::OnChange), IDLE);
}

#[test]
fn a_canary_without_a_transition_takes_its_first_step_an_interval_later() {
    let mut new = canary("u-1", "20s", "Progressing");
    new.status = None;
    let offset = jitter(&new);
    let wait = time_until(&snapshot(new, 0.0), Requeue::AtTick);
    // The jitter of an instant and that of its tick cancel each other out.
    assert_eq!(wait, Duration::from_secs(20), "{offset}");
}

#[test]
fn the_jitter_is_fixed_for_a_canary_and_differs_among_canaries() {
    let jitters = |interval: &str| -> Vec<_> {
        let canaries = (0..100).map(|n| canary(&format!("u-{n}"), interval, "Progressing"));
        canaries.map(|canary| jitter(&canary).as_millis()).collect()
    };
    for (interval, most) in [("12s", 3_000), ("1m", 5_000), ("1h", 5_000)] {
        let of = jitters(interval);
        assert_eq!(of, jitters(interval));
        assert!(of.iter().all(|jitter| (0..=most).contains(jitter)));
        let (least, greatest) = (of.iter().min().unwrap(), of.iter().max().unwrap());
        assert!(*least < most / 5 && *greatest > most * 4 / 5, "{of:?}");
    }
}

#[test]
fn only_a_canary_between_runs_with_all_objects_as_they_should_be_is_idle() {
    let idle = |phase: &str, change: fn(&mut Snapshot)| {
        let mut snapshot = snapshot(canary("u-1", "20s", phase), 7.0);
        change(&mut snapshot);
        is_idle(&snapshot, Requeue::AtTick)
    };
    for phase in ["Initialized", "Succeeded", "Failed"] {
        assert!(idle(phase, |_| {}), "{phase}");
        assert!(!idle(phase, |s| s.conflicting_canary = Some(Conflict {
            canary: "a.shop".to_owned(),
            object: s.reference(Kind::Service, "web"),
        })));
        assert!(!idle(phase, |s| {
            s.changed = Some(crate::snapshot::Changed {
                first: s.now,
                last: s.now,
            });
        }));
        assert!(!idle(phase, |s| {
            let object = s.reference(Kind::Service, "web");
            s.paused.insert(object.clone(), 0);
        }));
        assert!(!idle(phase, |s| {
            let object = s.reference(Kind::Service, "web");
            s.recently_written.insert(object);
        }));
    }
    for phase in [
        "Initializing",
        "Waiting",
        "Progressing",
        "Promoting",
        "Finalising",
    ] {
        assert!(!idle(phase, |_| {}), "{phase}");
    }
    let between_runs = snapshot(canary("u-1", "20s", "Succeeded"), 7.0);
    let in_a_run = snapshot(canary("u-1", "20s", "Progressing"), 7.0);
    assert!(is_idle(&in_a_run, Requeue::OnChange), "an invalid spec");
    for requeue in [
        Requeue::Ready,
        Requeue::Approval(0),
        Requeue::At(between_runs.now),
    ] {
        assert!(!is_idle(&between_runs, requeue), "{requeue:?}");
    }
}

#[test]
fn an_idle_canary_is_reconciled_now_and_then_and_sooner_if_a_kind_is_not_watched() {
    for n in 0..100 {
        let canary = canary(&format!("u-{n}"), "20s", "Succeeded");
        let (watched, unwatched) = (idle_time(&canary, false), idle_time(&canary, true));
        assert!((450..=600).contains(&watched.as_secs()), "{watched:?}");
        assert!((225..=300).contains(&unwatched.as_secs()), "{unwatched:?}");
    }
}
