//! The next status, built from the observed one.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{
    Outcome,
    transitions::{is_in_promotion, is_under_analysis, needs_writes},
};
use crate::{
    api::{
        canary::{CanaryCondition, CanaryPhase, CanaryStatus},
        percent::Percent,
        status::ConditionType,
    },
    routers::affinity,
    snapshot::{Snapshot, revision::is_ours, whole_second_after},
};

const SECOND: SignedDuration = SignedDuration::from_secs(1);

/// A status under construction: the observed one with some changes.
#[derive(Clone)]
#[must_use]
pub struct StatusChange<'a> {
    snapshot: &'a Snapshot,
    status: CanaryStatus,
}

impl<'a> StatusChange<'a> {
    /// A change within a step: the phase and the time of the last step stay.
    pub fn within_step(snapshot: &'a Snapshot) -> Self {
        Self {
            snapshot,
            status: snapshot.status().clone(),
        }
    }

    /// A change that ends a step and stays in the phase.
    pub fn end_step(snapshot: &'a Snapshot) -> Self {
        let mut change = Self::within_step(snapshot);
        let time = transition_time(snapshot, now_without_jitter(snapshot));
        change.status.last_transition_time = Some(Time(time));
        // A gate before the promotion that a person opened stays open until the promotion.
        if snapshot.phase() == CanaryPhase::WaitingPromotion {
            change
        } else {
            change
                .clear(ConditionType::SkipRequested)
                .clear(ConditionType::Verdict)
        }
    }

    /// A change that ends a step and enters a phase. Flagger's condition `Promoted` follows the phase.
    pub fn enter(snapshot: &'a Snapshot, phase: CanaryPhase) -> Self {
        let mut change = Self::within_step(snapshot);
        change.status.phase = phase;
        let at = Time(transition_time(snapshot, snapshot.now));
        change.status.last_transition_time = Some(at.clone());
        change.set_promoted(phase, at);
        if !is_under_analysis(phase) {
            change = change.clear(ConditionType::PodsLost);
        }
        if phase != CanaryPhase::Failed {
            change = change.clear(ConditionType::Verdict);
        }
        if is_under_analysis(phase) || phase == CanaryPhase::Waiting {
            return change;
        }
        // The end of a promotion names the person who asked for it.
        let keeps = |type_| type_ == ConditionType::PromoteRequested && is_in_promotion(phase);
        ConditionType::STEERING
            .into_iter()
            .filter(|type_| !keeps(*type_))
            .fold(change, Self::clear)
    }

    fn set_promoted(&mut self, phase: CanaryPhase, at: Time) {
        let (value, message) = promoted(phase, &self.snapshot.canary.spec.target_ref.kind);
        let old = self.status.condition(ConditionType::Promoted);
        if old.is_some_and(|old| old.status == value && old.reason == phase.as_str()) {
            return;
        }
        let since = old
            .filter(|old| old.status == value)
            .and_then(|old| old.last_transition_time.clone());
        let new = CanaryCondition {
            type_: ConditionType::Promoted.as_str().to_owned(),
            status: value.to_owned(),
            reason: phase.as_str().to_owned(),
            message: Some(message),
            last_update_time: Some(at.clone()),
            last_transition_time: since.or(Some(at)),
        };
        let conditions = self.status.conditions.get_or_insert_default();
        conditions.retain(|c| c.type_ != ConditionType::Promoted.as_str());
        conditions.insert(0, new);
    }

    /// Sets a condition.
    pub fn set(mut self, type_: ConditionType, reason: &str, message: &str) -> Self {
        let at = Some(Time(whole_second_after(self.snapshot.now)));
        let conditions = self.status.conditions.get_or_insert_default();
        conditions.retain(|c| c.type_ != type_.as_str());
        conditions.push(CanaryCondition {
            type_: type_.as_str().to_owned(),
            status: "True".to_owned(),
            reason: reason.to_owned(),
            message: Some(message.to_owned()),
            last_update_time: at.clone(),
            last_transition_time: at,
        });
        self
    }

    /// Removes a condition.
    pub fn clear(mut self, type_: ConditionType) -> Self {
        if let Some(conditions) = &mut self.status.conditions {
            conditions.retain(|c| c.type_ != type_.as_str());
        }
        self
    }

    /// Keeps a condition as it is, although this change would remove it.
    pub fn keep(self, type_: ConditionType) -> Self {
        let kept = self.snapshot.status().condition(type_).cloned();
        self.clear(type_).with(|status| {
            let conditions = status.conditions.get_or_insert_default();
            conditions.extend(kept);
        })
    }

    /// Records an outcome whose notifications are still to be sent.
    pub fn pending(self, outcome: &Outcome) -> Self {
        let reason = outcome.reason_in(self.snapshot.phase());
        self.set(
            ConditionType::NotificationPending,
            &reason,
            &outcome.message(),
        )
    }

