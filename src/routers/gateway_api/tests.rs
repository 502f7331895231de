use super::*;
use crate::{
    routers::tests::{apply, canary_analysis, selector},
    snapshot::Kind,
};

fn snapshot(service: Value, analysis: Value) -> Snapshot {
    let mut all = json!({"port": 80, "gatewayRefs": [{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "gw", "namespace": "infra"}]});
    for (key, value) in service.as_object().unwrap() {
        all[key] = value.clone();
    }
    crate::routers::tests::snapshot("gatewayapi:v1", all, analysis, Value::Null)
}

fn reconciled(mut snapshot: Snapshot, weights: &Weights) -> Snapshot {
    let writes = GatewayApi::V1
        .reconcile(&snapshot, &selector(), weights)
        .unwrap();
    apply(&mut snapshot, writes);
    snapshot
}

fn routed(mut snapshot: Snapshot, weights: &Weights) -> Snapshot {
    let writes = GatewayApi::V1.set_weights(&snapshot, weights).unwrap();
    apply(&mut snapshot, writes);
    snapshot
}

fn live(snapshot: &Snapshot) -> &Value {
    snapshot.object(Kind::HttpRoute, "podinfo").unwrap()
}

fn rules_of(snapshot: &Snapshot) -> &Value {
    &live(snapshot)["spec"]["rules"]
}

fn backends(primary: u8, canary: u8) -> Vec<Value> {
    vec![
        json!({"group": "", "kind": "Service", "name": "podinfo-primary", "port": 80, "weight": primary}),
        json!({"group": "", "kind": "Service", "name": "podinfo-canary", "port": 80, "weight": canary}),
    ]
}

#[test]
fn the_route_is_flaggers_to_the_letter() {
    let service = json!({"hosts": ["app.example.com"], "timeout": "10s", "backendTimeout": "5s"});
    let snapshot = routed(
        reconciled(snapshot(service, canary_analysis()), &Weights::PRIMARY),
        &Weights::canary(10),
    );
    assert_eq!(
        live(&snapshot)["spec"],
        json!({"parentRefs": [{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "gw", "namespace": "infra"}],
            "hostnames": ["app.example.com"],
            "rules": [{"matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
                "timeouts": {"request": "10s", "backendRequest": "5s"}, "backendRefs": backends(90, 10)}]})
    );
    let metadata = &live(&snapshot)["metadata"];
    assert_eq!(metadata["annotations"].as_object().unwrap().len(), 2);
    assert_eq!(metadata["ownerReferences"][0]["kind"], "Canary");
    assert_eq!(metadata.get("labels"), None);
}

#[test]
fn v1beta1_has_neither_timeouts_nor_cors() {
    let service = json!({"timeout": "10s", "corsPolicy": {"allowOrigin": ["*"]}});
    let snapshot = snapshot(service, canary_analysis());
    let writes = GatewayApi::V1Beta1
        .reconcile(&snapshot, &selector(), &Weights::PRIMARY)
        .unwrap();
    let Some(Action::Create(object)) = writes.into_iter().map(|e| e.action).next() else {
        panic!();
    };
    assert_eq!(object["apiVersion"], "gateway.networking.k8s.io/v1beta1");
    assert_eq!(
        object["spec"]["rules"],
        json!([{"matches": [{"path": {"type": "PathPrefix", "value": "/"}}], "backendRefs": backends(100, 0)}])
    );
}

#[test]
fn conditions_have_gateway_apis_form_and_are_sorted_by_name() {
    let service = json!({"match": [{"uri": {"prefix": "/api"}, "method": {"exact": "GET"},
        "headers": {"x-b": {"exact": "2"}, "x-a": {"regex": "1.*"}}, "queryParams": {"q": {"exact": "z"}}}, {"name": "empty"}]});
    let snapshot = reconciled(snapshot(service, canary_analysis()), &Weights::PRIMARY);
    assert_eq!(
        rules_of(&snapshot)[0]["matches"],
        json!([{"path": {"type": "PathPrefix", "value": "/api"}, "method": "GET",
            "headers": [{"name": "x-a", "type": "RegularExpression", "value": "1.*"}, {"name": "x-b", "type": "Exact", "value": "2"}],
            "queryParams": [{"name": "q", "type": "Exact", "value": "z"}]}])
    );
}

