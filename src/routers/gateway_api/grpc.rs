//! A GRPCRoute in place of the HTTPRoute (`spec.service.grpc`). (Not in Flagger, which always makes an HTTPRoute.)
//!
//! A Canary gets one of both, and not both: a gateway must accept only one of an HTTPRoute and a GRPCRoute if they share a host name on a
//! listener, and a Canary has one list of host names. `switch.rs` has the change from one to the other. For both in one Canary, its user
//! makes them and names them in `routeRefs`.

use serde_json::{Map, Value, json};

use super::version::GatewayApi;
use crate::{
    api::canary::{Canary, Grpc, GrpcMethod},
    routers::{RouteError, route::text},
};

/// The most matches of a rule in Gateway API.
const MATCHES: usize = 64;
/// The conditions of a rule, besides methods.
pub const KEYS: &[&str] = &["headers"];

/// The field of a Canary; `None` if its route is an HTTPRoute.
pub fn of(canary: &Canary) -> Option<&Grpc> {
    canary.spec.service.grpc.as_ref()
}

/// Checks that the rules of a GRPCRoute can do all that the Canary asks for.
pub fn check(version: GatewayApi, canary: &Canary) -> Result<(), RouteError> {
    let Some(grpc) = of(canary) else {
        return Ok(());
    };
    let refuse = |why: String| Err(RouteError::InvalidCanary(why));
    if version != GatewayApi::V1 {
        return refuse("spec.service.grpc needs the provider gatewayapi:v1".to_owned());
    }
    let service = &canary.spec.service;
    let fields = [
        ("timeout", service.timeout.is_some()),
        ("backendTimeout", service.backend_timeout.is_some()),
        ("rewrite", service.rewrite.is_some()),
        ("corsPolicy", service.cors_policy.is_some()),
    ];
    if let Some((field, _)) = fields.iter().find(|(_, is_there)| *is_there) {
        return refuse(format!("spec.service.{field}: a GRPCRoute cannot have it"));
    }
    let analysis = canary.spec.analysis.as_ref();
    if analysis.is_some_and(|analysis| analysis.session_affinity.is_some()) {
        return refuse("spec.analysis.sessionAffinity: clients of gRPC keep no cookies".to_owned());
    }
    let own = service.match_.as_ref().map_or(0, Vec::len).max(1);
    let test = analysis.map_or(0, |analysis| analysis.match_.len()).max(1);
    let count = grpc.methods.iter().flatten().count();
    if count.saturating_mul(own).saturating_mul(test) > MATCHES {
        return refuse(format!(
            "spec.service.grpc.methods: together with the conditions these are more than {MATCHES} matches"
        ));
    }
    let mut methods = grpc.methods.iter().flatten().map(method);
    if let Some(i) = methods.position(|method| method.is_empty()) {
        let place = format!("spec.service.grpc.methods[{i}]");
        return refuse(format!("{place}: it has neither a service nor a method"));
    }
    Ok(())
}

/// The conditions that a request meets if it is for one of the methods, and meets one of these conditions; empty if all requests do.
pub fn matches(grpc: &Grpc, conditions: &[Value]) -> Vec<Value> {
    let methods: Vec<_> = grpc.methods.iter().flatten().map(method).collect();
    if methods.is_empty() {
        return conditions.to_vec();
    }
    let methods = methods.into_iter().map(|mut method| {
        method.insert("type".to_owned(), json!("Exact"));
        json!({"method": method})
    });
    if conditions.is_empty() {
        return methods.collect();
    }
    let both = |method: Value| {
        let with_method = move |condition: &Value| {
            let mut both = condition.clone();
            both["method"] = method["method"].clone();
            both
        };
        conditions.iter().map(with_method)
    };
    methods.flat_map(both).collect()
}

/// The parts of a method's name that are there.
fn method(method: &GrpcMethod) -> Map<String, Value> {
    let value = json!(method);
    let parts = ["service", "method"].into_iter();
    let part = |key: &str| Some((key.to_owned(), json!(text(&value, key)?)));
    parts.filter_map(part).collect()
}

