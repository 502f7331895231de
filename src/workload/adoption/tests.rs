use proptest::prelude::*;

use super::*;

const FLUX_KEY: &str = "kustomize.toolkit.fluxcd.io/reconcile";

fn primary() -> Value {
    json!({"app": "edge-primary"})
}

/// The Canary's port 80, without a name of the user.
fn of_canary() -> Vec<Value> {
    vec![json!({"name": "http", "protocol": "TCP", "port": 80, "targetPort": 8080})]
}

fn adoption<'a>(selector: &'a Value, ports: &'a [Value]) -> Adoption<'a> {
    Adoption {
        selector,
        ports,
        is_named: false,
    }
}

fn service(selector: Value, ports: Value) -> Value {
    let mut service = json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "edge", "resourceVersion": "7", "labels": {"team": "a"}},
        "spec": {"type": "NodePort", "clusterIP": "10.0.0.1", "selector": selector, "ports": ports}});
    let spec = service["spec"].as_object_mut().unwrap();
    spec.retain(|_, value| !value.is_null() && *value != json!([]));
    service
}

/// The Services of fluxcd/flagger#513 and #1534, and others.
fn users_services() -> Vec<Value> {
    let port = |number: i64| json!({"protocol": "TCP", "port": number, "targetPort": 8080, "nodePort": 30000 + number});
    let named = |name: &str, number: i64| {
        let mut port = port(number);
        port["name"] = json!(name);
        port
    };
    let one = json!({"app": "edge"});
    let mut with_flux = service(one.clone(), json!([port(80)]));
    with_flux["metadata"]["annotations"] = json!({FLUX_KEY: "enabled", "theirs": "1"});
    vec![
        service(one.clone(), json!([port(80)])),
        service(
            json!({"app": "edge", "tier": "web"}),
            json!([named("http-server", 80), named("https-server", 443)]),
        ),
        service(one.clone(), json!([named("https", 443), named("web", 80)])),
        service(one.clone(), json!([named("http", 8080)])),
        service(one.clone(), json!([port(443)])),
        service(
            one.clone(),
            json!([{"name": "dns", "protocol": "UDP", "port": 80, "targetPort": "dns", "nodePort": 30001}]),
        ),
        service(Value::Null, json!([])),
        with_flux,
    ]
}

/// Istio takes the protocol from the name: it would not split the requests to a port with the name `tcp-80`.
#[test]
fn a_port_whose_name_is_taken_keeps_the_beginning_of_the_name() {
    let (selector, ports) = (primary(), of_canary());
    let users = service(
        primary(),
        json!([{"name": "http", "protocol": "TCP", "port": 8080, "targetPort": 8080}]),
    );
    let adopted = adoption(&selector, &ports).adopted(&users).unwrap();
    let names = |name: &str| twin_named(&adopted, name)["port"].clone();
    assert_eq!((names("http"), names("http-80")), (json!(8080), json!(80)));
}

fn twin_named<'a>(service: &'a Value, name: &str) -> &'a Value {
    let ports = service["spec"]["ports"].as_array().unwrap();
    ports.iter().find(|port| port["name"] == name).unwrap()
}

#[test]
fn an_adopted_service_keeps_node_ports_names_and_all_other_ports() {
    let (selector, ports) = (primary(), of_canary());
    for users in users_services() {
        let adopted = adoption(&selector, &ports).adopted(&users).unwrap();
        assert_eq!(adopted["spec"]["selector"], selector);
        let of = |service: &Value| {
            service["spec"]["ports"]
                .as_array()
                .cloned()
                .unwrap_or_default()
        };
        let (before, after) = (of(&users), of(&adopted));
        let twin_of_ours = twin(&after, &ports[0]).unwrap();
        assert_eq!(
            (&twin_of_ours["port"], &twin_of_ours["targetPort"]),
            (&json!(80), &json!(8080))
        );
        for port in &before {
            let kept = twin(&after, port).unwrap();
            assert_eq!(kept["nodePort"], port["nodePort"], "{after:?}");
            if let Some(name) = port.get("name") {
                assert_eq!(kept["name"], *name, "{after:?}");
            }
        }
        let names: std::collections::BTreeSet<_> =
            after.iter().map(|port| port["name"].to_string()).collect();
        assert_eq!(names.len(), after.len(), "{after:?}");
        assert_eq!(adoption(&selector, &ports).adopted(&adopted), None, "once");
        assert_eq!(adopted["metadata"]["labels"], json!({"team": "a"}));
        assert_eq!(adopted["metadata"]["annotations"][FLUX_KEY], "disabled");
    }
}

