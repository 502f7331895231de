//! The outcome of a run, recorded in the status until its notifications are sent.

use crate::{
    api::{action::Verb, canary::CanaryPhase, status::ConditionType},
    snapshot::Snapshot,
};

/// `reason` of an accepted action.
pub const ACCEPTED: &str = "Accepted";

/// How a run, or the initialization, ended. A condition keeps it as `reason` and `message`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The number of failed checks reached the threshold.
    FailedChecks(i64),
    /// The canary is worse than the primary, by these numbers.
    Regression(String),
    /// This rollback hook asked for a rollback.
    Manual(String),
    /// Pods did not become ready in time, for this reason.
    NotReady(String),
    /// All ready pods of the canary were lost this many times.
    PodsLost(i64),
    /// The Canary changed so that the run cannot go on, for this reason.
    Refused(String),
    /// A person ended the run. The text has the person's name and reason.
    Aborted(String),
    /// The primary did not become ready with the promoted version, for this reason.
    FailedPromotion(String),
    /// The initialization was completed.
    Initialized,
    /// The promotion was completed. If a person asked for it, the text has the person's name and reason; otherwise it is empty.
    Promoted(String),
    /// The promotion was completed without an analysis.
    Skipped,
    /// The target went back to the promoted revision.
    Reverted,
}

/// `message` of a promotion that no person asked for.
const COMPLETED: &str = "The promotion was completed.";

/// Separates a reason from the phase in which the run ended.
const WHILE: &str = "While";

impl Outcome {
    /// `reason` of the condition.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::FailedChecks(_) => "FailedChecks",
            Self::Regression(_) => "Regression",
            Self::Manual(_) => "Manual",
            Self::NotReady(_) => "NotReady",
            Self::PodsLost(_) => "PodsLost",
            Self::Refused(_) => "Refused",
            Self::Aborted(_) => "Aborted",
            Self::FailedPromotion(_) => "FailedPromotion",
            Self::Initialized => "Initialized",
            Self::Promoted(_) => "Promoted",
            Self::Skipped => "Skipped",
            Self::Reverted => "Reverted",
        }
    }

    /// The reason, followed by the phase in which the run ended unless that is the usual one. Event webhooks receive this phase.
    pub fn reason_in(&self, phase: CanaryPhase) -> String {
        match self {
            Self::FailedChecks(_)
            | Self::Regression(_)
            | Self::Manual(_)
            | Self::NotReady(_)
            | Self::PodsLost(_)
            | Self::Refused(_)
            | Self::Aborted(_)
                if phase != CanaryPhase::Progressing =>
            {
                format!("{}{WHILE}{phase}", self.reason())
            }
            _ => self.reason().to_owned(),
        }
    }

    /// `message` of the condition.
    pub fn message(&self) -> String {
        match self {
            Self::FailedChecks(n) | Self::PodsLost(n) => n.to_string(),
            Self::Manual(hook) => hook.clone(),
            Self::Regression(why)
            | Self::NotReady(why)
            | Self::Refused(why)
            | Self::Aborted(why)
            | Self::FailedPromotion(why) => why.clone(),
            Self::Promoted(by) if !by.is_empty() => by.clone(),
            Self::Promoted(_) => COMPLETED.to_owned(),
            Self::Skipped => "The promotion was completed without an analysis.".to_owned(),
            Self::Initialized => "The initialization was completed.".to_owned(),
            Self::Reverted => "The target went back to the promoted revision.".to_owned(),
        }
    }

    /// Whether the primary is the workload that is broken.
    pub const fn is_primary_broken(&self) -> bool {
        matches!(self, Self::FailedPromotion(_))
    }

    /// The outcome that a condition records. A reason that this version does not know counts as "not ready", with the message.
    pub fn parse(reason: &str, message: &str) -> Self {
        let reason = reason
            .split_once(WHILE)
            .map_or(reason, |(reason, _)| reason);
        match reason {
            "FailedChecks" => Self::FailedChecks(message.parse().unwrap_or(0)),
            "Regression" => Self::Regression(message.to_owned()),
            "Manual" => Self::Manual(message.to_owned()),
            "PodsLost" => Self::PodsLost(message.parse().unwrap_or(0)),
            "Refused" => Self::Refused(message.to_owned()),
            "Aborted" => Self::Aborted(message.to_owned()),
            "FailedPromotion" => Self::FailedPromotion(message.to_owned()),
            "Initialized" => Self::Initialized,
            "Promoted" if message == COMPLETED => Self::Promoted(String::new()),
            "Promoted" => Self::Promoted(message.to_owned()),
            "Skipped" => Self::Skipped,
            "Reverted" => Self::Reverted,
            _ => Self::NotReady(message.to_owned()),
        }
    }
}

/// The phase in which the run ended, from the reason of a condition.
pub fn phase_of(reason: &str) -> CanaryPhase {
    let phase = reason.split_once(WHILE).map(|(_, phase)| phase);
    phase
        .and_then(|phase| serde_json::from_value(phase.into()).ok())
        .unwrap_or(CanaryPhase::Progressing)
}

/// The outcome that a condition of this type records, if the status holds one.
pub fn recorded(snapshot: &Snapshot, type_: ConditionType) -> Option<Outcome> {
    let condition = snapshot.status().condition(type_)?;
    let message = condition.message.as_deref().unwrap_or_default();
    Some(Outcome::parse(&condition.reason, message))
}

/// Whether the notifications of an outcome are still to be sent.
pub fn is_pending(snapshot: &Snapshot) -> bool {
    snapshot
        .status()
        .has_condition(ConditionType::NotificationPending)
}

/// The author of the promotion, and the reason, as the end of a sentence; `None` if the version passed its analysis.
///
/// The request is in the status until the promotion ends. Afterwards, only the last action can tell.
pub fn promoted_by(snapshot: &Snapshot) -> Option<&str> {
    let status = snapshot.status();
    let request = status.condition(ConditionType::PromoteRequested);
    if let Some(who) = request.and_then(|request| request.message.as_deref()) {
        return Some(who);
    }
    let condition = snapshot.status().condition(ConditionType::Action)?;
    let message = condition.message.as_deref()?;
    let (_, action) = message.split_once(' ')?;
    let who = action.strip_prefix(Verb::Promote.as_str())?;
    (condition.reason == ACCEPTED).then_some(who.trim_start())
}
