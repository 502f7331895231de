use super::{upstreams::Side, *};
use crate::{
    routers::tests::{apply, canary_analysis, selector},
    snapshot::Snapshot,
};

const SETTINGS: &str = "/spec/loadBalancerConfig/healthyPanicThreshold";

fn snapshot(analysis: Value) -> Snapshot {
    crate::routers::tests::snapshot("gloo", json!({"port": 80}), analysis, Value::Null)
}

/// A canary that takes the settings of the Upstream `config` in this namespace, which exists.
fn with_settings(namespace: &str) -> Snapshot {
    let mut snapshot = snapshot(canary_analysis());
    let to = json!({"name": "config", "namespace": namespace});
    snapshot.canary.spec.upstream_ref = serde_json::from_value(to).unwrap();
    let name = ObjectRef {
        kind: Kind::GlooUpstream,
        namespace: namespace.to_owned(),
        name: "config".to_owned(),
    };
    let spec = json!({"kube": {"serviceName": "theirs"}, "useHttp2": true, "failover": {}, "loadBalancerConfig": {"healthyPanicThreshold": 10}});
    snapshot.objects.insert(name, json!({"spec": spec}));
    snapshot
}

fn reconciled(mut snapshot: Snapshot) -> Snapshot {
    let weights = Weights::PRIMARY;
    let writes = Gloo.reconcile(&snapshot, &selector(), &weights).unwrap();
    apply(&mut snapshot, writes);
    assert_eq!(
        Gloo.reconcile(&snapshot, &selector(), &weights),
        Ok(Vec::new())
    );
    snapshot
}

fn upstream(snapshot: &Snapshot, side: Side) -> &Value {
    let name = side.upstream(&snapshot.canary);
    snapshot.object(Kind::GlooUpstream, &name).unwrap()
}

fn edit(snapshot: &mut Snapshot, name: &ObjectRef, edit: impl FnOnce(&mut Value)) {
    edit(snapshot.objects.get_mut(name).unwrap());
}

#[test]
fn the_objects_are_flaggers() {
    let snapshot = reconciled(snapshot(canary_analysis()));
    let canary = upstream(&snapshot, Side::Canary);
    assert_eq!(
        canary["spec"],
        json!({"kube": {"serviceName": "podinfo-canary", "serviceNamespace": "test", "servicePort": 80, "selector": {"app": "podinfo"}}})
    );
    let primary = &upstream(&snapshot, Side::Primary)["spec"]["kube"];
    assert_eq!(primary["selector"], json!({"app": "podinfo-primary"}));
    let table = snapshot.object(KIND, "podinfo").unwrap();
    let to = |side: &str| json!({"upstream": {"name": format!("test-podinfo-{side}upstream-80"), "namespace": "test"}});
    let destinations =
        json!([{"destination": to("primary"), "weight": 100}, {"destination": to("canary")}]);
    assert_eq!(
        table["spec"],
        json!({"routes": [{"inheritablePathMatchers": true, "routeAction": {"multi": {"destinations": destinations}}}]})
    );
}

/// Flagger loses `healthyPanicThreshold`, and follows changes of `loadBalancerConfig` only.
#[test]
fn both_upstreams_follow_all_settings_and_keep_what_others_add() {
    let mut snapshot = reconciled(with_settings("infra"));
    for side in Side::BOTH {
        let spec = &upstream(&snapshot, side)["spec"];
        assert_eq!(spec["useHttp2"], true);
        assert_eq!(spec["failover"], Value::Null);
        assert_eq!(spec["kube"]["serviceName"], side_service(side));
    }
    let source = Gloo.sources(&snapshot).first().unwrap().clone();
    edit(&mut snapshot, &source, |theirs| {
        theirs["spec"] = json!({"loadBalancerConfig": {"healthyPanicThreshold": 20}});
    });
    let name = Side::Canary.upstream(&snapshot.canary);
    let name = snapshot.reference(Kind::GlooUpstream, &name);
    edit(&mut snapshot, &name, |ours| {
        ours["spec"]["discoveryMetadata"] = json!({"added": true});
    });
    let snapshot = reconciled(snapshot);
    let ours = upstream(&snapshot, Side::Canary);
    assert_eq!(ours.pointer(SETTINGS), Some(&json!(20)));
    assert_eq!(ours["spec"]["useHttp2"], Value::Null);
    assert_eq!(ours["spec"]["discoveryMetadata"], json!({"added": true}));
}

