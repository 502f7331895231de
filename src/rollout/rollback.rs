//! The beginning of a rollback. The status records it before anything else happens, so that an interrupted rollback is completed and does
//! not start again. `phases::finish_rollback` completes it.

use crate::{
    api::{canary::CanaryPhase, status::ConditionType},
    rollout::{
        plan::Decision,
        status::{FailedCheck, Outcome, StatusChange, outcome, transitions::may_follow, verdict},
    },
    snapshot::Snapshot,
};

/// Records that a rollback begins, and why.
pub fn begin(snapshot: &Snapshot, outcome: &Outcome) -> Decision {
    let begun = record(StatusChange::within_step(snapshot), outcome);
    Decision::commit(begun.build(), Vec::new())
}

/// Records that a rollback begins because pods are not ready. `reason` is the one in the status of a pod, if there is one.
pub fn pods_failed(snapshot: &Snapshot, outcome: &Outcome, reason: Option<&str>) -> Decision {
    let begun = record(StatusChange::within_step(snapshot), outcome);
    let begun = verdict::pods_failed(begun, outcome, reason);
    Decision::commit(begun.build(), Vec::new())
}

/// Records that a rollback begins because the data plane did not accept the routes in time.
pub fn routes_not_accepted(snapshot: &Snapshot, why: String) -> Decision {
    let sentence = why.clone();
    let begun = record(StatusChange::within_step(snapshot), &Outcome::NotReady(why));
    Decision::commit(verdict::routes_failed(begun, &sentence).build(), Vec::new())
}

/// Records that a rollback begins because the versions could not be compared until the deadline.
pub fn not_compared(snapshot: &Snapshot, why: &FailedCheck) -> Decision {
    let outcome = Outcome::NotReady(why.detail.clone());
    let begun = record(StatusChange::within_step(snapshot), &outcome);
    let waits = "The versions could not be compared until the progress deadline";
    Decision::commit(
        verdict::not_compared(begun, why, waits, None).build(),
        Vec::new(),
    )
}

/// Adds to a change that a rollback begins, and why.
pub fn record<'a>(change: StatusChange<'a>, outcome: &Outcome) -> StatusChange<'a> {
    if *outcome == Outcome::Reverted {
        return change.set(
            ConditionType::Reverting,
            outcome.reason(),
            &outcome.message(),
        );
    }
    let change = verdict::failed(change, outcome);
    change.set(
        ConditionType::RollingBack,
        outcome.reason(),
        &outcome.message(),
    )
}

/// Whether a rollback has begun and is not completed.
pub fn is_under_way(snapshot: &Snapshot) -> bool {
    under_way(snapshot).is_some()
}

/// The condition that records the rollback, and the outcome of the run.
pub fn under_way(snapshot: &Snapshot) -> Option<(ConditionType, Outcome)> {
    let conditions = [ConditionType::RollingBack, ConditionType::Reverting];
    conditions.into_iter().find_map(|condition| {
        let outcome = outcome::recorded(snapshot, condition)?;
        may_follow(snapshot.phase(), last_phase(condition)).then_some((condition, outcome))
    })
}

/// The phase in which a rollback ends.
pub const fn last_phase(condition: ConditionType) -> CanaryPhase {
    match condition {
        ConditionType::Reverting => CanaryPhase::Succeeded,
        _ => CanaryPhase::Failed,
    }
}
