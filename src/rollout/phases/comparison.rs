//! The effect of comparisons on a step: a rollback at once, a failed check, or a wait (not in Flagger).

use crate::{
    api::{
        canary::CanaryPhase,
        status::{ConditionType, VerdictCode},
    },
    rollout::{
        actions,
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

/// The codes of waits that end at the progress deadline.
const WITH_DEADLINE: [VerdictCode; 5] = [
    VerdictCode::NoData,
    VerdictCode::ProviderError,
    VerdictCode::Stale,
    VerdictCode::OnePod,
    VerdictCode::TrafficNotShifted,
];

/// Ends the wait of a version that stays where it is although it can be compared again: at a gate, or because a person paused it. Any other one
/// goes on, which removes the reason of the wait.
pub fn end_wait(snapshot: &Snapshot, all: &[Compared]) -> Option<Decision> {
    let stays = snapshot.phase() == CanaryPhase::WaitingPromotion || actions::is_paused(snapshot);
    let verdict = snapshot.status().condition(ConditionType::Verdict);
    let waits = |code: &VerdictCode| verdict.is_some_and(|it| it.reason == code.as_str());
    let codes = WITH_DEADLINE
        .iter()
        .chain(&[VerdictCode::LowTraffic, VerdictCode::Undecided]);
    let is_stale = !all.is_empty() && stays && codes.into_iter().any(waits);
    is_stale.then(|| {
        let change = StatusChange::within_step(snapshot).clear(ConditionType::Verdict);
        let mut status = change.build();
        comparisons::keep(snapshot, all, &mut status);
        Decision::commit(status, Vec::new())
    })
}

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
    // A wait goes on although its reason changes, for example from missing series to a server that does not answer.
    let goes_on = WITH_DEADLINE.into_iter().any(is_known);
    // The deadline counts from the beginning of this wait.
    let since = verdict.and_then(|verdict| verdict.last_transition_time.as_ref());
    let is_overdue = |(_, until): &&(&Compared, Until)| {
        *until == Until::Deadline && goes_on && snapshot.exceeds_deadline(since)
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
        let since = since
            .filter(|_| goes_on && until == Until::Deadline)
            .cloned();
        change = verdict::not_compared(change, &failed, waits, since);
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
