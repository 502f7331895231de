//! A manifest, and the write that applies it.

use serde_json::{Map, Value, json};

use crate::{
    snapshot::{Action, Kind, ObjectRef, Write},
    workload::metadata::last_applied,
};

/// The group whose objects have the same fields in all versions.
const ISTIO: &str = "networking.istio.io";

/// The kind of an object, if the operator knows it. A manifest of Istio may be of another version than the operator reads.
pub fn kind(object: &Value) -> Option<Kind> {
    let version = object["apiVersion"].as_str()?;
    let is_istio = version.split('/').next() == Some(ISTIO);
    let mut kinds = Kind::ALL.iter().copied();
    kinds.find(|kind| {
        let is_same = version == kind.api_version() || is_istio && kind.group_version().0 == ISTIO;
        is_same && object["kind"] == kind.name()
    })
}

/// The write that applies a manifest to an object. A Canary gets the spec of the manifest as it is. Of other objects, fields that the
/// manifest does not name stay as they are: replicas belong to an autoscaler or to the operator, and addresses to the API server.
pub fn write(object: &ObjectRef, live: Option<&Value>, manifest: &Value) -> Write {
    let mut manifest = manifest.clone();
    if let Some(fields) = manifest.as_object_mut() {
        fields.remove("status");
        fields.insert("apiVersion".to_owned(), json!(object.kind.api_version()));
        let metadata = fields.entry("metadata").or_insert_with(|| json!({}));
        if !object.kind.is_cluster_scoped() {
            metadata["namespace"] = json!(object.namespace);
        }
    }
    let action = match live {
        None => Action::Create(manifest),
        Some(live) => Action::Patch(patch(object.kind, live, &manifest)),
    };
    Write {
        object: object.clone(),
        action,
        failure: String::new(),
    }
}

/// Removes the fields that the last manifest had and this one has not, as `kubectl apply` does.
fn remove_dropped(live: &mut Value, last: &Value, manifest: &Value) {
    let (Some(live), Some(last), Some(manifest)) =
        (live.as_object_mut(), last.as_object(), manifest.as_object())
    else {
        return;
    };
    for (key, last) in last {
        match (live.get_mut(key), manifest.get(key)) {
            (Some(live), Some(manifest)) => remove_dropped(live, last, manifest),
            (Some(_), None) => drop(live.remove(key)),
            (None, _) => {}
        }
    }
}

fn patch(kind: Kind, live: &Value, manifest: &Value) -> Value {
    let applied = last_applied(live);
    let version = &live["metadata"]["resourceVersion"];
    let mut patch =
        vec![json!({"op": "test", "path": "/metadata/resourceVersion", "value": version})];
    let mut add =
        |path: String, value: Value| patch.push(json!({"op": "add", "path": path, "value": value}));
    for field in ["labels", "annotations"] {
        if let Some(own) = manifest["metadata"][field].as_object() {
            let known = live["metadata"][field]
                .as_object()
                .cloned()
                .unwrap_or_default();
            let all: Map<_, _> = known.into_iter().chain(own.clone()).collect();
            add(format!("/metadata/{field}"), Value::Object(all));
        }
    }
    let fields = manifest.as_object().into_iter().flatten();
    let fields =
        fields.filter(|(field, _)| !["apiVersion", "kind", "metadata"].contains(&field.as_str()));
    for (field, value) in fields {
        let value = if kind == Kind::Canary {
            value.clone()
        } else {
            let mut merged = live.get(field).cloned().unwrap_or_default();
            remove_dropped(&mut merged, &applied[field], value);
            json_patch::merge(&mut merged, value);
            merged
        };
        add(
            format!("/{}", field.replace('~', "~0").replace('/', "~1")),
            value,
        );
    }
    Value::Array(patch)
}
