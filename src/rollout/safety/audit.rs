//! The audit: rules that no plan may break, whichever decision made it. Tests and production audit every plan.

use json_patch::Patch;
use serde_json::Value;

use crate::{
    api::{canary::CanaryPhase, percent::Percent},
    providers, rollout,
    rollout::{
        plan::Plan,
        safety::own_routes::is_given_back,
        status::{draining, transitions::may_follow},
    },
    routers::own_routes,
    snapshot::{
        Action, Kind, ObjectRef, Snapshot, TargetKind, Weights, Write, target::SCALE_TO_ZERO,
    },
    workload::scaler,
};

/// A rule that a plan breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsafe {
    /// The phase must not change in this way.
    #[error("phase {to} may not follow {from}")]
    Transition {
        /// The phase before the plan.
        from: CanaryPhase,
        /// The phase after the plan.
        to: CanaryPhase,
    },
    /// The primary must never be scaled to zero.
    #[error("the primary {0} would be scaled to zero")]
    PrimaryToZero(String),
    /// The target must keep its pods until connections have drained.
    #[error("{0} would be scaled to zero before its connections have drained")]
    NotDrained(String),
    /// The weights must sum to 100.
    #[error("weights {primary} and {canary} are not 100 together")]
    Sum {
        /// The primary's weight.
        primary: Percent,
        /// The canary's weight.
        canary: Percent,
    },
    /// A workload without a ready pod must not get more traffic.
    #[error("weight {weight} for a {side} without a ready pod")]
    NoReadyPod {
        /// The weight that the plan sets.
        weight: Percent,
        /// `canary` or `primary`.
        side: &'static str,
    },
}

/// Checks a plan against all rules.
pub fn audit(snapshot: &Snapshot, plan: &Plan) -> Result<(), Unsafe> {
    transition(snapshot, plan)?;
    primary_keeps_replicas(snapshot, plan)?;
    target_is_drained(snapshot, plan)?;
    traffic_reaches_ready_pods(snapshot, plan)
}

fn transition(snapshot: &Snapshot, plan: &Plan) -> Result<(), Unsafe> {
    let from = snapshot.phase();
    match &plan.status {
        Some(status) if !may_follow(from, status.phase) => Err(Unsafe::Transition {
            from,
            to: status.phase,
        }),
        _ => Ok(()),
    }
}

/// The primary is never scaled to zero. (A ScaledObject that scales to zero without load belongs to the user.)
fn primary_keeps_replicas(snapshot: &Snapshot, plan: &Plan) -> Result<(), Unsafe> {
    let primary = snapshot.canary.primary_workload_name();
    let scaler = snapshot.canary.spec.autoscaler_ref.as_ref();
    let scales_primary_down = |write: &Write| match write.object.kind {
        Kind::Deployment | Kind::DaemonSet => write.object.name == primary && scales_to_zero(write),
        Kind::ScaledObject => {
            scaler.is_none_or(|scaler| write.object.name != scaler.name)
                && pins_to_zero(snapshot, write)
        }
        _ => false,
    };
    if plan.writes.iter().any(scales_primary_down) {
        return Err(Unsafe::PrimaryToZero(primary));
    }
    Ok(())
}

/// The target is scaled to zero only when its traffic moved away long enough ago, so that no request in flight is lost.
fn target_is_drained(snapshot: &Snapshot, plan: &Plan) -> Result<(), Unsafe> {
    let target = &snapshot.canary.spec.target_ref.name;
    let Some(kind) = TargetKind::of(&snapshot.canary).map(TargetKind::kind) else {
        return Ok(());
    };
    let scaler = snapshot.canary.spec.autoscaler_ref.as_ref();
    let scales_target_down = |write: &Write| {
        let object = &write.object;
        match object.kind {
            Kind::ScaledObject => {
                scaler.is_some_and(|scaler| object.name == scaler.name)
                    && pins_to_zero(snapshot, write)
            }
            _ => object.kind == kind && object.name == *target && scales_to_zero(write),
        }
    };
    let Some(routed) = rollout::weights(snapshot) else {
        return Ok(());
    };
    let is_at_primary = routed == Weights::PRIMARY && is_given_back(snapshot);
    let has_waited = match snapshot.phase() {
        CanaryPhase::Finalising | CanaryPhase::Progressing => snapshot.tick.is_some(),
        _ => draining::is_over(snapshot),
    };
    if plan.writes.iter().any(scales_target_down)
        && snapshot.canary_has_ready_pods()
        && (!is_at_primary || !has_waited)
    {
        return Err(Unsafe::NotDrained(target.clone()));
    }
    Ok(())
}

