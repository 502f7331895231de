//! What the API server makes of an HTTPRoute: the defaults of its CRD. Between what we want and what is served they are no difference;
//! Flagger takes them for drift, and begins its release anew for ever.

use serde_json::{Value, json};

/// A field of an HTTPRoute, by its name, as the API server would have it.
pub fn defaulted(field: &str, value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(|item| defaulted(field, item)).collect(),
        Value::Object(map) => {
            let mut map = map.clone();
            // An empty list is like none.
            map.retain(|_, value| !value.is_null() && *value != json!([]));
            for (key, default) in defaults(field, &map) {
                map.entry(key).or_insert(default);
            }
            map.into_iter()
                .map(|(key, value)| {
                    let value = defaulted(&key, &value);
                    (key, value)
                })
                .collect()
        }
        plain => plain.clone(),
    }
}

fn defaults(field: &str, map: &serde_json::Map<String, Value>) -> Vec<(&'static str, Value)> {
    let everything = || json!({"type": "PathPrefix", "value": "/"});
    match field {
        "parentRefs" => vec![
            ("group", json!("gateway.networking.k8s.io")),
            ("kind", json!("Gateway")),
        ],
        "rules" => vec![("matches", json!([{"path": everything()}]))],
        "matches" => vec![("path", everything())],
        "path" if map.contains_key("replaceFullPath") => Vec::new(),
        "path" if map.contains_key("replacePrefixMatch") => Vec::new(),
        "path" => vec![("type", json!("PathPrefix")), ("value", json!("/"))],
        "headers" | "queryParams" => vec![("type", json!("Exact"))],
        "backendRefs" => vec![
            ("group", json!("")),
            ("kind", json!("Service")),
            ("weight", json!(1)),
        ],
        "backendRef" => vec![("group", json!("")), ("kind", json!("Service"))],
        "fraction" => vec![("denominator", json!(100))],
        "requestRedirect" => vec![("statusCode", json!(302))],
        "cors" => vec![("maxAge", json!(5))],
        _ => Vec::new(),
    }
}