#[test]
fn the_name_in_the_canary_wins() {
    let (selector, ports) = (primary(), of_canary());
    let users = service(
        json!({"app": "edge"}),
        json!([{"name": "web", "protocol": "TCP", "port": 80, "targetPort": 1}]),
    );
    for (is_named, name) in [(true, "http"), (false, "web")] {
        let adoption = Adoption {
            is_named,
            ..adoption(&selector, &ports)
        };
        let adopted = adoption.adopted(&users).unwrap();
        assert_eq!(adopted["spec"]["ports"][0]["name"], name);
        assert_eq!(
            adoption.given_back(&adopted, Value::Null),
            Some(users.clone())
        );
    }
}

/// The deletion must not leave the Service in a state that the user never wrote.
#[test]
fn a_service_is_given_back_to_the_byte() {
    let (selector, ports) = (primary(), of_canary());
    for users in users_services() {
        let adopted = adoption(&selector, &ports).adopted(&users).unwrap();
        let back = adoption(&selector, &ports)
            .given_back(&adopted, json!({"app": "unused"}))
            .unwrap();
        assert_eq!(back, users);
        assert_eq!(
            adoption(&selector, &ports).given_back(&back, json!({"app": "unused"})),
            None,
            "once"
        );
    }
}

/// The user's manifest is applied again, or in a new version, while the Canary exists.
#[test]
fn changes_of_the_user_after_the_adoption_are_given_back_too() {
    let (selector, ports) = (primary(), of_canary());
    for first in users_services() {
        for second in users_services() {
            let adopted = adoption(&selector, &ports).adopted(&first).unwrap();
            let mut live = adopted.clone();
            live["spec"] = second["spec"].clone();
            let back = |live: &Value| {
                let back = adoption(&selector, &ports)
                    .given_back(live, Value::Null)
                    .unwrap();
                (
                    back["spec"].clone(),
                    back["metadata"].get("annotations").cloned(),
                )
            };
            let expected = (
                second["spec"].clone(),
                first["metadata"].get("annotations").cloned(),
            );
            assert_eq!(back(&live), expected, "before the next repair");
            if let Some(again) = adoption(&selector, &ports).adopted(&live) {
                assert_eq!(back(&again), expected, "after it: {again}");
            }
        }
    }
}

/// `spec.service` may change, too, and with it the fields of an adopted Service.
#[test]
fn changes_of_the_canary_are_not_taken_for_the_users() {
    let selector = primary();
    let moved = |number: i64, target: i64| {
        vec![
            json!({"name": "http", "protocol": "TCP", "port": number, "targetPort": target}),
            json!({"name": "grpc", "protocol": "TCP", "port": 9999, "targetPort": 9999}),
        ]
    };
    for users in users_services() {
        let mut live = users.clone();
        for ports in [
            of_canary(),
            moved(80, 9090),
            moved(81, 9090),
            moved(443, 1),
            of_canary(),
        ] {
            if let Some(adopted) = adoption(&selector, &ports).adopted(&live) {
                live = adopted;
            }
            // The API server gives each port a node port.
            for port in live["spec"]["ports"].as_array_mut().unwrap() {
                if port.get("nodePort").is_none() {
                    port["nodePort"] = json!(32000);
                }
            }
            assert_eq!(adoption(&selector, &ports).adopted(&live), None, "{live}");
            let listed = live["spec"]["ports"].as_array().unwrap();
            for port in users["spec"]["ports"].as_array().into_iter().flatten() {
                assert_eq!(twin(listed, port).unwrap()["nodePort"], port["nodePort"]);
            }
            let back = adoption(&selector, &ports)
                .given_back(&live, Value::Null)
                .unwrap();
            assert_eq!(back, users);
        }
    }
}