/// The weights sum to 100, and no weight is raised for a workload without a ready pod. If neither workload has one, traffic may return
/// to the primary.
fn traffic_reaches_ready_pods(snapshot: &Snapshot, plan: &Plan) -> Result<(), Unsafe> {
    let router = providers::router(snapshot);
    let Some(after) = after_writes(snapshot, plan) else {
        return Ok(());
    };
    let before = router.current_weights(snapshot);
    let Ok(weights) = router.current_weights(&after) else {
        return Ok(());
    };
    if before.as_ref() == Ok(&weights) {
        return Ok(());
    }
    let Weights {
        primary, canary, ..
    } = weights;
    if primary != Percent::ALL.without(canary) {
        return Err(Unsafe::Sum { primary, canary });
    }
    // Without a route the Service sends all requests to the primary.
    let before = before.unwrap_or(Weights::PRIMARY);
    let canary_is_ready = snapshot.canary_has_ready_pods();
    if canary > before.canary && !canary_is_ready {
        return Err(Unsafe::NoReadyPod {
            weight: canary,
            side: "canary",
        });
    }
    if primary > before.primary && !snapshot.primary_has_ready_pods() && canary_is_ready {
        return Err(Unsafe::NoReadyPod {
            weight: primary,
            side: "primary",
        });
    }
    Ok(())
}

/// The snapshot after those of the plan's writes that can change a route; `None` if there are none.
fn after_writes(snapshot: &Snapshot, plan: &Plan) -> Option<Snapshot> {
    let written = |write: &Write| match &write.action {
        Action::Create(object) | Action::Replace(object) => {
            Some((write.object.clone(), object.clone()))
        }
        Action::Patch(patch) => {
            let object = patched(snapshot, &write.object, patch)?;
            Some((write.object.clone(), object))
        }
    };
    let mut written = plan.writes.iter().filter_map(written).peekable();
    written.peek()?;
    let mut after = snapshot.clone();
    after.objects.extend(written);
    Some(after)
}

/// A route of the user after a patch; `None` for any other object, and for a patch that would fail. A deletion gives routes back to a
/// Service that selects the target's pods again.
fn patched(snapshot: &Snapshot, object: &ObjectRef, patch: &Value) -> Option<Value> {
    if !own_routes::is_route(object.kind) || snapshot.canary.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let patch: Patch = serde_json::from_value(patch.clone()).ok()?;
    let mut route = snapshot.objects.get(object)?.clone();
    json_patch::patch(&mut route, &patch).ok()?;
    Some(route)
}

/// Whether a write scales a workload to zero.
fn scales_to_zero(write: &Write) -> bool {
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

/// Whether a write makes a scaler keep its workload at zero, although the scaler did not do so before.
fn pins_to_zero(snapshot: &Snapshot, write: &Write) -> bool {
    let object = match &write.action {
        Action::Create(object) | Action::Replace(object) => object,
        // The operator patches only owners. A patch of any other field counts as one that keeps the workload at zero.
        Action::Patch(patch) => {
            let mut operations = patch.as_array().into_iter().flatten();
            return operations.any(|operation| {
                let path = operation["path"].as_str().unwrap_or_default();
                !path.starts_with("/metadata/ownerReferences/")
            });
        }
    };
    let before = snapshot.objects.get(&write.object);
    scaler::pins_to_zero(object) && !before.is_some_and(scaler::pins_to_zero)
}
