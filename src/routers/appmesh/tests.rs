mod restored;
mod v1beta1;

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;
use crate::routers::tests::{apply, canary_analysis, reconciled as by, routed as to, selector};

const VERSION: AppMesh = AppMesh::V1Beta2;

fn snapshot(service: Value, analysis: Value) -> Snapshot {
    let mut all = json!({"port": 80});
    for (key, value) in service.as_object().unwrap() {
        all[key] = value.clone();
    }
    crate::routers::tests::snapshot("appmesh:v1beta2", all, analysis, Value::Null)
}

fn plain() -> Snapshot {
    snapshot(json!({}), canary_analysis())
}

fn reconciled(snapshot: Snapshot, weights: &Weights) -> Snapshot {
    by(&VERSION, snapshot, weights)
}

fn routed(snapshot: Snapshot, weights: &Weights) -> Snapshot {
    to(&VERSION, snapshot, weights)
}

fn writes(snapshot: &Snapshot) -> Vec<Write> {
    let weights = Weights::canary(30);
    VERSION.reconcile(snapshot, &selector(), &weights).unwrap()
}

fn edit(snapshot: &mut Snapshot, kind: Kind, name: &str, edit: impl FnOnce(&mut Value)) {
    let name = snapshot.reference(kind, name);
    edit(snapshot.objects.get_mut(&name).unwrap());
}

fn node<'a>(snapshot: &'a Snapshot, name: &str) -> &'a Value {
    snapshot.object(VERSION.node_kind(), name).unwrap()
}

fn routes(snapshot: &Snapshot) -> &Vec<Value> {
    let live = VERSION.live(snapshot).unwrap();
    live["spec"]["routes"].as_array().unwrap()
}

fn test(conditions: Value) -> Value {
    json!({"interval": "1m", "threshold": 1, "iterations": 2, "match": conditions})
}

/// A spec of the recordings, which have no weights.
fn without_weights(value: &Value) -> Value {
    match value {
        Value::Object(map) => map
            .iter()
            .map(|(key, value)| match key.as_str() {
                "weight" => (key.clone(), json!("*")),
                _ => (key.clone(), without_weights(value)),
            })
            .collect(),
        Value::Array(items) => items.iter().map(without_weights).collect(),
        other => other.clone(),
    }
}

/// The objects of a recording of Flagger, without weights, by kind and name.
fn recorded(golden: &str) -> BTreeMap<String, Value> {
    let golden: Value = serde_json::from_str(golden).unwrap();
    let shapes = golden["shapes"].as_object().unwrap();
    let shape = |(name, all): (&String, &Value)| {
        let shape = &all["1"];
        let fields = ["labels", "annotations", "spec"].map(|field| shape[field].clone());
        (name.clone(), json!(fields))
    };
    shapes.iter().map(shape).collect()
}

fn written(snapshot: &Snapshot) -> BTreeMap<String, Value> {
    let ours = snapshot.objects.iter();
    let ours = ours.filter(|(name, _)| name.kind.group_version().0 == "appmesh.k8s.aws");
    ours.map(|(name, object)| {
        let metadata = &object["metadata"];
        let spec = without_weights(&object["spec"]);
        let fields = json!([metadata["labels"], metadata["annotations"], spec]);
        (
            format!("{} {}", name.kind.name(), name.name).replace(' ', "/"),
            fields,
        )
    })
    .collect()
}

#[test]
fn the_objects_are_those_that_flagger_was_recorded_to_write() {
    let service = json!({"targetPort": 9898, "timeout": "30s", "hosts": ["a.example.com"], "backends": ["backend.example", "arn:aws:appmesh:x"],
        "retries": {"attempts": 5, "retryOn": "gateway-error"}, "match": [{"uri": {"prefix": "/api"}}]});
    let mut snapshot = snapshot(service, canary_analysis());
    snapshot.canary.metadata.namespace = Some("routerappmeshv1beta2".to_owned());
    let snapshot = reconciled(snapshot, &Weights::PRIMARY);
    let golden = include_str!("../../../tests/conformance/golden/router-appmesh-v1beta2.json");
    assert_eq!(written(&snapshot), recorded(golden));
}

