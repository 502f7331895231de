//! Tests that every router passes. A new router adds a row to [`ROUTERS`], in `tests/table.rs`.

mod abilities;
mod adopted;
mod conditions;
mod ports;
mod table;
mod tenths;

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{route::metadata, *};
use crate::{
    routers,
    snapshot::{Action, Kind, Settings},
};
pub use table::{ROUTERS, Row};
use table::{Rules, SOURCE, references, sources};

/// A canary of this provider. The only objects are those of the user that the canary refers to.
pub fn snapshot(provider: &str, mut service: Value, analysis: Value, status: Value) -> Snapshot {
    service["meshName"] = json!("global");
    let users = sources().into_iter().map(|source| {
        let metadata = json!({"name": SOURCE, "namespace": "test"});
        let object = json!({"metadata": metadata, "spec": (source.spec)()});
        (source.kind.reference("test", SOURCE), object)
    });
    let (target, knative) = if provider == "knative" {
        let annotations = json!({"flagger.app/primary-revision": "podinfo-00001"});
        let metadata = json!({"name": "podinfo", "namespace": "test", "annotations": annotations});
        let reference = ObjectRef {
            kind: Kind::KnativeService,
            namespace: "test".to_owned(),
            name: "podinfo".to_owned(),
        };
        (
            json!({"apiVersion": "serving.knative.dev/v1", "kind": "Service", "name": "podinfo"}),
            Some((reference, json!({"metadata": metadata, "spec": {}}))),
        )
    } else {
        (
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "podinfo"}),
            None,
        )
    };
    let mut spec = references();
    let own = json!({"targetRef": target, "provider": provider, "service": service, "analysis": analysis});
    spec.as_object_mut()
        .unwrap()
        .extend(own.as_object().unwrap().clone());
    let metadata = json!({"name": "podinfo", "namespace": "test", "uid": "u"});
    let canary = json!({"apiVersion": "flagger.app/v1beta1", "kind": "Canary", "metadata": metadata, "spec": spec, "status": status});
    Snapshot {
        canary: serde_json::from_value(canary).unwrap(),
        objects: users.chain(knative).collect(),
        workloads: std::sync::Arc::default(),
        seen: BTreeSet::new(),
        now: jiff::Timestamp::UNIX_EPOCH,
        tick: None,
        changed: None,
        stalled: std::collections::BTreeMap::new(),
        paused: std::collections::BTreeMap::new(),
        undone: std::collections::BTreeMap::new(),
        forbidden: std::collections::BTreeMap::new(),
        recently_written: BTreeSet::new(),
        refused: None,
        conflicting_canary: None,
        jitter: jiff::SignedDuration::ZERO,
        nonce: 0,
        settings: Arc::new(Settings {
            mesh_provider: "istio".into(),
            ingress_annotations_prefix: "nginx.ingress.kubernetes.io".into(),
            ingress_class: String::new(),
            metrics_server: "http://prometheus:9090".into(),
            selector_labels: vec!["app".into()],
            include_label_prefix: vec![],
            config_tracking: true,
            no_cross_namespace_refs: false,
            cluster_name: String::new(),
        }),
    }
}

pub fn canary_analysis() -> Value {
    json!({"interval": "1m", "threshold": 1, "stepWeight": 10})
}

pub fn selector() -> (String, String) {
    ("app".to_owned(), "podinfo".to_owned())
}

/// Executes writes, as the API server would.
pub fn apply(snapshot: &mut Snapshot, writes: Vec<Write>) {
    for write in writes {
        let (Action::Create(value) | Action::Replace(value) | Action::Patch(value)) = write.action;
        snapshot.objects.insert(write.object, value);
    }
}

/// The snapshot after a router reconciled the routes.
pub fn reconciled(router: &dyn Router, mut snapshot: Snapshot, weights: &Weights) -> Snapshot {
    let writes = router.reconcile(&snapshot, &selector(), weights).unwrap();
    apply(&mut snapshot, writes);
    snapshot
}

/// The snapshot after a router set these weights.
pub fn routed(router: &dyn Router, mut snapshot: Snapshot, weights: &Weights) -> Snapshot {
    let writes = router.set_weights(&snapshot, weights).unwrap();
    apply(&mut snapshot, writes);
    snapshot
}

