//! The second Ingress, which some routers put beside the user's: its name, its errors and its writes.
//!
//! The user's Ingress is only read.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    RouteError,
    route::{items, not_found, reference},
};
use crate::{
    api::canary::Canary,
    snapshot::{Action, Kind, ObjectRef, Snapshot, Write},
};

/// The kind of both.
pub const KIND: Kind = Kind::Ingress;

/// The user's Ingress and ours.
pub fn objects(canary: &Canary) -> BTreeSet<ObjectRef> {
    let names = source_name(canary).map(|name| [name.to_owned(), canary_ingress(name)]);
    let names = names.into_iter().flatten();
    names.map(|name| reference(canary, KIND, &name)).collect()
}

/// The name of the user's Ingress.
pub fn source_name(canary: &Canary) -> Option<&str> {
    let name = canary.spec.ingress_ref.as_ref()?.name.as_str();
    (!name.is_empty()).then_some(name)
}

/// The user's Ingress, and the name of ours. `noun` is Flagger's word for the user's, which the error begins with.
pub fn source<'a>(snapshot: &'a Snapshot, noun: &str) -> Result<(&'a Value, String), RouteError> {
    let name = source_name(&snapshot.canary).ok_or_else(unnamed)?;
    let source = snapshot.object(KIND, name);
    let source = source.ok_or_else(|| missing(snapshot, noun, name))?;
    Ok((source, canary_ingress(name)))
}

/// The error for a Canary that names no Ingress.
pub fn unnamed() -> RouteError {
    RouteError::InvalidCanary("ingress selector is empty".to_owned())
}

/// The name of our Ingress.
pub fn canary_ingress(source: &str) -> String {
    format!("{source}-canary")
}

/// The error for an Ingress that does not exist.
pub fn missing(snapshot: &Snapshot, noun: &str, name: &str) -> RouteError {
    let route = format!("{noun} {name}.{}", snapshot.namespace());
    not_found(route, "get query error:", KIND, name)
}

/// The error for a user's Ingress without a path to the apex Service.
pub fn no_backend(canary: &Canary) -> RouteError {
    let name = source_name(canary).unwrap_or_default();
    let apex = canary.apex_name();
    RouteError::InvalidCanary(format!("backend {apex} not found in ingress {name}"))
}

/// The write that creates our Ingress.
pub fn create(snapshot: &Snapshot, name: &str, object: Value) -> Write {
    write(snapshot, name, Action::Create(object), "create error: ")
}

/// The write that replaces our Ingress.
pub fn replace(snapshot: &Snapshot, name: &str, wanted: Value) -> Write {
    write(snapshot, name, Action::Replace(wanted), "update error: ")
}

fn write(snapshot: &Snapshot, name: &str, action: Action, failure: &str) -> Write {
    Write {
        object: snapshot.reference(KIND, name),
        action,
        failure: format!("ingress {name}.{} {failure}", snapshot.namespace()),
    }
}

/// Whether a path of an Ingress leads to a Service.
pub fn leads_to(ingress: &Value, service: &str) -> bool {
    let mut paths = items(ingress, "/spec/rules").flat_map(|rule| items(rule, "/http/paths"));
    paths.any(|path| is_to(path, service))
}

/// Whether this path leads to a Service.
pub fn is_to(path: &Value, service: &str) -> bool {
    path.pointer(BACKEND).is_some_and(|name| *name == service)
}

/// The JSON pointer to the name of the Service in a path of an Ingress.
pub const BACKEND: &str = "/backend/service/name";

/// The lists of paths of all rules in the spec of an Ingress.
pub fn paths_mut(spec: &mut Value) -> impl Iterator<Item = &mut Vec<Value>> {
    let rules = spec.get_mut("rules").and_then(Value::as_array_mut);
    rules.into_iter().flatten().filter_map(paths_of)
}

fn paths_of(rule: &mut Value) -> Option<&mut Vec<Value>> {
    rule.pointer_mut("/http/paths")?.as_array_mut()
}
