//! The steps of a run, the time of the next one, and the time of the end.

use jiff::{SignedDuration, Timestamp};

use super::{At, Event, Expected, Progress, Step};
use crate::{
    api::{
        canary::{Canary, CanaryPhase, CanaryStatus, Strategy},
        percent::Percent,
    },
    snapshot::last_tick,
};

/// The most steps that are listed. A run has no more: it has at most 100 different whole weights, and at most 100 weights are listed in a spec.
const MOST: usize = 100;

/// After this many intervals without a change or an event, a step is overdue: at each tick, the operator changes the status or sends an event.
const PATIENCE: i32 = 2;
/// The time that a step may take in addition, for slow webhooks and metric servers.
const GRACE: SignedDuration = SignedDuration::from_secs(30);
/// Without the events, a wait for pods looks like a step that is overdue, so a run has this many intervals in addition.
const UNSEEN: i32 = 8;

/// The last sign of the operator in a run, and when the next one is overdue. `events`: the events, newest last, or `None` if they were not
/// read.
pub fn expected(
    canary: &Canary,
    status: &CanaryStatus,
    events: Option<&[Event]>,
) -> Option<Expected> {
    let transition = status.last_transition_time.as_ref()?.0;
    let event = events.and_then(|events| events.last()?.at);
    let last = event.unwrap_or(transition).max(transition);
    let interval = SignedDuration::try_from(canary.interval()).ok()?;
    let intervals = PATIENCE + if events.is_none() { UNSEEN } else { 0 };
    let patience = interval.checked_mul(intervals)?.checked_add(GRACE)?;
    let until = last.checked_add(patience).ok()?;
    Some(Expected { last, until })
}

/// The steps of a run of this Canary; empty without an analysis.
pub fn steps(canary: &Canary, status: &CanaryStatus) -> Vec<Step> {
    if canary.skip_analysis() {
        return Vec::new();
    }
    let (all, now) = match canary.strategy() {
        Strategy::Canary => (weights(canary), At::Weight(status.weight())),
        Strategy::BlueGreen | Strategy::AbTesting => {
            let analysis = canary.spec.analysis.as_ref();
            let all = analysis.and_then(|it| it.iterations).unwrap_or(0);
            let all = (1..=all).take(MOST).map(At::Iteration);
            (all.collect(), At::Iteration(status.iterations))
        }
    };
    let is_past = matches!(
        status.phase,
        CanaryPhase::WaitingPromotion | CanaryPhase::Promoting | CanaryPhase::Finalising
    );
    let is_under_analysis = status.phase == CanaryPhase::Progressing;
    let state = |at: At| match () {
        () if is_past => Progress::Done,
        () if !is_under_analysis || at > now => Progress::Later,
        () if at == now => Progress::Now,
        () => Progress::Done,
    };
    all.into_iter()
        .map(|at| Step {
            at,
            state: state(at),
        })
        .collect()
}

/// The weights of the steps, in ascending order.
fn weights(canary: &Canary) -> Vec<At> {
    let mut all = Vec::new();
    let mut weight = Percent::ZERO;
    while all.len() < MOST {
        let next = canary.next_weight(weight);
        if next <= weight {
            break;
        }
        weight = next;
        all.push(At::Weight(weight));
    }
    all
}

/// The ticks from the begin of a promotion to the end of the run.
const PROMOTION: i32 = 2;

/// When the next step begins, and when the run ends if all checks pass; `None` unless steps are taken.
pub fn next_step(
    canary: &Canary,
    status: &CanaryStatus,
    steps: &[Step],
    now: Timestamp,
) -> Option<(Timestamp, Timestamp)> {
    if status.phase != CanaryPhase::Progressing {
        return None;
    }
    let transition = status.last_transition_time.as_ref()?.0;
    let interval = SignedDuration::try_from(canary.interval()).ok()?;
    let last = last_tick(transition, canary.interval(), now).unwrap_or(transition);
    let next = last.checked_add(interval).ok()?;
    let later = steps.iter().filter(|it| it.state == Progress::Later);
    // The promotion begins at the tick after the last step. The primary gets the version then, the traffic a tick later, and the run ends at
    // the tick after that.
    let rest = i32::try_from(later.count()).ok()? + PROMOTION;
    let ends = next.checked_add(interval.checked_mul(rest)?).ok()?;
    Some((next, ends))
}
