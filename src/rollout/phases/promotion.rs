//! The promotion (Flagger's phases Promoting and Finalising): the primary gets the analysed version, then all traffic.

use super::{end, new_revision};
use crate::{
    api::{
        canary::{CanaryPhase, Strategy},
        percent::Percent,
        status::ConditionType,
    },
    rollout::{
        blocked::Blocked,
        messages::{self, run},
        plan::{Decision, Plan, Requeue},
        release::Release,
        rollback,
        status::{Outcome, StatusChange, outcome},
    },
    snapshot::{Readiness, Weights},
};

/// Gives the primary the target's template; moves traffic to it when it is ready.
pub fn promoting(release: &Release<'_>) -> Result<Decision, Blocked> {
    if !release.is_promoted() {
        release.has_all_configs()?;
        if release.changed() {
            // Only a version that was analysed is promoted.
            return new_revision::changed(release);
        }
        if let Some(cleared) = clear_primary(release)? {
            return Ok(cleared);
        }
        let mut writes: Vec<_> = release.primary_scaler(true)?.into_iter().collect();
        writes.extend(release.promote());
        return Ok(Decision::write(writes));
    }
    let snapshot = release.snapshot;
    let canary = release.reached_weights()?.canary;
    // A canary without traffic does not hold up the promotion.
    let canary_readiness = if canary == Percent::ZERO {
        Readiness::Ready
    } else {
        release.canary_readiness()
    };
    let wait = match (release.primary_readiness(), canary_readiness) {
        (Readiness::Failed(why), _) => rollback::begin(snapshot, &Outcome::FailedPromotion(why)),
        (_, Readiness::Failed(why)) => rollback::begin(snapshot, &Outcome::NotReady(why)),
        _ if snapshot.tick.is_none() => Decision::wait(Requeue::AtTick),
        (Readiness::Waiting(why), _) | (_, Readiness::Waiting(why)) => {
            Decision::Wait(Requeue::Ready, vec![messages::warning(snapshot, why)])
        }
        (Readiness::Ready, Readiness::Ready) => return to_primary(release, canary),
    };
    Ok(wait)
}

/// Routes all traffic to the canary for an interval if the promotion takes all pods of the primary away before it starts new ones, as the
/// strategy `Recreate` does. `None` if the promotion keeps pods, if the canary has no traffic, or if no
/// more traffic can move to it.
fn clear_primary(release: &Release<'_>) -> Result<Option<Decision>, Blocked> {
    let snapshot = release.snapshot;
    let can_move = release.splits_traffic()
        && release.strategy() == Strategy::Canary
        && release.canary_readiness() == Readiness::Ready;
    let routed = release.weights()?;
    if !can_move || routed.canary == Percent::ZERO || !release.promotion_stops_all_pods() {
        return Ok(None);
    }
    // The operator may have crashed after the write of the route and before that of the status.
    if routed != Weights::CANARY || snapshot.status().weight() != Percent::ALL {
        let step = StatusChange::end_step(snapshot);
        let step = step.with(|status| status.set_weight(Percent::ALL));
        let event = run::all_traffic_to_canary(snapshot, false);
        let moved = release.move_traffic(&Weights::CANARY, step, Some(event));
        return moved.map(Some);
    }
    if let Some(why) = release.routes_overdue() {
        return Ok(Some(rollback::routes_not_accepted(snapshot, why)));
    }
    // Until the next tick, proxies apply the routes, and connections to the primary end.
    if snapshot.tick.is_none() {
        return Ok(Some(Decision::wait(Requeue::AtTick)));
    }
    Ok(release.routes_pending())
}

/// Moves traffic from the canary, which has this weight, to the promoted primary: in steps if the spec asks for them, else at once.
fn to_primary(release: &Release<'_>, weight: Percent) -> Result<Decision, Blocked> {
    let snapshot = release.snapshot;
    let analysis = snapshot.canary.spec.analysis.as_ref();
    let step = analysis
        .and_then(|analysis| analysis.step_weight_promotion)
        .unwrap_or(0);
    if step <= 0 || weight == Percent::ZERO || !release.splits_traffic() {
        let event = release
            .splits_traffic()
            .then(|| run::all_traffic_to_primary(snapshot));
        return Ok(Decision::Do(Plan {
            writes: release.set_weights(&Weights::PRIMARY)?,
            status: Some(finalising_status(release).build()),
            notifications: event.into_iter().collect(),
        }));
    }
    // Weights of whole percentages mean the same to Flagger, if it takes over now.
    let left = weight.without(Percent::nearest(step)).rounded_down();
    let weights = Weights::canary(left);
    let change = if left == Percent::ZERO {
        finalising_status(release)
    } else {
        StatusChange::end_step(snapshot)
    };
    let change = change.with(|status| status.set_weight(left));
    Ok(Decision::Do(Plan {
        writes: release.set_weights(&weights)?,
        status: Some(change.build()),
        notifications: vec![run::primary_weight(snapshot, weights.primary)],
    }))
}

fn finalising_status<'a>(release: &Release<'a>) -> StatusChange<'a> {
    StatusChange::enter(release.snapshot, CanaryPhase::Finalising)
        .clear(ConditionType::PromotionFailed)
        .progress(0, 0)
        .retire_cookies()
}

/// Waits an interval after traffic has moved, until connections have drained; then ends the run.
pub fn finalising(release: &Release<'_>) -> Result<Decision, Blocked> {
    let snapshot = release.snapshot;
    match release.primary_readiness() {
        Readiness::Failed(why) => {
            return Ok(rollback::begin(snapshot, &Outcome::FailedPromotion(why)));
        }
        _ if snapshot.tick.is_none() => return Ok(Decision::wait(Requeue::AtTick)),
        Readiness::Waiting(why) => {
            let event = messages::warning(snapshot, why);
            return Ok(Decision::Wait(Requeue::Ready, vec![event]));
        }
        Readiness::Ready => {}
    }
    if release.weights()? != Weights::PRIMARY {
        // Someone moved traffic back to the canary: its connections have to drain again.
        return Ok(Decision::Do(Plan {
            writes: release.set_weights(&Weights::PRIMARY)?,
            status: Some(StatusChange::end_step(snapshot).build()),
            notifications: Vec::new(),
        }));
    }
    let by = outcome::promoted_by(snapshot).unwrap_or_default();
    let end = || Decision::Do(end::succeed(release, &Outcome::Promoted(by.to_owned())));
    Ok(release.routes_lag().unwrap_or_else(end))
}
