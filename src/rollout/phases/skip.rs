//! A promotion without analysis (`spec.skipAnalysis`), in two reconciles: the primary gets the version; only then is the canary scaled
//! down.

use super::end;
use crate::{
    rollout::{
        blocked::Blocked,
        messages::run,
        plan::{Decision, Plan},
        release::Release,
        status::{Outcome, StatusChange},
    },
    snapshot::Weights,
};

/// Promotes the target without an analysis.
pub fn decide(release: &Release<'_>) -> Result<Decision, Blocked> {
    let snapshot = release.snapshot;
    let status = snapshot.status();
    let has_progress = release.weights()? != Weights::PRIMARY
        || (status.canary_weight, status.iterations) != (0, 0);
    if has_progress && (!release.promotion_failed() || release.is_promoted()) {
        // The user switched the analysis off during a run, or the primary is repaired.
        let step = StatusChange::end_step(snapshot).progress(0, 0);
        return release.move_traffic(&Weights::PRIMARY, step, None);
    }
    if release.is_promoted() {
        let end = || Decision::Do(end::succeed(release, &Outcome::Skipped));
        return Ok(release.routes_lag().unwrap_or_else(end));
    }
    release.has_all_configs()?;
    let mut writes = release.promote();
    writes.extend(release.primary_scaler(true)?);
    Ok(Decision::Do(Plan {
        writes,
        status: None,
        notifications: vec![run::copying(snapshot)],
    }))
}
