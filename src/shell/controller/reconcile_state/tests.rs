use super::*;
use crate::{
    api::canary::{Canary, CanaryPhase, CanaryStatus},
    notifications::{EventKind, Frequency, Severity},
    snapshot::Kind,
};

const INTERVAL: Duration = Duration::from_secs(10);

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

#[test]
fn a_tick_is_taken_once_and_the_next_comes_an_interval_later() {
    let mut state = ReconcileState::default();
    let mut tick = |now| {
        state
            .tick(Some(at(0)), INTERVAL, at(now))
            .map(|tick| tick.at)
    };
    assert_eq!(tick(9), None);
    assert_eq!(tick(10), Some(at(10)));
    state.waited(
        Some(Tick {
            at: at(10),
            late: false,
        }),
        Requeue::AtTick,
    );
    assert_eq!(state.tick(Some(at(0)), INTERVAL, at(19)), None);
    assert_eq!(
        state
            .tick(Some(at(0)), INTERVAL, at(20))
            .map(|tick| tick.at),
        Some(at(20))
    );
}

#[test]
fn a_step_with_slow_answers_does_not_begin_twice() {
    let mut state = ReconcileState::default();
    let tick = state.tick(Some(at(0)), INTERVAL, at(10));
    state.asks(tick, at(10));
    assert_eq!(state.tick(Some(at(0)), INTERVAL, at(45)), tick);
    assert_eq!(
        state.tick(Some(at(45)), INTERVAL, at(46)),
        None,
        "a write ends the step"
    );
}

#[test]
fn a_step_whose_write_is_retried_is_late() {
    let mut state = ReconcileState::default();
    let tick = state.tick(Some(at(0)), INTERVAL, at(10));
    state.asks(tick, at(10));
    state.failed();
    let late = |tick: Option<Tick>| tick.map(|tick| tick.late);
    assert_eq!(late(state.tick(Some(at(0)), INTERVAL, at(11))), Some(false));
    assert_eq!(late(state.tick(Some(at(0)), INTERVAL, at(12))), Some(true));
}

#[test]
fn a_step_that_waited_for_pods_is_late() {
    let mut state = ReconcileState::default();
    let tick = state.tick(Some(at(0)), INTERVAL, at(10));
    state.waited(tick, Requeue::Ready);
    assert_eq!(
        state.tick(Some(at(0)), INTERVAL, at(13)),
        Some(Tick {
            at: at(10),
            late: true
        })
    );
}

#[test]
fn a_burst_of_edits_counts_from_its_first() {
    let mut state = ReconcileState::default();
    let mut seen = |version: &str, second| state.changed(Some(version.to_owned()), at(second));
    assert_eq!(
        seen("b", 1),
        Some(Changed {
            first: at(1),
            last: at(1)
        })
    );
    assert_eq!(
        seen("c", 2),
        Some(Changed {
            first: at(1),
            last: at(2)
        })
    );
    assert_eq!(
        seen("c", 3),
        Some(Changed {
            first: at(1),
            last: at(2)
        })
    );
    assert_eq!(state.changed(None, at(4)), None);
    let again = state.changed(Some("c".to_owned()), at(5));
    assert_eq!(
        again.map(|changed| changed.first),
        Some(at(5)),
        "the burst began anew"
    );
}

fn step(tick: Option<i64>, weight: i64) -> Step {
    let status = CanaryStatus {
        canary_weight: weight,
        ..CanaryStatus::default()
    };
    let tick = tick.map(|second| Tick {
        at: at(second),
        late: false,
    });
    Step::of(&Canary::default(), &status, tick)
}

fn event(message: &str) -> Notification {
    Notification::Event {
        kind: EventKind::Warning,
        message: message.to_owned(),
        phase: CanaryPhase::Progressing,
        checksum: String::new(),
        frequency: Frequency::Recurring,
    }
}

/// An alert about the beginning of a phase.
fn announcement(second: i64) -> Notification {
    Notification::Alert {
        severity: Severity::Info,
        text: "New revision detected".to_owned(),
        fields: Vec::new(),
        announces: Some(at(second)),
    }
}

#[test]
fn a_notification_is_sent_once_in_a_step_and_again_in_the_next() {
    let mut state = ReconcileState::default();
    let (first, next) = (step(Some(10), 5), step(Some(20), 5));
    assert_eq!(state.unsent(&first, vec![event("a")]), [event("a")]);
    let more = vec![event("a"), event("b")];
    assert_eq!(state.unsent(&first, more.clone()), [event("b")]);
    assert_eq!(state.unsent(&first, more.clone()), []);
    assert_eq!(state.unsent(&next, more.clone()), more);
    assert_eq!(state.unsent(&step(Some(20), 10), more.clone()), more);
}

