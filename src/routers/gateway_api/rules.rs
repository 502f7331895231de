//! The rules of an HTTPRoute: the part that depends on the weights.

use std::fmt::Display;

use serde_json::{Map, Value, json};

use super::{filters, matches, version::GatewayApi};
use crate::{
    api::canary::Canary,
    routers::{
        RouteError,
        affinity::{self, Rule},
        route::{combined, test_conditions},
    },
    snapshot::Weights,
};

/// The fields of an A/B test's condition that replace those of the service's condition.
const REPLACED_BY_TEST: [&str; 2] = ["headers", "queryParams"];

/// The sets of rules that are correct for these weights. The first set is the one that is written.
pub fn candidates(
    version: GatewayApi,
    canary: &Canary,
    weights: &Weights,
) -> Result<Vec<Vec<Value>>, RouteError> {
    let routing = Routing::of(version, canary)?;
    let test = test_conditions(canary);
    if !test.is_empty() {
        return Ok(vec![routing.test(test, weights)?]);
    }
    let rules = affinity::rules(canary, version.sides(), weights);
    let render = |rules: &Vec<Rule>| {
        let rules = rules.iter();
        rules.map(|rule| routing.render(weights, rule)).collect()
    };
    Ok(rules.iter().map(render).collect())
}

/// Leads a rule only to the apex Service, without copies for the canary.
pub fn lead_to_apex(canary: &Canary, rule: &mut Map<String, Value>) {
    let backends = json!([backend(canary, canary.apex_name(), 100)]);
    rule.insert("backendRefs".to_owned(), backends);
    if let Some(filters) = rule.get_mut("filters").and_then(Value::as_array_mut) {
        filters.retain(|filter| !filters::mirrors_to(filter, &canary.canary_name()));
        if filters.is_empty() {
            rule.remove("filters");
        }
    }
}

/// The data that all rules of a canary share.
struct Routing<'a> {
    version: GatewayApi,
    canary: &'a Canary,
    /// The match conditions of the service.
    own: Vec<Value>,
}

impl<'a> Routing<'a> {
    fn of(version: GatewayApi, canary: &'a Canary) -> Result<Self, RouteError> {
        let own = canary.spec.service.match_.as_deref().unwrap_or_default();
        Ok(Self {
            version,
            canary,
            own: matches::mapped(own).map_err(|why| invalid(&why))?,
        })
    }

    /// The match conditions of all requests that are routed.
    fn all(&self) -> Vec<Value> {
        if self.own.is_empty() {
            vec![matches::everything()]
        } else {
            self.own.clone()
        }
    }

    /// The rules of an A/B test: requests that do not match stay on the primary. A test that Gateway API cannot express is an error.
    /// (Flagger would send all requests to the canary.)
    fn test(&self, test: &[Value], weights: &Weights) -> Result<Vec<Value>, RouteError> {
        let test = matches::mapped(test).map_err(|why| invalid(&why))?;
        if test.is_empty() {
            let why = "spec.analysis.match names neither headers nor query parameters";
            return Err(invalid(&why));
        }
        let all = self.all();
        let test = combined(&test, &all, REPLACED_BY_TEST);
        let primary = backend(self.canary, &self.canary.primary_name(), 100);
        Ok(vec![
            self.rule(weights, test, self.both(weights)),
            self.rule(&Weights::PRIMARY, all, vec![primary]),
        ])
    }

    fn render(&self, weights: &Weights, rule: &Rule) -> Value {
        match rule {
            Rule::Split { primary, canary } => {
                let mut backends = self.both(weights);
                for (side, text) in backends.iter_mut().zip([primary, canary]) {
                    if let Some(text) = text {
                        side["filters"] = json!([filters::set_cookie(text)]);
                    }
                }
                self.rule(weights, self.all(), backends)
            }
            Rule::Sticky {
                cookie,
                weights,
                set_cookie,
            } => {
                let cookie = json!({"headers": [{"type": "RegularExpression", "name": "Cookie", "value": cookie}]});
                let matches = combined(&[cookie], &self.own, REPLACED_BY_TEST);
                let mut rule = self.rule(weights, matches, self.both(weights));
                if let Some(text) = set_cookie {
                    filters::with_set_cookie(&mut rule, text);
                }
                rule
            }
        }
    }

    fn both(&self, weights: &Weights) -> Vec<Value> {
        vec![
            backend(self.canary, &self.canary.primary_name(), weights.primary),
            backend(self.canary, &self.canary.canary_name(), weights.canary),
        ]
    }

    fn rule(&self, weights: &Weights, matches: Vec<Value>, backends: Vec<Value>) -> Value {
        let service = &self.canary.spec.service;
        let mut rule = json!({"matches": matches, "backendRefs": backends});
        let mut filters = filters::wanted(self.version, self.canary);
        if weights.mirrored {
            // Flagger adds the copies in blue/green releases only. In other releases it waits for them for ever.
            filters.push(filters::mirror(self.canary));
        }
        if !filters.is_empty() {
            rule["filters"] = Value::Array(filters);
        }
        let timeouts = [
            ("request", &service.timeout),
            ("backendRequest", &service.backend_timeout),
        ];
        if self.version == GatewayApi::V1 {
            for (key, timeout) in timeouts {
                if let Some(timeout) = timeout.as_ref().filter(|timeout| !timeout.is_empty()) {
                    rule["timeouts"][key] = json!(timeout);
                }
            }
        }
        rule
    }
}

fn backend(canary: &Canary, name: &str, weight: u8) -> Value {
    json!({"group": "", "kind": "Service", "name": name, "port": canary.spec.service.port, "weight": weight})
}

fn invalid(why: &impl Display) -> RouteError {
    RouteError::InvalidCanary(format!("Invalid request matching selectors: {why}"))
}
