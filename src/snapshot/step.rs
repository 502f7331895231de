//! The identity of a step.

use jiff::Timestamp;

use super::cadence::Tick;
use crate::api::{
    canary::{Canary, CanaryPhase, CanaryStatus},
    percent::Percent,
    status::ConditionType,
};

/// The step that an answer belongs to. An answer to a question of one step says nothing about another step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    uid: String,
    applied: Option<String>,
    phase: CanaryPhase,
    weight: Percent,
    iterations: i64,
    failed_checks: i64,
    tick: Option<Timestamp>,
    conditions: Vec<String>,
}

/// The conditions that begin or end within a step. A change of these conditions begins no other step, so a hook that has passed is not
/// called again.
const WITHIN_STEP: [ConditionType; 8] = [
    ConditionType::Verdict,
    ConditionType::Draining,
    ConditionType::Action,
    ConditionType::Paused,
    ConditionType::WriteRefused,
    ConditionType::Comparison,
    ConditionType::RouteRefs,
    ConditionType::GrpcRoute,
];

impl Step {
    /// The step of a canary with this status, at this tick.
    pub fn of(canary: &Canary, status: &CanaryStatus, tick: Option<Tick>) -> Self {
        // The end of a run is notified once, however many ticks pass meanwhile.
        let is_pending = status.has_condition(ConditionType::NotificationPending);
        let conditions = status.conditions.iter().flatten();
        Self {
            uid: canary.metadata.uid.clone().unwrap_or_default(),
            applied: status.last_applied_spec.clone(),
            phase: status.phase,
            weight: status.weight(),
            iterations: status.iterations,
            failed_checks: status.failed_checks,
            tick: tick.filter(|_| !is_pending).map(|tick| tick.at),
            conditions: conditions
                .map(|condition| condition.type_.clone())
                .filter(|type_| !WITHIN_STEP.iter().any(|within| type_ == within.as_str()))
                .collect(),
        }
    }

    /// The same step without its tick: equal to that of the next tick, if nothing else changes.
    #[must_use]
    pub fn at_any_tick(self) -> Self {
        Self { tick: None, ..self }
    }
}
