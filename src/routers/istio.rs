//! Istio: two DestinationRules and a VirtualService (Flagger: `pkg/router/istio.go`).
//!
//! A destination without a port has the port of the request, so each port of the Services has its route. Behind a gateway the destination
//! needs a port, the first; then requests of the mesh to each further port have rules of their own (`rules/ports.rs`).

mod rules;

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::{
    RouteError, Router, adoption,
    affinity::{self, Cookies, Sides},
    route::{
        apex_metadata, full_name, metadata, no_routes, not_found, part, reference, route_write,
        withdraw,
    },
};
use crate::{
    api::canary::Canary,
    snapshot::{Action, Kind, ObjectRef, Snapshot, Weights, Write, route_references::Named},
    workload::metadata::{LAST_APPLIED, ORIGINAL, is_owned, owner_reference},
};
use rules::{destination, is_tcp, list, other_list};

const KIND: Kind = Kind::VirtualService;

/// The router of Istio.
#[derive(Clone, Copy, Debug)]
pub struct Istio;

impl Router for Istio {
    fn objects(&self, canary: &Canary) -> BTreeSet<ObjectRef> {
        [
            reference(canary, Kind::DestinationRule, &canary.canary_name()),
            reference(canary, Kind::DestinationRule, &canary.primary_name()),
            reference(canary, KIND, canary.apex_name()),
        ]
        .into()
    }

    fn repairs(
        &self,
        snapshot: &Snapshot,
        selector: &(String, String),
        weights: &Weights,
    ) -> Result<Vec<Write>, RouteError> {
        let canary = &snapshot.canary;
        let mut writes: Vec<_> = [canary.canary_name(), canary.primary_name()]
            .iter()
            .filter_map(|name| destination_rule(snapshot, name))
            .collect();
        writes.extend(virtual_service(snapshot, selector, weights)?);
        Ok(writes)
    }

    /// The weights of the last rule that names the canary. The rules before it are for clients with a cookie.
    fn current_weights(&self, snapshot: &Snapshot) -> Result<Weights, RouteError> {
        let live = live(snapshot)?;
        routed(&snapshot.canary, live).ok_or_else(|| no_routes(snapshot, KIND))
    }

    /// The complete list of rules is ours.
    fn set_weights(
        &self,
        snapshot: &Snapshot,
        weights: &Weights,
    ) -> Result<Vec<Write>, RouteError> {
        let canary = &snapshot.canary;
        let live = live(snapshot)?;
        let mut wanted = live.clone();
        match rules::wanted(snapshot, weights) {
            Ok(_) if has_rules(snapshot, live, weights) => return Ok(Vec::new()),
            Ok(rules) => wanted["spec"][list(canary)] = rules,
            Err(_) if *weights == Weights::PRIMARY => withdraw_canary(canary, &mut wanted),
            Err(why) => return Err(why),
        }
        if wanted == *live {
            return Ok(Vec::new());
        }
        let action = Action::Replace(wanted);
        Ok(vec![route_write(snapshot, KIND, action, "update failed: ")])
    }

    /// The VirtualService gets the spec, labels and annotations back that it had before the Canary. One that the Canary owns leads to the
    /// apex Service until it is deleted with the Canary. So does one that leads to our Services and whose former spec is not known.
    /// (Flagger leaves both leading to a primary that is deleted.)
    fn reverted(&self, snapshot: &Snapshot) -> Option<Write> {
        let canary = &snapshot.canary;
        let live = snapshot.object(KIND, canary.apex_name())?;
        let leads_to_us = |route: &Value| routed(canary, route).is_some();
        let mut wanted = live.clone();
        match adoption::before(live, canary, leads_to_us) {
            Some(before) => wanted = before,
            None if is_owned(live, canary) || leads_to_us(live) => {
                lead_to_apex(canary, &mut wanted)?;
            }
            None => return None,
        }
        let action = (wanted != *live).then_some(Action::Replace(wanted))?;
        Some(route_write(snapshot, KIND, action, "update error: "))
    }

    fn named(&self, _snapshot: &Snapshot) -> &'static [Named] {
        rules::NAMED
    }

    fn mirrors(&self) -> bool {
        true
    }

    fn splits_tenths(&self) -> bool {
        true
    }

    /// TCP connections have no cookies.
    fn new_cookies(&self, canary: &Canary, nonce: u64) -> Option<Cookies> {
        if is_tcp(canary) {
            return None;
        }
        affinity::new_cookies(canary, Sides::Both, nonce)
    }
}

