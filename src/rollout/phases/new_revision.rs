//! A new revision of the target: the start of a run, and its restart when the target changes again.

use jiff::SignedDuration;

use crate::{
    api::{
        canary::{CanaryPhase, CanaryStatus, Strategy},
        status::ConditionType,
    },
    rollout::{
        actions,
        blocked::Blocked,
        messages::run,
        plan::{Decision, Plan, Requeue},
        release::Release,
        rollback,
        status::{Outcome, StatusChange, transitions::is_under_analysis, verdict},
    },
    snapshot::{Snapshot, revision::is_ours},
};

/// A run starts when the target has not changed for this long, so that several edits in a row are one run.
const DEBOUNCE: SignedDuration = SignedDuration::from_millis(500);
/// A run starts after this long even if the target still changes.
const DEBOUNCE_LIMIT: SignedDuration = SignedDuration::from_secs(1);

/// The status at the start of a run. It records the revision before anything is done for it.
pub fn started<'a>(release: &Release<'a>) -> StatusChange<'a> {
    let status = release.snapshot.status();
    let started = StatusChange::enter(release.snapshot, CanaryPhase::Progressing);
    // An action that led to this run, or belongs to it, is kept.
    let is_steered = ConditionType::STEERING.map(|type_| status.has_condition(type_));
    let started = if is_steered.contains(&true) {
        started
            .clear(ConditionType::SkipRequested)
            .clear(ConditionType::RetryRequested)
    } else {
        actions::forget(started)
    };
    // The run needs the target, so it must not be scaled down.
    started
        .clear(ConditionType::Draining)
        .clear(ConditionType::PodsLost)
        .clear(ConditionType::Comparison)
        .progress(0, 0)
        .without_failed_checks()
        .with(|status| {
            status.last_applied_spec = Some(release.revision.clone());
            status.tracked_configs.clone_from(&release.configs);
        })
        .retire_cookies()
}

/// Waits until the target has not changed for a moment; `None` if the run can start.
pub fn debounce(snapshot: &Snapshot) -> Option<Decision> {
    let Some(changed) = snapshot.changed else {
        return Some(Decision::wait(Requeue::AtTick));
    };
    let last = changed.last.saturating_add(DEBOUNCE);
    let limit = changed.first.saturating_add(DEBOUNCE_LIMIT);
    let start = last
        .unwrap_or(snapshot.now)
        .min(limit.unwrap_or(snapshot.now));
    (snapshot.now < start).then(|| Decision::wait(Requeue::At(start)))
}

/// Whether the target has changed since the analysis of its version began.
pub fn is_overtaken(release: &Release<'_>) -> bool {
    is_under_analysis(release.snapshot.phase()) && release.changed()
}

/// The target changed during a run: to another version, or back to the promoted one.
pub fn changed(release: &Release<'_>) -> Result<Decision, Blocked> {
    if release.is_reverted() {
        return Ok(rollback::begin(release.snapshot, &Outcome::Reverted));
    }
    restart(release)
}

/// Returns traffic to the primary and begins the analysis anew.
fn restart(release: &Release<'_>) -> Result<Decision, Blocked> {
    let weights = release.fallback_weights()?;
    // The start of the run was announced already. The actions of a person were about the earlier version, so they end.
    let started = started(release)
        .announced()
        .clear(ConditionType::Paused)
        .clear(ConditionType::PromoteRequested);
    let started = actions::forget(started);
    let started = started.progress(weights.canary, 0);
    Ok(Decision::Do(Plan {
        writes: release.set_weights(&weights)?,
        status: Some(started.build()),
        notifications: vec![run::restarted(release.snapshot)],
    }))
}

/// The status that names the current revision although no run is needed (see `Release::to_adopt`). No event is sent, and no run starts.
pub fn adopted(release: &Release<'_>) -> CanaryStatus {
    let snapshot = release.snapshot;
    let change = StatusChange::within_step(snapshot).with(|status| {
        status.last_applied_spec = Some(release.revision.clone());
        match status.phase {
            CanaryPhase::Initialized | CanaryPhase::Succeeded => {
                status.last_promoted_spec = Some(release.revision.clone());
            }
            // Flagger records neither the weight nor the iteration at which a release waits.
            CanaryPhase::WaitingPromotion if release.strategy() == Strategy::Canary => {
                if let Ok(routed) = release.reached_weights() {
                    status.set_weight(routed.canary);
                }
                status.iterations = 0;
            }
            _ => {}
        }
        status.tracked_configs.clone_from(&release.configs);
    });
    let applied = snapshot.status().last_applied_spec.as_deref();
    let change = if snapshot.phase() == CanaryPhase::Failed
        && applied.is_some_and(is_ours)
        && release.is_reverted()
    {
        verdict::reverted_after_failure(change)
    } else {
        change
    };
    match snapshot.phase() {
        // Flagger has sent the alert of the start.
        CanaryPhase::Progressing | CanaryPhase::WaitingPromotion => change.announced().build(),
        _ => change.build(),
    }
}
