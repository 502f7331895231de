//! Gloo: one RouteTable, and an Upstream for each side (Flagger: `pkg/router/gloo.go`). A VirtualService of the user delegates to the
//! RouteTable.
//!
//! `spec.routes` of the RouteTable is ours. Of the Upstreams, the Service is ours, and so are the settings that come from the Upstream in
//! `spec.upstreamRef`, which is only read. Other fields stay as they are.
//!
//! The Upstreams lead to the first port of the Services. The user's VirtualService decides which requests reach the RouteTable:
//! `spec.service.match` is not used.

mod routes;
mod upstreams;

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::{
    RouteError, Router, adoption,
    route::{
        apex_metadata, create_route, full_name, items, marked, not_found, put_fields, reference,
        route_write,
    },
};
use crate::{
    api::canary::Canary,
    snapshot::{Action, Kind, ObjectRef, Snapshot, Weights, Write},
    workload::ownership::Ownership,
};
use routes::{has_routes, routed, spec, to_apex, withdraw};

const KIND: Kind = Kind::GlooRouteTable;

/// The field of a RouteTable that is ours.
const OURS: [&str; 1] = ["routes"];

/// The router of Gloo.
#[derive(Clone, Copy, Debug)]
pub struct Gloo;

impl Router for Gloo {
    fn objects(&self, canary: &Canary) -> BTreeSet<ObjectRef> {
        let upstreams = upstreams::Side::BOTH.map(|side| side.upstream(canary));
        let upstreams = upstreams.map(|name| reference(canary, Kind::GlooUpstream, &name));
        let table = reference(canary, KIND, canary.apex_name());
        upstreams.into_iter().chain([table]).collect()
    }

    /// The Upstream with the settings.
    fn sources(&self, snapshot: &Snapshot) -> BTreeSet<ObjectRef> {
        upstreams::source(snapshot).into_iter().collect()
    }

    fn repairs(
        &self,
        snapshot: &Snapshot,
        selector: &(String, String),
        weights: &Weights,
    ) -> Result<Vec<Write>, RouteError> {
        let spec = spec(&snapshot.canary, weights)?;
        let mut writes = upstreams::writes(snapshot, selector)?;
        writes.extend(table_write(snapshot, selector, spec));
        Ok(writes)
    }

    /// The weights of the first route. The one after it is for requests outside an A/B test.
    fn current_weights(&self, snapshot: &Snapshot) -> Result<Weights, RouteError> {
        let live = live(snapshot)?;
        let full = full_name(snapshot, KIND);
        let none = || RouteError::NoWeights(format!("{full} destinations not found"));
        routed(&snapshot.canary, live).ok_or_else(none)
    }

    fn set_weights(
        &self,
        snapshot: &Snapshot,
        weights: &Weights,
    ) -> Result<Vec<Write>, RouteError> {
        let live = live(snapshot)?;
        let canary = &snapshot.canary;
        let mut wanted = live.clone();
        match spec(canary, weights) {
            Ok(spec) => put_fields(&mut wanted, spec, &OURS),
            Err(_) if *weights == Weights::PRIMARY => withdraw(canary, &mut wanted),
            Err(why) => return Err(why),
        }
        if wanted == *live {
            return Ok(Vec::new());
        }
        Ok(vec![replace(snapshot, wanted)])
    }

    /// The RouteTable gets the spec, labels and annotations back that it had before the Canary. If the Canary owns it, or if its former
    /// spec is not known, it leads to the apex Service. (Flagger leaves it leading to a primary that is deleted.)
    fn reverted(&self, snapshot: &Snapshot) -> Option<Write> {
        let canary = &snapshot.canary;
        let live = live(snapshot).ok()?;
        routed(canary, live)?;
        let mut wanted = live.clone();
        match adoption::before(live, canary, |route| routed(canary, route).is_some()) {
            Some(before) => wanted = before,
            None => wanted["spec"]["routes"] = json!([to_apex(canary)]),
        }
        Some(replace(snapshot, wanted))
    }

    /// The routes of a RouteTable of the user, unless they lead to the apex Service and nowhere else.
    fn loses(&self, snapshot: &Snapshot) -> Option<(ObjectRef, &'static str)> {
        let canary = &snapshot.canary;
        let live = live(snapshot).ok()?;
        let is_ours =
            Ownership::of(live, canary) == Ownership::Own || routed(canary, live).is_some();
        let apex = to_apex(canary);
        let is_kept = items(live, "/spec/routes").all(|route| *route == apex);
        let table = snapshot.reference(KIND, canary.apex_name());
        (!is_ours && !is_kept).then_some((table, "routes"))
    }
}

/// The write that creates or repairs the RouteTable; `None` if it is correct for the weights that it has.
fn table_write(
    snapshot: &Snapshot,
    selector: &(String, String),
    spec: Map<String, Value>,
) -> Option<Write> {
    let canary = &snapshot.canary;
    let Ok(live) = live(snapshot) else {
        let (labels, annotations) = apex_metadata(snapshot, selector);
        let spec = Value::Object(spec);
        return Some(create_route(snapshot, KIND, [labels, annotations], spec));
    };
    let drifted = routed(canary, live).is_none_or(|now| !has_routes(canary, live, &now));
    let mut wanted = marked(snapshot, selector, live, drifted)?;
    if drifted {
        put_fields(&mut wanted, spec, &OURS);
    }
    Some(replace(snapshot, wanted))
}

/// The write that replaces the RouteTable.
fn replace(snapshot: &Snapshot, wanted: Value) -> Write {
    route_write(snapshot, KIND, Action::Replace(wanted), "update error: ")
}

fn live(snapshot: &Snapshot) -> Result<&Value, RouteError> {
    let apex = snapshot.canary.apex_name();
    let missing = || not_found(full_name(snapshot, KIND), "get query error:", KIND, apex);
    snapshot.object(KIND, apex).ok_or_else(missing)
}

#[cfg(test)]
mod tests;