/// A router, and a service for it.
fn rows() -> impl Strategy<Value = (Row, Value)> {
    let common = [
        json!({"port": 80}),
        json!({"port": 80, "hosts": ["*"], "timeout": "15s", "backendTimeout": "5s",
            "rewrite": {"uri": "/", "type": "ReplacePrefixMatch", "authority": "new.example.com"}}),
        json!({"port": 80, "match": [{"uri": {"prefix": "/api"}}, {"headers": {"b": {"exact": "1"}, "a": {"regex": "2"}, "c": {"exact": "3"}}}],
            "apex": {"labels": {"a": "b"}, "annotations": {"c": "d"}},
            "headers": {"request": {"add": {"x": "y"}}, "response": {"add": {"Set-Cookie": "theirs"}, "remove": ["z"]}}}),
        json!({"port": 80, "mirror": [{"backendRef": {"name": "shadow", "port": 80}}],
            "corsPolicy": {"allowOrigin": ["https://example.com"], "allowCredentials": true}}),
    ];
    let row = prop::sample::select(ROUTERS);
    (row, any::<prop::sample::Index>()).prop_map(move |(row, index)| {
        let services = [common.to_vec(), (row.services)()].concat();
        let mut service = index.get(&services).clone();
        // Contour cannot express the conditions of the common service; NGINX and Gloo take those of the user's object.
        let is_common = service.get("retries").is_none();
        if is_common && row.tests() && !(row.can("uri prefix") && row.can("headers regex")) {
            service.as_object_mut().unwrap().remove("match");
        }
        service["gatewayRefs"] = json!([{"name": "gw", "namespace": "infra"}]);
        (row, service)
    })
}

fn analyses() -> impl Strategy<Value = Value> {
    let with = |more: Value| {
        let mut analysis = canary_analysis();
        for (key, value) in more.as_object().unwrap() {
            analysis[key] = value.clone();
        }
        analysis
    };
    prop::sample::select(vec![
        with(json!({})),
        with(json!({"iterations": 3, "mirror": true, "mirrorWeight": 20})),
        with(json!({"sessionAffinity": {"cookieName": "c"}})),
        with(
            json!({"sessionAffinity": {"cookieName": "c", "primaryCookieName": "p"}, "mirror": true}),
        ),
        with(json!({"iterations": 3, "match": [{"headers": {"x": {"exact": "1"}}}]})),
    ])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn weights_are_read_as_they_were_set_and_repairs_keep_them(
        (row, service) in rows(),
        analysis in analyses(),
        percent in 0_u8..=100,
        mirrored in any::<bool>(),
        status in prop::sample::select(vec![json!({}),
            json!({"sessionAffinityCookie": "c=new", "previousSessionAffinityCookie": "c=old", "primarySessionAffinityCookie": "p=x"})]),
        foreign in "x-[a-z]{1,8}",
    ) {
        let Some(Rules { kind, name, field, lists, is_shared, .. }) = row.rules else { return Ok(()) };
        // TCP connections have no headers.
        let tests = row.tests() && service.get("appProtocol").is_none();
        prop_assume!(tests || analysis.get("match").is_none());
        // Neither TCP connections nor A/B tests are mirrored, and mirrored requests are not split.
        let can = analysis.get("match").is_none() && service.get("appProtocol").is_none();
        let mirrored = mirrored && percent == 0 && can && row.router.mirrors();
        // During an A/B test, NGINX sends all matching requests to the canary.
        prop_assume!(kind != Kind::Ingress || analysis.get("match").is_none() || percent == 0 || percent == 100);
        let weights = Weights { mirrored, ..Weights::canary(percent) };
        let snapshot = snapshot(row.provider, service.clone(), analysis.clone(), status);
        let router = row.router;
        let snapshot = routed(router, reconciled(router, snapshot, &Weights::PRIMARY), &weights);
        prop_assert_eq!(router.current_weights(&snapshot), Ok(weights));
        prop_assert_eq!(router.set_weights(&snapshot, &weights).unwrap(), vec![]);
        prop_assert_eq!(router.reconcile(&snapshot, &selector(), &weights).unwrap(), vec![]);

        // Another actor changes a field of ours, adds a field, and changes a rule.
        let has = |list: &&&str| snapshot.object(kind, name).is_some_and(|live| live.pointer(list).is_some());
        let list = lists.iter().find(has).expect("a list of rules");
        for drift in [field, list] {
            let mut snapshot = snapshot.clone();
            let reference = snapshot.reference(kind, name);
            let live = snapshot.objects.get_mut(&reference).unwrap();
            live["spec"][foreign.as_str()] = json!(1);
            live["metadata"]["resourceVersion"] = json!("7");
            match live.pointer_mut(drift) {
                Some(Value::Array(rules)) if drift != field => rules[0]["drifted"] = json!([1]),
                Some(value) => *value = json!(["drifted"]),
                None if drift == field => live["spec"]["hostnames"] = json!(["drifted"]),
                None => unreachable!("the route has {list}"),
            }
            let snapshot = reconciled(router, snapshot, &weights);
            prop_assert_eq!(router.current_weights(&snapshot), Ok(weights));
            let live = snapshot.object(kind, name).unwrap();
            prop_assert_eq!(live["spec"].get(foreign.as_str()) == Some(&json!(1)), is_shared);
            prop_assert_eq!(&live["metadata"]["resourceVersion"], &json!("7"));
            prop_assert!(!live.to_string().contains("drifted") || kind == Kind::VirtualService, "{}", live);
            prop_assert_eq!(router.reconcile(&snapshot, &selector(), &weights).unwrap(), vec![]);
        }
    }

    /// A router handles any fields of a Canary and of a route, or returns an error.
    #[test]
    fn no_service_and_no_route_makes_a_router_panic(
        row in prop::sample::select(ROUTERS),
        odd in odd(),
        field in prop::sample::select(vec!["match", "headers", "rewrite", "corsPolicy", "mirror", "gatewayRefs", "retries"]),
        route in odd(),
    ) {
        let mut service = json!({"port": 80, "gatewayRefs": [{"name": "gw"}]});
        service[field] = if ["match", "mirror", "gatewayRefs"].contains(&field) { json!([odd]) } else { odd.clone() };
        let mut analysis = canary_analysis();
        analysis["match"] = json!([odd]);
        analysis["sessionAffinity"] = json!({"cookieName": "c"});
        for analysis in [analysis, canary_analysis()] {
            let mut snapshot = snapshot(row.provider, service.clone(), analysis, json!({"sessionAffinityCookie": "c"}));
            let router = row.router;
            let _ = router.reconcile(&snapshot, &selector(), &Weights::canary(30));
            if let Some(Rules { kind, name, .. }) = row.rules {
                let name = snapshot.reference(kind, name);
                let spec = json!({"http": [route], "rules": [route], "parentRefs": route, "routes": [route], "backends": [route]});
                snapshot.objects.insert(name, json!({"metadata": {"annotations": route}, "spec": spec, "status": {"parents": [route]}}));
                let _ = router.reconcile(&snapshot, &selector(), &Weights::canary(30));
                let _ = (router.current_weights(&snapshot), router.accepted(&snapshot), router.restore(&snapshot));
                let _ = router.set_weights(&snapshot, &Weights::canary(30));
            }
        }
    }
}

