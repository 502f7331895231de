//! A DaemonSet as target: it cannot be scaled, so a node selector that matches no node takes its pods away
//! (Flagger's `pkg/canary/daemonset_controller.go`).

use serde_json::{Map, Value, json};

use super::primary::{Change, Primary, text};
use crate::snapshot::target::SCALE_TO_ZERO;

/// What of the spec goes from the target to the primary besides the template.
const COPIED: [&str; 3] = ["minReadySeconds", "revisionHistoryLimit", "updateStrategy"];

/// Where a pod template says which nodes it is for.
const NODE_SELECTOR: &str = "/spec/template/spec/nodeSelector";

/// The spec of a new primary, but for selector and template.
pub fn create(primary: &Primary<'_>) -> Map<String, Value> {
    primary.fields(&COPIED)
}

/// What a promotion changes of the primary's spec.
pub fn promote(primary: &Primary<'_>, live: &Value) -> Vec<Change> {
    primary.copied(&COPIED, live)
}

/// A primary runs on all nodes that the target would run on, even while the target is away.
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

/// Takes the pods away; `None` if they are away.
pub fn scale_to_zero(object: &Value) -> Option<Change> {
    let mut selector = selector(object);
    selector.insert(SCALE_TO_ZERO.to_owned(), json!("true"));
    Change::of(object, NODE_SELECTOR, Some(Value::Object(selector)))
}

/// Brings the pods back; `None` if they are there.
pub fn scale_from_zero(object: &Value) -> Option<Change> {
    let mut selector = selector(object);
    selector.remove(SCALE_TO_ZERO)?;
    let rest = (!selector.is_empty()).then_some(Value::Object(selector));
    Change::of(object, NODE_SELECTOR, rest)
}

/// Only pods that are replaced one after another can be promoted.
pub fn strategy(object: &Value) -> Result<(), String> {
    match text(object, "/spec/updateStrategy/type") {
        "" | "RollingUpdate" => Ok(()),
        other => Err(format!(
            "daemonset {}.{} must have RollingUpdate strategy but have {other}",
            text(object, "/metadata/name"),
            text(object, "/metadata/namespace")
        )),
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
    fn going_and_coming_back_leaves_the_users_own_selector() {
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
    fn an_empty_selector_goes() {
        let mut object = json!({"spec": {"template": {"spec": {}}}});
        scale_to_zero(&object).unwrap().apply(&mut object);
        scale_from_zero(&object).unwrap().apply(&mut object);
        assert_eq!(object, json!({"spec": {"template": {"spec": {}}}}));
    }
}
