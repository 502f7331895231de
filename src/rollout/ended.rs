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

/// The result of the run whose end this status records, and its cause.
pub fn of_end(snapshot: &Snapshot, status: &CanaryStatus) -> (ReleaseResult, Cause) {
    let text = |condition: &CanaryCondition| condition.message.clone().unwrap_or_default();
    let pending = ConditionType::NotificationPending;
    // After a restart, the first change that this process sees may remove the condition. The status before that change still has the
    // condition.
    let pending = status
        .condition(pending)
        .or_else(|| snapshot.status().condition(pending));
    let outcome = pending.map(|it| Outcome::parse(&it.reason, &text(it)));
    let of = |outcome: &Outcome| {
        let (code, sentence) = verdict::of_outcome(snapshot, outcome);
        cause(code.as_str(), sentence)
    };
    let of_outcome = outcome.as_ref().map(of);
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
    let of_outcome = of_outcome.unwrap_or_else(|| of(&Outcome::Promoted(String::new())));
    match (outcome, outcome::promoted_by(snapshot)) {
        (Some(Outcome::Reverted), _) => (ReleaseResult::Withdrawn, of_outcome),
        (Some(Outcome::Promoted(by)), _) if !by.is_empty() => (ReleaseResult::Promoted, of_outcome),
        (_, Some(by)) => (
            ReleaseResult::Promoted,
            of(&Outcome::Promoted(by.to_owned())),
        ),
        _ => (ReleaseResult::Promoted, of_outcome),
    }
}

fn cause(code: &str, sentence: String) -> Cause {
    let code = code.to_owned();
    Cause { code, sentence }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::routers::tests::{canary_analysis, snapshot};

    /// The result and the sentence of a run that ends in this phase, with these conditions before its last change.
    fn ended(phase: &str, conditions: &Value) -> (ReleaseResult, String) {
        let status = json!({"phase": phase, "conditions": conditions});
        let mut snapshot = snapshot("istio", json!({"port": 80}), canary_analysis(), json!({}));
        snapshot.canary.status = serde_json::from_value(status.clone()).unwrap();
        let (result, cause) = of_end(&snapshot, &serde_json::from_value(status).unwrap());
        (result, cause.sentence)
    }

    fn condition(type_: ConditionType, reason: &str, message: &str) -> Value {
        json!({"type": type_.as_str(), "status": "True", "reason": reason, "message": message})
    }

    #[test]
    fn the_record_of_a_promotion_names_the_person_who_asked_for_it() {
        use ReleaseResult::{Promoted, Withdrawn};
        let pending = |outcome| Some(condition(ConditionType::NotificationPending, outcome, ""));
        let action = |reason, text| Some(condition(ConditionType::Action, reason, text));
        let asked = || action("Accepted", "x1 promote by jane: hotfix");
        let plain = "The version was promoted.";
        let by_jane = "The version was promoted, as requested by jane: hotfix.";
        for (outcome, action, result, sentence) in [
            (None, None, Promoted, plain),
            (pending("Promoted"), None, Promoted, plain),
            (None, asked(), Promoted, by_jane),
            (pending("Promoted"), asked(), Promoted, by_jane),
            (pending("Skipped"), asked(), Promoted, by_jane),
            (
                pending("Reverted"),
                asked(),
                Withdrawn,
                "The target went back to the promoted version.",
            ),
            (
                pending("Promoted"),
                action("Refused", "x1 promote by jane: hotfix"),
                Promoted,
                plain,
            ),
            (
                pending("Promoted"),
                action("Accepted", "x1 skip by jane: slow"),
                Promoted,
                plain,
            ),
        ] {
            let case = format!("{outcome:?} {action:?}");
            let conditions = [outcome, action].into_iter().flatten().collect::<Value>();
            let expected = (result, sentence.to_owned());
            assert_eq!(ended("Succeeded", &conditions), expected, "{case}");
        }
    }

    #[test]
    fn the_record_of_a_rollback_tells_an_abort_from_a_failure() {
        use ReleaseResult::{Aborted, Failed};
        let pending = |outcome, text| condition(ConditionType::NotificationPending, outcome, text);
        let verdict = condition(
            ConditionType::Verdict,
            "Aborted",
            "Aborted by jane: errors.",
        );
        for (conditions, result, sentence) in [
            (json!([]), Failed, "The version failed."),
            (
                json!([pending("Aborted", "by jane: errors")]),
                Aborted,
                "Aborted by jane: errors.",
            ),
            (
                json!([pending("Aborted", "by jane"), verdict]),
                Aborted,
                "Aborted by jane: errors.",
            ),
            (
                json!([pending("Manual", "gate")]),
                Failed,
                "The rollback webhook gate passed, which asks for a rollback.",
            ),
        ] {
            let expected = (result, sentence.to_owned());
            assert_eq!(ended("Failed", &conditions), expected, "{conditions}");
        }
    }
}
