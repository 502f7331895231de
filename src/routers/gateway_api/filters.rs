//! The filters of a rule, which change or copy its requests and responses.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::GatewayApi;
use crate::api::{canary::Canary, duration};

/// The filters that a Canary's service asks for, in Flagger's order.
pub fn wanted(version: GatewayApi, canary: &Canary) -> Vec<Value> {
    let service = &canary.spec.service;
    let mut filters = Vec::new();
    for (side, kind) in [("request", "Request"), ("response", "Response")] {
        let headers = service.headers.as_ref().and_then(|all| all.get(side));
        if let Some(headers) = headers.filter(|headers| headers.is_object()) {
            filters.push(json!({"type": format!("{kind}HeaderModifier"), format!("{side}HeaderModifier"): modifier(headers)}));
        }
    }
    filters.extend(service.rewrite.as_ref().map(rewrite));
    for mirror in service.mirror.iter().flatten() {
        let backend = mirror.get("backendRef").cloned().unwrap_or_default();
        filters.push(json!({"type": "RequestMirror", "requestMirror": {"backendRef": backend}}));
    }
    if version == GatewayApi::V1
        && let Some(policy) = &service.cors_policy
    {
        filters.push(json!({"type": "CORS", "cors": cors(policy)}));
    }
    filters
}

/// The filter that copies requests to the canary.
pub fn mirror(canary: &Canary) -> Value {
    json!({"type": "RequestMirror", "requestMirror": {"backendRef":
        {"group": "", "kind": "Service", "name": canary.canary_name(), "port": canary.spec.service.port}}})
}

/// Whether a filter copies requests to this Service.
pub fn mirrors_to(filter: &Value, name: &str) -> bool {
    let backend = filter.pointer("/requestMirror/backendRef/name");
    filter["type"] == "RequestMirror" && backend.and_then(Value::as_str) == Some(name)
}

/// The filter that adds the header `Set-Cookie` to responses.
pub fn set_cookie(text: &str) -> Value {
    json!({"type": "ResponseHeaderModifier", "responseHeaderModifier": {"add": [{"name": "Set-Cookie", "value": text}]}})
}

/// Adds the header `Set-Cookie` to the responses of a rule. A rule may have only one filter of this type, so the header joins the user's
/// filter if there is one. (Flagger adds a second filter, which the API server refuses.)
pub fn with_set_cookie(rule: &mut Value, text: &str) {
    if !rule["filters"].is_array() {
        rule["filters"] = json!([]);
    }
    let Some(filters) = rule["filters"].as_array_mut() else {
        return;
    };
    let own = filters
        .iter_mut()
        .find_map(|filter| filter.get_mut("responseHeaderModifier")?.as_object_mut());
    let Some(own) = own else {
        filters.push(set_cookie(text));
        return;
    };
    let header = json!({"name": "Set-Cookie", "value": text});
    match own.get_mut("add").and_then(Value::as_array_mut) {
        Some(add) => add.push(header),
        None => drop(own.insert("add".to_owned(), json!([header]))),
    }
}

fn modifier(headers: &Value) -> Value {
    let mut modifier = Map::new();
    for what in ["add", "set"] {
        let map = headers.get(what).and_then(Value::as_object);
        let sorted: BTreeMap<_, _> = map.into_iter().flatten().collect();
        let pairs = sorted
            .iter()
            .map(|(name, value)| json!({"name": name, "value": value}));
        let pairs: Vec<_> = pairs.collect();
        if !pairs.is_empty() {
            modifier.insert(what.to_owned(), Value::Array(pairs));
        }
    }
    modifier.extend(list(headers, "remove", "remove"));
    Value::Object(modifier)
}

fn rewrite(rewrite: &Value) -> Value {
    let text = |key: &str| {
        let text = rewrite.get(key).and_then(Value::as_str);
        text.filter(|text| !text.is_empty())
    };
    let mut change = Map::new();
    if let Some(host) = text("authority") {
        change.insert("hostname".to_owned(), json!(host));
    }
    if let Some(uri) = text("uri") {
        let path = if text("type") == Some("ReplacePrefixMatch") {
            json!({"type": "ReplacePrefixMatch", "replacePrefixMatch": uri})
        } else {
            json!({"type": "ReplaceFullPath", "replaceFullPath": uri})
        };
        change.insert("path".to_owned(), path);
    }
    json!({"type": "URLRewrite", "urlRewrite": change})
}

/// The CORS filter for Istio's policy. As in Flagger, only plain origins are taken over.
fn cors(policy: &Value) -> Value {
    let mut cors = Map::new();
    for (theirs, ours) in [
        ("allowOrigins", "allowOrigin"),
        ("allowMethods", "allowMethods"),
        ("allowHeaders", "allowHeaders"),
        ("exposeHeaders", "exposeHeaders"),
    ] {
        cors.extend(list(policy, ours, theirs));
    }
    if policy.get("allowCredentials") == Some(&json!(true)) {
        cors.insert("allowCredentials".to_owned(), json!(true));
    }
    let age = policy.get("maxAge").and_then(Value::as_str);
    let age = age.and_then(duration::parse).map_or(0, |age| age.as_secs());
    if age > 0 {
        cors.insert("maxAge".to_owned(), json!(age));
    }
    Value::Object(cors)
}

/// A list of a map under a new name; `None` if the list is empty or missing.
fn list(map: &Value, from: &str, to: &str) -> Option<(String, Value)> {
    let list = map.get(from)?.as_array().filter(|list| !list.is_empty())?;
    Some((to.to_owned(), json!(list)))
}
