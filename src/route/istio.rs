//! Istio: two DestinationRules and a VirtualService (`pkg/router/istio.go`).

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::{
    api::canary::{Canary, Strategy},
    workload::metadata::{is_owned, json_map, owner_reference, with_flux},
    world::{Action, Effect, Kind, ObjectRef, Weights, World},
};

/// What kubectl applied last: carried over, and what a deletion may restore.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// The spec that a VirtualService had before we took it over.
const ORIGINAL: &str = "flagger.kubernetes.io/original-configuration";

/// The objects of a canary.
pub fn objects(canary: &Canary) -> BTreeSet<ObjectRef> {
    let namespace = canary.metadata.namespace.clone().unwrap_or_default();
    let object = |kind, name: &str| ObjectRef {
        kind,
        namespace: namespace.clone(),
        name: name.to_owned(),
    };
    [
        object(Kind::DestinationRule, &canary.canary_name()),
        object(Kind::DestinationRule, &canary.primary_name()),
        object(Kind::VirtualService, canary.apex_name()),
    ]
    .into()
}

/// Makes the objects, or repairs them, with these weights.
pub fn reconcile(
    world: &World,
    selector: &(String, String),
    weights: &Weights,
) -> Result<Vec<Effect>, String> {
    let canary = &world.canary;
    let mut effects: Vec<_> = [canary.canary_name(), canary.primary_name()]
        .iter()
        .filter_map(|name| destination_rule(world, name))
        .collect();
    effects.extend(virtual_service(world, selector, weights)?);
    Ok(effects)
}

/// The weights of the last rule that names the canary.
pub fn read(world: &World) -> Result<Weights, String> {
    let canary = &world.canary;
    let name = canary.apex_name();
    let full = format!("VirtualService {name}.{}", world.namespace());
    let live = world.object(Kind::VirtualService, name).ok_or_else(|| {
        format!("{full} get query error virtualservices.networking.istio.io {name:?} not found")
    })?;
    let missing = || {
        format!(
            "{full} does not contain routes for {} and {}",
            canary.primary_name(),
            canary.canary_name()
        )
    };
    let rules = live
        .pointer(&format!("/spec/{}", list(canary)))
        .and_then(Value::as_array)
        .ok_or_else(missing)?;
    let weight_of = |rule: &Value, host: &str| {
        let routes = rule
            .get("route")
            .and_then(Value::as_array)
            .into_iter()
            .flatten();
        routes
            .filter(|route| {
                route.pointer("/destination/host").and_then(Value::as_str) == Some(host)
            })
            .map(|route| route.get("weight").and_then(Value::as_u64).unwrap_or(0))
            .next_back()
    };
    let (rule, canary_weight) = rules
        .iter()
        .filter_map(|rule| Some((rule, weight_of(rule, &canary.canary_name())?)))
        .next_back()
        .ok_or_else(missing)?;
    let primary_weight = weight_of(rule, &canary.primary_name()).unwrap_or(0);
    if canary_weight == 0 && primary_weight == 0 {
        return Err(missing());
    }
    let percent = |weight: u64| u8::try_from(weight.min(100)).unwrap_or(100);
    let mirrored = rule
        .pointer("/mirror/host")
        .and_then(Value::as_str)
        .is_some_and(|host| !host.is_empty());
    Ok(Weights {
        primary: percent(primary_weight),
        canary: percent(canary_weight),
        mirrored,
    })
}

/// Routes these weights: the whole list of rules is ours.
pub fn set(world: &World, weights: &Weights) -> Result<Vec<Effect>, String> {
    let canary = &world.canary;
    let name = canary.apex_name();
    let live = world.object(Kind::VirtualService, name).ok_or_else(|| {
        format!("VirtualService {name}.{} get query error virtualservices.networking.istio.io {name:?} not found", world.namespace())
    })?;
    let mut wanted = live.clone();
    wanted["spec"][list(canary)] = Value::Array(rules(canary, weights));
    if wanted == *live {
        return Ok(Vec::new());
    }
    let object = world.reference(Kind::VirtualService, name);
    let failure = format!(
        "VirtualService {name}.{} update failed: ",
        world.namespace()
    );
    Ok(vec![Effect {
        object,
        action: Action::Replace(wanted),
        failure,
    }])
}

