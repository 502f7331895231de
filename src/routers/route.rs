//! The objects that hold routes, as JSON: how the routers name, build, change and read them.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::RouteError;
use crate::{
    api::canary::Canary,
    snapshot::{Action, Kind, ObjectRef, Snapshot, Write},
    workload::{
        metadata::{LAST_APPLIED, is_owned, json_map, last_applied, owner_reference, with_flux},
        ports::{self, Port},
        service::unmanaged,
    },
};

/// The reference to an object in the canary's namespace, or to one that is in none.
pub fn reference(canary: &Canary, kind: Kind, name: &str) -> ObjectRef {
    let namespace = canary.metadata.namespace.as_deref();
    kind.reference(namespace.unwrap_or_default(), name)
}

/// A new object that the Canary owns, so that it is deleted with the Canary. Empty labels and annotations are left out.
pub fn new_object(
    snapshot: &Snapshot,
    kind: Kind,
    name: &str,
    [labels, annotations]: [Map<String, Value>; 2],
    spec: Value,
) -> Value {
    let mut metadata = json!({"name": name, "namespace": snapshot.namespace(), "ownerReferences": [owner_reference(&snapshot.canary)]});
    for (field, map) in [("labels", labels), ("annotations", annotations)] {
        if !map.is_empty() {
            metadata[field] = Value::Object(map);
        }
    }
    json!({"apiVersion": kind.api_version(), "kind": kind.name(), "metadata": metadata, "spec": spec})
}

/// A write of the route that has the apex' name. The event about a refused write begins with the route's kind and name.
pub fn route_write(snapshot: &Snapshot, kind: Kind, action: Action, failure: &str) -> Write {
    Write {
        object: snapshot.reference(kind, snapshot.canary.apex_name()),
        action,
        failure: format!("{} {failure}", full_name(snapshot, kind)),
    }
}

/// The write that creates the route that has the apex' name.
pub fn create_route(
    snapshot: &Snapshot,
    kind: Kind,
    metadata: [Map<String, Value>; 2],
    spec: Value,
) -> Write {
    let name = snapshot.canary.apex_name();
    let object = new_object(snapshot, kind, name, metadata, spec);
    route_write(snapshot, kind, Action::Create(object), "create error: ")
}

/// Kind, name and namespace of the route that has the apex' name, for messages.
pub fn full_name(snapshot: &Snapshot, kind: Kind) -> String {
    full_object(&snapshot.reference(kind, snapshot.canary.apex_name()))
}

/// Kind, name and namespace of an object, for messages.
pub fn full_object(object: &ObjectRef) -> String {
    format!("{} {}", object.kind.name(), object.full_name())
}

/// The ports of the Services beside the first.
pub fn further_ports(snapshot: &Snapshot) -> Vec<Port> {
    let target = snapshot.target();
    let template = target.and_then(|target| target.pointer("/spec/template"));
    template.map_or(Vec::new(), |template| {
        ports::discovered(&snapshot.canary, template)
    })
}

/// The error for an object that does not exist. `route` and `failure` are Flagger's words for it.
pub fn not_found(route: String, failure: &'static str, kind: Kind, name: &str) -> RouteError {
    let (group, _) = kind.group_version();
    RouteError::NotFound {
        route,
        failure,
        object: format!("{}.{group} {name:?}", kind.plural()),
    }
}

/// The error for a route that does not lead to the canary's Services.
pub fn no_routes(snapshot: &Snapshot, kind: Kind) -> RouteError {
    RouteError::NoRoutes {
        route: full_name(snapshot, kind),
        primary: snapshot.canary.primary_name(),
        canary: snapshot.canary.canary_name(),
    }
}

/// The spec that kubectl applied last; `None` if kubectl did not apply the object.
pub fn applied_spec(object: &Value) -> Option<Value> {
    last_applied(object).get("spec").cloned()
}

/// The object in a field of `object`. If the field holds anything else, it becomes an empty object.
pub fn object_mut<'a>(object: &'a mut Value, field: &str) -> &'a mut Value {
    if !object[field].is_object() {
        object[field] = json!({});
    }
    &mut object[field]
}

/// Puts the fields `ours` into the spec of an object. A field that `spec` lacks is removed; other fields stay.
pub fn put_fields(object: &mut Value, mut spec: Map<String, Value>, ours: &[&str]) {
    let Some(theirs) = object_mut(object, "spec").as_object_mut() else {
        return;
    };
    for field in ours {
        match spec.remove(*field) {
            Some(value) => drop(theirs.insert((*field).to_owned(), value)),
            None => drop(theirs.remove(*field)),
        }
    }
}

