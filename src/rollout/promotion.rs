//! The analysed version becomes the primary (Flagger's phases Promoting and Finalising).

use super::{
    analysis,
    events::event,
    phase::{self, ConditionType},
    plan::{Decision, Plan, Requeue},
    release::Release,
    rollback::{self, Outcome},
};
use crate::{
    api::canary::CanaryPhase,
    notifications::EventKind,
    routers::affinity,
    snapshot::{Readiness, Weights},
};

/// The primary gets the template; once it is ready, traffic moves to it.
pub fn promoting(release: &Release<'_>) -> Result<Decision, String> {
    let snapshot = release.snapshot;
    if !release.is_promoted() {
        release.complete()?;
        if release.changed() {
            // Only what was analysed is promoted.
            return analysis::changed(release);
        }
        let mut writes: Vec<_> = release.primary_scaler(true)?.into_iter().collect();
        writes.extend(release.promote());
        return Ok(Decision::Do(Plan {
            writes,
            ..Plan::default()
        }));
    }
    let canary = i64::from(release.weights()?.canary);
    let canary_readiness = if canary == 0 {
        // Whoever has no traffic any more holds up nobody.
        Readiness::Ready
    } else {
        release.canary_readiness()
    };
    match (release.primary_readiness(), canary_readiness) {
        (Readiness::Failed(why), _) => {
            return Ok(rollback::begin(snapshot, &Outcome::FailedPromotion(why)));
        }
        (_, Readiness::Failed(why)) => {
            return Ok(rollback::begin(snapshot, &Outcome::NotReady(why)));
        }
        _ if snapshot.tick.is_none() => return Ok(Decision::Wait(Requeue::AtTick, Vec::new())),
        (Readiness::Waiting(why), _) | (_, Readiness::Waiting(why)) => {
            return Ok(Decision::Wait(
                Requeue::Ready,
                vec![event(snapshot, EventKind::Warning, why)],
            ));
        }
        (Readiness::Ready, Readiness::Ready) => {}
    }
    let step = snapshot
        .canary
        .spec
        .analysis
        .as_ref()
        .and_then(|a| a.step_weight_promotion)
        .unwrap_or(0);
    if step <= 0 || canary == 0 || !release.splits_traffic() {
        return to_primary(release);
    }
    let left = (canary - step).clamp(0, 100);
    let weights = Weights::canary(u8::try_from(left).unwrap_or(0));
    let text = format!(
        "Advance {} primary weight {}",
        snapshot.full_name(),
        weights.primary
    );
    let mut status = if left == 0 {
        finalising_status(release)
    } else {
        phase::step(snapshot)
    };
    status.canary_weight = left;
    Ok(Decision::Do(Plan {
        writes: release.set_weights(&weights)?,
        status: Some(status),
        notifications: vec![event(snapshot, EventKind::Normal, text)],
    }))
}

fn to_primary(release: &Release<'_>) -> Result<Decision, String> {
    let writes = release.set_weights(&Weights::PRIMARY)?;
    let text = "Routing all traffic to primary".to_owned();
    let notifications = release
        .splits_traffic()
        .then(|| event(release.snapshot, EventKind::Normal, text))
        .into_iter()
        .collect();
    Ok(Decision::Do(Plan {
        writes,
        status: Some(finalising_status(release)),
        notifications,
    }))
}

fn finalising_status(release: &Release<'_>) -> crate::api::canary::CanaryStatus {
    let status = phase::enter(release.snapshot, CanaryPhase::Finalising);
    let mut status = phase::without_condition(status, ConditionType::PromotionFailed);
    status.canary_weight = 0;
    status.iterations = 0;
    affinity::retire(&mut status);
    status
}

/// An interval after traffic moved, when its connections have drained, the canary goes.
pub fn finalising(release: &Release<'_>) -> Result<Decision, String> {
    let snapshot = release.snapshot;
    match release.primary_readiness() {
        Readiness::Failed(why) => {
            return Ok(rollback::begin(snapshot, &Outcome::FailedPromotion(why)));
        }
        _ if snapshot.tick.is_none() => return Ok(Decision::Wait(Requeue::AtTick, Vec::new())),
        Readiness::Waiting(why) => {
            return Ok(Decision::Wait(
                Requeue::Ready,
                vec![event(snapshot, EventKind::Warning, why)],
            ));
        }
        Readiness::Ready => {}
    }
    if release.weights()? != Weights::PRIMARY {
        // Somebody moved traffic back: its connections have to drain again.
        return Ok(Decision::Do(Plan {
            writes: release.set_weights(&Weights::PRIMARY)?,
            status: Some(phase::step(snapshot)),
            notifications: Vec::new(),
        }));
    }
    Ok(release
        .routes_lag()
        .unwrap_or_else(|| Decision::Do(succeed(release, &Outcome::Promoted))))
}

/// Ends a run that an interval ago had no traffic any more: the canary goes, and the news is owed.
pub fn succeed(release: &Release<'_>, outcome: &Outcome) -> Plan {
    let status = phase::enter(release.snapshot, CanaryPhase::Succeeded);
    let mut status = phase::without_condition(status, ConditionType::PromotionFailed);
    status.canary_weight = 0;
    status.iterations = 0;
    status
        .last_promoted_spec
        .clone_from(&status.last_applied_spec);
    let status = rollback::with_notification_pending(status, release.snapshot, outcome);
    Plan {
        writes: release.scale_down(),
        status: Some(status),
        notifications: Vec::new(),
    }
}