/// Flagger adopted the Service: there is no record. Each row has the configuration that kubectl applied last, and what is given back.
#[test]
fn a_service_that_flagger_adopted_is_given_back_as_kubectl_applied_it() {
    let (selector, ports) = (primary(), of_canary());
    let flaggers = json!([{"name": "http", "protocol": "TCP", "port": 80, "targetPort": 8080, "nodePort": 32566}]);
    let targets = json!({"app": "edge"});
    for (applied, expected_selector, expected_ports, flux) in [
        (None, targets.clone(), flaggers.clone(), None),
        (Some("?".to_owned()), targets.clone(), flaggers.clone(), None),
        (Some("{}".to_owned()), targets.clone(), flaggers.clone(), None),
        (
            Some(json!({"metadata": {"annotations": {FLUX_KEY: "disabled"}}, "spec": {"selector": {"app": "edge", "tier": "web"},
                "ports": [{"port": 80}, {"port": 443, "nodePort": 30443, "targetPort": "https"}]}}).to_string()),
            json!({"app": "edge", "tier": "web"}),
            json!([{"protocol": "TCP", "port": 80, "targetPort": 80, "nodePort": 32566},
                {"protocol": "TCP", "port": 443, "targetPort": "https", "nodePort": 30443}]),
            Some("disabled"),
        ),
    ] {
        let mut live = service(selector.clone(), flaggers.clone());
        live["metadata"]["annotations"] = Value::Object(with_flux(Map::new()));
        if let Some(applied) = &applied {
            live["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"] = json!(applied);
        }
        let adoption = adoption(&selector, &ports);
        assert_eq!(adoption.adopted(&live), None);
        let back = adoption.given_back(&live, targets.clone()).unwrap();
        assert_eq!((&back["spec"]["selector"], &back["spec"]["ports"]), (&expected_selector, &expected_ports));
        let annotations = annotations(&back);
        assert_eq!(annotations.get(FLUX_KEY).and_then(Value::as_str), flux);
        assert_eq!(annotations.len(), usize::from(applied.is_some()) + usize::from(flux.is_some()));
        assert_eq!(adoption.given_back(&back, targets.clone()), None, "once");
    }
}

/// The deletion of a Canary that was never initialized changes nothing.
#[test]
fn a_service_that_was_not_adopted_stays_as_it_is() {
    let (selector, ports) = (primary(), of_canary());
    for users in users_services() {
        assert_eq!(
            adoption(&selector, &ports).given_back(&users, Value::Null),
            None
        );
    }
}

#[test]
fn a_record_that_cannot_be_read_counts_as_none() {
    let (selector, ports) = (primary(), of_canary());
    for odd in ["", "?", "[]", "{\"before\": 1}"] {
        let mut users = users_services().remove(1);
        users["metadata"]["annotations"] = json!({ORIGINAL: odd});
        let adopted = adoption(&selector, &ports).adopted(&users).unwrap();
        let back = adoption(&selector, &ports)
            .given_back(&adopted, Value::Null)
            .unwrap();
        assert_eq!(back["spec"], users["spec"]);
    }
}

fn ports() -> impl Strategy<Value = Vec<Value>> {
    let port = (1_i64..5, prop::sample::select(vec!["TCP", "UDP"]), 0_i64..3);
    prop::collection::vec(port, 1..4).prop_map(|ports| {
        let mut all: Vec<Value> = Vec::new();
        for (number, protocol, target) in ports {
            let offset = if protocol == "UDP" { 100 } else { 0 };
            let port = json!({"name": format!("p{}", all.len()), "protocol": protocol, "port": number, "targetPort": target,
                "nodePort": 30000 + offset + number});
            if twin(&all, &port).is_none() {
                all.push(port);
            }
        }
        all
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, ..ProptestConfig::default() })]

    /// A user, the Canary and the API server change the Service in any order: the operator gives it back as the user last wrote it.
    #[test]
    fn the_users_last_version_is_given_back(
        versions in prop::collection::vec((ports(), ports(), any::<bool>()), 1..5),
    ) {
        let selector = primary();
        let mut live = service(json!({"app": "edge"}), json!([]));
        let mut users = live.clone();
        let mut is_adopted = false;
        for (index, (theirs, ours, writes)) in versions.iter().enumerate() {
            // The operator cannot distinguish an adopted port from one that the user has written since with the same values.
            let is_ours = |port: &Value| live["spec"]["ports"].as_array().is_some_and(|ports| ports.contains(port));
            if (*writes || index == 0) && !theirs.iter().any(is_ours) {
                users["spec"]["ports"] = json!(theirs);
                users["spec"]["selector"] = json!({"app": "edge", "version": index.to_string()});
                live["spec"] = users["spec"].clone();
            }
            let adoption = adoption(&selector, ours);
            if let Some(adopted) = adoption.adopted(&live) {
                live = adopted;
                is_adopted = true;
            }
            for port in live["spec"]["ports"].as_array_mut().unwrap() {
                if port.get("nodePort").is_none() {
                    port["nodePort"] = json!(31000);
                }
            }
            prop_assert_eq!(adoption.adopted(&live), None);
            prop_assert_eq!(&live["spec"]["selector"], &selector);
            let listed = live["spec"]["ports"].as_array().unwrap();
            for port in ours {
                prop_assert_eq!(&twin(listed, port).unwrap()["targetPort"], &port["targetPort"]);
            }
            let names: std::collections::BTreeSet<_> = listed.iter().map(|port| port["name"].to_string()).collect();
            prop_assert_eq!(names.len(), listed.len());
            let back = adoption.given_back(&live, Value::Null).unwrap();
            prop_assert!(is_adopted);
            prop_assert_eq!(&back["spec"], &users["spec"]);
        }
    }
}
