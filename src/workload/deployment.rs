//! A Deployment as target: its replicas, and what keeps its pods apart (Flagger's `pkg/canary/deployment_controller.go`).

use serde_json::{Map, Value, json};

use super::primary::{Change, Primary, text};
use crate::snapshot::readiness::replicas;

/// What of the spec goes from the target to the primary besides the template and the replicas.
const COPIED: [&str; 4] = [
    "progressDeadlineSeconds",
    "minReadySeconds",
    "revisionHistoryLimit",
    "strategy",
];

/// The spec of a new primary, but for selector and template. 0 replicas are never copied.
pub fn create(primary: &Primary<'_>) -> Map<String, Value> {
    let mut spec = primary.fields(&COPIED);
    spec.insert(
        "replicas".to_owned(),
        json!(replicas(primary.target).max(1)),
    );
    spec
}

/// What a promotion changes of the primary's spec.
pub fn promote(primary: &Primary<'_>, live: &Value) -> Vec<Change> {
    let mut changes = primary.copied(&COPIED, live);
    let wanted = replicas(primary.target);
    if !primary.autoscaled && wanted > 0 {
        changes.extend(Change::of(live, "/spec/replicas", Some(json!(wanted))));
    }
    changes
}

/// Sets the replicas; `None` if they are so already.
pub fn scale(object: &Value, to: i64) -> Option<Change> {
    (replicas(object) != to)
        .then(|| Change::of(object, "/spec/replicas", Some(json!(to))))
        .flatten()
}

/// Rules that keep the target's pods apart must keep the primary's apart from each other: the name they look for changes.
pub fn keep_apart(primary: &Primary<'_>, template: &mut Value) {
    let name = text(primary.target, "/metadata/name");
    let Some(spec) = template.get_mut("spec") else {
        return;
    };
    let constraints = spec
        .get_mut("topologySpreadConstraints")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten();
    for constraint in constraints {
        rename(primary, constraint.get_mut("labelSelector"), name);
    }
    let Some(anti) = spec.pointer_mut("/affinity/podAntiAffinity") else {
        return;
    };
    for (list, term) in [
        (
            "requiredDuringSchedulingIgnoredDuringExecution",
            "/labelSelector",
        ),
        (
            "preferredDuringSchedulingIgnoredDuringExecution",
            "/podAffinityTerm/labelSelector",
        ),
    ] {
        for entry in anti
            .get_mut(list)
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            rename(primary, entry.pointer_mut(term), name);
        }
    }
}

fn rename(primary: &Primary<'_>, selector: Option<&mut Value>, name: &str) {
    let Some(selector) = selector else { return };
    let ours = |key: &str| primary.selector_labels.iter().any(|label| label == key);
    for expression in selector
        .get_mut("matchExpressions")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        if expression
            .get("key")
            .and_then(Value::as_str)
            .is_some_and(ours)
            && let Some(values) = expression.get_mut("values").and_then(Value::as_array_mut)
            && let Some(value) = values.iter_mut().find(|value| value.as_str() == Some(name))
        {
            *value = json!(format!("{name}-primary"));
        }
    }
    for (key, value) in selector
        .get_mut("matchLabels")
        .and_then(Value::as_object_mut)
        .into_iter()
        .flatten()
    {
        if ours(key) && value.as_str() == Some(name) {
            *value = json!(format!("{name}-primary"));
        }
    }
}
