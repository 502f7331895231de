//! The metadata of objects: names, labels, annotations and owners (Flagger: `pkg/router/util.go`, `pkg/canary/util.go`).

use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::{api::canary::Canary, snapshot::Kind};

/// Flux does not change objects with these annotations. Every Service and route of the operator has them.
pub const FLUX: [(&str, &str); 2] = [
    ("helm.toolkit.fluxcd.io/driftDetection", "disabled"),
    ("kustomize.toolkit.fluxcd.io/reconcile", "disabled"),
];

/// The annotation of an adopted object that keeps the object, or the adopted part of it, as the user wrote it (Flagger has it on routes).
pub const ORIGINAL: &str = "flagger.kubernetes.io/original-configuration";

/// The annotation of an adopted route that keeps the labels and annotations which the operator changed there (not in Flagger).
pub const ORIGINAL_METADATA: &str = "flagger-rs.github.io/original-metadata";

/// The annotation in which kubectl keeps the manifest that it applied last.
pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The name under which the API server records the operator as a manager of fields, as with Flagger.
pub const MANAGER: &str = "flagger";

/// The annotation of the primary's template that restarts its pods with each promotion, even if only a config changed.
pub const FLAGGER_ID: &str = "flagger-id";

/// Keys that contain this text belong to Flux and apply to the original object only.
const FLUX_KEY: &str = "toolkit.fluxcd.io";

/// The name of an object. Returns an empty text if it has none.
pub fn name(object: &Value) -> &str {
    text(object, "/metadata/name")
}

