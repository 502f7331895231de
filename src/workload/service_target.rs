//! A core Service as target: the primary and the canary are Services too, copies of the target as it was promoted and as it is
//! (Flagger's `pkg/canary/service_controller.go`). Whoever writes the target takes care of what answers.

use serde_json::{Map, Value, json};

use super::{
    metadata::{included, owner_reference},
    primary::Primary,
};
use crate::{
    api::canary::Canary,
    snapshot::{Action, Kind, ObjectRef, TargetKind, Write},
};

/// What kubectl applied last is about the target alone.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// What the API server gave the live copy, and what a copy of the target's spec must leave it.
const GIVEN: [&str; 4] = [
    "clusterIP",
    "clusterIPs",
    "ipFamilies",
    "healthCheckNodePort",
];

/// The primary as it is first created.
pub fn create_primary(primary: &Primary<'_>) -> Value {
    copy(primary.target, primary.name, &primary.owner)
}

/// Makes the existing primary what the target is; `None` if it is. It stays the Canary's, at its own address.
pub fn promote(primary: &Primary<'_>, live: &Value) -> Option<Write> {
    let mut wanted = live.clone();
    wanted["spec"] = spec(primary.target, live);
    if wanted == *live {
        return None;
    }
    for field in ["labels", "annotations"] {
        let map = included(&primary.metadata(field), primary.include_label_prefix);
        wanted["metadata"][field] = Value::Object(map);
    }
    let failure = format!(
        "updating service {}.{} spec failed: ",
        primary.name,
        primary.namespace()
    );
    Some(primary.write(Action::Replace(wanted), failure))
}

/// The canary's Service, which follows the target; `None` if it is so.
pub fn canary_service(canary: &Canary, target: &Value, live: Option<&Value>) -> Option<Write> {
    let name = format!("{}-canary", canary.spec.target_ref.name);
    let namespace = canary.metadata.namespace.clone().unwrap_or_default();
    let mut wanted = copy(target, &name, &owner_reference(canary));
    let (action, verb) = match live {
        None => (Action::Create(wanted), "creating"),
        Some(live) => {
            let metadata = wanted["metadata"].take();
            wanted = live.clone();
            wanted["spec"] = spec(target, live);
            for field in ["labels", "annotations"] {
                match metadata.get(field) {
                    Some(map) => wanted["metadata"][field] = map.clone(),
                    None => drop(
                        wanted["metadata"]
                            .as_object_mut()
                            .and_then(|metadata| metadata.remove(field)),
                    ),
                }
            }
            if wanted == *live {
                return None;
            }
            (Action::Replace(wanted), "updating")
        }
    };
    let failure =
        format!("reconcileCanaryService failed: {verb} service {name}.{namespace} query error: ");
    Some(Write {
        object: ObjectRef {
            kind: Kind::Service,
            namespace,
            name,
        },
        action,
        failure,
    })
}

/// A new Service like the target. (Flagger copies the target's own addresses along, which the API server refuses.)
fn copy(target: &Value, name: &str, owner: &Value) -> Value {
    let mut metadata = json!({"name": name, "namespace": target.pointer("/metadata/namespace"), "ownerReferences": [owner]});
    for field in ["labels", "annotations"] {
        let map = target
            .pointer(&format!("/metadata/{field}"))
            .and_then(Value::as_object);
        let mut map = map.cloned().unwrap_or_default();
        map.remove(LAST_APPLIED);
        if !map.is_empty() {
            metadata[field] = Value::Object(map);
        }
    }
    json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec(target, &Value::Null)})
}

/// The target's spec, with the addresses that the copy has already.
fn spec(target: &Value, live: &Value) -> Value {
    let mut spec = match TargetKind::Service.version(target).into_owned() {
        Value::Object(spec) => spec,
        _ => Map::new(),
    };
    let headless = target.pointer("/spec/clusterIP") == Some(&json!("None"));
    if headless && live.is_null() {
        spec.insert("clusterIP".to_owned(), json!("None"));
    }
    for field in GIVEN {
        if let Some(value) = live.pointer(&format!("/spec/{field}")) {
            spec.insert(field.to_owned(), value.clone());
        }
    }
    let node_ports = |port: &Value| {
        let ports = live.pointer("/spec/ports")?.as_array()?;
        let twin = ports
            .iter()
            .find(|live| live.get("port") == port.get("port"));
        twin?.get("nodePort").cloned()
    };
    for port in spec
        .get_mut("ports")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        if let Some(node_port) = node_ports(port) {
            port["nodePort"] = node_port;
        }
    }
    Value::Object(spec)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canary() -> Canary {
        serde_json::from_value(json!({"apiVersion": "flagger.app/v1beta1", "kind": "Canary",
            "metadata": {"name": "podinfo", "namespace": "test", "uid": "u"},
            "spec": {"targetRef": {"apiVersion": "v1", "kind": "Service", "name": "podinfo"}, "service": {"port": 80}}}))
        .unwrap()
    }

    fn target(app: &str) -> Value {
        json!({"metadata": {"name": "podinfo", "namespace": "test", "labels": {"a": "b"}, "annotations": {LAST_APPLIED: "{}"}},
            "spec": {"type": "ClusterIP", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"], "selector": {"app": app}, "ports": [{"port": 80}]}})
    }

    /// Flagger never gets beyond this: the copy carries the target's own addresses, which the API server refuses.
    #[test]
    fn a_cluster_ip_service_can_be_a_target() {
        let Some(Write {
            action: Action::Create(copy),
            ..
        }) = canary_service(&canary(), &target("blue"), None)
        else {
            panic!("not a create")
        };
        assert_eq!(copy["metadata"]["name"], "podinfo-canary");
        assert_eq!(copy["metadata"]["labels"], json!({"a": "b"}));
        assert_eq!(copy["metadata"].get("annotations"), None);
        assert_eq!(
            copy["spec"],
            json!({"type": "ClusterIP", "selector": {"app": "blue"}, "ports": [{"port": 80}]})
        );
    }

    #[test]
    fn the_canary_follows_the_target_at_its_own_address() {
        let mut live = json!({"metadata": {"name": "podinfo-canary", "resourceVersion": "1", "labels": {"a": "b"}},
            "spec": {"type": "ClusterIP", "clusterIP": "10.0.0.2", "clusterIPs": ["10.0.0.2"], "selector": {"app": "blue"}, "ports": [{"port": 80, "nodePort": 30000}]}});
        assert_eq!(
            canary_service(&canary(), &target("blue"), Some(&live)),
            None
        );
        let Some(Write {
            action: Action::Replace(copy),
            ..
        }) = canary_service(&canary(), &target("green"), Some(&live))
        else {
            panic!("not a replace")
        };
        live["spec"]["selector"] = json!({"app": "green"});
        assert_eq!(copy, live);
    }
}
