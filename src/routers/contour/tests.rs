use std::sync::Arc;

use super::*;
use crate::{
    routers::tests::{apply, canary_analysis, selector},
    workload::metadata::LAST_APPLIED,
};

fn snapshot(service: Value, analysis: Value) -> Snapshot {
    let mut all = json!({"port": 80});
    for (key, value) in service.as_object().unwrap() {
        all[key] = value.clone();
    }
    crate::routers::tests::snapshot("contour", all, analysis, Value::Null)
}

fn reconciled(mut snapshot: Snapshot, weights: &Weights) -> Snapshot {
    let writes = Contour.reconcile(&snapshot, &selector(), weights).unwrap();
    apply(&mut snapshot, writes);
    snapshot
}

fn routed(mut snapshot: Snapshot, weights: &Weights) -> Snapshot {
    let writes = Contour.set_weights(&snapshot, weights).unwrap();
    apply(&mut snapshot, writes);
    snapshot
}

/// The snapshot after a restore and the removal of temporary routes.
fn restored(mut snapshot: Snapshot) -> Snapshot {
    let first = Contour.restore(&snapshot).into_iter().collect();
    apply(&mut snapshot, first);
    assert_eq!(Contour.restore(&snapshot), None);
    let then = Contour.tidy(&snapshot).into_iter().collect();
    apply(&mut snapshot, then);
    assert_eq!(
        (Contour.restore(&snapshot), Contour.tidy(&snapshot)),
        (None, None)
    );
    snapshot
}

fn proxy(snapshot: &Snapshot) -> &Value {
    snapshot.object(Kind::HttpProxy, "podinfo").unwrap()
}

fn edit(snapshot: &mut Snapshot, edit: impl FnOnce(&mut Value)) {
    let name = snapshot.reference(Kind::HttpProxy, "podinfo");
    edit(snapshot.objects.get_mut(&name).unwrap());
}

/// A destination as it is written.
fn side(name: &str, weight: u8) -> Value {
    let value = format!("{name}.test.svc.cluster.local:80");
    let mut side = json!({"name": name, "port": 80, "requestHeadersPolicy": {"set": [{"name": "l5d-dst-override", "value": value}]}});
    if weight > 0 {
        side["weight"] = json!(weight);
    }
    side
}

fn sides(primary: u8, canary: u8) -> Value {
    json!([
        side("podinfo-primary", primary),
        side("podinfo-canary", canary)
    ])
}

fn test(conditions: Value) -> Value {
    json!({"interval": "1m", "threshold": 1, "iterations": 2, "match": conditions})
}

#[test]
fn the_proxy_is_flaggers_to_the_letter() {
    let service = json!({"timeout": "15s", "match": [{"uri": {"prefix": "/api"}}],
        "retries": {"attempts": 3, "perTryTimeout": "5s", "retryOn": "5xx,reset"}});
    let snapshot = reconciled(snapshot(service, canary_analysis()), &Weights::PRIMARY);
    let route = |services: Value| {
        json!({"routes": [{"conditions": [{"prefix": "/api"}], "timeoutPolicy": {"response": "15s", "idle": "5m"},
            "retryPolicy": {"count": 3, "perTryTimeout": "5s", "retryOn": ["5xx", "reset"]}, "services": services}]})
    };
    assert_eq!(proxy(&snapshot)["spec"], route(sides(100, 0)));
    let metadata = &proxy(&snapshot)["metadata"];
    assert_eq!(metadata["annotations"].as_object().unwrap().len(), 2);
    assert_eq!(metadata["ownerReferences"][0]["kind"], "Canary");
    assert_eq!(metadata.get("labels"), None);
    let snapshot = routed(snapshot, &Weights::canary(10));
    assert_eq!(proxy(&snapshot)["spec"], route(sides(90, 10)));
    let snapshot = routed(snapshot, &Weights::CANARY);
    assert_eq!(proxy(&snapshot)["spec"], route(sides(0, 100)));
    assert_eq!(Contour.current_weights(&snapshot), Ok(Weights::CANARY));
}

