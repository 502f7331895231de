//! Contour: one HTTPProxy (`pkg/router/contour.go`), which an HTTPProxy of the user's, with a virtual host, includes.
//!
//! `spec.routes` is ours, and `spec.ingressClassName` where the operator was started with one; what else an HTTPProxy has stays.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::{
    LAST_APPLIED, apex_metadata, applied_spec, by_name, full, items, made, metadata, named,
    not_found, percent, put, route_write, tested, text,
};
use crate::{
    api::canary::Canary,
    snapshot::{Action, Kind, ObjectRef, Snapshot, Weights, Write},
    workload::metadata::is_owned,
};

const KIND: Kind = Kind::HttpProxy;
/// The header that the requests of a route for nobody would have.
const NOBODY: &str = "x-flagger-nobody";

/// The object of a canary.
pub fn objects(canary: &Canary) -> BTreeSet<ObjectRef> {
    [named(canary, KIND, canary.apex_name())].into()
}

/// Makes the proxy, or repairs it, with these weights.
pub fn reconcile(
    snapshot: &Snapshot,
    selector: &(String, String),
    weights: &Weights,
) -> Result<Vec<Write>, String> {
    // Said before there is any traffic to lead back.
    routes(&snapshot.canary, &Weights::CANARY)?;
    let canary = &snapshot.canary;
    let spec = spec(snapshot, weights)?;
    let (labels, mut annotations) = apex_metadata(snapshot, selector);
    let Some(live) = live(snapshot) else {
        let metadata = [labels, annotations];
        let spec = Value::Object(spec);
        let action = Action::Create(made(snapshot, KIND, canary.apex_name(), metadata, spec));
        return Ok(vec![route_write(snapshot, KIND, action, "create error: ")]);
    };
    let live_annotations = metadata(live, "annotations");
    if let Some(applied) = live_annotations.get(LAST_APPLIED) {
        annotations.insert(LAST_APPLIED.to_owned(), applied.clone());
    }
    let drifted = match routed(canary, live) {
        Some(now) => !follows(snapshot, live, &now)?,
        None => true,
    };
    if !drifted && metadata(live, "labels") == labels && live_annotations == annotations {
        return Ok(Vec::new());
    }
    let mut wanted = live.clone();
    wanted["metadata"]["labels"] = Value::Object(labels);
    wanted["metadata"]["annotations"] = Value::Object(annotations);
    if drifted {
        put(&mut wanted, spec, ours(snapshot));
    }
    if routed(canary, live).is_none() {
        // Only what clients are led to until now is left in this way: what else somebody wrote may lead nowhere.
        let left = for_nobody(live, &wanted);
        add(&mut wanted, left);
    }
    let action = Action::Replace(wanted);
    Ok(vec![route_write(snapshot, KIND, action, "update error: ")])
}

/// The weights of the first route: after it are those of the requests that an A/B test leaves alone.
pub fn read(snapshot: &Snapshot) -> Result<Weights, String> {
    let live = live(snapshot).ok_or_else(|| missing(snapshot))?;
    let none = || format!("{} services not found", full(snapshot, KIND));
    routed(&snapshot.canary, live).ok_or_else(none)
}

/// What must be written before a coming write of the proxy: the same proxy, and the routes with Services that are new in it, for nobody.
pub fn announce(snapshot: &Snapshot, coming: &Write) -> Option<Write> {
    let Action::Replace(wanted) = &coming.action else {
        return None;
    };
    let live = live(snapshot).filter(|_| coming.object.kind == KIND)?;
    let new = for_nobody(wanted, live);
    (!new.is_empty()).then(|| {
        let mut announced = live.clone();
        add(&mut announced, new);
        let action = Action::Replace(announced);
        route_write(snapshot, KIND, action, "update error: ")
    })
}

/// Whether the proxy has routes for nobody.
pub fn is_announced(snapshot: &Snapshot) -> bool {
    live(snapshot).is_some_and(|live| items(live, "/spec/routes").any(is_for_nobody))
}

/// That Contour has not seen the proxy as it is, if it says what it has seen.
pub fn lag(snapshot: &Snapshot) -> Option<String> {
    let live = live(snapshot)?;
    let generation = live.pointer("/metadata/generation")?.as_i64()?;
    let valid = items(live, "/status/conditions").find(|condition| condition["type"] == "Valid")?;
    let observed = valid.get("observedGeneration")?.as_i64()?;
    (observed < generation).then(|| {
        format!(
            "{} is not taken up by Contour (observed generation: {observed}, current generation: {generation})",
            full(snapshot, KIND)
        )
    })
}

