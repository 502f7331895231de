//! What holds for every dialect. A new one adds a row to [`DIALECTS`].

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::snapshot::{Action, Kind, Settings};

/// A dialect, as far as the tests must know it.
#[derive(Clone, Copy, Debug)]
struct Row {
    provider: &'static str,
    rules: Option<Rules>,
    /// Services that only this dialect makes something of.
    services: fn() -> Vec<Value>,
}

/// The object that has a dialect's rules.
#[derive(Clone, Copy, Debug)]
struct Rules {
    kind: Kind,
    name: &'static str,
    /// A field that is ours, besides the rules.
    field: &'static str,
    /// Whether it has the apex' labels and annotations.
    is_apex: bool,
    /// Whether fields of its spec that are not ours stay.
    is_shared: bool,
    /// Whether it can tell requests apart.
    tests: bool,
}

impl Rules {
    /// A route with the apex' name and metadata.
    const fn of(kind: Kind, field: &'static str) -> Self {
        Self {
            kind,
            name: "podinfo",
            field,
            is_apex: true,
            is_shared: true,
            tests: true,
        }
    }

    const fn split(kind: Kind) -> Self {
        Self {
            kind,
            name: "podinfo",
            field: "/spec/service",
            is_apex: false,
            is_shared: true,
            tests: false,
        }
    }
}

const fn row(provider: &'static str, rules: Option<Rules>) -> Row {
    Row {
        provider,
        rules,
        services: Vec::new,
    }
}

const DIALECTS: [Row; 9] = [
    Row {
        provider: "istio",
        rules: Some(Rules::of(Kind::VirtualService, "/spec/hosts")),
        services: || {
            vec![
                json!({"port": 80, "portDiscovery": true, "gateways": ["istio/public", "mesh"], "hosts": ["*"]}),
                json!({"port": 80, "delegation": true, "timeout": "15s", "rewrite": {"uri": "/", "type": "x"}}),
                json!({"port": 80, "appProtocol": "tcp"}),
            ]
        },
    },
    row(
        "gatewayapi:v1",
        Some(Rules::of(Kind::HttpRoute, "/spec/hostnames")),
    ),
    row(
        "gatewayapi:v1beta1",
        Some(Rules::of(Kind::HttpRouteV1Beta1, "/spec/hostnames")),
    ),
    Row {
        provider: "contour",
        rules: Some(Rules::of(Kind::HttpProxy, "/spec/routes")),
        services: || {
            vec![
                json!({"port": 80, "retries": {"attempts": 3, "retryOn": "5xx,reset", "perTryTimeout": "1s"}}),
                json!({"port": 80, "retries": {}, "match": [{"uri": {"prefix": "/api"}}]}),
            ]
        },
    },
    row(
        "nginx",
        Some(Rules {
            kind: Kind::Ingress,
            name: "web-canary",
            field: "/spec/ingressClassName",
            is_apex: false,
            is_shared: false,
            tests: true,
        }),
    ),
    row("linkerd", Some(Rules::split(Kind::TrafficSplitV1Alpha1))),
    row("osm", Some(Rules::split(Kind::TrafficSplitV1Alpha2))),
    row(
        "smi:v1alpha3",
        Some(Rules::split(Kind::TrafficSplitV1Alpha3)),
    ),
    row("kubernetes", None),
];