#[test]
fn the_proxy_has_the_ingress_class_of_the_operator() {
    let mut snapshot = snapshot(json!({}), canary_analysis());
    Arc::make_mut(&mut snapshot.settings).ingress_class = "contour".to_owned();
    let mut snapshot = reconciled(snapshot, &Weights::PRIMARY);
    assert_eq!(proxy(&snapshot)["spec"]["ingressClassName"], "contour");
    edit(&mut snapshot, |proxy| {
        proxy["spec"]["ingressClassName"] = json!("other");
    });
    let snapshot = reconciled(snapshot, &Weights::PRIMARY);
    assert_eq!(proxy(&snapshot)["spec"]["ingressClassName"], "contour");
}

#[test]
fn requests_with_the_header_go_to_the_canary_and_all_others_to_the_primary() {
    let analysis = test(json!([{"headers": {"x-user": {"exact": "insider"}}}]));
    let snapshot = reconciled(snapshot(json!({}), analysis), &Weights::PRIMARY);
    let header = json!({"prefix": "/", "header": {"name": "x-user", "exact": "insider"}});
    let routes = |services: Value| {
        json!([{"conditions": [header], "services": services},
            {"conditions": [{"prefix": "/"}], "services": sides(100, 0)}])
    };
    assert_eq!(proxy(&snapshot)["spec"]["routes"], routes(sides(100, 0)));
    let snapshot = routed(snapshot, &Weights::CANARY);
    assert_eq!(proxy(&snapshot)["spec"]["routes"], routes(sides(0, 100)));
    assert_eq!(Contour.current_weights(&snapshot), Ok(Weights::CANARY));
}

/// Flagger writes all conditions into one route, each with the prefix, and Contour refuses the HTTPProxy.
#[test]
fn each_set_of_conditions_has_a_route_and_one_prefix() {
    let analysis = test(
        json!([{"headers": {"b": {"suffix": "2"}, "a": {"prefix": "1", "exact": "x"}}},
        {"headers": {"c": {"exact": "3"}}}]),
    );
    let snapshot = reconciled(snapshot(json!({}), analysis), &Weights::CANARY);
    let conditions: Vec<_> = items(proxy(&snapshot), "/spec/routes")
        .map(|route| route["conditions"].clone())
        .collect();
    assert_eq!(
        conditions,
        [
            json!([{"prefix": "/", "header": {"name": "a", "contains": "1"}}, {"header": {"name": "b", "contains": "2"}}]),
            json!([{"prefix": "/", "header": {"name": "c", "exact": "3"}}]),
            json!([{"prefix": "/"}]),
        ]
    );
}

/// Flagger would send all requests to the canary.
#[test]
fn a_test_that_contour_cannot_express_is_refused() {
    for (condition, text) in [
        (
            json!({"headers": {"x": {"regex": "1.*"}}}),
            "spec.analysis.match: Contour matches a header by exact, prefix or suffix, and x has none of them",
        ),
        (
            json!({"uri": {"exact": "/x"}}),
            "spec.analysis.match: Contour matches a path by prefix only",
        ),
    ] {
        let snapshot = snapshot(json!({}), test(json!([condition])));
        let refused = Contour.reconcile(&snapshot, &selector(), &Weights::PRIMARY);
        assert_eq!(refused.unwrap_err().to_string(), text);
        // A rollback still works.
        let half = Weights::canary(50);
        let released = self::snapshot(json!({}), canary_analysis());
        let released = routed(reconciled(released, &Weights::PRIMARY), &half);
        let edited = Snapshot {
            objects: released.objects,
            ..snapshot
        };
        assert!(Contour.set_weights(&edited, &Weights::CANARY).is_err());
        assert_eq!(
            Contour
                .set_weights(&edited, &Weights::PRIMARY)
                .unwrap()
                .len(),
            1
        );
    }
}

/// Flagger does not mirror with Contour, and waits for ever for the copies.
#[test]
fn a_mirror_is_a_service_of_its_own() {
    let mirrored = Weights {
        mirrored: true,
        ..Weights::PRIMARY
    };
    for (percent, weight) in [(json!(null), 0), (json!(20), 20), (json!(100), 100)] {
        let mut analysis = canary_analysis();
        analysis["mirror"] = json!(true);
        analysis["mirrorWeight"] = percent;
        let snapshot = reconciled(snapshot(json!({}), analysis), &mirrored);
        let mut copies = side("podinfo-canary", weight);
        copies["mirror"] = json!(true);
        let services = [sides(100, 0).as_array().unwrap().clone(), vec![copies]].concat();
        assert_eq!(
            proxy(&snapshot)["spec"]["routes"][0]["services"],
            json!(services)
        );
        assert_eq!(Contour.current_weights(&snapshot), Ok(mirrored));
        let snapshot = routed(snapshot, &Weights::canary(10));
        assert_eq!(
            proxy(&snapshot)["spec"]["routes"][0]["services"],
            sides(90, 10)
        );
    }
}

