//! The phases of a release: which may follow which, and the status that says so.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::{
    api::canary::{CanaryCondition, CanaryPhase, CanaryStatus},
    snapshot::{Snapshot, revision::is_ours, whole_second_after},
};

/// Flagger's only condition; it always stands first.
const PROMOTED: &str = "Promoted";

/// What is under way and could not be told from the cluster, or is owed to people: extra conditions, present only while true.
/// Flagger's own CRD keeps them, so they survive where additional status fields would be pruned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConditionType {
    /// Traffic is to return to the primary and the canary is to be scaled down; the reason says why.
    RollingBack,
    /// The target went back to the promoted revision: the run ends without a promotion.
    Reverting,
    /// Traffic has left the canary; an interval later, when its connections have drained, it is scaled to zero.
    Draining,
    /// The primary was given a version with which it did not become ready, and none since that did.
    PromotionFailed,
    /// What a run, or an initialization, came to has not been told yet.
    NotificationPending,
    /// The spec cannot be followed; nothing is done until it is mended.
    Invalid,
    /// Another canary has the same target.
    TargetConflict,
}

impl ConditionType {
    /// The type of its condition.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RollingBack => "RollingBack",
            Self::Reverting => "Reverting",
            Self::Draining => "Draining",
            Self::PromotionFailed => "PromotionFailed",
            Self::NotificationPending => "NoticePending",
            Self::Invalid => "Invalid",
            Self::TargetConflict => "TargetConflict",
        }
    }
}

/// Whether a release may go from one phase to another. One table, for the audit and for the reader.
pub fn may_follow(from: CanaryPhase, to: CanaryPhase) -> bool {
    use CanaryPhase as P;
    from == to
        || match from {
            P::New => matches!(to, P::Initializing | P::Terminating),
            P::Initializing => matches!(to, P::Initialized | P::Failed | P::Terminating),
            P::Initialized | P::Succeeded | P::Failed => {
                matches!(to, P::Progressing | P::Waiting | P::Failed | P::Terminating)
            }
            P::Waiting => matches!(
                to,
                P::Progressing | P::Failed | P::Succeeded | P::Terminating
            ),
            P::Progressing => {
                matches!(
                    to,
                    P::WaitingPromotion | P::Promoting | P::Succeeded | P::Failed | P::Terminating
                )
            }
            P::WaitingPromotion => {
                matches!(
                    to,
                    P::Progressing | P::Promoting | P::Succeeded | P::Failed | P::Terminating
                )
            }
            P::Promoting => matches!(
                to,
                P::Progressing | P::Finalising | P::Succeeded | P::Failed | P::Terminating
            ),
            P::Finalising => matches!(to, P::Succeeded | P::Failed | P::Terminating),
            P::Terminating => to == P::Terminated,
            P::Terminated => false,
        }
}

/// The status as it is, to change.
pub fn status(snapshot: &Snapshot) -> CanaryStatus {
    snapshot.canary.status.clone().unwrap_or_default()
}

/// The status in a new phase; the time is that of the step it ends.
pub fn enter(snapshot: &Snapshot, phase: CanaryPhase) -> CanaryStatus {
    let mut status = status(snapshot);
    status.phase = phase;
    let at = Time(transition_time(snapshot, snapshot.now));
    status.last_transition_time = Some(at.clone());
    let (value, message) = promoted(phase, &snapshot.canary.spec.target_ref.kind);
    let conditions = status.conditions.get_or_insert_default();
    let old = conditions.iter().find(|c| c.type_ == PROMOTED);
    if old.is_none_or(|old| old.status != value || old.reason != phase.as_str()) {
        let since = old
            .filter(|old| old.status == value)
            .and_then(|old| old.last_transition_time.clone());
        let new = CanaryCondition {
            type_: PROMOTED.to_owned(),
            status: value.to_owned(),
            reason: phase.as_str().to_owned(),
            message: Some(message),
            last_update_time: Some(at.clone()),
            last_transition_time: since.or(Some(at)),
        };
        conditions.retain(|c| c.type_ != PROMOTED);
        conditions.insert(0, new);
    }
    status
}

/// The same phase, one step on.
pub fn step(snapshot: &Snapshot) -> CanaryStatus {
    let mut status = status(snapshot);
    status.last_transition_time =
        Some(Time(transition_time(snapshot, as_if_at_its_tick(snapshot))));
    status
}