#[cfg(test)]
mod tests {
    use crate::{
        routers::{
            Router,
            gateway_api::GatewayApi,
            tests::{apply, canary_analysis, reconciled, selector, snapshot},
        },
        snapshot::{Kind, Snapshot, Weights},
    };
    use serde_json::{Value, json};

    fn canary(service: Value, analysis: Value) -> Snapshot {
        let mut all = json!({"port": 80, "gatewayRefs": [{"name": "gw"}], "grpc": {}});
        for (key, value) in service.as_object().unwrap() {
            all[key] = value.clone();
        }
        snapshot("gatewayapi:v1", all, analysis, Value::Null)
    }

    fn rules(snapshot: &Snapshot) -> Value {
        snapshot.object(Kind::GrpcRoute, "podinfo").unwrap()["spec"]["rules"].clone()
    }

    fn backends(primary: u8, canary: u8) -> Value {
        let backend = |name: &str, weight: u8| json!({"group": "", "kind": "Service", "name": name, "port": 80, "weight": weight});
        json!([
            backend("podinfo-primary", primary),
            backend("podinfo-canary", canary)
        ])
    }

    #[test]
    fn the_route_is_a_grpc_route_and_no_http_route_and_the_weights_change_alone() {
        let cart = json!({"service": "shop.Cart", "method": "Add"});
        let service = json!({"hosts": ["grpc.example.com"], "grpc": {"methods": [cart, {"service": "shop.Pay"}]},
            "headers": {"request": {"set": {"x-a": "1"}}}});
        let given = canary(service, canary_analysis());
        let mut snapshot = reconciled(&GatewayApi::V1, given, &Weights::PRIMARY);
        assert!(snapshot.object(Kind::HttpRoute, "podinfo").is_none());
        let matches = json!([{"method": {"type": "Exact", "service": "shop.Cart", "method": "Add"}},
            {"method": {"type": "Exact", "service": "shop.Pay"}}]);
        let filters = json!([{"type": "RequestHeaderModifier",
            "requestHeaderModifier": {"set": [{"name": "x-a", "value": "1"}]}}]);
        for (weights, backends) in [
            (Weights::PRIMARY, backends(100, 0)),
            (Weights::canary(30), backends(70, 30)),
            (Weights::canary(100), backends(0, 100)),
            (Weights::PRIMARY, backends(100, 0)),
        ] {
            let writes = GatewayApi::V1.set_weights(&snapshot, &weights).unwrap();
            apply(&mut snapshot, writes);
            let rule = json!({"matches": matches, "filters": filters, "backendRefs": backends});
            assert_eq!(rules(&snapshot), json!([rule]));
            assert_eq!(GatewayApi::V1.current_weights(&snapshot), Ok(weights));
            let repairs = GatewayApi::V1.reconcile(&snapshot, &selector(), &weights);
            assert_eq!(repairs, Ok(vec![]));
        }
        let route = snapshot.object(Kind::GrpcRoute, "podinfo").unwrap();
        assert_eq!(route["apiVersion"], "gateway.networking.k8s.io/v1");
        assert_eq!(route["spec"]["hostnames"], json!(["grpc.example.com"]));
        assert_eq!(route["metadata"]["ownerReferences"][0]["kind"], "Canary");
    }

    #[test]
    fn without_methods_and_conditions_the_route_is_for_all_requests() {
        let given = canary(json!({}), canary_analysis());
        let snapshot = reconciled(&GatewayApi::V1, given, &Weights::PRIMARY);
        assert_eq!(rules(&snapshot), json!([{"backendRefs": backends(100, 0)}]));
    }