/// Whether Contour could make something of the proxy as it is; Flagger does not ask.
pub fn accepted(snapshot: &Snapshot) -> Result<(), String> {
    if let Some(why) = lag(snapshot) {
        return Err(why);
    }
    let status = live(snapshot).and_then(|live| live.get("status"));
    let word = status.and_then(|status| text(status, "currentStatus"));
    let (Some(status), Some(word @ ("invalid" | "orphaned"))) = (status, word) else {
        return Ok(());
    };
    let why = text(status, "description").unwrap_or_default();
    let what_to_do = match word {
        "orphaned" => ": include it from an HTTPProxy that has a virtualhost",
        _ => "",
    };
    Err(format!(
        "{} is {word} ({why}){what_to_do}",
        full(snapshot, KIND)
    ))
}

/// Routes these weights.
pub fn set(snapshot: &Snapshot, weights: &Weights) -> Result<Vec<Write>, String> {
    let spec = spec(snapshot, weights)?;
    let live = live(snapshot).ok_or_else(|| missing(snapshot))?;
    if follows(snapshot, live, weights)? {
        return Ok(Vec::new());
    }
    let mut wanted = live.clone();
    put(&mut wanted, spec, ours(snapshot));
    let action = Action::Replace(wanted);
    Ok(vec![route_write(snapshot, KIND, action, "update error: ")])
}

/// The proxy as kubectl applied it before the Canary; otherwise, and where it is ours and goes with the Canary, it leads where the
/// Service leads. (Flagger leaves it leading to a primary that goes.)
pub fn restore(snapshot: &Snapshot) -> Option<Write> {
    let canary = &snapshot.canary;
    let live = live(snapshot)?;
    routed(canary, live)?;
    let is_before = |spec: &Value| routed(canary, &json!({"spec": spec})).is_none();
    let mut wanted = for_all(live);
    match applied_spec(live).filter(|spec| !is_owned(live, canary) && is_before(spec)) {
        Some(applied) => wanted["spec"] = applied,
        None => {
            let routes = wanted.pointer_mut("/spec/routes")?.as_array_mut()?;
            for route in routes.iter_mut().filter_map(Value::as_object_mut) {
                let services = json!([service(canary, canary.apex_name(), 100)]);
                route.insert("services".to_owned(), services);
            }
        }
    }
    let left = for_nobody(live, &wanted);
    add(&mut wanted, left);
    let action = Action::Replace(wanted);
    Some(route_write(snapshot, KIND, action, "update error: "))
}

/// The proxy without the routes for nobody, if it has any.
pub fn tidy(snapshot: &Snapshot) -> Option<Write> {
    let live = live(snapshot)?;
    let wanted = for_all(live);
    let action = (wanted != *live).then_some(Action::Replace(wanted))?;
    Some(route_write(snapshot, KIND, action, "update error: "))
}

fn live(snapshot: &Snapshot) -> Option<&Value> {
    snapshot.object(KIND, snapshot.canary.apex_name())
}

fn missing(snapshot: &Snapshot) -> String {
    let why = not_found(KIND, snapshot.canary.apex_name());
    format!("{} get query error: {why}", full(snapshot, KIND))
}

/// The fields of the spec that are ours.
fn ours(snapshot: &Snapshot) -> &'static [&'static str] {
    if snapshot.settings.ingress_class.is_empty() {
        &["routes"]
    } else {
        &["routes", "ingressClassName"]
    }
}

/// The part of the spec that is ours.
fn spec(snapshot: &Snapshot, weights: &Weights) -> Result<Map<String, Value>, String> {
    let class = &snapshot.settings.ingress_class;
    let mut spec = Map::new();
    spec.insert(
        "routes".to_owned(),
        json!(routes(&snapshot.canary, weights)?),
    );
    if !class.is_empty() {
        spec.insert("ingressClassName".to_owned(), json!(class));
    }
    Ok(spec)
}