fn odd() -> impl Strategy<Value = Value> {
    let keys = [
        "uri",
        "method",
        "headers",
        "queryParams",
        "exact",
        "prefix",
        "regex",
        "request",
        "response",
        "add",
        "set",
        "remove",
        "route",
        "weight",
        "destination",
        "host",
        "mirror",
        "backendRefs",
        "filters",
        "name",
        "matches",
        "path",
        "parentRef",
        "conditions",
        "type",
        "backendRef",
        "requestMirror",
        "authority",
        "maxAge",
        "allowOrigin",
        "responseHeaderModifier",
        "services",
        "service",
        "attempts",
        "retryOn",
        "http",
        "paths",
        "backend",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<i64>().prop_map(|n| json!(n)),
        prop::sample::select(vec![
            "",
            "podinfo-canary",
            "podinfo-primary",
            "1h",
            "\u{e9}",
            "Accepted"
        ])
        .prop_map(|s| json!(s)),
    ];
    leaf.prop_recursive(4, 24, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::Array),
            prop::collection::btree_map(prop::sample::select(keys.to_vec()), inner, 0..4)
                .prop_map(|map| json!(map)),
        ]
    })
}

/// Flagger writes the labels and annotations of both objects from one map.
#[test]
fn unmanaged_metadata_of_the_service_is_on_the_route_too() {
    for row in ROUTERS {
        let Some(Rules {
            kind,
            is_apex: true,
            ..
        }) = row.rules
        else {
            continue;
        };
        let service = json!({"port": 80, "gatewayRefs": [{"name": "g"}], "apex": {"annotations": {"a": "1", "u": "ours"}},
            "unmanagedMetadata": {"annotations": ["u", "v"], "labels": ["w"]}});
        let mut snapshot = snapshot(row.provider, service, canary_analysis(), json!({}));
        let owner = crate::workload::metadata::owner_reference(&snapshot.canary);
        let apex = snapshot.reference(Kind::Service, "podinfo");
        let live = json!({"metadata": {"ownerReferences": [owner], "labels": {"w": "2", "x": "3"},
            "annotations": {"u": "theirs", "v": "4", "y": "5"}}});
        snapshot.objects.insert(apex, live);
        let snapshot = reconciled(row.router, snapshot, &Weights::PRIMARY);
        let route = snapshot.object(kind, "podinfo").unwrap();
        assert_eq!(
            route["metadata"]["labels"],
            json!({"app": "podinfo", "w": "2"})
        );
        let annotations = metadata(route, "annotations");
        assert_eq!(annotations["u"], "theirs");
        assert_eq!(
            (&annotations["a"], &annotations["v"]),
            (&json!("1"), &json!("4"))
        );
        assert!(!annotations.contains_key("y"));
    }
}
