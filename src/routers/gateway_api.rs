//! Gateway API: one HTTPRoute (Flagger: `pkg/router/gateway_api.go`, `gateway_api_v1beta1.go`), or a GRPCRoute in its place (`grpc.rs`).
//!
//! `spec.rules`, `spec.parentRefs` and `spec.hostnames` are ours. Other fields stay as they are, and so do the labels and annotations of a
//! route that the user made.
//!
//! The route is for the first port of the Services. Requests of a mesh to further ports (`portDiscovery`) are not routed: they reach the
//! primary through the apex Service, and an event names these ports.

mod adoption;
mod defaults;
mod filters;
mod grpc;
mod matches;
mod rules;
mod switch;
mod version;

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::{
    RouteError, Router,
    adoption::{before, kept},
    affinity::{self, Cookies},
    route::{
        apex_metadata, applied_spec, full_name, further_ports, items, metadata, new_object,
        no_routes, not_found, part, put_fields, reference, route_write, text,
    },
};
use crate::{
    api::{canary::Canary, percent::Percent},
    snapshot::{
        Action, Kind, ObjectRef, Snapshot, Weights, Write,
        route_references::{self, Named},
    },
    workload::{metadata::is_owned, ownership::Ownership, ports::Port},
};
use defaults::defaulted;
pub use version::GatewayApi;

/// The fields of a spec that are ours.
const OURS: [&str; 3] = ["parentRefs", "hostnames", "rules"];

impl Router for GatewayApi {
    fn objects(&self, canary: &Canary) -> BTreeSet<ObjectRef> {
        let kinds = [self.kind(canary)]
            .into_iter()
            .chain(self.former_kind(canary));
        kinds
            .map(|kind| reference(canary, kind, canary.apex_name()))
            .collect()
    }

    fn has_grpc_route(&self, snapshot: &Snapshot) -> bool {
        self.kind(&snapshot.canary) == Kind::GrpcRoute || self.former(snapshot).is_some()
    }

    /// The former route goes last, when the new one is correct. It is the user's again then, so none of its labels and annotations are kept.
    fn reconcile(
        &self,
        snapshot: &Snapshot,
        selector: &(String, String),
        weights: &Weights,
    ) -> Result<Vec<Write>, RouteError> {
        let writes = self.repairs(snapshot, selector, weights)?;
        let objects = self.objects(&snapshot.canary);
        let writes = kept(snapshot, &objects, writes);
        if !writes.is_empty() || self.leads_former_to_canary(snapshot).is_some() {
            return Ok(writes);
        }
        Ok(self.retired(snapshot).into_iter().collect())
    }

    fn repairs(
        &self,
        snapshot: &Snapshot,
        selector: &(String, String),
        weights: &Weights,
    ) -> Result<Vec<Write>, RouteError> {
        let canary = &snapshot.canary;
        let spec = self.spec(snapshot, weights)?;
        if self.leads_former_to_canary(snapshot).is_some() {
            // The only pods that are ready keep the requests.
            let keeps = !snapshot.primary_has_ready_pods() && snapshot.canary_has_ready_pods();
            let withdrawn = self.former_withdrawn(snapshot).filter(|_| !keeps);
            return Ok(withdrawn.into_iter().collect());
        }
        let (labels, annotations) = apex_metadata(snapshot, selector);
        let Some(live) = self.live(snapshot) else {
            let spec = Value::Object(spec);
            let metadata = [labels, annotations];
            let object = new_object(
                snapshot,
                self.kind(canary),
                canary.apex_name(),
                metadata,
                spec,
            );
            let action = Action::Create(object);
            return Ok(vec![self.write(snapshot, action, "create error: ")]);
        };
        let live_annotations = metadata(live, "annotations");
        let mut all_annotations = live_annotations.clone();
        all_annotations.extend(annotations);
        let drifted = !self.is_correct(snapshot, live)?;
        if !drifted && metadata(live, "labels") == labels && live_annotations == all_annotations {
            return Ok(Vec::new());
        }
        let mut wanted = live.clone();
        wanted["metadata"]["labels"] = Value::Object(labels);
        wanted["metadata"]["annotations"] = Value::Object(all_annotations);
        if drifted {
            put_fields(&mut wanted, spec, &OURS);
        }
        let action = Action::Replace(wanted);
        let failure = "update error: … while reconciling";
        Ok(vec![self.write(snapshot, action, failure)])
    }

