use proptest::prelude::*;

use super::*;

fn canary(service: &Value) -> Canary {
    let mut fields = json!({"port": 80, "portDiscovery": true});
    for (key, value) in service.as_object().unwrap() {
        fields[key] = value.clone();
    }
    serde_json::from_value(
        json!({"apiVersion": "flagger.app/v1beta1", "kind": "Canary", "metadata": {"name": "podinfo", "namespace": "test"},
        "spec": {"targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "podinfo"}, "service": fields}}),
    )
    .unwrap()
}

fn found(service: &Value, containers: &Value) -> String {
    let template = json!({"spec": {"containers": containers}});
    let port = |port: Port| match port.protocol.as_str() {
        "TCP" => format!("{}:{}", port.name, port.number),
        other => format!("{}:{}/{other}", port.name, port.number),
    };
    let ports = discovered(&canary(service), &template).into_iter();
    ports.map(port).collect::<Vec<_>>().join(" ")
}

/// Each row has the Service's fields, and the ports that are found besides the first: all of the application's other ports.
#[test]
fn port_discovery_finds_the_ports_that_are_not_the_target_port() {
    let containers = json!([
        {"name": "a", "ports": [{"name": "web", "containerPort": 80}, {"containerPort": 9898}, {"name": "", "containerPort": 1}]},
        {"name": "envoy", "ports": [{"containerPort": 2}]}, {"name": "istio-proxy", "ports": [{"containerPort": 3}]},
        {"name": "b", "ports": [{"containerPort": 4}]}]);
    for (service, expected) in [
        (json!({}), "tcp-a-1:9898 tcp-a-2:1 tcp-b-0:4"),
        (json!({"portDiscovery": false}), ""),
        // The Services have port 80 already.
        (json!({"targetPort": 9898}), "tcp-a-2:1 tcp-b-0:4"),
        (
            json!({"port": 9898, "targetPort": 7}),
            "tcp-a-2:1 tcp-b-0:4 web:80",
        ),
        (
            json!({"port": 7, "targetPort": "web"}),
            "tcp-a-1:9898 tcp-a-2:1 tcp-b-0:4",
        ),
    ] {
        assert_eq!(found(&service, &containers), expected, "{service}");
    }
}

/// Each row has the containers' ports, and those of the Services besides the first.
#[test]
fn each_number_is_found_once_for_each_protocol_and_names_differ() {
    let of = |ports: Value| json!([{"name": "main", "ports": ports}]);
    let named = |name: &str, number: i64| json!({"name": name, "containerPort": number});
    let udp =
        |name: &str, number: i64| json!({"name": name, "containerPort": number, "protocol": "UDP"});
    let target = json!({"targetPort": "http"});
    for (service, containers, expected) in [
        // fluxcd/flagger#1441
        (
            json!({"port": 8080, "targetPort": "http"}),
            of(json!([named("http", 8080), named("monitoring", 8080)])),
            "",
        ),
        (
            target.clone(),
            of(json!([
                named("http", 8080),
                named("monitoring", 8080),
                named("again", 8080)
            ])),
            "monitoring:8080",
        ),
        // fluxcd/flagger#948
        (
            target.clone(),
            of(json!([
                named("http", 8080),
                udp("dns", 53),
                named("dns-tcp", 53)
            ])),
            "dns:53/UDP dns-tcp:53",
        ),
        (
            json!({"port": 53, "targetPort": "dns-tcp", "portName": "dns"}),
            of(json!([udp("dns", 53), named("dns-tcp", 53)])),
            "udp-main-0:53/UDP",
        ),
        (
            json!({"port": 53}),
            of(json!([named("dns-tcp", 53), udp("dns", 53)])),
            "dns:53/UDP",
        ),
        (
            json!({"targetPort": 9898}),
            json!([{"name": "a", "ports": [named("http", 1)]}, {"name": "b", "ports": [named("http", 2), {"containerPort": 3, "protocol": "SCTP"}]}]),
            "sctp-b-1:3/SCTP tcp-a-0:1 tcp-b-0:2",
        ),
        (
            target.clone(),
            json!([{"name": "a".repeat(63), "ports": [{"containerPort": 5}]}]),
            "tcp-5:5",
        ),
        (
            target,
            of(
                json!([{"name": "none"}, {"containerPort": 0}, {"containerPort": "x"}, {"containerPort": 70000}]),
            ),
            "",
        ),
    ] {
        assert_eq!(found(&service, &containers), expected, "{containers}");
    }
}

fn containers() -> impl Strategy<Value = Value> {
    let name = prop::option::of(prop::sample::select(vec![
        "http", "grpc", "tcp-a-0", "tcp-1", "udp-1",
    ]));
    let protocol = prop::option::of(prop::sample::select(vec!["TCP", "UDP", "SCTP"]));
    let port = (name, protocol, 0_i64..5).prop_map(|(name, protocol, number)| {
        let mut port = json!({"containerPort": number});
        if let Some(name) = name {
            port["name"] = json!(name);
        }
        if let Some(protocol) = protocol {
            port["protocol"] = json!(protocol);
        }
        port
    });
    let container = (
        "[a-z]{1,2}|[a-z]{63}|envoy",
        prop::collection::vec(port, 0..5),
    )
        .prop_map(|(name, ports)| json!({"name": name, "ports": ports}));
    prop::collection::vec(container, 0..4).prop_map(Value::Array)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2048, ..ProptestConfig::default() })]

    /// The API server refuses a Service with two equal names, or two equal numbers of one protocol.
    #[test]
    fn the_api_server_takes_the_ports(
        containers in containers(),
        port in 1_i64..5,
        target in prop::option::of(prop_oneof![Just(json!("http")), Just(json!("grpc")), Just(json!(2))]),
        name in prop::option::of(prop::sample::select(vec!["grpc", "tcp-1"])),
    ) {
        let canary = canary(&json!({"port": port, "targetPort": target, "portName": name}));
        let template = json!({"spec": {"containers": containers}});
        let ports = wanted(&canary, &template);
        let unique = |of: &dyn Fn(&Value) -> String| ports.iter().map(of).collect::<BTreeSet<_>>().len() == ports.len();
        prop_assert!(unique(&|port| port["name"].to_string()), "{:?}", ports);
        prop_assert!(unique(&|port| format!("{}/{}", port["port"], port["protocol"])), "{:?}", ports);
        for port in &ports {
            let name = port["name"].as_str().unwrap();
            prop_assert!(!name.is_empty() && name.len() <= LONGEST, "{}", name);
        }
        // Each port of the application is there: under its number, or as the target of the first.
        for container in containers.as_array().unwrap().iter().filter(|container| container["name"] != "envoy") {
            for declared in container["ports"].as_array().unwrap().iter().filter(|port| port["containerPort"] != 0) {
                let protocol = declared.get("protocol").cloned().unwrap_or(json!("TCP"));
                let is_there = ports.iter().any(|port| port["protocol"] == protocol
                    && (port["port"] == declared["containerPort"] || port["targetPort"] == declared["containerPort"]
                        || Some(&port["targetPort"]) == declared.get("name")));
                prop_assert!(is_there, "{} {:?}", declared, ports);
            }
        }
    }
}
