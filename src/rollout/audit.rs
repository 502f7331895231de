//! What no plan may do, whatever led to it: checked for every plan, in tests and in production.

use serde_json::Value;

use super::{drain, phase, plan::Plan};
use crate::{
    api::canary::CanaryPhase,
    providers,
    snapshot::{Action, Kind, Snapshot, TargetKind, Weights, Write, target::SCALE_TO_ZERO},
    workload::scaler,
};

/// What is unsafe about a plan, if anything.
pub fn audit(snapshot: &Snapshot, plan: &Plan) -> Result<(), String> {
    if let Some(status) = &plan.status
        && !phase::may_follow(snapshot.phase(), status.phase)
    {
        return Err(format!(
            "phase {} may not follow {}",
            status.phase,
            snapshot.phase()
        ));
    }
    no_replicas(snapshot, plan)?;
    drained(snapshot, plan)?;
    traffic(snapshot, plan)
}

/// The target is scaled to zero only when traffic left it a while ago: what is on its way is not lost.
fn drained(snapshot: &Snapshot, plan: &Plan) -> Result<(), String> {
    let target = &snapshot.canary.spec.target_ref.name;
    let Some(kind) = TargetKind::of(&snapshot.canary).map(TargetKind::kind) else {
        return Ok(());
    };
    let scaler = snapshot.canary.spec.autoscaler_ref.as_ref();
    let goes = plan.writes.iter().any(|write| {
        let object = &write.object;
        match object.kind {
            Kind::ScaledObject => {
                scaler.is_some_and(|scaler| object.name == scaler.name) && pins(snapshot, write)
            }
            _ => object.kind == kind && object.name == *target && to_zero(write),
        }
    });
    let answers = snapshot.canary_has_ready_pods();
    let Some(routed) = super::weights(snapshot) else {
        return Ok(());
    };
    let waited = match snapshot.phase() {
        CanaryPhase::Finalising | CanaryPhase::Progressing => snapshot.tick.is_some(),
        _ => drain::is_over(snapshot),
    };
    if goes && answers && (routed != Weights::PRIMARY || !waited) {
        return Err(format!(
            "{target} would be scaled to zero before its connections have drained"
        ));
    }
    Ok(())
}

fn to_zero(write: &Write) -> bool {
    let is_zero = |path: &str, value: &Value| match path {
        "/spec/replicas" => *value == 0,
        "/spec/template/spec/nodeSelector" => value.get(SCALE_TO_ZERO).is_some(),
        "/spec/template" => value
            .pointer("/spec/nodeSelector")
            .is_some_and(|selector| selector.get(SCALE_TO_ZERO).is_some()),
        _ => false,
    };
    match &write.action {
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
fn pins(snapshot: &Snapshot, write: &Write) -> bool {
    let (Action::Create(object) | Action::Replace(object)) = &write.action else {
        // A part of a scaler is never written.
        return true;
    };
    let before = snapshot.objects.get(&write.object);
    scaler::pins_to_zero(object) && !before.is_some_and(scaler::pins_to_zero)
}

/// The primary is never scaled to zero. (A ScaledObject that may do so where there is no load is the user's.)
fn no_replicas(snapshot: &Snapshot, plan: &Plan) -> Result<(), String> {
    let primary = snapshot.canary.primary_workload_name();
    let scaler = snapshot.canary.spec.autoscaler_ref.as_ref();
    let goes = |write: &Write| match write.object.kind {
        Kind::Deployment | Kind::DaemonSet => write.object.name == primary && to_zero(write),
        Kind::ScaledObject => {
            scaler.is_none_or(|scaler| write.object.name != scaler.name) && pins(snapshot, write)
        }
        _ => false,
    };
    if plan.writes.iter().any(goes) {
        return Err(format!("the primary {primary} would be scaled to zero"));
    }
    Ok(())
}

/// Weights sum to the total, and none is raised where nothing answers; but if neither side answers, the way to the primary is open.
fn traffic(snapshot: &Snapshot, plan: &Plan) -> Result<(), String> {
    let Ok(router) = providers::router(snapshot) else {
        return Ok(());
    };
    let written = plan.writes.iter().filter_map(|write| match &write.action {
        Action::Create(object) | Action::Replace(object) => Some((&write.object, object)),
        Action::Patch(_) => None,
    });
    let mut written = written.peekable();
    if written.peek().is_none() {
        return Ok(());
    }
    let mut after = snapshot.clone();
    for (name, object) in written {
        after.objects.insert(name.clone(), object.clone());
    }
    let before = router.current_weights(snapshot);
    let Ok(weights) = router.current_weights(&after) else {
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
    let (primary, canary) = (
        snapshot.primary_has_ready_pods(),
        snapshot.canary_has_ready_pods(),
    );
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
