//! The abilities of each router, and the objects that it reads before it decides.

use serde_json::json;

use super::{ROUTERS, canary_analysis, selector, snapshot};
use crate::snapshot::Weights;

/// The operator skips a strategy that a router lacks.
#[test]
fn each_router_says_what_it_can() {
    let able = |is_able: fn(&super::Row) -> bool| {
        let able = ROUTERS.iter().filter(|row| is_able(row));
        able.map(|row| row.provider).collect::<Vec<_>>()
    };
    assert_eq!(able(|row| !row.router.splits_traffic()), ["kubernetes"]);
    assert_eq!(
        able(|row| row.router.mirrors()),
        ["istio", "gatewayapi:v1", "gatewayapi:v1beta1", "contour"]
    );
    let keeps_sessions = able(|row| {
        let mut analysis = canary_analysis();
        analysis["sessionAffinity"] = json!({"cookieName": "c", "primaryCookieName": "p"});
        let snapshot = snapshot(row.provider, json!({"port": 80}), analysis, json!({}));
        row.router.new_cookies(&snapshot.canary, 7).is_some()
    });
    assert_eq!(
        keeps_sessions,
        ["istio", "gatewayapi:v1", "gatewayapi:v1beta1"]
    );
}

/// A missing object would be decided about as if it did not exist.
#[test]
fn a_router_reads_each_object_that_it_writes() {
    for row in ROUTERS {
        let service = json!({"port": 80, "gatewayRefs": [{"name": "gw"}]});
        let snapshot = snapshot(row.provider, service, canary_analysis(), json!({}));
        let read = row.router.objects(&snapshot.canary);
        let written = row
            .router
            .reconcile(&snapshot, &selector(), &Weights::PRIMARY)
            .unwrap();
        for write in written {
            assert!(
                read.contains(&write.object),
                "{}: {:?}",
                row.provider,
                write.object
            );
        }
        let names: Vec<_> = read
            .iter()
            .map(|object| format!("{} {}", object.kind.name(), object.name))
            .collect();
        let expected: &[&str] = match row.provider {
            "istio" => &[
                "VirtualService podinfo",
                "DestinationRule podinfo-canary",
                "DestinationRule podinfo-primary",
            ],
            "gatewayapi:v1" | "gatewayapi:v1beta1" => &["HTTPRoute podinfo"],
            "contour" => &["HTTPProxy podinfo"],
            "nginx" => &["Ingress web", "Ingress web-canary"],
            "kubernetes" => &[],
            _ => &["TrafficSplit podinfo"],
        };
        assert_eq!(names, expected, "{}", row.provider);
        assert!(
            read.iter().all(|object| object.namespace == "test"),
            "{}",
            row.provider
        );
    }
}

/// Istio's mesh has no route without a destination, and a share of 0 for both is no share.
#[test]
fn a_share_of_one_percent_is_a_share_and_none_for_both_is_no_route() {
    for row in ROUTERS
        .iter()
        .filter(|row| row.rules.is_some() && row.provider != "nginx")
    {
        let service = json!({"port": 80, "gatewayRefs": [{"name": "gw"}]});
        let snapshot = snapshot(row.provider, service, canary_analysis(), json!({}));
        for weights in [
            Weights::canary(1),
            Weights::canary(99),
            Weights::PRIMARY,
            Weights::CANARY,
        ] {
            let snapshot = super::reconciled(row.router, snapshot.clone(), &weights);
            assert_eq!(
                row.router.current_weights(&snapshot),
                Ok(weights),
                "{}",
                row.provider
            );
        }
        let nobody = Weights {
            primary: 0,
            ..Weights::PRIMARY
        };
        let snapshot = super::reconciled(row.router, snapshot, &nobody);
        assert!(
            row.router.current_weights(&snapshot).is_err(),
            "{}",
            row.provider
        );
    }
}
