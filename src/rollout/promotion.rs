//! The analysed version becomes the primary (Flagger's phases Promoting and Finalising).

use super::{
    analysis,
    facts::Facts,
    phase::{self, Intent},
    plan::{Decision, Next, Plan},
    rollback::{self, Cause},
    say::event,
};
use crate::{
    api::canary::CanaryPhase,
    notice::EventKind,
    route::affinity,
    world::{Readiness, Weights},
};

/// The primary gets the template; once it is ready, traffic moves to it.
pub fn promoting(facts: &Facts<'_>) -> Result<Decision, String> {
    let world = facts.world;
    if !facts.is_promoted() {
        facts.complete()?;
        if facts.changed() {
            // Only what was analysed is promoted.
            return analysis::changed(facts);
        }
        let mut effects: Vec<_> = facts.primary_scaler(true)?.into_iter().collect();
        effects.extend(facts.promote());
        return Ok(Decision::Do(Plan {
            effects,
            ..Plan::default()
        }));
    }
    let canary = i64::from(facts.weights()?.canary);
    let canary_readiness = if canary == 0 {
        // Whoever has no traffic any more holds up nobody.
        Readiness::Ready
    } else {
        facts.canary_readiness()
    };
    match (facts.primary_readiness(), canary_readiness) {
        (Readiness::Failed(why), _) => {
            return Ok(rollback::begin(world, &Cause::FailedPromotion(why)));
        }
        (_, Readiness::Failed(why)) => return Ok(rollback::begin(world, &Cause::NotReady(why))),
        _ if world.due.is_none() => return Ok(Decision::Wait(Next::Due, Vec::new())),
        (Readiness::Waiting(why), _) | (_, Readiness::Waiting(why)) => {
            return Ok(Decision::Wait(
                Next::Ready,
                vec![event(world, EventKind::Warning, why)],
            ));
        }
        (Readiness::Ready, Readiness::Ready) => {}
    }
    let step = world
        .canary
        .spec
        .analysis
        .as_ref()
        .and_then(|a| a.step_weight_promotion)
        .unwrap_or(0);
    if step <= 0 || canary == 0 || !facts.splits_traffic() {
        return to_primary(facts);
    }
    let left = (canary - step).clamp(0, 100);
    let weights = Weights::canary(u8::try_from(left).unwrap_or(0));
    let text = format!(
        "Advance {} primary weight {}",
        world.full_name(),
        weights.primary
    );
    let mut status = if left == 0 {
        finalising_status(facts)
    } else {
        phase::step(world)
    };
    status.canary_weight = left;
    Ok(Decision::Do(Plan {
        effects: facts.set_weights(&weights)?,
        status: Some(status),
        notices: vec![event(world, EventKind::Normal, text)],
    }))
}

fn to_primary(facts: &Facts<'_>) -> Result<Decision, String> {
    let effects = facts.set_weights(&Weights::PRIMARY)?;
    let text = "Routing all traffic to primary".to_owned();
    let notices = facts
        .splits_traffic()
        .then(|| event(facts.world, EventKind::Normal, text))
        .into_iter()
        .collect();
    Ok(Decision::Do(Plan {
        effects,
        status: Some(finalising_status(facts)),
        notices,
    }))
}

fn finalising_status(facts: &Facts<'_>) -> crate::api::canary::CanaryStatus {
    let status = phase::enter(facts.world, CanaryPhase::Finalising);
    let mut status = phase::without_intent(status, Intent::PromotionFailed);
    status.canary_weight = 0;
    status.iterations = 0;
    affinity::retire(&mut status);
    status
}

/// An interval after traffic moved, when its connections have drained, the canary goes.
pub fn finalising(facts: &Facts<'_>) -> Result<Decision, String> {
    let world = facts.world;
    match facts.primary_readiness() {
        Readiness::Failed(why) => return Ok(rollback::begin(world, &Cause::FailedPromotion(why))),
        _ if world.due.is_none() => return Ok(Decision::Wait(Next::Due, Vec::new())),
        Readiness::Waiting(why) => {
            return Ok(Decision::Wait(
                Next::Ready,
                vec![event(world, EventKind::Warning, why)],
            ));
        }
        Readiness::Ready => {}
    }
    if facts.weights()? != Weights::PRIMARY {
        // Somebody moved traffic back: its connections have to drain again.
        return Ok(Decision::Do(Plan {
            effects: facts.set_weights(&Weights::PRIMARY)?,
            status: Some(phase::step(world)),
            notices: Vec::new(),
        }));
    }
    Ok(facts
        .routes_lag()
        .unwrap_or_else(|| Decision::Do(succeed(facts, &Cause::Promoted))))
}

/// Ends a run that an interval ago had no traffic any more: the canary goes, and the news is owed.
pub fn succeed(facts: &Facts<'_>, cause: &Cause) -> Plan {
    let status = phase::enter(facts.world, CanaryPhase::Succeeded);
    let mut status = phase::without_intent(status, Intent::PromotionFailed);
    status.canary_weight = 0;
    status.iterations = 0;
    status
        .last_promoted_spec
        .clone_from(&status.last_applied_spec);
    let status = rollback::owe(status, facts.world, cause);
    Plan {
        effects: facts.scale_down(),
        status: Some(status),
        notices: Vec::new(),
    }
}
