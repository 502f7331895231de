//! The primary's autoscaler: a copy of the target's that scales the primary (Flagger's `pkg/canary/hpa_reconciler.go`).

use serde_json::{Value, json};

use super::metadata::without_flux;
use crate::{
    api::canary::AutoscalerRef,
    world::{Action, Effect, Kind, ObjectRef},
};

/// The name of the primary's scaler.
pub fn primary_name(reference: &AutoscalerRef) -> String {
    format!("{}-primary", reference.name)
}

/// The primary's scaler, if there is none yet.
pub fn create(
    reference: &AutoscalerRef,
    scaler: &Value,
    primary_workload: &str,
    owner: &Value,
) -> Effect {
    let text = |pointer| {
        scaler
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let labels = scaler
        .pointer("/metadata/labels")
        .and_then(Value::as_object)
        .map(without_flux);
    let mut object = json!({
        "apiVersion": Kind::HorizontalPodAutoscaler.api_version(), "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": primary_name(reference), "namespace": text("/metadata/namespace"), "ownerReferences": [owner]},
        "spec": wanted(reference, scaler, primary_workload)});
    if let Some(labels) = labels.filter(|labels| !labels.is_empty()) {
        object["metadata"]["labels"] = Value::Object(labels);
    }
    effect(reference, scaler, Action::Create(object), "create")
}

/// Brings the primary's scaler to what the target's is now, as a promotion does; `None` if it is so.
pub fn promote(
    reference: &AutoscalerRef,
    scaler: &Value,
    primary: &Value,
    primary_workload: &str,
) -> Option<Effect> {
    let spec = wanted(reference, scaler, primary_workload);
    if primary.get("spec") == Some(&spec) {
        return None;
    }
    let mut object = primary.clone();
    object["spec"] = spec;
    Some(effect(reference, scaler, Action::Replace(object), "update"))
}

/// The target's spec, whole, but for whom it scales and what the Canary overrides.
fn wanted(reference: &AutoscalerRef, scaler: &Value, primary_workload: &str) -> Value {
    let mut spec = scaler.get("spec").cloned().unwrap_or_default();
    spec["scaleTargetRef"]["name"] = json!(primary_workload);
    if let Some(overrides) = &reference.primary_scaler_replicas {
        for (field, value) in [
            ("minReplicas", overrides.min_replicas),
            ("maxReplicas", overrides.max_replicas),
        ] {
            if let Some(value) = value {
                spec[field] = json!(value);
            }
        }
    }
    spec
}

fn effect(reference: &AutoscalerRef, scaler: &Value, action: Action, verb: &str) -> Effect {
    let namespace = scaler
        .pointer("/metadata/namespace")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    let name = primary_name(reference);
    let failure = format!("{verb} HorizontalPodAutoscaler {name}.{namespace} failed: ");
    Effect {
        object: ObjectRef {
            kind: Kind::HorizontalPodAutoscaler,
            namespace,
            name,
        },
        action,
        failure,
    }
}
