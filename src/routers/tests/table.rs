//! The table of routers for tests: a row per provider name that has a router. The unit tests, and the test targets in `tests`, walk it.
//!
//! A new router adds a row to [`ROUTERS`]. All fields are required: the compiler asks for each fact that a test needs.
//!
//! The rows are about a Canary `podinfo` in the namespace `test`, whose Service has the port 80. An object of the user that the Canary
//! refers to has the name `web`.

use serde_json::{Value, json};

use super::{
    Kind,
    routers::{self, Router},
};

/// A router, with the facts that the tests need.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub provider: &'static str,
    pub router: &'static dyn Router,
    /// The object that holds the rules; `None` if the router has no routes.
    pub rules: Option<Rules>,
    /// The object of the user that the Canary refers to: the router writes its own beside it.
    pub source: Option<Source>,
    /// All objects that the router writes, and those that it reads for its own rules.
    pub objects: &'static [(Kind, &'static str)],
    /// Whether the router can copy requests to the canary.
    pub mirrors: bool,
    /// Whether it can split traffic by tenths of a percent.
    pub splits_tenths: bool,
    /// Whether it can keep clients on the version that answered them.
    pub keeps_sessions: bool,
    /// The conditions that its rules can express, by the names in `conditions.rs`; empty if it cannot send only matching requests to the
    /// canary.
    pub conditions: &'static [&'static str],
    /// Where the rules of this spec lead requests of the mesh to a port of the Service; `None` if they have no rule for them.
    pub leads: fn(&Value, i64) -> Option<i64>,
    /// Fields of `spec.service`, and where requests to the ports 80, 53 and 9999 are led with `portDiscovery` then.
    pub ports: fn() -> Vec<(Value, &'static str)>,
    /// The objects that a user may have under the names that the router needs, each with its spec. The first one holds the rules.
    pub users: fn() -> Vec<(Kind, &'static str, Value)>,
    /// Values of `spec.service` with fields that only this router uses.
    pub services: fn() -> Vec<Value>,
    /// The queries of the built-in metrics: the success rate and the duration.
    pub queries: [&'static str; 2],
    /// The parts of the selectors of series that name the canary, and the primary (here `podinfo-primary`); empty if they are not compared.
    pub compared: [&'static str; 2],
}

/// The object that holds a router's rules.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    pub kind: Kind,
    pub name: &'static str,
    /// A field that is ours, besides the rules.
    pub field: &'static str,
    /// The fields that hold the rules; a route has one of them.
    pub lists: &'static [&'static str],
    /// The field of a rule that holds its destinations; empty if the list of rules is the list of destinations.
    pub destinations: &'static str,
    /// The field of a destination that names the Service.
    pub service: &'static str,
    /// Whether the object has the labels and annotations of the apex Service.
    pub is_apex: bool,
    /// Whether fields of the spec that are not ours stay.
    pub is_shared: bool,
}

/// An object of the user that the Canary refers to.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    /// The field of the Canary's spec.
    pub field: &'static str,
    pub kind: Kind,
    pub spec: fn() -> Value,
}

impl Row {
    /// Whether the router can send only matching requests to the canary.
    pub const fn tests(&self) -> bool {
        !self.conditions.is_empty()
    }

    /// Whether the rules can express this condition.
    pub fn can(&self, condition: &str) -> bool {
        self.conditions.contains(&condition)
    }

    /// The fields of a Canary's spec that name the source; no fields if there is none.
    pub fn reference(&self) -> Value {
        self.source.map_or(json!({}), |source| {
            let (version, kind) = (source.kind.api_version(), source.kind.name());
            json!({source.field: {"apiVersion": version, "kind": kind, "name": SOURCE}})
        })
    }

    /// The objects that the router writes.
    pub fn written(&self) -> impl Iterator<Item = (Kind, &'static str)> + use<> {
        let source = self.source.map(|source| (source.kind, SOURCE));
        let all = self.objects.iter().copied();
        all.filter(move |object| Some(*object) != source)
    }
}

/// The name of a [`Source`].
pub const SOURCE: &str = "web";

/// The sources of all rows, each once.
pub fn sources() -> Vec<Source> {
    let mut all: Vec<_> = ROUTERS.iter().filter_map(|row| row.source).collect();
    all.sort_by_key(|source| source.kind);
    all.dedup_by_key(|source| source.kind);
    all
}

/// The fields of a Canary's spec that name the sources of all rows.
pub fn references() -> Value {
    let rows = ROUTERS.iter().map(Row::reference);
    let fields = rows.flat_map(|fields| fields.as_object().cloned().unwrap());
    Value::Object(fields.collect())
}

