//! Istio: two DestinationRules and a VirtualService (`pkg/router/istio.go`).

mod rules;

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::{LAST_APPLIED, apex_metadata, applied_spec, metadata, named, percent};
use crate::{
    api::canary::Canary,
    snapshot::{Action, Kind, ObjectRef, Snapshot, Weights, Write},
    workload::metadata::{is_owned, owner_reference},
};
use rules::{destination, is_tcp, list, other_list};

/// The spec that a VirtualService had before we took it over.
const ORIGINAL: &str = "flagger.kubernetes.io/original-configuration";

/// The objects of a canary.
pub fn objects(canary: &Canary) -> BTreeSet<ObjectRef> {
    [
        named(canary, Kind::DestinationRule, &canary.canary_name()),
        named(canary, Kind::DestinationRule, &canary.primary_name()),
        named(canary, Kind::VirtualService, canary.apex_name()),
    ]
    .into()
}

/// Whether clients can be kept on a side: connections have no cookies.
pub fn has_affinity(canary: &Canary) -> bool {
    !is_tcp(canary)
}

/// Makes the objects, or repairs them, with these weights.
pub fn reconcile(
    snapshot: &Snapshot,
    selector: &(String, String),
    weights: &Weights,
) -> Result<Vec<Write>, String> {
    let canary = &snapshot.canary;
    let mut writes: Vec<_> = [canary.canary_name(), canary.primary_name()]
        .iter()
        .filter_map(|name| destination_rule(snapshot, name))
        .collect();
    writes.extend(virtual_service(snapshot, selector, weights)?);
    Ok(writes)
}

/// The weights of the last rule that names the canary: before it are those for clients with a cookie.
pub fn read(snapshot: &Snapshot) -> Result<Weights, String> {
    let canary = &snapshot.canary;
    let name = canary.apex_name();
    let full = format!("VirtualService {name}.{}", snapshot.namespace());
    let live = snapshot.object(Kind::VirtualService, name).ok_or_else(|| {
        format!("{full} get query error virtualservices.networking.istio.io {name:?} not found")
    })?;
    routed(canary, live).ok_or_else(|| {
        format!(
            "{full} does not contain routes for {} and {}",
            canary.primary_name(),
            canary.canary_name()
        )
    })
}

fn routed(canary: &Canary, live: &Value) -> Option<Weights> {
    let rules = &live["spec"][list(canary)];
    let (on_primary, on_canary) = (canary.primary_name(), canary.canary_name());
    let weight_of = |rule: &Value, host: &str| {
        let routes = rule.get("route").and_then(Value::as_array);
        let destination = |route: &&Value| route["destination"]["host"] == *host;
        let route = routes.into_iter().flatten().rfind(destination)?;
        Some(percent(route.get("weight")))
    };
    let with_canary = |rule| Some((rule, weight_of(rule, &on_canary)?));
    let (rule, to_canary) = rules.as_array()?.iter().rev().find_map(with_canary)?;
    let to_primary = weight_of(rule, &on_primary).unwrap_or(0);
    let mirror = rule["mirror"]["host"].as_str();
    let mirrored = mirror.is_some_and(|host| !host.is_empty());
    (to_primary > 0 || to_canary > 0).then_some(Weights {
        primary: to_primary,
        canary: to_canary,
        mirrored,
    })
}

/// Routes these weights: the whole list of rules is ours.
pub fn set(snapshot: &Snapshot, weights: &Weights) -> Result<Vec<Write>, String> {
    let canary = &snapshot.canary;
    let name = canary.apex_name();
    let live = snapshot.object(Kind::VirtualService, name).ok_or_else(|| {
        format!("VirtualService {name}.{} get query error virtualservices.networking.istio.io {name:?} not found", snapshot.namespace())
    })?;
    if follows(canary, live, weights) {
        return Ok(Vec::new());
    }
    let mut wanted = live.clone();
    wanted["spec"][list(canary)] = rules::wanted(canary, weights);
    let object = snapshot.reference(Kind::VirtualService, name);
    let failure = format!(
        "VirtualService {name}.{} update failed: ",
        snapshot.namespace()
    );
    Ok(vec![Write {
        object,
        action: Action::Replace(wanted),
        failure,
    }])
}

