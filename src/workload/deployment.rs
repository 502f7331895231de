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