/// A canary of this provider, without objects but for the Ingress that it refers to.
pub fn snapshot(provider: &str, service: Value, analysis: Value, status: Value) -> Snapshot {
    let ingress = json!({"metadata": {"name": "web", "namespace": "test"}, "spec": {"ingressClassName": "nginx", "rules": [{"http": {"paths": [
        {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "podinfo", "port": {"number": 80}}}}]}}]}});
    let name = ObjectRef {
        kind: Kind::Ingress,
        namespace: "test".to_owned(),
        name: "web".to_owned(),
    };
    let canary = serde_json::from_value(
        json!({"apiVersion": "flagger.app/v1beta1", "kind": "Canary",
        "metadata": {"name": "podinfo", "namespace": "test", "uid": "u"},
        "spec": {"targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "podinfo"}, "provider": provider,
            "ingressRef": {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "name": "web"},
            "service": service, "analysis": analysis}, "status": status}),
    );
    Snapshot {
        canary: canary.unwrap(),
        objects: [(name, ingress)].into(),
        seen: BTreeSet::new(),
        now: jiff::Timestamp::UNIX_EPOCH,
        tick: None,
        changed: None,
        recently_written: BTreeSet::new(),
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

/// What the API server would have after these writes.
pub fn apply(snapshot: &mut Snapshot, writes: Vec<Write>) {
    for write in writes {
        let (Action::Create(value) | Action::Replace(value) | Action::Patch(value)) = write.action;
        snapshot.objects.insert(write.object, value);
    }
}

/// After a reconciliation.
pub fn reconciled(mut snapshot: Snapshot, weights: &Weights) -> Snapshot {
    let dialect = Dialect::of(&snapshot).unwrap();
    let writes = reconcile(dialect, &snapshot, &selector(), weights).unwrap();
    apply(&mut snapshot, writes);
    snapshot
}

/// After these weights were routed.
pub fn routed(mut snapshot: Snapshot, weights: &Weights) -> Snapshot {
    let dialect = Dialect::of(&snapshot).unwrap();
    let writes = set(dialect, &snapshot, weights).unwrap();
    apply(&mut snapshot, writes);
    snapshot
}

#[test]
fn a_provider_is_spoken_refused_or_taken_for_istio() {
    for (name, dialect) in [
        ("istio", Some(Dialect::Istio)),
        ("kubernetes", Some(Dialect::Kubernetes)),
        ("gatewayapi:v1", Some(Dialect::GatewayApi(Version::V1))),
        (
            "gatewayapi:v1alpha2",
            Some(Dialect::GatewayApi(Version::V1)),
        ),
        (
            "gatewayapi:v1beta1",
            Some(Dialect::GatewayApi(Version::V1Beta1)),
        ),
        ("gatewayapi", Some(Dialect::Istio)),
        ("smi", Some(Dialect::Istio)),
        ("appmesh:v1beta1", Some(Dialect::Istio)),
        ("appmesh:v1beta2", None),
        ("gloo-edge", None),
        ("skipper", None),
        ("contour", Some(Dialect::Contour)),
        ("nginx", Some(Dialect::Nginx)),
        ("linkerd", Some(Dialect::Smi(smi::Version::V1Alpha1))),
        (
            "smi:v1alpha1:istio",
            Some(Dialect::Smi(smi::Version::V1Alpha1)),
        ),
        ("osm", Some(Dialect::Smi(smi::Version::V1Alpha2))),
        ("smi:v1alpha2", Some(Dialect::Smi(smi::Version::V1Alpha2))),
        ("smi:v1alpha3", Some(Dialect::Smi(smi::Version::V1Alpha3))),
    ] {
        assert_eq!(Dialect::named(name).ok(), dialect, "{name}");
    }
    assert_eq!(
        Dialect::named("skipper").unwrap_err(),
        "skipper is not supported yet, only contour, gatewayapi:v1, gatewayapi:v1beta1, istio, kubernetes, linkerd, nginx, osm and smi are"
    );
}

#[test]
fn without_routes_it_is_the_iterations_that_tell() {
    for (status, weights) in [
        (json!({}), Weights::PRIMARY),
        (json!({"iterations": 1}), Weights::CANARY),
    ] {
        let snapshot = snapshot("kubernetes", json!({"port": 80}), canary_analysis(), status);
        assert_eq!(read(Dialect::Kubernetes, &snapshot), Ok(weights));
        assert_eq!(
            set(Dialect::Kubernetes, &snapshot, &Weights::canary(50)),
            Ok(vec![])
        );
        assert!(objects(Dialect::Kubernetes, &snapshot.canary).is_empty());
    }
}

/// A dialect, and a service for it.
fn dialects() -> impl Strategy<Value = (Row, Value)> {
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
    let row = prop::sample::select(DIALECTS.to_vec());
    (row, any::<prop::sample::Index>()).prop_map(move |(row, index)| {
        let services = [common.to_vec(), (row.services)()].concat();
        let mut service = index.get(&services).clone();
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
    fn what_is_set_is_read_and_drift_is_repaired_with_the_weights_as_they_are(
        (row, service) in dialects(),
        analysis in analyses(),
        percent in 0_u8..=100,
        mirrored in any::<bool>(),
        status in prop::sample::select(vec![json!({}),
            json!({"sessionAffinityCookie": "c=new", "previousSessionAffinityCookie": "c=old", "primarySessionAffinityCookie": "p=x"})]),
        foreign in "x-[a-z]{1,8}",
    ) {
        let Some(Rules { kind, name, field, is_shared, tests, .. }) = row.rules else { return Ok(()) };
        prop_assume!(tests || analysis.get("match").is_none());
        // Neither connections nor an A/B test are mirrored, and what is mirrored is not shared.
        let can = analysis.get("match").is_none() && service.get("appProtocol").is_none();
        let mirrored = mirrored && percent == 0 && can && Dialect::named(row.provider).unwrap().mirrors();
        // All the traffic of a test is that of the requests that match.
        prop_assume!(kind != Kind::Ingress || analysis.get("match").is_none() || percent == 0 || percent == 100);
        let weights = Weights { mirrored, ..Weights::canary(percent) };
        let snapshot = snapshot(row.provider, service.clone(), analysis.clone(), status);
        let dialect = Dialect::of(&snapshot).unwrap();
        let snapshot = routed(reconciled(snapshot, &Weights::PRIMARY), &weights);
        prop_assert_eq!(read(dialect, &snapshot), Ok(weights));
        prop_assert_eq!(set(dialect, &snapshot, &weights).unwrap(), vec![]);
        prop_assert_eq!(reconcile(dialect, &snapshot, &selector(), &weights).unwrap(), vec![]);

        // Somebody changes what is ours, adds what is not, and takes a rule away.
        for drift in [field, "/spec/rules", "/spec/http", "/spec/tcp", "/spec/routes", "/spec/backends"] {
            let mut snapshot = snapshot.clone();
            let reference = snapshot.reference(kind, name);
            let live = snapshot.objects.get_mut(&reference).unwrap();
            live["spec"][foreign.as_str()] = json!(1);
            live["metadata"]["resourceVersion"] = json!("7");
            match live.pointer_mut(drift) {
                Some(Value::Array(rules)) if drift != field => rules[0]["drifted"] = json!([1]),
                Some(value) => *value = json!(["drifted"]),
                None if drift == field => live["spec"]["hostnames"] = json!(["drifted"]),
                None => continue,
            }
            let snapshot = reconciled(snapshot, &weights);
            prop_assert_eq!(read(dialect, &snapshot), Ok(weights));
            let live = snapshot.object(kind, name).unwrap();
            prop_assert_eq!(live["spec"].get(foreign.as_str()) == Some(&json!(1)), is_shared);
            prop_assert_eq!(&live["metadata"]["resourceVersion"], &json!("7"));
            prop_assert!(!live.to_string().contains("drifted") || kind == Kind::VirtualService, "{}", live);
            prop_assert_eq!(reconcile(dialect, &snapshot, &selector(), &weights).unwrap(), vec![]);
        }
    }

    /// What a user may write in a Canary, however odd, is routed or refused.
    #[test]
    fn no_service_and_no_route_is_too_odd(
        row in prop::sample::select(DIALECTS.to_vec()),
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
            let dialect = Dialect::of(&snapshot).unwrap();
            let _ = reconcile(dialect, &snapshot, &selector(), &Weights::canary(30));
            if let Some(Rules { kind, name, .. }) = row.rules {
                let name = snapshot.reference(kind, name);
                let spec = json!({"http": [route], "rules": [route], "parentRefs": route, "routes": [route], "backends": [route]});
                snapshot.objects.insert(name, json!({"metadata": {"annotations": route}, "spec": spec, "status": {"parents": [route]}}));
                let _ = reconcile(dialect, &snapshot, &selector(), &Weights::canary(30));
                let _ = (read(dialect, &snapshot), accepted(dialect, &snapshot), restore(dialect, &snapshot));
                let _ = set(dialect, &snapshot, &Weights::canary(30));
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

/// Flagger writes the labels and annotations of both from one map.
#[test]
fn what_others_may_write_on_the_service_is_on_the_route_too() {
    for row in DIALECTS {
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
        let snapshot = reconciled(snapshot, &Weights::PRIMARY);
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
