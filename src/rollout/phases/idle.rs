//! Between two runs (Flagger's phases Initialized, Waiting, Succeeded and Failed): waits for a new revision and starts its run.

use std::ops::ControlFlow;

use super::{end, new_revision, waiting};
use crate::{
    api::{canary::CanaryPhase, status::ConditionType},
    notifications::Notification,
    rollout::{
        actions,
        blocked::Blocked,
        checks::gates,
        messages::{self, run},
        plan::{Decision, Evidence, Requeue},
        release::Release,
        rollback,
        status::{Outcome, StatusChange, change::unconfirmed_start, draining},
    },
    snapshot::{Readiness, Snapshot},
};

/// Starts a run if the target has a new revision and the rollout gate is open.
pub fn decide(release: &Release<'_>, evidence: &Evidence) -> Result<Decision, Blocked> {
    let snapshot = release.snapshot;
    release.has_all_configs()?;
    if snapshot.phase() == CanaryPhase::Waiting {
        if release.is_reverted() {
            return Ok(rollback::begin(snapshot, &Outcome::Reverted));
        }
        let is_asked = actions::skips(snapshot) || actions::promotes(snapshot);
        if (snapshot.tick.is_none() || actions::is_paused(snapshot)) && !is_asked {
            return Ok(Decision::wait(Requeue::AtTick));
        }
        return start(release, evidence);
    }
    if release.to_adopt() {
        let adopted = new_revision::adopted(release);
        return Ok(Decision::commit(adopted, Vec::new()));
    }
    if release.changed() {
        return match new_revision::debounce(snapshot) {
            Some(wait) => Ok(wait),
            None => Ok(recorded(release, start(release, evidence)?)),
        };
    }
    if actions::retries(snapshot) {
        return start(release, evidence);
    }
    if has_succeeded(snapshot) && snapshot.status().has_condition(ConditionType::Verdict) {
        // The version that waited is gone.
        let change = StatusChange::within_step(snapshot).clear(ConditionType::Verdict);
        return Ok(Decision::commit(change.build(), Vec::new()));
    }
    if let Some(wait) = release.routes_lag().filter(|_| draining::is_over(snapshot)) {
        return Ok(wait);
    }
    Ok(end::drains(release, evidence).unwrap_or(Decision::wait(Requeue::AtTick)))
}

/// The decision about a new version. A wait is recorded with its reason first: the status would say only that the version before is promoted.
fn recorded(release: &Release<'_>, decision: Decision) -> Decision {
    let snapshot = release.snapshot;
    if !has_succeeded(snapshot) {
        return decision;
    }
    waiting::recorded(snapshot, "A new version waits", decision)
}

/// Whether the last version was promoted. After a failure, the status keeps the reason of the failure.
fn has_succeeded(snapshot: &Snapshot) -> bool {
    matches!(
        snapshot.phase(),
        CanaryPhase::Initialized | CanaryPhase::Succeeded
    )
}

/// Starts a run once its gate is open.
fn start(release: &Release<'_>, evidence: &Evidence) -> Result<Decision, Blocked> {
    let snapshot = release.snapshot;
    if !snapshot.canary.skip_analysis()
        && release.primary_serves()
        && let Readiness::Waiting(why) | Readiness::Failed(why) = release.primary_readiness()
    {
        return Ok(Decision::Wait(
            Requeue::AtTick,
            vec![messages::warning(snapshot, why)],
        ));
    }
    // After the deadline, the run starts and fails at once: the version gets no traffic, and the user gets an alert.
    let is_overdue = || release.routes_overdue().is_some();
    if let Some(wait) = release.routes_pending().filter(|_| !is_overdue()) {
        return Ok(wait);
    }
    let passed = match gates::rollout(snapshot, evidence) {
        ControlFlow::Continue(passed) => passed,
        ControlFlow::Break(decision) => return Ok(decision),
    };
    let weight = release.reached_weights()?.canary;
    let status = new_revision::started(release).progress(weight, 0).build();
    let mut notifications = vec![
        run::started(snapshot),
        run::start_alert(snapshot, unconfirmed_start(&status)),
    ];
    notifications.extend(release.unsplit_ports());
    Ok(Decision::commit(status, notifications).notifying(passed))
}

/// The alert that a run has started, until the status records a step of the run: the process that started it may have died before it sent
/// the alert.
pub fn start_announcement(snapshot: &Snapshot) -> Vec<Notification> {
    if snapshot.phase() != CanaryPhase::Progressing {
        return Vec::new();
    }
    let entered = unconfirmed_start(snapshot.status());
    let alert = entered.map(|at| run::start_alert(snapshot, Some(at)));
    alert.into_iter().collect()
}
