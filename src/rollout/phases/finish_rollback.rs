//! The end of a rollback (Flagger's `rollback`): traffic returns to the primary, then the notifications are sent, and the canary is scaled
//! down after its connections have drained.

use super::restore;
use crate::{
    api::{canary::CanaryStatus, percent::Percent, status::ConditionType},
    rollout::{
        blocked::Blocked,
        messages::run,
        plan::{Decision, Plan},
        release::Release,
        rollback::{last_phase, under_way},
        status::{Outcome, StatusChange, draining},
    },
    snapshot::Weights,
};

/// Completes the rollback, from any point at which it may have been interrupted.
pub fn proceed(release: &Release<'_>) -> Result<Decision, Blocked> {
    let snapshot = release.snapshot;
    let Some((condition, outcome)) = under_way(snapshot) else {
        return Err(Blocked::NoRollback);
    };
    let weights = destination(release, &outcome)?;
    let partial = release.partial_withdrawal();
    if weights == Weights::PRIMARY && !partial.is_empty() {
        return Ok(Decision::write(partial));
    }
    let writes = release.set_weights(&weights)?;
    let mut change = StatusChange::enter(snapshot, last_phase(condition))
        .clear(condition)
        .progress(weights.canary, 0)
        .without_failed_checks();
    if weights.canary == Percent::ZERO {
        change = change.retire_cookies();
    }
    if outcome.is_primary_broken() {
        // If the primary was broken before this run, its previous version is broken, too.
        let reason = if release.promotion_failed() {
            restore::NOT_RESTORED
        } else {
            restore::BROKEN
        };
        change = change.set(
            ConditionType::PromotionFailed,
            reason,
            restore::message(reason),
        );
    }
    if condition == ConditionType::Reverting {
        change = change.with(|status| forget_run(status, release));
    }
    let has_nothing_else = condition == ConditionType::RollingBack
        && !outcome.is_primary_broken()
        && release.primary_runs_the_target();
    let notifications = has_nothing_else.then(|| run::primary_has_failed_version(snapshot));
    change = change.pending(&outcome);
    if weights.canary == Percent::ZERO && !release.scale_down().is_empty() {
        change = draining::begin(change);
    }
    Ok(Decision::Do(Plan {
        writes,
        status: Some(change.build()),
        notifications: notifications.into_iter().collect(),
    }))
}

/// Makes the status forget the version of a run that ended without a promotion. If the target has changed again, it gets a new run, even if
/// it has the version of the ended run.
fn forget_run(status: &mut CanaryStatus, release: &Release<'_>) {
    if release.primary_runs_the_target() {
        status.last_applied_spec = Some(release.revision.clone());
        status.tracked_configs.clone_from(&release.configs);
    } else {
        status
            .last_applied_spec
            .clone_from(&status.last_promoted_spec);
        status.tracked_configs = None;
    }
}

/// The weights after the rollback: all traffic to the primary, or to the canary after a failed promotion, because then the primary is
/// broken.
fn destination(release: &Release<'_>, outcome: &Outcome) -> Result<Weights, Blocked> {
    if !release.splits_traffic() || !release.snapshot.canary_has_ready_pods() {
        return Ok(Weights::PRIMARY);
    }
    if outcome.is_primary_broken() {
        return Ok(Weights::CANARY);
    }
    release.fallback_weights()
}