/// All routers, by the providers that use them.
pub const ROUTERS: &[Row] = &[
    Row {
        provider: "istio",
        router: &routers::istio::Istio,
        rules: Some(Rules {
            lists: &["/spec/http", "/spec/tcp"],
            destinations: "/route",
            service: "/destination/host",
            ..rules(Kind::VirtualService, "/spec/hosts")
        }),
        source: None,
        objects: &[
            (Kind::VirtualService, "podinfo"),
            (Kind::DestinationRule, "podinfo-canary"),
            (Kind::DestinationRule, "podinfo-primary"),
        ],
        mirrors: true,
        splits_tenths: true,
        keeps_sessions: true,
        conditions: ALL_CONDITIONS,
        leads: by_istio,
        ports: || {
            let both = json!(["infra/public", "mesh"]);
            vec![
                (json!({}), EACH_PORT),
                (json!({"gateways": ["mesh"]}), EACH_PORT),
                (json!({"gateways": ["infra/public"]}), ""),
                (json!({"gateways": both}), EACH_PORT),
                (json!({"delegation": true}), EACH_PORT),
                (json!({"appProtocol": "tcp", "gateways": both}), EACH_PORT),
                (
                    json!({"gateways": both, "match": [{"uri": {"prefix": "/api"}}]}),
                    EACH_PORT,
                ),
                (
                    json!({"gateways": both, "match": [{"port": 9999}]}),
                    "9999>9999",
                ),
                (
                    json!({"gateways": both, "match": [{"port": 80}, {"gateways": ["infra/public"]}]}),
                    "80>80",
                ),
            ]
        },
        users: || {
            let http = json!([{"route": [{"destination": {"host": "podinfo"}}]}]);
            let route = json!({"hosts": ["shop.example.com"], "exportTo": ["."], "http": http});
            let rule = json!({"host": "shop", "subsets": [{"name": "v1"}]});
            vec![
                (Kind::VirtualService, "podinfo", route),
                (Kind::DestinationRule, "podinfo-canary", rule),
            ]
        },
        services: || {
            vec![
                json!({"port": 80, "portDiscovery": true, "gateways": ["istio/public", "mesh"], "hosts": ["*"]}),
                json!({"port": 80, "delegation": true, "timeout": "15s", "rewrite": {"uri": "/", "type": "x"}}),
                json!({"port": 80, "appProtocol": "tcp"}),
            ]
        },
        queries: ISTIO,
        compared: OF_ISTIO,
    },
    gateway_api(
        "gatewayapi:v1",
        &routers::gateway_api::GatewayApi::V1,
        Kind::HttpRoute,
        &[(Kind::HttpRoute, "podinfo")],
        || vec![(Kind::HttpRoute, "podinfo", users_http_route())],
    ),
    gateway_api(
        "gatewayapi:v1beta1",
        &routers::gateway_api::GatewayApi::V1Beta1,
        Kind::HttpRouteV1Beta1,
        &[(Kind::HttpRouteV1Beta1, "podinfo")],
        || vec![(Kind::HttpRouteV1Beta1, "podinfo", users_http_route())],
    ),
    Row {
        provider: "contour",
        router: &routers::contour::Contour,
        rules: Some(Rules {
            lists: &["/spec/routes"],
            destinations: "/services",
            service: "/name",
            ..rules(Kind::HttpProxy, "/spec/routes")
        }),
        source: None,
        objects: &[(Kind::HttpProxy, "podinfo")],
        mirrors: true,
        splits_tenths: true,
        keeps_sessions: false,
        conditions: &[
            "uri prefix",
            "headers exact",
            "headers prefix",
            "headers suffix",
        ],
        // Requests to the apex Service do not pass the proxies of this gateway.
        leads: nowhere,
        ports: no_ports,
        users: || {
            let routes = json!([{"conditions": [{"prefix": "/shop"}], "services": [{"name": "podinfo", "port": 80}]}]);
            let proxy = json!({"virtualhost": {"fqdn": "shop.example.com"}, "routes": routes});
            vec![(Kind::HttpProxy, "podinfo", proxy)]
        },
        services: || {
            vec![
                json!({"port": 80, "retries": {"attempts": 3, "retryOn": "5xx,reset", "perTryTimeout": "1s"}}),
                json!({"port": 80, "retries": {}, "match": [{"uri": {"prefix": "/api"}}]}),
            ]
        },
        queries: [
            r#" sum( rate( envoy_cluster_upstream_rq{ envoy_cluster_name=~"test_web-canary_[0-9a-zA-Z-]+", envoy_response_code!~"5.*" }[1m] ) ) / sum( rate( envoy_cluster_upstream_rq{ envoy_cluster_name=~"test_web-canary_[0-9a-zA-Z-]+", }[1m] ) ) * 100"#,
            r#" histogram_quantile( 0.99, sum( rate( envoy_cluster_upstream_rq_time_bucket{ envoy_cluster_name=~"test_web-canary_[0-9a-zA-Z-]+", }[1m] ) ) by (le) )"#,
        ],
        compared: ["test_web-canary_[", "test_web-primary_["],
    },
    Row {
        conditions: &["headers exact", "headers regex"],
        queries: [
            r#" sum( rate( nginx_ingress_controller_requests{ namespace="test", ingress="in", canary!="", status!~"5.*" }[1m] ) ) / sum( rate( nginx_ingress_controller_requests{ namespace="test", ingress="in", canary!="" }[1m] ) ) * 100"#,
            r#" sum( rate( nginx_ingress_controller_response_duration_seconds_sum{ namespace="test", ingress="in", canary!="" }[1m] ) ) / sum( rate( nginx_ingress_controller_response_duration_seconds_count{ namespace="test", ingress="in", canary!="" }[1m] ) ) * 1000"#,
        ],
        compared: [r#"canary!="""#, r#"canary="""#],
        ..ingress("nginx", &routers::nginx::Nginx)
    },
    Row {
        provider: "gloo",
        router: &routers::gloo::Gloo,
        rules: Some(Rules {
            lists: &["/spec/routes"],
            destinations: "/routeAction/multi/destinations",
            // A destination names an Upstream instead of a Service.
            service: "/destination/upstream/name",
            ..rules(Kind::GlooRouteTable, "/spec/routes")
        }),
        source: None,
        objects: &[
            (Kind::GlooRouteTable, "podinfo"),
            (Kind::GlooUpstream, "test-podinfo-canaryupstream-80"),
            (Kind::GlooUpstream, "test-podinfo-primaryupstream-80"),
        ],
        mirrors: false,
        splits_tenths: false,
        keeps_sessions: false,
        conditions: &["method exact", "headers exact", "headers regex"],
        // Requests to the apex Service do not pass the proxies of this gateway.
        leads: nowhere,
        ports: no_ports,
        users: || {
            let table = json!({"weight": 3, "routes": [{"matchers": [{"prefix": "/shop"}]}]});
            let upstream = json!({"static": {"hosts": [{"addr": "shop"}]}});
            vec![
                (Kind::GlooRouteTable, "podinfo", table),
                (
                    Kind::GlooUpstream,
                    "test-podinfo-primaryupstream-80",
                    upstream,
                ),
            ]
        },
        services: Vec::new,
        queries: [
            r#" sum( rate( envoy_cluster_upstream_rq{ envoy_cluster_name=~"test-web-canaryupstream-[0-9a-zA-Z-]+_[0-9a-zA-Z-]+", envoy_response_code!~"5.*" }[1m] ) ) / sum( rate( envoy_cluster_upstream_rq{ envoy_cluster_name=~"test-web-canaryupstream-[0-9a-zA-Z-]+_[0-9a-zA-Z-]+", }[1m] ) ) * 100"#,
            r#" histogram_quantile( 0.99, sum( rate( envoy_cluster_upstream_rq_time_bucket{ envoy_cluster_name=~"test-web-canaryupstream-[0-9a-zA-Z-]+_[0-9a-zA-Z-]+", }[1m] ) ) by (le) )"#,
        ],
        compared: ["web-canaryupstream-", "web-primaryupstream-"],
    },
    Row {
        queries: [
            r#" sum(rate(skipper_response_duration_seconds_bucket{route=~"kube(ew)?_test__in_canary__.*__web_canary(_[0-9]+)?",code!~"5..",le="+Inf"}[1m])) / sum(rate(skipper_response_duration_seconds_bucket{route=~"kube(ew)?_test__in_canary__.*__web_canary(_[0-9]+)?",le="+Inf"}[1m])) * 100"#,
            r#" sum(rate(skipper_serve_route_duration_seconds_sum{route=~"kube(ew)?_test__in_canary__.*__web_canary(_[0-9]+)?"}[1m])) / sum(rate(skipper_serve_route_duration_seconds_count{route=~"kube(ew)?_test__in_canary__.*__web_canary(_[0-9]+)?"}[1m])) * 1000"#,
        ],
        splits_tenths: false,
        ..ingress("skipper", &routers::skipper::Skipper)
    },
    Row {
        provider: "appmesh:v1beta2",
        router: &routers::appmesh::AppMesh::V1Beta2,
        rules: Some(Rules {
            lists: &["/spec/routes"],
            destinations: "/httpRoute/action/weightedTargets",
            service: "/virtualNodeRef/name",
            is_apex: false,
            ..rules(Kind::AppMeshRouter, "/spec/listeners")
        }),
        source: None,
        objects: &[
            (Kind::AppMeshNode, "podinfo-canary"),
            (Kind::AppMeshNode, "podinfo-primary"),
            (Kind::AppMeshRouter, "podinfo"),
            (Kind::AppMeshRouter, "podinfo-canary"),
            (Kind::AppMeshService, "podinfo"),
            (Kind::AppMeshService, "podinfo-canary"),
        ],
        mirrors: false,
        splits_tenths: false,
        keeps_sessions: false,
        conditions: APP_MESH_CONDITIONS,
        leads: by_listener,
        ports: || vec![(json!({}), "80>80")],
        users: || {
            let http = json!({"match": {"prefix": "/"}, "action": {"weightedTargets": [{"virtualNodeRef": {"name": "shop"}, "weight": 1}]}});
            let router = json!({"listeners": listeners(), "routes": [{"name": "main", "httpRoute": http}], "meshRef": {"name": "m"}});
            let provider = json!({"virtualNode": {"virtualNodeRef": {"name": "shop"}}});
            let service = json!({"awsName": "podinfo.test", "provider": provider});
            vec![
                (Kind::AppMeshRouter, "podinfo", router),
                (Kind::AppMeshService, "podinfo", service),
            ]
        },
        services: || {
            vec![
                json!({"port": 80, "targetPort": 8080, "timeout": "15s", "backends": ["b", "arn:aws:appmesh:x"], "hosts": ["a.example.com"]}),
                json!({"port": 80, "retries": {"attempts": 3, "retryOn": "gateway-error", "perTryTimeout": "1s"}}),
            ]
        },
        queries: APP_MESH,
        compared: OF_PODS,
    },
    Row {
        provider: "appmesh",
        router: &routers::appmesh::AppMesh::V1Beta1,
        rules: Some(Rules {
            name: "podinfo.test",
            lists: &["/spec/routes"],
            destinations: "/http/action/weightedTargets",
            service: "/virtualNodeName",
            is_apex: false,
            ..rules(Kind::AppMeshServiceV1Beta1, "/spec/virtualRouter")
        }),
        source: None,
        objects: &[
            (Kind::AppMeshNodeV1Beta1, "podinfo"),
            (Kind::AppMeshNodeV1Beta1, "podinfo-canary"),
            (Kind::AppMeshNodeV1Beta1, "podinfo-primary"),
            (Kind::AppMeshServiceV1Beta1, "podinfo-canary.test"),
            (Kind::AppMeshServiceV1Beta1, "podinfo.test"),
        ],
        mirrors: false,
        splits_tenths: false,
        keeps_sessions: false,
        conditions: APP_MESH_CONDITIONS,
        leads: by_listener,
        ports: || vec![(json!({}), "80>80")],
        users: || {
            let http = json!({"match": {"prefix": "/"}, "action": {"weightedTargets": [{"virtualNodeName": "shop", "weight": 1}]}});
            let service = json!({"meshName": "theirs", "routes": [{"name": "main", "http": http}]});
            let node = json!({"meshName": "theirs", "listeners": listeners(), "serviceDiscovery": {"dns": {"hostName": "podinfo.test"}}});
            vec![
                (Kind::AppMeshServiceV1Beta1, "podinfo.test", service),
                (Kind::AppMeshNodeV1Beta1, "podinfo", node),
            ]
        },
        services: Vec::new,
        queries: APP_MESH,
        compared: OF_PODS,
    },
    Row {
        provider: "linkerd",
        queries: [
            r#" sum( rate( response_total{ namespace="test", deployment=~"podinfo", classification!="failure", direction="inbound" }[1m] ) ) / sum( rate( response_total{ namespace="test", deployment=~"podinfo", direction="inbound" }[1m] ) ) * 100"#,
            r#" histogram_quantile( 0.99, sum( rate( response_latency_ms_bucket{ namespace="test", deployment=~"podinfo", direction="inbound" }[1m] ) ) by (le) )"#,
        ],
        compared: [
            r#"deployment=~"podinfo""#,
            r#"deployment=~"podinfo-primary""#,
        ],
        ..SMI_V1ALPHA1
    },
    Row {
        provider: "osm",
        queries: [
            r#" sum( rate( osm_request_total{ destination_namespace="test", destination_kind="Deployment", destination_name="podinfo", response_code!~"5.*" }[1m] ) ) / sum( rate( osm_request_total{ destination_namespace="test", destination_kind="Deployment", destination_name="podinfo" }[1m] ) ) * 100"#,
            r#" histogram_quantile( 0.99, sum( rate( osm_request_duration_ms_bucket{ destination_namespace="test", destination_kind="Deployment", destination_name="podinfo" }[1m] ) ) by (le) )"#,
        ],
        compared: [
            r#"destination_name="podinfo""#,
            r#"destination_name="podinfo-primary""#,
        ],
        ..SMI_V1ALPHA2
    },
    SMI_V1ALPHA1,
    SMI_V1ALPHA2,
    smi(
        "smi:v1alpha3",
        &routers::smi::Smi::V1Alpha3,
        Kind::TrafficSplitV1Alpha3,
        &[(Kind::TrafficSplitV1Alpha3, "podinfo")],
        || vec![(Kind::TrafficSplitV1Alpha3, "podinfo", users_split())],
    ),
    Row {
        provider: "traefik",
        router: &routers::traefik::Traefik,
        rules: Some(Rules {
            lists: &["/spec/weighted/services"],
            service: "/name",
            ..rules(Kind::TraefikService, "/spec/weighted/services")
        }),
        source: None,
        objects: &[(Kind::TraefikService, "podinfo")],
        mirrors: false,
        splits_tenths: true,
        keeps_sessions: false,
        conditions: &[],
        // Requests to the apex Service do not pass the proxies of this gateway.
        leads: nowhere,
        ports: no_ports,
        users: || {
            let services = json!([{"name": "podinfo", "port": 80, "scheme": "h2c"}, {"name": "old", "port": 80}]);
            let spec = json!({"weighted": {"services": services, "sticky": {"cookie": {}}}});
            vec![(Kind::TraefikService, "podinfo", spec)]
        },
        services: Vec::new,
        queries: [
            r#" sum( rate( traefik_service_request_duration_seconds_bucket{ service=~"test-web-canary-[0-9a-zA-Z-]+@kubernetescrd", code!~"5..", le="+Inf" }[1m] ) ) / sum( rate( traefik_service_request_duration_seconds_bucket{ service=~"test-web-canary-[0-9a-zA-Z-]+@kubernetescrd", le="+Inf" }[1m] ) ) * 100"#,
            r#" histogram_quantile( 0.99, sum( rate( traefik_service_request_duration_seconds_bucket{ service=~"test-web-canary-[0-9a-zA-Z-]+@kubernetescrd" }[1m] ) ) by (le) ) * 1000"#,
        ],
        compared: ["test-web-canary-[", "test-web-primary-["],
    },
    Row {
        provider: "apisix",
        router: &routers::apisix::Apisix,
        rules: Some(Rules {
            name: "web-podinfo-canary",
            lists: &["/spec/http"],
            destinations: "/backends",
            service: "/serviceName",
            is_apex: false,
            is_shared: false,
            ..rules(Kind::ApisixRoute, "/spec/ingressClassName")
        }),
        source: Some(Source {
            field: "routeRef",
            kind: Kind::ApisixRoute,
            spec: || {
                let backends = json!([{"serviceName": "podinfo", "servicePort": 80}]);
                json!({"http": [{"name": "all", "match": {"paths": ["/*"]}, "backends": backends}]})
            },
        }),
        objects: &[(Kind::ApisixRoute, "web-podinfo-canary")],
        mirrors: false,
        splits_tenths: false,
        keeps_sessions: false,
        conditions: &[],
        // Our ApisixRoute has the ports of the user's ApisixRoute.
        leads: nowhere,
        ports: no_ports,
        users: || {
            let backends = json!([{"serviceName": "shop", "servicePort": 80}]);
            let spec = json!({"http": [{"name": "shop", "backends": backends}]});
            vec![(Kind::ApisixRoute, "web-podinfo-canary", spec)]
        },
        services: Vec::new,
        queries: [
            r#" sum( rate( apisix_http_status{ route=~"test_r-web-canary_.+", code!~"5.." }[1m] ) ) / sum( rate( apisix_http_status{ route=~"test_r-web-canary_.+" }[1m] ) ) * 100"#,
            r#" histogram_quantile( 0.99, sum( rate( apisix_http_latency_bucket{ type=~"request", route=~"test_r-web-canary_.+" }[1m] ) ) by (le) )"#,
        ],
        compared: ["", ""],
    },
    Row {
        provider: "kuma",
        router: &routers::kuma::Kuma,
        rules: Some(Rules {
            lists: &["/spec/conf/split"],
            service: "/destination/kuma.io~1service",
            ..rules(Kind::TrafficRoute, "/spec/destinations")
        }),
        source: None,
        objects: &[(Kind::TrafficRoute, "podinfo")],
        mirrors: false,
        splits_tenths: false,
        keeps_sessions: false,
        conditions: &[],
        // Each port is a destination of its own.
        leads: |spec, port| {
            let destinations = spec["destinations"].to_string();
            let is_own = destinations.contains(&format!("_svc_{port}\""));
            is_own.then_some(port)
        },
        ports: || vec![(json!({}), "80>80")],
        users: || {
            let apex = json!({"kuma.io/service": "podinfo_test_svc_80"});
            let split = json!([{"weight": 100, "destination": apex}]);
            let route = json!({"sources": [{"match": {"kuma.io/service": "shop"}}], "destinations": [{"match": apex}],
                "conf": {"loadBalancer": {"roundRobin": {}}, "split": split}});
            vec![(Kind::TrafficRoute, "podinfo", route)]
        },
        services: Vec::new,
        queries: [
            r#" sum( rate( envoy_cluster_upstream_rq{ service=~"web-canary_test_svc_[0-9a-zA-Z-]+", envoy_response_code!~"5.*" }[1m] ) ) / sum( rate( envoy_cluster_upstream_rq{ service=~"web-canary_test_svc_[0-9a-zA-Z-]+", }[1m] ) ) * 100"#,
            r#" histogram_quantile( 0.99, sum( rate( envoy_cluster_upstream_rq_time_bucket{ service=~"web-canary_test_svc_[0-9a-zA-Z-]+", }[1m] ) ) by (le) )"#,
        ],
        compared: ["web-canary_test", "web-primary_test"],
    },
    Row {
        provider: "knative",
        router: &routers::knative::Knative,
        rules: Some(Rules {
            lists: &["/spec/traffic"],
            // A destination names a Revision instead of a Service.
            service: "/revisionName",
            is_apex: false,
            ..rules(Kind::KnativeService, "/spec/traffic")
        }),
        source: None,
        objects: &[(Kind::KnativeService, "podinfo")],
        mirrors: false,
        splits_tenths: false,
        keeps_sessions: false,
        conditions: &[],
        // The target has no Services of the operator.
        leads: nowhere,
        ports: no_ports,
        // The routes are those of the target, which is never adopted.
        users: Vec::new,
        services: Vec::new,
        queries: [
            r#" sum( rate( envoy_cluster_upstream_rq{ envoy_cluster_name=~"test/r", envoy_response_code!~"5.*" }[1m] ) ) / sum( rate( envoy_cluster_upstream_rq{ envoy_cluster_name=~"test/r", }[1m] ) ) * 100"#,
            r#" histogram_quantile( 0.99, sum( rate( envoy_cluster_upstream_rq_time_bucket{ envoy_cluster_name=~"test/r", }[1m] ) ) by (le) )"#,
        ],
        compared: ["test/r", "test/podinfo-primary"],
    },
    Row {
        provider: "kubernetes",
        router: &routers::kubernetes::Kubernetes,
        rules: None,
        source: None,
        objects: &[],
        mirrors: false,
        splits_tenths: false,
        keeps_sessions: false,
        conditions: &[],
        leads: nowhere,
        ports: no_ports,
        users: Vec::new,
        services: Vec::new,
        queries: HTTP,
        compared: OF_PODS,
    },
];

/// A route with the apex' name and metadata.
const fn rules(kind: Kind, field: &'static str) -> Rules {
    Rules {
        kind,
        name: "podinfo",
        field,
        lists: &[],
        destinations: "",
        service: "",
        is_apex: true,
        is_shared: true,
    }
}

/// One of the versions of Gateway API.
const fn gateway_api(
    provider: &'static str,
    router: &'static dyn Router,
    kind: Kind,
    objects: &'static [(Kind, &'static str)],
    users: fn() -> Vec<(Kind, &'static str, Value)>,
) -> Row {
    Row {
        provider,
        router,
        rules: Some(Rules {
            lists: &["/spec/rules"],
            destinations: "/backendRefs",
            service: "/name",
            ..rules(kind, "/spec/hostnames")
        }),
        source: None,
        objects,
        mirrors: true,
        splits_tenths: true,
        keeps_sessions: true,
        conditions: &[
            "uri prefix",
            "uri exact",
            "uri regex",
            "method exact",
            "headers exact",
            "headers regex",
            "queryParams exact",
            "queryParams regex",
        ],
        leads: by_gateway_api,
        ports: || {
            let parent = json!([{"kind": "Service", "group": "", "name": "podinfo"}]);
            let port = json!([{"kind": "Service", "group": "", "name": "podinfo", "port": 80}]);
            vec![
                (json!({}), ""),
                (json!({"gatewayRefs": parent}), "80>80"),
                (json!({"gatewayRefs": port}), "80>80"),
            ]
        },
        users,
        services: Vec::new,
        queries: HTTP,
        compared: OF_PODS,
    }
}

