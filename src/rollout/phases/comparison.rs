//! The effect of comparisons on a step: a rollback at once, a failed check, or a wait (not in Flagger).

use crate::{
    api::status::VerdictCode,
    rollout::{
        checks::{
            Halt,
            comparisons::{Compared, Effect, Until},
        },
        messages::{self, checks},
        plan::{Decision, Requeue},
        rollback,
        status::{FailedCheck, Outcome, StatusChange, verdict},
    },
    snapshot::Snapshot,
};

/// The rollback of a version that is worse than the primary. It does not wait for a number of failed checks: chance is ruled out.
pub fn roll_back(snapshot: &Snapshot, all: &[Compared]) -> Option<Decision> {
    let mut deciding = all.iter().filter(|it| it.decides);
    let worse = deciding.find(|it| it.effect == Effect::RollBack)?;
    let outcome = Outcome::Regression(worse.detail.clone());
    Some(rollback::begin(snapshot, &outcome))
}

/// The failed checks.
pub fn failures(snapshot: &Snapshot, all: &[Compared]) -> Vec<Halt> {
    let failed = all
        .iter()
        .filter(|it| it.decides && it.effect == Effect::Fail);
    failed.map(|it| halt(snapshot, it)).collect()
}

/// The wait of a step whose versions cannot be compared yet; `None` if there is no reason to wait.
pub fn hold(snapshot: &Snapshot, all: &[Compared]) -> Option<Decision> {
    let until = |it: &Compared| match it.effect {
        Effect::Hold(until) if it.decides => Some(until),
        _ => None,
    };
    let mut waiting = all.iter().filter_map(|it| Some((it, until(it)?)));
    let (compared, until) = waiting.next()?;
    let status = snapshot.status();
    let Halt { event, mut failed } = halt(snapshot, compared);
    if until == Until::Person {
        failed.code = VerdictCode::Undecided;
    }
    let is_overdue = snapshot.exceeds_deadline(status.last_transition_time.as_ref());
    if until == Until::Deadline && is_overdue {
        return Some(rollback::not_compared(snapshot, &failed));
    }
    let waits = match until {
        Until::Deadline => "Waits, because the versions cannot be compared",
        Until::Requests => "Waits for more requests",
        Until::Person => "Waits for a person, who may skip the step, promote or abort the version",
    };
    let event = messages::warning(snapshot, event);
    if verdict::waits_to_compare(status, failed.code, waits) {
        return Some(Decision::Wait(Requeue::AtTick, vec![event]));
    }
    let alert = || checks::gate_alert(snapshot, "Canary analysis is waiting for a person.");
    let alert = (until == Until::Person).then(alert);
    let change = verdict::not_compared(StatusChange::within_step(snapshot), &failed, waits);
    let notifications = [Some(event), alert].into_iter().flatten();
    Some(Decision::commit(change.build(), notifications.collect()))
}

fn halt(snapshot: &Snapshot, compared: &Compared) -> Halt {
    let name = snapshot.full_name();
    Halt {
        event: format!("Halt {name} advancement {}", compared.detail),
        failed: FailedCheck::new(compared.state.code(), &compared.detail),
    }
}