#[test]
fn each_object_belongs_to_the_canary_and_has_the_weights_of_its_side() {
    let snapshot = routed(reconciled(plain(), &Weights::PRIMARY), &Weights::canary(30));
    for name in VERSION.objects(&snapshot.canary) {
        let owner = &snapshot.objects[&name]["metadata"]["ownerReferences"][0];
        assert_eq!(owner["kind"], "Canary", "{name:?}");
    }
    let targets = |name: &str| {
        let router = snapshot.object(VERSION.route_kind(), name).unwrap();
        router["spec"]["routes"][0]["httpRoute"]["action"]["weightedTargets"].clone()
    };
    let split = |canary: u8, primary: u8| json!([{"virtualNodeRef": {"name": "podinfo-canary"}, "weight": canary}, {"virtualNodeRef": {"name": "podinfo-primary"}, "weight": primary}]);
    assert_eq!(targets("podinfo"), split(30, 70));
    assert_eq!(targets("podinfo-canary"), split(100, 0));
}

#[test]
fn a_refused_write_is_reported_in_flaggers_words() {
    let mut snapshot = plain();
    let all = |snapshot: &Snapshot| {
        let writes = VERSION.reconcile(snapshot, &selector(), &Weights::PRIMARY);
        let texts = writes.unwrap().into_iter().map(|write| write.refusal("no"));
        texts.collect::<Vec<_>>()
    };
    assert_eq!(
        all(&snapshot),
        [
            "reconcileVirtualNode failed: VirtualNode podinfo-primary.test create error no",
            "reconcileVirtualNode failed: VirtualNode podinfo-canary.test create error no",
            "reconcileVirtualService failed: VirtualRouter podinfo create error no",
            "reconcileVirtualService failed: VirtualService podinfo create error no",
            "reconcileVirtualRouter failed: VirtualRouter podinfo-canary create error no",
            "reconcileVirtualRouter failed: VirtualService podinfo-canary create error no",
        ]
    );
    snapshot = reconciled(snapshot, &Weights::PRIMARY);
    for object in snapshot.objects.values_mut() {
        object["spec"] = json!({});
    }
    assert_eq!(
        all(&snapshot),
        [
            "reconcileVirtualNode failed: VirtualNode podinfo-primary update error no",
            "reconcileVirtualNode failed: VirtualNode podinfo-canary update error no",
            "reconcileVirtualService failed: VirtualRouter podinfo update error: no",
            "reconcileVirtualService failed: VirtualService podinfo update error: no",
            "reconcileVirtualRouter failed: VirtualRouter podinfo-canary update error: no",
            "reconcileVirtualRouter failed: VirtualService podinfo-canary update error: no",
        ]
    );
    let snapshot = reconciled(plain(), &Weights::PRIMARY);
    let moved = VERSION.set_weights(&snapshot, &Weights::CANARY).unwrap();
    assert_eq!(
        moved[0].refusal("no"),
        "VirtualRouter podinfo update error: no"
    );
}

#[test]
fn routes_that_are_missing_or_lead_elsewhere_are_reported_in_flaggers_words() {
    let mut snapshot = plain();
    let why = |snapshot: &Snapshot| VERSION.current_weights(snapshot).unwrap_err().to_string();
    assert_eq!(
        why(&snapshot),
        "VirtualRouter podinfo get query error: virtualrouters.appmesh.k8s.aws \"podinfo\" not found"
    );
    snapshot = reconciled(snapshot, &Weights::PRIMARY);
    let of = |targets: Value| json!([{"name": "x", "httpRoute": {"action": {"weightedTargets": targets}}}]);
    let other = json!({"virtualNodeRef": {"name": "other"}, "weight": 1});
    for (routes, text) in [
        (json!([]), "VirtualRouter routes podinfo not found"),
        (of(json!([other])), "VirtualRouter routes podinfo not found"),
        (
            of(json!([other, other])),
            "VirtualRouter podinfo does not contain routes for podinfo-primary and podinfo-canary",
        ),
    ] {
        edit(&mut snapshot, VERSION.route_kind(), "podinfo", |live| {
            live["spec"]["routes"] = routes;
        });
        assert_eq!(why(&snapshot), text);
    }
}

