//! The condition `Verdict`: one sentence on why a version failed, why its last check failed, or why it waits (not in Flagger).
//!
//! Flagger reports this in events, which the API server deletes after an hour. The condition is written with a change of the status that is
//! written anyway, except at a closed gate for traffic, and it is removed with the next step that passes.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{Outcome, StatusChange};
use crate::{
    api::{
        canary::{CanaryStatus, CanaryWebhook},
        status::{ConditionType, VerdictCode},
    },
    notifications::webhook::WebhookError,
    snapshot::{Snapshot, excerpt, redacted},
};

/// One reason why a version does not advance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedCheck {
    /// The kind of the reason.
    pub code: VerdictCode,
    /// The reason: a main clause without a full stop.
    pub detail: String,
}

impl FailedCheck {
    /// A reason with this code. Long texts are cut.
    pub fn new(code: VerdictCode, detail: &str) -> Self {
        let detail = excerpt(detail);
        Self { code, detail }
    }

    /// The reason that a webhook did not pass.
    pub fn hook(hook: &CanaryWebhook, why: &WebhookError) -> Self {
        let (kind, why) = (hook.type_.as_str(), why.cause());
        let name = excerpt(&hook.name);
        let detail = format!("the {kind} webhook {name} did not pass: {why}");
        Self::new(VerdictCode::Hook, &detail)
    }
}

/// The greatest number of reasons in a sentence.
const CHECKS: usize = 5;

/// Separates the number of failed checks from the reason of the last one.
const LAST: &str = ": ";

/// Records that a check failed, for these reasons.
pub fn failed_check<'a>(change: StatusChange<'a>, checks: &[FailedCheck]) -> StatusChange<'a> {
    let Some(first) = checks.first() else {
        return change;
    };
    let snapshot = change.snapshot();
    let (failed, threshold) = (
        snapshot.status().failed_checks + 1,
        snapshot.canary.threshold(),
    );
    let details = checks.iter().take(CHECKS).map(|it| it.detail.as_str());
    let more = checks.len().saturating_sub(CHECKS);
    let more = (more > 0).then(|| format!("{more} more"));
    let details: Vec<_> = details.chain(more.as_deref()).collect();
    let details = details.join(" and ");
    let sentence = format!("Failed check {failed} of {threshold}{LAST}{details}.");
    change.set(ConditionType::Verdict, first.code.as_str(), &sentence)
}

/// Records the gate that a release waits at.
pub fn waits_at<'a>(
    change: StatusChange<'a>,
    hook: &CanaryWebhook,
    why: &WebhookError,
) -> StatusChange<'a> {
    let sentence = waiting(hook, why);
    change.set(
        ConditionType::Verdict,
        VerdictCode::Gate.as_str(),
        &sentence,
    )
}

/// Whether the status has recorded already that the release waits at this gate.
pub fn is_waiting_at(status: &CanaryStatus, hook: &CanaryWebhook) -> bool {
    let verdict = status.condition(ConditionType::Verdict);
    let sentence = verdict.and_then(|verdict| verdict.message.as_deref());
    sentence.is_some_and(|sentence| sentence.starts_with(&waiting_for(hook)))
}

fn waiting(hook: &CanaryWebhook, why: &WebhookError) -> String {
    format!("{} ({}).", waiting_for(hook), excerpt(&why.cause()))
}

fn waiting_for(hook: &CanaryWebhook) -> String {
    let kind = hook.type_.as_str();
    let name = excerpt(&hook.name);
    format!("Waits until the {kind} webhook {name} opens its gate")
}

/// Records that a step waits because the canary cannot be compared with the primary, since this time or from now on.
pub fn not_compared<'a>(
    change: StatusChange<'a>,
    why: &FailedCheck,
    waits: &str,
    since: Option<Time>,
) -> StatusChange<'a> {
    let sentence = format!("{waits}: {}.", without_stop(&why.detail));
    let change = change.set(ConditionType::Verdict, why.code.as_str(), &sentence);
    change.with(|status| {
        let mut conditions = status.conditions.iter_mut().flatten();
        let verdict = conditions.find(|it| it.type_ == ConditionType::Verdict.as_str());
        if let (Some(verdict), Some(since)) = (verdict, since) {
            verdict.last_transition_time = Some(since);
        }
    })
}

