//! Complete releases on each kind of route that a Canary may name (`spec.service.routeRefs`).

use flagger_rs::{api::canary::CanaryPhase, snapshot::Kind};
use serde_json::{Value, json};

use super::simulation::Simulation;

/// A rule in a list of a kind of route, with both weights at the end of its two backends.
type Row = (Kind, &'static str, fn() -> Value, &'static str);

fn gateway_api() -> Value {
    let backend = |name: &str, weight: u64| json!({"name": name, "port": 9898, "weight": weight});
    json!({"name": "api", "backendRefs": [backend("podinfo", 100), backend("podinfo-canary", 0)]})
}

fn istio() -> Value {
    let route = |host: &str, weight: u64| json!({"destination": {"host": host}, "weight": weight});
    json!({"timeout": "3s", "route": [route("podinfo", 100), route("podinfo-canary.test.svc.cluster.local", 0)]})
}

const ROWS: [Row; 7] = [
    (Kind::HttpRoute, "rules", gateway_api, "backendRefs"),
    (Kind::GrpcRoute, "rules", gateway_api, "backendRefs"),
    (Kind::TlsRoute, "rules", gateway_api, "backendRefs"),
    (Kind::TcpRoute, "rules", gateway_api, "backendRefs"),
    (Kind::VirtualService, "http", istio, "route"),
    (Kind::VirtualService, "tls", istio, "route"),
    (Kind::VirtualService, "tcp", istio, "route"),
];

/// The route of a row, without what the API server counts.
fn route((kind, list, rule, _): Row) -> Value {
    let metadata = json!({"name": "web", "namespace": "test", "labels": {"team": "a"}, "annotations": {"b": "c"}});
    let spec = json!({"hosts": ["a.example.com"], list: [rule()]});
    json!({"apiVersion": kind.api_version(), "kind": kind.name(), "metadata": metadata, "spec": spec})
}

#[test]
fn a_release_changes_two_weights_of_a_route_of_any_kind_and_no_byte_beside_them() {
    for row in ROWS {
        for (metric, end) in [("100", CanaryPhase::Succeeded), ("42", CanaryPhase::Failed)] {
            let (kind, list, _, backends) = row;
            // With Istio as the provider, too, the operator makes no VirtualService and no DestinationRule.
            let spec = json!({"provider": "istio", "analysis": {"stepWeight": 20, "maxWeight": 40},
                "service": {"port": 9898, "routeRefs": [{"kind": kind.name(), "name": "web"}]}});
            let mut sim = Simulation::new(spec);
            let name = sim.snapshot.reference(kind, "web");
            sim.store(name.clone(), route(row));
            sim.run_until(CanaryPhase::Initialized);
            sim.image("podinfo:2");
            sim.metric = metric.to_owned();
            let mut most = 0;
            for _ in 0..400 {
                sim.reconcile();
                let mut live = sim.snapshot.objects[&name].clone();
                for field in ["uid", "generation"] {
                    live["metadata"].as_object_mut().unwrap().remove(field);
                }
                let pair = &mut live["spec"][list][0][backends];
                let weights = [0, 1].map(|i| pair[i]["weight"].as_u64().unwrap());
                (pair[0]["weight"], pair[1]["weight"]) = (json!(100), json!(0));
                assert_eq!(weights.iter().sum::<u64>(), 100);
                assert_eq!(live, route(row), "{kind:?} {list}");
                most = most.max(weights[1]);
            }
            assert_eq!(sim.snapshot.phase(), end, "{}", sim.transcript());
            assert_eq!(most, if end == CanaryPhase::Failed { 20 } else { 40 });
            let mut made = sim.snapshot.objects.keys();
            let is_istio = |kind: Kind| kind.group_version().0 == "networking.istio.io";
            assert!(made.all(|object| *object == name || !is_istio(object.kind)));
        }
    }
}