/// App Mesh's controller refuses an update that removes `awsName` or `meshRef`.
#[test]
fn fields_of_app_meshs_controller_and_of_users_are_no_drift_and_stay() {
    let mut snapshot = reconciled(plain(), &Weights::canary(30));
    for object in snapshot.objects.values_mut() {
        object["spec"]["awsName"] = json!("podinfo_test");
        object["spec"]["meshRef"] = json!({"name": "global", "uid": "m"});
        object["metadata"]["finalizers"] =
            json!(["finalizers.appmesh.k8s.aws/aws-appmesh-resources"]);
        object["status"] = json!({"conditions": []});
    }
    for name in ["podinfo-primary", "podinfo-canary"] {
        edit(&mut snapshot, VERSION.node_kind(), name, |node| {
            node["spec"]["serviceDiscovery"]["dns"]["ipPreference"] = json!("IPv4_PREFERRED");
            node["spec"]["listeners"][0]["healthCheck"] = json!({"path": "/healthz"});
            node["spec"]["backendDefaults"] = json!({"clientPolicy": {}});
        });
    }
    assert_eq!(writes(&snapshot), []);
    let before = snapshot.objects.clone();
    for object in snapshot.objects.values_mut() {
        for (field, drifted) in [
            (
                "listeners",
                json!([{"portMapping": {"port": 1}, "healthCheck": {"path": "/healthz"}}]),
            ),
            (
                "podSelector",
                json!({"matchLabels": {"app": "podinfo", "more": "x"}}),
            ),
            ("logging", json!({})),
            ("routes", json!([])),
            ("provider", json!({"virtualNode": {}})),
        ] {
            if object["spec"].get(field).is_some()
                || field == "logging" && object["kind"] == "VirtualNode"
            {
                object["spec"][field] = drifted;
            }
        }
    }
    let repaired = reconciled(snapshot, &Weights::canary(30));
    assert_eq!(repaired.objects, before);
}

#[test]
fn what_the_canary_no_longer_asks_for_is_removed() {
    let service = json!({"timeout": "1m30s", "backends": ["b"], "hosts": ["a", "b"], "retries": {"attempts": 2}, "apex": {"labels": {"a": "b"}, "annotations": {"c": "d"}}});
    let mut full = snapshot(service, canary_analysis());
    let log = (
        "appmesh.flagger.app/accesslog".to_owned(),
        "enabled".to_owned(),
    );
    full.canary.metadata.annotations = Some([log].into());
    let full = reconciled(full, &Weights::canary(30));
    let primary = node(&full, "podinfo-primary");
    assert_eq!(
        primary["spec"]["logging"]["accessLog"]["file"]["path"],
        "/dev/stdout"
    );
    let timeout = json!({"unit": "ms", "value": 90_000});
    assert_eq!(
        primary["spec"]["listeners"][0]["timeout"]["http"]["perRequest"],
        timeout
    );
    assert_eq!(primary["metadata"]["labels"], json!({"a": "b"}));
    let mut less = plain();
    less.objects.clone_from(&full.objects);
    let less = reconciled(less, &Weights::canary(30));
    let fresh = reconciled(plain(), &Weights::canary(30));
    assert_eq!(written(&less), {
        let mut fresh = written(&fresh);
        // The repair leaves an empty map.
        fresh.get_mut("VirtualService/podinfo").unwrap()[1] = json!({});
        for name in ["podinfo-primary", "podinfo-canary"] {
            fresh.get_mut(&format!("VirtualNode/{name}")).unwrap()[0] = json!({});
        }
        fresh
    });
}

/// Flagger never changes a VirtualService, and does not create it again.
#[test]
fn a_virtual_service_is_repaired_and_created_again() {
    let mut snapshot = reconciled(
        snapshot(json!({"hosts": ["a"]}), canary_analysis()),
        &Weights::PRIMARY,
    );
    let kind = Kind::AppMeshService;
    edit(&mut snapshot, kind, "podinfo", |live| {
        live["metadata"]["annotations"]["theirs"] = json!("1");
    });
    snapshot.canary.spec.service.hosts = Some(vec!["b".to_owned(), "c".to_owned()]);
    snapshot.canary.spec.service.timeout = Some("5s".to_owned());
    let mut snapshot = reconciled(snapshot, &Weights::PRIMARY);
    let annotations = |snapshot: &Snapshot| {
        snapshot.object(kind, "podinfo").unwrap()["metadata"]["annotations"].clone()
    };
    let expected = json!({"theirs": "1", "gateway.appmesh.k8s.aws/expose": "true", "gateway.appmesh.k8s.aws/domain": "b,c,", "gateway.appmesh.k8s.aws/timeout": "5s"});
    assert_eq!(annotations(&snapshot), expected);
    snapshot.objects.retain(|name, _| name.kind != kind);
    let snapshot = reconciled(snapshot, &Weights::PRIMARY);
    assert_eq!(
        annotations(&snapshot)["gateway.appmesh.k8s.aws/domain"],
        "b,c,"
    );
    assert!(snapshot.object(kind, "podinfo-canary").is_some());
}

