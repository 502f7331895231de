//! APISIX: a second ApisixRoute beside the user's (Flagger: `pkg/router/apisix.go`), whose one rule has precedence and splits the traffic.
//!
//! The user's ApisixRoute, which `spec.routeRef` names, is only read. The spec of the second one is ours: the user's first rule that leads to
//! the apex Service, with all its fields, and with both sides in place of the apex Service. Edits of the user's rule reach ours.
//!
//! The rule leads to the same port as the user's rule, and is for the same requests: `spec.service.match` is not used.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{
    RouteError, Router,
    conditions::refuse_test,
    route::{items, metadata, new_object, not_found, percent, reference},
};
use crate::{
    api::{canary::Canary, percent::Percent},
    snapshot::{Action, Kind, ObjectRef, Snapshot, Weights, Write},
    workload::metadata::LAST_APPLIED,
};

const KIND: Kind = Kind::ApisixRoute;
/// The priority of our rule. The user's rule for the same requests has a lower one.
const PRIORITY: i64 = 10_000;

/// The router of APISIX.
#[derive(Clone, Copy, Debug)]
pub struct Apisix;

impl Router for Apisix {
    fn objects(&self, canary: &Canary) -> BTreeSet<ObjectRef> {
        let ours = source_name(canary).map(|source| reference(canary, KIND, &name(canary, source)));
        ours.into_iter().collect()
    }

    /// The user's ApisixRoute.
    fn sources(&self, snapshot: &Snapshot) -> BTreeSet<ObjectRef> {
        let source = source_name(&snapshot.canary).map(|source| snapshot.reference(KIND, source));
        source.into_iter().collect()
    }

    fn repairs(
        &self,
        snapshot: &Snapshot,
        _selector: &(String, String),
        weights: &Weights,
    ) -> Result<Vec<Write>, RouteError> {
        let (canary, source) = (&snapshot.canary, source(snapshot)?);
        refuse_test(canary, "APISIX")?;
        let spec_for = |weights: &Weights| spec(snapshot, source, weights);
        let name = own_name(canary);
        let Some(live) = snapshot.object(KIND, &name) else {
            let labels = metadata(source, "labels");
            let mut annotations = metadata(source, "annotations");
            // Flagger copies this annotation, too: a later `kubectl apply` of the copy would compare it with the user's ApisixRoute.
            annotations.remove(LAST_APPLIED);
            let spec = spec_for(weights)?;
            let object = new_object(snapshot, KIND, &name, [labels, annotations], spec);
            let create = Action::Create(object);
            return Ok(vec![write(snapshot, create, "create error: ")]);
        };
        let now = routed(canary, live).unwrap_or(*weights);
        if live.get("spec") == Some(&spec_for(&now)?) {
            return Ok(Vec::new());
        }
        let mut wanted = live.clone();
        wanted["spec"] = spec_for(weights)?;
        Ok(vec![replace(snapshot, wanted)])
    }

    fn current_weights(&self, snapshot: &Snapshot) -> Result<Weights, RouteError> {
        let live = ours(snapshot)?;
        let none = || {
            let full = full_name(snapshot, &own_name(&snapshot.canary));
            let primary = snapshot.canary.primary_name();
            RouteError::NoWeights(format!("{full} has no backend {primary}"))
        };
        routed(&snapshot.canary, live).ok_or_else(none)
    }

    fn set_weights(
        &self,
        snapshot: &Snapshot,
        weights: &Weights,
    ) -> Result<Vec<Write>, RouteError> {
        let live = ours(snapshot)?;
        let mut wanted = live.clone();
        let sides = sides(&snapshot.canary, weights);
        let backends = our_backends(&snapshot.canary, &mut wanted).into_iter();
        for backend in backends.flatten() {
            let mut sides = sides.iter();
            if let Some((_, weight)) = sides.find(|(name, _)| backend["serviceName"] == **name) {
                backend["weight"] = json!(weight);
            }
        }
        if wanted == *live {
            return Ok(Vec::new());
        }
        Ok(vec![replace(snapshot, wanted)])
    }

    /// Our ApisixRoute leads where the user's leads until it is deleted with the Canary: the Services behind it may be deleted first.
    /// (Flagger leaves it as it is.)
    fn reverted(&self, snapshot: &Snapshot) -> Option<Write> {
        let canary = &snapshot.canary;
        let mut wanted = ours(snapshot).ok()?.clone();
        let backends = our_backends(canary, &mut wanted)?;
        backends.retain(|backend| backend["serviceName"] == canary.primary_name());
        for backend in backends {
            backend["serviceName"] = json!(canary.apex_name());
            backend["weight"] = json!(100);
        }
        Some(replace(snapshot, wanted))
    }
}

/// The name of the user's ApisixRoute.
fn source_name(canary: &Canary) -> Option<&str> {
    let name = canary.spec.route_ref.as_ref()?.name.as_str();
    (!name.is_empty()).then_some(name)
}

/// The name of ours beside the user's `source`.
fn name(canary: &Canary, source: &str) -> String {
    format!("{source}-{}-canary", canary.apex_name())
}

fn own_name(canary: &Canary) -> String {
    name(canary, source_name(canary).unwrap_or_default())
}