    /// The weights of the last rule that leads to both sides. The rules before it are for clients with a cookie. (Flagger reads 0 and 0
    /// from a route that leads elsewhere.)
    fn current_weights(&self, snapshot: &Snapshot) -> Result<Weights, RouteError> {
        if let Some(weights) = self.leads_former_to_canary(snapshot) {
            return Ok(weights);
        }
        match self.live(snapshot) {
            Some(live) => routed(&snapshot.canary, live)
                .ok_or_else(|| no_routes(snapshot, self.kind(&snapshot.canary))),
            None if self.former(snapshot).is_some() => Ok(Weights::PRIMARY),
            None => Err(self.missing(snapshot)),
        }
    }

    fn set_weights(
        &self,
        snapshot: &Snapshot,
        weights: &Weights,
    ) -> Result<Vec<Write>, RouteError> {
        // The former route is withdrawn before the canary gets more by the new one.
        if weights.canary > Percent::ZERO && self.leads_former_to_canary(snapshot).is_some() {
            return Ok(Vec::new());
        }
        let former = self.former(snapshot);
        let mut writes = Vec::from_iter(self.former_withdrawn(snapshot));
        let Some(live) = self.live(snapshot) else {
            let is_done = former.is_some() && weights.canary == Percent::ZERO;
            return is_done
                .then_some(writes)
                .ok_or_else(|| self.missing(snapshot));
        };
        let mut wanted = live.clone();
        match self.spec(snapshot, weights) {
            Ok(_) if self.has_weights(snapshot, live, weights)? => return Ok(writes),
            Ok(spec) => put_fields(&mut wanted, spec, &OURS),
            Err(_) if *weights == Weights::PRIMARY => {
                rules::withdraw_canary(&snapshot.canary, &mut wanted);
            }
            Err(why) => return Err(why),
        }
        if wanted != *live {
            let action = Action::Replace(wanted);
            let failure = "update error: … while setting weights";
            writes.push(self.write(snapshot, action, failure));
        }
        Ok(writes)
    }

    fn reverted(&self, snapshot: &Snapshot) -> Option<Write> {
        let former = self.former(snapshot).map(|former| former.kind);
        let mut kinds = [self.kind(&snapshot.canary)].into_iter().chain(former);
        kinds.find_map(|kind| back(snapshot, kind))
    }

    /// A route that leads to our Services is adopted already.
    fn loses(&self, snapshot: &Snapshot) -> Option<(ObjectRef, &'static str)> {
        let canary = &snapshot.canary;
        let is_new = |live: &&Value| {
            routed(canary, live).is_none() && Ownership::of(live, canary) != Ownership::Own
        };
        let live = self.live(snapshot).filter(is_new)?;
        let wanted = self.spec(snapshot, &Weights::PRIMARY).ok()?;
        let field = adoption::lost(canary, live, &wanted)?;
        let route = reference(canary, self.kind(canary), canary.apex_name());
        Some((route, field))
    }

    fn named(&self, _snapshot: &Snapshot) -> &'static [Named] {
        &[Named::Parents, Named::Mirrors]
    }

    fn mirrors(&self) -> bool {
        true
    }

    fn splits_tenths(&self) -> bool {
        true
    }

    /// A route has one port. Requests through a gateway to further ports do not use this route.
    fn unsplit_ports(&self, snapshot: &Snapshot) -> Vec<Port> {
        let mut parents = snapshot.canary.spec.service.gateway_refs.iter().flatten();
        if parents.any(is_service) {
            further_ports(snapshot)
        } else {
            Vec::new()
        }
    }

    /// Checks that all gateways have accepted the route as it is now. Flagger's v1beta1 does not check.
    fn accepted(&self, snapshot: &Snapshot) -> Result<(), RouteError> {
        if let Some(former) = self.former(snapshot) {
            return Err(former.leads(snapshot));
        }
        let refusal = self.refusal(
            snapshot,
            self.kind(&snapshot.canary),
            |status, is_current| status != "True" || !is_current,
        );
        refusal.map_or(Ok(()), Err)
    }

    /// Until a gateway has processed the last change, it sends requests to the former destinations of the route. The pods there must stay.
    fn lag(&self, snapshot: &Snapshot) -> Option<RouteError> {
        let former = self.former(snapshot).map(|former| former.kind);
        let mut kinds = former.into_iter().chain([self.kind(&snapshot.canary)]);
        kinds.find_map(|kind| self.refusal(snapshot, kind, |_, is_current| !is_current))
    }

    fn new_cookies(&self, canary: &Canary, nonce: u64) -> Option<Cookies> {
        affinity::new_cookies(canary, self.sides(), nonce)
    }
}