fn users_http_route() -> Value {
    json!({"parentRefs": [{"name": "gw"}], "useDefaultGateways": "All",
        "rules": [{"backendRefs": [{"name": "podinfo", "port": 80, "weight": 1}]}]})
}

/// A controller that reads annotations of a second Ingress.
const fn ingress(provider: &'static str, router: &'static dyn Router) -> Row {
    Row {
        provider,
        router,
        rules: Some(Rules {
            name: "web-canary",
            lists: &["/spec/rules"],
            is_apex: false,
            is_shared: false,
            ..rules(Kind::Ingress, "/spec/ingressClassName")
        }),
        source: Some(Source {
            field: "ingressRef",
            kind: Kind::Ingress,
            spec: || {
                let backend = json!({"service": {"name": "podinfo", "port": {"number": 80}}});
                let paths = json!([{"path": "/", "pathType": "Prefix", "backend": backend}]);
                json!({"ingressClassName": "nginx", "rules": [{"http": {"paths": paths}}]})
            },
        }),
        objects: &[(Kind::Ingress, "web"), (Kind::Ingress, "web-canary")],
        mirrors: false,
        splits_tenths: true,
        keeps_sessions: false,
        conditions: &[],
        // Our Ingress has the ports of the user's Ingress.
        leads: nowhere,
        ports: no_ports,
        users: || {
            let spec = json!({"defaultBackend": {"service": {"name": "shop"}}});
            vec![(Kind::Ingress, "web-canary", spec)]
        },
        services: Vec::new,
        queries: ["", ""],
        compared: ["", ""],
    }
}