/// The VirtualService as it was before the Canary. One that we made goes with the Canary, and of one that leads to our Services it may
/// not be on record how it was: these lead where the Service leads. (Flagger leaves them leading to a primary that goes.)
pub fn restore(snapshot: &Snapshot) -> Option<Write> {
    let canary = &snapshot.canary;
    let name = canary.apex_name();
    let live = snapshot.object(Kind::VirtualService, name)?;
    let original = || {
        let annotations = live.pointer("/metadata/annotations")?;
        serde_json::from_str(annotations.get(ORIGINAL)?.as_str()?).ok()
    };
    let is_ours = is_owned(live, canary);
    let leads_to_us = |spec: &Value| routed(canary, &json!({"spec": spec})).is_some();
    let mut before = [applied_spec(live), original()].into_iter().flatten();
    let mut wanted = live.clone();
    match before.find(|spec| !is_ours && !leads_to_us(spec)) {
        Some(before) => wanted["spec"] = before,
        None if is_ours || leads_to_us(&live["spec"]) => {
            let rules = wanted
                .pointer_mut(&format!("/spec/{}", list(canary)))?
                .as_array_mut()?;
            for rule in rules {
                rule["route"] = json!([destination(canary, name, 100)]);
                if let Some(rule) = rule.as_object_mut() {
                    rule.remove("mirror");
                    rule.remove("mirrorPercentage");
                }
            }
        }
        None => return None,
    }
    if wanted == *live {
        return None;
    }
    let failure = format!(
        "VirtualService {name}.{} update error: ",
        snapshot.namespace()
    );
    Some(Write {
        object: snapshot.reference(Kind::VirtualService, name),
        action: Action::Replace(wanted),
        failure,
    })
}

/// A DestinationRule for one of our Services; fields of its spec that are not ours stay.
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

fn virtual_service(
    snapshot: &Snapshot,
    selector: &(String, String),
    weights: &Weights,
) -> Result<Option<Write>, String> {
    let canary = &snapshot.canary;
    let name = canary.apex_name();
    let full = format!("VirtualService {name}.{}", snapshot.namespace());
    let spec = spec(canary, weights)
        .map_err(|why| format!("reconcileVirtualService failed: {full} {why}"))?;
    let (labels, annotations) = apex_metadata(snapshot, selector);
    let (action, verb) = match snapshot.object(Kind::VirtualService, name) {
        None => {
            let mut metadata = json!({"name": name, "namespace": snapshot.namespace(), "annotations": annotations,
                "ownerReferences": [owner_reference(canary)]});
            if !labels.is_empty() {
                metadata["labels"] = Value::Object(labels);
            }
            let object = json!({"apiVersion": Kind::VirtualService.api_version(), "kind": "VirtualService",
                "metadata": metadata, "spec": spec});
            (Action::Create(object), "create")
        }
        Some(live) => match repaired(canary, live, spec, labels, annotations) {
            Some(wanted) => (Action::Replace(wanted), "update"),
            None => return Ok(None),
        },
    };
    let failure = format!("reconcileVirtualService failed: {full} {verb} error: ");
    Ok(Some(Write {
        object: snapshot.reference(Kind::VirtualService, name),
        action,
        failure,
    }))
}

/// The live VirtualService with our part as it should be; `None` if it is so already, whatever its weights.
fn repaired(
    canary: &Canary,
    live: &Value,
    spec: Map<String, Value>,
    labels: Map<String, Value>,
    mut annotations: Map<String, Value>,
) -> Option<Value> {
    let live_annotations = metadata(live, "annotations");
    for key in [LAST_APPLIED, ORIGINAL] {
        if let Some(value) = live_annotations.get(key) {
            annotations.insert(key.to_owned(), value.clone());
        }
    }
    let others = ["hosts", "gateways", other_list(canary)];
    let same = |field: &&str| live.pointer(&format!("/spec/{field}")) == spec.get(*field);
    let drifted = !others.iter().all(same)
        || !routed(canary, live).is_some_and(|weights| follows(canary, live, &weights));
    if !drifted && metadata(live, "labels") == labels && live_annotations == annotations {
        return None;
    }
    let mut wanted = live.clone();
    if drifted {
        if !live_annotations.contains_key(LAST_APPLIED) {
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

/// Whether the live rules are those for these weights.
fn follows(canary: &Canary, live: &Value, weights: &Weights) -> bool {
    let live = live.pointer(&format!("/spec/{}", list(canary)));
    let rules = live.and_then(Value::as_array);
    rules.is_some_and(|live| rules::candidates(canary, weights).contains(live))
}

/// The part of a VirtualService's spec that is ours.
fn spec(canary: &Canary, weights: &Weights) -> Result<Map<String, Value>, String> {
    let service = &canary.spec.service;
    let mut hosts = service.hosts.clone().unwrap_or_default();
    let mut gateways = service.gateways.clone().unwrap_or_default();
    let mut spec = Map::new();
    if service.delegation {
        if !hosts.is_empty() || !gateways.is_empty() {
            return Err("cannot have hosts and gateways when delegation enabled".to_owned());
        }
    } else {
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
    spec.insert(list(canary).to_owned(), rules::wanted(canary, weights));
    Ok(spec)
}

#[cfg(test)]
mod tests;
