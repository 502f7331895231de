//! Routes that the user had before the Canary. The operator adopts them: it changes the fields that are its own, and leaves the labels and
//! annotations of the user beside its own. A deletion with `revertOnDeletion` gives such a route back. (Flagger replaces all labels and
//! annotations, and gives back the spec of a VirtualService only, or what it wrote there itself: `pkg/router/istio.go`.)
//!
//! Two annotations, written with the adoption, keep what the operator changes. [`ORIGINAL`] has the spec, in Flagger's form, so that
//! Flagger can give it back, too. [`ORIGINAL_METADATA`] has the labels and annotations. The operator writes them again only for a change
//! that counts as the user's: another manifest that kubectl has applied since then, fields of the spec that a server-side apply has set, or
//! a label or annotation that a manager other than the operator has set.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::route::{applied_spec, full_object, metadata};
use crate::{
    api::canary::Canary,
    snapshot::{Action, ObjectRef, Snapshot, Write, revision::digest},
    workload::metadata::{
        FLUX, LAST_APPLIED, MANAGER, ORIGINAL, ORIGINAL_METADATA, is_owned, last_applied, original,
    },
};

/// The most bytes that a spec and kubectl's manifest may have together, to be kept in annotations. The API server accepts 256 KiB of them.
/// A longer spec is not kept, because the manifest has the same information.
const ROOM: usize = 200_000;

/// The values that labels and annotations had before the operator changed them; null for those that were not there.
#[derive(Default, Deserialize, Serialize)]
struct Before {
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    labels: Map<String, Value>,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    annotations: Map<String, Value>,
    /// A digest of the manifest that kubectl had applied when [`ORIGINAL`] was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    applied: Option<String>,
}

/// The writes of a router. On objects that the Canary does not own, they keep the users' labels and annotations. Writes that then change
/// nothing are left out. `objects` are those of the router.
pub fn kept(snapshot: &Snapshot, objects: &BTreeSet<ObjectRef>, writes: Vec<Write>) -> Vec<Write> {
    let writes = writes.into_iter();
    let kept = |mut write: Write| {
        let live = snapshot.objects.get(&write.object);
        if let (Action::Replace(wanted), Some(live)) = (&mut write.action, live)
            && !is_operators(snapshot, objects, &write.object, live)
            && !adopt(&snapshot.canary, objects, live, wanted)
        {
            return None;
        }
        Some(write)
    };
    writes.filter_map(kept).collect()
}

/// Whether a route is the operator's own. An object of the whole cluster cannot have a Canary as its owner. It is the operator's own if its
/// spec names our Services or, in case others have changed the spec, if it has the annotations with which the operator creates it.
fn is_operators(
    snapshot: &Snapshot,
    objects: &BTreeSet<ObjectRef>,
    object: &ObjectRef,
    live: &Value,
) -> bool {
    let canary = &snapshot.canary;
    let annotations = metadata(live, "annotations");
    let is_created = || FLUX.iter().all(|(key, _)| annotations.contains_key(*key));
    let leads_to_us = || names_ours(canary, objects, &live["spec"]);
    let is_of_cluster = object.kind.is_cluster_scoped() && Before::of(live).is_none();
    is_owned(live, canary) || (is_of_cluster && (is_created() || leads_to_us()))
}

/// Puts the user's labels and annotations into `wanted`, together with the former values. Returns whether `wanted` changes the route.
fn adopt(canary: &Canary, objects: &BTreeSet<ObjectRef>, live: &Value, wanted: &mut Value) -> bool {
    let ours = |spec: &Value| names_ours(canary, objects, spec);
    let mut before = Before::of(live).unwrap_or_else(|| {
        // The route leads to our Services and has no record, so Flagger has adopted it.
        if ours(&live["spec"]) {
            Before::flagger(live)
        } else {
            Before::default()
        }
    });
    let labels = merged(live, wanted, "labels", &mut before.labels);
    let mut annotations = merged(live, wanted, "annotations", &mut before.annotations);
    let is_same = metadata(live, "labels") == labels
        && metadata(live, "annotations") == annotations
        && wanted["spec"] == live["spec"];
    if is_same {
        return false;
    }
    let is_kept = original::<Value>(live).is_some_and(|spec| !ours(&spec))
        && !before.is_outdated(live)
        && !is_applied(live, &wanted["spec"]);
    let spec = live["spec"].to_string();
    let applied = annotations.get(LAST_APPLIED).and_then(Value::as_str);
    let fits = applied.is_none_or(|applied| applied.len() + spec.len() < ROOM);
    if !is_kept && wanted["spec"] != live["spec"] && !ours(&live["spec"]) && fits {
        annotations.insert(ORIGINAL.to_owned(), json!(spec));
        before.applied = applied_digest(live);
    }
    let text = serde_json::to_string(&before).unwrap_or_default();
    annotations.insert(ORIGINAL_METADATA.to_owned(), json!(text));
    set(wanted, "labels", labels);
    set(wanted, "annotations", annotations);
    true
}

