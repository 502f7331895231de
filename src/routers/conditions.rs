//! The conditions that a request must meet, in Istio's form (`HTTPMatchRequest`), as `spec.service.match` and `spec.analysis.match` have
//! them.
//!
//! If a condition is missing in a rule, requests reach the canary that the user does not want to send there. So each router lists the keys
//! that its rules can have, and [`check`] refuses all others. (Flagger drops them.)

use std::fmt;

use serde_json::{Map, Value, json};

use super::{RouteError, route::text};
use crate::api::canary::Canary;

/// The keys that only name a condition.
const NAMES: [&str; 2] = ["name", "statPrefix"];
/// The key that changes how a path is compared.
const IGNORE_CASE: &str = "ignoreUriCase";
/// The keys whose entries are conditions of their own, by name. If both fields have an entry of one name, that of the test counts, as in
/// Flagger.
const MAPS: [&str; 3] = ["headers", "queryParams", "sourceLabels"];
/// Like [`MAPS`], but two entries of one name exclude each other's requests, so they must be the same.
const EXCLUSIONS: &str = "withoutHeaders";

/// The most conditions that both fields may have once they are combined.
const PRODUCT: usize = 1000;
/// The most bytes that they may have. No API server stores a larger route.
const PRODUCT_BYTES: usize = 1 << 20;

/// The conditions of both fields are too many, or too large, once they are combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooLarge {
    /// There are too many.
    #[error(
        "spec.analysis.match and spec.service.match: {0} combined conditions, but at most {PRODUCT} are supported"
    )]
    Number(usize),
    /// They are too large.
    #[error(
        "spec.analysis.match and spec.service.match: {0} bytes of combined conditions, but at most {PRODUCT_BYTES} are supported"
    )]
    Bytes(usize),
}

/// The field of a Canary that has the conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// The requests that the route applies to.
    Service,
    /// The requests of an A/B test.
    Test,
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Service => "spec.service.match",
            Self::Test => "spec.analysis.match",
        })
    }
}

/// The conditions of an A/B test; empty if the analysis has none.
pub fn of_test(canary: &Canary) -> &[Value] {
    let analysis = canary.spec.analysis.as_ref();
    analysis.map_or(&[], |analysis| analysis.match_.as_slice())
}

/// The conditions of the service; empty if the route applies to all requests.
pub fn of_service(canary: &Canary) -> &[Value] {
    canary.spec.service.match_.as_deref().unwrap_or_default()
}

/// The keys of a condition that exclude requests.
pub fn keys(condition: &Value) -> impl Iterator<Item = &str> {
    let map = condition.as_object().into_iter().flatten();
    map.filter(|(key, value)| !NAMES.contains(&key.as_str()) && excludes(key, value))
        .map(|(key, _)| key.as_str())
}

/// Whether a value of a condition's key can exclude requests. All paths begin with `/`.
fn excludes(key: &str, value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => {
            let is_any_path = key == "uri" && *value == json!({"prefix": "/"});
            !map.is_empty() && !is_any_path
        }
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::Bool(true) => true,
    }
}

/// Checks that a router can express all conditions: it matches requests by the keys `able`. A test without any condition is refused, too:
/// all requests would go to the canary.
pub fn check(canary: &Canary, field: Field, router: &str, able: &[&str]) -> Result<(), RouteError> {
    let conditions = match field {
        Field::Service => of_service(canary),
        Field::Test => of_test(canary),
    };
    for condition in conditions {
        if let Some(key) = keys(condition).find(|key| !able.contains(key)) {
            return Err(RouteError::InvalidCanary(format!(
                "{field}: {router} does not match requests by {key}"
            )));
        }
        if field == Field::Test && keys(condition).all(|key| key == IGNORE_CASE) {
            return Err(RouteError::InvalidCanary(format!(
                "{field}: a condition is empty, so that all requests would go to the canary"
            )));
        }
    }
    Ok(())
}

/// The path prefix of a condition, for a router that matches paths by nothing else; `/` if the condition has no path.
pub fn path_prefix<'a>(
    field: Field,
    router: &str,
    condition: &'a Value,
) -> Result<&'a str, RouteError> {
    let uri = condition.get("uri").filter(|uri| *uri != &json!({}));
    match uri.filter(|uri| !uri.is_null()) {
        None => Ok("/"),
        Some(uri) => text(uri, "prefix").ok_or_else(|| {
            RouteError::InvalidCanary(format!("{field}: {router} matches a path by prefix only"))
        }),
    }
}

