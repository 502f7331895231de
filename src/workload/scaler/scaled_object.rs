//! KEDA's ScaledObject (`keda.sh/v1alpha1`). It can scale a workload from zero, so the operator must pause it while the target has to
//! stay without pods.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// With this annotation, KEDA keeps the workload at a fixed number of replicas.
const PAUSED_REPLICAS: &str = "autoscaling.keda.sh/paused-replicas";

/// The common prefix of the annotations that pause KEDA.
const PAUSED: &str = "autoscaling.keda.sh/paused";

/// Whether KEDA keeps the workload at 0 replicas.
pub fn is_paused_at_zero(object: &Value) -> bool {
    let annotations = object.pointer("/metadata/annotations");
    annotations.and_then(|annotations| annotations.get(PAUSED_REPLICAS)) == Some(&json!("0"))
}

/// Makes KEDA keep the workload at 0 replicas.
pub fn pause(object: &mut Value) {
    let annotations = object
        .get_mut("metadata")
        .and_then(|metadata| child(metadata, "annotations"));
    if let Some(annotations) = annotations {
        annotations.insert(PAUSED_REPLICAS.to_owned(), json!("0"));
    }
}

/// Ends a pause at 0 replicas. A pause at another number belongs to the user and stays.
pub fn resume(object: &mut Value) {
    if !is_paused_at_zero(object) {
        return;
    }
    let annotations = object
        .pointer_mut("/metadata/annotations")
        .and_then(Value::as_object_mut);
    if let Some(annotations) = annotations {
        annotations.remove(PAUSED_REPLICAS);
    }
}

/// Removes the annotations that pause KEDA: it must scale the primary even while the target is paused. (Flagger copies these
/// annotations, so a primary that was created while the target is paused stays at 0 replicas.)
pub fn without_pauses(mut annotations: Map<String, Value>) -> Map<String, Value> {
    annotations.retain(|key, _| !key.starts_with(PAUSED));
    annotations
}

/// Whether KEDA may scale the workload to zero: its minimum is 0 by default, and the idle count can be lower than the minimum.
pub fn may_scale_to_zero(object: &Value) -> bool {
    let count = |field: &str| {
        object
            .pointer(&format!("/spec/{field}"))
            .and_then(Value::as_i64)
    };
    !is_paused_at_zero(object)
        && count("idleReplicaCount")
            .or_else(|| count("minReplicaCount"))
            .unwrap_or(0)
            == 0
}

/// Changes the spec of the target's ScaledObject into the primary's: the name of the HPA that KEDA creates, and the queries. `queries`
/// are the Canary's, by the name of the trigger; `target` is the name of the target.
pub fn for_primary(spec: &mut Value, queries: Option<&BTreeMap<String, String>>, target: &str) {
    let hpa = child(spec, "advanced").map(|advanced| {
        let hpa = advanced
            .entry("horizontalPodAutoscalerConfig")
            .or_insert_with(|| json!({}));
        hpa.get_mut("name")
    });
    // Two ScaledObjects cannot share one HPA.
    if let Some(Some(Value::String(name))) = hpa
        && !name.is_empty()
    {
        name.push_str("-primary");
    }
    let triggers = spec.get_mut("triggers").and_then(Value::as_array_mut);
    for trigger in triggers.into_iter().flatten() {
        query_primary(trigger, queries, target);
    }
}

/// Sets a trigger's query to the Canary's query for the trigger. If the Canary has no queries at all, replaces the target's name in the
/// query by the primary's.
fn query_primary(trigger: &mut Value, queries: Option<&BTreeMap<String, String>>, target: &str) {
    match queries {
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
                *query = with_primary_name(query, target);
            }
        }
    }
}

/// Replaces each `podinfo` and `podinfo-canary` in a query by `podinfo-primary`, as Flagger does.
fn with_primary_name(query: &str, target: &str) -> String {
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

/// An object in a field of an object. Creates it if the field is missing or null.
fn child<'v>(value: &'v mut Value, field: &str) -> Option<&'v mut Map<String, Value>> {
    let map = value.as_object_mut()?;
    let child = map.entry(field).or_insert_with(|| json!({}));
    if child.is_null() {
        *child = json!({});
    }
    child.as_object_mut()
}
