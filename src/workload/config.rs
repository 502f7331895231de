//! The configs of a pod template: the `ConfigMap`s and `Secret`s that it refers to, their checksums, and the primary's copies.
//!
//! A changed config is a new version, like a changed template. The primary must not get it before the analysis, so the primary's
//! template refers to [`copies`] (Flagger: `pkg/canary/config_tracker.go`).

pub mod copies;
mod previous;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{metadata::FLAGGER_ID, ownership::ADOPT};
use crate::snapshot::{Kind, go, revision::digest};

/// The annotation that excludes a `ConfigMap` or `Secret` from tracking if its value begins with `disable`.
const TRACKING: &str = "flagger.app/config-tracking";

/// The field of a hashed config that contains its checksum.
const HASHED: &str = "checksum";

/// The lists of containers whose references are tracked.
const CONTAINERS: [&str; 2] = ["containers", "initContainers"];

/// A `ConfigMap` or `Secret` by its kind and name.
pub type ConfigName = (Kind, String);

/// The configs that a template refers to, and for each whether it is optional: whether the pod starts without it.
/// If a template refers to a config more than once, the last reference decides, as in Flagger.
pub fn references(template: &Value) -> BTreeMap<ConfigName, bool> {
    let mut found = BTreeMap::new();
    visit(&mut referring(template), &mut |kind, name, optional| {
        found.insert((kind, name.clone()), optional);
    });
    found
}

/// The parts of a template that can contain references, so that a search need not copy the complete template.
fn referring(template: &Value) -> Value {
    let mut spec = Map::new();
    let list = |of: &Value, name: &str| of.get(name).filter(|list| list.is_array()).cloned();
    let full = template.get("spec").unwrap_or(&Value::Null);
    spec.extend(list(full, "volumes").map(|volumes| ("volumes".to_owned(), volumes)));
    for name in CONTAINERS {
        let containers = full
            .get(name)
            .and_then(Value::as_array)
            .into_iter()
            .flatten();
        let parts = containers.map(|container| {
            let parts = ["env", "envFrom"].into_iter();
            let parts = parts.filter_map(|part| Some((part.to_owned(), list(container, part)?)));
            Value::Object(parts.collect())
        });
        spec.insert(name.to_owned(), parts.collect());
    }
    json!({"spec": spec})
}

/// Makes a template refer to the primary's copies of the tracked configs. `tracked` has the name of each copy.
pub fn with_primary_names(mut template: Value, tracked: &BTreeMap<ConfigName, String>) -> Value {
    visit(&mut template, &mut |kind, name, _| {
        if let Some(copy) = tracked.get(&(kind, name.clone())) {
            name.clone_from(copy);
        }
    });
    template
}

/// The usual name of the primary's copy of a config, which is Flagger's.
pub fn copy_name(name: &str) -> String {
    format!("{name}-primary")
}

/// The name to which the primary refers in place of an optional config that does not exist. If the config is created later, the primary
/// gets its content with the promotion of the version that was analysed with it. (Flagger leaves the reference as it is.)
pub fn absent_name(name: &str, target: &str) -> String {
    format!("{}-{target}-absent", copy_name(name))
}

/// Whether a change of this config is a new version: not if its annotation disables the tracking, and not for Secrets of Kubernetes'
/// own types.
pub fn is_tracked(object: &Value) -> bool {
    let disabled = object
        .pointer("/metadata/annotations")
        .and_then(|annotations| annotations.get(TRACKING))
        .and_then(Value::as_str)
        .is_some_and(|value| value.starts_with("disable"));
    let type_is_tracked = object
        .get("type")
        .and_then(Value::as_str)
        .is_none_or(|kind| {
            matches!(
                kind,
                "Opaque"
                    | "kubernetes.io/basic-auth"
                    | "kubernetes.io/ssh-auth"
                    | "kubernetes.io/tls"
            )
        });
    !disabled && type_is_tracked
}