/// The user's labels or annotations, together with those of the router. A key that the router no longer writes gets its former value again.
fn merged(
    live: &Value,
    wanted: &Value,
    field: &str,
    before: &mut Map<String, Value>,
) -> Map<String, Value> {
    let (now, ours) = (metadata(live, field), metadata(wanted, field));
    let mut all = now.clone();
    before.retain(|key, former| {
        if !ours.contains_key(key) {
            put(&mut all, key, former);
        }
        ours.contains_key(key)
    });
    for (key, value) in ours {
        let former = now.get(&key);
        let is_users = !before.contains_key(&key) || is_set_by_others(live, field, &key);
        if former != Some(&value) && is_users {
            before.insert(key.clone(), former.cloned().unwrap_or_default());
        }
        all.insert(key, value);
    }
    all
}

/// The object as its user had it before the Canary; `None` if the Canary owns it, or if its former spec is not known. `leads_to_us` returns
/// whether an object leads requests to the Services of the Canary.
pub fn before(
    live: &Value,
    canary: &Canary,
    leads_to_us: impl Fn(&Value) -> bool,
) -> Option<Value> {
    if is_owned(live, canary) {
        return None;
    }
    let is_users = |spec: &Value| spec.is_object() && !leads_to_us(&json!({"spec": spec}));
    let kept = original::<Value>(live).filter(is_users);
    let applied = applied_spec(live).filter(is_users);
    let before = Before::of(live);
    let is_outdated = before.as_ref().is_none_or(|it| it.is_outdated(live));
    let spec = match (kept, applied) {
        (Some(kept), _) if !leads_to_us(live) && is_applied(live, &kept) => live["spec"].clone(),
        (Some(kept), Some(applied)) if is_outdated && leads_to_us(live) => {
            completed(applied, &kept, live)
        }
        (Some(_), Some(_)) if is_outdated => live["spec"].clone(),
        (Some(kept), _) => kept,
        (None, _) if before.is_some() && !leads_to_us(live) => live["spec"].clone(),
        (None, Some(applied)) if leads_to_us(live) => applied,
        (None, _) => return None,
    };
    let mut object = live.clone();
    object["spec"] = spec;
    let before = before.unwrap_or_else(|| Before::flagger(live));
    for (field, former) in [
        ("labels", before.labels),
        ("annotations", before.annotations),
    ] {
        let mut all = metadata(live, field);
        for (key, value) in former {
            if !is_set_by_others(live, field, &key) {
                put(&mut all, &key, &value);
            }
        }
        if field == "annotations" {
            all.retain(|key, _| key != ORIGINAL && key != ORIGINAL_METADATA);
        }
        set(&mut object, field, all);
    }
    Some(object)
}

/// The write that restores the first object that the operator adopted and that is not restored yet; `None` if there is none.
pub fn given_back(snapshot: &Snapshot, objects: &BTreeSet<ObjectRef>) -> Option<Write> {
    let canary = &snapshot.canary;
    let leads_to_us = |object: &Value| names_ours(canary, objects, &object["spec"]);
    objects.iter().find_map(|name| {
        let live = snapshot.objects.get(name)?;
        Before::of(live)?;
        let mut before = before(live, canary, leads_to_us)?;
        // The user has changed the route since then, and it leads elsewhere. This spec stays.
        let is_route = name.name == canary.apex_name() && !is_of_app_mesh(name);
        if is_route && !leads_to_us(live) {
            before["spec"] = live["spec"].clone();
        }
        Some(Write {
            object: name.clone(),
            action: Action::Replace(before),
            failure: format!("{} update error: ", full_object(name)),
        })
    })
}

/// Whether an object belongs to App Mesh. A VirtualService of App Mesh leads to the VirtualRouter of the Canary, and so never to the
/// Services.
fn is_of_app_mesh(object: &ObjectRef) -> bool {
    object.kind.api_version().starts_with("appmesh")
}

impl Before {
    fn of(live: &Value) -> Option<Self> {
        let annotations = metadata(live, "annotations");
        serde_json::from_str(annotations.get(ORIGINAL_METADATA)?.as_str()?).ok()
    }

    /// The labels and annotations before Flagger adopted the route, as far as kubectl's manifest shows them.
    fn flagger(live: &Value) -> Self {
        let applied = last_applied(live);
        let mut annotations = Map::from_iter(FLUX.map(|(key, _)| (key.to_owned(), Value::Null)));
        annotations.extend(metadata(&applied, "annotations"));
        Self {
            labels: metadata(&applied, "labels"),
            annotations,
            applied: None,
        }
    }

    /// Whether kubectl has applied another manifest since the spec was kept.
    fn is_outdated(&self, live: &Value) -> bool {
        applied_digest(live).is_some_and(|now| self.applied.as_ref() != Some(&now))
    }
}