const SMI_V1ALPHA1: Row = smi(
    "smi:v1alpha1",
    &routers::smi::Smi::V1Alpha1,
    Kind::TrafficSplitV1Alpha1,
    &[(Kind::TrafficSplitV1Alpha1, "podinfo")],
    || vec![(Kind::TrafficSplitV1Alpha1, "podinfo", users_split())],
);

const SMI_V1ALPHA2: Row = smi(
    "smi:v1alpha2",
    &routers::smi::Smi::V1Alpha2,
    Kind::TrafficSplitV1Alpha2,
    &[(Kind::TrafficSplitV1Alpha2, "podinfo")],
    || vec![(Kind::TrafficSplitV1Alpha2, "podinfo", users_split())],
);

/// One of the versions of SMI. The meshes that read it have built-in metrics of their own.
const fn smi(
    provider: &'static str,
    router: &'static dyn Router,
    kind: Kind,
    objects: &'static [(Kind, &'static str)],
    users: fn() -> Vec<(Kind, &'static str, Value)>,
) -> Row {
    Row {
        provider,
        router,
        rules: Some(Rules {
            lists: &["/spec/backends"],
            service: "/service",
            is_apex: false,
            ..rules(kind, "/spec/service")
        }),
        source: None,
        objects,
        mirrors: false,
        splits_tenths: false,
        keeps_sessions: false,
        conditions: &[],
        // The split is of the Service with all its ports.
        leads: |spec, port| {
            assert!(!spec["backends"].to_string().contains("port"));
            Some(port)
        },
        ports: || vec![(json!({}), EACH_PORT)],
        users,
        services: Vec::new,
        queries: ISTIO,
        compared: OF_ISTIO,
    }
}