    /// All requests of other clients stay on the primary.
    #[test]
    fn a_test_sends_matching_requests_for_the_methods_to_the_canary() {
        let test = json!({"iterations": 2, "match": [{"headers": {"x-beta": {"exact": "1"}}}]});
        let beta = json!({"name": "x-beta", "type": "Exact", "value": "1"});
        let method = json!({"type": "Exact", "method": "Add"});
        for (grpc, tested, all) in [
            (json!({}), json!([{"headers": [beta]}]), None),
            (
                json!({"methods": [{"method": "Add"}]}),
                json!([{"headers": [beta], "method": method}]),
                Some(json!([{"method": method}])),
            ),
        ] {
            let given = canary(json!({"grpc": grpc}), test.clone());
            let snapshot = reconciled(&GatewayApi::V1, given, &Weights::canary(100));
            let rules = rules(&snapshot);
            assert_eq!(rules[0]["matches"], tested);
            assert_eq!(rules[0]["backendRefs"], backends(0, 100));
            assert_eq!(rules[1].get("matches"), all.as_ref());
            assert_eq!(rules[1]["backendRefs"][0]["name"], "podinfo-primary");
        }
    }

    #[test]
    fn what_a_grpc_route_cannot_do_is_refused_and_a_rollback_still_works() {
        let affinity = json!({"stepWeight": 10, "sessionAffinity": {"cookieName": "a"}});
        let nameless = json!({"methods": [{"method": "Add"}, {"service": ""}]});
        for (service, analysis, why) in [
            (
                json!({"timeout": "5s"}),
                canary_analysis(),
                "spec.service.timeout: a GRPCRoute cannot have it",
            ),
            (
                json!({"rewrite": {"uri": "/"}}),
                canary_analysis(),
                "spec.service.rewrite: a GRPCRoute cannot have it",
            ),
            (
                json!({"match": [{"uri": {"prefix": "/shop"}}]}),
                canary_analysis(),
                "spec.service.match: a GRPCRoute does not match requests by uri",
            ),
            (
                json!({}),
                affinity,
                "spec.analysis.sessionAffinity: clients of gRPC keep no cookies",
            ),
            (
                json!({"grpc": {"methods": vec![json!({"service": "a"}); 33]},
                    "match": [{"headers": {"a": {"exact": "1"}}}, {"headers": {"b": {"exact": "1"}}}]}),
                canary_analysis(),
                "spec.service.grpc.methods: together with the conditions these are more than 64 matches",
            ),
            (
                json!({"grpc": nameless}),
                canary_analysis(),
                "spec.service.grpc.methods[1]: it has neither a service nor a method",
            ),
        ] {
            let good = canary(json!({}), canary_analysis());
            let mut snapshot = reconciled(&GatewayApi::V1, good, &Weights::PRIMARY);
            let writes = GatewayApi::V1.set_weights(&snapshot, &Weights::canary(40));
            apply(&mut snapshot, writes.unwrap());
            snapshot.canary = canary(service, analysis).canary;
            let refused = GatewayApi::V1.set_weights(&snapshot, &Weights::canary(50));
            assert_eq!(refused.unwrap_err().to_string(), why);
            let writes = GatewayApi::V1.set_weights(&snapshot, &Weights::PRIMARY);
            apply(&mut snapshot, writes.unwrap());
            assert_eq!(rules(&snapshot)[0]["backendRefs"], backends(100, 0));
        }
        let given = canary(json!({}), canary_analysis());
        let refused = GatewayApi::V1Beta1.reconcile(&given, &selector(), &Weights::PRIMARY);
        let why = "spec.service.grpc needs the provider gatewayapi:v1";
        assert_eq!(refused.unwrap_err().to_string(), why);
    }

    #[test]
    fn a_step_waits_until_the_gateway_accepts_the_route() {
        let given = canary(json!({}), canary_analysis());
        let mut snapshot = reconciled(&GatewayApi::V1, given, &Weights::PRIMARY);
        let name = snapshot.reference(Kind::GrpcRoute, "podinfo");
        let live = snapshot.objects.get_mut(&name).unwrap();
        let condition = json!({"type": "Accepted", "status": "False", "reason": "HostnameConflict", "observedGeneration": 1});
        live["metadata"]["generation"] = json!(1);
        live["status"] =
            json!({"parents": [{"parentRef": {"name": "gw"}, "conditions": [condition]}]});
        let why = GatewayApi::V1.accepted(&snapshot).unwrap_err().to_string();
        assert!(
            why.starts_with("GRPCRoute podinfo.test parent gw is not ready"),
            "{why}"
        );
    }
}
