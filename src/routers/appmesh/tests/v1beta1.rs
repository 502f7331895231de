//! The older version: the VirtualRouter is a part of the VirtualService.

use super::*;

const OLD: AppMesh = AppMesh::V1Beta1;

fn old(service: Value, analysis: Value) -> Snapshot {
    let mut all = json!({"port": 80});
    for (key, value) in service.as_object().unwrap() {
        all[key] = value.clone();
    }
    crate::routers::tests::snapshot("appmesh", all, analysis, Value::Null)
}

fn with_log(mut snapshot: Snapshot) -> Snapshot {
    let log = (
        "appmesh.flagger.app/accesslog".to_owned(),
        "enabled".to_owned(),
    );
    snapshot.canary.metadata.annotations = Some([log].into());
    snapshot
}

fn service(snapshot: &Snapshot) -> &Value {
    OLD.live(snapshot).unwrap()
}

#[test]
fn the_objects_are_those_that_flagger_was_recorded_to_write() {
    let fields = json!({"hosts": ["a.example.com", "b.example.com"], "timeout": "15s", "backends": ["backend.example"],
        "retries": {"attempts": 3, "perTryTimeout": "1s", "retryOn": "gateway-error,stream-error"}});
    let mut snapshot = with_log(old(fields, canary_analysis()));
    snapshot.canary.metadata.namespace = Some("routerappmesh".to_owned());
    let snapshot = by(&OLD, snapshot, &Weights::PRIMARY);
    let golden = include_str!("../../../../tests/conformance/golden/router-appmesh.json");
    assert_eq!(written(&snapshot), recorded(golden));
}

/// Flagger compares labels with annotations, so that it updates all VirtualNodes at each tick.
#[test]
fn virtual_nodes_that_are_correct_are_not_written() {
    let apex = json!({"apex": {"labels": {"a": "b"}}, "backends": ["b"]});
    let snapshot = by(
        &OLD,
        with_log(old(apex, canary_analysis())),
        &Weights::canary(30),
    );
    let again = OLD.reconcile(&snapshot, &selector(), &Weights::canary(30));
    assert_eq!(again, Ok(vec![]));
}

#[test]
fn a_canary_without_a_mesh_is_refused_before_anything_is_written() {
    let mut snapshot = old(json!({}), canary_analysis());
    let running = by(&OLD, snapshot.clone(), &Weights::canary(30));
    for name in [None, Some(String::new())] {
        snapshot.canary.spec.service.mesh_name = name;
        for refused in [
            OLD.reconcile(&snapshot, &selector(), &Weights::PRIMARY),
            OLD.before_pods(&snapshot, &selector()),
        ] {
            let why = refused.unwrap_err();
            assert_eq!(why.to_string(), "mesh name cannot be empty");
            assert!(matches!(why, RouteError::InvalidCanary(_)));
        }
    }
    // A version that has traffic can still be rolled back.
    snapshot.objects = running.objects;
    let snapshot = to(&OLD, snapshot, &Weights::PRIMARY);
    assert_eq!(OLD.current_weights(&snapshot), Ok(Weights::PRIMARY));
}

#[test]
fn a_refused_write_is_reported_in_flaggers_words() {
    let mut snapshot = old(json!({}), canary_analysis());
    let texts = |writes: Vec<Write>| {
        writes
            .into_iter()
            .map(|write| write.refusal("no"))
            .collect::<Vec<_>>()
    };
    let writes = OLD
        .reconcile(&snapshot, &selector(), &Weights::PRIMARY)
        .unwrap();
    assert_eq!(
        texts(writes),
        [
            "reconcileVirtualNode failed: VirtualNode podinfo.test create error no",
            "reconcileVirtualNode failed: VirtualNode podinfo-primary.test create error no",
            "reconcileVirtualNode failed: VirtualNode podinfo-canary.test create error no",
            "reconcileVirtualService failed: VirtualService podinfo.test create error no",
            "reconcileVirtualService failed: VirtualService podinfo-canary.test create error no",
        ]
    );
    snapshot = by(&OLD, snapshot, &Weights::PRIMARY);
    let writes = OLD.set_weights(&snapshot, &Weights::CANARY).unwrap();
    assert_eq!(
        texts(writes),
        ["VirtualService podinfo.test update error: no"]
    );
    let why = |snapshot: &Snapshot| OLD.current_weights(snapshot).unwrap_err().to_string();
    let name = snapshot.reference(OLD.route_kind(), "podinfo.test");
    snapshot.objects.get_mut(&name).unwrap()["spec"]["routes"] = json!([]);
    assert_eq!(
        why(&snapshot),
        "VirtualService routes podinfo.test not found"
    );
    let target = json!({"virtualNodeName": "podinfo-primary", "weight": 0});
    snapshot.objects.get_mut(&name).unwrap()["spec"]["routes"] =
        json!([{"http": {"action": {"weightedTargets": [target, target]}}}]);
    assert_eq!(
        why(&snapshot),
        "VirtualService podinfo.test does not contain routes for podinfo-primary and podinfo-canary"
    );
    snapshot.objects.remove(&name);
    assert_eq!(
        why(&snapshot),
        "VirtualService podinfo.test get query error: virtualservices.appmesh.k8s.aws \"podinfo.test\" not found"
    );
}