#[test]
fn a_condition_that_gateway_api_cannot_express_is_flaggers_error() {
    let refused = |service: Value, analysis: Value| {
        GatewayApi::V1
            .reconcile(&snapshot(service, analysis), &selector(), &Weights::PRIMARY)
            .unwrap_err()
            .to_string()
    };
    let start = "Invalid request matching selectors: Gateway API doesn't support the specified";
    for (condition, text) in [
        (
            json!({"uri": {}}),
            "path matching selector: &{Exact: Prefix: Suffix: Regex:}\n",
        ),
        (
            json!({"headers": {"b": {"prefix": "1"}, "a": {"exact": "2"}}}),
            "header matching selector: map[a:{Exact:2 Prefix: Suffix: Regex:} b:{Exact: Prefix:1 Suffix: Regex:}]\n",
        ),
        (
            json!({"method": {"prefix": "G"}}),
            "header matching selector: map[]\n",
        ),
        (
            json!({"queryParams": {"q": {"prefix": "1"}}}),
            "query matching selector: map[q:{Exact: Prefix:1 Suffix: Regex:}]\n",
        ),
    ] {
        let service = json!({"match": [condition]});
        assert_eq!(
            refused(service, canary_analysis()),
            format!("{start} {text}")
        );
    }
    assert_eq!(
        refused(json!({"gatewayRefs": []}), canary_analysis()),
        "GatewayRefs must be specified when using Gateway API as a provider."
    );
}

/// Flagger drops such conditions and sends all requests to the canary.
#[test]
fn a_test_that_gateway_api_cannot_express_is_refused() {
    for test in [
        json!({"headers": {"x": {"prefix": "1"}}}),
        json!({"sourceLabels": {"a": "b"}}),
    ] {
        let analysis = json!({"interval": "1m", "threshold": 1, "iterations": 2, "match": [test]});
        let snapshot = snapshot(json!({}), analysis);
        assert!(
            GatewayApi::V1
                .reconcile(&snapshot, &selector(), &Weights::PRIMARY)
                .is_err()
        );
    }
}

#[test]
fn filters_are_in_flaggers_order() {
    let service = json!({
        "rewrite": {"uri": "/v2", "authority": "new.example.com", "type": "ReplacePrefixMatch"},
        "headers": {"request": {"add": {"x-z": "1", "x-a": "2"}, "set": {"x-s": "3"}, "remove": ["x-r"]}, "response": {"set": {"x-o": "4"}}},
        "mirror": [{"backendRef": {"name": "shadow", "port": 80}}],
        "corsPolicy": {"allowOrigins": [{"regex": ".*"}], "allowOrigin": ["https://a", "https://b"], "allowMethods": ["GET"], "maxAge": "24h"}});
    let snapshot = reconciled(snapshot(service, canary_analysis()), &Weights::PRIMARY);
    assert_eq!(
        rules_of(&snapshot)[0]["filters"],
        json!([
            {"type": "RequestHeaderModifier", "requestHeaderModifier": {"add": [{"name": "x-a", "value": "2"}, {"name": "x-z", "value": "1"}],
                "set": [{"name": "x-s", "value": "3"}], "remove": ["x-r"]}},
            {"type": "ResponseHeaderModifier", "responseHeaderModifier": {"set": [{"name": "x-o", "value": "4"}]}},
            {"type": "URLRewrite", "urlRewrite": {"hostname": "new.example.com", "path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/v2"}}},
            {"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "shadow", "port": 80}}},
            {"type": "CORS", "cors": {"allowOrigins": ["https://a", "https://b"], "allowMethods": ["GET"], "maxAge": 86400}}])
    );
}

