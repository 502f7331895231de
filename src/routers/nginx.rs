//! NGINX: a second Ingress beside the user's, whose annotations share the traffic (`pkg/router/ingress.go`).
//!
//! The user's Ingress is only read. Of the second one the spec is ours, and the annotations that begin with the prefix and `/canary`.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::{LAST_APPLIED, by_name, items, made, metadata, named, not_found, tested, text};
use crate::{
    api::canary::Canary,
    snapshot::{Action, Kind, ObjectRef, Snapshot, Weights, Write},
    workload::metadata::with_flux,
};

/// The user's Ingress and ours.
pub fn objects(canary: &Canary) -> BTreeSet<ObjectRef> {
    let names = source_name(canary).map(|name| [name.to_owned(), canary_ingress(name)]);
    let names = names.into_iter().flatten();
    names
        .map(|name| named(canary, Kind::Ingress, &name))
        .collect()
}

/// Makes our Ingress, or repairs it, with these weights.
pub fn reconcile(snapshot: &Snapshot, weights: &Weights) -> Result<Vec<Write>, String> {
    conditions(tested(&snapshot.canary))?;
    let (source, name) = source(snapshot)?;
    let spec = spec(&snapshot.canary, source)?;
    let Some(live) = snapshot.object(Kind::Ingress, &name) else {
        let labels = metadata(source, "labels");
        let mut annotations = metadata(source, "annotations");
        annotations.remove(LAST_APPLIED);
        let annotations = annotated(snapshot, annotations, weights)?;
        let action = Action::Create(made(
            snapshot,
            Kind::Ingress,
            &name,
            [labels, annotations],
            spec,
        ));
        return Ok(vec![route_write(snapshot, &name, action, "create error: ")]);
    };
    let live_annotations = metadata(live, "annotations");
    // The share that is routed, if it can be told.
    let now = routed(snapshot, live).unwrap_or(*weights);
    let is_annotated = annotated(snapshot, live_annotations.clone(), &now)? == live_annotations;
    if is_annotated && live.get("spec") == Some(&spec) {
        return Ok(Vec::new());
    }
    let mut wanted = live.clone();
    wanted["spec"] = spec;
    let annotations = annotated(snapshot, live_annotations, weights)?;
    wanted["metadata"]["annotations"] = Value::Object(annotations);
    let action = Action::Replace(wanted);
    Ok(vec![route_write(snapshot, &name, action, "update error: ")])
}

/// The weight among the annotations; an A/B test under way is all of its traffic.
pub fn read(snapshot: &Snapshot) -> Result<Weights, String> {
    let (_, name) = source(snapshot)?;
    let live = snapshot
        .object(Kind::Ingress, &name)
        .ok_or_else(|| missing(snapshot, &name))?;
    routed(snapshot, live)
}

/// Routes these weights.
pub fn set(snapshot: &Snapshot, weights: &Weights) -> Result<Vec<Write>, String> {
    let (_, name) = source(snapshot)?;
    let live = snapshot
        .object(Kind::Ingress, &name)
        .ok_or_else(|| missing(snapshot, &name))?;
    let before = metadata(live, "annotations");
    let annotations = annotated(snapshot, before.clone(), weights)?;
    if annotations == before {
        return Ok(Vec::new());
    }
    let mut wanted = live.clone();
    wanted["metadata"]["annotations"] = Value::Object(annotations);
    let action = Action::Replace(wanted);
    Ok(vec![route_write(snapshot, &name, action, "update error: ")])
}

/// Leads our Ingress where the user's leads, if it has a share of the traffic: it goes with the Canary, and so does the Service behind
/// it, who knows which first. (Flagger leaves it as it is.)
pub fn restore(snapshot: &Snapshot) -> Option<Write> {
    let canary = &snapshot.canary;
    let name = canary_ingress(source_name(canary)?);
    let live = snapshot.object(Kind::Ingress, &name)?;
    if routed(snapshot, live).ok()? == Weights::PRIMARY {
        return None;
    }
    let mut wanted = live.clone();
    rename(
        wanted.get_mut("spec")?,
        &canary.canary_name(),
        canary.apex_name(),
    );
    let action = Action::Replace(wanted);
    Some(route_write(snapshot, &name, action, "update error: "))
}

/// The name of the user's Ingress.
fn source_name(canary: &Canary) -> Option<&str> {
    let name = canary.spec.ingress_ref.as_ref()?.name.as_str();
    (!name.is_empty()).then_some(name)
}

/// The user's Ingress, and the name of ours; or what a user reads.
fn source(snapshot: &Snapshot) -> Result<(&Value, String), String> {
    let name = source_name(&snapshot.canary).ok_or("ingress selector is empty")?;
    let source = snapshot.object(Kind::Ingress, name);
    let source = source.ok_or_else(|| missing(snapshot, name))?;
    Ok((source, canary_ingress(name)))
}

/// The name of ours.
fn canary_ingress(source: &str) -> String {
    format!("{source}-canary")
}

fn missing(snapshot: &Snapshot, name: &str) -> String {
    let why = not_found(Kind::Ingress, name);
    format!(
        "ingress {name}.{} get query error: {why}",
        snapshot.namespace()
    )
}