fn users_split() -> Value {
    json!({"service": "podinfo.test", "backends": [{"service": "podinfo", "weight": "1"}], "matches": [{"kind": "HTTPRouteGroup"}]})
}

/// The names of both versions in the series of Istio, and in those of pods.
const OF_ISTIO: [&str; 2] = [
    r#"destination_workload=~"podinfo""#,
    r#"destination_workload=~"podinfo-primary""#,
];
const OF_PODS: [&str; 2] = [
    r#"kubernetes_pod_name=~"podinfo-["#,
    r#"kubernetes_pod_name=~"podinfo-primary-["#,
];

/// The names of all conditions.
pub const ALL_CONDITIONS: &[&str] = &[
    "uri prefix",
    "uri exact",
    "uri regex",
    "method exact",
    "method prefix",
    "scheme exact",
    "authority exact",
    "headers exact",
    "headers regex",
    "headers prefix",
    "headers suffix",
    "queryParams exact",
    "queryParams regex",
    "queryParams prefix",
    "withoutHeaders exact",
    "port",
    "gateways",
    "sourceLabels",
    "sourceNamespace",
    "ignoreUriCase",
];

const APP_MESH_CONDITIONS: &[&str] = &[
    "uri prefix",
    "headers exact",
    "headers regex",
    "headers prefix",
    "headers suffix",
];