/// The VirtualService that exists.
fn live(snapshot: &Snapshot) -> Result<&Value, RouteError> {
    let name = snapshot.canary.apex_name();
    snapshot.object(KIND, name).ok_or_else(|| {
        let full = full_name(snapshot, KIND);
        not_found(full, "get query error", KIND, name)
    })
}

/// The weights of a VirtualService; `None` if it does not lead to our Services.
fn routed(canary: &Canary, live: &Value) -> Option<Weights> {
    let rules = &live["spec"][list(canary)];
    let (on_primary, on_canary) = (canary.primary_name(), canary.canary_name());
    let weight_of = |rule: &Value, host: &str| {
        let routes = rule.get("route").and_then(Value::as_array);
        let destination = |route: &&Value| route["destination"]["host"] == *host;
        let route = routes.into_iter().flatten().rfind(destination)?;
        Some(part(route.get("weight")))
    };
    let with_canary = |rule| Some((rule, weight_of(rule, &on_canary)?));
    let (rule, to_canary) = rules.as_array()?.iter().rev().find_map(with_canary)?;
    let to_primary = weight_of(rule, &on_primary).unwrap_or(0);
    let mirror = rule["mirror"]["host"].as_str();
    let mirrored = mirror.is_some_and(|host| !host.is_empty());
    Weights::of_parts([to_primary, to_canary]).map(|weights| Weights {
        mirrored,
        ..weights
    })
}

/// Leads the rules that exist to the primary, without copies for the canary.
fn withdraw_canary(canary: &Canary, virtual_service: &mut Value) {
    let mut rules = virtual_service.pointer_mut(&format!("/spec/{}", list(canary)));
    let list = rules.as_mut().and_then(|rules| rules.as_array_mut());
    for rule in list.into_iter().flatten().filter_map(Value::as_object_mut) {
        rule.remove("mirror");
        rule.remove("mirrorPercentage");
    }
    withdraw(rules, canary, ["route", "/destination/host"]);
}

/// Leads all rules to the apex Service, each to its port, without copies. Returns `None` if there are no rules.
fn lead_to_apex(canary: &Canary, virtual_service: &mut Value) -> Option<()> {
    let rules = virtual_service
        .pointer_mut(&format!("/spec/{}", list(canary)))?
        .as_array_mut()?;
    for rule in rules {
        let port = rule.pointer("/route/0/destination/port").cloned();
        rule["route"] = json!([destination(canary, canary.apex_name(), 100)]);
        if let Some(port) = port {
            rule["route"][0]["destination"]["port"] = port;
        }
        if let Some(rule) = rule.as_object_mut() {
            rule.remove("mirror");
            rule.remove("mirrorPercentage");
        }
    }
    Some(())
}

/// The write of a DestinationRule for one of our Services; `None` if it is correct. Fields of its spec that are not ours stay.
fn destination_rule(snapshot: &Snapshot, name: &str) -> Option<Write> {
    let canary = &snapshot.canary;
    let policy = canary.spec.service.traffic_policy.as_ref();
    let (action, verb) = match snapshot.object(Kind::DestinationRule, name) {
        None => {
            let mut spec = json!({"host": name});
            if let Some(policy) = policy {
                spec["trafficPolicy"] = policy.clone();
            }
            let object = json!({"apiVersion": Kind::DestinationRule.api_version(), "kind": "DestinationRule",
                "metadata": {"name": name, "namespace": snapshot.namespace(), "ownerReferences": [owner_reference(canary)]},
                "spec": spec});
            (Action::Create(object), "create")
        }
        Some(live) => {
            let mut wanted = live.clone();
            wanted["spec"]["host"] = json!(name);
            match policy {
                Some(policy) => wanted["spec"]["trafficPolicy"] = policy.clone(),
                None => drop(
                    wanted["spec"]
                        .as_object_mut()
                        .and_then(|spec| spec.remove("trafficPolicy")),
                ),
            }
            if wanted == *live {
                return None;
            }
            (Action::Replace(wanted), "update")
        }
    };
    let failure = format!(
        "reconcileDestinationRule failed: DestinationRule {name}.{} {verb} error: ",
        snapshot.namespace()
    );
    Some(Write {
        object: snapshot.reference(Kind::DestinationRule, name),
        action,
        failure,
    })
}

