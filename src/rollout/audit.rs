//! What no plan may do, whatever led to it: checked for every plan, in tests and in production.

use serde_json::Value;

use super::{drain, phase, plan::Plan};
use crate::{
    api::canary::CanaryPhase,
    route::{self, Dialect},
    workload::scaler,
    world::{Action, Effect, Kind, TargetKind, Weights, World, target::SCALE_TO_ZERO},
};

/// What is unsafe about a plan, if anything.
pub fn audit(world: &World, plan: &Plan) -> Result<(), String> {
    if let Some(status) = &plan.status
        && !phase::may_follow(world.phase(), status.phase)
    {
        return Err(format!(
            "phase {} may not follow {}",
            status.phase,
            world.phase()
        ));
    }
    no_replicas(world, plan)?;
    drained(world, plan)?;
    traffic(world, plan)
}

/// The target is scaled to zero only when traffic left it a while ago: what is on its way is not lost.
fn drained(world: &World, plan: &Plan) -> Result<(), String> {
    let target = &world.canary.spec.target_ref.name;
    let Some(kind) = TargetKind::of(&world.canary).map(TargetKind::kind) else {
        return Ok(());
    };
    let scaler = world.canary.spec.autoscaler_ref.as_ref();
    let goes = plan.effects.iter().any(|effect| {
        let object = &effect.object;
        match object.kind {
            Kind::ScaledObject => {
                scaler.is_some_and(|scaler| object.name == scaler.name) && pins(world, effect)
            }
            _ => object.kind == kind && object.name == *target && to_zero(effect),
        }
    });
    let answers = world.canary_answers();
    let Ok(routed) = Dialect::of(world).and_then(|dialect| route::read(dialect, world)) else {
        return Ok(());
    };
    let waited = match world.phase() {
        CanaryPhase::Finalising | CanaryPhase::Progressing => world.due.is_some(),
        _ => drain::is_over(world),
    };
    if goes && answers && (routed != Weights::PRIMARY || !waited) {
        return Err(format!(
            "{target} would be scaled to zero before its connections have drained"
        ));
    }
    Ok(())
}

fn to_zero(effect: &Effect) -> bool {
    let is_zero = |path: &str, value: &Value| match path {
        "/spec/replicas" => *value == 0,
        "/spec/template/spec/nodeSelector" => value.get(SCALE_TO_ZERO).is_some(),
        "/spec/template" => value
            .pointer("/spec/nodeSelector")
            .is_some_and(|selector| selector.get(SCALE_TO_ZERO).is_some()),
        _ => false,
    };
    match &effect.action {
        Action::Create(object) | Action::Replace(object) => {
            let paths = ["/spec/replicas", "/spec/template"];
            paths.iter().any(|path| {
                object
                    .pointer(path)
                    .is_some_and(|value| is_zero(path, value))
            })
        }
        Action::Patch(patch) => {
            let mut operations = patch.as_array().into_iter().flatten();
            operations.any(|operation| {
                operation["op"] != "test"
                    && is_zero(
                        operation["path"].as_str().unwrap_or_default(),
                        &operation["value"],
                    )
            })
        }
    }
}

/// Whether a write has a scaler keep its workload at zero that did not before.
fn pins(world: &World, effect: &Effect) -> bool {
    let (Action::Create(object) | Action::Replace(object)) = &effect.action else {
        // A part of a scaler is never written.
        return true;
    };
    let before = world.objects.get(&effect.object);
    scaler::pins_to_zero(object) && !before.is_some_and(scaler::pins_to_zero)
}

/// The primary is never scaled to zero. (A ScaledObject that may do so where there is no load is the user's.)
fn no_replicas(world: &World, plan: &Plan) -> Result<(), String> {
    let primary = world.canary.primary_workload_name();
    let scaler = world.canary.spec.autoscaler_ref.as_ref();
    let goes = |effect: &Effect| match effect.object.kind {
        Kind::Deployment | Kind::DaemonSet => effect.object.name == primary && to_zero(effect),
        Kind::ScaledObject => {
            scaler.is_none_or(|scaler| effect.object.name != scaler.name) && pins(world, effect)
        }
        _ => false,
    };
    if plan.effects.iter().any(goes) {
        return Err(format!("the primary {primary} would be scaled to zero"));
    }
    Ok(())
}

/// Weights sum to the total, and none is raised where nothing answers; but if neither side answers, the way to the primary is open.
fn traffic(world: &World, plan: &Plan) -> Result<(), String> {
    let Ok(dialect) = Dialect::of(world) else {
        return Ok(());
    };
    let written = plan
        .effects
        .iter()
        .filter_map(|effect| match &effect.action {
            Action::Create(object) | Action::Replace(object) => Some((&effect.object, object)),
            Action::Patch(_) => None,
        });
    let mut written = written.peekable();
    if written.peek().is_none() {
        return Ok(());
    }
    let mut after = world.clone();
    for (name, object) in written {
        after.objects.insert(name.clone(), object.clone());
    }
    let before = route::read(dialect, world);
    let Ok(weights) = route::read(dialect, &after) else {
        return Ok(());
    };
    if before.as_ref() == Ok(&weights) {
        return Ok(());
    }
    if u16::from(weights.primary) + u16::from(weights.canary) != 100 {
        return Err(format!(
            "weights {} and {} are not 100 together",
            weights.primary, weights.canary
        ));
    }
    // Without a route the Service leads to the primary.
    let before = before.unwrap_or(Weights::PRIMARY);
    let (primary, canary) = (world.primary_answers(), world.canary_answers());
    if weights.canary > before.canary && !canary {
        return Err(format!(
            "weight {} for a canary without a ready pod",
            weights.canary
        ));
    }
    if weights.primary > before.primary && !primary && canary {
        return Err(format!(
            "weight {} for a primary without a ready pod",
            weights.primary
        ));
    }
    Ok(())
}