#[test]
fn the_conditions_of_a_test_are_combined_with_those_of_the_service() {
    let service = json!({"match": [{"uri": {"prefix": "/api"}, "headers": {"a": {"exact": "1"}}}]});
    let analysis = json!({"interval": "1m", "threshold": 1, "iterations": 2,
        "match": [{"headers": {"x-user": {"exact": "insider"}}}, {"queryParams": {"beta": {"exact": "1"}}}]});
    let snapshot = routed(
        reconciled(snapshot(service, analysis), &Weights::PRIMARY),
        &Weights::CANARY,
    );
    let path = json!({"type": "PathPrefix", "value": "/api"});
    let own = json!([{"name": "a", "type": "Exact", "value": "1"}]);
    assert_eq!(
        *rules_of(&snapshot),
        json!([{"matches": [
                {"path": path, "headers": [own[0], {"name": "x-user", "type": "Exact", "value": "insider"}]},
                {"path": path, "headers": own, "queryParams": [{"name": "beta", "type": "Exact", "value": "1"}]}],
                "backendRefs": backends(0, 100)},
            {"matches": [{"path": path, "headers": own}], "backendRefs": [backends(100, 0)[0]]}])
    );
    assert_eq!(
        GatewayApi::V1.current_weights(&snapshot),
        Ok(Weights::CANARY)
    );
}

#[test]
fn a_mirror_is_a_filter_and_no_drift() {
    let mirrored = Weights {
        mirrored: true,
        ..Weights::PRIMARY
    };
    for analysis in [
        json!({"interval": "1m", "threshold": 1, "iterations": 2, "mirror": true}),
        // Flagger would wait for ever for the copies here.
        json!({"interval": "1m", "threshold": 1, "stepWeight": 2, "mirror": true}),
    ] {
        let snapshot = routed(
            reconciled(snapshot(json!({}), analysis), &Weights::PRIMARY),
            &mirrored,
        );
        let backend = json!({"group": "", "kind": "Service", "name": "podinfo-canary", "port": 80});
        assert_eq!(
            rules_of(&snapshot)[0]["filters"],
            json!([{"type": "RequestMirror", "requestMirror": {"backendRef": backend}}])
        );
        assert_eq!(GatewayApi::V1.current_weights(&snapshot), Ok(mirrored));
        assert_eq!(
            GatewayApi::V1.reconcile(&snapshot, &selector(), &mirrored),
            Ok(vec![])
        );
        let snapshot = routed(snapshot, &Weights::CANARY);
        assert_eq!(rules_of(&snapshot)[0].get("filters"), None);
    }
}

/// Flagger restarts such releases again and again: the API server adds a path to conditions that have none, and an age to CORS.
#[test]
fn defaults_of_the_api_server_are_no_drift() {
    let service = json!({"gatewayRefs": [{"name": "gw"}], "match": [{"headers": {"x": {"exact": "1"}}}],
        "corsPolicy": {"allowOrigin": ["*"]}, "mirror": [{"backendRef": {"name": "shadow", "port": 80}}]});
    let mut snapshot = reconciled(snapshot(service, canary_analysis()), &Weights::canary(30));
    let name = snapshot.reference(Kind::HttpRoute, "podinfo");
    let spec = &mut snapshot.objects.get_mut(&name).unwrap()["spec"];
    spec["parentRefs"][0]["group"] = json!("gateway.networking.k8s.io");
    spec["parentRefs"][0]["kind"] = json!("Gateway");
    let rule = &mut spec["rules"][0];
    rule["matches"][0]["path"] = json!({"type": "PathPrefix", "value": "/"});
    rule["filters"][0]["requestMirror"]["backendRef"]["group"] = json!("");
    rule["filters"][0]["requestMirror"]["backendRef"]["kind"] = json!("Service");
    rule["filters"][1]["cors"]["maxAge"] = json!(5);
    assert_eq!(
        GatewayApi::V1.reconcile(&snapshot, &selector(), &Weights::canary(30)),
        Ok(vec![])
    );
    assert_eq!(
        GatewayApi::V1.set_weights(&snapshot, &Weights::canary(30)),
        Ok(vec![])
    );
}

