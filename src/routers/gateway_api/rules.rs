//! The rules of an HTTPRoute: all that depends on the weights.

use serde_json::{Map, Value, json};

use super::{Version, filters, matches};
use crate::{
    api::canary::Canary,
    routers::{
        affinity::{self, Rule},
        merged, tested,
    },
    snapshot::Weights,
};

/// What of a test's conditions takes the place of the service's.
const WINS: [&str; 2] = ["headers", "queryParams"];

/// The rules that route these weights; the first are those that are written, others are as good.
pub fn candidates(
    version: Version,
    canary: &Canary,
    weights: &Weights,
) -> Result<Vec<Vec<Value>>, String> {
    let routing = Routing::of(version, canary)?;
    let tested = tested(canary);
    if !tested.is_empty() {
        return Ok(vec![routing.test(tested, weights)?]);
    }
    let rules = affinity::rules(canary, version.sides(), weights);
    let render = |rules: &Vec<Rule>| {
        let rules = rules.iter();
        rules.map(|rule| routing.render(weights, rule)).collect()
    };
    Ok(rules.iter().map(render).collect())
}

/// Leads a rule to the apex Service, and nowhere else.
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

/// What all rules of a canary have in common.
struct Routing<'a> {
    version: Version,
    canary: &'a Canary,
    /// The conditions of its service.
    own: Vec<Value>,
}

impl<'a> Routing<'a> {
    fn of(version: Version, canary: &'a Canary) -> Result<Self, String> {
        let own = canary.spec.service.match_.as_deref().unwrap_or_default();
        Ok(Self {
            version,
            canary,
            own: matches::mapped(own).map_err(|why| invalid(&why))?,
        })
    }

    /// The requests that are routed.
    fn all(&self) -> Vec<Value> {
        if self.own.is_empty() {
            vec![matches::everything()]
        } else {
            self.own.clone()
        }
    }

    /// The rules of an A/B test: who does not match stays on the primary. A test that cannot be said is an error; in Flagger everyone
    /// would meet the version.
    fn test(&self, tested: &[Value], weights: &Weights) -> Result<Vec<Value>, String> {
        let tested = matches::mapped(tested).map_err(|why| invalid(&why))?;
        if tested.is_empty() {
            let why = "spec.analysis.match names neither headers nor query parameters";
            return Err(invalid(why));
        }
        let all = self.all();
        let tested = merged(&tested, &all, WINS);
        let primary = backend(self.canary, &self.canary.primary_name(), 100);
        Ok(vec![
            self.rule(weights, tested, self.both(weights)),
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
                let matches = merged(&[cookie], &self.own, WINS);
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
            // Flagger does so in blue/green only, and elsewhere waits for ever to see it done.
            filters.push(filters::mirror(self.canary));
        }
        if !filters.is_empty() {
            rule["filters"] = Value::Array(filters);
        }
        let timeouts = [
            ("request", &service.timeout),
            ("backendRequest", &service.backend_timeout),
        ];
        if self.version == Version::V1 {
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

fn invalid(why: &str) -> String {
    format!("Invalid request matching selectors: {why}")
}
