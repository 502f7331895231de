//! Skipper: a second Ingress beside the user's, with a path to each side (Flagger: `pkg/router/skipper.go`).
//!
//! The user's Ingress is only read. The spec of the second Ingress is ours, and so are the annotation with the weights and the first
//! predicate: `Weight(100)` makes Skipper prefer the second Ingress to the user's, `False()` makes it ignore the second one. The other
//! predicates are the user's. The other annotations follow those of the user's Ingress: clients would bypass a filter that only the user's
//! Ingress has, such as one that authenticates them. An annotation that the user removes stays: others may have added it to ours.
//!
//! Each path leads to the port of the Service that it has in the user's Ingress, so all ports are routed. The paths are the user's, too:
//! `spec.service.match` is not used.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::{
    RouteError, Router,
    conditions::refuse_test,
    ingress::{
        self, BACKEND, KIND, canary_ingress, is_to, leads_to, paths_mut, replace, source_name,
    },
    route::{metadata, new_object},
};
use crate::{
    api::{canary::Canary, percent::Percent},
    snapshot::{ObjectRef, Snapshot, Weights, Write},
    workload::metadata::LAST_APPLIED,
};

/// The annotation with the weight of each Service, as JSON.
const WEIGHTS: &str = "zalando.org/backend-weights";
/// The annotation with the conditions under which Skipper takes the paths of an Ingress.
const PREDICATE: &str = "zalando.org/skipper-predicate";
/// The predicate that makes Skipper prefer our Ingress.
const PREFERRED: &str = "Weight(100)";
/// The predicate that makes Skipper ignore our Ingress.
const IGNORED: &str = "False()";

/// The router of Skipper.
#[derive(Clone, Copy, Debug)]
pub struct Skipper;

impl Router for Skipper {
    fn objects(&self, canary: &Canary) -> BTreeSet<ObjectRef> {
        ingress::objects(canary)
    }

    fn repairs(
        &self,
        snapshot: &Snapshot,
        _selector: &(String, String),
        weights: &Weights,
    ) -> Result<Vec<Write>, RouteError> {
        let canary = &snapshot.canary;
        let (source, name) = ingress::source(snapshot, "apexIngress")?;
        refuse_test(canary, &format!("ingress {name}.{}", snapshot.namespace()))?;
        let spec = spec(canary, source)?;
        let mut users = metadata(source, "annotations");
        users.remove(LAST_APPLIED);
        let Some(live) = snapshot.object(KIND, &name) else {
            let annotations = annotated(canary, users.clone(), &users, weights, PREFERRED);
            let metadata = [metadata(source, "labels"), annotations];
            let object = new_object(snapshot, KIND, &name, metadata, spec);
            return Ok(vec![ingress::create(snapshot, &name, object)]);
        };
        let now = metadata(live, "annotations");
        let follows = has_those_of(&now, &users) && is_annotated(canary, &now, &users);
        if follows && live.get("spec") == Some(&spec) {
            return Ok(Vec::new());
        }
        let all = now.into_iter().chain(users.clone()).collect();
        let annotations = annotated(canary, all, &users, weights, marker(weights));
        let mut wanted = live.clone();
        wanted["spec"] = spec;
        wanted["metadata"]["annotations"] = Value::Object(annotations);
        Ok(vec![replace(snapshot, &name, wanted)])
    }

    fn current_weights(&self, snapshot: &Snapshot) -> Result<Weights, RouteError> {
        let (name, live) = live(snapshot)?;
        let service = snapshot.canary.canary_name();
        let weights = if leads_to(live, &service) {
            routed(&snapshot.canary, &metadata(live, "annotations"))
        } else {
            Err(format!("does not lead to {service}"))
        };
        let full = || format!("ingress {name}.{}", snapshot.namespace());
        weights.map_err(|why| RouteError::NoWeights(format!("{} {why}", full())))
    }

    fn set_weights(
        &self,
        snapshot: &Snapshot,
        weights: &Weights,
    ) -> Result<Vec<Write>, RouteError> {
        let (name, live) = live(snapshot)?;
        let canary = &snapshot.canary;
        let now = metadata(live, "annotations");
        if routed(canary, &now).as_ref() == Ok(weights) && is_annotated(canary, &now, &now) {
            return Ok(Vec::new());
        }
        let annotations = annotated(canary, now.clone(), &now, weights, marker(weights));
        let mut wanted = live.clone();
        wanted["metadata"]["annotations"] = Value::Object(annotations);
        Ok(vec![replace(snapshot, &name, wanted)])
    }

    /// Skipper ignores our Ingress until it is deleted with the Canary: the Services behind it may be deleted first. (Flagger deletes it,
    /// and never ends if it is gone.)
    fn reverted(&self, snapshot: &Snapshot) -> Option<Write> {
        let (name, live) = live(snapshot).ok()?;
        if !leads_to(live, &snapshot.canary.canary_name()) {
            return None;
        }
        let now = metadata(live, "annotations");
        let annotations = annotated(
            &snapshot.canary,
            now.clone(),
            &now,
            &Weights::PRIMARY,
            IGNORED,
        );
        let mut wanted = live.clone();
        wanted["metadata"]["annotations"] = Value::Object(annotations);
        (wanted != *live).then(|| replace(snapshot, &name, wanted))
    }
}