#[test]
fn an_adopted_route_keeps_fields_that_are_not_ours() {
    let mut snapshot = snapshot(json!({}), canary_analysis());
    let name = snapshot.reference(Kind::HttpRoute, "podinfo");
    let before = json!({"metadata": {"name": "podinfo", "annotations": {"foo": "bar"}, "labels": {"a": "b"}, "resourceVersion": "7"},
        "spec": {"useDefaultGateways": "All", "hostnames": ["old"], "rules": [{"backendRefs": [{"name": "podinfo", "port": 80}]}]}});
    snapshot.objects.insert(name, before.clone());
    assert_eq!(
        GatewayApi::V1
            .current_weights(&snapshot)
            .unwrap_err()
            .to_string(),
        "HTTPRoute podinfo.test does not contain routes for podinfo-primary and podinfo-canary"
    );
    let writes = GatewayApi::V1
        .reconcile(&snapshot, &selector(), &Weights::PRIMARY)
        .unwrap();
    assert_eq!(
        writes[0].refusal("no"),
        "HTTPRoute podinfo.test update error: no while reconciling"
    );
    apply(&mut snapshot, writes);
    let after = live(&snapshot);
    assert_eq!(after["metadata"]["annotations"]["foo"], "bar");
    assert_eq!(after["metadata"]["labels"], json!({"a": "b"}));
    assert_eq!(after["metadata"]["resourceVersion"], "7");
    assert_eq!(after["metadata"].get("ownerReferences"), None);
    assert_eq!(after["spec"]["useDefaultGateways"], "All");
    assert_eq!(after["spec"].get("hostnames"), None);
    // A deletion must not leave the route leading to the deleted primary.
    let write = GatewayApi::V1.restore(&snapshot).unwrap();
    apply(&mut snapshot, vec![write]);
    assert_eq!(*live(&snapshot), before);
    assert_eq!(GatewayApi::V1.restore(&snapshot), None);
}

/// The route is for clients from outside, the Canary is for calls within the mesh.
#[test]
fn a_route_that_has_more_than_the_canary_asks_for_would_lose_it() {
    let service = json!({"hosts": ["a.example"], "match": [{"uri": {"prefix": "/api"}}], "rewrite": {"uri": "/"},
        "gatewayRefs": [{"name": "gw", "namespace": "infra"}, {"name": "mesh"}]});
    let backend = || json!([{"name": "podinfo", "port": 80}]);
    let matches = || json!([{"path": {"type": "PathPrefix", "value": "/api"}}]);
    let filter = json!({"type": "URLRewrite", "urlRewrite": {"path": {"type": "ReplaceFullPath", "replaceFullPath": "/"}}});
    let rule = json!({"matches": matches(), "filters": [filter], "backendRefs": backend()});
    let kept = json!({"parentRefs": [{"name": "gw", "namespace": "infra"}], "hostnames": ["a.example"], "rules": [rule]});
    for (field, value, lost) in [
        ("rules", kept["rules"].clone(), None),
        (
            "rules",
            json!([{"matches": matches(), "backendRefs": backend()}]),
            None,
        ),
        ("hostnames", json!([]), None),
        ("hostnames", json!(["b.example"]), Some("hostnames")),
        ("parentRefs", json!([{"name": "other"}]), Some("parentRefs")),
        ("rules", json!([{"backendRefs": backend()}]), Some("rules")),
        (
            "rules",
            json!([rule, {"matches": matches(), "backendRefs": [{"name": "assets", "port": 80}]}]),
            Some("rules"),
        ),
        (
            "rules",
            json!([{"matches": matches(), "backendRefs": [{"name": "podinfo", "namespace": "other"}]}]),
            Some("rules"),
        ),
        (
            "rules",
            json!([{"matches": matches(), "backendRefs": backend(), "timeouts": {"request": "1s"}}]),
            Some("rules"),
        ),
        (
            "rules",
            json!([{"matches": matches(), "backendRefs": backend(),
            "filters": [{"type": "RequestRedirect", "requestRedirect": {"hostname": "x"}}]}]),
            Some("rules"),
        ),
    ] {
        let mut snapshot = snapshot(service.clone(), canary_analysis());
        let name = snapshot.reference(Kind::HttpRoute, "podinfo");
        let mut spec = kept.clone();
        spec[field] = value;
        let mut route = json!({"metadata": {"name": "podinfo"}, "spec": spec});
        snapshot.objects.insert(name.clone(), route.clone());
        let lost = lost.map(|field| (name.clone(), field));
        assert_eq!(GatewayApi::V1.loses(&snapshot), lost, "{route}");
        route["metadata"]["annotations"] = json!({"flagger-rs.github.io/adopt": "true"});
        snapshot.objects.insert(name, route);
        assert_eq!(
            GatewayApi::V1.loses(&snapshot),
            None,
            "the user gave it away"
        );
    }
}