/// The namespace of an object. Returns an empty text if it has none.
pub fn namespace(object: &Value) -> &str {
    text(object, "/metadata/namespace")
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// The manifest that kubectl applied last; null if it applied none.
pub fn last_applied(object: &Value) -> Value {
    let annotations = object.pointer("/metadata/annotations");
    let text = annotations.and_then(|annotations| annotations.get(LAST_APPLIED)?.as_str());
    text.and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default()
}

/// The value of the annotation [`ORIGINAL`]; `None` if the object has none of this form.
pub fn original<T: DeserializeOwned>(object: &Value) -> Option<T> {
    let annotations = object.pointer("/metadata/annotations")?;
    serde_json::from_str(annotations.get(ORIGINAL)?.as_str()?).ok()
}

/// The owner reference to a Canary: Kubernetes deletes the object when the Canary is deleted.
pub fn owner_reference(canary: &Canary) -> Value {
    json!({"apiVersion": Kind::Canary.api_version(), "kind": "Canary", "name": canary.metadata.name,
        "uid": canary.metadata.uid, "controller": true, "blockOwnerDeletion": true})
}

/// Whether this Canary controls an object. Compares names, as Flagger does: a Canary that was deleted and created again counts as the same.
/// A `Canary` of another API group is another kind.
pub fn is_owned(object: &Value, canary: &Canary) -> bool {
    owners(object).any(|owner| {
        owner["controller"] == true
            && is_canary(owner)
            && owner.get("name").and_then(Value::as_str) == canary.metadata.name.as_deref()
    })
}

/// The patch that makes an object belong to this Canary, if an owner of the object is an earlier Canary of the same name: the garbage
/// collector compares uids, and would delete the object. `None` if there is no such owner.
pub fn owner_renewal(object: &Value, canary: &Canary) -> Option<Value> {
    let (name, uid) = (
        canary.metadata.name.as_deref(),
        canary.metadata.uid.as_deref()?,
    );
    let of_earlier = |owner: &Value| {
        is_canary(owner)
            && owner.get("name").and_then(Value::as_str) == name
            && owner.get("uid").and_then(Value::as_str) != Some(uid)
    };
    let place = owners(object).position(of_earlier)?;
    let path = format!("/metadata/ownerReferences/{place}/uid");
    let known = owners(object).nth(place)?.get("uid")?;
    Some(json!([
        {"op": "test", "path": path, "value": known},
        {"op": "add", "path": path, "value": uid},
    ]))
}

/// The owners of an object.
pub fn owners(object: &Value) -> impl Iterator<Item = &Value> {
    let owners = object.pointer("/metadata/ownerReferences");
    owners.and_then(Value::as_array).into_iter().flatten()
}

/// Whether an owner is a Canary of Flagger's API.
pub fn is_canary(owner: &Value) -> bool {
    let (group, _) = Kind::Canary.group_version();
    let version = owner.get("apiVersion").and_then(Value::as_str);
    let of_group = |version: &str| version.split('/').next() == Some(group);
    owner["kind"] == Kind::Canary.name() && version.is_none_or(of_group)
}

/// A copy of a map of labels or annotations without the keys of Flux.
pub fn without_flux(map: &Map<String, Value>) -> Map<String, Value> {
    map.iter()
        .filter(|(key, _)| !key.contains(FLUX_KEY))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

/// Adds the annotations that make Flux ignore an object.
pub fn with_flux(mut map: Map<String, Value>) -> Map<String, Value> {
    map.extend(FLUX.map(|(key, value)| (key.to_owned(), json!(value))));
    map
}

/// The labels or annotations that a copy gets: those whose key has one of these prefixes (`*` for all), without the keys of Flux.
pub fn included(map: &Map<String, Value>, prefixes: &[String]) -> Map<String, Value> {
    without_flux(map)
        .into_iter()
        .filter(|(key, _)| is_included(key, prefixes))
        .collect()
}

fn is_included(key: &str, prefixes: &[String]) -> bool {
    prefixes
        .iter()
        .any(|prefix| prefix == "*" || (!prefix.is_empty() && key.starts_with(prefix.as_str())))
}

/// The labels or annotations of a copy that others have put there: keys that the original does not have, and of which no prefix makes a copy.
pub fn of_others(
    copy: &Map<String, Value>,
    original: &Map<String, Value>,
    prefixes: &[String],
) -> Map<String, Value> {
    let entries = copy.clone().into_iter();
    entries
        .filter(|(key, _)| !original.contains_key(key) && !is_included(key, prefixes))
        .collect()
}

/// A map of a Canary's spec as JSON.
pub fn json_map<'a>(map: impl IntoIterator<Item = (&'a String, &'a String)>) -> Map<String, Value> {
    map.into_iter()
        .map(|(key, value)| (key.clone(), json!(value)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_gets_the_keys_with_an_included_prefix() {
        let map =
            json!({"foo": "1", "bar": "2", "lorem": "3", "kustomize.toolkit.fluxcd.io/name": "x"});
        let keys = |prefixes: &[&str]| {
            let prefixes: Vec<_> = prefixes.iter().map(|p| (*p).to_owned()).collect();
            included(map.as_object().unwrap(), &prefixes)
                .keys()
                .cloned()
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(keys(&["foo", "lor"]), "foo lorem");
        assert_eq!(keys(&["*"]), "bar foo lorem");
        assert_eq!(keys(&[""]), "");
    }

    #[test]
    fn a_canary_owns_what_it_controls() {
        let mut canary = Canary::default();
        canary.metadata.name = Some("podinfo".to_owned());
        for (owner, is_ours) in [
            (
                json!({"controller": true, "kind": "Canary", "name": "podinfo", "uid": "of an earlier one"}),
                true,
            ),
            (
                json!({"controller": false, "kind": "Canary", "name": "podinfo"}),
                false,
            ),
            (json!({"kind": "Canary", "name": "podinfo"}), false),
            (
                json!({"controller": true, "kind": "Deployment", "name": "podinfo"}),
                false,
            ),
            (
                json!({"controller": true, "kind": "Canary", "name": "other"}),
                false,
            ),
        ] {
            let object =
                json!({"metadata": {"ownerReferences": [{"kind": "Other", "name": "x"}, owner]}});
            assert_eq!(is_owned(&object, &canary), is_ours, "{owner}");
        }
        assert!(!is_owned(&json!({}), &canary));
    }
}