#[test]
fn defaults_of_the_api_server_are_no_drift() {
    let service = json!({"retries": {"retryOn": "5xx"}});
    let mut snapshot = reconciled(snapshot(service, canary_analysis()), &Weights::PRIMARY);
    edit(&mut snapshot, |proxy| {
        let route = &mut proxy["spec"]["routes"][0];
        assert_eq!(route["retryPolicy"], json!({"retryOn": ["5xx"]}));
        route["retryPolicy"]["count"] = json!(1);
        route["services"][1]["weight"] = json!(0);
    });
    assert_eq!(
        Contour.set_weights(&snapshot, &Weights::PRIMARY),
        Ok(vec![])
    );
    assert_eq!(
        Contour.reconcile(&snapshot, &selector(), &Weights::PRIMARY),
        Ok(vec![])
    );
}

/// The restored HTTPProxy is the one that the user applied. Flagger overwrites all of it, and leaves it leading to a deleted primary.
#[test]
fn an_adopted_proxy_keeps_its_virtual_host_and_is_restored() {
    let before = json!({"virtualhost": {"fqdn": "app.example.com"}, "routes": [{"services": [{"name": "podinfo", "port": 80}]}]});
    let annotations = json!({LAST_APPLIED: json!({"spec": before}).to_string(), "theirs": "stays"});
    let mut snapshot = snapshot(json!({}), canary_analysis());
    let name = snapshot.reference(Kind::HttpProxy, "podinfo");
    let object = json!({"metadata": {"name": "podinfo", "annotations": annotations, "resourceVersion": "7"}, "spec": before});
    snapshot.objects.insert(name, object.clone());
    assert_eq!(
        Contour.current_weights(&snapshot).unwrap_err().to_string(),
        "HTTPProxy podinfo.test services not found"
    );
    let writes = Contour
        .reconcile(&snapshot, &selector(), &Weights::PRIMARY)
        .unwrap();
    assert_eq!(
        writes[0].refusal("no"),
        "HTTPProxy podinfo.test update error: no"
    );
    apply(&mut snapshot, writes);
    let after = proxy(&snapshot);
    assert_eq!(after["spec"]["virtualhost"]["fqdn"], "app.example.com");
    assert_eq!(after["spec"]["routes"][0]["services"], sides(100, 0));
    let annotations = after["metadata"]["annotations"].as_object().unwrap();
    assert!(annotations.contains_key(LAST_APPLIED) && annotations["theirs"] == "stays");
    let snapshot = routed(snapshot, &Weights::canary(30));
    let snapshot = restored(snapshot);
    assert_eq!(*proxy(&snapshot), object);
}

