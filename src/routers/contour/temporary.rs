//! Temporary routes of an HTTPProxy: each names Services but matches no request.
//!
//! Contour sends routes and Services to Envoy separately, in either order. Envoy answers with 503 if a route leads to a Service that it
//! does not know yet, or does not know any more. So Services are added before the routes that lead to them, and removed after.

use serde_json::{Value, json};

use crate::routers::route::items;

/// The header of the condition that no request is meant to match.
const HEADER: &str = "x-flagger-nobody";

/// Temporary copies of those routes of `proxy` that lead to a Service which `other`, another state of the same HTTPProxy, does not name.
pub fn routes(proxy: &Value, other: &Value) -> Vec<Value> {
    let known: Vec<_> = items(other, "/spec/routes").flat_map(led_to).collect();
    let new = items(proxy, "/spec/routes")
        .filter(|route| !is_temporary(route) && led_to(route).any(|to| !known.contains(&to)));
    new.map(|route| {
        let conditions = items(route, "/conditions").cloned().chain([no_request()]);
        let mut route = route.clone();
        route["conditions"] = conditions.collect();
        route
    })
    .collect()
}

/// Names and ports of the Services that a route leads to.
fn led_to(route: &Value) -> impl Iterator<Item = (&Value, &Value)> {
    items(route, "/services").map(|service| (&service["name"], &service["port"]))
}

/// Whether a route is temporary.
pub fn is_temporary(route: &Value) -> bool {
    items(route, "/conditions").any(|condition| *condition == no_request())
}

/// A condition that no request is meant to match.
fn no_request() -> Value {
    json!({"header": {"name": HEADER, "present": true}})
}

/// An HTTPProxy without its temporary routes.
pub fn strip(proxy: &Value) -> Value {
    let mut proxy = proxy.clone();
    if let Some(Value::Array(routes)) = proxy.pointer_mut("/spec/routes") {
        routes.retain(|route| !is_temporary(route));
    }
    proxy
}

/// Appends routes to those of an HTTPProxy.
pub fn append(proxy: &mut Value, routes: Vec<Value>) {
    if routes.is_empty() {
        return;
    }
    let all: Vec<_> = items(proxy, "/spec/routes")
        .cloned()
        .chain(routes)
        .collect();
    proxy["spec"]["routes"] = json!(all);
}
