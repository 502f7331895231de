//! Compares a disturbed run with the undisturbed one, which `expected` pins.

use std::{collections::BTreeMap, time::Duration};

use super::{
    super::scenario::Scenario,
    allowance::{self, Allowance},
    disturbance::Disturbance,
    messages::{self, Channel, Message},
    run::Run,
};

/// Times in a status are whole seconds.
const ROUNDING: Duration = Duration::from_secs(1);

/// The seconds from one tick to the next.
const TICK: u64 = 10;

/// How often each message was sent.
type Counts = BTreeMap<Message, usize>;

/// The differences that the disturbances do not justify, and the violated invariants.
pub fn differences(reference: &Run, disturbed: &Run, disturbances: &[Disturbance]) -> Vec<String> {
    let allowed = allowance::of(reference.scenario, disturbances);
    let mut wrong = disturbed.wrong.clone();
    let (mut ends, mut expected) = (disturbed.outcome.clone(), reference.outcome.clone());
    if may_lack_a_record(reference.scenario, disturbances) {
        for outcome in [&mut ends, &mut expected] {
            // Some scenarios have no records in their outcome.
            outcome
                .as_object_mut()
                .map(|outcome| outcome.remove("releases"));
        }
    }
    if ends != expected {
        wrong.push(format!("ends with {ends}, not with {expected}"));
    }
    let delay = disturbed.length.saturating_sub(reference.length);
    if delay > allowed.delay + ROUNDING {
        wrong.push(format!(
            "takes {delay:?} longer than undisturbed, not at most {:?}",
            allowed.delay
        ));
    }
    let expected = messages::counts(&reference.messages);
    let sent = messages::counts(&disturbed.messages);
    wrong.extend(missing(&expected, &sent, &allowed));
    wrong.extend(additional(&expected, &sent, &allowed));
    wrong
}

/// Whether a record may be missing or lack its end. The run that a newer version replaces has two changes of the status, and two faults may
/// hide both.
fn may_lack_a_record(scenario: Scenario, disturbances: &[Disturbance]) -> bool {
    let are_two = disturbances.len() > 1;
    (are_two && scenario == Scenario::Overtaken)
        || disturbances.iter().any(|it| it.may_end_a_record())
}

/// The messages that are missing. No alert and no hook may be missing.
fn missing(expected: &Counts, sent: &Counts, allowed: &Allowance) -> Vec<String> {
    let (mut lost, mut wrong) = (BTreeMap::new(), Vec::new());
    for (message, times) in expected {
        let count = sent.get(message).copied().unwrap_or(0);
        if count >= *times {
            continue;
        }
        let most = match message.channel {
            Channel::Alert | Channel::Hook => 0,
            // A reason to wait is sent at each tick. The number of ticks depends on timing.
            _ if message.is_reason_to_wait() && count > 0 => continue,
            Channel::Event => allowed.lost_events,
            Channel::EventWebhook => allowed.lost_payloads,
            // Gates are called at each tick until they open.
            Channel::Gate => times - 1,
        };
        let lost = lost.entry(message.channel).or_insert(0);
        *lost += times - count;
        if *lost > most {
            wrong.push(format!("sent {count} times, not {times}: {message}"));
        }
    }
    wrong
}

/// The messages that were sent too often, or only in the disturbed run. Every alert must also be sent in the undisturbed run.
fn additional(expected: &Counts, sent: &Counts, allowed: &Allowance) -> Vec<String> {
    let mut wrong = Vec::new();
    for (message, count) in sent {
        let times = expected.get(message).copied().unwrap_or(0);
        let more = match (message.channel, times) {
            (Channel::Gate, _) => continue,
            (Channel::Alert, 0) => 0,
            (Channel::Alert, _) => allowed.repeats,
            (Channel::Hook, 0) => allowed.steps,
            (Channel::Hook, _) => allowed.repeats + allowed.steps,
            _ if message.is_reason_to_wait() && times > 0 => {
                let ticks = usize::try_from(allowed.delay.as_secs() / TICK).unwrap();
                allowed.repeated_events + ticks
            }
            (_, 0) if message.is_warning() => allowed.warnings + allowed.steps,
            (_, 0) => allowed.steps,
            _ => allowed.repeated_events + allowed.steps,
        };
        if *count > times + more {
            wrong.push(format!("sent {count} times, not {times}: {message}"));
        }
    }
    wrong
}
