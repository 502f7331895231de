//! The rules of a VirtualService: the part that depends on the weights.

use serde_json::{Value, json};

use crate::{
    api::canary::Canary,
    routers::{
        affinity::{self, Rule, Sides},
        route::{combined, test_conditions},
    },
    snapshot::Weights,
};

/// The fields of an A/B test's condition that replace those of the service's condition.
const REPLACED_BY_TEST: [&str; 2] = ["headers", "sourceLabels"];

/// Whether the VirtualService routes TCP connections instead of HTTP requests.
pub fn is_tcp(canary: &Canary) -> bool {
    canary
        .spec
        .service
        .app_protocol
        .as_ref()
        .is_some_and(|protocol| protocol.eq_ignore_ascii_case("tcp"))
}

/// The field of the spec that holds the rules.
pub fn list(canary: &Canary) -> &'static str {
    if is_tcp(canary) { "tcp" } else { "http" }
}

/// The field of the spec that must hold no rules.
pub fn other_list(canary: &Canary) -> &'static str {
    if is_tcp(canary) { "http" } else { "tcp" }
}

/// The rules for these weights, as they are written.
pub fn wanted(canary: &Canary, weights: &Weights) -> Value {
    Value::Array(
        candidates(canary, weights)
            .into_iter()
            .next()
            .unwrap_or_default(),
    )
}

/// The sets of rules that are correct for these weights. The first set is the one that is written.
pub fn candidates(canary: &Canary, weights: &Weights) -> Vec<Vec<Value>> {
    if is_tcp(canary) {
        return vec![vec![tcp(canary, weights)]];
    }
    let own = own_match(canary);
    let test = test_conditions(canary);
    if !test.is_empty() {
        // Requests that do not match stay on the primary. As in Flagger, this rule's only destination has the primary's weight.
        let primary = vec![destination(canary, &canary.primary_name(), weights.primary)];
        return vec![vec![
            http(
                canary,
                combined(test, own, REPLACED_BY_TEST),
                both(canary, weights),
            ),
            http(canary, own.to_vec(), primary),
        ]];
    }
    let rendered = |rules: Vec<Rule>| {
        rules
            .iter()
            .map(|rule| render(canary, weights, rule))
            .collect()
    };
    affinity::rules(canary, Sides::Both, weights)
        .into_iter()
        .map(rendered)
        .collect()
}

fn render(canary: &Canary, weights: &Weights, rule: &Rule) -> Value {
    let own = own_match(canary);
    match rule {
        Rule::Split {
            primary: on_primary,
            canary: on_canary,
        } => {
            let mut route = both(canary, weights);
            for (destination, set_cookie) in route.iter_mut().zip([on_primary, on_canary]) {
                if let Some(set_cookie) = set_cookie {
                    destination["headers"] =
                        json!({"response": {"add": {"Set-Cookie": set_cookie}}});
                }
            }
            mirrored(canary, weights, http(canary, own.to_vec(), route))
        }
        Rule::Sticky {
            cookie,
            weights,
            set_cookie,
        } => {
            let cookie = json!({"headers": {"Cookie": {"regex": cookie}}});
            let matches = combined(&[cookie], own, REPLACED_BY_TEST);
            let mut rule = http(canary, matches, both(canary, weights));
            if let Some(set_cookie) = set_cookie {
                with_header(&mut rule, set_cookie);
            }
            mirrored(canary, weights, rule)
        }
    }
}

/// Adds the header `Set-Cookie` to the responses of a rule, beside the headers that the rule adds already.
fn with_header(rule: &mut Value, set_cookie: &str) {
    let mut at = rule;
    for key in ["headers", "response", "add"] {
        if !at[key].is_object() {
            at[key] = json!({});
        }
        at = &mut at[key];
    }
    at["Set-Cookie"] = json!(set_cookie);
}

/// The rule, with copies of its requests for the canary if the weights ask for them. (Flagger adds the copies to the first rule, but
/// looks for them in the last.)
fn mirrored(canary: &Canary, weights: &Weights, mut rule: Value) -> Value {
    if weights.mirrored {
        rule["mirror"] = json!({"host": canary.canary_name()});
        let analysis = canary.spec.analysis.as_ref();
        let percent = analysis.and_then(|analysis| analysis.mirror_weight);
        if let Some(percent) = percent.filter(|percent| *percent > 0) {
            rule["mirrorPercentage"] = json!({"value": percent});
        }
    }
    rule
}

fn own_match(canary: &Canary) -> &[Value] {
    canary.spec.service.match_.as_deref().unwrap_or_default()
}

fn both(canary: &Canary, weights: &Weights) -> Vec<Value> {
    vec![
        destination(canary, &canary.primary_name(), weights.primary),
        destination(canary, &canary.canary_name(), weights.canary),
    ]
}

fn tcp(canary: &Canary, weights: &Weights) -> Value {
    let port =
        |condition: &Value| json!({"port": condition.get("port").cloned().unwrap_or(json!(0))});
    let matches: Vec<_> = own_match(canary).iter().map(port).collect();
    let mut rule = json!({"route": both(canary, weights)});
    if !matches.is_empty() {
        rule["match"] = Value::Array(matches);
    }
    rule
}

fn http(canary: &Canary, matches: Vec<Value>, route: Vec<Value>) -> Value {
    let service = &canary.spec.service;
    let mut rule = json!({"route": route});
    if !matches.is_empty() {
        rule["match"] = Value::Array(matches);
    }
    if let Some(rewrite) = &service.rewrite {
        let keys = ["uri", "authority"]
            .iter()
            .filter_map(|key| Some(((*key).to_owned(), rewrite.get(key)?.clone())));
        rule["rewrite"] = Value::Object(keys.collect());
    }
    if let Some(timeout) = service
        .timeout
        .as_ref()
        .filter(|timeout| !timeout.is_empty())
    {
        rule["timeout"] = json!(timeout);
    }
    for (key, value) in [
        ("retries", &service.retries),
        ("corsPolicy", &service.cors_policy),
        ("headers", &service.headers),
    ] {
        if let Some(value) = value {
            rule[key] = value.clone();
        }
    }
    rule
}

/// A destination with its weight.
pub fn destination(canary: &Canary, host: &str, weight: u8) -> Value {
    let service = &canary.spec.service;
    let first = service.gateways.as_deref().and_then(<[_]>::first);
    let mut destination = json!({"host": host});
    if service.port_discovery
        && (service.delegation || first.is_some_and(|gateway| gateway != "mesh"))
    {
        destination["port"] = json!({"number": service.port});
    }
    json!({"destination": destination, "weight": weight})
}
