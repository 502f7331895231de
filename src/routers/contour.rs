//! Contour: one HTTPProxy (Flagger: `pkg/router/contour.go`), which an HTTPProxy of the user, with a virtual host, includes.
//!
//! `spec.routes` is ours, and so is `spec.ingressClassName` if the operator has an ingress class. Other fields stay as they are.
//!
//! The route is for the first port of the Services. Requests to further ports (`portDiscovery`) reach the primary through the apex Service.

mod temporary;

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::{
    RouteError, Router, adoption,
    conditions::{self, Field, path_prefix},
    route::{
        apex_metadata, by_name, create_route, full_name, items, marked, not_found, part,
        put_fields, reference, route_write, text, withdraw,
    },
};
use crate::{
    api::canary::Canary,
    snapshot::{Action, Kind, ObjectRef, Snapshot, Weights, Write},
};

const KIND: Kind = Kind::HttpProxy;
/// The conditions of a route.
const KEYS: &[&str] = &["uri", "headers"];

/// The router of Contour.
#[derive(Clone, Copy, Debug)]
pub struct Contour;

impl Router for Contour {
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
        let spec = spec(snapshot, weights)?;
        let Some(live) = live(snapshot) else {
            let (labels, annotations) = apex_metadata(snapshot, selector);
            let metadata = [labels, annotations];
            let spec = Value::Object(spec);
            return Ok(vec![create_route(snapshot, KIND, metadata, spec)]);
        };
        let drifted = match routed(canary, live) {
            Some(now) => !has_routes(snapshot, live, &now)?,
            None => true,
        };
        let Some(mut wanted) = marked(snapshot, selector, live, drifted) else {
            return Ok(Vec::new());
        };
        if drifted {
            put_fields(&mut wanted, spec, ours(snapshot));
        }
        if routed(canary, live).is_none() {
            // When the operator takes an HTTPProxy over, clients still use its earlier Services, so temporary routes go on naming these
            // Services. Later edits by others get no temporary routes, because they may lead to no Service.
            let left = temporary::routes(live, &wanted);
            temporary::append(&mut wanted, left);
        }
        Ok(vec![replace(snapshot, wanted)])
    }

    /// The weights of the first route. The routes after it are for requests outside an A/B test.
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
        let live = live(snapshot).ok_or_else(|| missing(snapshot))?;
        let mut wanted = live.clone();
        match spec(snapshot, weights) {
            Ok(_) if has_routes(snapshot, live, weights)? => return Ok(Vec::new()),
            Ok(spec) => put_fields(&mut wanted, spec, ours(snapshot)),
            Err(_) if *weights == Weights::PRIMARY => {
                withdraw_canary(&snapshot.canary, &mut wanted);
            }
            Err(why) => return Err(why),
        }
        if wanted == *live {
            return Ok(Vec::new());
        }
        Ok(vec![replace(snapshot, wanted)])
    }

    /// The HTTPProxy gets the spec, labels and annotations back that it had before the Canary. If the Canary owns it, or if its former spec
    /// is not known, it leads to the apex Service. (Flagger leaves it leading to a primary that is deleted.)
    fn reverted(&self, snapshot: &Snapshot) -> Option<Write> {
        let canary = &snapshot.canary;
        let live = live(snapshot)?;
        routed(canary, live)?;
        let mut wanted = temporary::strip(live);
        match adoption::before(live, canary, |route| routed(canary, route).is_some()) {
            Some(before) => wanted = before,
            None => {
                let routes = wanted.pointer_mut("/spec/routes")?.as_array_mut()?;
                for route in routes.iter_mut().filter_map(Value::as_object_mut) {
                    let services = json!([service(canary, canary.apex_name(), 100)]);
                    route.insert("services".to_owned(), services);
                }
            }
        }
        let left = temporary::routes(live, &wanted);
        temporary::append(&mut wanted, left);
        Some(replace(snapshot, wanted))
    }

    fn mirrors(&self) -> bool {
        true
    }

    fn splits_tenths(&self) -> bool {
        true
    }

    /// Checks that Contour could use the HTTPProxy as it is. (Flagger does not check.)
    fn accepted(&self, snapshot: &Snapshot) -> Result<(), RouteError> {
        if let Some(why) = self.lag(snapshot) {
            return Err(why);
        }
        let status = live(snapshot).and_then(|live| live.get("status"));
        let word = status.and_then(|status| text(status, "currentStatus"));
        let (Some(status), Some(word @ ("invalid" | "orphaned"))) = (status, word) else {
            return Ok(());
        };
        let why = text(status, "description").unwrap_or_default();
        let advice = match word {
            "orphaned" => ": include it from an HTTPProxy that has a virtualhost",
            _ => "",
        };
        let full = full_name(snapshot, KIND);
        Err(RouteError::NotAccepted(format!(
            "{full} is {word} ({why}){advice}"
        )))
    }

    /// Contour reports the generation that it has seen in the condition `Valid`.
    fn lag(&self, snapshot: &Snapshot) -> Option<RouteError> {
        let live = live(snapshot)?;
        let generation = live.pointer("/metadata/generation")?.as_i64()?;
        let mut conditions = items(live, "/status/conditions");
        let valid = conditions.find(|condition| condition["type"] == "Valid")?;
        let observed = valid.get("observedGeneration")?.as_i64()?;
        (observed < generation).then(|| {
            RouteError::NotAccepted(format!(
                "{} is not taken up by Contour (observed generation: {observed}, current generation: {generation})",
                full_name(snapshot, KIND)
            ))
        })
    }

    /// The live HTTPProxy, with temporary routes to the Services that are new in `coming`.
    fn announce(&self, snapshot: &Snapshot, coming: &Write) -> Option<Write> {
        let Action::Replace(wanted) = &coming.action else {
            return None;
        };
        let live = live(snapshot).filter(|_| coming.object.kind == KIND)?;
        let new = temporary::routes(wanted, live);
        if new.is_empty() {
            return None;
        }
        let mut announced = live.clone();
        temporary::append(&mut announced, new);
        // The first announcement changes the user's HTTPProxy before any other write.
        let writes = vec![replace(snapshot, announced)];
        let objects = self.objects(&snapshot.canary);
        adoption::kept(snapshot, &objects, writes).pop()
    }

    fn is_announced(&self, snapshot: &Snapshot, coming: &Write) -> bool {
        coming.object.kind == KIND
            && live(snapshot)
                .is_some_and(|live| items(live, "/spec/routes").any(temporary::is_temporary))
    }

    fn tidy(&self, snapshot: &Snapshot) -> Option<Write> {
        let live = live(snapshot)?;
        let wanted = temporary::strip(live);
        (wanted != *live).then(|| replace(snapshot, wanted))
    }
}

