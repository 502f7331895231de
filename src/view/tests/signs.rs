//! An action that is about to be carried out, and an operator that gives no sign.

use jiff::SignedDuration;

use super::*;

/// A status with this condition, and with the action that a person asked for.
fn asked(phase: &str, condition: &str, action: &str) -> Value {
    let mut status = status(phase, NEW, OLD);
    status["conditions"] = json!([
        {"type": "Verdict", "status": "True", "reason": "Gate", "message": "Waits until the gate opens."},
        {"type": condition, "status": "True", "reason": "Accepted", "message": "by jane: fine"},
        {"type": "Action", "status": "True", "reason": "Accepted", "message": format!("01-a {action} by jane: fine")}]);
    status
}

#[test]
fn an_accepted_action_opens_a_gate_in_the_texts_at_once() {
    let expected = |verb| {
        format!("Accepted: {verb} by jane: fine. It takes effect with the operator's next check.")
    };
    for (phase, condition, verb) in [
        ("Waiting", "SkipRequested", "resume"),
        ("Waiting", "PromoteRequested", "promote"),
        ("WaitingPromotion", "SkipRequested", "skip"),
        ("Progressing", "SkipRequested", "skip"),
    ] {
        let view = View::of(&seen(&asked(phase, condition, verb), NEW, OLD), now());
        let found = (view.state, view.sentence.as_str());
        assert_eq!(found, (State::Progressing, &*expected(verb)), "{phase}");
    }
    let view = View::of(
        &seen(&asked("Failed", "RetryRequested", "retry"), NEW, OLD),
        now(),
    );
    assert_eq!(
        (view.state, view.sentence),
        (State::Failed, expected("retry"))
    );
    let mut later = asked("Waiting", "SkipRequested", "resume");
    later["conditions"][2]["reason"] = json!("Refused");
    let view = View::of(&seen(&later, NEW, OLD), now());
    let sentence =
        "Accepted: an action by jane: fine. It takes effect with the operator's next check.";
    assert_eq!(view.sentence, sentence);
    // The promotion has begun, so the action has taken effect.
    let view = View::of(
        &seen(&asked("Promoting", "PromoteRequested", "promote"), NEW, OLD),
        now(),
    );
    assert!(!view.sentence.contains("Accepted"), "{}", view.sentence);
}

/// The view of a run with an interval of one minute whose status changed at 10:11:37, at this time after the change.
fn after(minutes: i64, events: Option<Vec<Value>>) -> View {
    let mut seen = seen(&status("Progressing", NEW, OLD), NEW, OLD);
    seen.events = events;
    let changed: Timestamp = "2026-11-28T10:11:37Z".parse().unwrap();
    View::of(&seen, changed + SignedDuration::from_mins(minutes))
}

/// A view does not invent the next step of an operator that is down.
#[test]
fn an_operator_that_gives_no_sign_is_reported() {
    let event = |minute: u32| {
        Some(vec![
            json!({"type": "Normal", "message": "m", "lastTimestamp": format!("2026-11-28T10:{minute:02}:00Z")}),
        ])
    };
    let none = || Some(Vec::new());
    for (minutes, events, is_silent) in [
        (2, none(), false),
        (3, none(), true),
        (9, event(19), false),
        (12, event(19), true),
        // Without the events, a wait for pods and a silent operator look the same for longer.
        (10, None, false),
        (11, None, true),
    ] {
        let view = after(minutes, events);
        let found = (
            view.silent_since.is_some(),
            view.needs_attention,
            view.next_step.is_none(),
        );
        assert_eq!(found, (is_silent, is_silent, is_silent), "{minutes}");
    }
    let view = after(12, event(19));
    let sign = "There is no sign of the operator since 2026-11-28T10:19:00Z.";
    assert!(view.sentence.starts_with(sign), "{}", view.sentence);
    let commands = view.next_commands(&Typed::new("flagger", &[]));
    assert_eq!(commands, ["kubectl get pods -A | grep flagger"]);
    let mut paused = status("Progressing", NEW, OLD);
    paused["conditions"] =
        json!([{"type": "Paused", "status": "True", "reason": "Accepted", "message": "by jane"}]);
    let later = now() + SignedDuration::from_hours(3);
    let view = View::of(&seen(&paused, NEW, OLD), later);
    assert_eq!(
        (view.sentence.as_str(), view.silent_since),
        ("Paused by jane.", None)
    );
}

#[test]
fn an_event_with_a_credential_is_shown_without_it() {
    let mut seen = seen(&status("Progressing", NEW, OLD), NEW, OLD);
    seen.events = Some(vec![
        json!({"message": "the gate answered: password=hunter2hunter2"}),
    ]);
    let view = View::of(&seen, now());
    assert_eq!(
        view.events.unwrap()[0].message,
        "the gate answered: password=[redacted]"
    );
}
