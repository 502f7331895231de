//! The rules of a VirtualService: the part that depends on the weights.

mod ports;

use serde_json::{Value, json};

use crate::{
    api::canary::Canary,
    routers::{
        RouteError,
        affinity::{self, Rule, Sides},
        conditions::{self, Field},
    },
    snapshot::{
        Snapshot, Weights,
        route_references::{self, Named},
    },
};

/// The conditions of an HTTP rule.
const HTTP_KEYS: &[&str] = &[
    "uri",
    "scheme",
    "method",
    "authority",
    "headers",
    "withoutHeaders",
    "queryParams",
    "ignoreUriCase",
    "port",
    "sourceLabels",
    "sourceNamespace",
    "gateways",
];
/// The conditions of a TCP rule.
const TCP_KEYS: &[&str] = &["port", "sourceLabels", "sourceNamespace", "gateways"];

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

/// The parts of a spec in which a VirtualService names other objects.
pub const NAMED: &[Named] = &[Named::Gateways, Named::Hosts];

/// The rules for these weights, as they are written. An error if Istio cannot express the Canary's conditions.
pub fn wanted(snapshot: &Snapshot, weights: &Weights) -> Result<Value, RouteError> {
    let rules = candidates(snapshot, weights)?.into_iter().next();
    Ok(Value::Array(rules.unwrap_or_default()))
}

/// The sets of rules that are correct for these weights. The first set is the one that is written.
pub fn candidates(snapshot: &Snapshot, weights: &Weights) -> Result<Vec<Vec<Value>>, RouteError> {
    route_references::routes(snapshot, NAMED)?;
    let sets = of_first_port(&snapshot.canary, weights)?;
    let sets = sets.into_iter();
    sets.map(|rules| ports::with_further(snapshot, rules))
        .collect()
}

/// The sets of rules without those for further ports.
fn of_first_port(canary: &Canary, weights: &Weights) -> Result<Vec<Vec<Value>>, RouteError> {
    let (name, able) = if is_tcp(canary) {
        ("a TCP route of Istio", TCP_KEYS)
    } else {
        ("Istio", HTTP_KEYS)
    };
    conditions::check(canary, Field::Service, name, able)?;
    conditions::check(canary, Field::Test, name, able)?;
    let own = conditions::of_service(canary);
    let test = conditions::of_test(canary);
    let rule = |matches: Vec<Value>, route: Vec<Value>| {
        if is_tcp(canary) {
            tcp(matches, route)
        } else {
            http(canary, matches, route)
        }
    };
    if !test.is_empty() {
        // Requests that do not match stay on the primary. As in Flagger, this rule's only destination has the primary's weight.
        let [to_primary, _] = weights.parts();
        let primary = vec![destination(canary, &canary.primary_name(), to_primary)];
        let tested = rule(conditions::product(test, own)?, both(canary, weights));
        return Ok(vec![vec![tested, rule(own.to_vec(), primary)]]);
    }
    if is_tcp(canary) {
        return Ok(vec![vec![tcp(own.to_vec(), both(canary, weights))]]);
    }
    affinity::rules(canary, Sides::Both, weights)
        .iter()
        .map(|rules| {
            let rules = rules.iter();
            rules.map(|rule| render(canary, weights, rule)).collect()
        })
        .collect()
}

fn render(canary: &Canary, weights: &Weights, rule: &Rule) -> Result<Value, RouteError> {
    let own = conditions::of_service(canary);
    Ok(match rule {
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
            let matches = conditions::product(&[cookie], own)?;
            let mut rule = http(canary, matches, both(canary, weights));
            if let Some(set_cookie) = set_cookie {
                with_header(&mut rule, set_cookie);
            }
            mirrored(canary, weights, rule)
        }
    })
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

fn both(canary: &Canary, weights: &Weights) -> Vec<Value> {
    let [to_primary, to_canary] = weights.parts();
    vec![
        destination(canary, &canary.primary_name(), to_primary),
        destination(canary, &canary.canary_name(), to_canary),
    ]
}

/// A rule for connections. As in Flagger, an empty condition has port 0.
fn tcp(mut matches: Vec<Value>, route: Vec<Value>) -> Value {
    for condition in matches.iter_mut().filter_map(Value::as_object_mut) {
        condition.retain(|key, _| TCP_KEYS.contains(&key.as_str()));
        if condition.is_empty() {
            condition.insert("port".to_owned(), json!(0));
        }
    }
    let mut rule = json!({"route": route});
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
pub fn destination(canary: &Canary, host: &str, weight: u16) -> Value {
    let service = &canary.spec.service;
    let mut destination = json!({"host": host});
    if ports::have_number(canary) {
        destination["port"] = json!({"number": service.port});
    }
    json!({"destination": destination, "weight": weight})
}
