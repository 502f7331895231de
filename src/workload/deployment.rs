//! A Deployment as the target: its replicas, and the rules that keep its pods apart (Flagger: `pkg/canary/deployment_controller.go`).

use serde_json::{Value, json};

use super::patch::Change;
use crate::snapshot::readiness::replicas;

/// The fields of the spec that the primary gets from the target, besides the template and the replicas.
pub const COPIED: [&str; 4] = [
    "progressDeadlineSeconds",
    "minReadySeconds",
    "revisionHistoryLimit",
    "strategy",
];

/// The replicas of a new primary: those of the target, but at least 1.
pub fn initial_replicas(target: &Value) -> i64 {
    replicas(target).max(1)
}

/// Gives the primary the target's replicas. Returns no change if the primary has them already, or if the target has none: 0 replicas
/// are never copied to the primary.
pub fn copy_replicas(target: &Value, primary: &Value) -> Option<Change> {
    let wanted = replicas(target);
    if wanted <= 0 {
        return None;
    }
    Change::of(primary, "/spec/replicas", Some(json!(wanted)))
}

/// Sets the replicas. Returns no change if the Deployment has them already.
pub fn scale(object: &Value, to: i64) -> Option<Change> {
    (replicas(object) != to)
        .then(|| Change::of(object, "/spec/replicas", Some(json!(to))))
        .flatten()
}

/// Rules that keep the target's pods apart must keep the primary's pods apart from each other. So where topology spread constraints and
/// pod anti-affinity select pods by one of the `selector_labels` with the target's name, the template gets the primary's name.
pub fn keep_apart(template: &mut Value, name: &str, selector_labels: &[String]) {
    let Some(spec) = template.get_mut("spec") else {
        return;
    };
    let constraints = spec
        .get_mut("topologySpreadConstraints")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten();
    for constraint in constraints {
        if let Some(selector) = constraint.get_mut("labelSelector") {
            rename(selector, name, selector_labels);
        }
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
        let terms = anti.get_mut(list).and_then(Value::as_array_mut);
        for entry in terms.into_iter().flatten() {
            if let Some(selector) = entry.pointer_mut(term) {
                rename(selector, name, selector_labels);
            }
        }
    }
}

/// Replaces the target's name by the primary's in the parts of a label selector that are about one of the `selector_labels`.
fn rename(selector: &mut Value, name: &str, selector_labels: &[String]) {
    let ours = |key: &str| selector_labels.iter().any(|label| label == key);
    let expressions = selector
        .get_mut("matchExpressions")
        .and_then(Value::as_array_mut);
    for expression in expressions.into_iter().flatten() {
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
    let labels = selector
        .get_mut("matchLabels")
        .and_then(Value::as_object_mut);
    for (key, value) in labels.into_iter().flatten() {
        if ours(key) && value.as_str() == Some(name) {
            *value = json!(format!("{name}-primary"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each row has the target's and the primary's replicas, and those that a promotion gives to the primary.
    #[test]
    fn a_promotion_copies_replicas_but_never_zero() {
        let deployment = |replicas: i64| json!({"spec": {"replicas": replicas}});
        for (target, primary, copied) in
            [(0, 2, None), (1, 2, Some(1)), (3, 2, Some(3)), (2, 2, None)]
        {
            let change =
                copy_replicas(&deployment(target), &deployment(primary)).map(Change::operation);
            let copied = copied
                .map(|copied| json!({"op": "add", "path": "/spec/replicas", "value": copied}));
            assert_eq!(change, copied, "{target} {primary}");
        }
        let initial = [0, 1, 5].map(|replicas| initial_replicas(&deployment(replicas)));
        assert_eq!(initial, [1, 1, 5]);
    }
}
