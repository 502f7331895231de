//! Traefik: one TraefikService (Flagger: `pkg/router/traefik.go`), which an IngressRoute of the user names.
//!
//! `spec.weighted.services` is ours. Other fields stay as they are, and so do those of its entries that are not ours, like `scheme`.
//!
//! The entries lead to the first port of the Services. The user's IngressRoute decides which requests reach them: `spec.service.match` is
//! not used.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{
    RouteError, Router, adoption,
    conditions::refuse_test,
    route::{
        apex_metadata, create_route, full_name, items, marked, not_found, object_mut, part,
        reference, route_write,
    },
};
use crate::{
    api::canary::Canary,
    snapshot::{Action, Kind, ObjectRef, Snapshot, Weights, Write},
};

const KIND: Kind = Kind::TraefikService;

/// The router of Traefik.
#[derive(Clone, Copy, Debug)]
pub struct Traefik;

impl Router for Traefik {
    fn objects(&self, canary: &Canary) -> BTreeSet<ObjectRef> {
        [reference(canary, KIND, canary.apex_name())].into()
    }

    fn repairs(
        &self,
        snapshot: &Snapshot,
        selector: &(String, String),
        weights: &Weights,
    ) -> Result<Vec<Write>, RouteError> {
        let canary = &snapshot.canary;
        refuse_test(canary, &full_name(snapshot, KIND))?;
        let Some(live) = live(snapshot) else {
            let (labels, annotations) = apex_metadata(snapshot, selector);
            let spec = json!({"weighted": {"services": services(canary, weights, &Value::Null)}});
            let metadata = [labels, annotations];
            return Ok(vec![create_route(snapshot, KIND, metadata, spec)]);
        };
        let drifted = routed(canary, live).is_none_or(|now| !has_weights(canary, live, &now));
        let Some(mut wanted) = marked(snapshot, selector, live, drifted) else {
            return Ok(Vec::new());
        };
        if drifted {
            put(&mut wanted, services(canary, weights, live));
        }
        Ok(vec![replace(snapshot, wanted)])
    }

    fn current_weights(&self, snapshot: &Snapshot) -> Result<Weights, RouteError> {
        let live = live(snapshot).ok_or_else(|| missing(snapshot))?;
        let none =
            || RouteError::NoWeights(format!("{} services not found", full_name(snapshot, KIND)));
        routed(&snapshot.canary, live).ok_or_else(none)
    }

    fn set_weights(
        &self,
        snapshot: &Snapshot,
        weights: &Weights,
    ) -> Result<Vec<Write>, RouteError> {
        let canary = &snapshot.canary;
        let live = live(snapshot).ok_or_else(|| missing(snapshot))?;
        if has_weights(canary, live, weights) {
            return Ok(Vec::new());
        }
        let mut wanted = live.clone();
        put(&mut wanted, services(canary, weights, live));
        Ok(vec![replace(snapshot, wanted)])
    }

    fn splits_tenths(&self) -> bool {
        true
    }

    /// The TraefikService gets the spec, labels and annotations back that it had before the Canary. If the Canary owns it, or if its former
    /// spec is not known, it leads to the apex Service. (Flagger leaves it leading to a primary that is deleted.)
    fn reverted(&self, snapshot: &Snapshot) -> Option<Write> {
        let canary = &snapshot.canary;
        let live = live(snapshot)?;
        routed(canary, live)?;
        let mut wanted = live.clone();
        match adoption::before(live, canary, |route| routed(canary, route).is_some()) {
            Some(before) => wanted = before,
            None => {
                let to_apex = service(canary, canary.apex_name(), 100, live);
                put(&mut wanted, vec![to_apex]);
            }
        }
        Some(replace(snapshot, wanted))
    }
}

/// The write that replaces the TraefikService.
fn replace(snapshot: &Snapshot, wanted: Value) -> Write {
    route_write(snapshot, KIND, Action::Replace(wanted), "update error: ")
}

fn live(snapshot: &Snapshot) -> Option<&Value> {
    snapshot.object(KIND, snapshot.canary.apex_name())
}

fn missing(snapshot: &Snapshot) -> RouteError {
    let full = full_name(snapshot, KIND);
    not_found(full, "get query error:", KIND, snapshot.canary.apex_name())
}

/// Puts our part into a TraefikService.
fn put(object: &mut Value, services: Vec<Value>) {
    let weighted = object_mut(object_mut(object, "spec"), "weighted");
    weighted["services"] = Value::Array(services);
}

/// Whether our part of a TraefikService is correct for these weights.
fn has_weights(canary: &Canary, live: &Value, weights: &Weights) -> bool {
    let wanted = services(canary, weights, live);
    items(live, "/spec/weighted/services").eq(&wanted)
}

/// The entries for these weights. An entry without a share is left out, like Flagger's, but that of the primary stays, with the weight 0.
/// (Flagger leaves this weight out, and Traefik takes it for 1.)
fn services(canary: &Canary, weights: &Weights, live: &Value) -> Vec<Value> {
    let [to_primary, to_canary] = weights.parts();
    let primary = service(canary, &canary.primary_name(), to_primary, live);
    let version = service(canary, &canary.canary_name(), to_canary, live);
    let version = (to_canary > 0).then_some(version);
    [Some(primary), version].into_iter().flatten().collect()
}

/// An entry, with the fields of others that the TraefikService has for the primary, or had for the apex Service before the Canary.
fn service(canary: &Canary, name: &str, weight: u16, live: &Value) -> Value {
    let before = [canary.primary_name().as_str(), canary.apex_name()]
        .into_iter()
        .find_map(|name| entry(canary, live, name)?.as_object());
    let mut entry = before.cloned().unwrap_or_default();
    entry.insert("name".to_owned(), json!(name));
    entry.insert("namespace".to_owned(), json!(canary.metadata.namespace));
    entry.insert("port".to_owned(), json!(canary.spec.service.port));
    entry.insert("weight".to_owned(), json!(weight));
    Value::Object(entry)
}

/// The entry of a Service in the canary's namespace.
fn entry<'a>(canary: &Canary, live: &'a Value, name: &str) -> Option<&'a Value> {
    let own = json!(canary.metadata.namespace);
    items(live, "/spec/weighted/services").find(|entry| {
        let is_service = entry.get("kind").is_none_or(|kind| kind == "Service");
        let is_own = entry
            .get("namespace")
            .is_none_or(|namespace| *namespace == own);
        entry["name"] == name && is_service && is_own
    })
}

/// The weights of a TraefikService; `None` if it does not lead to the primary.
fn routed(canary: &Canary, live: &Value) -> Option<Weights> {
    let weight = |name: &str| Some(part(entry(canary, live, name)?.get("weight")));
    let primary = weight(&canary.primary_name())?;
    let version = weight(&canary.canary_name()).unwrap_or(0);
    Weights::of_parts([primary, version])
}

#[cfg(test)]
mod tests;
