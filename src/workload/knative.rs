//! A Knative Service as the target. A promotion makes the latest Revision the primary (Flagger: `pkg/canary/knative_controller.go`).

use serde_json::{Value, json};

use super::metadata;
use crate::snapshot::{
    Action, Kind, ObjectRef, Weights, Write,
    knative::{PRIMARY, is_tag, latest, lead, primary},
};

/// The write that makes the latest Revision the primary; `None` if it is. The first primary gets all requests. Later, routes to the former
/// primary lead to the new one, with the same share: no request reaches a Revision that is neither. (Flagger writes the annotation first,
/// and the routes a step later.)
pub fn promote(target: &Value) -> Option<Write> {
    let latest = latest(target)?;
    let former = primary(target);
    if former == Some(latest) {
        return None;
    }
    let mut wanted = marked(target, latest);
    match former {
        Some(former) => rename(&mut wanted, former, latest),
        None => lead(&mut wanted, latest, &Weights::PRIMARY),
    }
    Some(replace(wanted))
}

/// The write that names the primary again. The router repairs its share in the next reconcile.
pub fn mark(target: &Value, primary: &str) -> Write {
    replace(marked(target, primary))
}

fn marked(target: &Value, primary: &str) -> Value {
    let mut wanted = target.clone();
    if !wanted["metadata"]["annotations"].is_object() {
        wanted["metadata"]["annotations"] = json!({});
    }
    wanted["metadata"]["annotations"][PRIMARY] = json!(primary);
    wanted
}

/// The write that replaces a Knative Service.
pub fn replace(wanted: Value) -> Write {
    let (name, namespace) = (metadata::name(&wanted), metadata::namespace(&wanted));
    let failure = format!("Knative Service {name}.{namespace} update error: ");
    let object = ObjectRef {
        kind: Kind::KnativeService,
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    };
    Write {
        object,
        action: Action::Replace(wanted),
        failure,
    }
}

/// Gives the shares of a Revision to another one. Tags keep their Revision.
fn rename(service: &mut Value, from: &str, to: &str) {
    let routes = service.pointer_mut("/spec/traffic");
    let routes = routes.and_then(Value::as_array_mut);
    for route in routes.into_iter().flatten() {
        if route["revisionName"] == from && !is_tag(route) {
            route["revisionName"] = json!(to);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(primary: Option<&str>, traffic: &Value) -> Value {
        let annotations = primary.map(|primary| json!({PRIMARY: primary, "a": "1"}));
        json!({"metadata": {"name": "podinfo", "namespace": "test", "annotations": annotations}, "spec": {"traffic": traffic, "template": {}},
            "status": {"latestCreatedRevisionName": "podinfo-00002"}})
    }

    fn written(write: Option<Write>) -> Value {
        match write.map(|write| write.action) {
            Some(Action::Replace(wanted)) => wanted,
            other => panic!("not a replace: {other:?}"),
        }
    }

    #[test]
    fn the_latest_revision_becomes_the_primary_and_takes_its_share() {
        let traffic = |primary: &str| {
            json!([{"latestRevision": true, "percent": 40}, {"revisionName": primary, "percent": 60},
            {"revisionName": "podinfo-00001", "tag": "stable"}])
        };
        let before = service(Some("podinfo-00001"), &traffic("podinfo-00001"));
        let wanted = written(promote(&before));
        assert_eq!(
            wanted,
            service(Some("podinfo-00002"), &traffic("podinfo-00002"))
        );
        assert_eq!(promote(&wanted), None);
    }

    #[test]
    fn the_first_primary_gets_all_requests() {
        let whole = json!([{"latestRevision": true, "percent": 100}, {"latestRevision": true, "percent": 0, "tag": "new"}]);
        let wanted = written(promote(&service(None, &whole)));
        assert_eq!(
            wanted["metadata"]["annotations"],
            json!({PRIMARY: "podinfo-00002"})
        );
        let traffic = json!([{"latestRevision": true, "percent": 0}, {"revisionName": "podinfo-00002", "percent": 100}, {"latestRevision": true, "tag": "new"}]);
        assert_eq!(wanted["spec"]["traffic"], traffic);
        let unmade = json!({"metadata": {"name": "podinfo"}, "status": {}});
        assert_eq!(promote(&unmade), None);
    }

    #[test]
    fn a_primary_is_named_again_and_nothing_else_changes() {
        let live = service(None, &json!([{"latestRevision": true, "percent": 100}]));
        let wanted = written(Some(mark(&live, "podinfo-00001")));
        assert_eq!(
            wanted["metadata"]["annotations"],
            json!({PRIMARY: "podinfo-00001"})
        );
        assert_eq!(wanted["spec"], live["spec"]);
    }
}
