//! A Deployment as the target: its replicas (Flagger: `pkg/canary/deployment_controller.go`).

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

/// Gives the primary the target's replicas if these are more: the primary serves while it is updated. (Flagger also gives it fewer.)
pub fn raise_replicas(target: &Value, primary: &Value) -> Option<Change> {
    let wanted = replicas(target);
    (wanted > replicas(primary))
        .then(|| Change::of(primary, "/spec/replicas", Some(json!(wanted))))
        .flatten()
}

/// Gives the primary the target's replicas after a promotion, if these are fewer. Returns no change if the target has none, or if the
/// replicas of one of both are set by an autoscaler or by `kubectl scale`: then they are not copied to the primary.
pub fn lower_replicas(target: &Value, primary: &Value) -> Option<Change> {
    let wanted = replicas(target);
    let is_wish = wanted > 0 && !is_scaled(target) && !is_scaled(primary);
    (is_wish && wanted < replicas(primary))
        .then(|| Change::of(primary, "/spec/replicas", Some(json!(wanted))))
        .flatten()
}

/// Whether the replicas were last set through the subresource `scale`.
fn is_scaled(object: &Value) -> bool {
    let entries = object.pointer("/metadata/managedFields");
    let mut entries = entries.and_then(Value::as_array).into_iter().flatten();
    entries.any(|entry| {
        entry["subresource"] == "scale" && entry.pointer("/fieldsV1/f:spec/f:replicas").is_some()
    })
}

/// Sets the replicas. Returns no change if the Deployment has them already.
pub fn scale(object: &Value, to: i64) -> Option<Change> {
    (replicas(object) != to)
        .then(|| Change::of(object, "/spec/replicas", Some(json!(to))))
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each row has the target's and the primary's replicas, and those that a promotion gives to the primary.
    #[test]
    fn a_promotion_raises_replicas_at_once_and_lowers_them_afterwards() {
        let deployment = |replicas: i64| json!({"spec": {"replicas": replicas}});
        for (target, primary, raised, lowered) in [
            (0, 2, None, None),
            (1, 2, None, Some(1)),
            (3, 2, Some(3), None),
            (2, 2, None, None),
        ] {
            let write = |to| json!({"op": "add", "path": "/spec/replicas", "value": to});
            let (target, primary) = (deployment(target), deployment(primary));
            let raise = raise_replicas(&target, &primary).map(Change::operation);
            assert_eq!(raise, raised.map(write), "{target} {primary}");
            let lower = lower_replicas(&target, &primary).map(Change::operation);
            assert_eq!(lower, lowered.map(write), "{target} {primary}");
        }
        let initial = [0, 1, 5].map(|replicas| initial_replicas(&deployment(replicas)));
        assert_eq!(initial, [1, 1, 5]);
    }

    #[test]
    fn replicas_that_an_autoscaler_sets_are_no_wish() {
        let entry = |subresource: &str, field: &str| json!({"subresource": subresource, "fieldsV1": {"f:spec": {field: {}}}});
        for (subresource, field, is_wish) in [
            ("scale", "f:replicas", false),
            ("scale", "f:other", true),
            ("status", "f:replicas", true),
        ] {
            let managed = json!([entry(subresource, field)]);
            let scaled = |replicas: i64| json!({"metadata": {"managedFields": managed}, "spec": {"replicas": replicas}});
            let free = |replicas: i64| json!({"spec": {"replicas": replicas}});
            let lowered = [
                lower_replicas(&scaled(2), &free(12)),
                lower_replicas(&free(2), &scaled(12)),
            ];
            assert_eq!(
                lowered.map(|change| change.is_some()),
                [is_wish; 2],
                "{managed}"
            );
        }
    }
}