/// Contour sends Services and routes to Envoy in either order.
#[test]
fn services_are_added_before_the_routes_that_lead_to_them_and_removed_after() {
    let theirs =
        json!({"conditions": [{"prefix": "/"}], "services": [{"name": "podinfo", "port": 80}]});
    let mut snapshot = snapshot(json!({}), canary_analysis());
    let name = snapshot.reference(Kind::HttpProxy, "podinfo");
    let object = json!({"metadata": {"name": "podinfo"}, "spec": {"routes": [theirs]}});
    snapshot.objects.insert(name, object);
    let ours = json!({"conditions": [{"prefix": "/"}], "services": sides(100, 0)});
    let unmet = |route: &Value| {
        let mut route = route.clone();
        let nobody = json!({"header": {"name": "x-flagger-nobody", "present": true}});
        route["conditions"].as_array_mut().unwrap().push(nobody);
        route
    };
    let routes = |snapshot: &Snapshot| proxy(snapshot)["spec"]["routes"].clone();

    let coming = Contour
        .reconcile(&snapshot, &selector(), &Weights::PRIMARY)
        .unwrap();
    let first = Contour.announce(&snapshot, &coming[0]).unwrap();
    apply(&mut snapshot, vec![first]);
    assert_eq!(routes(&snapshot), json!([theirs, unmet(&ours)]));
    let coming = Contour
        .reconcile(&snapshot, &selector(), &Weights::PRIMARY)
        .unwrap();
    assert_eq!(Contour.announce(&snapshot, &coming[0]), None);
    apply(&mut snapshot, coming);
    assert_eq!(routes(&snapshot), json!([ours, unmet(&theirs)]));
    assert_eq!(Contour.current_weights(&snapshot), Ok(Weights::PRIMARY));
    let mut snapshot = reconciled(snapshot, &Weights::PRIMARY);
    assert_eq!(routes(&snapshot), json!([ours]));
    let idle = Contour.reconcile(&snapshot, &selector(), &Weights::PRIMARY);
    assert_eq!(idle, Ok(vec![]));

    let first = Contour
        .announce(&snapshot, &Contour.restore(&snapshot).unwrap())
        .unwrap();
    apply(&mut snapshot, vec![first]);
    assert_eq!(routes(&snapshot), json!([ours, unmet(&theirs)]));
    let coming = Contour.restore(&snapshot).unwrap();
    assert_eq!(Contour.announce(&snapshot, &coming), None);
    apply(&mut snapshot, vec![coming]);
    assert_eq!(routes(&snapshot), json!([theirs, unmet(&ours)]));
    assert_eq!(routes(&restored(snapshot)), json!([theirs]));
}

#[test]
fn a_proxy_that_is_deleted_with_the_canary_leads_to_the_apex_service() {
    let analysis = test(json!([{"headers": {"x-user": {"exact": "insider"}}}]));
    let snapshot = reconciled(snapshot(json!({}), analysis), &Weights::CANARY);
    let snapshot = restored(snapshot);
    for route in items(proxy(&snapshot), "/spec/routes") {
        assert_eq!(route["services"], json!([side("podinfo", 100)]));
    }
}

#[test]
fn a_proxy_that_contour_cannot_use_is_reported_with_advice() {
    let mut snapshot = reconciled(snapshot(json!({}), canary_analysis()), &Weights::PRIMARY);
    let mut with = |status: Value| {
        edit(&mut snapshot, |proxy| proxy["status"] = status);
        Contour.accepted(&snapshot)
    };
    assert_eq!(with(Value::Null), Ok(()));
    assert_eq!(
        with(json!({"currentStatus": "valid", "description": "valid HTTPProxy"})),
        Ok(())
    );
    assert_eq!(
        with(json!({"currentStatus": "orphaned",
            "description": "this HTTPProxy is not part of a delegation chain from a root HTTPProxy"}))
        .unwrap_err().to_string(),
        "HTTPProxy podinfo.test is orphaned (this HTTPProxy is not part of a delegation chain from a root HTTPProxy): include it from an HTTPProxy that has a virtualhost"
    );
    assert_eq!(
        with(json!({"currentStatus": "invalid", "description": "At least one error"}))
            .unwrap_err()
            .to_string(),
        "HTTPProxy podinfo.test is invalid (At least one error)"
    );
    let seen = |generation: i64| json!({"currentStatus": "valid", "conditions": [{"type": "Valid", "status": "True", "observedGeneration": generation}]});
    edit(&mut snapshot, |proxy| {
        proxy["metadata"]["generation"] = json!(7);
    });
    let mut with = |status: Value| {
        edit(&mut snapshot, |proxy| proxy["status"] = status);
        Contour.accepted(&snapshot)
    };
    assert_eq!(with(seen(7)), Ok(()));
    assert_eq!(
        with(seen(6)).unwrap_err().to_string(),
        "HTTPProxy podinfo.test is not taken up by Contour (observed generation: 6, current generation: 7)"
    );
}

#[test]
fn a_missing_proxy_is_reported_in_flaggers_words() {
    let snapshot = snapshot(json!({}), canary_analysis());
    assert_eq!(
        Contour.current_weights(&snapshot).unwrap_err().to_string(),
        "HTTPProxy podinfo.test get query error: httpproxies.projectcontour.io \"podinfo\" not found"
    );
}