/// Flagger replaces all annotations, and only if the routes differ, too.
#[test]
fn the_annotations_for_the_gateway_follow_the_canary() {
    let mut snapshot = by(
        &OLD,
        old(json!({"hosts": ["a"]}), canary_analysis()),
        &Weights::canary(30),
    );
    let name = snapshot.reference(OLD.route_kind(), "podinfo.test");
    snapshot.objects.get_mut(&name).unwrap()["metadata"]["annotations"]["theirs"] = json!("1");
    snapshot.canary.spec.service.hosts = Some(vec!["b".to_owned()]);
    let mut snapshot = by(&OLD, snapshot, &Weights::canary(30));
    let annotations = json!({"theirs": "1", "gateway.appmesh.k8s.aws/expose": "true", "gateway.appmesh.k8s.aws/domain": "b,"});
    assert_eq!(service(&snapshot)["metadata"]["annotations"], annotations);
    assert_eq!(OLD.current_weights(&snapshot), Ok(Weights::canary(30)));
    snapshot.canary.spec.service.hosts = None;
    let snapshot = by(&OLD, snapshot, &Weights::canary(30));
    assert_eq!(
        service(&snapshot)["metadata"]["annotations"],
        json!({"theirs": "1"})
    );
}

#[test]
fn a_test_has_a_route_for_each_condition_and_one_for_all_others() {
    let one = json!({"headers": {"x": {"exact": "1"}}, "uri": {"prefix": "/a"}});
    let two = json!({"headers": {"y": {"prefix": "2"}}});
    let snapshot = by(
        &OLD,
        old(json!({}), test(json!([one, two]))),
        &Weights::CANARY,
    );
    let target = |node: &str, weight: u8| json!({"virtualNodeName": node, "weight": weight});
    let split = json!([target("podinfo-canary", 100), target("podinfo-primary", 0)]);
    let route = |name: &str, priority: u8, conditions: Value, targets: &Value| json!({"name": name, "priority": priority, "http": {"match": conditions, "action": {"weightedTargets": targets}}});
    let header =
        |name: &str, way: &str, value: &str| json!([{"name": name, "match": {way: value}}]);
    assert_eq!(
        service(&snapshot)["spec"]["routes"],
        json!([
            route(
                "podinfo-a",
                10,
                json!({"prefix": "/a", "headers": header("x", "exact", "1")}),
                &split
            ),
            route(
                "podinfo-a-2",
                11,
                json!({"prefix": "/", "headers": header("y", "prefix", "2")}),
                &split
            ),
            route(
                "podinfo-b",
                20,
                json!({"prefix": "/"}),
                &json!([target("podinfo-primary", 100)])
            ),
        ])
    );
}

#[test]
fn objects_of_a_user_become_what_they_were_and_ours_lead_to_the_apex_service() {
    let mut snapshot = old(json!({}), canary_analysis());
    let node = json!({"meshName": "global", "serviceDiscovery": {"dns": {"hostName": "podinfo.test"}}, "backendDefaults": {}});
    let routes = json!({"meshName": "global", "virtualRouter": {"name": "theirs"}, "routes": [{"name": "all"}]});
    let theirs = [
        (OLD.node_kind(), "podinfo", node),
        (OLD.route_kind(), "podinfo.test", routes),
    ];
    for (kind, name, spec) in &theirs {
        let object = snapshot.reference(*kind, name);
        snapshot
            .objects
            .insert(object, json!({"metadata": {"name": name}, "spec": spec}));
    }
    assert_eq!(OLD.before_pods(&snapshot, &selector()).unwrap().len(), 2);
    let mut snapshot = by(&OLD, snapshot, &Weights::canary(30));
    let host = |snapshot: &Snapshot, name: &str| {
        let node = snapshot.object(OLD.node_kind(), name).unwrap();
        OLD.host(node).unwrap().to_owned()
    };
    assert_eq!(host(&snapshot, "podinfo"), "podinfo-primary.test");
    for _ in 0..10 {
        let write = OLD.restore(&snapshot).into_iter().collect();
        apply(&mut snapshot, write);
    }
    assert_eq!(OLD.restore(&snapshot), None);
    for (kind, name, spec) in theirs {
        assert_eq!(snapshot.object(kind, name).unwrap()["spec"], spec);
    }
    assert_eq!(host(&snapshot, "podinfo-primary"), "podinfo.test");
}
