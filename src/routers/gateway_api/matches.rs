//! The match conditions of a rule. A Canary has conditions in Istio's form; this module turns them into those of Gateway API.

use std::fmt::Write;

use serde_json::{Map, Value, json};

use super::grpc;
use crate::{
    api::canary::Canary,
    routers::{
        RouteError,
        conditions::{self, Field},
        route::{by_name, text},
    },
};

/// The conditions of a rule.
const KEYS: &[&str] = &["uri", "method", "headers", "queryParams"];

/// A condition that Gateway API cannot express, in Flagger's words.
#[derive(Debug, thiserror::Error)]
enum MatchError {
    /// The path is matched in an unknown way. The field has Go's form of the condition.
    #[error("Gateway API doesn't support the specified path matching selector: &{0}\n")]
    Path(String),
    /// A header, query parameter or method is matched in an unknown way. The second field has Go's form of all conditions of the field.
    #[error("Gateway API doesn't support the specified {0} matching selector: map[{1}]\n")]
    Field(&'static str, String),
}

/// Checks that Gateway API can express the Canary's conditions.
pub fn check(canary: &Canary) -> Result<(), RouteError> {
    let (route, keys) = match grpc::of(canary) {
        Some(_) => ("a GRPCRoute", grpc::KEYS),
        None => ("Gateway API", KEYS),
    };
    for (field, conditions) in [
        (Field::Service, conditions::of_service(canary)),
        (Field::Test, conditions::of_test(canary)),
    ] {
        mapped(conditions)?;
        conditions::check(canary, field, route, keys)?;
    }
    Ok(())
}

/// The conditions in Gateway API's form, without those that are empty.
pub fn mapped(conditions: &[Value]) -> Result<Vec<Value>, RouteError> {
    let invalid = |why: MatchError| {
        RouteError::InvalidCanary(format!("Invalid request matching selectors: {why}"))
    };
    converted(conditions).map_err(invalid)
}

fn converted(conditions: &[Value]) -> Result<Vec<Value>, MatchError> {
    let mut all = Vec::new();
    for condition in conditions {
        let mut one = Map::new();
        if let Some(uri) = condition.get("uri").filter(|uri| !uri.is_null()) {
            one.insert("path".to_owned(), path(uri)?);
        }
        if let Some(method) = condition.get("method").filter(|method| !method.is_null()) {
            // Flagger's text about a method says "header".
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

/// The condition that all requests match.
pub fn everything() -> Value {
    json!({"path": {"type": "PathPrefix", "value": "/"}})
}

fn path(uri: &Value) -> Result<Value, MatchError> {
    let ways = [
        ("regex", "RegularExpression"),
        ("exact", "Exact"),
        ("prefix", "PathPrefix"),
    ];
    ways.iter()
        .find_map(|(way, kind)| Some(json!({"type": kind, "value": text(uri, way)?})))
        .ok_or_else(|| MatchError::Path(go(uri)))
}

fn exact_or_regex(value: &Value) -> Option<(&'static str, &str)> {
    let exact = text(value, "exact").map(|exact| ("Exact", exact));
    exact.or_else(|| Some(("RegularExpression", text(value, "regex")?)))
}

fn unsupported(what: &'static str, condition: &Value) -> MatchError {
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
    MatchError::Field(what, map)
}

/// A string condition as Go prints its struct.
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
