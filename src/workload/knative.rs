//! A Knative Service as the target. A promotion makes the latest Revision the primary (Flagger: `pkg/canary/knative_controller.go`).

use serde_json::{Value, json};

use super::metadata;
use crate::snapshot::{
    Action, Kind, ObjectRef, Weights, Write,
    knative::{PRIMARY, latest, lead, primary},
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
    let mut wanted = target.clone();
    if !wanted["metadata"]["annotations"].is_object() {
        wanted["metadata"]["annotations"] = json!({});
    }
    wanted["metadata"]["annotations"][PRIMARY] = json!(latest);
    match former {
        None => lead(&mut wanted, latest, &Weights::PRIMARY),
        Some(former) => rename(&mut wanted, former, latest),
    }
    let (name, namespace) = (metadata::name(target), metadata::namespace(target));
    Some(Write {
        object: ObjectRef {
            kind: Kind::KnativeService,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        },
        action: Action::Replace(wanted),
        failure: format!("Knative Service {name}.{namespace} update error: "),
    })
}

/// Gives the routes to a Revision to another one.
fn rename(service: &mut Value, from: &str, to: &str) {
    let routes = service.pointer_mut("/spec/traffic");
    let routes = routes.and_then(Value::as_array_mut);
    for route in routes.into_iter().flatten() {
        if route["revisionName"] == from {
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

    fn promoted(service: &Value) -> Value {
        match promote(service).map(|write| write.action) {
            Some(Action::Replace(wanted)) => wanted,
            other => panic!("not a replace: {other:?}"),
        }
    }

    #[test]
    fn the_latest_revision_becomes_the_primary_and_takes_its_share() {
        let traffic = |primary: &str| {
            json!([{"latestRevision": true, "percent": 40}, {"revisionName": primary, "percent": 60},
            {"revisionName": "podinfo-00000", "tag": "old"}])
        };
        let wanted = promoted(&service(Some("podinfo-00001"), &traffic("podinfo-00001")));
        assert_eq!(
            wanted,
            service(Some("podinfo-00002"), &traffic("podinfo-00002"))
        );
        assert_eq!(promote(&wanted), None);
    }

    #[test]
    fn the_first_primary_gets_all_requests() {
        let wanted = promoted(&service(None, &Value::Null));
        assert_eq!(
            wanted["metadata"]["annotations"],
            json!({PRIMARY: "podinfo-00002"})
        );
        let traffic = json!([{"latestRevision": true, "percent": 0}, {"revisionName": "podinfo-00002", "percent": 100}]);
        assert_eq!(wanted["spec"]["traffic"], traffic);
        let unmade = json!({"metadata": {"name": "podinfo"}, "status": {}});
        assert_eq!(promote(&unmade), None);
    }
}
