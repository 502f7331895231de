//! A DaemonSet as the target. It has no replicas, so a node selector that matches no node removes its pods
//! (Flagger: `pkg/canary/daemonset_controller.go`).

use serde_json::{Map, Value, json};

use super::{metadata, patch::Change};
use crate::snapshot::target::SCALE_TO_ZERO;

/// The fields of the spec that the primary gets from the target, besides the template.
pub const COPIED: [&str; 3] = ["minReadySeconds", "revisionHistoryLimit", "updateStrategy"];

/// The node selector in a workload's pod template.
const NODE_SELECTOR: &str = "/spec/template/spec/nodeSelector";

/// The DaemonSet replaces its pods in a way other than one after another, so it cannot be promoted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("daemonset {name}.{namespace} must have RollingUpdate strategy but have {strategy}")]
pub struct NotRollingUpdate {
    name: String,
    namespace: String,
    strategy: String,
}

/// Removes the selector for scaling to zero from the primary's template: the primary runs on all nodes that the target would run on,
/// even while the target is scaled to zero.
pub fn on_all_nodes(template: &mut Value) {
    let Some(spec) = template.get_mut("spec").and_then(Value::as_object_mut) else {
        return;
    };
    let Some(selector) = spec.get_mut("nodeSelector").and_then(Value::as_object_mut) else {
        return;
    };
    selector.remove(SCALE_TO_ZERO);
    if selector.is_empty() {
        spec.remove("nodeSelector");
    }
}

/// Removes the pods. Returns no change if the DaemonSet is already scaled to zero.
pub fn scale_to_zero(object: &Value) -> Option<Change> {
    let mut selector = selector(object);
    selector.insert(SCALE_TO_ZERO.to_owned(), json!("true"));
    Change::of(object, NODE_SELECTOR, Some(Value::Object(selector)))
}

/// Brings the pods back. Returns no change if the DaemonSet is not scaled to zero.
pub fn scale_from_zero(object: &Value) -> Option<Change> {
    let mut selector = selector(object);
    selector.remove(SCALE_TO_ZERO)?;
    let rest = (!selector.is_empty()).then_some(Value::Object(selector));
    Change::of(object, NODE_SELECTOR, rest)
}

/// Checks the update strategy. The operator can only promote a DaemonSet that replaces its pods one after another.
pub fn strategy(object: &Value) -> Result<(), NotRollingUpdate> {
    let strategy = object
        .pointer("/spec/updateStrategy/type")
        .and_then(Value::as_str);
    match strategy.unwrap_or_default() {
        "" | "RollingUpdate" => Ok(()),
        other => Err(NotRollingUpdate {
            name: metadata::name(object).to_owned(),
            namespace: metadata::namespace(object).to_owned(),
            strategy: other.to_owned(),
        }),
    }
}

fn selector(object: &Value) -> Map<String, Value> {
    object
        .pointer(NODE_SELECTOR)
        .and_then(Value::as_object)
        .cloned()
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scaling_to_zero_and_back_keeps_the_users_node_selector() {
        let mut object = json!({"spec": {"template": {"spec": {"nodeSelector": {"disk": "ssd"}}}}});
        let Some(change) = scale_to_zero(&object) else {
            panic!("nothing changes")
        };
        change.apply(&mut object);
        assert_eq!(scale_to_zero(&object), None);
        let mut primary = object["spec"]["template"].clone();
        on_all_nodes(&mut primary);
        assert_eq!(primary["spec"]["nodeSelector"], json!({"disk": "ssd"}));
        scale_from_zero(&object).unwrap().apply(&mut object);
        assert_eq!(object.pointer(NODE_SELECTOR), Some(&json!({"disk": "ssd"})));
        assert_eq!(scale_from_zero(&object), None);
    }

    #[test]
    fn scaling_back_removes_an_empty_node_selector() {
        let mut object = json!({"spec": {"template": {"spec": {}}}});
        scale_to_zero(&object).unwrap().apply(&mut object);
        scale_from_zero(&object).unwrap().apply(&mut object);
        assert_eq!(object, json!({"spec": {"template": {"spec": {}}}}));
    }

    #[test]
    fn a_daemon_set_without_rolling_updates_is_refused() {
        let object = json!({"metadata": {"name": "podinfo", "namespace": "test"},
            "spec": {"updateStrategy": {"type": "OnDelete"}}});
        assert_eq!(
            strategy(&object).unwrap_err().to_string(),
            "daemonset podinfo.test must have RollingUpdate strategy but have OnDelete"
        );
        assert_eq!(strategy(&json!({})), Ok(()));
    }

    #[test]
    fn the_primary_of_a_daemon_set_at_zero_has_no_node_selector() {
        let mut template = json!({"spec": {"nodeSelector": {"flagger.app/scale-to-zero": "true"}}});
        on_all_nodes(&mut template);
        assert_eq!(template, json!({"spec": {}}));
    }
}
