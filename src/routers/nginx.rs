//! NGINX: a second Ingress beside the user's, whose annotations split the traffic (Flagger: `pkg/router/ingress.go`).
//!
//! The user's Ingress is only read. The spec of the second Ingress is ours, and so are its annotations that begin with `PREFIX/canary`.
//!
//! Each path leads to the port of the Service that it has in the user's Ingress, so all ports are routed. The paths are the user's, too:
//! `spec.service.match` is not used.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::{
    RouteError, Router,
    conditions::{Field, check, keys, of_test},
    ingress::{self, BACKEND, KIND, canary_ingress, leads_to, paths_mut, replace, source_name},
    route::{by_name, metadata, new_object, text},
};
use crate::{
    api::{canary::Canary, percent::Percent},
    snapshot::{ObjectRef, Snapshot, Weights, Write},
    workload::metadata::{LAST_APPLIED, with_flux},
};

/// Flagger's word for both Ingresses.
const NOUN: &str = "ingress";
/// The sum of tenths of a percent. Without the annotation `canary-weight-total`, NGINX takes the sum 100.
const THOUSAND: u16 = 1000;

/// The router of ingress-nginx.
#[derive(Clone, Copy, Debug)]
pub struct Nginx;

impl Router for Nginx {
    fn objects(&self, canary: &Canary) -> BTreeSet<ObjectRef> {
        ingress::objects(canary)
    }

    fn repairs(
        &self,
        snapshot: &Snapshot,
        _selector: &(String, String),
        weights: &Weights,
    ) -> Result<Vec<Write>, RouteError> {
        conditions(&snapshot.canary)?;
        let (source, name) = source(snapshot)?;
        let spec = spec(&snapshot.canary, source)?;
        let Some(live) = snapshot.object(KIND, &name) else {
            let labels = metadata(source, "labels");
            let mut annotations = metadata(source, "annotations");
            annotations.remove(LAST_APPLIED);
            let annotations = annotated(snapshot, annotations, weights)?;
            let object = new_object(snapshot, KIND, &name, [labels, annotations], spec);
            return Ok(vec![ingress::create(snapshot, &name, object)]);
        };
        let live_annotations = metadata(live, "annotations");
        // If the weights cannot be read, they become those given.
        let now = routed(snapshot, live).unwrap_or(*weights);
        let is_annotated = annotated(snapshot, live_annotations.clone(), &now)? == live_annotations;
        if is_annotated && live.get("spec") == Some(&spec) {
            return Ok(Vec::new());
        }
        let mut wanted = live.clone();
        wanted["spec"] = spec;
        let annotations = annotated(snapshot, live_annotations, weights)?;
        wanted["metadata"]["annotations"] = Value::Object(annotations);
        Ok(vec![replace(snapshot, &name, wanted)])
    }

    /// The weights of the annotations. During an A/B test the canary has all the traffic.
    fn current_weights(&self, snapshot: &Snapshot) -> Result<Weights, RouteError> {
        let (_, live) = canary_ingress_of(snapshot)?;
        routed(snapshot, live)
    }

    fn set_weights(
        &self,
        snapshot: &Snapshot,
        weights: &Weights,
    ) -> Result<Vec<Write>, RouteError> {
        let (name, live) = canary_ingress_of(snapshot)?;
        let before = metadata(live, "annotations");
        let annotations = annotated(snapshot, before.clone(), weights)?;
        if annotations == before {
            return Ok(Vec::new());
        }
        let mut wanted = live.clone();
        wanted["metadata"]["annotations"] = Value::Object(annotations);
        Ok(vec![replace(snapshot, &name, wanted)])
    }

    fn splits_tenths(&self) -> bool {
        true
    }

    /// If our Ingress has a share of the traffic, it leads where the user's leads until it is deleted with the Canary: the Service behind
    /// it may be deleted first. (Flagger leaves it as it is.)
    fn reverted(&self, snapshot: &Snapshot) -> Option<Write> {
        let canary = &snapshot.canary;
        let name = canary_ingress(source_name(canary)?);
        let live = snapshot.object(KIND, &name)?;
        if routed(snapshot, live).ok()? == Weights::PRIMARY {
            return None;
        }
        let mut wanted = live.clone();
        let spec = wanted.get_mut("spec")?;
        rename_backend(spec, &canary.canary_name(), canary.apex_name());
        Some(replace(snapshot, &name, wanted))
    }
}

/// The user's Ingress, and the name of ours.
fn source(snapshot: &Snapshot) -> Result<(&Value, String), RouteError> {
    ingress::source(snapshot, NOUN)
}

/// The name of our Ingress, and the Ingress as it is.
fn canary_ingress_of(snapshot: &Snapshot) -> Result<(String, &Value), RouteError> {
    let (_, name) = source(snapshot)?;
    let live = snapshot.object(KIND, &name);
    let live = live.ok_or_else(|| ingress::missing(snapshot, NOUN, &name))?;
    Ok((name, live))
}

/// The spec of the user's Ingress, with the canary's Service in place of the apex.
fn spec(canary: &Canary, source: &Value) -> Result<Value, RouteError> {
    let mut spec = source.get("spec").cloned().unwrap_or(json!({}));
    let apex = canary.apex_name();
    if rename_backend(&mut spec, apex, &canary.canary_name()) {
        return Ok(spec);
    }
    Err(ingress::no_backend(canary))
}