impl GatewayApi {
    /// The route that exists.
    fn live(self, snapshot: &Snapshot) -> Option<&Value> {
        snapshot.object(self.kind(&snapshot.canary), snapshot.canary.apex_name())
    }

    /// The first condition of a gateway that is a refusal: by its status, and by whether it is about the route as it is now.
    fn refusal(
        self,
        snapshot: &Snapshot,
        kind: Kind,
        is_refusal: impl Fn(&str, bool) -> bool,
    ) -> Option<RouteError> {
        let live = snapshot.object(kind, snapshot.canary.apex_name());
        let live = live.filter(|_| self == Self::V1)?;
        let generation = live.pointer("/metadata/generation").and_then(Value::as_i64);
        let generation = generation.unwrap_or(0);
        let parents = items(live, "/spec/parentRefs");
        for parent in parents.map(|parent| defaulted("parentRefs", parent)) {
            let same = |status: &&Value| {
                let named = status.get("parentRef");
                named.map(|named| defaulted("parentRefs", named)).as_ref() == Some(&parent)
            };
            let conditions = items(live, "/status/parents")
                .filter(same)
                .flat_map(|status| items(status, "/conditions"))
                .filter(|condition| condition["type"] == "Accepted");
            for condition in conditions {
                let status = condition["status"].as_str().unwrap_or_default();
                let observed = condition["observedGeneration"].as_i64().unwrap_or(0);
                if is_refusal(status, observed >= generation) {
                    return Some(RouteError::NotAccepted(format!(
                        "{} parent {} is not ready (status: {status}, observed generation: {observed}, current generation: {generation}){}",
                        full_name(snapshot, kind),
                        parent["name"].as_str().unwrap_or_default(),
                        reason(condition)
                    )));
                }
            }
        }
        None
    }

    fn missing(self, snapshot: &Snapshot) -> RouteError {
        let full = full_name(snapshot, self.kind(&snapshot.canary));
        let name = snapshot.canary.apex_name();
        not_found(full, "get error:", self.kind(&snapshot.canary), name)
    }

    fn write(self, snapshot: &Snapshot, action: Action, failure: &str) -> Write {
        route_write(snapshot, self.kind(&snapshot.canary), action, failure)
    }

    /// The part of the spec that is ours.
    fn spec(
        self,
        snapshot: &Snapshot,
        weights: &Weights,
    ) -> Result<Map<String, Value>, RouteError> {
        let canary = &snapshot.canary;
        route_references::routes(snapshot, self.named(snapshot))?;
        let service = &canary.spec.service;
        let parents = service.gateway_refs.as_deref().unwrap_or_default();
        if parents.is_empty() {
            return Err(RouteError::InvalidCanary(
                "GatewayRefs must be specified when using Gateway API as a provider.".to_owned(),
            ));
        }
        let keys = ["group", "kind", "namespace", "name", "sectionName", "port"];
        let pinned = (!further_ports(snapshot).is_empty()).then_some(service.port);
        let parent = |parent: &Value| -> Value {
            let field = |key: &str| Some((key.to_owned(), parent.get(key)?.clone()));
            let fields = keys.iter().filter_map(|key| field(key));
            let fields: Map<_, _> = fields.filter(|(_, value)| !value.is_null()).collect();
            at_first_port(Value::Object(fields), pinned)
        };
        let mut spec = Map::new();
        spec.insert(
            "parentRefs".to_owned(),
            parents.iter().map(parent).collect(),
        );
        if let Some(hosts) = service.hosts.as_ref().filter(|hosts| !hosts.is_empty()) {
            spec.insert("hostnames".to_owned(), json!(hosts));
        }
        let rules = rules::candidates(self, canary, weights)?;
        let rules = rules.into_iter().next().unwrap_or_default();
        spec.insert("rules".to_owned(), Value::Array(rules));
        Ok(spec)
    }

    /// Whether our part of the live spec is correct for any weights.
    fn is_correct(self, snapshot: &Snapshot, live: &Value) -> Result<bool, RouteError> {
        match routed(&snapshot.canary, live) {
            Some(weights) => self.has_weights(snapshot, live, &weights),
            None => Ok(false),
        }
    }

