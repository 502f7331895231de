//! Labels, annotations and owners of the objects that we make (`pkg/router/util.go`, `pkg/canary/util.go`).

use serde_json::{Map, Value, json};

use crate::{api::canary::Canary, snapshot::Kind};

/// Flux leaves objects with these annotations alone; every Service and route of ours has them.
const FLUX: [(&str, &str); 2] = [
    ("helm.toolkit.fluxcd.io/driftDetection", "disabled"),
    ("kustomize.toolkit.fluxcd.io/reconcile", "disabled"),
];

/// Keys that contain this are Flux' own and say nothing about a copy.
const FLUX_KEY: &str = "toolkit.fluxcd.io";

/// The reference by which an object goes when the Canary goes.
pub fn owner_reference(canary: &Canary) -> Value {
    json!({"apiVersion": Kind::Canary.api_version(), "kind": "Canary", "name": canary.metadata.name,
        "uid": canary.metadata.uid, "controller": true, "blockOwnerDeletion": true})
}

/// Whether an object is controlled by this Canary (by name, as in Flagger: a Canary that was deleted and made anew is the same).
pub fn is_owned(object: &Value, canary: &Canary) -> bool {
    let owners = object["metadata"]["ownerReferences"].as_array();
    owners.into_iter().flatten().any(|owner| {
        owner["controller"] == true
            && owner["kind"] == "Canary"
            && owner.get("name").and_then(Value::as_str) == canary.metadata.name.as_deref()
    })
}

/// A map without what Flux put into it.
pub fn without_flux(map: &Map<String, Value>) -> Map<String, Value> {
    map.iter()
        .filter(|(key, _)| !key.contains(FLUX_KEY))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

/// A map with the annotations that keep Flux away.
pub fn with_flux(mut map: Map<String, Value>) -> Map<String, Value> {
    map.extend(FLUX.map(|(key, value)| (key.to_owned(), json!(value))));
    map
}

/// What of a map goes along to a copy: keys with one of these prefixes, `*` for all; never Flux' own.
pub fn included(map: &Map<String, Value>, prefixes: &[String]) -> Map<String, Value> {
    let wanted = |key: &str| {
        prefixes
            .iter()
            .any(|prefix| prefix == "*" || (!prefix.is_empty() && key.starts_with(prefix.as_str())))
    };
    without_flux(map)
        .into_iter()
        .filter(|(key, _)| wanted(key))
        .collect()
}

/// A user's map as JSON.
pub fn json_map<'a>(map: impl IntoIterator<Item = (&'a String, &'a String)>) -> Map<String, Value> {
    map.into_iter()
        .map(|(key, value)| (key.clone(), json!(value)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_decide_what_goes_along() {
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
}
