//! KEDA's ScaledObject (`keda.sh/v1alpha1`): it can scale to zero and from it, so it has to be told when the target is to have no pods.

use serde_json::{Map, Value, json};

use super::{child, override_replicas};
use crate::api::canary::AutoscalerRef;

/// The annotation by which KEDA keeps a workload at so many replicas.
const PAUSED_REPLICAS: &str = "autoscaling.keda.sh/paused-replicas";

/// The annotations that stop KEDA in one way or another begin with this.
const PAUSED: &str = "autoscaling.keda.sh/paused";

/// Whether KEDA keeps the workload at zero.
pub fn is_paused(object: &Value) -> bool {
    let annotations = object.pointer("/metadata/annotations");
    annotations.and_then(|annotations| annotations.get(PAUSED_REPLICAS)) == Some(&json!("0"))
}

/// Has KEDA keep the workload at zero.
pub fn pause(object: &mut Value) {
    let annotations = object
        .get_mut("metadata")
        .and_then(|metadata| child(metadata, "annotations"));
    if let Some(annotations) = annotations {
        annotations.insert(PAUSED_REPLICAS.to_owned(), json!("0"));
    }
}

/// Takes that back. A pause at another number is the user's, and stays.
pub fn unpin(object: &mut Value) {
    if !is_paused(object) {
        return;
    }
    let annotations = object
        .pointer_mut("/metadata/annotations")
        .and_then(Value::as_object_mut);
    if let Some(annotations) = annotations {
        annotations.remove(PAUSED_REPLICAS);
    }
}

/// Annotations without those that stop KEDA: the primary is to be scaled, whatever becomes of the target. (Flagger copies them, so
/// that a primary made while the target is paused stays at zero.)
pub fn unpaused(annotations: Map<String, Value>) -> Map<String, Value> {
    let mut annotations = annotations;
    annotations.retain(|key, _| !key.starts_with(PAUSED));
    annotations
}

/// Whether KEDA may leave the workload without pods: its least is 0 unless told otherwise, and idle may be less than that.
pub fn may_rest(object: &Value) -> bool {
    let count = |field: &str| {
        object
            .pointer(&format!("/spec/{field}"))
            .and_then(Value::as_i64)
    };
    !is_paused(object)
        && count("idleReplicaCount")
            .or_else(|| count("minReplicaCount"))
            .unwrap_or(0)
            == 0
}

/// What the primary's spec has in place of the target's: replicas, the HPA that KEDA makes, and queries about the primary.
pub fn for_primary(spec: &mut Value, reference: &AutoscalerRef, target: &str) {
    override_replicas(spec, reference, ["minReplicaCount", "maxReplicaCount"]);
    let hpa = child(spec, "advanced").map(|advanced| {
        let hpa = advanced
            .entry("horizontalPodAutoscalerConfig")
            .or_insert_with(|| json!({}));
        hpa.get_mut("name")
    });
    // Two ScaledObjects cannot have one HPA.
    if let Some(Some(Value::String(name))) = hpa
        && !name.is_empty()
    {
        name.push_str("-primary");
    }
    let triggers = spec.get_mut("triggers").and_then(Value::as_array_mut);
    for trigger in triggers.into_iter().flatten() {
        ask_about_primary(trigger, reference, target);
    }
}

/// A trigger's query as the Canary has it for the trigger's name; where the Canary has none at all, the target's with the primary
/// in its place.
fn ask_about_primary(trigger: &mut Value, reference: &AutoscalerRef, target: &str) {
    match &reference.primary_scaler_queries {
        Some(queries) => {
            let name = trigger
                .get("name")
                .and_then(Value::as_str)
                .unwrap_or_default();
            if let Some(query) = queries.get(name)
                && let Some(metadata) = child(trigger, "metadata")
            {
                metadata.insert("query".to_owned(), json!(query));
            }
        }
        None => {
            if let Some(Value::String(query)) = trigger.pointer_mut("/metadata/query") {
                *query = about_primary(query, target);
            }
        }
    }
}

/// `podinfo` and `podinfo-canary` become `podinfo-primary`, wherever they stand, as in Flagger.
fn about_primary(query: &str, target: &str) -> String {
    if target.is_empty() {
        return query.to_owned();
    }
    let mut parts = query.split(target);
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        text.push_str(target);
        text.push_str("-primary");
        text.push_str(part.strip_prefix("-canary").unwrap_or(part));
    }
    text
}
