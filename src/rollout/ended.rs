//! How a run ended, for its record.

use super::status::{Outcome, outcome, verdict};
use crate::{
    api::{
        canary::{CanaryCondition, CanaryPhase, CanaryStatus},
        release::{Cause, ReleaseResult},
        status::{ConditionType, VerdictCode},
    },
    snapshot::Snapshot,
};

/// How a run ended whose end this status records, and why.
pub fn of_end(snapshot: &Snapshot, status: &CanaryStatus) -> (ReleaseResult, Cause) {
    let text = |condition: &CanaryCondition| condition.message.clone().unwrap_or_default();
    let pending = ConditionType::NotificationPending;
    // After a restart, the change that removes the condition may be the first one that is seen.
    let pending = status
        .condition(pending)
        .or_else(|| snapshot.status().condition(pending));
    let outcome = pending.map(|it| Outcome::parse(&it.reason, &text(it)));
    let of_outcome = outcome.as_ref().map(|it| verdict::of_outcome(snapshot, it));
    let of_outcome = of_outcome.map(|(code, sentence)| cause(code.as_str(), sentence));
    if status.phase == CanaryPhase::Failed {
        let result = match outcome {
            Some(Outcome::Aborted(_)) => ReleaseResult::Aborted,
            _ => ReleaseResult::Failed,
        };
        let verdict = status.condition(ConditionType::Verdict);
        let verdict = verdict.map(|it| cause(&it.reason, text(it)));
        let unknown = || {
            cause(
                VerdictCode::FailedChecks.as_str(),
                "The version failed.".to_owned(),
            )
        };
        return (result, verdict.or(of_outcome).unwrap_or_else(unknown));
    }
    let promoted = || {
        cause(
            VerdictCode::Promoted.as_str(),
            "The version was promoted.".to_owned(),
        )
    };
    match (outcome, outcome::promoted_by(snapshot)) {
        (Some(Outcome::Reverted), _) => (
            ReleaseResult::Withdrawn,
            of_outcome.unwrap_or_else(promoted),
        ),
        (_, Some(who)) => {
            let sentence = format!("The version was promoted, as requested {who}.");
            (
                ReleaseResult::Promoted,
                cause(VerdictCode::Promoted.as_str(), sentence),
            )
        }
        _ => (ReleaseResult::Promoted, of_outcome.unwrap_or_else(promoted)),
    }
}

fn cause(code: &str, sentence: String) -> Cause {
    let code = code.to_owned();
    Cause { code, sentence }
}