/// The write of the VirtualService; `None` if it is correct.
fn virtual_service(
    snapshot: &Snapshot,
    selector: &(String, String),
    weights: &Weights,
) -> Result<Option<Write>, RouteError> {
    let canary = &snapshot.canary;
    let name = canary.apex_name();
    let full = full_name(snapshot, KIND);
    let service = &canary.spec.service;
    let is_set = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|list| !list.is_empty());
    if service.delegation && (is_set(&service.hosts) || is_set(&service.gateways)) {
        return Err(RouteError::InvalidCanary(format!(
            "reconcileVirtualService failed: {full} cannot have hosts and gateways when delegation enabled"
        )));
    }
    let spec = spec(snapshot, weights)?;
    let (labels, annotations) = apex_metadata(snapshot, selector);
    let (action, verb) = match snapshot.object(KIND, name) {
        None => {
            let mut metadata = json!({"name": name, "namespace": snapshot.namespace(), "annotations": annotations,
                "ownerReferences": [owner_reference(canary)]});
            if !labels.is_empty() {
                metadata["labels"] = Value::Object(labels);
            }
            let object = json!({"apiVersion": KIND.api_version(), "kind": "VirtualService",
                "metadata": metadata, "spec": spec});
            (Action::Create(object), "create")
        }
        Some(live) => match repaired(snapshot, live, spec, [labels, annotations]) {
            Some(wanted) => (Action::Replace(wanted), "update"),
            None => return Ok(None),
        },
    };
    let failure = format!("reconcileVirtualService failed: {full} {verb} error: ");
    Ok(Some(Write {
        object: snapshot.reference(KIND, name),
        action,
        failure,
    }))
}

/// The live VirtualService with our part corrected; `None` if our part is correct for any weights.
fn repaired(
    snapshot: &Snapshot,
    live: &Value,
    spec: Map<String, Value>,
    [labels, mut annotations]: [Map<String, Value>; 2],
) -> Option<Value> {
    let canary = &snapshot.canary;
    let live_annotations = metadata(live, "annotations");
    for key in [LAST_APPLIED, ORIGINAL] {
        if let Some(value) = live_annotations.get(key) {
            annotations.insert(key.to_owned(), value.clone());
        }
    }
    let others = ["hosts", "gateways", other_list(canary)];
    let same = |field: &&str| live.pointer(&format!("/spec/{field}")) == spec.get(*field);
    let drifted = !others.iter().all(same)
        || !routed(canary, live).is_some_and(|weights| has_rules(snapshot, live, &weights));
    if !drifted && metadata(live, "labels") == labels && live_annotations == annotations {
        return None;
    }
    let mut wanted = live.clone();
    if drifted {
        // As Flagger does, the operator keeps the spec of its own VirtualService. The adoption keeps the spec of a user's VirtualService.
        if is_owned(live, canary) && !live_annotations.contains_key(LAST_APPLIED) {
            let original = live.get("spec").map(Value::to_string).unwrap_or_default();
            annotations.insert(ORIGINAL.to_owned(), json!(original));
        }
        for field in others.into_iter().chain([list(canary)]) {
            match spec.get(field) {
                Some(value) => wanted["spec"][field] = value.clone(),
                None => drop(
                    wanted["spec"]
                        .as_object_mut()
                        .and_then(|spec| spec.remove(field)),
                ),
            }
        }
    }
    wanted["metadata"]["labels"] = Value::Object(labels);
    wanted["metadata"]["annotations"] = Value::Object(annotations);
    Some(wanted)
}

/// Whether the live rules are correct for these weights.
fn has_rules(snapshot: &Snapshot, live: &Value, weights: &Weights) -> bool {
    let live = live.pointer(&format!("/spec/{}", list(&snapshot.canary)));
    let candidates = rules::candidates(snapshot, weights).unwrap_or_default();
    live.and_then(Value::as_array)
        .is_some_and(|live| candidates.contains(live))
}

/// The part of a VirtualService's spec that is ours.
fn spec(snapshot: &Snapshot, weights: &Weights) -> Result<Map<String, Value>, RouteError> {
    let canary = &snapshot.canary;
    let service = &canary.spec.service;
    let mut hosts = service.hosts.clone().unwrap_or_default();
    let mut gateways = service.gateways.clone().unwrap_or_default();
    let mut spec = Map::new();
    if !service.delegation {
        let apex = canary.apex_name();
        if !hosts.iter().any(|host| host == apex || host == "*") {
            hosts.push(apex.to_owned());
        }
        if gateways.is_empty() {
            gateways.push("mesh".to_owned());
        }
        spec.insert("gateways".to_owned(), json!(gateways));
    }
    spec.insert("hosts".to_owned(), json!(hosts));
    spec.insert(list(canary).to_owned(), rules::wanted(snapshot, weights)?);
    Ok(spec)
}

#[cfg(test)]
mod tests;