/// The last change of the user counts, with every tool.
#[test]
fn a_route_is_given_back_as_kubectl_applied_it_since_its_adoption() {
    const APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
    let mut snapshot = snapshot(json!({}), canary_analysis());
    let name = snapshot.reference(Kind::HttpRoute, "podinfo");
    let applied = |port: i64| {
        json!({"spec": {"rules": [{"backendRefs": [{"name": "podinfo", "port": port}]}]}})
            .to_string()
    };
    snapshot.objects.insert(
        name.clone(),
        json!({"metadata": {"name": "podinfo", "annotations": {APPLIED: applied(80)}},
        "spec": {"rules": [{"backendRefs": [{"name": "podinfo", "port": 80, "weight": 1}]}]}}),
    );
    let mut snapshot = reconciled(snapshot, &Weights::PRIMARY);
    let of = |snapshot: &Snapshot| rules_of(snapshot)[0]["backendRefs"].clone();
    let mut same = snapshot.clone();
    apply(&mut same, vec![GatewayApi::V1.restore(&snapshot).unwrap()]);
    assert_eq!(
        of(&same),
        json!([{"name": "podinfo", "port": 80, "weight": 1}])
    );
    snapshot.objects.get_mut(&name).unwrap()["metadata"]["annotations"][APPLIED] =
        json!(applied(81));
    let write = GatewayApi::V1.restore(&snapshot).unwrap();
    apply(&mut snapshot, vec![write]);
    assert_eq!(of(&snapshot), json!([{"name": "podinfo", "port": 81}]));
    assert_eq!(
        live(&snapshot)["metadata"]["annotations"],
        json!({APPLIED: applied(81)})
    );
}

#[test]
fn a_release_waits_for_a_gateway_that_has_not_seen_the_route() {
    let mut snapshot = reconciled(snapshot(json!({}), canary_analysis()), &Weights::PRIMARY);
    assert_eq!(GatewayApi::V1.accepted(&snapshot), Ok(()));
    let name = snapshot.reference(Kind::HttpRoute, "podinfo");
    let mut status = |section: Option<&str>, accepted: &str, observed: i64| {
        let mut parent = json!({"name": "gw", "namespace": "infra"});
        if let Some(section) = section {
            parent["sectionName"] = json!(section);
        }
        let conditions =
            json!([{"type": "Accepted", "status": accepted, "observedGeneration": observed}]);
        let object = snapshot.objects.get_mut(&name).unwrap();
        object["metadata"]["generation"] = json!(5);
        object["status"] = json!({"parents": [{"parentRef": parent, "conditions": conditions}]});
        GatewayApi::V1.accepted(&snapshot)
    };
    assert_eq!(
        status(None, "False", 5).unwrap_err().to_string(),
        "HTTPRoute podinfo.test parent gw is not ready (status: False, observed generation: 5, current generation: 5)"
    );
    assert_eq!(
        status(None, "True", 4).unwrap_err().to_string(),
        "HTTPRoute podinfo.test parent gw is not ready (status: True, observed generation: 4, current generation: 5)"
    );
    assert_eq!(status(None, "True", 5), Ok(()));
    assert_eq!(status(Some("other"), "False", 1), Ok(()));
}