/// Whether our part of the spec is as it should be for these weights, as far as the API server's defaults let one tell.
fn follows(snapshot: &Snapshot, live: &Value, weights: &Weights) -> Result<bool, String> {
    let wanted = Value::Object(spec(snapshot, weights)?);
    let live = live.get("spec").unwrap_or(&Value::Null);
    let same = |field: &&str| {
        let of = |spec: &Value| spec.get(*field).map(defaulted);
        of(live) == of(&wanted)
    };
    Ok(ours(snapshot).iter().all(same))
}

/// A part of a spec with what the API server adds to it, and without the weights that say nothing.
fn defaulted(value: &Value) -> Value {
    let mut value = value.clone();
    for route in value.as_array_mut().into_iter().flatten() {
        if let Some(Value::Object(policy)) = route.get_mut("retryPolicy") {
            policy.entry("count").or_insert(json!(1));
        }
        let services = route.get_mut("services").and_then(Value::as_array_mut);
        let services = services.into_iter().flatten();
        for service in services.filter_map(Value::as_object_mut) {
            if service.get("weight").is_some_and(|weight| *weight == 0) {
                service.remove("weight");
            }
        }
    }
    value
}

/// The routes for these weights. In an A/B test whoever matches meets the first ones, all others stay on the primary: one for each
/// set of conditions. (Flagger puts all conditions into one route, each with the prefix, which Contour refuses where there are two.)
fn routes(canary: &Canary, weights: &Weights) -> Result<Vec<Value>, String> {
    let conditions = canary.spec.service.match_.as_deref().unwrap_or_default();
    let uri = conditions.first().and_then(|first| first.get("uri"));
    let prefix = uri.and_then(|uri| text(uri, "prefix")).unwrap_or("/");
    let all = vec![json!({"prefix": prefix})];
    let tested = tested(canary);
    if tested.is_empty() {
        return Ok(vec![route(canary, all, weights)]);
    }
    let headers = tested.iter().map(|condition| headers(prefix, condition));
    let headers = match headers.collect::<Result<Vec<_>, _>>() {
        Ok(headers) => headers,
        // The way back is open whatever the test is: nobody meets the version then.
        Err(_) if weights.canary == 0 && !weights.mirrored => Vec::new(),
        Err(why) => return Err(why),
    };
    let mut routes: Vec<_> = headers
        .into_iter()
        .map(|headers| route(canary, headers, weights))
        .collect();
    routes.push(route(canary, all, &Weights::PRIMARY));
    Ok(routes)
}

/// The conditions of a test within the prefix. One that Contour cannot be told is an error; in Flagger everyone would meet the version.
fn headers(prefix: &str, condition: &Value) -> Result<Vec<Value>, String> {
    let mut conditions = Vec::new();
    for (name, value) in by_name(condition.get("headers")) {
        // `contains` is as near as Flagger comes to a beginning and to an end.
        let part = text(value, "prefix").or_else(|| text(value, "suffix"));
        let part = part.map(|part| json!({"name": name, "contains": part}));
        let whole = || Some(json!({"name": name, "exact": text(value, "exact")?}));
        let header = part.or_else(whole).ok_or_else(|| {
            format!("spec.analysis.match: Contour matches a header by exact, prefix or suffix, and {name} has none of them")
        })?;
        conditions.push(json!({"header": header}));
    }
    match conditions.first_mut() {
        Some(first) => first["prefix"] = json!(prefix),
        None => {
            let why = "spec.analysis.match: Contour tells requests apart by headers only, and a condition names none";
            return Err(why.to_owned());
        }
    }
    Ok(conditions)
}

/// The routes of a proxy with a Service that another state of it does not name, for nobody. Contour tells Envoy of routes and of Services
/// apart, in either order, and what is routed to a Service that Envoy does not know yet, or any more, is answered with 503. So Services
/// come before the routes that lead to them, and go after.
fn for_nobody(proxy: &Value, other: &Value) -> Vec<Value> {
    let known: Vec<_> = items(other, "/spec/routes").flat_map(led_to).collect();
    let new = items(proxy, "/spec/routes")
        .filter(|route| !is_for_nobody(route) && led_to(route).any(|to| !known.contains(&to)));
    new.map(|route| {
        let conditions = items(route, "/conditions").cloned().chain([nobody()]);
        let mut route = route.clone();
        route["conditions"] = conditions.collect();
        route
    })
    .collect()
}