/// Whether a server-side apply was the last to set a field in which the spec of an object differs from another one.
fn is_applied(live: &Value, other: &Value) -> bool {
    others_fields(live, "spec").any(|(operation, fields)| {
        let mut names = fields.keys().filter_map(|field| field.strip_prefix("f:"));
        operation == "Apply" && names.any(|field| live["spec"].get(field) != other.get(field))
    })
}

/// Whether a manager other than the operator was the last to set a label or an annotation.
fn is_set_by_others(live: &Value, field: &str, key: &str) -> bool {
    others_fields(live, "metadata").any(|(_, fields)| {
        let keys = fields.get(&format!("f:{field}"));
        keys.is_some_and(|keys| keys.get(format!("f:{key}")).is_some())
    })
}

/// The fields of the spec, or of the metadata, that each manager but the operator was the last to set, with its operation.
fn others_fields<'a>(
    live: &'a Value,
    part: &str,
) -> impl Iterator<Item = (&'a str, &'a Map<String, Value>)> {
    let entries = live.pointer("/metadata/managedFields");
    let entries = entries.and_then(Value::as_array).into_iter().flatten();
    let pointer = format!("/fieldsV1/f:{part}");
    entries.filter_map(move |entry| {
        let fields = entry.pointer(&pointer)?.as_object()?;
        (entry["manager"] != MANAGER).then_some((entry["operation"].as_str()?, fields))
    })
}

fn applied_digest(live: &Value) -> Option<String> {
    let annotations = metadata(live, "annotations");
    Some(digest(annotations.get(LAST_APPLIED)?.as_str()?, 8))
}

/// The spec that kubectl applied, with those live fields that it lacks and that the operator has not changed.
fn completed(mut applied: Value, kept: &Value, live: &Value) -> Value {
    for (field, value) in live["spec"].as_object().into_iter().flatten() {
        if applied.get(field).is_none() && kept.get(field) == Some(value) {
            applied[field] = value.clone();
        }
    }
    applied
}

/// Whether a spec names the Service of the primary or of the canary, or an object that the router makes for one of them.
fn names_ours(canary: &Canary, objects: &BTreeSet<ObjectRef>, spec: &Value) -> bool {
    let services = [canary.primary_name(), canary.canary_name()];
    let namespace = canary.metadata.namespace.as_deref().unwrap_or_default();
    let is_ours = |text: &str| {
        let of = |service: &String| {
            let rest = text.strip_prefix(service.as_str());
            let rest = rest.map(|rest| rest.strip_prefix(&format!(".{namespace}")).unwrap_or(rest));
            let kuma = format!("_{namespace}_svc_");
            rest.is_some_and(|rest| {
                rest.is_empty() || rest.starts_with(".svc") || rest.starts_with(&kuma)
            })
        };
        let made = |object: &ObjectRef| {
            object.name == text && services.iter().any(|service| text.contains(service))
        };
        services.iter().any(of) || objects.iter().any(made)
    };
    has_reference(spec, ["", ""], &is_ours)
}

/// Whether a reference in a value meets a condition. `at` has the names of the two fields around the value.
fn has_reference(value: &Value, at: [&str; 2], meets: &impl Fn(&str) -> bool) -> bool {
    match value {
        Value::String(text) => is_reference(at) && meets(text),
        Value::Array(items) => items.iter().any(|item| has_reference(item, at, meets)),
        Value::Object(fields) => {
            let mut fields = fields.iter();
            fields.any(|(field, value)| has_reference(value, [at[1], field], meets))
        }
        _ => false,
    }
}

/// Whether the objects of a router name a Service, or an object that stands for one, in this field. A header, a path or the name of a rule
/// may be the same text.
pub(super) fn is_reference([parent, field]: [&str; 2]) -> bool {
    match field {
        "host" | "hostName" | "hostname" | "kuma.io/service" | "service" | "serviceName"
        | "virtualNodeName" | "virtualServiceName" => true,
        "name" => matches!(
            parent,
            "backendRef"
                | "backendRefs"
                | "mirroring"
                | "mirrors"
                | "service"
                | "services"
                | "upstream"
                | "virtualNodeRef"
                | "virtualServiceRef"
        ),
        _ => false,
    }
}

/// Sets a key to a value, or removes it for null.
fn put(map: &mut Map<String, Value>, key: &str, value: &Value) {
    match value {
        Value::Null => drop(map.remove(key)),
        value => drop(map.insert(key.to_owned(), value.clone())),
    }
}

/// Sets the labels or annotations of an object. An empty map is left out, as by the API server.
fn set(object: &mut Value, field: &str, map: Map<String, Value>) {
    match object["metadata"].as_object_mut() {
        Some(metadata) if map.is_empty() => drop(metadata.remove(field)),
        _ => object["metadata"][field] = Value::Object(map),
    }
}