#[test]
fn a_client_stays_on_the_side_that_answered_it() {
    let analysis = json!({"interval": "15s", "threshold": 1, "stepWeight": 10,
        "sessionAffinity": {"cookieName": "flagger-cookie", "primaryCookieName": "primary-cookie"}});
    let service = json!({"headers": {"response": {"set": {"x": "y"}}}});
    let mut snapshot = snapshot(service, analysis);
    snapshot.canary.status = serde_json::from_value(json!({"sessionAffinityCookie": "flagger-cookie=Qw", "primarySessionAffinityCookie": "primary-cookie=As"})).unwrap();
    let snapshot = reconciled(snapshot, &Weights::canary(10));
    let cookie = |value: &str| json!([{"headers": [{"type": "RegularExpression", "name": "Cookie", "value": value}]}]);
    let own = json!([{"type": "ResponseHeaderModifier", "responseHeaderModifier": {"set": [{"name": "x", "value": "y"}]}}]);
    let set_cookie = |text: &str| json!([{"type": "ResponseHeaderModifier", "responseHeaderModifier": {"add": [{"name": "Set-Cookie", "value": text}]}}]);
    let mut split = backends(90, 10);
    split[0]["filters"] = set_cookie("primary-cookie=As; Max-Age=15");
    split[1]["filters"] = set_cookie("flagger-cookie=Qw; Max-Age=86400");
    let everything = json!([{"path": {"type": "PathPrefix", "value": "/"}}]);
    assert_eq!(
        *rules_of(&snapshot),
        json!([{"matches": cookie(".*flagger-cookie.*Qw.*"), "filters": own, "backendRefs": backends(0, 100)},
            {"matches": cookie(".*primary-cookie.*As.*"), "filters": own, "backendRefs": backends(100, 0)},
            {"matches": everything, "filters": own, "backendRefs": split}])
    );
    let snapshot = routed(snapshot, &Weights::PRIMARY);
    let taken_back = json!([{"type": "ResponseHeaderModifier", "responseHeaderModifier": {"set": [{"name": "x", "value": "y"}],
        "add": [{"name": "Set-Cookie", "value": "flagger-cookie=Qw; Max-Age=-1"}]}}]);
    assert_eq!(
        *rules_of(&snapshot),
        json!([{"matches": cookie(".*flagger-cookie.*Qw.*"), "filters": taken_back, "backendRefs": backends(100, 0)},
            {"matches": everything, "filters": own, "backendRefs": backends(100, 0)}])
    );
}

/// As with Linkerd: the route applies to requests for the Service, and the status names the Service as parent.
#[test]
fn a_route_can_be_attached_to_the_service_itself() {
    let parent = json!({"group": "core", "kind": "Service", "name": "podinfo", "namespace": "test", "port": 80});
    let service = json!({"gatewayRefs": [parent]});
    let mut snapshot = reconciled(snapshot(service, canary_analysis()), &Weights::canary(30));
    assert_eq!(live(&snapshot)["spec"]["parentRefs"], json!([parent]));
    assert_eq!(
        rules_of(&snapshot)[0]["backendRefs"],
        json!(backends(70, 30))
    );
    let name = snapshot.reference(Kind::HttpRoute, "podinfo");
    let live = snapshot.objects.get_mut(&name).unwrap();
    let conditions = json!([{"type": "Accepted", "status": "False", "observedGeneration": 1}]);
    live["status"] = json!({"parents": [{"parentRef": parent, "conditions": conditions}]});
    let refused = GatewayApi::V1.accepted(&snapshot).unwrap_err().to_string();
    assert!(
        refused.contains("parent podinfo is not ready (status: False"),
        "{refused}"
    );
    // The restored route leads to the apex Service before the primary is deleted.
    let write = GatewayApi::V1.restore(&snapshot).unwrap();
    apply(&mut snapshot, vec![write]);
    let backends = &rules_of(&snapshot)[0]["backendRefs"];
    assert_eq!(
        (&backends[0]["name"], backends.as_array().unwrap().len()),
        (&json!("podinfo"), 1)
    );
}

