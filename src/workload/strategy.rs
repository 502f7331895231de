//! The strategy of a promotion: it takes no capacity from a primary that serves.
//!
//! A target's strategy may take all pods away before new ones are ready. The operator then moves the traffic away from the primary first.
//! If the traffic cannot move, the primary gets another strategy for its update, and the target's strategy when it is ready. (Flagger
//! always copies the target's.)

use serde_json::{Value, json};

use super::{
    patch::Change,
    share::{Rounding, share_of},
};
use crate::snapshot::{
    TargetKind,
    readiness::{number, replicas},
};

/// Whether traffic should move to the canary before an update with this target's strategy, because it may take all pods of the primary
/// away. A single pod with `maxUnavailable: 1` and a surge does not count, because these settings are common.
pub fn stops_all_pods(kind: TargetKind, target: &Value, primary: &Value) -> bool {
    match kind {
        TargetKind::Deployment => {
            let (pods, unavailable, surge) = rolling_update(target, primary);
            is_recreated(target) || (unavailable >= pods && (pods > 1 || surge == 0))
        }
        TargetKind::DaemonSet => stops_all_daemons(target, primary),
        TargetKind::Service | TargetKind::Knative => false,
    }
}

/// The path and the value of the strategy that the primary needs to keep pods during a rollout; `None` if the target's strategy keeps them.
pub fn serving(kind: TargetKind, target: &Value, primary: &Value) -> Option<(&'static str, Value)> {
    let takes_all = match kind {
        TargetKind::Deployment => {
            let (pods, unavailable, _) = rolling_update(target, primary);
            is_recreated(target) || unavailable >= pods
        }
        TargetKind::DaemonSet => stops_all_daemons(target, primary),
        TargetKind::Service | TargetKind::Knative => false,
    };
    takes_all.then(|| keeping_pods(kind)).flatten()
}

/// The change that gives an updated primary the target's strategy, if it was updated with another one to keep its pods.
pub fn restored(kind: TargetKind, target: &Value, primary: &Value) -> Option<Change> {
    let (path, strategy) = keeping_pods(kind)?;
    (primary.pointer(path) == Some(&strategy))
        .then(|| Change::of(primary, path, target.pointer(path).cloned()))
        .flatten()
}

fn keeping_pods(kind: TargetKind) -> Option<(&'static str, Value)> {
    let (path, update) = match kind {
        TargetKind::Deployment => (
            "/spec/strategy",
            json!({"maxUnavailable": 0, "maxSurge": "25%"}),
        ),
        TargetKind::DaemonSet => (
            "/spec/updateStrategy",
            json!({"maxUnavailable": 1, "maxSurge": 0}),
        ),
        TargetKind::Service | TargetKind::Knative => return None,
    };
    Some((
        path,
        json!({"type": "RollingUpdate", "rollingUpdate": update}),
    ))
}

fn is_recreated(target: &Value) -> bool {
    target.pointer("/spec/strategy/type") == Some(&json!("Recreate"))
}

/// The pods of the primary, and how many of them a rolling update with this target's strategy takes away and adds at the same time.
fn rolling_update(target: &Value, primary: &Value) -> (i64, i64, i64) {
    let pods = replicas(primary).max(replicas(target)).max(1);
    let part = |field: &str, rounding| {
        let value = target.pointer(&format!("/spec/strategy/rollingUpdate/{field}"));
        share_of(value.unwrap_or(&json!("25%")), pods, rounding)
    };
    let (unavailable, surge) = (
        part("maxUnavailable", Rounding::Down),
        part("maxSurge", Rounding::Up),
    );
    // If `maxUnavailable` and `maxSurge` are both 0, Kubernetes uses 1 for `maxUnavailable`.
    (pods, unavailable.max(i64::from(surge == 0)), surge)
}

/// Whether a rolling update of a DaemonSet takes all pods away: it does without a surge, and with a `maxUnavailable` of all nodes. A
/// DaemonSet on one node does not count: without a surge, it loses its only pod with every strategy.
fn stops_all_daemons(target: &Value, primary: &Value) -> bool {
    let pods = number(primary, "/status/desiredNumberScheduled");
    let part = |field: &str, default: i64| {
        let value = target.pointer(&format!("/spec/updateStrategy/rollingUpdate/{field}"));
        share_of(value.unwrap_or(&json!(default)), pods, Rounding::Up)
    };
    pods > 1 && part("maxSurge", 0) == 0 && part("maxUnavailable", 1).max(1) >= pods
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_stops_all_pods_if_its_maximum_has_all_of_them() {
        let rolling = |update: Value| json!({"type": "RollingUpdate", "rollingUpdate": update});
        for (replicas, strategy, stops) in [
            (5, json!({"type": "Recreate"}), true),
            (0, rolling(json!({})), false),
            (1, json!({}), false),
            (1, rolling(json!({"maxUnavailable": 1})), false),
            (
                1,
                rolling(json!({"maxUnavailable": 1, "maxSurge": 0})),
                true,
            ),
            (2, rolling(json!({"maxUnavailable": 1})), false),
            (
                1,
                rolling(json!({"maxUnavailable": 0, "maxSurge": 0})),
                true,
            ),
            (4, rolling(json!({"maxUnavailable": "100%"})), true),
            (4, rolling(json!({"maxUnavailable": "99%"})), false),
        ] {
            let target = json!({"spec": {"replicas": 0, "strategy": strategy}});
            let primary = json!({"spec": {"replicas": replicas}});
            assert_eq!(
                stops_all_pods(TargetKind::Deployment, &target, &primary),
                stops,
                "{replicas} {strategy}"
            );
            let is_common = replicas == 1 && strategy == rolling(json!({"maxUnavailable": 1}));
            assert_eq!(
                serving(TargetKind::Deployment, &target, &primary).is_some(),
                stops || is_common,
                "{replicas} {strategy}"
            );
        }
    }

    #[test]
    fn an_update_stops_all_pods_if_its_maximum_has_all_nodes() {
        for (nodes, update, stops) in [
            (0, json!({}), false),
            (1, json!({}), false),
            (3, json!({"maxSurge": 3, "maxUnavailable": 0}), false),
            (2, json!({}), false),
            (3, json!({"maxUnavailable": "70%"}), true),
            (3, json!({"maxUnavailable": "60%"}), false),
        ] {
            let target = json!({"spec": {"updateStrategy": {"rollingUpdate": update}}});
            let primary = json!({"status": {"desiredNumberScheduled": nodes}});
            assert_eq!(
                stops_all_pods(TargetKind::DaemonSet, &target, &primary),
                stops,
                "{nodes} {update}"
            );
        }
    }
}
