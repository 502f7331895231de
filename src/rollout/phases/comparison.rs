//! The effect of comparisons on a step: a rollback at once, a failed check, or a wait (not in Flagger).

use crate::{
    api::status::{ConditionType, VerdictCode},
    rollout::{
        checks::{
            Halt,
            comparisons::{self, Compared, Effect, Until},
        },
        messages::{self, checks},
        plan::{Decision, Requeue},
        rollback,
        status::{FailedCheck, Outcome, StatusChange, compared, verdict},
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
    let waiting: Vec<_> = all.iter().filter_map(|it| Some((it, until(it)?))).collect();
    let status = snapshot.status();
    let verdict = status.condition(ConditionType::Verdict);
    let is_known = |code: VerdictCode| verdict.is_some_and(|it| it.reason == code.as_str());
    // The deadline counts from the beginning of this wait.
    let since = verdict.and_then(|verdict| verdict.last_transition_time.as_ref());
    let is_overdue = |(compared, until): &&(&Compared, Until)| {
        *until == Until::Deadline
            && is_known(compared.state.code())
            && snapshot.exceeds_deadline(since)
    };
    if let Some((compared, _)) = waiting.iter().find(is_overdue) {
        let why = halt(snapshot, compared).failed;
        return Some(rollback::not_compared(snapshot, &why));
    }
    let has_deadline = |(_, until): &&(&Compared, Until)| *until == Until::Deadline;
    let first = waiting.iter().find(has_deadline).or(waiting.first());
    let (compared, until) = *first?;
    let Halt { event, mut failed } = halt(snapshot, compared);
    if until == Until::Person {
        failed.code = VerdictCode::Undecided;
    }
    let waits = match until {
        Until::Deadline => "Waits, because the versions cannot be compared",
        Until::Requests => "Waits for more requests",
        Until::Person => "Waits for a person, who may skip the step, promote or abort the version",
    };
    let mut change = StatusChange::within_step(snapshot);
    let mut notifications = vec![messages::warning(snapshot, event)];
    if !is_known(failed.code) {
        change = verdict::not_compared(change, &failed, waits);
        if until == Until::Person {
            let text = "Canary analysis is waiting for a person.";
            notifications.push(checks::gate_alert(snapshot, text));
        }
    }
    let mut kept = change.build();
    comparisons::keep(snapshot, all, &mut kept);
    let is_measured = compared::kept(&kept) != compared::kept(status);
    Some(if is_measured || !is_known(failed.code) {
        Decision::commit(kept, notifications)
    } else {
        Decision::Wait(Requeue::AtTick, notifications)
    })
}

fn halt(snapshot: &Snapshot, compared: &Compared) -> Halt {
    let name = snapshot.full_name();
    Halt {
        event: format!("Halt {name} advancement {}", compared.detail),
        failed: FailedCheck::new(compared.state.code(), &compared.detail),
    }
}