/// When the phase of a status was entered, if no step of it is on record: only then it is not known whether that was told. What Flagger
/// began, it told.
pub fn opened(status: &CanaryStatus) -> Option<Timestamp> {
    let entered = status.conditions.iter().flatten().next()?;
    let is_ours = status.last_applied_spec.as_deref().is_some_and(is_ours);
    let entered = entered.last_update_time.as_ref();
    let is_untouched = entered == status.last_transition_time.as_ref();
    entered.filter(|_| is_ours && is_untouched).map(|at| at.0)
}

/// The same status, with its phase told of.
pub fn as_told(mut status: CanaryStatus, snapshot: &Snapshot) -> CanaryStatus {
    if let Some(entered) = status.conditions.iter_mut().flatten().next() {
        entered.last_update_time = Some(Time(whole_second_after(snapshot.now)));
    }
    status
}

/// The reason and message of an intent, if it is there.
pub fn condition(snapshot: &Snapshot, condition: ConditionType) -> Option<(&str, &str)> {
    let conditions = snapshot.canary.status.as_ref()?.conditions.as_ref()?;
    let condition = conditions.iter().find(|c| c.type_ == condition.as_str())?;
    Some((
        &condition.reason,
        condition.message.as_deref().unwrap_or_default(),
    ))
}

/// Since when an intent has been there.
pub fn since(snapshot: &Snapshot, condition: ConditionType) -> Option<Timestamp> {
    let conditions = snapshot.canary.status.as_ref()?.conditions.as_ref()?;
    let condition = conditions.iter().find(|c| c.type_ == condition.as_str())?;
    let since = condition.last_transition_time.as_ref();
    Some(since.map_or(Timestamp::MIN, |since| since.0))
}

/// The same status with an intent.
pub fn with_condition(
    mut status: CanaryStatus,
    snapshot: &Snapshot,
    condition: ConditionType,
    reason: &str,
    message: &str,
) -> CanaryStatus {
    let at = Some(Time(whole_second_after(snapshot.now)));
    let conditions = status.conditions.get_or_insert_default();
    conditions.retain(|c| c.type_ != condition.as_str());
    conditions.push(CanaryCondition {
        type_: condition.as_str().to_owned(),
        status: "True".to_owned(),
        reason: reason.to_owned(),
        message: Some(message.to_owned()),
        last_update_time: at.clone(),
        last_transition_time: at,
    });
    status
}

/// The same status without an intent.
pub fn without_condition(mut status: CanaryStatus, condition: ConditionType) -> CanaryStatus {
    if let Some(conditions) = &mut status.conditions {
        conditions.retain(|c| c.type_ != condition.as_str());
    }
    status
}

/// When the step that ends now is said to have ended: at the instant it served, so that the cadence neither drifts nor
/// shortens; now, if it served none, waited beyond it, or took longer than an interval.
fn transition_time(snapshot: &Snapshot, now: Timestamp) -> Timestamp {
    let Some(tick) = snapshot.tick else {
        return whole_second_after(snapshot.now);
    };
    let took = as_if_at_its_tick(snapshot)
        .duration_since(tick.at)
        .unsigned_abs();
    if tick.late || took >= snapshot.canary.interval() {
        whole_second_after(now)
    } else {
        tick.at
    }
}

/// Now, for a step that had begun at its tick and not its spread later.
fn as_if_at_its_tick(snapshot: &Snapshot) -> Timestamp {
    snapshot
        .now
        .saturating_sub(snapshot.jitter)
        .unwrap_or(snapshot.now)
}

/// Flagger's condition for a phase: its status and its message.
fn promoted(phase: CanaryPhase, kind: &str) -> (&'static str, String) {
    use CanaryPhase as P;
    match phase {
        P::Initialized => ("True", format!("{kind} initialization completed.")),
        P::Waiting | P::WaitingPromotion => ("Unknown", "Waiting for approval.".to_owned()),
        P::Progressing => (
            "Unknown",
            "New revision detected, progressing canary analysis.".to_owned(),
        ),
        P::Promoting => (
            "Unknown",
            "Canary analysis completed, starting primary rolling update.".to_owned(),
        ),
        P::Finalising => (
            "Unknown",
            "Canary analysis completed, routing all traffic to primary.".to_owned(),
        ),
        P::Succeeded => (
            "True",
            "Canary analysis completed successfully, promotion finished.".to_owned(),
        ),
        P::Failed => (
            "False",
            format!("Canary analysis failed, {kind} scaled to zero."),
        ),
        P::New | P::Initializing | P::Terminating | P::Terminated => (
            "Unknown",
            format!("New {kind} detected, starting initialization."),
        ),
    }
}
