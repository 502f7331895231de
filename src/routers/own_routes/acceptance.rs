//! The reports of a route's parents (gateways, sets of listeners, Services of a mesh, or any other kind) about a user's route.

use serde_json::{Value, json};

use crate::{
    routers::{
        RouteError,
        route::{full_object, items, text},
    },
    snapshot::ObjectRef,
};

/// The conditions of a parent about a route, and the status of each that means a working route.
const CONDITIONS: [(&str, &str); 3] = [
    ("Accepted", "True"),
    // The Services of the backends exist, and the route may name them (ReferenceGrant).
    ("ResolvedRefs", "True"),
    // Some rules are not served, or are served as they were before.
    ("PartiallyInvalid", "False"),
];

/// A condition that a parent reports.
pub struct Reported<'a> {
    /// Whether it is about the route as it is now.
    pub is_current: bool,
    /// Whether it means a working route.
    pub is_good: bool,
    parent: &'a Value,
    condition: &'a Value,
}

/// The first report about a route that meets a condition, as an error. A parent that reports nothing holds nothing up: not every
/// implementation writes a status for each kind of parent.
pub fn refusal(
    object: &ObjectRef,
    route: &Value,
    is_refusal: impl Fn(&Reported<'_>) -> bool,
) -> Option<RouteError> {
    let generation = route
        .pointer("/metadata/generation")
        .and_then(Value::as_i64);
    let generation = generation.unwrap_or(0);
    let parents: Vec<_> = items(route, "/spec/parentRefs")
        .map(|parent| identity(parent, &object.namespace))
        .collect();
    for status in items(route, "/status/parents") {
        let parent = &status["parentRef"];
        // A parent that the route no longer names keeps its report for some time.
        if !parents.contains(&identity(parent, &object.namespace)) {
            continue;
        }
        for condition in items(status, "/conditions") {
            let type_ = condition["type"].as_str().unwrap_or_default();
            let Some((_, good)) = CONDITIONS.iter().find(|(known, _)| *known == type_) else {
                continue;
            };
            let observed = condition["observedGeneration"].as_i64().unwrap_or(0);
            let reported = Reported {
                is_current: observed >= generation,
                is_good: condition["status"] == *good,
                parent,
                condition,
            };
            if is_refusal(&reported) {
                let text = reported.shown(observed, generation);
                return Some(RouteError::NotAccepted(format!(
                    "{} {text}",
                    full_object(object)
                )));
            }
        }
    }
    None
}

impl Reported<'_> {
    fn shown(&self, observed: i64, generation: i64) -> String {
        let kind = text(self.parent, "kind").unwrap_or("Gateway");
        let name = text(self.parent, "name").unwrap_or_default();
        let type_ = text(self.condition, "type").unwrap_or_default();
        let status = text(self.condition, "status").unwrap_or_default();
        let texts = ["reason", "message"];
        let texts: Vec<_> = texts
            .iter()
            .filter_map(|key| text(self.condition, key))
            .collect();
        let why = if texts.is_empty() {
            String::new()
        } else {
            format!(": {}", texts.join(": "))
        };
        format!(
            "is not ready at {kind} {name} ({type_}: {status}, observed generation: {observed}, current generation: {generation}){why}"
        )
    }
}

/// The fields that identify a parent, with the defaults of Gateway API.
pub fn identity(parent: &Value, namespace: &str) -> [Value; 6] {
    let field = |key: &str, default: Value| match parent.get(key) {
        None | Some(Value::Null) => default,
        Some(value) => value.clone(),
    };
    [
        field("group", json!("gateway.networking.k8s.io")),
        field("kind", json!("Gateway")),
        field("namespace", json!(namespace)),
        field("name", Value::Null),
        field("sectionName", Value::Null),
        field("port", Value::Null),
    ]
}