/// Each port of the Service is split.
const EACH_PORT: &str = "80>80 53>53 9999>9999";

/// The rules are not about requests to the apex Service.
const fn nowhere(_: &Value, _: i64) -> Option<i64> {
    None
}

fn no_ports() -> Vec<(Value, &'static str)> {
    vec![(json!({}), "")]
}

fn by_istio(spec: &Value, port: i64) -> Option<i64> {
    let gateways = spec.get("gateways").and_then(Value::as_array);
    if gateways.is_some_and(|gateways| !gateways.contains(&json!("mesh"))) {
        return None;
    }
    let list = spec.get("http").or_else(|| spec.get("tcp")).unwrap();
    let meets = |condition: &Value| {
        condition.get("port").is_none_or(|own| *own == port)
            && condition
                .get("gateways")
                .is_none_or(|own| *own == json!(["mesh"]))
    };
    let mut rules = list.as_array().unwrap().iter();
    let rule = rules.find(|rule| match rule.get("match") {
        Some(conditions) => conditions.as_array().unwrap().iter().any(meets),
        None => true,
    })?;
    let destinations = rule["route"].as_array().unwrap().iter();
    let weights: Vec<_> = destinations.map(|to| &to["weight"]).collect();
    assert_eq!(weights, [&json!(70), &json!(30)]);
    let to = &rule["route"][1]["destination"];
    let own = to.get("port").map(|to| to["number"].as_i64().unwrap());
    Some(own.unwrap_or(port))
}