    /// Whether our part of the live spec is correct for these weights. The API server's defaults make no difference.
    fn has_weights(
        self,
        snapshot: &Snapshot,
        live: &Value,
        weights: &Weights,
    ) -> Result<bool, RouteError> {
        let wanted = self.spec(snapshot, weights)?;
        let of = |spec: Option<&Value>, field: &str| {
            let list = spec.and_then(|spec| spec.get(field));
            defaulted(field, list.unwrap_or(&json!([])))
        };
        let live = live.get("spec");
        let wanted = Value::Object(wanted);
        let same = |field: &&str| of(live, field) == of(Some(&wanted), field);
        if !["parentRefs", "hostnames"].iter().all(same) {
            return Ok(false);
        }
        let rules = of(live, "rules");
        let candidates = rules::candidates(self, &snapshot.canary, weights)?;
        Ok(candidates
            .into_iter()
            .any(|candidate| defaulted("rules", &Value::Array(candidate)) == rules))
    }
}

/// The write that gives a route back. It gets the spec, labels and annotations that it had before the Canary. If the Canary owns it, or
/// if its former spec is not known, it leads to the apex Service. (Flagger leaves it leading to a primary that is deleted.)
fn back(snapshot: &Snapshot, kind: Kind) -> Option<Write> {
    let canary = &snapshot.canary;
    let live = snapshot.object(kind, canary.apex_name())?;
    let mut wanted = live.clone();
    let leads_to_us = |route: &Value| routed(canary, route).is_some();
    match before(live, canary, leads_to_us) {
        Some(before) => wanted = before,
        None if !is_owned(live, canary) && (!leads_to_us(live) || is_applied(live)) => {
            return None;
        }
        None => {
            let rules = wanted.pointer_mut("/spec/rules")?.as_array_mut()?;
            for rule in rules.iter_mut().filter_map(Value::as_object_mut) {
                rules::lead_to_apex(canary, rule);
            }
        }
    }
    let action = (wanted != *live).then_some(Action::Replace(wanted))?;
    Some(route_write(snapshot, kind, action, "update error: "))
}

/// Whether the user applied the route as it is, with the rules of a canary.
fn is_applied(live: &Value) -> bool {
    let same = |applied: Value| defaulted("spec", &applied) == defaulted("spec", &live["spec"]);
    applied_spec(live).is_some_and(same)
}

/// The reason of a condition `Accepted`, as the end of a message; empty if the gateway gives none.
fn reason(condition: &Value) -> String {
    let texts = ["reason", "message"].iter();
    let texts: Vec<_> = texts.filter_map(|key| text(condition, key)).collect();
    if texts.is_empty() {
        return String::new();
    }
    format!(": its condition Accepted says {}", texts.join(": "))
}

/// Whether a parent is a Service: the route is for requests of the mesh.
fn is_service(parent: &Value) -> bool {
    parent.get("kind") == Some(&json!("Service"))
}

/// The parent. If it is a Service, it has the `pinned` port: without a port, the route would apply to all ports of the Service.
fn at_first_port(mut parent: Value, pinned: Option<i64>) -> Value {
    if let Some(port) = pinned.filter(|_| is_service(&parent) && parent.get("port").is_none()) {
        parent["port"] = json!(port);
    }
    parent
}

/// The weights of a route; `None` if it does not lead to our Services.
fn routed(canary: &Canary, live: &Value) -> Option<Weights> {
    let (primary, version) = (canary.primary_name(), canary.canary_name());
    let weight_of = |rule: &Value, name: &str| {
        let mut backends = items(rule, "/backendRefs");
        let backend = backends.find(|backend| backend["name"] == name)?;
        Some(backend.get("weight").map_or(1, |weight| part(Some(weight))))
    };
    let (to_primary, to_canary) = items(live, "/spec/rules")
        .filter_map(|rule| Some((weight_of(rule, &primary)?, weight_of(rule, &version)?)))
        .last()?;
    let mut filters = { items(live, "/spec/rules") }.flat_map(|rule| items(rule, "/filters"));
    let mirrored = filters.any(|filter| filters::mirrors_to(filter, &version));
    Weights::of_parts([to_primary, to_canary]).map(|weights| Weights {
        mirrored,
        ..weights
    })
}

#[cfg(test)]
mod tests;
