//! The adoption of an HTTPRoute of the user that has the name of the Service.
//!
//! The operator adopts it only if nothing of it is lost: if its parents, its host names and its rules, with their filters, are among those
//! that the Canary asks for. An annotation keeps the route as it was, and a deletion with `revertOnDeletion` gives it back, unless kubectl
//! has applied another one since then. (Flagger overwrites any route, and keeps nothing of it.)

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::defaults::defaulted;
use crate::{
    api::canary::Canary,
    routers::route::{applied_spec, items, metadata},
    workload::metadata::{FLUX, LAST_APPLIED, ORIGINAL, original},
};

/// A route as the user wrote it, as the annotation [`ORIGINAL`] keeps it.
#[derive(Deserialize, Serialize)]
struct Original {
    spec: Value,
    #[serde(default)]
    labels: Option<Value>,
    #[serde(default)]
    annotations: Map<String, Value>,
}

/// The part of the user's route that would be lost if its spec became `wanted`; `None` if nothing is.
pub fn lost(canary: &Canary, live: &Value, wanted: &Map<String, Value>) -> Option<&'static str> {
    let wanted = json!({"spec": wanted});
    let are_kept = |field: &str| {
        let list = |route: &Value| -> Vec<Value> {
            let pointer = format!("/spec/{field}");
            let items = items(route, &pointer);
            items.map(|item| defaulted(field, item)).collect()
        };
        let kept = list(&wanted);
        list(live).iter().all(|item| kept.contains(item))
    };
    if !are_kept("parentRefs") {
        return Some("parentRefs");
    }
    if !are_kept("hostnames") {
        return Some("hostnames");
    }
    let mut rules = items(live, "/spec/rules");
    let is_kept = |rule: &Value| {
        leads_to_apex(canary, rule)
            && items(&wanted, "/spec/rules").any(|wanted| keeps(wanted, rule))
    };
    (!rules.all(is_kept)).then_some("rules")
}

/// Whether all backends of a rule are the Service that clients call.
fn leads_to_apex(canary: &Canary, rule: &Value) -> bool {
    let own = canary.metadata.namespace.as_deref();
    let mut backends = items(rule, "/backendRefs");
    backends.all(|backend| {
        let namespace = backend.get("namespace").and_then(Value::as_str);
        backend["name"] == canary.apex_name()
            && backend.get("kind").is_none_or(|kind| *kind == "Service")
            && (namespace.is_none() || namespace == own)
    })
}

/// Whether a wanted rule takes the same requests as the user's, and does all that the user's does with them.
fn keeps(wanted: &Value, users: &Value) -> bool {
    let (wanted, users) = (defaulted("rules", wanted), defaulted("rules", users));
    let fields = users.as_object().into_iter().flatten();
    wanted.get("matches") == users.get("matches")
        && fields
            .filter(|(field, _)| !["backendRefs", "matches", "name"].contains(&field.as_str()))
            .all(|(field, value)| match (wanted.get(field), value) {
                (Some(Value::Array(all)), Value::Array(some)) => {
                    some.iter().all(|item| all.contains(item))
                }
                (same, value) => same == Some(value),
            })
}

/// The annotation that keeps a route as the user wrote it, for a route that does not lead to our Services.
pub fn record(live: &Value) -> (String, Value) {
    let mut annotations = metadata(live, "annotations");
    let earlier = original::<Original>(live);
    annotations.remove(ORIGINAL);
    if let Some(earlier) = earlier {
        for (flux, _) in FLUX {
            match earlier.annotations.get(flux) {
                Some(value) => drop(annotations.insert(flux.to_owned(), value.clone())),
                None => drop(annotations.remove(flux)),
            }
        }
    }
    let original = Original {
        spec: live["spec"].clone(),
        labels: live.pointer("/metadata/labels").cloned(),
        annotations,
    };
    let text = serde_json::to_string(&original).unwrap_or_default();
    (ORIGINAL.to_owned(), json!(text))
}

/// The route as the user last wrote it; `None` if no annotation has it. `ours` are the fields of the spec that an adoption changes.
pub fn given_back(live: &Value, ours: &[&str]) -> Option<Value> {
    let original = original::<Original>(live)?;
    let mut route = live.clone();
    let now = metadata(live, "annotations");
    let is_applied_since = now.get(LAST_APPLIED) != original.annotations.get(LAST_APPLIED);
    route["spec"] = match applied_spec(live).filter(|_| is_applied_since) {
        Some(mut applied) => {
            // Fields that are not ours were never changed.
            for (field, value) in live["spec"].as_object().into_iter().flatten() {
                if applied.get(field).is_none() && !ours.contains(&field.as_str()) {
                    applied[field] = value.clone();
                }
            }
            applied
        }
        None => original.spec,
    };
    let mut annotations = original.annotations;
    if let Some(applied) = now.get(LAST_APPLIED) {
        annotations.insert(LAST_APPLIED.to_owned(), applied.clone());
    }
    let annotations = (!annotations.is_empty()).then_some(Value::Object(annotations));
    let metadata = route["metadata"].as_object_mut()?;
    for (field, value) in [("labels", original.labels), ("annotations", annotations)] {
        match value {
            Some(value) => drop(metadata.insert(field.to_owned(), value)),
            None => drop(metadata.remove(field)),
        }
    }
    Some(route)
}