fn by_gateway_api(spec: &Value, port: i64) -> Option<i64> {
    let parent = &spec["parentRefs"][0];
    let is_service = parent["kind"] == "Service";
    let applies = is_service && parent.get("port").is_none_or(|own| *own == port);
    applies.then(|| spec["rules"][0]["backendRefs"][1]["port"].as_i64().unwrap())
}

fn by_listener(spec: &Value, port: i64) -> Option<i64> {
    let router = spec.get("virtualRouter").unwrap_or(spec);
    let ports = router["listeners"].as_array().unwrap().iter();
    let mut ports = ports.map(|listener| &listener["portMapping"]["port"]);
    ports.any(|own| *own == port).then_some(port)
}

/// The listeners of a VirtualRouter or VirtualNode that a user has.
fn listeners() -> Value {
    json!([{"portMapping": {"port": 8080, "protocol": "http"}}])
}

const ISTIO: [&str; 2] = [
    r#" sum( rate( istio_requests_total{ reporter="destination", destination_workload_namespace="test", destination_workload=~"podinfo", response_code!~"5.*" }[1m] ) ) / sum( rate( istio_requests_total{ reporter="destination", destination_workload_namespace="test", destination_workload=~"podinfo" }[1m] ) ) * 100"#,
    r#" histogram_quantile( 0.99, sum( rate( istio_request_duration_milliseconds_bucket{ reporter="destination", destination_workload_namespace="test", destination_workload=~"podinfo" }[1m] ) ) by (le) )"#,
];

