//! Gateway API: one HTTPRoute (`pkg/router/gateway_api.go`, `gateway_api_v1beta1.go`).
//!
//! `spec.rules`, `spec.parentRefs` and `spec.hostnames` are ours; what else an HTTPRoute has stays.

mod defaults;
mod filters;
mod matches;
mod rules;

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::{
    affinity::Sides, apex_metadata, applied_spec, full, items, made, metadata, named, percent, put,
};
use crate::{
    api::canary::Canary,
    snapshot::{Action, Kind, ObjectRef, Snapshot, Weights, Write},
    workload::metadata::is_owned,
};
use defaults::defaulted;

/// The part of a spec that is ours.
const OURS: [&str; 3] = ["parentRefs", "hostnames", "rules"];

/// The versions of the API. The older one has no timeouts, no CORS and no cookie of the primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// `v1`
    V1,
    /// `v1beta1`
    V1Beta1,
}

impl Version {
    const fn kind(self) -> Kind {
        match self {
            Self::V1 => Kind::HttpRoute,
            Self::V1Beta1 => Kind::HttpRouteV1Beta1,
        }
    }

    /// Whose clients can be kept.
    pub const fn sides(self) -> Sides {
        match self {
            Self::V1 => Sides::Both,
            Self::V1Beta1 => Sides::Canary,
        }
    }
}

/// The object of a canary.
pub fn objects(version: Version, canary: &Canary) -> BTreeSet<ObjectRef> {
    [named(canary, version.kind(), canary.apex_name())].into()
}

/// Makes the route, or repairs it, with these weights.
pub fn reconcile(
    version: Version,
    snapshot: &Snapshot,
    selector: &(String, String),
    weights: &Weights,
) -> Result<Vec<Write>, String> {
    let canary = &snapshot.canary;
    let spec = spec(version, canary, weights)?;
    let (labels, annotations) = apex_metadata(snapshot, selector);
    let Some(live) = live(version, snapshot) else {
        let spec = Value::Object(spec);
        let metadata = [labels, annotations];
        let object = made(snapshot, version.kind(), canary.apex_name(), metadata, spec);
        let action = Action::Create(object);
        return Ok(vec![route_write(
            version,
            snapshot,
            action,
            "create error: ",
        )]);
    };
    let live_annotations = metadata(live, "annotations");
    let mut annotations_too = live_annotations.clone();
    annotations_too.extend(annotations);
    let drifted = !is_in_place(version, canary, live)?;
    if !drifted && metadata(live, "labels") == labels && live_annotations == annotations_too {
        return Ok(Vec::new());
    }
    let mut wanted = live.clone();
    wanted["metadata"]["labels"] = Value::Object(labels);
    wanted["metadata"]["annotations"] = Value::Object(annotations_too);
    if drifted {
        put(&mut wanted, spec, &OURS);
    }
    let action = Action::Replace(wanted);
    let failure = "update error: … while reconciling";
    Ok(vec![route_write(version, snapshot, action, failure)])
}

/// The weights of the last rule that leads to both sides: before it are those for clients with a cookie.
pub fn read(version: Version, snapshot: &Snapshot) -> Result<Weights, String> {
    let canary = &snapshot.canary;
    let live = live(version, snapshot).ok_or_else(|| not_found(version, snapshot))?;
    // Flagger reads 0 and 0 from a route that is somebody else's.
    routed(canary, live).ok_or_else(|| {
        format!(
            "{} does not contain routes for {} and {}",
            full(snapshot, version.kind()),
            canary.primary_name(),
            canary.canary_name()
        )
    })
}

/// Whether the gateways have taken up the route as it is now; Flagger's v1beta1 does not ask.
pub fn accepted(version: Version, snapshot: &Snapshot) -> Result<(), String> {
    let Some(live) = live(version, snapshot).filter(|_| version == Version::V1) else {
        return Ok(());
    };
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
            if status != "True" || observed < generation {
                return Err(format!(
                    "{} parent {} is not ready (status: {status}, observed generation: {observed}, current generation: {generation})",
                    full(snapshot, version.kind()),
                    parent["name"].as_str().unwrap_or_default()
                ));
            }
        }
    }
    Ok(())
}

/// Routes these weights.
pub fn set(version: Version, snapshot: &Snapshot, weights: &Weights) -> Result<Vec<Write>, String> {
    let canary = &snapshot.canary;
    let spec = spec(version, canary, weights)?;
    let live = live(version, snapshot).ok_or_else(|| not_found(version, snapshot))?;
    if follows(version, canary, live, weights)? {
        return Ok(Vec::new());
    }
    let mut wanted = live.clone();
    put(&mut wanted, spec, &OURS);
    let action = Action::Replace(wanted);
    let failure = "update error: … while setting weights";
    Ok(vec![route_write(version, snapshot, action, failure)])
}

