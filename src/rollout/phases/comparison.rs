//! The effect of comparisons on a step: a rollback at once, a failed check, or a wait (not in Flagger).

use std::ops::ControlFlow;

use jiff::Timestamp;

use crate::{
    api::{
        canary::{CanaryCondition, CanaryPhase},
        status::{ConditionType, VerdictCode},
    },
    rollout::{
        actions,
        checks::{
            Halt,
            comparisons::{self, Compared, Effect, Until},
            hooks::Stage,
            metric_query::checks,
        },
        messages::{self, checks::gate_alert},
        plan::{Decision, Evidence, Requeue},
        rollback,
        status::{FailedCheck, Outcome, StatusChange, compared, verdict},
    },
    snapshot::Snapshot,
};

/// Ends the wait of a version that can be compared again, but does not advance because it is at a gate or a person paused it. Any other
/// version advances, and its next status has no such wait.
pub fn end_wait(snapshot: &Snapshot, all: &[Compared]) -> Option<Decision> {
    let stays = snapshot.phase() == CanaryPhase::WaitingPromotion || actions::is_paused(snapshot);
    let waits = [Until::Deadline, Until::Requests, Until::Person]
        .into_iter()
        .any(|until| wait(snapshot, until).is_some());
    (stays && waits).then(|| {
        let change = StatusChange::within_step(snapshot).clear(ConditionType::Verdict);
        let mut status = change.build();
        comparisons::keep(snapshot, all, &mut status);
        Decision::commit(status, Vec::new())
    })
}

/// The condition that records a wait with this end; `None` if the step does not wait for it. The sentence decides, because failed checks
/// have the same codes.
fn wait(snapshot: &Snapshot, until: Until) -> Option<&CanaryCondition> {
    let verdict = snapshot.status().condition(ConditionType::Verdict)?;
    let sentence = verdict.message.as_deref()?;
    sentence.starts_with(until.sentence()).then_some(verdict)
}

/// The comparison in the middle of an interval, between two ticks. It rolls a version back, or lets its step end early; otherwise the step goes
/// on until the tick. Its evidence is a part of the evidence at the tick, so the probability of a false alarm stays the same.
pub fn between_ticks(snapshot: &Snapshot, evidence: &Evidence) -> ControlFlow<Decision> {
    let Some(middle) = middle(snapshot) else {
        return ControlFlow::Break(Decision::wait(Requeue::AtTick));
    };
    if snapshot.now < middle {
        return ControlFlow::Break(Decision::wait(Requeue::At(middle)));
    }
    let all = match comparisons::results(snapshot, evidence) {
        Stage::Ask(questions) => return ControlFlow::Break(Decision::Ask(questions, Vec::new())),
        Stage::Done(all) => all,
    };
    if let Some(rollback) = roll_back(snapshot, &all) {
        return ControlFlow::Break(rollback);
    }
    if may_end_early(snapshot, &all) {
        return ControlFlow::Continue(());
    }
    let mut kept = StatusChange::within_step(snapshot).build();
    comparisons::keep(snapshot, &all, &mut kept);
    ControlFlow::Break(
        if compared::kept(&kept) == compared::kept(snapshot.status()) {
            Decision::wait(Requeue::AtTick)
        } else {
            Decision::commit(kept, Vec::new())
        },
    )
}

/// The middle of the interval, if a run with traffic is to be compared there.
fn middle(snapshot: &Snapshot) -> Option<Timestamp> {
    let status = snapshot.status();
    let has_traffic = (status.canary_weight, status.iterations) != (0, 0);
    let decides = || !comparisons::deciding(snapshot, &checks(&snapshot.canary)).is_empty();
    let middle = comparisons::middle(snapshot).filter(|_| has_traffic && decides())?;
    comparisons::is_to_measure(snapshot, middle).then_some(middle)
}

/// Whether the step ends in the middle of the interval: all comparisons that decide have proven that the version is within the margin, and
/// may end it.
fn may_end_early(snapshot: &Snapshot, all: &[Compared]) -> bool {
    let may_advance = snapshot.phase() == CanaryPhase::Progressing && !actions::is_paused(snapshot);
    let mut deciding = all.iter().filter(|it| it.decides);
    may_advance && deciding.all(|it| it.may_end_early)
}

/// The rollback of a version that is worse than the primary. One comparison is enough, because its test has ruled out chance.
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
    // The deadline does not start again when the reason changes, for example from missing series to a server that does not answer.
    let since = wait(snapshot, Until::Deadline).and_then(|it| it.last_transition_time.as_ref());
    let has_deadline = |(_, until): &&(&Compared, Until)| *until == Until::Deadline;
    if since.is_some()
        && snapshot.exceeds_deadline(since)
        && let Some((compared, _)) = waiting.iter().find(has_deadline)
    {
        let why = halt(snapshot, compared).failed;
        return Some(rollback::not_compared(snapshot, &why));
    }
    let first = waiting.iter().find(has_deadline).or(waiting.first());
    let (compared, until) = *first?;
    let Halt { event, mut failed } = halt(snapshot, compared);
    if until == Until::Person {
        failed.code = VerdictCode::Undecided;
    }
    let known = wait(snapshot, until);
    let is_known = known.is_some_and(|known| known.reason == failed.code.as_str());
    let mut change = StatusChange::within_step(snapshot);
    let mut notifications = vec![messages::warning(snapshot, event)];
    if !is_known {
        let since = since.filter(|_| until == Until::Deadline).cloned();
        change = verdict::not_compared(change, &failed, until.sentence(), since);
        if until == Until::Person {
            let text = "Canary analysis is waiting for a person.";
            notifications.push(gate_alert(snapshot, text));
        }
    }
    let mut kept = change.build();
    comparisons::keep(snapshot, all, &mut kept);
    let is_measured = compared::kept(&kept) != compared::kept(status);
    Some(if is_measured || !is_known {
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