/// Checks the size of a [`product`] without computing it.
pub fn size(test: &[Value], own: &[Value]) -> Result<(), TooLarge> {
    if test.is_empty() || own.is_empty() {
        return Ok(());
    }
    let number = test.len().saturating_mul(own.len());
    if number > PRODUCT {
        return Err(TooLarge::Number(number));
    }
    // Each condition is combined with each of the other field.
    let bytes = |of: &[Value], times: usize| of.iter().map(length).sum::<usize>() * times;
    let bytes = bytes(test, own.len()) + bytes(own, test.len());
    if bytes > PRODUCT_BYTES {
        return Err(TooLarge::Bytes(bytes));
    }
    Ok(())
}

/// Checks that this many copies of some rules are not too large.
pub fn check_copies(rules: &[Value], copies: usize) -> Result<(), RouteError> {
    let bytes = rules.iter().map(length).sum::<usize>() * copies;
    if bytes > PRODUCT_BYTES {
        return Err(RouteError::InvalidCanary(format!(
            "spec.service.portDiscovery: {bytes} bytes of rules for {copies} further ports, but at most {PRODUCT_BYTES} are supported"
        )));
    }
    Ok(())
}

/// About as many bytes as a value has when it is written.
fn length(value: &Value) -> usize {
    let inner = match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 4,
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(length).sum(),
        Value::Object(map) => map
            .iter()
            .map(|(key, value)| key.len() + 3 + length(value))
            .sum(),
    };
    inner + 2
}

/// Combines each condition of an A/B test, or of a cookie, with each condition of the service: a request must meet both. It is an error if
/// the result would be too large.
pub fn product(test: &[Value], own: &[Value]) -> Result<Vec<Value>, RouteError> {
    if test.is_empty() || own.is_empty() {
        return Ok([test, own].concat());
    }
    size(test, own).map_err(|why| RouteError::InvalidCanary(why.to_string()))?;
    test.iter()
        .flat_map(|test| own.iter().map(move |own| both(test, own)))
        .collect()
}

/// The condition that a request meets if it meets both conditions.
fn both(test: &Value, own: &Value) -> Result<Value, RouteError> {
    let mut both = own.as_object().cloned().unwrap_or_default();
    for (key, value) in test.as_object().into_iter().flatten() {
        let own = both.get(key).filter(|own| excludes(key, own));
        match own {
            _ if !excludes(key, value) || key == IGNORE_CASE => {}
            Some(own) if NAMES.contains(&key.as_str()) || own == value => {}
            Some(Value::Object(own)) if MAPS.contains(&key.as_str()) || key == EXCLUSIONS => {
                let entries = united(value, own);
                if own.iter().any(|(name, own)| entries.get(name) != Some(own)) {
                    return Err(conflict(key));
                }
                both.insert(key.clone(), Value::Object(entries));
            }
            Some(_) => return Err(conflict(key)),
            None => drop(both.insert(key.clone(), value.clone())),
        }
    }
    Ok(Value::Object(with_case(both, test, own)))
}

fn conflict(key: &str) -> RouteError {
    RouteError::InvalidCanary(format!(
        "{} and {} have different values of {key}",
        Field::Test,
        Field::Service
    ))
}

/// The entries of both maps. Those of the test replace those of the same name; names of headers have no case.
fn united(test: &Value, own: &Map<String, Value>) -> Map<String, Value> {
    let test = test.as_object().cloned().unwrap_or_default();
    let is_replaced = |name: &String| test.keys().any(|other| other.eq_ignore_ascii_case(name));
    let kept = own.iter().filter(|(name, _)| !is_replaced(name));
    let mut entries: Map<_, _> = kept
        .map(|(name, own)| (name.clone(), own.clone()))
        .collect();
    entries.extend(test);
    entries
}

/// The combined condition with the case rule of its path: that of the condition which has the path, or the stricter one.
fn with_case(mut both: Map<String, Value>, test: &Value, own: &Value) -> Map<String, Value> {
    let has_path = |condition: &Value| keys(condition).any(|key| key == "uri");
    let ignores = |condition: &Value| condition.get(IGNORE_CASE) == Some(&Value::Bool(true));
    let rules = match (has_path(test), has_path(own)) {
        (true, false) => test,
        (true, true) if ignores(own) => test,
        _ => own,
    };
    match rules.get(IGNORE_CASE) {
        Some(rule) => drop(both.insert(IGNORE_CASE.to_owned(), rule.clone())),
        None => drop(both.remove(IGNORE_CASE)),
    }
    both
}

/// Refuses an A/B test for a route that cannot hold conditions. (Flagger would send all requests to the canary.) `route` is its name in
/// messages.
pub fn refuse_test(canary: &Canary, route: &str) -> Result<(), RouteError> {
    if of_test(canary).is_empty() {
        return Ok(());
    }
    Err(RouteError::InvalidCanary(format!(
        "{route} cannot tell requests apart: take spec.analysis.match away, or use another provider"
    )))
}
