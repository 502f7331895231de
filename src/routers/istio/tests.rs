use super::*;
use crate::routers::tests::{apply, canary_analysis, selector};

fn snapshot(service: Value, analysis: Value) -> Snapshot {
    crate::routers::tests::snapshot("istio", service, analysis, Value::Null)
}

fn reconciled(mut snapshot: Snapshot, weights: &Weights) -> Snapshot {
    let writes = Istio.reconcile(&snapshot, &selector(), weights).unwrap();
    apply(&mut snapshot, writes);
    snapshot
}

fn spec_of(snapshot: &Snapshot) -> Value {
    snapshot.object(Kind::VirtualService, "podinfo").unwrap()["spec"].clone()
}

#[test]
fn the_route_of_the_tutorial_is_flaggers_to_the_letter() {
    let service = json!({"port": 9898, "targetPort": 9898,
        "gateways": ["public-gateway.istio-system.svc.cluster.local"], "hosts": ["app.example.com"],
        "trafficPolicy": {"tls": {"mode": "DISABLE"}},
        "retries": {"attempts": 3, "perTryTimeout": "1s", "retryOn": "gateway-error,connect-failure,refused-stream"}});
    let snapshot = reconciled(snapshot(service, canary_analysis()), &Weights::canary(10));
    assert_eq!(
        spec_of(&snapshot),
        json!({"hosts": ["app.example.com", "podinfo"], "gateways": ["public-gateway.istio-system.svc.cluster.local"],
            "http": [{"retries": {"attempts": 3, "perTryTimeout": "1s", "retryOn": "gateway-error,connect-failure,refused-stream"},
                "route": [{"destination": {"host": "podinfo-primary"}, "weight": 90},
                    {"destination": {"host": "podinfo-canary"}, "weight": 10}]}]})
    );
    let rule = snapshot
        .object(Kind::DestinationRule, "podinfo-canary")
        .unwrap();
    assert_eq!(
        rule["spec"],
        json!({"host": "podinfo-canary", "trafficPolicy": {"tls": {"mode": "DISABLE"}}})
    );
    let metadata = &snapshot.object(Kind::VirtualService, "podinfo").unwrap()["metadata"];
    assert_eq!(metadata["annotations"].as_object().unwrap().len(), 2);
    assert_eq!(metadata["ownerReferences"][0]["kind"], "Canary");
    assert_eq!(metadata.get("labels"), None);
}

#[test]
fn requests_that_do_not_match_a_test_stay_on_the_primary() {
    let service =
        json!({"port": 80, "match": [{"uri": {"prefix": "/"}, "method": {"exact": "GET"}}]});
    let analysis = json!({"interval": "1m", "threshold": 1, "iterations": 2,
        "match": [{"headers": {"x-user": {"exact": "insider"}}}, {"headers": {"cookie": {"regex": "a"}}}]});
    let snapshot = reconciled(snapshot(service, analysis), &Weights::PRIMARY);
    let http = spec_of(&snapshot)["http"].clone();
    assert_eq!(http[0]["match"].as_array().unwrap().len(), 2);
    assert_eq!(
        http[0]["match"][0],
        json!({"uri": {"prefix": "/"}, "method": {"exact": "GET"}, "headers": {"x-user": {"exact": "insider"}}})
    );
    assert_eq!(
        http[1]["route"],
        json!([{"destination": {"host": "podinfo-primary"}, "weight": 100}])
    );
    assert_eq!(Istio.current_weights(&snapshot), Ok(Weights::PRIMARY));
}

#[test]
fn tcp_connections_are_routed_if_the_protocol_is_tcp() {
    let service = json!({"port": 9898, "appProtocol": "TCP", "match": [{"port": 9898}]});
    let snapshot = reconciled(snapshot(service, canary_analysis()), &Weights::canary(40));
    assert_eq!(
        spec_of(&snapshot)["tcp"][0]["match"],
        json!([{"port": 9898}])
    );
    assert_eq!(spec_of(&snapshot).get("http"), None);
    assert_eq!(Istio.current_weights(&snapshot), Ok(Weights::canary(40)));
}

#[test]
fn a_delegate_has_neither_hosts_nor_gateways() {
    let delegate = reconciled(
        snapshot(json!({"port": 80, "delegation": true}), canary_analysis()),
        &Weights::PRIMARY,
    );
    assert_eq!(spec_of(&delegate)["hosts"], json!([]));
    assert_eq!(spec_of(&delegate).get("gateways"), None);
    let both = snapshot(
        json!({"port": 80, "delegation": true, "hosts": ["a"]}),
        canary_analysis(),
    );
    let error = Istio
        .reconcile(&both, &selector(), &Weights::PRIMARY)
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "reconcileVirtualService failed: VirtualService podinfo.test cannot have hosts and gateways when delegation enabled"
    );
}