/// Records why a run is rolled back.
pub fn failed<'a>(change: StatusChange<'a>, outcome: &Outcome) -> StatusChange<'a> {
    let (code, sentence) = of_outcome(change.snapshot(), outcome);
    change.set(ConditionType::Verdict, code.as_str(), &sentence)
}

/// Records why pods are not ready, with the reason that one of them gave.
pub fn pods_failed<'a>(
    change: StatusChange<'a>,
    outcome: &Outcome,
    reason: Option<&str>,
) -> StatusChange<'a> {
    let Some(reason) = reason else {
        return change;
    };
    let (code, sentence) = of_outcome(change.snapshot(), outcome);
    let reason = without_stop(reason);
    let sentence = format!("{sentence} A pod tells why: {reason}.");
    change.set(ConditionType::Verdict, code.as_str(), &sentence)
}

/// Records why an initialization has not been completed until the progress deadline.
pub fn not_initialized<'a>(change: StatusChange<'a>, why: &str) -> StatusChange<'a> {
    let why = redacted(why);
    let sentence = format!(
        "The initialization was not completed until the progress deadline: {}.",
        without_stop(&why)
    );
    let code = VerdictCode::NotReady.as_str();
    change.set(ConditionType::Verdict, code, &sentence)
}

/// The change that records a wait with its reason; `None` if the status has recorded it already.
pub fn wait<'a>(snapshot: &'a Snapshot, waits: &str, why: &str) -> Option<StatusChange<'a>> {
    let why = redacted(why);
    let sentence = format!("{waits}: {}.", without_stop(&why));
    let verdict = snapshot.status().condition(ConditionType::Verdict);
    let is_recorded = verdict.is_some_and(|it| it.message.as_deref() == Some(&sentence));
    let code = VerdictCode::NotReady.as_str();
    (!is_recorded)
        .then(|| StatusChange::within_step(snapshot).set(ConditionType::Verdict, code, &sentence))
}

/// Records why the data plane did not accept the routes.
pub fn routes_failed<'a>(change: StatusChange<'a>, why: &str) -> StatusChange<'a> {
    let why = redacted(why);
    let sentence = format!(
        "The routes were not accepted in time: {}.",
        without_stop(&why)
    );
    change.set(
        ConditionType::Verdict,
        VerdictCode::NotReady.as_str(),
        &sentence,
    )
}

