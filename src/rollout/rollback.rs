//! The way back: traffic to the primary first, then the news, and when connections have drained the canary down (Flagger's `rollback`).
//!
//! That a rollback has begun is committed before anything else, so that whatever interrupts it, it is completed and not begun anew
//! on a canary that is half gone.

use super::{
    drain,
    phase::{self, ConditionType},
    plan::{Decision, Plan},
    release::Release,
};
use crate::{
    api::canary::{CanaryPhase, CanaryStatus},
    routers::affinity,
    snapshot::{Snapshot, Weights},
};

/// What a run came to, and why: kept in the status as `reason` and `message` of an intent until it was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// So many checks failed.
    FailedChecks(i64),
    /// This hook said so.
    Manual(String),
    /// Pods did not become ready in time.
    NotReady(String),
    /// The primary did not become ready with the promoted version.
    FailedPromotion(String),
    /// The canary can be released from now on.
    Initialized,
    /// The promotion was completed.
    Promoted,
    /// The promotion was completed without an analysis.
    Skipped,
    /// The target went back to what is promoted already.
    Reverted,
}

impl Outcome {
    /// `reason` of the condition.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::FailedChecks(_) => "FailedChecks",
            Self::Manual(_) => "Manual",
            Self::NotReady(_) => "NotReady",
            Self::FailedPromotion(_) => "FailedPromotion",
            Self::Initialized => "Initialized",
            Self::Promoted => "Promoted",
            Self::Skipped => "Skipped",
            Self::Reverted => "Reverted",
        }
    }

    /// The reason, and, where that is not what it mostly is, the phase in which it came about: the news of it says so.
    fn reason_in(&self, phase: CanaryPhase) -> String {
        match self {
            Self::FailedChecks(_) | Self::Manual(_) | Self::NotReady(_)
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
            Self::FailedChecks(n) => n.to_string(),
            Self::Manual(hook) => hook.clone(),
            Self::NotReady(why) | Self::FailedPromotion(why) => why.clone(),
            Self::Initialized | Self::Promoted | Self::Skipped | Self::Reverted => String::new(),
        }
    }

    const fn is_of_the_primary(&self) -> bool {
        matches!(self, Self::FailedPromotion(_))
    }

    /// The cause that a condition records; one that an older or newer version wrote counts as "not ready", with its message.
    pub fn read(reason: &str, message: &str) -> Self {
        let reason = reason
            .split_once(WHILE)
            .map_or(reason, |(reason, _)| reason);
        match reason {
            "FailedChecks" => Self::FailedChecks(message.parse().unwrap_or(0)),
            "Manual" => Self::Manual(message.to_owned()),
            "FailedPromotion" => Self::FailedPromotion(message.to_owned()),
            "Initialized" => Self::Initialized,
            "Promoted" => Self::Promoted,
            "Skipped" => Self::Skipped,
            "Reverted" => Self::Reverted,
            _ => Self::NotReady(message.to_owned()),
        }
    }
}

/// Between a reason and the phase in which it came about.
const WHILE: &str = "While";

/// The phase in which what a condition records came about.
pub fn phase_of(reason: &str) -> CanaryPhase {
    let phase = reason.split_once(WHILE).map(|(_, phase)| phase);
    phase
        .and_then(|phase| serde_json::from_value(phase.into()).ok())
        .unwrap_or(CanaryPhase::Progressing)
}

/// Commits to going back, and why.
pub fn begin(snapshot: &Snapshot, outcome: &Outcome) -> Decision {
    let condition = if *outcome == Outcome::Reverted {
        ConditionType::Reverting
    } else {
        ConditionType::RollingBack
    };
    let status = phase::with_condition(
        phase::status(snapshot),
        snapshot,
        condition,
        outcome.reason(),
        &outcome.message(),
    );
    Decision::commit(status, Vec::new())
}

/// Whether the way back was begun and not finished.
pub fn is_under_way(snapshot: &Snapshot) -> bool {
    way_back(snapshot).is_some()
}

/// Whether what a run, or an initialization, came to has not been told yet.
pub fn is_notification_pending(snapshot: &Snapshot) -> bool {
    phase::condition(snapshot, ConditionType::NotificationPending).is_some()
}

/// The same status, with this still to be told.
pub fn with_notification_pending(
    status: CanaryStatus,
    snapshot: &Snapshot,
    outcome: &Outcome,
) -> CanaryStatus {
    phase::with_condition(
        status,
        snapshot,
        ConditionType::NotificationPending,
        &outcome.reason_in(snapshot.phase()),
        &outcome.message(),
    )
}

/// Takes the way back: from wherever an interruption left it.
pub fn proceed(release: &Release<'_>) -> Result<Decision, String> {
    let Some((condition, outcome)) = way_back(release.snapshot) else {
        return Err("no rollback is under way".to_owned());
    };
    let to = destination(release, &outcome)?;
    let writes = release.set_weights(&to)?;
    let mut status =
        phase::without_condition(phase::enter(release.snapshot, end(condition)), condition);
    status.canary_weight = i64::from(to.canary);
    status.iterations = 0;
    status.failed_checks = 0;
    if to.canary == 0 {
        affinity::retire(&mut status);
    }
    if outcome.is_of_the_primary() {
        let condition = ConditionType::PromotionFailed;
        status = phase::with_condition(status, release.snapshot, condition, "PrimaryNotReady", "");
    }
    if condition == ConditionType::Reverting {
        give_up(&mut status, release);
    }
    let status = with_notification_pending(status, release.snapshot, &outcome);
    let status = if to.canary == 0 && !release.scale_down().is_empty() {
        drain::begin(status, release.snapshot)
    } else {
        status
    };
    Ok(Decision::Do(Plan {
        writes,
        status: Some(status),
        notifications: Vec::new(),
    }))
}

/// The run that ends was about nothing that is promoted. What came in the meantime is news, and gets a run of its own, also if it is
/// what that run was about.
fn give_up(status: &mut CanaryStatus, release: &Release<'_>) {
    if release.is_what_the_primary_runs() {
        status.last_applied_spec = Some(release.revision.clone());
        status.tracked_configs.clone_from(&release.configs);
    } else {
        status
            .last_applied_spec
            .clone_from(&status.last_promoted_spec);
        status.tracked_configs = None;
    }
}

fn way_back(snapshot: &Snapshot) -> Option<(ConditionType, Outcome)> {
    [ConditionType::RollingBack, ConditionType::Reverting]
        .into_iter()
        .find_map(|condition| {
            let (reason, message) = phase::condition(snapshot, condition)?;
            phase::may_follow(snapshot.phase(), end(condition))
                .then(|| (condition, Outcome::read(reason, message)))
        })
}

/// The phase in which a way back ends.
const fn end(condition: ConditionType) -> CanaryPhase {
    match condition {
        ConditionType::Reverting => CanaryPhase::Succeeded,
        _ => CanaryPhase::Failed,
    }
}

/// Where traffic goes: to the primary; but after a promotion that failed it is the primary that is broken.
fn destination(release: &Release<'_>, outcome: &Outcome) -> Result<Weights, String> {
    if !release.splits_traffic() || !release.snapshot.canary_has_ready_pods() {
        return Ok(Weights::PRIMARY);
    }
    if outcome.is_of_the_primary() {
        return Ok(Weights::CANARY);
    }
    release.fallback_weights()
}
