//! The further ports of the Services, which `portDiscovery` finds.

use serde_json::{Value, json};

use super::{ROUTERS, Row, canary_analysis, reconciled, routed, selector, snapshot};
use crate::snapshot::{Kind, Snapshot, Weights};

/// A canary whose target has the ports 9898 (`http`), 9999, 53 of UDP and 53 of TCP.
fn with_ports(row: &Row, service: &Value) -> Snapshot {
    let mut snapshot = snapshot(row.provider, service.clone(), canary_analysis(), json!({}));
    let name = snapshot.reference(Kind::Deployment, "podinfo");
    let ports = json!([{"name": "http", "containerPort": 9898}, {"name": "grpc", "containerPort": 9999},
        {"name": "dns", "containerPort": 53, "protocol": "UDP"}, {"name": "dns-tcp", "containerPort": 53}]);
    let containers = json!([{"name": "main", "ports": ports}]);
    let target = json!({"spec": {"template": {"spec": {"containers": containers}}}});
    snapshot.objects.insert(name, target);
    snapshot
}

/// Where a route leads requests of the mesh or of a client in the cluster to each port of the Services, as `from>to`; empty if the requests
/// have no route, and reach the primary through the apex Service.
fn led(row: &Row, service: &Value) -> String {
    let snapshot = with_ports(row, service);
    let snapshot = reconciled(row.router, snapshot, &Weights::PRIMARY);
    let snapshot = routed(row.router, snapshot, &Weights::canary(30));
    let Some(object) = row.rules else {
        return String::new();
    };
    let spec = &snapshot.object(object.kind, object.name).unwrap()["spec"];
    let led = [80, 53, 9999].map(|port| (row.leads)(spec, port).map(|to| format!("{port}>{to}")));
    led.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

#[test]
fn no_request_to_a_further_port_is_led_to_the_first() {
    for row in ROUTERS {
        let service = |more: Value| {
            let mut service = json!({"port": 80, "targetPort": "http", "portDiscovery": true, "gatewayRefs": [{"name": "gw"}]});
            for (key, value) in more.as_object().unwrap() {
                service[key] = value.clone();
            }
            service
        };
        for (more, expected) in (row.ports)() {
            let service = service(more.clone());
            assert_eq!(led(row, &service), expected, "{} {more}", row.provider);
            // A router that splits requests of the mesh splits those to each port, or names those to which it does not.
            let unsplit = row.router.unsplit_ports(&with_ports(row, &service));
            let unsplit: Vec<_> = unsplit
                .iter()
                .map(|port| (port.number, port.protocol.as_str()))
                .collect();
            let is_first_only = expected == "80>80" && row.provider != "istio";
            let further = [(53, "UDP"), (53, "TCP"), (9999, "TCP")];
            let expected = if is_first_only { &further[..] } else { &[] };
            assert_eq!(unsplit, expected, "{} {more}", row.provider);
        }
    }
}

/// Requests through a gateway have the gateway's port. If an application has a port of the same number, these requests still reach the
/// first port.
#[test]
fn the_port_of_a_gateway_is_no_port_of_the_service() {
    let row = ROUTERS.iter().find(|row| row.provider == "istio").unwrap();
    let service = json!({"port": 9999, "targetPort": "grpc", "portDiscovery": true, "gateways": ["infra/public", "mesh"]});
    let snapshot = reconciled(row.router, with_ports(row, &service), &Weights::PRIMARY);
    let object = row.rules.unwrap();
    let live = snapshot.object(object.kind, object.name).unwrap();
    let rules = live["spec"]["http"].as_array().unwrap();
    for rule in &rules[..rules.len() - 1] {
        for condition in rule["match"].as_array().unwrap() {
            assert_eq!(condition["gateways"], json!(["mesh"]));
        }
    }
    let last = rules.last().unwrap();
    assert_eq!(
        (
            last.get("match"),
            &last["route"][0]["destination"]["port"]["number"]
        ),
        (None, &json!(9999))
    );
}

/// One port needs no discovery: the objects are the same with and without it, except for the port of destinations behind a gateway.
#[test]
fn a_target_with_one_port_has_the_routes_of_flagger() {
    for row in ROUTERS {
        let service = json!({"port": 80, "targetPort": "http", "gatewayRefs": [{"kind": "Service", "name": "podinfo"}], "gateways": ["mesh", "infra/public"]});
        let mut discovering = service.clone();
        discovering["portDiscovery"] = json!(true);
        let objects = [&service, &discovering].map(|service| {
            let mut snapshot = with_ports(row, service);
            let name = snapshot.reference(Kind::Deployment, "podinfo");
            let target = snapshot.objects.get_mut(&name).unwrap();
            let ports = &mut target["spec"]["template"]["spec"]["containers"][0]["ports"];
            ports.as_array_mut().unwrap().truncate(1);
            reconciled(row.router, snapshot, &Weights::PRIMARY).objects
        });
        assert_eq!(objects[0], objects[1], "{}", row.provider);
    }
}

/// Until the apex Service is deleted, too, requests to its further ports must reach these ports.
#[test]
fn a_restored_rule_for_a_further_port_leads_to_this_port() {
    let row = ROUTERS.iter().find(|row| row.provider == "istio").unwrap();
    let service =
        json!({"port": 80, "targetPort": "http", "portDiscovery": true, "delegation": true});
    let mut snapshot = reconciled(row.router, with_ports(row, &service), &Weights::PRIMARY);
    let write = row.router.restore(&snapshot).unwrap();
    super::apply(&mut snapshot, vec![write]);
    let object = row.rules.unwrap();
    let live = snapshot.object(object.kind, object.name).unwrap();
    for rule in live["spec"]["http"].as_array().unwrap() {
        let port = rule.pointer("/match/0/port").unwrap_or(&json!(80)).clone();
        assert_eq!(
            rule["route"],
            json!([{"destination": {"host": "podinfo", "port": {"number": port}}, "weight": 100}])
        );
    }
}

/// A target may declare thousands of ports, and each has a copy of all rules.
#[test]
fn rules_for_further_ports_are_refused_if_they_are_too_large() {
    let ports: Vec<_> = (1..200)
        .map(|port| json!({"containerPort": port}))
        .collect();
    let condition = json!({"uri": {"prefix": "/a"}});
    let rules = |conditions: usize| {
        let service = json!({"port": 80, "portDiscovery": true, "gateways": ["shop/gateway", "mesh"], "match": vec![condition.clone(); conditions]});
        let mut snapshot = snapshot("istio", service, canary_analysis(), json!({}));
        let target = snapshot.reference(Kind::Deployment, "podinfo");
        let object = json!({"spec": {"template": {"spec": {"containers": [{"name": "app", "ports": ports}]}}}});
        snapshot.objects.insert(target, object);
        let router = ROUTERS
            .iter()
            .find(|row| row.provider == "istio")
            .unwrap()
            .router;
        router.reconcile(&snapshot, &selector(), &Weights::PRIMARY)
    };
    assert!(rules(1).is_ok());
    let why = rules(1000).unwrap_err().to_string();
    assert!(
        why.contains("of rules for 99 further ports, but at most 1048576"),
        "{why}"
    );
}
