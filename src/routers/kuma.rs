//! Kuma: one TrafficRoute (Flagger: `pkg/router/kuma.go`), an object of the whole cluster.
//!
//! `spec.sources`, `spec.destinations` and `spec.conf.split` are ours. Other fields stay as they are. The mesh is written at creation.
//!
//! An object of the cluster cannot have a Canary as its owner. A TrafficRoute belongs to the canary if it is about the canary's apex
//! Service. The operator refuses one of the same name that is about another Service. The TrafficRoute stays when the Canary is deleted.
//! With `revertOnDeletion`, it then leads to the apex Service, or has its user's former spec. Without `revertOnDeletion`, it leads to a
//! primary that is gone, as with Flagger.
//!
//! The split is of the requests to the first port of the apex Service. `spec.service.match` is not used.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::{
    RouteError, Router, adoption,
    conditions::refuse_test,
    route::{
        apex_metadata, full_name, further_ports, items, marked, new_object, no_routes, not_found,
        object_mut, percent, reference, route_write,
    },
};
use crate::{
    api::{canary::Canary, percent::Percent},
    snapshot::{Action, Kind, ObjectRef, Snapshot, Weights, Write},
    workload::ports::Port,
};

const KIND: Kind = Kind::TrafficRoute;
/// The annotation of a Canary that names its mesh.
const MESH: &str = "kuma.io/mesh";
/// The tag by which Kuma knows a port of a Service.
const TAG: &str = "kuma.io/service";

/// The router of Kuma.
#[derive(Clone, Copy, Debug)]
pub struct Kuma;

impl Router for Kuma {
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
            return Ok(vec![create(snapshot, selector, weights)]);
        };
        is_about_the_apex(snapshot, live)?;
        let drifted = routed(canary, live).is_none_or(|now| !has_weights(canary, live, &now));
        let Some(mut wanted) = marked(snapshot, selector, live, drifted) else {
            return Ok(Vec::new());
        };
        if drifted {
            put(canary, &mut wanted, split(canary, weights));
        }
        Ok(vec![replace(snapshot, wanted)])
    }

    fn current_weights(&self, snapshot: &Snapshot) -> Result<Weights, RouteError> {
        let live = live(snapshot).ok_or_else(|| missing(snapshot))?;
        routed(&snapshot.canary, live).ok_or_else(|| no_routes(snapshot, KIND))
    }

    fn set_weights(
        &self,
        snapshot: &Snapshot,
        weights: &Weights,
    ) -> Result<Vec<Write>, RouteError> {
        let canary = &snapshot.canary;
        let live = live(snapshot).ok_or_else(|| missing(snapshot))?;
        is_about_the_apex(snapshot, live)?;
        if has_weights(canary, live, weights) {
            return Ok(Vec::new());
        }
        let mut wanted = live.clone();
        put(canary, &mut wanted, split(canary, weights));
        Ok(vec![replace(snapshot, wanted)])
    }

    /// The operator does not restore a TrafficRoute that is about another Service.
    fn restore(&self, snapshot: &Snapshot) -> Option<Write> {
        is_about_the_apex(snapshot, live(snapshot)?).ok()?;
        let given_back = || adoption::given_back(snapshot, &self.objects(&snapshot.canary));
        self.reverted(snapshot).or_else(given_back)
    }

    fn unsplit_ports(&self, snapshot: &Snapshot) -> Vec<Port> {
        further_ports(snapshot)
    }

    /// The TrafficRoute gets the spec, labels and annotations back that it had before the Canary. If its former spec is not known, it leads
    /// to the apex Service. (Flagger leaves it leading to a primary that is deleted.)
    fn reverted(&self, snapshot: &Snapshot) -> Option<Write> {
        let canary = &snapshot.canary;
        let live = live(snapshot)?;
        is_about_the_apex(snapshot, live).ok()?;
        routed(canary, live)?;
        let mut wanted = live.clone();
        match adoption::before(live, canary, |route| routed(canary, route).is_some()) {
            Some(before) => wanted = before,
            None => put(
                canary,
                &mut wanted,
                vec![share(canary, canary.apex_name(), Percent::ALL)],
            ),
        }
        Some(replace(snapshot, wanted))
    }
}

