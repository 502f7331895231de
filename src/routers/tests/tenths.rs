//! Weights that are no whole percentages (`decimalStepWeights`).

use serde_json::{Value, json};

use super::{ROUTERS, Row, canary_analysis, reconciled, routed, selector, snapshot};
use crate::{
    api::percent::Percent,
    snapshot::{Snapshot, Weights},
};

/// The route of a Canary with this `spec.service`, with all traffic for the primary.
fn before(row: &Row, mut service: Value) -> Snapshot {
    service["port"] = json!(80);
    service["gatewayRefs"] = json!([{"name": "gw"}]);
    let snapshot = snapshot(row.provider, service, canary_analysis(), json!({}));
    reconciled(row.router, snapshot, &Weights::PRIMARY)
}

fn able() -> impl Iterator<Item = &'static Row> {
    ROUTERS.iter().filter(|row| row.splits_tenths)
}

/// All weights in an object, in the order of the route. NGINX has the canary's and the sum of both.
fn weights(object: &Value) -> Vec<Value> {
    let annotation = |name| {
        let name = format!("nginx.ingress.kubernetes.io/{name}");
        object["metadata"]["annotations"].get(name)
    };
    if let Some(weight) = annotation("canary-weight") {
        let total = annotation("canary-weight-total");
        return [Some(weight), total]
            .into_iter()
            .flatten()
            .cloned()
            .collect();
    }
    let lists = [
        "/spec/http/0/route",
        "/spec/tcp/0/route",
        "/spec/rules/0/backendRefs",
        "/spec/routes/0/services",
        "/spec/weighted/services",
    ];
    let mut lists = lists
        .iter()
        .filter_map(|list| object.pointer(list)?.as_array());
    let destinations = lists.next().expect("a list of destinations");
    destinations.iter().map(|to| to["weight"].clone()).collect()
}

/// The API server of each of these kinds accepts integers only.
#[test]
fn a_tenth_of_a_percent_is_written_as_one_of_a_thousand() {
    for row in able() {
        let services = match row.provider {
            "istio" => vec![json!({}), json!({"appProtocol": "tcp"})],
            "gatewayapi:v1" => vec![json!({}), json!({"grpc": {}})],
            _ => vec![json!({})],
        };
        for service in services {
            let rules = row.rules.unwrap();
            let of = |snapshot: &Snapshot| {
                let objects = row.router.objects(&snapshot.canary).into_iter();
                let routes = objects.filter(|it| it.name == rules.name);
                let mut live = routes.filter_map(|it| snapshot.objects.get(&it).cloned());
                weights(&live.next().expect("a route"))
            };
            let tenth = Weights::canary(Percent::of_tenths(1));
            let snapshot = routed(row.router, before(row, service), &tenth);
            let expected = match row.provider {
                "nginx" => vec![json!("1"), json!("1000")],
                _ => vec![json!(999), json!(1)],
            };
            assert_eq!(of(&snapshot), expected, "{}", row.provider);
            let snapshot = routed(row.router, snapshot, &Weights::canary(1));
            let expected = match row.provider {
                "nginx" => vec![json!("1")],
                _ => vec![json!(99), json!(1)],
            };
            assert_eq!(of(&snapshot), expected, "{}", row.provider);
        }
    }
}

#[test]
fn each_tenth_is_read_as_it_was_set_and_a_rollback_leaves_nothing_of_it() {
    for row in able() {
        let router = row.router;
        let first = before(row, json!({}));
        for tenths in 0..=1000 {
            let weights = Weights::canary(Percent::of_tenths(tenths));
            let snapshot = routed(router, first.clone(), &weights);
            let place = format!("{} {tenths}", row.provider);
            assert_eq!(router.current_weights(&snapshot), Ok(weights), "{place}");
            assert_eq!(
                router.set_weights(&snapshot, &weights),
                Ok(vec![]),
                "{place}"
            );
            let repairs = router.reconcile(&snapshot, &selector(), &Weights::CANARY);
            assert_eq!(repairs, Ok(vec![]), "{place}");
            let after = routed(router, snapshot, &Weights::PRIMARY);
            assert_eq!(after.objects, first.objects, "{place}");
        }
    }
}

/// A client with the cookie stays on its version, whatever the weight is.
#[test]
fn clients_are_kept_on_their_version_beside_a_weight_of_a_tenth() {
    for row in able().filter(|row| row.keeps_sessions) {
        let mut analysis = canary_analysis();
        analysis["sessionAffinity"] = json!({"cookieName": "c"});
        let service = json!({"port": 80, "gatewayRefs": [{"name": "gw"}]});
        let status = json!({"sessionAffinityCookie": "c=x"});
        let snapshot = snapshot(row.provider, service, analysis, status);
        let snapshot = reconciled(row.router, snapshot, &Weights::PRIMARY);
        let tenth = Weights::canary(Percent::of_tenths(1));
        let snapshot = routed(row.router, snapshot, &tenth);
        assert_eq!(
            row.router.current_weights(&snapshot),
            Ok(tenth),
            "{}",
            row.provider
        );
        let rules = row.rules.unwrap();
        let live = snapshot.object(rules.kind, rules.name).unwrap();
        assert_eq!(weights(live), [0, 100], "{}", row.provider);
    }
}

/// A route with a sum of 1000 that another actor wrote has shares, and not the weights 100 and 100.
#[test]
fn weights_of_a_thousand_of_another_actor_are_shares() {
    assert_eq!(Weights::of_parts([900, 100]), Some(Weights::canary(10)));
    assert_eq!(Weights::of_parts([1000, 0]), Some(Weights::PRIMARY));
    assert_eq!(Weights::of_parts([0, 0]), None);
    for [primary, canary] in [[60_u8, 60], [99, 1]] {
        let weights = Weights::of_percents(primary, canary);
        let parts = [primary, canary].map(u64::from);
        assert_eq!(Weights::of_parts(parts), weights);
        assert_eq!(weights.unwrap().parts().map(u64::from), parts);
    }
    let great = Weights::of_parts([u64::MAX, u64::MAX]).unwrap();
    assert_eq!(great.parts(), [100, 100]);
}