/// The fields that Flagger copies. Without `sslConfig`, Gloo would speak plain HTTP to the pods.
#[test]
fn both_upstreams_get_and_lose_each_setting_of_the_one_that_the_canary_names() {
    for field in [
        "labels",
        "sslConfig",
        "circuitBreakers",
        "connectionConfig",
        "loadBalancerConfig",
        "useHttp2",
        "initialStreamWindowSize",
        "initialConnectionWindowSize",
        "httpProxyHostName",
    ] {
        let mut snapshot = with_settings("infra");
        let source = Gloo.sources(&snapshot).first().unwrap().clone();
        for value in [json!({"a": 1}), json!({"a": 2}), Value::Null] {
            edit(&mut snapshot, &source, |theirs| {
                theirs["spec"] = match &value {
                    Value::Null => json!({}),
                    value => json!({field: value}),
                };
            });
            snapshot = reconciled(snapshot);
            for side in Side::BOTH {
                assert_eq!(upstream(&snapshot, side)["spec"][field], value, "{field}");
            }
        }
    }
}

fn side_service(side: Side) -> &'static str {
    match side {
        Side::Primary => "podinfo-primary",
        Side::Canary => "podinfo-canary",
    }
}

#[test]
fn a_missing_upstream_is_named_and_one_of_another_namespace_is_not_read_if_the_flag_forbids_it() {
    let reconcile = |snapshot: &Snapshot| {
        let refused = Gloo.reconcile(snapshot, &selector(), &Weights::PRIMARY);
        refused.unwrap_err().to_string()
    };
    let mut missing = with_settings("infra");
    missing.objects.clear();
    assert_eq!(
        reconcile(&missing),
        "config upstream config.infra get query error: upstreams.gloo.solo.io \"config\" not found"
    );
    let mut blocked = with_settings("infra");
    std::sync::Arc::make_mut(&mut blocked.settings).no_cross_namespace_refs = true;
    assert_eq!(
        reconcile(&blocked),
        "can't access gloo upstream config.infra, cross-namespace references are blocked: with -no-cross-namespace-refs, spec.upstreamRef may name the namespace test only"
    );
    assert!(Gloo.sources(&blocked).is_empty());
}

/// Flagger makes one matcher of all conditions, and answers other requests with 404.
#[test]
fn a_request_of_a_test_meets_one_of_the_conditions_and_others_reach_the_primary() {
    let conditions = json!([{"headers": {"a": {"exact": "1"}, "b": {"regex": "2"}}}, {"method": {"exact": "POST"}}]);
    let analysis = json!({"interval": "1m", "threshold": 1, "iterations": 2, "match": conditions});
    let mut snapshot = reconciled(snapshot(analysis));
    let writes = Gloo.set_weights(&snapshot, &Weights::CANARY).unwrap();
    apply(&mut snapshot, writes);
    let routes = &snapshot.object(KIND, "podinfo").unwrap()["spec"]["routes"];
    assert_eq!(
        routes[0]["matchers"],
        json!([{"headers": [{"name": "a", "value": "1"}, {"name": "b", "value": "2", "regex": true}]}, {"methods": ["POST"]}])
    );
    let weights = |route: usize| {
        let to = &routes[route]["routeAction"]["multi"]["destinations"];
        json!([to[0]["weight"], to[1]["weight"]])
    };
    assert_eq!(
        (weights(0), weights(1)),
        (json!([null, 100]), json!([100, null]))
    );
    assert_eq!(routes[1]["matchers"], Value::Null);
}

#[test]
fn a_route_table_of_the_user_is_adopted_only_if_it_has_no_other_routes() {
    let mut snapshot = snapshot(canary_analysis());
    let name = snapshot.reference(KIND, "podinfo");
    for (routes, lost) in [
        (Value::Null, None),
        (json!([]), None),
        (json!([routes::to_apex(&snapshot.canary)]), None),
        (json!([{"redirectAction": {}}]), Some("routes")),
    ] {
        let table =
            json!({"metadata": {"name": "podinfo"}, "spec": {"routes": routes, "weight": 7}});
        snapshot.objects.insert(name.clone(), table);
        let lost = lost.map(|field| (name.clone(), field));
        assert_eq!(Gloo.loses(&snapshot), lost);
    }
    edit(&mut snapshot, &name, |theirs| {
        theirs["metadata"]["annotations"] = json!({"flagger-rs.github.io/adopt": "true"});
    });
    assert_eq!(Gloo.loses(&snapshot), None);
    let snapshot = reconciled(snapshot);
    assert_eq!(snapshot.objects[&name]["spec"]["weight"], 7);
}

/// The Upstreams' Services may be deleted before the RouteTable.
#[test]
fn after_a_deletion_the_route_table_leads_to_the_apex_service() {
    assert_eq!(Gloo.restore(&snapshot(canary_analysis())), None);
    let mut snapshot = reconciled(snapshot(canary_analysis()));
    let write = Gloo.restore(&snapshot).unwrap();
    apply(&mut snapshot, vec![write]);
    let table = snapshot.object(KIND, "podinfo").unwrap();
    let kube = json!({"ref": {"name": "podinfo", "namespace": "test"}, "port": 80});
    assert_eq!(
        table["spec"]["routes"][0]["routeAction"]["multi"]["destinations"],
        json!([{"destination": {"kube": kube}, "weight": 100}])
    );
    assert_eq!(Gloo.restore(&snapshot), None);
}