#[test]
fn the_user_decides_the_share_of_copied_requests() {
    let analysis = json!({"interval": "1m", "threshold": 1, "stepWeight": 10, "mirror": true, "mirrorWeight": 50});
    let mut snapshot = reconciled(snapshot(json!({"port": 80}), analysis), &Weights::PRIMARY);
    let mirrored = Weights {
        mirrored: true,
        ..Weights::PRIMARY
    };
    let writes = Istio.set_weights(&snapshot, &mirrored).unwrap();
    apply(&mut snapshot, writes);
    assert_eq!(
        spec_of(&snapshot)["http"][0]["mirror"],
        json!({"host": "podinfo-canary"})
    );
    assert_eq!(
        spec_of(&snapshot)["http"][0]["mirrorPercentage"],
        json!({"value": 50})
    );
    assert_eq!(Istio.current_weights(&snapshot), Ok(mirrored));
    assert_eq!(
        Istio.reconcile(&snapshot, &selector(), &mirrored).unwrap(),
        []
    );
}

#[test]
fn an_adopted_route_keeps_its_former_spec_in_an_annotation() {
    let mut snapshot = snapshot(json!({"port": 80}), canary_analysis());
    let before = json!({"apiVersion": "networking.istio.io/v1beta1", "kind": "VirtualService",
        "metadata": {"name": "podinfo", "namespace": "test", "resourceVersion": "7"},
        "spec": {"hosts": ["podinfo"], "exportTo": ["."], "http": [{"route": [{"destination": {"host": "podinfo"}}]}]}});
    snapshot.objects.insert(
        snapshot.reference(Kind::VirtualService, "podinfo"),
        before.clone(),
    );
    let snapshot = reconciled(snapshot, &Weights::PRIMARY);
    let after = snapshot.object(Kind::VirtualService, "podinfo").unwrap();
    assert_eq!(
        after["metadata"]["annotations"][ORIGINAL],
        json!(before["spec"].to_string())
    );
    assert_eq!(
        after["spec"]["exportTo"],
        json!(["."]),
        "what we do not know stays"
    );
    assert_eq!(
        after["metadata"]["resourceVersion"], "7",
        "the write is conditional"
    );
    assert_eq!(
        after["metadata"].get("ownerReferences"),
        None,
        "what was not ours does not go with us"
    );
}

#[test]
fn a_missing_route_is_reported_in_flaggers_words() {
    let mut snapshot = snapshot(json!({"port": 80}), canary_analysis());
    assert!(
        Istio
            .current_weights(&snapshot)
            .unwrap_err()
            .to_string()
            .starts_with("VirtualService podinfo.test get query error ")
    );
    snapshot.objects.insert(
        snapshot.reference(Kind::VirtualService, "podinfo"),
        json!({"spec": {"http": [{"route": [{"destination": {"host": "other"}}]}]}}),
    );
    assert_eq!(
        Istio.current_weights(&snapshot).unwrap_err().to_string(),
        "VirtualService podinfo.test does not contain routes for podinfo-primary and podinfo-canary"
    );
}

#[test]
fn a_client_stays_on_the_canary_that_answered_it() {
    let mut snapshot = snapshot(
        json!({"port": 80, "headers": {"response": {"add": {"x": "y"}}}}),
        json!({"interval": "15s", "threshold": 1, "stepWeight": 10, "sessionAffinity": {"cookieName": "flagger-cookie"}}),
    );
    snapshot.canary.status = serde_json::from_value(json!({"sessionAffinityCookie": "flagger-cookie=Qw", "primarySessionAffinityCookie": "=As"})).unwrap();
    let mut snapshot = reconciled(snapshot, &Weights::canary(10));
    let destinations = |primary: u8, canary: u8| {
        vec![
            json!({"destination": {"host": "podinfo-primary"}, "weight": primary}),
            json!({"destination": {"host": "podinfo-canary"}, "weight": canary}),
        ]
    };
    let mut split = destinations(90, 10);
    split[1]["headers"] =
        json!({"response": {"add": {"Set-Cookie": "flagger-cookie=Qw; Max-Age=86400"}}});
    let own = json!({"response": {"add": {"x": "y"}}});
    let cookie = json!([{"headers": {"Cookie": {"regex": ".*flagger-cookie.*Qw.*"}}}]);
    assert_eq!(
        spec_of(&snapshot)["http"],
        json!([{"match": cookie, "headers": own, "route": destinations(0, 100)}, {"headers": own, "route": split}])
    );
    let writes = Istio.set_weights(&snapshot, &Weights::PRIMARY).unwrap();
    apply(&mut snapshot, writes);
    let taken_back =
        json!({"response": {"add": {"x": "y", "Set-Cookie": "flagger-cookie=Qw; Max-Age=-1"}}});
    assert_eq!(
        spec_of(&snapshot)["http"],
        json!([{"match": cookie, "headers": taken_back, "route": destinations(100, 0)}, {"headers": own, "route": destinations(100, 0)}])
    );
}

