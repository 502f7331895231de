//! The end of a run: its outcome is recorded, its notifications are sent, and the canary is scaled down.

use crate::{
    api::{
        canary::{CanaryPhase, WebhookType},
        status::ConditionType,
    },
    notifications::Notification,
    rollout::{
        checks::{
            comparisons::{self, Remaining},
            hooks::{self, HookResult},
        },
        messages::{self, run},
        plan::{Answer, Decision, Evidence, Plan, Question, Requeue},
        release::Release,
        safety::own_routes,
        status::{Outcome, StatusChange, draining, outcome, transitions::is_between_runs},
    },
    snapshot::{Snapshot, Weights},
};

/// Ends a run whose canary has had no traffic for an interval: scales the canary down, and records the outcome until it is sent.
pub fn succeed(release: &Release<'_>, outcome: &Outcome) -> Plan {
    let ended = StatusChange::enter(release.snapshot, CanaryPhase::Succeeded)
        .clear(ConditionType::PromotionFailed)
        .progress(0, 0)
        .with(|status| {
            status
                .last_promoted_spec
                .clone_from(&status.last_applied_spec);
        })
        .pending(outcome);
    let trimmed = release.trim_primary().into_iter();
    Plan {
        writes: trimmed.chain(release.scale_down()).collect(),
        status: Some(ended.build()),
        notifications: Vec::new(),
    }
}

/// Scales the canary down after its connections have drained, if all traffic is on the primary. `None` if it is too early.
pub fn finish_draining(release: &Release<'_>, evidence: &Evidence) -> Option<Decision> {
    let snapshot = release.snapshot;
    let is_at_primary = || {
        release.weights() == Ok(Weights::PRIMARY)
            && release.routes_lag().is_none()
            && own_routes::is_given_back(snapshot)
    };
    if !is_between_runs(snapshot.phase()) || !draining::is_over(snapshot) || !is_at_primary() {
        return None;
    }
    match remaining(release, evidence) {
        Remaining::Ask(question) => return Some(Decision::Ask(vec![question], Vec::new())),
        Remaining::Some { .. } => return None,
        Remaining::None => {}
    }
    let drained = StatusChange::within_step(snapshot).clear(ConditionType::Draining);
    Some(Decision::Do(Plan {
        writes: release.scale_down(),
        status: Some(drained.build()),
        notifications: Vec::new(),
    }))
}

/// Whether a version that was rolled back still gets requests. A newer version does not wait for the answer.
fn remaining(release: &Release<'_>, evidence: &Evidence) -> Remaining {
    let snapshot = release.snapshot;
    let is_rolled_back = snapshot.phase() == CanaryPhase::Failed && !release.changed();
    let since = draining::since(snapshot).filter(|_| is_rolled_back);
    since.map_or(Remaining::None, |since| {
        comparisons::remaining(snapshot, evidence, since)
    })
}

/// The wait of a version that was rolled back, while its connections drain or while it still gets requests.
pub fn drains(release: &Release<'_>, evidence: &Evidence) -> Option<Decision> {
    let snapshot = release.snapshot;
    let end = draining::end(snapshot)?;
    if end > snapshot.now {
        return Some(Decision::wait(Requeue::At(end)));
    }
    match remaining(release, evidence) {
        Remaining::Some { until, canary, all } => {
            let event = run::still_served(snapshot, canary, all);
            Some(Decision::Wait(Requeue::At(until), vec![event]))
        }
        Remaining::Ask(_) | Remaining::None => None,
    }
}

/// Sends the outcome of a run, or of the initialization, at least once, even if the operator restarts in between. Only then is the canary
/// idle. The notifications of a failure are sent before its post-rollout hooks are called, those of a success afterwards.
pub fn send_outcome(snapshot: &Snapshot, evidence: &Evidence) -> Decision {
    let pending = ConditionType::NotificationPending;
    let reason = snapshot.status().condition(pending).map(|c| &*c.reason);
    let ended_in = outcome::phase_of(reason.unwrap_or_default());
    let outcome = outcome::recorded(snapshot, pending).unwrap_or_else(|| Outcome::parse("", ""));
    let mut unsent = messages::outcome::notifications(snapshot, &outcome, ended_in);
    if snapshot.phase() == CanaryPhase::Failed
        && let Some(question) = undelivered(std::mem::take(&mut unsent), evidence)
    {
        return Decision::Ask(vec![question], Vec::new());
    }
    let hooks = match outcome {
        Outcome::Initialized => HookResult::Passed(Vec::new()),
        _ => hooks::run(
            snapshot,
            evidence,
            WebhookType::PostRollout,
            snapshot.phase(),
        ),
    };
    let mut notifications = match hooks {
        HookResult::Ask(questions, _) => return Decision::Ask(questions, Vec::new()),
        HookResult::Passed(passed) => passed,
        HookResult::Failed {
            mut passed,
            hook,
            why,
        } => {
            passed.push(messages::checks::post_rollout_failed(snapshot, hook, &why));
            passed
        }
    };
    notifications.extend(unsent);
    match undelivered(notifications, evidence) {
        Some(question) => Decision::Ask(vec![question], Vec::new()),
        None => {
            let sent = StatusChange::within_step(snapshot).clear(pending);
            Decision::commit(sent.build(), Vec::new())
        }
    }
}

/// The question that sends these notifications; `None` if they were delivered, or if there are none.
fn undelivered(notifications: Vec<Notification>, evidence: &Evidence) -> Option<Question> {
    if notifications.is_empty() {
        return None;
    }
    let question = Question::Notify(notifications);
    let is_delivered = evidence.get(&question) == Some(&Answer::Delivered);
    (!is_delivered).then_some(question)
}