fn create(snapshot: &Snapshot, selector: &(String, String), weights: &Weights) -> Write {
    let canary = &snapshot.canary;
    let (labels, annotations) = apex_metadata(snapshot, selector);
    let metadata = [labels, annotations];
    let mut object = new_object(snapshot, KIND, canary.apex_name(), metadata, json!({}));
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.remove("namespace");
        metadata.remove("ownerReferences");
    }
    put(canary, &mut object, split(canary, weights));
    let mesh = canary.metadata.annotations.as_ref();
    let mesh = mesh.and_then(|annotations| annotations.get(MESH));
    object["mesh"] = json!(mesh.map_or("default", String::as_str));
    route_write(snapshot, KIND, Action::Create(object), "create error: ")
}

/// The write that replaces the TrafficRoute.
fn replace(snapshot: &Snapshot, wanted: Value) -> Write {
    route_write(snapshot, KIND, Action::Replace(wanted), "update error: ")
}

fn live(snapshot: &Snapshot) -> Option<&Value> {
    snapshot.object(KIND, snapshot.canary.apex_name())
}

fn missing(snapshot: &Snapshot) -> RouteError {
    let name = snapshot.canary.apex_name();
    not_found(full_name(snapshot, KIND), "get query error:", KIND, name)
}

/// The tag of a Service's ports, without the number.
fn prefix(canary: &Canary, service: &str) -> String {
    let namespace = canary.metadata.namespace.as_deref().unwrap_or_default();
    format!("{service}_{namespace}_svc_")
}

/// The tag of a Service's first port.
fn tag(canary: &Canary, service: &str) -> String {
    let port = canary.spec.service.port;
    format!("{}{port}", prefix(canary, service))
}

/// Refuses a TrafficRoute that is about the Service of another namespace or name. (Flagger takes it over.)
fn is_about_the_apex(snapshot: &Snapshot, live: &Value) -> Result<(), RouteError> {
    let own = prefix(&snapshot.canary, snapshot.canary.apex_name());
    let mut others = items(live, "/spec/destinations").filter_map(|to| to["match"][TAG].as_str());
    match others.find(|tag| !tag.starts_with(&own)) {
        Some(other) => Err(RouteError::InvalidCanary(format!(
            "{}, an object of the whole cluster, exists already for {other}: delete it, or give this canary another spec.service.name",
            full_name(snapshot, KIND)
        ))),
        None => Ok(()),
    }
}

/// Puts our part into a TrafficRoute.
fn put(canary: &Canary, object: &mut Value, split: Vec<Value>) {
    let spec = object_mut(object, "spec");
    for (field, value) in matches(canary) {
        spec[field] = value;
    }
    object_mut(spec, "conf")["split"] = Value::Array(split);
}

/// The requests that are split: those of all to the apex Service.
fn matches(canary: &Canary) -> Map<String, Value> {
    let of = |tag: &str| json!([{"match": {TAG: tag}}]);
    let apex = of(&tag(canary, canary.apex_name()));
    [("sources", of("*")), ("destinations", apex)]
        .map(|(field, value)| (field.to_owned(), value))
        .into_iter()
        .collect()
}

fn split(canary: &Canary, weights: &Weights) -> Vec<Value> {
    vec![
        share(canary, &canary.primary_name(), weights.primary),
        share(canary, &canary.canary_name(), weights.canary),
    ]
}

fn share(canary: &Canary, service: &str, weight: Percent) -> Value {
    json!({"weight": weight, "destination": {TAG: tag(canary, service)}})
}

/// Whether our part of a TrafficRoute is correct for these weights.
fn has_weights(canary: &Canary, live: &Value, weights: &Weights) -> bool {
    let (split, matches) = (split(canary, weights), matches(canary));
    let mut fields = matches.iter();
    items(live, "/spec/conf/split").eq(&split)
        && fields.all(|(field, value)| live["spec"].get(field) == Some(value))
}

/// The weights of a TrafficRoute; `None` if it does not lead to our Services.
fn routed(canary: &Canary, live: &Value) -> Option<Weights> {
    let weight = |service: &str| {
        let own = prefix(canary, service);
        let is_own = |to: &&Value| {
            let tag = to["destination"][TAG].as_str();
            tag.is_some_and(|tag| tag.starts_with(&own))
        };
        let to = items(live, "/spec/conf/split").find(is_own);
        to.map_or(0, |to| percent(to.get("weight")))
    };
    let (primary, version) = (
        weight(&canary.primary_name()),
        weight(&canary.canary_name()),
    );
    Weights::of_percents(primary, version)
}

#[cfg(test)]
mod tests;
