//! Between releases: news still owed, and the start of the next run.

use std::ops::ControlFlow;

use jiff::{SignedDuration, Timestamp};

use super::{
    drain,
    events::{self, alert, event, event_in, opening},
    gate,
    hooks::{self, HookResult},
    phase::{self, ConditionType},
    plan::{Answer, Decision, Evidence, Question, Requeue},
    release::Release,
    rollback::{self, Outcome},
};
use crate::{
    api::canary::{CanaryPhase, Strategy, WebhookType},
    notifications::{EventKind, Notification, Severity},
    routers::affinity,
    snapshot::{Readiness, Snapshot},
};

/// How long a change must have rested before a run starts, so that a burst of edits is one run …
const DEBOUNCE: SignedDuration = SignedDuration::from_millis(500);
/// … and how long edits can hold it back.
const DEBOUNCE_LIMIT: SignedDuration = SignedDuration::from_secs(1);

/// Starts a run if there is something new, and nobody holds it back.
pub fn decide(release: &Release<'_>, evidence: &Evidence) -> Result<Decision, String> {
    let snapshot = release.snapshot;
    release.complete()?;
    if snapshot.phase() == CanaryPhase::Waiting {
        if release.is_reverted() {
            return Ok(rollback::begin(snapshot, &Outcome::Reverted));
        }
        if snapshot.tick.is_none() {
            return Ok(Decision::Wait(Requeue::AtTick, Vec::new()));
        }
        return start(release, evidence);
    }
    if release.to_adopt() {
        return Ok(Decision::commit(adopted(release), Vec::new()));
    }
    if !release.changed() {
        if let Some(wait) = release.routes_lag().filter(|_| drain::is_over(snapshot)) {
            return Ok(wait);
        }
        let end = drain::end(snapshot).filter(|end| *end > snapshot.now);
        let next = end.map_or(Requeue::AtTick, Requeue::At);
        return Ok(Decision::Wait(next, Vec::new()));
    }
    match debounce(snapshot) {
        Some(wait) => Ok(wait),
        None => start(release, evidence),
    }
}

/// The start of a run, once its gate is open.
fn start(release: &Release<'_>, evidence: &Evidence) -> Result<Decision, String> {
    let snapshot = release.snapshot;
    if !snapshot.canary.skip_analysis()
        && release.primary_serves()
        && let Readiness::Waiting(why) | Readiness::Failed(why) = release.primary_readiness()
    {
        return Ok(Decision::Wait(
            Requeue::AtTick,
            vec![event(snapshot, EventKind::Warning, why)],
        ));
    }
    if let Some(wait) = release.routes_pending() {
        return Ok(wait);
    }
    let passed = match gate::rollout(snapshot, evidence) {
        ControlFlow::Continue(passed) => passed,
        ControlFlow::Break(decision) => return Ok(decision),
    };
    let mut status = started(release);
    status.canary_weight = i64::from(release.weights()?.canary);
    let text = format!(
        "New revision detected! Scaling up {}",
        snapshot.full_target()
    );
    let news = vec![
        event_in(snapshot, EventKind::Normal, text, CanaryPhase::Progressing),
        start_alert(snapshot, phase::opened(&status)),
    ];
    Ok(Decision::commit(status, news).notifying(passed))
}

/// The status at the start of a run: what it is about is on record before anything is done for it.
pub fn started(release: &Release<'_>) -> crate::api::canary::CanaryStatus {
    let status = phase::enter(release.snapshot, CanaryPhase::Progressing);
    // The target is wanted again.
    let mut status = phase::without_condition(status, ConditionType::Draining);
    status.canary_weight = 0;
    status.iterations = 0;
    status.failed_checks = 0;
    status.last_applied_spec = Some(release.revision.clone());
    status.tracked_configs.clone_from(&release.configs);
    affinity::retire(&mut status);
    status
}

/// Waits until a change has rested; `None` once it has.
pub fn debounce(snapshot: &Snapshot) -> Option<Decision> {
    let Some(changed) = snapshot.changed else {
        return Some(Decision::Wait(Requeue::AtTick, Vec::new()));
    };
    let rested = changed
        .last
        .saturating_add(DEBOUNCE)
        .unwrap_or(snapshot.now);
    let limit = changed
        .first
        .saturating_add(DEBOUNCE_LIMIT)
        .unwrap_or(snapshot.now);
    let start = rested.min(limit);
    (snapshot.now < start).then(|| Decision::Wait(Requeue::At(start), Vec::new()))
}

/// The same revision under our name for it: no event, no run, no restart.
pub fn adopted(release: &Release<'_>) -> crate::api::canary::CanaryStatus {
    let mut status = phase::status(release.snapshot);
    status.last_applied_spec = Some(release.revision.clone());
    match status.phase {
        CanaryPhase::Initialized | CanaryPhase::Succeeded => {
            status.last_promoted_spec = Some(release.revision.clone());
        }
        // Flagger's says neither the weight nor the iteration at which it waits.
        CanaryPhase::WaitingPromotion if release.strategy() == Strategy::Canary => {
            let routed = release.weights().map(|weights| i64::from(weights.canary));
            status.canary_weight = routed.unwrap_or(status.canary_weight);
            status.iterations = 0;
        }
        _ => {}
    }
    status.tracked_configs.clone_from(&release.configs);
    match status.phase {
        // Flagger told that it began.
        CanaryPhase::Progressing | CanaryPhase::WaitingPromotion => {
            phase::as_told(status, release.snapshot)
        }
        _ => status,
    }
}