/// The VirtualService as it was before the Canary. One that we made goes with the Canary: until every proxy knows, it leads where the
/// Service leads, so that it does not matter who is first.
pub fn restore(world: &World) -> Option<Effect> {
    let canary = &world.canary;
    let name = canary.apex_name();
    let live = world.object(Kind::VirtualService, name)?;
    let annotation = |key: &str| {
        let key = key.replace('/', "~1");
        live.pointer(&format!("/metadata/annotations/{key}"))?
            .as_str()
    };
    let parse = |text: &str| serde_json::from_str::<Value>(text).ok();
    let applied =
        || annotation(LAST_APPLIED).and_then(|text| Some(parse(text)?.get("spec")?.clone()));
    let original = || annotation(ORIGINAL).and_then(parse);
    let mut wanted = live.clone();
    if is_owned(live, canary) {
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
    } else {
        wanted["spec"] = applied().or_else(original)?;
    }
    if wanted == *live {
        return None;
    }
    let failure = format!("VirtualService {name}.{} update error: ", world.namespace());
    Some(Effect {
        object: world.reference(Kind::VirtualService, name),
        action: Action::Replace(wanted),
        failure,
    })
}

/// A DestinationRule for one of our Services; fields of its spec that are not ours stay.
fn destination_rule(world: &World, name: &str) -> Option<Effect> {
    let canary = &world.canary;
    let policy = canary.spec.service.traffic_policy.as_ref();
    let (action, verb) = match world.object(Kind::DestinationRule, name) {
        None => {
            let mut spec = json!({"host": name});
            if let Some(policy) = policy {
                spec["trafficPolicy"] = policy.clone();
            }
            let object = json!({"apiVersion": Kind::DestinationRule.api_version(), "kind": "DestinationRule",
                "metadata": {"name": name, "namespace": world.namespace(), "ownerReferences": [owner_reference(canary)]},
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
        world.namespace()
    );
    Some(Effect {
        object: world.reference(Kind::DestinationRule, name),
        action,
        failure,
    })
}

fn virtual_service(
    world: &World,
    selector: &(String, String),
    weights: &Weights,
) -> Result<Option<Effect>, String> {
    let canary = &world.canary;
    let name = canary.apex_name();
    let full = format!("VirtualService {name}.{}", world.namespace());
    let spec = spec(canary, weights)
        .map_err(|why| format!("reconcileVirtualService failed: {full} {why}"))?;
    let (labels, annotations) = metadata(canary, selector);
    let (action, verb) = match world.object(Kind::VirtualService, name) {
        None => {
            let mut metadata = json!({"name": name, "namespace": world.namespace(), "annotations": annotations,
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
    Ok(Some(Effect {
        object: world.reference(Kind::VirtualService, name),
        action,
        failure,
    }))
}

/// Labels and annotations of the VirtualService: the apex Service's. Where the Canary names any, the Service's own label is among
/// them, because Flagger writes both from one map.
fn metadata(
    canary: &Canary,
    selector: &(String, String),
) -> (Map<String, Value>, Map<String, Value>) {
    let Some(apex) = &canary.spec.service.apex else {
        return (Map::new(), with_flux(Map::new()));
    };
    let mut labels = json_map(apex.labels.iter().flatten());
    if !selector.0.is_empty() {
        labels.insert(selector.0.clone(), json!(canary.apex_name()));
    }
    (
        labels,
        with_flux(json_map(apex.annotations.iter().flatten())),
    )
}

/// The live VirtualService with our part as it should be; `None` if it is so already, whatever its weights.
fn repaired(
    canary: &Canary,
    live: &Value,
    spec: Map<String, Value>,
    labels: Map<String, Value>,
    mut annotations: Map<String, Value>,
) -> Option<Value> {
    let map = |field: &str| {
        live.pointer(&format!("/metadata/{field}"))
            .and_then(Value::as_object)
            .cloned()
            .unwrap_or_default()
    };
    let live_annotations = map("annotations");
    for key in [LAST_APPLIED, ORIGINAL] {
        if let Some(value) = live_annotations.get(key) {
            annotations.insert(key.to_owned(), value.clone());
        }
    }
    let ours = ["hosts", "gateways", list(canary), other_list(canary)];
    let drifted = ours.iter().any(|field| {
        let live = live.pointer(&format!("/spec/{field}"));
        live.map(without_weights) != spec.get(*field).map(without_weights)
    });
    if !drifted && map("labels") == labels && live_annotations == annotations {
        return None;
    }
    let mut wanted = live.clone();
    if drifted {
        if !live_annotations.contains_key(LAST_APPLIED) {
            let original = live.get("spec").map(Value::to_string).unwrap_or_default();
            annotations.insert(ORIGINAL.to_owned(), json!(original));
        }
        for field in ours {
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

/// What of a rule is structure: all but the weights and the mirror, which are the release's.
fn without_weights(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(without_weights).collect(),
        Value::Object(map) => Value::Object(
            map.iter()
                .filter(|(key, _)| {
                    !matches!(key.as_str(), "weight" | "mirror" | "mirrorPercentage")
                })
                .map(|(key, value)| (key.clone(), without_weights(value)))
                .collect(),
        ),
        _ => value.clone(),
    }
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
    spec.insert(
        list(canary).to_owned(),
        Value::Array(rules(canary, weights)),
    );
    Ok(spec)
}

/// Whether connections are routed, not requests.
fn is_tcp(canary: &Canary) -> bool {
    canary
        .spec
        .service
        .app_protocol
        .as_ref()
        .is_some_and(|protocol| protocol.eq_ignore_ascii_case("tcp"))
}

fn list(canary: &Canary) -> &'static str {
    if is_tcp(canary) { "tcp" } else { "http" }
}

fn other_list(canary: &Canary) -> &'static str {
    if is_tcp(canary) { "http" } else { "tcp" }
}

/// The rules that route these weights.
fn rules(canary: &Canary, weights: &Weights) -> Vec<Value> {
    let service = &canary.spec.service;
    let own_match = service.match_.clone().unwrap_or_default();
    let both = || {
        vec![
            destination(canary, &canary.primary_name(), weights.primary),
            destination(canary, &canary.canary_name(), weights.canary),
        ]
    };
    if is_tcp(canary) {
        let matches: Vec<_> = own_match
            .iter()
            .map(|m| json!({"port": m.get("port").cloned().unwrap_or(json!(0))}))
            .collect();
        let mut rule = json!({"route": both()});
        if !matches.is_empty() {
            rule["match"] = Value::Array(matches);
        }
        return vec![rule];
    }
    let analysis = canary.spec.analysis.as_ref();
    let tested = analysis
        .map(|analysis| analysis.match_.as_slice())
        .unwrap_or_default();
    if canary.strategy() == Strategy::AbTesting || !tested.is_empty() {
        // Who does not match stays on the primary; Flagger gives that rule's only destination the primary's weight.
        let primary = vec![destination(canary, &canary.primary_name(), weights.primary)];
        return vec![
            rule(canary, merged(tested, &own_match), both()),
            rule(canary, own_match, primary),
        ];
    }
    let mut rule = rule(canary, own_match, both());
    if weights.mirrored {
        rule["mirror"] = json!({"host": canary.canary_name()});
        if let Some(percent) = analysis
            .and_then(|analysis| analysis.mirror_weight)
            .filter(|percent| *percent > 0)
        {
            rule["mirrorPercentage"] = json!({"value": percent});
        }
    }
    vec![rule]
}

fn rule(canary: &Canary, matches: Vec<Value>, route: Vec<Value>) -> Value {
    let service = &canary.spec.service;
    let mut rule = json!({"route": route});
    if !matches.is_empty() {
        rule["match"] = Value::Array(matches);
    }
    if let Some(rewrite) = &service.rewrite {
        let keys = ["uri", "authority"]
            .iter()
            .filter_map(|key| Some(((*key).to_owned(), rewrite.get(key)?.clone())));
        rule["rewrite"] = Value::Object(keys.collect());
    }
    if let Some(timeout) = service
        .timeout
        .as_ref()
        .filter(|timeout| !timeout.is_empty())
    {
        rule["timeout"] = json!(timeout);
    }
    for (key, value) in [
        ("retries", &service.retries),
        ("corsPolicy", &service.cors_policy),
        ("headers", &service.headers),
    ] {
        if let Some(value) = value {
            rule[key] = value.clone();
        }
    }
    rule
}

fn destination(canary: &Canary, host: &str, weight: u8) -> Value {
    let service = &canary.spec.service;
    let first = service.gateways.as_deref().and_then(<[_]>::first);
    let mut destination = json!({"host": host});
    if service.port_discovery
        && (service.delegation || first.is_some_and(|gateway| gateway != "mesh"))
    {
        destination["port"] = json!({"number": service.port});
    }
    json!({"destination": destination, "weight": weight})
}

/// The conditions of a test within the conditions of the service: each with each; the test's headers and labels win.
fn merged(tested: &[Value], own: &[Value]) -> Vec<Value> {
    if own.is_empty() {
        return tested.to_vec();
    }
    let merge = |test: &Value, own: &Value| {
        let mut both = own.clone();
        for key in ["headers", "sourceLabels"] {
            if let Some(value) = test.get(key) {
                both[key] = value.clone();
            }
        }
        both
    };
    tested
        .iter()
        .flat_map(|test| own.iter().map(move |own| merge(test, own)))
        .collect()
}

#[cfg(test)]
mod tests;