    /// Records how far the run is.
    pub fn progress(mut self, weight: impl Into<Percent>, iterations: i64) -> Self {
        self.status.set_weight(weight.into());
        self.status.iterations = iterations;
        self
    }

    /// Resets the count of failed checks.
    pub fn without_failed_checks(mut self) -> Self {
        self.status.failed_checks = 0;
        self
    }

    /// Counts a failed check.
    pub fn failed_check(mut self) -> Self {
        self.status.failed_checks += 1;
        self
    }

    /// Retires the cookies of session affinity: the routes delete them in browsers.
    pub fn retire_cookies(mut self) -> Self {
        affinity::retire(&mut self.status);
        self
    }

    /// Any other change of a field.
    pub fn with(mut self, change: impl FnOnce(&mut CanaryStatus)) -> Self {
        change(&mut self.status);
        self
    }

    /// Records that the start of the phase was announced, so that no alert is sent for it (see [`unconfirmed_start`]).
    pub fn announced(mut self) -> Self {
        let now = whole_second_after(self.snapshot.now);
        let entered = self.status.last_transition_time.clone();
        let mut conditions = self.status.conditions.iter_mut().flatten();
        let promoted = conditions.find(|c| c.type_ == ConditionType::Promoted.as_str());
        if let (Some(promoted), Some(Time(entered))) = (promoted, entered)
            && promoted.last_update_time == Some(Time(entered))
        {
            let later = entered.saturating_add(SECOND).unwrap_or(entered);
            promoted.last_update_time = Some(Time(now.max(later)));
        }
        self
    }

    /// The snapshot that the change is about.
    pub const fn snapshot(&self) -> &'a Snapshot {
        self.snapshot
    }

    /// The status to commit.
    pub fn build(self) -> CanaryStatus {
        let is_refused = self.snapshot.refused.is_some() && needs_writes(&self.status);
        let is_compared = is_under_analysis(self.status.phase);
        let change = if is_refused {
            self
        } else {
            self.clear(ConditionType::WriteRefused)
        };
        if is_compared {
            change.status
        } else {
            change.clear(ConditionType::Comparison).status
        }
    }
}

/// The time at which the phase of a status was entered, if its alert may have been lost: the status records no step of the phase yet, so
/// the process that entered it may have died before it sent the alert. `None` if the alert was sent. Flagger has sent the alerts of the
/// runs that it started.
pub fn unconfirmed_start(status: &CanaryStatus) -> Option<Timestamp> {
    let entered = status.condition(ConditionType::Promoted)?;
    let is_ours = status.last_applied_spec.as_deref().is_some_and(is_ours);
    let entered = entered.last_update_time.as_ref();
    let has_no_step = entered == status.last_transition_time.as_ref();
    entered.filter(|_| is_ours && has_no_step).map(|at| at.0)
}

/// The recorded end of the current step. It is the step's tick, so that the cadence neither drifts nor shortens. It is `now` if the step
/// belongs to no tick, waited beyond its tick, or took longer than an interval.
fn transition_time(snapshot: &Snapshot, now: Timestamp) -> Timestamp {
    let Some(tick) = snapshot.tick else {
        return whole_second_after(snapshot.now);
    };
    let took = now_without_jitter(snapshot)
        .duration_since(tick.at)
        .unsigned_abs();
    if tick.late || took >= snapshot.canary.interval() {
        whole_second_after(now)
    } else {
        tick.at
    }
}

/// Now, without the jitter that delays the start of each of the canary's steps.
fn now_without_jitter(snapshot: &Snapshot) -> Timestamp {
    let now = snapshot.now.saturating_sub(snapshot.jitter);
    now.unwrap_or(snapshot.now)
}

/// The status and message of Flagger's condition in a phase.
fn promoted(phase: CanaryPhase, kind: &str) -> (&'static str, String) {
    use CanaryPhase as P;
    let (value, message) = match phase {
        P::Initialized => return ("True", format!("{kind} initialization completed.")),
        P::Failed => {
            return (
                "False",
                format!("Canary analysis failed, {kind} scaled to zero."),
            );
        }
        P::New | P::Initializing | P::Terminating | P::Terminated => {
            return (
                "Unknown",
                format!("New {kind} detected, starting initialization."),
            );
        }
        P::Waiting | P::WaitingPromotion => ("Unknown", "Waiting for approval."),
        P::Progressing => (
            "Unknown",
            "New revision detected, progressing canary analysis.",
        ),
        P::Promoting => (
            "Unknown",
            "Canary analysis completed, starting primary rolling update.",
        ),
        P::Finalising => (
            "Unknown",
            "Canary analysis completed, routing all traffic to primary.",
        ),
        P::Succeeded => (
            "True",
            "Canary analysis completed successfully, promotion finished.",
        ),
    };
    (value, message.to_owned())
}