#[test]
fn the_beginning_of_a_phase_is_announced_once_however_many_steps_follow() {
    let mut state = ReconcileState::default();
    let announce = |state: &mut ReconcileState, tick, begun| {
        let unsent = state.unsent(&step(Some(tick), 5), vec![announcement(begun)]);
        unsent.len()
    };
    assert_eq!(announce(&mut state, 10, 1), 1);
    assert_eq!(announce(&mut state, 20, 1), 0);
    assert_eq!(announce(&mut state, 30, 25), 1, "the phase began again");
    state.idle();
    assert_eq!(announce(&mut state, 40, 25), 1, "it was forgotten");
}

#[test]
fn only_the_first_reason_to_wait_is_sent_in_each_step() {
    let mut state = ReconcileState::default();
    let mut wait = |tick, requeue, message| {
        let unsent = state.unsent_of_wait(&step(Some(tick), 5), requeue, vec![event(message)]);
        unsent.len()
    };
    assert_eq!(wait(10, Requeue::Ready, "1 of 3 pods"), 1);
    assert_eq!(wait(10, Requeue::Ready, "2 of 3 pods"), 0);
    assert_eq!(wait(20, Requeue::Ready, "2 of 3 pods"), 1);
}

#[test]
fn a_closed_gate_is_reported_at_its_first_tick_and_with_each_reminder() {
    let mut state = ReconcileState::default();
    let mut wait = |tick, reminders, message| {
        let requeue = Requeue::Approval(reminders);
        let unsent = state.unsent_of_wait(&step(Some(tick), 5), requeue, vec![event(message)]);
        unsent.len()
    };
    assert_eq!(wait(10, 0, "waiting for approval"), 1);
    assert_eq!(wait(20, 0, "waiting for approval"), 0);
    assert_eq!(wait(30, 1, "waiting for an hour"), 1);
    assert_eq!(wait(40, 1, "waiting for an hour"), 0);
}

#[test]
fn an_obstacle_persists_at_the_second_fourth_and_eighth_tick() {
    let mut state = ReconcileState::default();
    let mut persists = |second, message| {
        let tick = Some(Tick {
            at: at(second),
            late: false,
        });
        state.obstacle_persists(tick, Requeue::AtTick, &[event(message)])
    };
    let ticks: Vec<_> = (1..=9).filter(|n| persists(10 * n, "no values")).collect();
    assert_eq!(ticks, [2, 4, 8]);
    assert!(!persists(90, "no values"), "the same tick");
    assert!(!persists(100, "another obstacle"));
    assert!(persists(110, "another obstacle"));
}

#[test]
fn a_wait_without_an_obstacle_reads_nothing_again() {
    let mut state = ReconcileState::default();
    for second in [10, 20, 30, 40] {
        let tick = Some(Tick {
            at: at(second),
            late: false,
        });
        assert!(!state.obstacle_persists(tick, Requeue::AtTick, &[]));
        let gate = Requeue::Approval(0);
        assert!(!state.obstacle_persists(tick, gate, &[event("closed")]));
        assert!(!state.obstacle_persists(None, Requeue::AtTick, &[event("no tick")]));
    }
}

#[test]
fn a_written_object_is_remembered_until_the_next_tick() {
    let mut state = ReconcileState::default();
    let service = ObjectRef {
        kind: Kind::Service,
        namespace: "shop".to_owned(),
        name: "web".to_owned(),
    };
    let written = |state: &mut ReconcileState, now| {
        let written = state.recently_written(Some(at(0)), INTERVAL, at(now));
        written.contains(&service)
    };
    assert!(!written(&mut state, 11));
    assert!(state.mark_written(&service), "the first time");
    assert!(!state.mark_written(&service));
    assert!(written(&mut state, 19));
    assert!(!written(&mut state, 20));
    assert!(state.mark_written(&service), "a new tick");
}

#[test]
fn a_gate_uses_its_tick_up_and_an_instant_does_not() {
    for (requeue, again) in [
        (Requeue::Approval(0), false),
        (Requeue::AtTick, false),
        (Requeue::Ready, true),
        (Requeue::OnChange, true),
        (Requeue::At(at(12)), true),
    ] {
        let mut state = ReconcileState::default();
        let tick = state.tick(Some(at(0)), INTERVAL, at(10));
        state.asks(tick, at(10));
        state.waited(tick, requeue);
        assert_eq!(state.asked_at, None);
        let next = state.tick(Some(at(0)), INTERVAL, at(11));
        assert_eq!(next.is_some(), again, "{requeue:?}");
    }
}

#[test]
fn a_transition_ends_the_open_step_and_keeps_what_was_sent() {
    let mut state = ReconcileState::default();
    let tick = state.tick(Some(at(0)), INTERVAL, at(10));
    state.asks(tick, at(10));
    let same = step(Some(10), 5);
    drop(state.unsent(&same, vec![event("a")]));
    assert_eq!(state.tick(Some(at(12)), INTERVAL, at(13)), None);
    assert_eq!(state.asked_at, None);
    assert_eq!(state.unsent(&same, vec![event("a")]), []);
}