/// Records that the target went back to the promoted version after another one has failed, and keeps the reason of the failure.
pub fn reverted_after_failure(change: StatusChange<'_>) -> StatusChange<'_> {
    const BACK: &str = "The target is back at the version of the primary.";
    let verdict = change.snapshot().status().condition(ConditionType::Verdict);
    let why = verdict.and_then(|verdict| verdict.message.as_deref());
    let sentence = match why {
        Some(why) if why.starts_with(BACK) => why.to_owned(),
        Some(why) => format!("{BACK} The version before was rolled back: {why}"),
        None => format!("{BACK} The version before was rolled back."),
    };
    let code = VerdictCode::Reverted.as_str();
    change.set(ConditionType::Verdict, code, &sentence)
}

/// The code and the sentence of an outcome.
pub fn of_outcome(snapshot: &Snapshot, outcome: &Outcome) -> (VerdictCode, String) {
    match outcome {
        Outcome::FailedChecks(failed) => failed_checks(snapshot, *failed),
        Outcome::Regression(why) => because(
            VerdictCode::Regression,
            "The canary is worse than the primary",
            why,
        ),
        Outcome::Manual(hook) => (
            VerdictCode::RollbackHook,
            format!(
                "The rollback webhook {} passed, which asks for a rollback.",
                excerpt(hook)
            ),
        ),
        Outcome::NotReady(why) => because(
            VerdictCode::NotReady,
            "Pods did not become ready in time",
            why,
        ),
        Outcome::PodsLost(losses) => (
            VerdictCode::PodsLost,
            format!(
                "The canary lost all its ready pods {losses} times; the threshold is {}.",
                snapshot.canary.threshold()
            ),
        ),
        Outcome::Refused(why) => because(VerdictCode::Refused, "The run could not go on", why),
        Outcome::Aborted(who) => (
            VerdictCode::Aborted,
            format!("Aborted {}.", without_stop(who)),
        ),
        Outcome::FailedPromotion(why) => because(
            VerdictCode::PromotionFailed,
            "The primary did not become ready with the promoted version",
            why,
        ),
        Outcome::Initialized => (
            VerdictCode::Promoted,
            "The Canary was initialized.".to_owned(),
        ),
        Outcome::Promoted(by) => (VerdictCode::Promoted, promoted(by)),
        Outcome::Skipped => (
            VerdictCode::Promoted,
            "The version was promoted without an analysis, because spec.skipAnalysis is true."
                .to_owned(),
        ),
        Outcome::Reverted => (
            VerdictCode::Reverted,
            "The target went back to the promoted version.".to_owned(),
        ),
    }
}

/// The sentence about a promotion that this person asked for; nobody did if the text is empty.
fn promoted(by: &str) -> String {
    if by.is_empty() {
        "The version was promoted.".to_owned()
    } else {
        format!(
            "The version was promoted, as requested {}.",
            without_stop(by)
        )
    }
}

/// A code with a sentence and its reason.
fn because(code: VerdictCode, sentence: &str, why: &str) -> (VerdictCode, String) {
    (code, format!("{sentence}: {}.", without_stop(why)))
}

/// The failed checks, with the reason of the last one, which the condition has.
fn failed_checks(snapshot: &Snapshot, failed: i64) -> (VerdictCode, String) {
    let threshold = snapshot.canary.threshold();
    let checks = if failed == 1 { "check" } else { "checks" };
    let sentence = format!("{failed} failed {checks} reached the threshold of {threshold}.");
    let last = snapshot.status().condition(ConditionType::Verdict);
    let last = last.and_then(|last| Some((&last.reason, last.message.as_deref()?)));
    let Some((reason, (_, detail))) =
        last.and_then(|(reason, message)| Some((reason, message.split_once(LAST)?)))
    else {
        return (VerdictCode::FailedChecks, sentence);
    };
    (
        VerdictCode::parse(reason),
        format!("{sentence} In the last one, {detail}"),
    )
}

fn without_stop(text: &str) -> &str {
    text.trim_end().trim_end_matches('.')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::routers::tests::{canary_analysis, snapshot};

    #[test]
    fn a_sentence_stays_short_whatever_the_names_are() {
        let snapshot = snapshot("istio", json!({"port": 80}), canary_analysis(), json!({}));
        let long = "x".repeat(500_000);
        let checks = vec![FailedCheck::new(VerdictCode::Threshold, &long); 100];
        let change = failed_check(StatusChange::within_step(&snapshot), &checks);
        let hook = CanaryWebhook {
            name: long.clone(),
            ..CanaryWebhook::default()
        };
        let status = change.build();
        let sentence = |status: &CanaryStatus| {
            let verdict = status.condition(ConditionType::Verdict).unwrap();
            verdict.message.clone().unwrap()
        };
        let checks = sentence(&status);
        assert!(
            checks.len() < 2000 && checks.ends_with("and 95 more."),
            "{checks}"
        );
        let why = WebhookError::Rejected {
            host: long.clone(),
            status: 403,
            answer: long,
        };
        let waits = waits_at(StatusChange::within_step(&snapshot), &hook, &why).build();
        assert!(sentence(&waits).len() < 1000);
        assert!(is_waiting_at(&waits, &hook));
    }
}
