//! When a canary is reconciled again if nothing changes before.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::{
    api::canary::{Canary, CanaryPhase},
    rollout::Requeue,
    snapshot::{Snapshot, last_tick, revision::digest},
};

/// The longest offset of a canary's ticks from the multiples of its interval.
const MAX_JITTER: Duration = Duration::from_secs(5);
/// How often an idle canary is reconciled although nothing changed.
pub const IDLE: Duration = Duration::from_secs(600);
/// The same, if the canary needs objects that cannot be watched.
const IDLE_UNWATCHED: Duration = Duration::from_secs(300);

/// Returns the offset of a canary's ticks from the multiples of its interval. It is always the same for a canary, and spreads the steps of
/// canaries that began in the same second.
pub fn jitter(canary: &Canary) -> SignedDuration {
    let most = (canary.interval() / 4).min(MAX_JITTER);
    SignedDuration::try_from(most.mul_f64(fraction_of(canary))).unwrap_or_default()
}

/// Returns a number from 0 to 1 that depends only on the canary.
fn fraction_of(canary: &Canary) -> f64 {
    let uid = canary.metadata.uid.as_deref().unwrap_or_default();
    let part = u16::from_str_radix(&digest(uid, 2), 16).unwrap_or(0);
    f64::from(part) / f64::from(u16::MAX)
}

/// Returns the instant without the jitter: ticks are computed as if there were none.
pub fn unjittered(instant: Timestamp, jitter: SignedDuration) -> Timestamp {
    instant.saturating_sub(jitter).unwrap_or(instant)
}

/// Whether a canary needs no reconcile until something changes: it is between runs, all its objects are right, and it has no conflict, or
/// its decision waits for a change only.
pub fn is_idle(snapshot: &Snapshot, requeue: Requeue) -> bool {
    use CanaryPhase as P;
    let is_between_runs = matches!(snapshot.phase(), P::Initialized | P::Succeeded | P::Failed)
        && snapshot.recently_written.is_empty()
        && snapshot.paused.is_empty()
        && snapshot.changed.is_none()
        && snapshot.conflicting_canary.is_none();
    match requeue {
        Requeue::OnChange => true,
        Requeue::AtTick => is_between_runs,
        Requeue::Ready | Requeue::Approval(_) | Requeue::At(_) => false,
    }
}

/// Returns how long an idle canary waits. The times of canaries that became idle together differ.
pub fn idle_time(canary: &Canary, uses_unwatched_kind: bool) -> Duration {
    let most = if uses_unwatched_kind {
        IDLE_UNWATCHED
    } else {
        IDLE
    };
    most.mul_f64(0.75 + 0.25 * fraction_of(canary))
}

/// Returns how long to wait for the instant that the decision named.
pub fn time_until(snapshot: &Snapshot, requeue: Requeue) -> Duration {
    let interval = snapshot.canary.interval();
    let jitter = jitter(&snapshot.canary);
    let transition = snapshot
        .canary
        .status
        .as_ref()
        .and_then(|status| Some(status.last_transition_time.as_ref()?.0));
    let at = match requeue {
        Requeue::At(at) => at,
        Requeue::OnChange => return IDLE,
        Requeue::AtTick | Requeue::Ready | Requeue::Approval(_) => {
            let now = unjittered(snapshot.now, jitter);
            let from = transition
                .and_then(|transition| last_tick(transition, interval, now).or(Some(transition)));
            let tick = from.unwrap_or(now).checked_add(interval);
            let Ok(at) = tick.and_then(|tick| tick.checked_add(jitter)) else {
                return interval;
            };
            at
        }
    };
    // An instant in the past means at once.
    Duration::try_from(at.duration_since(snapshot.now)).unwrap_or(Duration::ZERO)
}

#[cfg(test)]
mod tests;