/// The key of a config in `status.trackedConfigs`: `configmap/NAME` or `secret/NAME`.
pub fn status_key(kind: Kind, name: &str) -> String {
    format!("{}/{name}", kind.name().to_lowercase())
}

/// The part of a config that the cache keeps in memory: the checksum in place of the content, and the fields that [`is_tracked`],
/// [`copies`] and `previous` read.
pub fn hashed(object: &Value) -> Value {
    let metadata = |field: &str| object.pointer(&format!("/metadata/{field}")).cloned();
    let mut kept = Map::new();
    for field in [
        "name",
        "namespace",
        "uid",
        "resourceVersion",
        "ownerReferences",
    ] {
        kept.extend(metadata(field).map(|value| (field.to_owned(), value)));
    }
    if let Some(Value::Object(mut annotations)) = metadata("annotations") {
        annotations.retain(|key, _| [TRACKING, ADOPT, FLAGGER_ID].contains(&key.as_str()));
        if !annotations.is_empty() {
            kept.insert("annotations".to_owned(), Value::Object(annotations));
        }
    }
    let mut hashed =
        json!({"metadata": kept, "type": object.get("type"), HASHED: checksum(object)});
    if let Some(immutable) = object.get("immutable") {
        hashed["immutable"] = immutable.clone();
    }
    hashed
}

/// Whether a config has its content, and is not only the [`hashed`] part of it.
pub fn is_complete(object: &Value) -> bool {
    object.get(HASHED).is_none()
}

/// The checksum in `status.trackedConfigs`: of `data` in Go's encoding, and of `binaryData` if there is any. (Flagger ignores
/// `binaryData`. For a config without it, the checksums are the same.)
pub fn checksum(object: &Value) -> String {
    if let Some(known) = object.get(HASHED).and_then(Value::as_str) {
        return known.to_owned();
    }
    let mut text = go::escaped(&object.get("data").unwrap_or(&Value::Null).to_string());
    if let Some(binary) = object.get("binaryData") {
        text += &go::escaped(&binary.to_string());
    }
    digest(&text, 8)
}

/// Calls `f` with the kind, the name and the `optional` field of each reference, in Flagger's order.
fn visit(template: &mut Value, f: &mut impl FnMut(Kind, &mut String, bool)) {
    let Some(spec) = template.get_mut("spec") else {
        return;
    };
    for volume in items(spec, "volumes") {
        reference(volume, "configMap", "name", Kind::ConfigMap, f);
        reference(volume, "secret", "secretName", Kind::Secret, f);
        let Some(projected) = volume.get_mut("projected") else {
            continue;
        };
        for source in items(projected, "sources") {
            reference(source, "configMap", "name", Kind::ConfigMap, f);
            reference(source, "secret", "name", Kind::Secret, f);
        }
    }
    for list in CONTAINERS {
        for container in items(spec, list) {
            for variable in items(container, "env") {
                let Some(from) = variable.get_mut("valueFrom") else {
                    continue;
                };
                reference(from, "configMapKeyRef", "name", Kind::ConfigMap, f);
                reference(from, "secretKeyRef", "name", Kind::Secret, f);
            }
            for from in items(container, "envFrom") {
                reference(from, "configMapRef", "name", Kind::ConfigMap, f);
                reference(from, "secretRef", "name", Kind::Secret, f);
            }
        }
    }
}

fn items<'a>(value: &'a mut Value, list: &str) -> impl Iterator<Item = &'a mut Value> {
    value
        .get_mut(list)
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
}

fn reference(
    holder: &mut Value,
    field: &str,
    name: &str,
    kind: Kind,
    f: &mut impl FnMut(Kind, &mut String, bool),
) {
    let Some(reference) = holder.get_mut(field) else {
        return;
    };
    let optional = reference
        .get("optional")
        .and_then(Value::as_bool)
        .unwrap_or(false);
    if let Some(Value::String(name)) = reference.get_mut(name) {
        f(kind, name, optional);
    }
}

#[cfg(test)]
mod tests;
