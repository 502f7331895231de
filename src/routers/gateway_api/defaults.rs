//! The defaults that the API server adds to an HTTPRoute, as its CRD says. They are no drift. (Flagger takes them for drift, and restarts its
//! release again and again.)

use serde_json::{Value, json};

/// The value of a field of an HTTPRoute, with the API server's defaults. `field` is the field's name.
pub fn defaulted(field: &str, value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(|item| defaulted(field, item)).collect(),
        Value::Object(map) => {
            let mut map = map.clone();
            // An empty list means the same as no list.
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
