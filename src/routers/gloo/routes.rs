//! The routes of the RouteTable.

use serde_json::{Map, Value, json};

use super::upstreams::Side;
use crate::{
    api::{canary::Canary, percent::Percent},
    routers::{
        RouteError,
        conditions::{Field, check, of_test},
        route::{by_name, items, percent, text},
    },
    snapshot::Weights,
};

/// Where a route has its destinations.
const DESTINATIONS: &str = "/routeAction/multi/destinations";
/// Where a destination has the name of its Upstream.
const UPSTREAM: &str = "/destination/upstream/name";

/// The part of the spec that is ours, for these weights.
pub fn spec(canary: &Canary, weights: &Weights) -> Result<Map<String, Value>, RouteError> {
    let mut first = route(destinations(canary, weights));
    let mut routes = Vec::new();
    let matchers = matchers(canary)?;
    if !matchers.is_empty() {
        first["matchers"] = json!(matchers);
        // Requests outside the test. (Flagger answers them with 404.)
        routes.push(route(destinations(canary, &Weights::PRIMARY)));
    }
    routes.insert(0, first);
    Ok(Map::from_iter([("routes".to_owned(), json!(routes))]))
}

fn route(destinations: Vec<Value>) -> Value {
    json!({"inheritablePathMatchers": true, "routeAction": {"multi": {"destinations": destinations}}})
}

/// The route to the apex Service.
pub fn to_apex(canary: &Canary) -> Value {
    let service = json!({"name": canary.apex_name(), "namespace": canary.metadata.namespace});
    let kube = json!({"ref": service, "port": canary.spec.service.port});
    route(vec![json!({"destination": {"kube": kube}, "weight": 100})])
}

/// The Upstreams with their weights. Weights of 0 are left out, like Flagger's.
fn destinations(canary: &Canary, weights: &Weights) -> Vec<Value> {
    let of = |side: Side, weight: Percent| {
        let upstream =
            json!({"name": side.upstream(canary), "namespace": canary.metadata.namespace});
        let mut destination = json!({"destination": {"upstream": upstream}});
        set_weight(&mut destination, weight);
        destination
    };
    vec![
        of(Side::Primary, weights.primary),
        of(Side::Canary, weights.canary),
    ]
}

fn set_weight(destination: &mut Value, weight: Percent) {
    if let Some(fields) = destination.as_object_mut() {
        match weight {
            Percent::ZERO => drop(fields.remove("weight")),
            _ => drop(fields.insert("weight".to_owned(), json!(weight))),
        }
    }
}

/// A matcher for each condition of an A/B test: a request must meet one of them. (Flagger makes one of all, so that a request must meet
/// all.)
fn matchers(canary: &Canary) -> Result<Vec<Value>, RouteError> {
    let able = ["headers", "method"];
    check(canary, Field::Test, "a RouteTable", &able)?;
    let test = of_test(canary);
    if !test.is_empty() {
        // The user's VirtualService decides which requests reach the RouteTable. Conditions of the service would not narrow the test.
        check(canary, Field::Service, "an A/B test on Gloo", &[])?;
    }
    test.iter().map(matcher).collect()
}

fn matcher(condition: &Value) -> Result<Value, RouteError> {
    let inexpressible = |what: &str| RouteError::InvalidCanary(format!("{}: {what}", Field::Test));
    let mut headers = Vec::new();
    for (name, value) in by_name(condition.get("headers")) {
        headers.push(match (text(value, "exact"), text(value, "regex")) {
            (Some(exact), _) => json!({"name": name, "value": exact}),
            (None, Some(regex)) => json!({"name": name, "value": regex, "regex": true}),
            (None, None) => {
                let why = format!("a RouteTable compares {name} exactly or with a regex only");
                return Err(inexpressible(&why));
            }
        });
    }
    let mut matcher = json!({});
    if !headers.is_empty() {
        matcher["headers"] = json!(headers);
    }
    let method = condition.get("method").filter(|method| {
        let fields = method.as_object();
        !method.is_null() && fields.is_none_or(|fields| !fields.is_empty())
    });
    if let Some(method) = method {
        let exact = text(method, "exact");
        let why = "a RouteTable compares a method exactly only";
        let exact = exact.ok_or_else(|| inexpressible(why))?;
        matcher["methods"] = json!([exact]);
    }
    Ok(matcher)
}

/// Leads each route to the primary, whatever else is in it: a rollback works although the Canary asks for routes that a RouteTable cannot
/// express.
pub fn withdraw(canary: &Canary, table: &mut Value) {
    let (primary, version) = (
        Side::Primary.upstream(canary),
        Side::Canary.upstream(canary),
    );
    let routes = table
        .pointer_mut("/spec/routes")
        .and_then(Value::as_array_mut);
    for route in routes.into_iter().flatten() {
        let to = route
            .pointer_mut(DESTINATIONS)
            .and_then(Value::as_array_mut);
        for destination in to.into_iter().flatten() {
            let name = destination.pointer(UPSTREAM).and_then(Value::as_str);
            if name == Some(&primary) {
                set_weight(destination, Percent::ALL);
            } else if name == Some(&version) {
                set_weight(destination, Percent::ZERO);
            }
        }
    }
}

/// Whether our part of a RouteTable is correct for these weights.
pub fn has_routes(canary: &Canary, live: &Value, weights: &Weights) -> bool {
    let wanted = spec(canary, weights).unwrap_or_default();
    live.pointer("/spec/routes") == wanted.get("routes")
}

/// The weights of the first route; `None` if it does not lead to our Upstreams.
pub fn routed(canary: &Canary, table: &Value) -> Option<Weights> {
    let first = items(table, "/spec/routes").next()?;
    let weight = |side: Side| {
        let name = side.upstream(canary);
        let mut all = items(first, DESTINATIONS);
        let is = |one: &&Value| one.pointer(UPSTREAM).is_some_and(|own| *own == name);
        Some(percent(all.find(is)?.get("weight")))
    };
    let (primary, canary) = (weight(Side::Primary)?, weight(Side::Canary)?);
    Weights::of_percents(primary, canary)
}