/// The user's ApisixRoute.
fn source(snapshot: &Snapshot) -> Result<&Value, RouteError> {
    let name = source_name(&snapshot.canary).ok_or_else(|| {
        RouteError::InvalidCanary(
            "apisix route selector is empty: spec.routeRef.name must name an ApisixRoute"
                .to_owned(),
        )
    })?;
    let source = snapshot.object(KIND, name);
    source.ok_or_else(|| missing(snapshot, name))
}

/// Our ApisixRoute.
fn ours(snapshot: &Snapshot) -> Result<&Value, RouteError> {
    let name = own_name(&snapshot.canary);
    let live = snapshot.object(KIND, &name);
    live.ok_or_else(|| missing(snapshot, &name))
}

fn full_name(snapshot: &Snapshot, name: &str) -> String {
    format!("APISIX route {name}.{}", snapshot.namespace())
}

fn missing(snapshot: &Snapshot, name: &str) -> RouteError {
    not_found(full_name(snapshot, name), "get query error:", KIND, name)
}

/// The write that replaces our ApisixRoute.
fn replace(snapshot: &Snapshot, wanted: Value) -> Write {
    write(snapshot, Action::Replace(wanted), "update error: ")
}

fn write(snapshot: &Snapshot, action: Action, failure: &str) -> Write {
    let name = own_name(&snapshot.canary);
    Write {
        object: snapshot.reference(KIND, &name),
        action,
        failure: format!("{} {failure}", full_name(snapshot, &name)),
    }
}

/// The two sides with their weights, the primary first.
fn sides(canary: &Canary, weights: &Weights) -> [(String, Percent); 2] {
    [
        (canary.primary_name(), weights.primary),
        (canary.canary_name(), weights.canary),
    ]
}

/// The spec of our ApisixRoute. Its other fields are the user's, except for rules of streams, which would exist twice. (Flagger copies
/// them, and drops fields that it does not know.)
fn spec(snapshot: &Snapshot, source: &Value, weights: &Weights) -> Result<Value, RouteError> {
    let (mut rule, backend) = source_rule(snapshot, source)?;
    rule["priority"] = json!(PRIORITY);
    if rule.get("websocket").is_none() {
        rule["websocket"] = json!(false);
    }
    let side = |(name, weight): (String, Percent)| {
        let mut side = backend.clone();
        side["serviceName"] = json!(name);
        side["weight"] = json!(weight);
        side
    };
    rule["backends"] = json!(sides(&snapshot.canary, weights).map(side));
    let mut spec = source["spec"].clone();
    spec["http"] = json!([rule]);
    if let Some(fields) = spec.as_object_mut() {
        fields.remove("stream");
    }
    Ok(spec)
}

/// The user's rule that leads to the apex Service, and its one backend.
fn source_rule(snapshot: &Snapshot, source: &Value) -> Result<(Value, Value), RouteError> {
    let apex = snapshot.canary.apex_name();
    let full = full_name(snapshot, source_name(&snapshot.canary).unwrap_or_default());
    let invalid = |why: String| Err(RouteError::InvalidCanary(why));
    if items(source, "/spec/http").next().is_none() {
        return invalid(format!("{full}'s spec.http is empty"));
    }
    let leads = |rule: &&Value| {
        let mut backends = items(rule, "/backends");
        backends.any(|backend| backend["serviceName"] == apex)
    };
    let Some(rule) = items(source, "/spec/http").find(leads) else {
        let full = full.replacen("APISIX", "apisix", 1);
        return invalid(format!("Can not find {apex} backend on {full} "));
    };
    match rule["backends"].as_array().map(Vec::as_slice) {
        Some([backend]) => Ok((rule.clone(), backend.clone())),
        _ => {
            let rule = rule["name"].as_str().unwrap_or_default();
            invalid(format!(
                "{full}'s http route {rule} only one http backend is supported"
            ))
        }
    }
}

/// The backends of our rule: the first that leads to the primary.
fn our_backends<'a>(canary: &Canary, route: &'a mut Value) -> Option<&'a mut Vec<Value>> {
    let rules = route.pointer_mut("/spec/http")?.as_array_mut()?;
    let mut lists =
        { rules.iter_mut() }.filter_map(|rule| rule.get_mut("backends")?.as_array_mut());
    lists
        .find(|backends| { backends.iter() }.any(|one| one["serviceName"] == canary.primary_name()))
}

/// The weights of our ApisixRoute; `None` if it does not lead to the primary.
fn routed(canary: &Canary, live: &Value) -> Option<Weights> {
    let [primary, version] = sides(canary, &Weights::PRIMARY).map(|(name, _)| name);
    let of = |rule: &Value, name: &str| {
        let mut backends = items(rule, "/backends");
        let backend = backends.find(|backend| backend["serviceName"] == name)?;
        Some(percent(backend.get("weight")))
    };
    let mut rules = items(live, "/spec/http");
    let (rule, primary) = rules.find_map(|rule| Some((rule, of(rule, &primary)?)))?;
    let version = of(rule, &version).unwrap_or(0);
    Weights::of_percents(primary, version)
}

#[cfg(test)]
mod tests;