/// Flagger puts the headers of all entries into one route, in a random order.
#[test]
fn each_condition_of_a_test_has_a_route_of_its_own() {
    let one = json!({"headers": {"b": {"exact": "1"}, "a": {"regex": "2"}}});
    let two = json!({"headers": {"c": {"suffix": "3"}}});
    let snapshot = snapshot(json!({}), test(json!([one, two])));
    let snapshot = routed(reconciled(snapshot, &Weights::PRIMARY), &Weights::CANARY);
    let found: Vec<_> = { routes(&snapshot).iter() }
        .map(|route| {
            let headers = &route["httpRoute"]["match"]["headers"];
            let targets = route["httpRoute"]["action"]["weightedTargets"].as_array();
            let weight = targets
                .unwrap()
                .iter()
                .map(|to| to["weight"].as_u64().unwrap());
            (
                route["name"].as_str().unwrap(),
                route["priority"].as_u64().unwrap(),
                headers.clone(),
                weight.collect(),
            )
        })
        .collect();
    let header = |name: &str, way: &str, value: &str| json!({"name": name, "match": {way: value}});
    let expected: [(&str, u64, Value, Vec<u64>); 3] = [
        (
            "podinfo-a",
            10,
            json!([header("a", "regex", "2"), header("b", "exact", "1")]),
            vec![100, 0],
        ),
        (
            "podinfo-a-2",
            11,
            json!([header("c", "suffix", "3")]),
            vec![100, 0],
        ),
        ("podinfo-b", 20, Value::Null, vec![100]),
    ];
    assert_eq!(found, expected);
    let own = snapshot
        .object(VERSION.route_kind(), "podinfo-canary")
        .unwrap();
    assert_eq!(own["spec"]["routes"].as_array().unwrap().len(), 1, "{own}");
}

/// App Mesh tries the route with the lowest number first.
#[test]
fn the_routes_for_all_others_come_after_those_of_a_test() {
    let many: Vec<_> = (0..30)
        .map(|n| json!({"headers": {"x": {"exact": n.to_string()}}}))
        .collect();
    let own = json!({"match": [{"uri": {"prefix": "/a"}}, {"uri": {"prefix": "/b"}}]});
    let snapshot = reconciled(snapshot(own, test(json!(many))), &Weights::PRIMARY);
    let priorities: Vec<_> = routes(&snapshot)
        .iter()
        .map(|route| route["priority"].as_u64().unwrap())
        .collect();
    assert_eq!(priorities, (10..72).collect::<Vec<_>>());
    let names: std::collections::BTreeSet<_> = routes(&snapshot)
        .iter()
        .map(|route| route["name"].as_str())
        .collect();
    assert_eq!(names.len(), 62);
}

#[test]
fn the_listener_has_the_port_of_the_pods_and_the_protocol_of_the_ports_name() {
    for (service, port, protocol) in [
        (json!({}), 80, "http"),
        (json!({"targetPort": 8080}), 8080, "http"),
        (json!({"targetPort": "web", "portName": "web"}), 80, "http"),
        (json!({"portName": "my-grpc"}), 80, "grpc"),
    ] {
        let snapshot = reconciled(snapshot(service, canary_analysis()), &Weights::PRIMARY);
        let expected = json!([{"portMapping": {"port": port, "protocol": protocol}}]);
        assert_eq!(
            node(&snapshot, "podinfo-canary")["spec"]["listeners"],
            expected
        );
        assert_eq!(
            VERSION.live(&snapshot).unwrap()["spec"]["listeners"],
            expected
        );
    }
}