/// The defaults of the CRD: a route with all of them is the same as the route without.
#[test]
fn each_default_of_the_crd_is_filled_in() {
    use super::defaults::defaulted;
    let path = json!({"type": "PathPrefix", "value": "/"});
    for (field, value, full) in [
        (
            "parentRefs",
            json!({}),
            json!({"group": "gateway.networking.k8s.io", "kind": "Gateway"}),
        ),
        ("rules", json!({}), json!({"matches": [{"path": path}]})),
        ("matches", json!({}), json!({"path": path})),
        ("path", json!({}), path.clone()),
        (
            "path",
            json!({"replaceFullPath": "/a"}),
            json!({"replaceFullPath": "/a"}),
        ),
        (
            "path",
            json!({"replacePrefixMatch": "/a"}),
            json!({"replacePrefixMatch": "/a"}),
        ),
        (
            "headers",
            json!({"name": "a"}),
            json!({"name": "a", "type": "Exact"}),
        ),
        (
            "queryParams",
            json!({"name": "a"}),
            json!({"name": "a", "type": "Exact"}),
        ),
        (
            "backendRefs",
            json!({}),
            json!({"group": "", "kind": "Service", "weight": 1}),
        ),
        (
            "backendRef",
            json!({}),
            json!({"group": "", "kind": "Service"}),
        ),
        ("fraction", json!({}), json!({"denominator": 100})),
        ("requestRedirect", json!({}), json!({"statusCode": 302})),
        ("cors", json!({}), json!({"maxAge": 5})),
        (
            "other",
            json!({"a": null, "b": [], "c": 1}),
            json!({"c": 1}),
        ),
    ] {
        assert_eq!(defaulted(field, &value), full, "{field}");
        assert_eq!(defaulted(field, &full), full, "{field}");
        assert_eq!(defaulted(field, &json!([value])), json!([full]), "{field}");
    }
}

#[test]
fn a_route_that_kubectl_applied_as_it_is_needs_no_restoration() {
    let mut snapshot = reconciled(snapshot(json!({}), canary_analysis()), &Weights::PRIMARY);
    let name = snapshot.reference(Kind::HttpRoute, "podinfo");
    let live = snapshot.objects.get_mut(&name).unwrap();
    let applied = json!({"spec": live["spec"]}).to_string();
    live["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"] =
        json!(applied);
    live["metadata"]["ownerReferences"] = json!([]);
    assert_eq!(GatewayApi::V1.restore(&snapshot), None);
}

/// Flagger: only its router for `v1` waits.
#[test]
fn a_release_on_v1beta1_does_not_wait_for_the_gateway() {
    let before = snapshot(json!({}), canary_analysis());
    for (version, waits) in [(GatewayApi::V1, true), (GatewayApi::V1Beta1, false)] {
        let mut snapshot =
            crate::routers::tests::reconciled(&version, before.clone(), &Weights::PRIMARY);
        let name = snapshot.reference(version.kind(&snapshot.canary), "podinfo");
        let live = snapshot.objects.get_mut(&name).unwrap();
        let parent = live["spec"]["parentRefs"][0].clone();
        live["metadata"]["generation"] = json!(1);
        let other = json!({"type": "Programmed", "status": "True", "observedGeneration": 1});
        let refused = json!({"type": "Accepted", "status": "False", "observedGeneration": 1});
        live["status"] =
            json!({"parents": [{"parentRef": parent, "conditions": [other, refused]}]});
        assert_eq!(version.accepted(&snapshot).is_err(), waits, "{version:?}");
        assert!(version.mirrors());
    }
}