/// Tells what a run, or an initialization, came to: at least once, whatever happened in between. Only then is it settled.
/// A failure is told before its hooks are called, a success after them.
pub fn notify(snapshot: &Snapshot, evidence: &Evidence) -> Decision {
    let (reason, message) =
        phase::condition(snapshot, ConditionType::NotificationPending).unwrap_or_default();
    let begun_in = rollback::phase_of(reason);
    let outcome = Outcome::read(reason, message);
    let mut news = news(snapshot, &outcome, begun_in);
    if snapshot.phase() == CanaryPhase::Failed
        && let Some(question) = untold(std::mem::take(&mut news), evidence)
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
            let text = format!("Post-rollout hook {} failed {why}", hook.name);
            passed.push(event(snapshot, EventKind::Warning, text));
            passed
        }
    };
    notifications.extend(news);
    match untold(notifications, evidence) {
        Some(question) => Decision::Ask(vec![question], Vec::new()),
        None => Decision::commit(
            phase::without_condition(phase::status(snapshot), ConditionType::NotificationPending),
            Vec::new(),
        ),
    }
}

/// The start of a run, until a step of it is on record: nobody knows whether the process that began it came to tell it.
pub fn start_notification(snapshot: &Snapshot) -> Vec<Notification> {
    let opened = phase::opened(&phase::status(snapshot));
    let opened = opened.filter(|_| snapshot.phase() == CanaryPhase::Progressing);
    let news = opened.map(|at| start_alert(snapshot, Some(at)));
    news.into_iter().collect()
}

fn start_alert(snapshot: &Snapshot, entered: Option<Timestamp>) -> Notification {
    let text = "New revision detected, progressing canary analysis.";
    opening(alert(snapshot, Severity::Info, text, true), entered)
}

/// What is still to be told of this.
fn untold(notifications: Vec<Notification>, evidence: &Evidence) -> Option<Question> {
    let question = Question::Notify(notifications);
    let is_told = evidence.get(&question) == Some(&Answer::Delivered)
        || question == Question::Notify(Vec::new());
    (!is_told).then_some(question)
}

fn news(snapshot: &Snapshot, outcome: &Outcome, begun_in: CanaryPhase) -> Vec<Notification> {
    let (name, target) = (snapshot.full_name(), snapshot.full_target());
    let warning = |text: String, phase| event_in(snapshot, EventKind::Warning, text, phase);
    let down = warning(
        format!("Canary failed! Scaling down {name}"),
        CanaryPhase::Failed,
    );
    let normal = |text: String| event(snapshot, EventKind::Normal, text);
    let alert = |severity, text: &str| alert(snapshot, severity, text, false);
    match outcome {
        Outcome::FailedChecks(n) => vec![
            warning(
                format!("Rolling back {name} failed checks threshold reached {n}"),
                begun_in,
            ),
            down,
            alert(
                Severity::Error,
                &format!("Failed checks threshold reached {n}"),
            ),
        ],
        Outcome::Manual(hook) => vec![
            warning(format!("Rollback check {hook} passed"), begun_in),
            warning(
                format!("Rolling back {name} manual webhook invoked"),
                begun_in,
            ),
            down,
            alert(Severity::Warn, "Rolling back manual webhook invoked"),
        ],
        Outcome::NotReady(why) => vec![
            warning(
                format!("Rolling back {name} progress deadline exceeded {why}"),
                begun_in,
            ),
            down,
            alert(
                Severity::Error,
                &format!("Progress deadline exceeded {why}"),
            ),
        ],
        Outcome::FailedPromotion(why) => vec![
            warning(
                format!("Promotion of {target} failed, primary not ready: {why}"),
                CanaryPhase::Promoting,
            ),
            alert(
                Severity::Error,
                &format!("Promotion failed, primary not ready: {why}"),
            ),
        ],
        Outcome::Initialized => vec![events::alert(
            snapshot,
            Severity::Info,
            &format!(
                "New {} detected, initialization completed.",
                snapshot.canary.spec.target_ref.kind
            ),
            true,
        )],
        Outcome::Promoted => vec![
            normal(format!("Promotion completed! Scaling down {target}")),
            alert(
                Severity::Info,
                "Canary analysis completed successfully, promotion finished.",
            ),
        ],
        Outcome::Skipped => vec![
            normal(format!(
                "Promotion completed! Canary analysis was skipped for {target}"
            )),
            alert(
                Severity::Info,
                "Canary analysis was skipped, promotion finished.",
            ),
        ],
        Outcome::Reverted => vec![
            normal(format!(
                "Run ended without a promotion: {target} is back at the promoted revision"
            )),
            alert(
                Severity::Info,
                "The target is back at the promoted revision, canary analysis ended.",
            ),
        ],
    }
}