/// The ports of Services that a route leads to.
fn led_to(route: &Value) -> impl Iterator<Item = (&Value, &Value)> {
    items(route, "/services").map(|service| (&service["name"], &service["port"]))
}

fn is_for_nobody(route: &Value) -> bool {
    items(route, "/conditions").any(|condition| *condition == nobody())
}

/// A condition that no request is meant to meet.
fn nobody() -> Value {
    json!({"header": {"name": NOBODY, "present": true}})
}

/// A proxy without its routes for nobody.
fn for_all(proxy: &Value) -> Value {
    let mut proxy = proxy.clone();
    if let Some(Value::Array(routes)) = proxy.pointer_mut("/spec/routes") {
        routes.retain(|route| !is_for_nobody(route));
    }
    proxy
}

/// Puts routes behind those that a proxy has.
fn add(proxy: &mut Value, routes: Vec<Value>) {
    if routes.is_empty() {
        return;
    }
    let all: Vec<_> = items(proxy, "/spec/routes")
        .cloned()
        .chain(routes)
        .collect();
    proxy["spec"]["routes"] = json!(all);
}

fn route(canary: &Canary, conditions: Vec<Value>, weights: &Weights) -> Value {
    let spec = &canary.spec.service;
    let mut services = vec![
        service(canary, &canary.primary_name(), weights.primary),
        service(canary, &canary.canary_name(), weights.canary),
    ];
    if weights.mirrored {
        let analysis = canary.spec.analysis.as_ref();
        let percent = analysis.and_then(|analysis| analysis.mirror_weight);
        let percent = percent.and_then(|percent| u8::try_from(percent).ok());
        // Without a weight it gets a copy of everything.
        let mut copies = service(canary, &canary.canary_name(), percent.unwrap_or(0).min(100));
        copies["mirror"] = json!(true);
        services.push(copies);
    }
    let mut route = json!({"conditions": conditions, "services": services});
    if let Some(timeout) = spec.timeout.as_ref().filter(|timeout| !timeout.is_empty()) {
        route["timeoutPolicy"] = json!({"response": timeout, "idle": "5m"});
    }
    if let Some(retries) = &spec.retries {
        route["retryPolicy"] = retry_policy(retries);
    }
    route
}

fn retry_policy(retries: &Value) -> Value {
    let mut policy = json!({});
    if let Some(count) = retries.get("attempts").and_then(Value::as_i64)
        && count != 0
    {
        policy["count"] = json!(count);
    }
    if let Some(timeout) = text(retries, "perTryTimeout") {
        policy["perTryTimeout"] = json!(timeout);
    }
    if let Some(conditions) = text(retries, "retryOn") {
        policy["retryOn"] = conditions.split(',').map(Value::from).collect();
    }
    policy
}

/// A side, and its share; no share has no weight. The header is for a Linkerd behind Contour, which would follow the apex otherwise.
fn service(canary: &Canary, name: &str, weight: u8) -> Value {
    let port = canary.spec.service.port;
    let namespace = canary.metadata.namespace.as_deref().unwrap_or_default();
    let host = format!("{name}.{namespace}.svc.cluster.local:{port}");
    let mut service = json!({"name": name, "port": port,
        "requestHeadersPolicy": {"set": [{"name": "l5d-dst-override", "value": host}]}});
    if weight > 0 {
        service["weight"] = json!(weight);
    }
    service
}

/// The weights that a proxy has.
fn routed(canary: &Canary, live: &Value) -> Option<Weights> {
    let (primary, version) = (canary.primary_name(), canary.canary_name());
    let route = items(live, "/spec/routes").find(|route| !is_for_nobody(route))?;
    let is_copy = |service: &Value| service.get("mirror") == Some(&Value::Bool(true));
    let of = |name: &str, copies: bool| {
        let mut services = items(route, "/services");
        services.find(|service| service["name"] == name && is_copy(service) == copies)
    };
    let (to_primary, to_canary) = (of(&primary, false)?, of(&version, false)?);
    let weight = |service: &Value| percent(service.get("weight"));
    let (to_primary, to_canary) = (weight(to_primary), weight(to_canary));
    (to_primary > 0 || to_canary > 0).then(|| Weights {
        primary: to_primary,
        canary: to_canary,
        mirrored: of(&version, true).is_some(),
    })
}

#[cfg(test)]
mod tests;