/// The entries of a map, sorted by name. They are written in this order. (Flagger's order is random, and it then takes it for drift.)
pub fn by_name(map: Option<&Value>) -> BTreeMap<&String, &Value> {
    let map = map.and_then(Value::as_object);
    map.into_iter().flatten().collect()
}

/// The text of a field; `None` if the field is empty or missing.
pub fn text<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    let text = value.get(key)?.as_str()?;
    (!text.is_empty()).then_some(text)
}

/// The items of a list; none if there is no list.
pub fn items<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    let list = value.pointer(pointer).and_then(Value::as_array);
    list.into_iter().flatten()
}

/// Whether a route of Gateway API leads requests.
pub fn has_parents(route: &Value) -> bool {
    items(route, "/spec/parentRefs").next().is_some()
}

/// Labels and annotations of a route: those of the apex Service. If `spec.service.apex` is set, the selector label is among them, and so
/// is the Service's unmanaged metadata, because Flagger writes both objects from one map.
pub fn apex_metadata(
    snapshot: &Snapshot,
    selector: &(String, String),
) -> (Map<String, Value>, Map<String, Value>) {
    let canary = &snapshot.canary;
    let Some(apex) = &canary.spec.service.apex else {
        return (Map::new(), with_flux(Map::new()));
    };
    let others = |field| {
        let live = snapshot.object(Kind::Service, canary.apex_name());
        live.filter(|live| is_owned(live, canary))
            .map(|live| unmanaged(canary, live, field))
            .unwrap_or_default()
    };
    let mut labels = json_map(apex.labels.iter().flatten());
    // A target that is a Service has no pods, so there is no selector label.
    if !selector.0.is_empty() {
        labels.insert(selector.0.clone(), json!(canary.apex_name()));
    }
    labels.extend(others("labels"));
    let mut annotations = json_map(apex.annotations.iter().flatten());
    annotations.extend(others("annotations"));
    (labels, with_flux(annotations))
}

/// A route that exists with the labels and annotations of the apex Service; `None` if it has them and its own part has not drifted.
pub fn marked(
    snapshot: &Snapshot,
    selector: &(String, String),
    live: &Value,
    has_drifted: bool,
) -> Option<Value> {
    let (labels, annotations) = kept_metadata(snapshot, selector, live);
    let is_marked =
        metadata(live, "labels") == labels && metadata(live, "annotations") == annotations;
    if is_marked && !has_drifted {
        return None;
    }
    let mut wanted = live.clone();
    wanted["metadata"]["labels"] = Value::Object(labels);
    wanted["metadata"]["annotations"] = Value::Object(annotations);
    Some(wanted)
}

/// Labels and annotations of a route that exists: those of the apex Service, and the annotation of kubectl, which a deletion needs.
fn kept_metadata(
    snapshot: &Snapshot,
    selector: &(String, String),
    live: &Value,
) -> (Map<String, Value>, Map<String, Value>) {
    let (labels, mut annotations) = apex_metadata(snapshot, selector);
    if let Some(applied) = metadata(live, "annotations").remove(LAST_APPLIED) {
        annotations.insert(LAST_APPLIED.to_owned(), applied);
    }
    (labels, annotations)
}

/// Leads the rules of a route to the primary, whatever else is in them: a rollback works although the Canary asks for rules that the router
/// cannot express. `destinations` is the field of a rule that has its destinations, `name` leads to the Service of one.
pub fn withdraw(rules: Option<&mut Value>, canary: &Canary, [destinations, name]: [&str; 2]) {
    let rules = rules.and_then(Value::as_array_mut);
    for rule in rules.into_iter().flatten() {
        withdraw_from(rule.get_mut(destinations), canary, name);
    }
}

/// Leads the destinations of one rule to the primary.
pub fn withdraw_from(destinations: Option<&mut Value>, canary: &Canary, name: &str) {
    let (primary, version) = (canary.primary_name(), canary.canary_name());
    let destinations = destinations.and_then(Value::as_array_mut);
    for destination in destinations.into_iter().flatten() {
        let service = destination.pointer(name).and_then(Value::as_str);
        if service == Some(&primary) {
            destination["weight"] = json!(100);
        } else if service == Some(&version) {
            destination["weight"] = json!(0);
        }
    }
}

/// The labels or annotations of an object.
pub fn metadata(object: &Value, field: &str) -> Map<String, Value> {
    let map = object.pointer(&format!("/metadata/{field}"));
    map.and_then(Value::as_object).cloned().unwrap_or_default()
}

/// The weight of a destination; 0 if it has none.
pub fn part(weight: Option<&Value>) -> u64 {
    weight.and_then(Value::as_u64).unwrap_or(0)
}

/// The weight of a destination, between 0 and 100.
pub fn percent(weight: Option<&Value>) -> u8 {
    u8::try_from(part(weight).min(100)).unwrap_or(100)
}