/// The route as kubectl applied it before the Canary; otherwise, and where it is ours and goes with the Canary, it leads where the
/// Service leads. (Flagger leaves it leading to a primary that goes.)
pub fn restore(version: Version, snapshot: &Snapshot) -> Option<Write> {
    let canary = &snapshot.canary;
    let live = live(version, snapshot)?;
    let mut wanted = live.clone();
    match applied_spec(live).filter(|_| !is_owned(live, canary)) {
        Some(applied) if defaulted("spec", &applied) == defaulted("spec", live.get("spec")?) => {
            return None;
        }
        Some(applied) => wanted["spec"] = applied,
        None => {
            let rules = wanted.pointer_mut("/spec/rules")?.as_array_mut()?;
            for rule in rules.iter_mut().filter_map(Value::as_object_mut) {
                rules::lead_to_apex(canary, rule);
            }
        }
    }
    if wanted == *live {
        return None;
    }
    let action = Action::Replace(wanted);
    Some(route_write(version, snapshot, action, "update error: "))
}

fn live(version: Version, snapshot: &Snapshot) -> Option<&Value> {
    snapshot.object(version.kind(), snapshot.canary.apex_name())
}

fn not_found(version: Version, snapshot: &Snapshot) -> String {
    let why = super::not_found(version.kind(), snapshot.canary.apex_name());
    format!("{} get error: {why}", full(snapshot, version.kind()))
}

fn route_write(version: Version, snapshot: &Snapshot, action: Action, failure: &str) -> Write {
    super::route_write(snapshot, version.kind(), action, failure)
}

/// The part of the spec that is ours.
fn spec(
    version: Version,
    canary: &Canary,
    weights: &Weights,
) -> Result<Map<String, Value>, String> {
    let service = &canary.spec.service;
    let parents = service.gateway_refs.as_deref().unwrap_or_default();
    if parents.is_empty() {
        return Err(
            "GatewayRefs must be specified when using Gateway API as a provider.".to_owned(),
        );
    }
    let keys = ["group", "kind", "namespace", "name", "sectionName", "port"];
    let parent = |parent: &Value| -> Value {
        let field = |key: &str| Some((key.to_owned(), parent.get(key)?.clone()));
        let fields = keys.iter().filter_map(|key| field(key));
        Value::Object(fields.filter(|(_, value)| !value.is_null()).collect())
    };
    let mut spec = Map::new();
    spec.insert(
        "parentRefs".to_owned(),
        parents.iter().map(parent).collect(),
    );
    if let Some(hosts) = service.hosts.as_ref().filter(|hosts| !hosts.is_empty()) {
        spec.insert("hostnames".to_owned(), json!(hosts));
    }
    let rules = rules::candidates(version, canary, weights)?;
    let rules = rules.into_iter().next().unwrap_or_default();
    spec.insert("rules".to_owned(), Value::Array(rules));
    Ok(spec)
}

/// Whether our part of the spec is as it should be for some weights.
fn is_in_place(version: Version, canary: &Canary, live: &Value) -> Result<bool, String> {
    match routed(canary, live) {
        Some(weights) => follows(version, canary, live, &weights),
        None => Ok(false),
    }
}

/// Whether our part of the spec is as it should be for these weights, as far as the API server's defaults let one tell.
fn follows(
    version: Version,
    canary: &Canary,
    live: &Value,
    weights: &Weights,
) -> Result<bool, String> {
    let wanted = spec(version, canary, weights)?;
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
    let candidates = rules::candidates(version, canary, weights)?;
    Ok(candidates
        .into_iter()
        .any(|candidate| defaulted("rules", &Value::Array(candidate)) == rules))
}

/// The weights that a route has.
fn routed(canary: &Canary, live: &Value) -> Option<Weights> {
    let (primary, version) = (canary.primary_name(), canary.canary_name());
    let weight_of = |rule: &Value, name: &str| {
        let mut backends = items(rule, "/backendRefs");
        let backend = backends.find(|backend| backend["name"] == name)?;
        Some(
            backend
                .get("weight")
                .map_or(1, |weight| percent(Some(weight))),
        )
    };
    let (to_primary, to_canary) = items(live, "/spec/rules")
        .filter_map(|rule| Some((weight_of(rule, &primary)?, weight_of(rule, &version)?)))
        .last()?;
    (to_primary > 0 || to_canary > 0).then(|| Weights {
        primary: to_primary,
        canary: to_canary,
        mirrored: items(live, "/spec/rules")
            .flat_map(|rule| items(rule, "/filters"))
            .any(|filter| filters::mirrors_to(filter, &version)),
    })
}

#[cfg(test)]
mod tests;
