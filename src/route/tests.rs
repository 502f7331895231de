//! What holds for every dialect. A new one adds a row to [`DIALECTS`].

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::world::{Action, Kind, Settings};

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
pub fn world(provider: &str, service: Value, analysis: Value, status: Value) -> World {
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
    World {
        canary: canary.unwrap(),
        objects: [(name, ingress)].into(),
        seen: BTreeSet::new(),
        now: jiff::Timestamp::UNIX_EPOCH,
        due: None,
        changed: None,
        mended: BTreeSet::new(),
        rival: None,
        spread: jiff::SignedDuration::ZERO,
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
pub fn apply(world: &mut World, effects: Vec<Effect>) {
    for effect in effects {
        let (Action::Create(value) | Action::Replace(value) | Action::Patch(value)) = effect.action;
        world.objects.insert(effect.object, value);
    }
}

/// After a reconciliation.
pub fn reconciled(mut world: World, weights: &Weights) -> World {
    let dialect = Dialect::of(&world).unwrap();
    let effects = reconcile(dialect, &world, &selector(), weights).unwrap();
    apply(&mut world, effects);
    world
}

/// After these weights were routed.
pub fn routed(mut world: World, weights: &Weights) -> World {
    let dialect = Dialect::of(&world).unwrap();
    let effects = set(dialect, &world, weights).unwrap();
    apply(&mut world, effects);
    world
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
        let world = world("kubernetes", json!({"port": 80}), canary_analysis(), status);
        assert_eq!(read(Dialect::Kubernetes, &world), Ok(weights));
        assert_eq!(
            set(Dialect::Kubernetes, &world, &Weights::canary(50)),
            Ok(vec![])
        );
        assert!(objects(Dialect::Kubernetes, &world.canary).is_empty());
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
        let world = world(row.provider, service.clone(), analysis.clone(), status);
        let dialect = Dialect::of(&world).unwrap();
        let world = routed(reconciled(world, &Weights::PRIMARY), &weights);
        prop_assert_eq!(read(dialect, &world), Ok(weights));
        prop_assert_eq!(set(dialect, &world, &weights).unwrap(), vec![]);
        prop_assert_eq!(reconcile(dialect, &world, &selector(), &weights).unwrap(), vec![]);

        // Somebody changes what is ours, adds what is not, and takes a rule away.
        for drift in [field, "/spec/rules", "/spec/http", "/spec/tcp", "/spec/routes", "/spec/backends"] {
            let mut world = world.clone();
            let reference = world.reference(kind, name);
            let live = world.objects.get_mut(&reference).unwrap();
            live["spec"][foreign.as_str()] = json!(1);
            live["metadata"]["resourceVersion"] = json!("7");
            match live.pointer_mut(drift) {
                Some(Value::Array(rules)) if drift != field => rules[0]["drifted"] = json!([1]),
                Some(value) => *value = json!(["drifted"]),
                None if drift == field => live["spec"]["hostnames"] = json!(["drifted"]),
                None => continue,
            }
            let world = reconciled(world, &weights);
            prop_assert_eq!(read(dialect, &world), Ok(weights));
            let live = world.object(kind, name).unwrap();
            prop_assert_eq!(live["spec"].get(foreign.as_str()) == Some(&json!(1)), is_shared);
            prop_assert_eq!(&live["metadata"]["resourceVersion"], &json!("7"));
            prop_assert!(!live.to_string().contains("drifted") || kind == Kind::VirtualService, "{}", live);
            prop_assert_eq!(reconcile(dialect, &world, &selector(), &weights).unwrap(), vec![]);
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
            let mut world = world(row.provider, service.clone(), analysis, json!({"sessionAffinityCookie": "c"}));
            let dialect = Dialect::of(&world).unwrap();
            let _ = reconcile(dialect, &world, &selector(), &Weights::canary(30));
            if let Some(Rules { kind, name, .. }) = row.rules {
                let name = world.reference(kind, name);
                let spec = json!({"http": [route], "rules": [route], "parentRefs": route, "routes": [route], "backends": [route]});
                world.objects.insert(name, json!({"metadata": {"annotations": route}, "spec": spec, "status": {"parents": [route]}}));
                let _ = reconcile(dialect, &world, &selector(), &Weights::canary(30));
                let _ = (read(dialect, &world), accepted(dialect, &world), restore(dialect, &world));
                let _ = set(dialect, &world, &Weights::canary(30));
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
        let mut world = world(row.provider, service, canary_analysis(), json!({}));
        let owner = crate::workload::metadata::owner_reference(&world.canary);
        let apex = world.reference(Kind::Service, "podinfo");
        let live = json!({"metadata": {"ownerReferences": [owner], "labels": {"w": "2", "x": "3"},
            "annotations": {"u": "theirs", "v": "4", "y": "5"}}});
        world.objects.insert(apex, live);
        let world = reconciled(world, &Weights::PRIMARY);
        let route = world.object(kind, "podinfo").unwrap();
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