/// The name of our Ingress, and the Ingress as it is. A rollback does not need the user's.
fn live(snapshot: &Snapshot) -> Result<(String, &Value), RouteError> {
    let source = source_name(&snapshot.canary).ok_or_else(ingress::unnamed)?;
    let name = canary_ingress(source);
    let live = snapshot.object(KIND, &name);
    let live = live.ok_or_else(|| ingress::missing(snapshot, "ingress", &name))?;
    Ok((name, live))
}

/// The spec of the user's Ingress. Each path to the apex leads to the primary, and a copy of it, after the others, to the canary.
fn spec(canary: &Canary, source: &Value) -> Result<Value, RouteError> {
    let mut spec = source.get("spec").cloned().unwrap_or(json!({}));
    let apex = canary.apex_name();
    let mut found = false;
    for paths in paths_mut(&mut spec) {
        let to = |mut path: Value, service: String| {
            if let Some(name) = path.pointer_mut(BACKEND) {
                *name = json!(service);
            }
            path
        };
        let ours = paths.iter().filter(|path| is_to(path, apex)).cloned();
        let copies: Vec<_> = ours.map(|path| to(path, canary.canary_name())).collect();
        for path in paths.iter_mut().filter(|path| is_to(path, apex)) {
            *path = to(path.take(), canary.primary_name());
            found = true;
        }
        paths.extend(copies);
    }
    if found {
        return Ok(spec);
    }
    // Flagger creates an Ingress without a path to the canary.
    Err(ingress::no_backend(canary))
}

/// The predicate that begins those of our Ingress. Without a share for the canary, the user's Ingress is enough.
fn marker(weights: &Weights) -> &'static str {
    if weights.canary == Percent::ZERO {
        IGNORED
    } else {
        PREFERRED
    }
}

/// These annotations, with ours for these weights. The predicates after the marker are those of `users`. (Flagger ends its process if there
/// are no annotations.)
fn annotated(
    canary: &Canary,
    mut annotations: Map<String, Value>,
    users: &Map<String, Value>,
    weights: &Weights,
    marker: &str,
) -> Map<String, Value> {
    let shares =
        json!({canary.canary_name(): weights.canary, canary.primary_name(): weights.primary});
    annotations.insert(WEIGHTS.to_owned(), json!(shares.to_string()));
    let predicate = marked(marker, text_of(users, PREDICATE));
    annotations.insert(PREDICATE.to_owned(), json!(predicate));
    annotations
}

/// Whether these annotations have those of the user's Ingress, apart from those that are ours.
fn has_those_of(annotations: &Map<String, Value>, users: &Map<String, Value>) -> bool {
    let mut followed = users
        .iter()
        .filter(|(name, _)| ![WEIGHTS, PREDICATE].contains(&name.as_str()));
    followed.all(|(name, value)| annotations.get(name) == Some(value))
}

/// Whether our annotations have weights, and predicates that fit. Without a share for the canary, it does not matter whether Skipper prefers
/// our Ingress: both lead to the primary.
fn is_annotated(
    canary: &Canary,
    annotations: &Map<String, Value>,
    users: &Map<String, Value>,
) -> bool {
    let Ok(weights) = routed(canary, annotations) else {
        return false;
    };
    let now = text_of(annotations, PREDICATE);
    let mut fitting = [marker(&weights), PREFERRED].into_iter();
    fitting.any(|marker| now == marked(marker, text_of(users, PREDICATE)))
}

/// The text of an annotation; empty if it is missing.
fn text_of<'a>(annotations: &'a Map<String, Value>, name: &str) -> &'a str {
    let text = annotations.get(name).and_then(Value::as_str);
    text.unwrap_or_default()
}

/// These predicates with this marker in place of those that they have.
fn marked(marker: &str, predicates: &str) -> String {
    let users = split(predicates).into_iter();
    let users = users.filter(|one| !["", PREFERRED, IGNORED].contains(one));
    let all: Vec<_> = [marker].into_iter().chain(users).collect();
    all.join(" && ")
}

/// The predicates that `&&` connects. (Flagger also splits where a text in quotes or a regular expression contains it.)
fn split(predicates: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut quote, mut is_escaped) = (0, None, false);
    for (at, letter) in predicates.char_indices() {
        match quote {
            _ if is_escaped => is_escaped = false,
            Some(_) if letter == '\\' => is_escaped = true,
            Some(end) if letter == end => quote = None,
            None if ['"', '`', '/'].contains(&letter) => quote = Some(letter),
            None if at >= start && predicates[at..].starts_with("&&") => {
                parts.push(predicates[start..at].trim());
                start = at + 2;
            }
            _ => {}
        }
    }
    parts.push(predicates[start..].trim());
    parts
}

/// The weights in the annotation, or the reason why there are none, as Flagger names it.
fn routed(canary: &Canary, annotations: &Map<String, Value>) -> Result<Weights, String> {
    let text = text_of(annotations, WEIGHTS);
    let weights: Value = serde_json::from_str(text)
        .map_err(|why| format!("get backendWeights error: {WEIGHTS} {text:?}: {why}"))?;
    let share = |service: &str, which: &str| {
        let share = weights.get(service).and_then(Value::as_u64);
        let share = share.and_then(|share| u8::try_from(share).ok());
        share.ok_or_else(|| format!("could not get weights[{which}]"))
    };
    let primary = share(&canary.primary_name(), "primarySvcName")?;
    let canary = share(&canary.canary_name(), "canarySvcName")?;
    Weights::of_percents(primary, canary).ok_or_else(|| format!("{WEIGHTS} gives nobody a share"))
}

#[cfg(test)]
mod tests;