/// The queries about applications that report their own requests.
const HTTP: [&str; 2] = [
    r#" sum( rate( http_request_duration_seconds_count{ kubernetes_namespace="test", kubernetes_pod_name=~"podinfo-[0-9a-zA-Z]+(-[0-9a-zA-Z]+)", status!~"5.*" }[1m] ) ) / sum( rate( http_request_duration_seconds_count{ kubernetes_namespace="test", kubernetes_pod_name=~"podinfo-[0-9a-zA-Z]+(-[0-9a-zA-Z]+)" }[1m] ) ) * 100"#,
    r#" histogram_quantile( 0.99, sum( rate( http_request_duration_seconds_bucket{ kubernetes_namespace="test", kubernetes_pod_name=~"podinfo-[0-9a-zA-Z]+(-[0-9a-zA-Z]+)" }[1m] ) ) by (le) )"#,
];

const APP_MESH: [&str; 2] = [
    r#" sum( rate( envoy_cluster_upstream_rq{ kubernetes_namespace="test", kubernetes_pod_name=~"podinfo-[0-9a-zA-Z]+(-[0-9a-zA-Z]+)", envoy_response_code!~"5.*" }[1m] ) ) / sum( rate( envoy_cluster_upstream_rq{ kubernetes_namespace="test", kubernetes_pod_name=~"podinfo-[0-9a-zA-Z]+(-[0-9a-zA-Z]+)" }[1m] ) ) * 100"#,
    r#" histogram_quantile( 0.99, sum( rate( envoy_cluster_upstream_rq_time_bucket{ kubernetes_namespace="test", kubernetes_pod_name=~"podinfo-[0-9a-zA-Z]+(-[0-9a-zA-Z]+)" }[1m] ) ) by (le) )"#,
];