#[test]
fn retries_have_flaggers_defaults() {
    let policy = |retries: Value| {
        let service = json!({"retries": retries, "timeout": "soon"});
        let snapshot = reconciled(snapshot(service, canary_analysis()), &Weights::PRIMARY);
        let route = &routes(&snapshot)[0]["httpRoute"];
        assert_eq!(route.get("timeout"), None);
        let policy = &route["retryPolicy"];
        json!([
            policy["maxRetries"],
            policy["perRetryTimeout"]["value"],
            policy["httpRetryEvents"]
        ])
    };
    assert_eq!(policy(json!({})), json!([1, 250, ["gateway-error"]]));
    let all =
        json!({"attempts": 4, "perTryTimeout": "1.5s", "retryOn": "server-error,stream-error"});
    assert_eq!(
        policy(all),
        json!([4, 1500, ["server-error", "stream-error"]])
    );
    for attempts in [-1, 0] {
        assert_eq!(
            policy(json!({"attempts": attempts, "perTryTimeout": "x"})),
            json!([1, 250, ["gateway-error"]])
        );
    }
}

/// Flagger takes the name of the target for the value of the label.
#[test]
fn a_node_selects_the_pods_of_its_side() {
    let mut snapshot = plain();
    let selected =
        |snapshot: &Snapshot, name: &str| node(snapshot, name)["spec"].get("podSelector").cloned();
    let label = ("app".to_owned(), "front".to_owned());
    let writes = VERSION
        .reconcile(&snapshot, &label, &Weights::PRIMARY)
        .unwrap();
    let mut other = snapshot.clone();
    apply(&mut other, writes);
    assert_eq!(
        selected(&other, "podinfo-canary"),
        Some(json!({"matchLabels": {"app": "front"}}))
    );
    assert_eq!(
        selected(&other, "podinfo-primary"),
        Some(json!({"matchLabels": {"app": "front-primary"}}))
    );
    // The selector of a primary cannot be changed.
    let primary = snapshot.reference(Kind::Deployment, "podinfo-primary");
    snapshot.objects.insert(
        primary,
        json!({"spec": {"selector": {"matchLabels": {"app": "first-primary"}}}}),
    );
    let snapshot = reconciled(snapshot, &Weights::PRIMARY);
    assert_eq!(
        selected(&snapshot, "podinfo-primary"),
        Some(json!({"matchLabels": {"app": "first-primary"}}))
    );
    let mut of_service = plain();
    let writes = VERSION
        .reconcile(
            &of_service,
            &(String::new(), String::new()),
            &Weights::PRIMARY,
        )
        .unwrap();
    apply(&mut of_service, writes);
    assert_eq!(selected(&of_service, "podinfo-canary"), None);
}

#[test]
fn only_missing_nodes_come_before_the_primarys_pods() {
    let snapshot = plain();
    let first = VERSION.before_pods(&snapshot, &selector()).unwrap();
    let names: Vec<_> = first
        .iter()
        .map(|write| write.object.name.as_str())
        .collect();
    assert_eq!(names, ["podinfo-primary", "podinfo-canary"]);
    assert!(
        first
            .iter()
            .all(|write| write.object.kind == VERSION.node_kind())
    );
    let mut snapshot = snapshot;
    apply(&mut snapshot, first);
    edit(
        &mut snapshot,
        VERSION.node_kind(),
        "podinfo-primary",
        |node| node["spec"] = json!({}),
    );
    assert_eq!(VERSION.before_pods(&snapshot, &selector()), Ok(vec![]));
}

#[test]
fn routes_that_the_controller_has_not_processed_are_not_accepted() {
    let mut snapshot = reconciled(plain(), &Weights::PRIMARY);
    assert_eq!(VERSION.accepted(&snapshot), Ok(()));
    edit(&mut snapshot, VERSION.route_kind(), "podinfo", |live| {
        live["metadata"]["generation"] = json!(7);
        live["status"]["observedGeneration"] = json!(6);
    });
    let why = "VirtualRouter podinfo is not taken up by App Mesh's controller (observed generation: 6, current generation: 7)";
    assert_eq!(VERSION.accepted(&snapshot).unwrap_err().to_string(), why);
    assert_eq!(VERSION.lag(&snapshot).unwrap().to_string(), why);
    edit(&mut snapshot, VERSION.route_kind(), "podinfo", |live| {
        live["status"]["observedGeneration"] = json!(7);
    });
    assert_eq!(VERSION.lag(&snapshot), None);
}
