//! The conditions of a rule: Istio's, in which a Canary is written, in Gateway API's words.

use std::fmt::Write;

use serde_json::{Map, Value, json};

use crate::routers::{by_name, text};

/// Our conditions as theirs; those that say nothing are left out. What cannot be said is an error, in Flagger's words.
pub fn mapped(conditions: &[Value]) -> Result<Vec<Value>, String> {
    let mut all = Vec::new();
    for condition in conditions {
        let mut one = Map::new();
        if let Some(uri) = condition.get("uri").filter(|uri| !uri.is_null()) {
            one.insert("path".to_owned(), path(uri)?);
        }
        if let Some(method) = condition.get("method").filter(|method| !method.is_null()) {
            // Flagger's text names the headers.
            let exact = text(method, "exact").ok_or_else(|| unsupported("header", condition))?;
            one.insert("method".to_owned(), json!(exact));
        }
        for (field, what) in [("headers", "header"), ("queryParams", "query")] {
            let named = by_name(condition.get(field));
            let matched = named.iter().map(|(name, value)| {
                let (kind, value) = exact_or_regex(value)?;
                Some(json!({"name": name, "type": kind, "value": value}))
            });
            let matched: Option<Vec<_>> = matched.collect();
            let matched = matched.ok_or_else(|| unsupported(what, condition))?;
            if !matched.is_empty() {
                one.insert(field.to_owned(), Value::Array(matched));
            }
        }
        if !one.is_empty() {
            all.push(Value::Object(one));
        }
    }
    Ok(all)
}

/// All requests.
pub fn everything() -> Value {
    json!({"path": {"type": "PathPrefix", "value": "/"}})
}

fn path(uri: &Value) -> Result<Value, String> {
    let ways = [
        ("regex", "RegularExpression"),
        ("exact", "Exact"),
        ("prefix", "PathPrefix"),
    ];
    ways.iter()
        .find_map(|(way, kind)| Some(json!({"type": kind, "value": text(uri, way)?})))
        .ok_or_else(|| {
            format!(
                "Gateway API doesn't support the specified path matching selector: &{}\n",
                go(uri)
            )
        })
}

fn exact_or_regex(value: &Value) -> Option<(&'static str, &str)> {
    let exact = text(value, "exact").map(|exact| ("Exact", exact));
    exact.or_else(|| Some(("RegularExpression", text(value, "regex")?)))
}

fn unsupported(what: &str, condition: &Value) -> String {
    let field = if what == "query" {
        "queryParams"
    } else {
        "headers"
    };
    let mut map = String::new();
    for (name, value) in by_name(condition.get(field)) {
        let space = if map.is_empty() { "" } else { " " };
        let _ = write!(map, "{space}{name}:{}", go(value));
    }
    format!("Gateway API doesn't support the specified {what} matching selector: map[{map}]\n")
}

/// A text condition as Go prints its struct.
fn go(value: &Value) -> String {
    let text = |key: &str| text(value, key).unwrap_or_default();
    format!(
        "{{Exact:{} Prefix:{} Suffix:{} Regex:{}}}",
        text("exact"),
        text("prefix"),
        text("suffix"),
        text("regex")
    )
}