/// Flagger writes two equal rules here, and removes one at its next reconciliation.
#[test]
fn without_a_cookie_there_is_one_rule() {
    let analysis = json!({"interval": "15s", "threshold": 1, "stepWeight": 10, "sessionAffinity": {"cookieName": "c"}});
    let snapshot = reconciled(snapshot(json!({"port": 80}), analysis), &Weights::PRIMARY);
    assert_eq!(spec_of(&snapshot)["http"].as_array().unwrap().len(), 1);
    assert_eq!(Istio.set_weights(&snapshot, &Weights::PRIMARY), Ok(vec![]));
}

/// Each row has the Service's fields and whether destinations have a port (Flagger: `makeDestination`).
#[test]
fn a_destination_has_a_port_if_ports_are_discovered_and_a_gateway_routes_to_it() {
    for (service, has_port) in [
        (
            json!({"port": 80, "portDiscovery": true, "gateways": ["infra/public"]}),
            true,
        ),
        (
            json!({"port": 80, "portDiscovery": true, "gateways": ["infra/public", "mesh"]}),
            true,
        ),
        (
            json!({"port": 80, "portDiscovery": true, "gateways": ["mesh", "infra/public"]}),
            false,
        ),
        (
            json!({"port": 80, "portDiscovery": true, "gateways": []}),
            false,
        ),
        (json!({"port": 80, "portDiscovery": true}), false),
        (
            json!({"port": 80, "portDiscovery": true, "delegation": true}),
            true,
        ),
        (json!({"port": 80, "delegation": true}), false),
        (json!({"port": 80, "gateways": ["infra/public"]}), false),
    ] {
        let snapshot = reconciled(
            snapshot(service.clone(), canary_analysis()),
            &Weights::PRIMARY,
        );
        let destination = &spec_of(&snapshot)["http"][0]["route"][0]["destination"];
        let port = has_port.then(|| json!({"number": 80}));
        assert_eq!(destination.get("port"), port.as_ref(), "{service}");
    }
}

#[test]
fn one_percent_of_the_requests_can_be_mirrored() {
    for (weight, percentage) in [
        (json!(1), Some(json!({"value": 1}))),
        (json!(0), None),
        (json!(null), None),
    ] {
        let analysis = json!({"interval": "1m", "threshold": 1, "stepWeight": 10, "mirror": true, "mirrorWeight": weight});
        let mirrored = Weights {
            mirrored: true,
            ..Weights::PRIMARY
        };
        let snapshot = reconciled(snapshot(json!({"port": 80}), analysis), &mirrored);
        assert_eq!(
            spec_of(&snapshot)["http"][0].get("mirrorPercentage"),
            percentage.as_ref(),
            "{weight}"
        );
    }
}

/// Each row has the hosts of the service, and those of the route (Flagger: `makeVirtualService`).
#[test]
fn the_name_of_the_service_is_a_host_unless_a_host_covers_it() {
    for (hosts, expected) in [
        (json!(null), json!(["podinfo"])),
        (
            json!(["app.example.com"]),
            json!(["app.example.com", "podinfo"]),
        ),
        (json!(["podinfo"]), json!(["podinfo"])),
        (json!(["*"]), json!(["*"])),
        (
            json!(["*.example.com"]),
            json!(["*.example.com", "podinfo"]),
        ),
    ] {
        let service = json!({"port": 80, "hosts": hosts});
        let snapshot = reconciled(snapshot(service, canary_analysis()), &Weights::PRIMARY);
        assert_eq!(spec_of(&snapshot)["hosts"], expected, "{hosts}");
    }
}

#[test]
fn rules_for_the_other_protocol_are_removed() {
    for (protocol, ours, other) in [("http", "http", "tcp"), ("tcp", "tcp", "http")] {
        let service = json!({"port": 80, "appProtocol": protocol});
        let mut snapshot = reconciled(snapshot(service, canary_analysis()), &Weights::canary(30));
        let expected = spec_of(&snapshot);
        assert!(expected.get(ours).is_some() && expected.get(other).is_none());
        let name = snapshot.reference(Kind::VirtualService, "podinfo");
        snapshot.objects.get_mut(&name).unwrap()["spec"][other] = json!([{"route": []}]);
        let snapshot = reconciled(snapshot, &Weights::canary(30));
        assert_eq!(spec_of(&snapshot), expected, "{protocol}");
    }
}