fn route_write(snapshot: &Snapshot, name: &str, action: Action, failure: &str) -> Write {
    Write {
        object: snapshot.reference(Kind::Ingress, name),
        action,
        failure: format!("ingress {name}.{} {failure}", snapshot.namespace()),
    }
}

/// The spec of the user's Ingress, with the canary's Service in place of the apex.
fn spec(canary: &Canary, source: &Value) -> Result<Value, String> {
    let mut spec = source.get("spec").cloned().unwrap_or(json!({}));
    let apex = canary.apex_name();
    if rename(&mut spec, apex, &canary.canary_name()) {
        return Ok(spec);
    }
    let name = source_name(canary).unwrap_or_default();
    Err(format!("backend {apex} not found in ingress {name}"))
}

/// Puts a Service in place of another wherever a path leads to it; whether one did.
fn rename(spec: &mut Value, from: &str, to: &str) -> bool {
    let mut found = false;
    let rules = spec.get_mut("rules").and_then(Value::as_array_mut);
    for rule in rules.into_iter().flatten() {
        let paths = rule.pointer_mut("/http/paths");
        let paths = paths.and_then(Value::as_array_mut);
        for path in paths.into_iter().flatten() {
            if let Some(name) = path.pointer_mut("/backend/service/name")
                && *name == from
            {
                *name = json!(to);
                found = true;
            }
        }
    }
    found
}

/// These annotations with what NGINX needs to know for these weights in place of what it knew.
fn annotated(
    snapshot: &Snapshot,
    mut annotations: Map<String, Value>,
    weights: &Weights,
) -> Result<Map<String, Value>, String> {
    let key = |name: &str| format!("{}/{name}", snapshot.settings.ingress_annotations_prefix);
    let ours = key("canary");
    annotations.retain(|name, _| !name.contains(&ours));
    annotations.insert(ours, json!("true"));
    let mut weight = weights.canary;
    // The way back is open whatever the test is: nobody meets the version then.
    if weight > 0 {
        let conditions = conditions(tested(&snapshot.canary))?;
        if !conditions.is_empty() {
            weight = 0;
        }
        let conditions = conditions.into_iter();
        annotations.extend(conditions.map(|(name, value)| (key(&name), value)));
    }
    annotations.insert(key("canary-weight"), json!(weight.to_string()));
    Ok(with_flux(annotations))
}

/// The conditions of a test in NGINX's words: it gives the version to whoever has the header or the cookie. What cannot be said is an
/// error; Flagger leaves a part of it out, at random where there are several headers.
fn conditions(tested: &[Value]) -> Result<Map<String, Value>, String> {
    let mut all = Map::new();
    for condition in tested {
        let headers = by_name(condition.get("headers"));
        if headers.is_empty() {
            return Err(unsaid("a condition names no header"));
        }
        for (name, value) in headers {
            let said = match (name.as_str(), text(value, "exact"), text(value, "regex")) {
                ("cookie", Some(cookie), _) => vec![("canary-by-cookie", cookie)],
                (header, Some(exact), _) => vec![
                    ("canary-by-header", header),
                    ("canary-by-header-value", exact),
                ],
                ("cookie", None, _) => return Err(unsaid("cookie is not exact")),
                (header, None, Some(regex)) => vec![
                    ("canary-by-header", header),
                    ("canary-by-header-pattern", regex),
                ],
                (header, None, None) => {
                    return Err(unsaid(&format!("{header} is neither exact nor a regex")));
                }
            };
            for (key, value) in said {
                if all.insert(key.to_owned(), json!(value)).is_some() {
                    return Err(unsaid("there are several headers, or several cookies"));
                }
            }
        }
    }
    Ok(all)
}

fn unsaid(why: &str) -> String {
    format!(
        "spec.analysis.match: NGINX tells requests apart by one header (exact or regex) or one cookie (exact: the cookie's name), but {why}"
    )
}

/// The weights that our Ingress has.
fn routed(snapshot: &Snapshot, live: &Value) -> Result<Weights, String> {
    let canary = &snapshot.canary;
    let name = live.pointer("/metadata/name").and_then(Value::as_str);
    let leads = items(live, "/spec/rules")
        .flat_map(|rule| items(rule, "/http/paths"))
        .any(|path| path["backend"]["service"]["name"] == canary.canary_name());
    if !leads {
        return Err(format!(
            "ingress {}.{} does not lead to {}",
            name.unwrap_or_default(),
            snapshot.namespace(),
            canary.canary_name()
        ));
    }
    let annotations = metadata(live, "annotations");
    let annotation = |name: &str| {
        let key = format!("{}/{name}", snapshot.settings.ingress_annotations_prefix);
        let text = annotations.get(&key).and_then(Value::as_str);
        text.filter(|text| !text.is_empty())
    };
    let mut conditions = ["canary-by-cookie", "canary-by-header"].into_iter();
    if !tested(canary).is_empty() && conditions.any(|name| annotation(name).is_some()) {
        return Ok(Weights::CANARY);
    }
    let weight = annotation("canary-weight").unwrap_or("0");
    let weight: i64 = weight.parse().map_err(|_| {
        format!(
            "failed to convert {weight} to int: strconv.Atoi: parsing {weight:?}: invalid syntax"
        )
    })?;
    Ok(Weights::canary(
        u8::try_from(weight.clamp(0, 100)).unwrap_or(0),
    ))
}

#[cfg(test)]
mod tests;