/// The write that replaces the HTTPProxy.
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

/// The fields of the spec that are ours.
fn ours(snapshot: &Snapshot) -> &'static [&'static str] {
    if snapshot.settings.ingress_class.is_empty() {
        &["routes"]
    } else {
        &["routes", "ingressClassName"]
    }
}

/// The part of the spec that is ours.
fn spec(snapshot: &Snapshot, weights: &Weights) -> Result<Map<String, Value>, RouteError> {
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

/// Whether our part of the live spec is correct for these weights. The API server's defaults make no difference.
fn has_routes(snapshot: &Snapshot, live: &Value, weights: &Weights) -> Result<bool, RouteError> {
    let wanted = Value::Object(spec(snapshot, weights)?);
    let live = live.get("spec").unwrap_or(&Value::Null);
    let same = |field: &&str| {
        let of = |spec: &Value| spec.get(*field).map(defaulted);
        of(live) == of(&wanted)
    };
    Ok(ours(snapshot).iter().all(same))
}

/// A field of the spec with the defaults that the API server adds, and without weights of 0, which mean the same as no weight.
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

/// Leads the routes that exist to the primary, without copies for the canary.
fn withdraw_canary(canary: &Canary, proxy: &mut Value) {
    let mut routes = proxy.pointer_mut("/spec/routes");
    let list = routes.as_mut().and_then(|routes| routes.as_array_mut());
    for route in list.into_iter().flatten() {
        if let Some(services) = route.get_mut("services").and_then(Value::as_array_mut) {
            services.retain(|service| service.get("mirror") != Some(&Value::Bool(true)));
        }
    }
    withdraw(routes, canary, ["services", "/name"]);
}

/// The routes for these weights: one for each set of conditions. In an A/B test the routes with these weights have the conditions of the
/// test, too, and the last routes keep all other requests on the primary. (Flagger puts all conditions into one route, each with the
/// prefix. Contour refuses a route with two prefixes.)
fn routes(canary: &Canary, weights: &Weights) -> Result<Vec<Value>, RouteError> {
    let everything = [json!({})];
    let own = match conditions::of_service(canary) {
        [] => &everything,
        own => own,
    };
    let test = conditions::of_test(canary);
    conditions::check(canary, Field::Service, "Contour", KEYS)?;
    conditions::check(canary, Field::Test, "Contour", KEYS)?;
    let all = expressed(Field::Service, own)?;
    let to = |all: Vec<Vec<Value>>, weights: &Weights| -> Vec<Value> {
        let routes = all.into_iter();
        routes.map(|one| route(canary, one, weights)).collect()
    };
    if test.is_empty() {
        return Ok(to(all, weights));
    }
    let tested = expressed(Field::Test, &conditions::product(test, own)?)?;
    Ok([to(tested, weights), to(all, &Weights::PRIMARY)].concat())
}

/// Each set of conditions in Contour's form. A condition that Contour cannot express is an error. (Flagger would send all requests to the
/// canary.)
fn expressed(field: Field, sets: &[Value]) -> Result<Vec<Vec<Value>>, RouteError> {
    sets.iter().map(|set| conditions_of(field, set)).collect()
}

fn conditions_of(field: Field, set: &Value) -> Result<Vec<Value>, RouteError> {
    let prefix = path_prefix(field, "Contour", set)?;
    let mut conditions = Vec::new();
    for (name, value) in by_name(set.get("headers")) {
        // As in Flagger, `contains` stands for both a prefix and a suffix.
        let part = text(value, "prefix").or_else(|| text(value, "suffix"));
        let part = part.map(|part| json!({"name": name, "contains": part}));
        let exact = || Some(json!({"name": name, "exact": text(value, "exact")?}));
        let header = part.or_else(exact).ok_or_else(|| {
            RouteError::InvalidCanary(format!("{field}: Contour matches a header by exact, prefix or suffix, and {name} has none of them"))
        })?;
        conditions.push(json!({"header": header}));
    }
    match conditions.first_mut() {
        Some(first) => first["prefix"] = json!(prefix),
        None => conditions.push(json!({"prefix": prefix})),
    }
    Ok(conditions)
}

fn route(canary: &Canary, conditions: Vec<Value>, weights: &Weights) -> Value {
    let spec = &canary.spec.service;
    let [to_primary, to_canary] = weights.parts();
    let mut services = vec![
        service(canary, &canary.primary_name(), to_primary),
        service(canary, &canary.canary_name(), to_canary),
    ];
    if weights.mirrored {
        let analysis = canary.spec.analysis.as_ref();
        let percent = analysis.and_then(|analysis| analysis.mirror_weight);
        let percent = percent.and_then(|percent| u8::try_from(percent).ok());
        // Without a weight, Contour copies all requests.
        let mut copies = service(
            canary,
            &canary.canary_name(),
            percent.unwrap_or(0).min(100).into(),
        );
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

/// A Service with its weight, which is left out if it is 0. The header is for a Linkerd behind Contour: without it, Linkerd would route
/// by the apex Service.
fn service(canary: &Canary, name: &str, weight: u16) -> Value {
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

/// The weights of an HTTPProxy; `None` if its first route does not lead to our Services.
fn routed(canary: &Canary, live: &Value) -> Option<Weights> {
    let (primary, version) = (canary.primary_name(), canary.canary_name());
    let route = items(live, "/spec/routes").find(|route| !temporary::is_temporary(route))?;
    let is_copy = |service: &Value| service.get("mirror") == Some(&Value::Bool(true));
    let of = |name: &str, copies: bool| {
        let mut services = items(route, "/services");
        services.find(|service| service["name"] == name && is_copy(service) == copies)
    };
    let (to_primary, to_canary) = (of(&primary, false)?, of(&version, false)?);
    let parts = [to_primary, to_canary].map(|service| part(service.get("weight")));
    let mirrored = of(&version, true).is_some();
    Weights::of_parts(parts).map(|weights| Weights {
        mirrored,
        ..weights
    })
}

#[cfg(test)]
mod tests;