/// Replaces a Service by another in all paths. Returns whether a path led to it.
fn rename_backend(spec: &mut Value, from: &str, to: &str) -> bool {
    let mut found = false;
    for path in paths_mut(spec).flatten() {
        if let Some(name) = path.pointer_mut(BACKEND)
            && *name == from
        {
            *name = json!(to);
            found = true;
        }
    }
    found
}

/// These annotations, with ours replaced by those for these weights.
fn annotated(
    snapshot: &Snapshot,
    mut annotations: Map<String, Value>,
    weights: &Weights,
) -> Result<Map<String, Value>, RouteError> {
    let key = |name: &str| format!("{}/{name}", snapshot.settings.ingress_annotations_prefix);
    let ours = key("canary");
    annotations.retain(|name, _| !name.contains(&ours));
    annotations.insert(ours, json!("true"));
    let [primary, mut weight] = weights.parts();
    let total = primary + weight;
    // A rollback works even if NGINX cannot express the test: no request reaches the canary then.
    if weight > 0 {
        let conditions = conditions(&snapshot.canary)?;
        if !conditions.is_empty() {
            weight = 0;
        }
        let conditions = conditions.into_iter();
        annotations.extend(conditions.map(|(name, value)| (key(&name), value)));
    }
    annotations.insert(key("canary-weight"), json!(weight.to_string()));
    if total == THOUSAND {
        annotations.insert(key("canary-weight-total"), json!(total.to_string()));
    }
    Ok(with_flux(annotations))
}

/// The annotations for an A/B test: NGINX sends requests with the header or the cookie to the canary. A test that the annotations cannot
/// express is an error. (Flagger leaves a part of such a test out, a random one if there are several headers.)
fn conditions(canary: &Canary) -> Result<Map<String, Value>, RouteError> {
    let test = of_test(canary);
    if !test.is_empty() {
        // The paths are those of the user's Ingress. Conditions of the service would not narrow the test.
        check(canary, Field::Service, "an A/B test on NGINX", &[])?;
    }
    let mut all = Map::new();
    for condition in test {
        if let Some(key) = keys(condition).find(|key| *key != "headers") {
            return Err(inexpressible(&format!("a condition has {key}")));
        }
        let headers = by_name(condition.get("headers"));
        if headers.is_empty() {
            return Err(inexpressible("a condition names no header"));
        }
        if headers.len() > 1 && headers.keys().any(|name| *name == "cookie") {
            return Err(inexpressible(
                "a condition names a header and a cookie, of which NGINX wants one",
            ));
        }
        for (name, value) in headers {
            let annotations = match (name.as_str(), text(value, "exact"), text(value, "regex")) {
                ("cookie", Some(cookie), _) => vec![("canary-by-cookie", cookie)],
                (header, Some(exact), _) => vec![
                    ("canary-by-header", header),
                    ("canary-by-header-value", exact),
                ],
                ("cookie", None, _) => return Err(inexpressible("cookie is not exact")),
                (header, None, Some(regex)) => vec![
                    ("canary-by-header", header),
                    ("canary-by-header-pattern", regex),
                ],
                (header, None, None) => {
                    return Err(inexpressible(&format!(
                        "{header} is neither exact nor a regex"
                    )));
                }
            };
            for (key, value) in annotations {
                if all.insert(key.to_owned(), json!(value)).is_some() {
                    return Err(inexpressible(
                        "there are several headers, or several cookies",
                    ));
                }
            }
        }
    }
    Ok(all)
}

fn inexpressible(why: &str) -> RouteError {
    RouteError::InvalidCanary(format!(
        "spec.analysis.match: NGINX tells requests apart by one header (exact or regex) or one cookie (exact: the cookie's name), but {why}"
    ))
}

/// The weights of our Ingress.
fn routed(snapshot: &Snapshot, live: &Value) -> Result<Weights, RouteError> {
    let canary = &snapshot.canary;
    let name = live.pointer("/metadata/name").and_then(Value::as_str);
    if !leads_to(live, &canary.canary_name()) {
        return Err(RouteError::NoWeights(format!(
            "ingress {}.{} does not lead to {}",
            name.unwrap_or_default(),
            snapshot.namespace(),
            canary.canary_name()
        )));
    }
    let annotations = metadata(live, "annotations");
    let annotation = |name: &str| {
        let key = format!("{}/{name}", snapshot.settings.ingress_annotations_prefix);
        let text = annotations.get(&key).and_then(Value::as_str);
        text.filter(|text| !text.is_empty())
    };
    let mut conditions = ["canary-by-cookie", "canary-by-header"].into_iter();
    if !of_test(canary).is_empty() && conditions.any(|name| annotation(name).is_some()) {
        return Ok(Weights::CANARY);
    }
    let weight = annotation("canary-weight").unwrap_or("0");
    let weight: i64 = weight.parse().map_err(|_| {
        RouteError::NoWeights(format!(
            "failed to convert {weight} to int: strconv.Atoi: parsing {weight:?}: invalid syntax"
        ))
    })?;
    Ok(Weights::canary(match annotation("canary-weight-total") {
        Some("1000") => Percent::of_tenths(u64::try_from(weight).unwrap_or(0)),
        _ => Percent::nearest(weight),
    }))
}

#[cfg(test)]
mod tests;
