//! The adoption of an HTTPRoute of the user that has the name of the Service.
//!
//! The operator adopts it only if nothing of it is lost: if its parents, its host names and its rules, with their filters, are among those
//! that the Canary asks for. (Flagger overwrites any route, and keeps nothing of it.)

use serde_json::{Map, Value, json};

use super::defaults::defaulted;
use crate::{api::canary::Canary, routers::route::items};

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
