//! A core Service as the target. The primary and the canary are Services too: the primary is a copy of the target as it was promoted,
//! the canary is a copy of the target as it is now (Flagger: `pkg/canary/service_controller.go`). The user decides which pods the target
//! selects.

use serde_json::{Map, Value, json};

use super::metadata::{LAST_APPLIED, included, owner_reference};
use crate::{
    api::canary::Canary,
    snapshot::{Action, Kind, ObjectRef, TargetKind, Write},
};

/// The fields that the API server assigned to the live copy. An update of the copy keeps them.
const ASSIGNED: [&str; 4] = [
    "clusterIP",
    "clusterIPs",
    "ipFamilies",
    "healthCheckNodePort",
];

/// The primary with the target's spec, labels and annotations. It keeps its owner and its own addresses. Returns `None` if the primary
/// has the target's spec already.
pub fn promoted(target: &Value, primary: &Value, include_label_prefix: &[String]) -> Option<Value> {
    let mut wanted = primary.clone();
    wanted["spec"] = spec(target, primary);
    if wanted == *primary {
        return None;
    }
    for field in ["labels", "annotations"] {
        let map = target
            .pointer(&format!("/metadata/{field}"))
            .and_then(Value::as_object)
            .cloned()
            .unwrap_or_default();
        wanted["metadata"][field] = Value::Object(included(&map, include_label_prefix));
    }
    Some(wanted)
}

/// Makes the canary's Service equal to the target. Returns no write if it is so already.
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

/// A new Service with the target's spec, labels and annotations. (Flagger also copies the target's addresses, which the API server
/// rejects.)
pub fn copy(target: &Value, name: &str, owner: &Value) -> Value {
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

/// The target's spec with the addresses and node ports of the live copy.
fn spec(target: &Value, live: &Value) -> Value {
    let mut spec = match TargetKind::Service.version(target).into_owned() {
        Value::Object(spec) => spec,
        _ => Map::new(),
    };
    let headless = target.pointer("/spec/clusterIP") == Some(&json!("None"));
    if headless && live.is_null() {
        spec.insert("clusterIP".to_owned(), json!("None"));
    }
    for field in ASSIGNED {
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

    /// Flagger fails at this step: its copy has the target's addresses, which the API server rejects.
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

    /// The API server refuses a write that changes one of these.
    #[test]
    fn an_update_keeps_what_the_api_server_assigned_to_the_copy() {
        let assigned = |n: i64| json!({"clusterIP": n, "clusterIPs": [n], "ipFamilies": [n], "healthCheckNodePort": n});
        let service = |n: i64, app: &str| {
            let mut service = target(app);
            service["metadata"]["labels"] = json!({"team": "a", "other": "b"});
            service["metadata"]["annotations"] = json!({"team": "c", "other": "d"});
            let ports = json!([{"name": "a", "port": 80, "nodePort": n}, {"name": "b", "port": 81, "nodePort": n + 1}]);
            service["spec"]["ports"] = ports;
            for (field, value) in assigned(n).as_object().unwrap() {
                service["spec"][field] = value.clone();
            }
            service
        };
        let live = service(2, "blue");
        let mut expected = live.clone();
        expected["spec"]["selector"] = json!({"app": "green"});
        let promoted = promoted(&service(1, "green"), &live, &["team".to_owned()]).unwrap();
        assert_eq!(promoted["spec"], expected["spec"]);
        assert_eq!(promoted["metadata"]["labels"], json!({"team": "a"}));
        assert_eq!(promoted["metadata"]["annotations"], json!({"team": "c"}));
        assert_eq!(super::promoted(&service(1, "blue"), &live, &[]), None);
        let Action::Replace(copy) = canary_service(&canary(), &service(1, "green"), Some(&live))
            .unwrap()
            .action
        else {
            panic!("not a replace")
        };
        assert_eq!(copy, expected);
    }

    #[test]
    fn a_copy_of_a_headless_service_is_headless() {
        let mut headless = target("blue");
        headless["spec"]["clusterIP"] = json!("None");
        let copy = copy(&headless, "podinfo-primary", &json!({"uid": "c"}));
        assert_eq!(copy["spec"]["clusterIP"], "None");
        assert_eq!(copy["metadata"]["ownerReferences"], json!([{"uid": "c"}]));
        assert_eq!(
            (&copy["apiVersion"], &copy["kind"]),
            (&json!("v1"), &json!("Service"))
        );
    }

    #[test]
    fn a_refused_copy_has_flaggers_text() {
        let text = |live: Option<&Value>| {
            canary_service(&canary(), &target("blue"), live)
                .unwrap()
                .refusal("no")
        };
        let query = "service podinfo-canary.test query error: no";
        assert_eq!(
            text(None),
            format!("reconcileCanaryService failed: creating {query}")
        );
        assert_eq!(
            text(Some(&json!({"metadata": {}}))),
            format!("reconcileCanaryService failed: updating {query}")
        );
    }
}
