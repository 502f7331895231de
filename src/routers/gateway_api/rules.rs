//! The rules of a route: the part that depends on the weights.

use serde_json::{Map, Value, json};

use super::{filters, grpc, matches, version::GatewayApi};
use crate::{
    api::canary::Canary,
    routers::{
        RouteError,
        affinity::{self, Rule},
        conditions,
        route::withdraw,
    },
    snapshot::Weights,
};

/// The sets of rules that are correct for these weights. The first set is the one that is written.
pub fn candidates(
    version: GatewayApi,
    canary: &Canary,
    weights: &Weights,
) -> Result<Vec<Vec<Value>>, RouteError> {
    let routing = Routing::of(version, canary)?;
    let test = conditions::of_test(canary);
    if !test.is_empty() {
        return Ok(vec![routing.test(test, weights)?]);
    }
    let rules = affinity::rules(canary, version.sides(), weights);
    let render = |rules: &Vec<Rule>| {
        let rules = rules.iter();
        rules.map(|rule| routing.render(weights, rule)).collect()
    };
    rules.iter().map(render).collect()
}

/// Leads a rule only to the apex Service, without copies for the canary.
pub fn lead_to_apex(canary: &Canary, rule: &mut Map<String, Value>) {
    let backends = json!([backend(canary, canary.apex_name(), 100)]);
    rule.insert("backendRefs".to_owned(), backends);
    without_copies(canary, rule);
}

/// Leads the rules that exist to the primary, without copies for the canary.
pub fn withdraw_canary(canary: &Canary, route: &mut Value) {
    let mut rules = route.pointer_mut("/spec/rules");
    let list = rules.as_mut().and_then(|rules| rules.as_array_mut());
    for rule in list.into_iter().flatten().filter_map(Value::as_object_mut) {
        without_copies(canary, rule);
    }
    withdraw(rules, canary, ["backendRefs", "/name"]);
}

fn without_copies(canary: &Canary, rule: &mut Map<String, Value>) {
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
    /// The match conditions of the service, in Istio's form, without those that are empty.
    own: Vec<Value>,
}

impl<'a> Routing<'a> {
    fn of(version: GatewayApi, canary: &'a Canary) -> Result<Self, RouteError> {
        grpc::check(version, canary)?;
        matches::check(canary)?;
        let own = conditions::of_service(canary).iter();
        let own = own.filter(|own| conditions::keys(own).next().is_some());
        Ok(Self {
            version,
            canary,
            own: own.cloned().collect(),
        })
    }

    /// The match conditions of all requests that are routed.
    fn all(&self) -> Result<Vec<Value>, RouteError> {
        if let Some(grpc) = grpc::of(self.canary) {
            return Ok(grpc::matches(grpc, &matches::mapped(&self.own)?));
        }
        if self.own.is_empty() {
            return Ok(vec![matches::everything()]);
        }
        matches::mapped(&self.own)
    }

    /// The rules of an A/B test: requests that do not match stay on the primary. A test that Gateway API cannot express is an error.
    /// (Flagger would send all requests to the canary.)
    fn test(&self, test: &[Value], weights: &Weights) -> Result<Vec<Value>, RouteError> {
        let mut tested = matches::mapped(&conditions::product(test, &self.own)?)?;
        if let Some(grpc) = grpc::of(self.canary) {
            tested = grpc::matches(grpc, &tested);
        } else if self.own.is_empty() {
            for one in &mut tested {
                if one.get("path").is_none() {
                    one["path"] = matches::everything()["path"].take();
                }
            }
        }
        let primary = backend(self.canary, &self.canary.primary_name(), 100);
        Ok(vec![
            self.rule(weights, tested, self.both(weights)),
            self.rule(&Weights::PRIMARY, self.all()?, vec![primary]),
        ])
    }

    fn render(&self, weights: &Weights, rule: &Rule) -> Result<Value, RouteError> {
        Ok(match rule {
            Rule::Split { primary, canary } => {
                let mut backends = self.both(weights);
                for (side, text) in backends.iter_mut().zip([primary, canary]) {
                    if let Some(text) = text {
                        side["filters"] = json!([filters::set_cookie(text)]);
                    }
                }
                self.rule(weights, self.all()?, backends)
            }
            Rule::Sticky {
                cookie,
                weights,
                set_cookie,
            } => {
                let cookie = json!({"headers": {"Cookie": {"regex": cookie}}});
                let matches = matches::mapped(&conditions::product(&[cookie], &self.own)?)?;
                let mut rule = self.rule(weights, matches, self.both(weights));
                if let Some(text) = set_cookie {
                    filters::with_set_cookie(&mut rule, text);
                }
                rule
            }
        })
    }

    fn both(&self, weights: &Weights) -> Vec<Value> {
        let [to_primary, to_canary] = weights.parts();
        vec![
            backend(self.canary, &self.canary.primary_name(), to_primary),
            backend(self.canary, &self.canary.canary_name(), to_canary),
        ]
    }

    fn rule(&self, weights: &Weights, matches: Vec<Value>, backends: Vec<Value>) -> Value {
        let service = &self.canary.spec.service;
        let mut rule = json!({"backendRefs": backends});
        // Without conditions, a rule of a GRPCRoute is for all requests. One of an HTTPRoute has a path at least, as in Flagger.
        if !matches.is_empty() || grpc::of(self.canary).is_none() {
            rule["matches"] = Value::Array(matches);
        }
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

fn backend(canary: &Canary, name: &str, weight: u16) -> Value {
    json!({"group": "", "kind": "Service", "name": name, "port": canary.spec.service.port, "weight": weight})
}
