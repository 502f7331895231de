//! The Services of a release, and how traffic reaches them: `spec.service` of a Canary.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{lenient, route_refs::RouteRef, schema};

/// The Services of the release, and how the mesh or gateway routes traffic to them. Fields that a router copies unchanged have no types
/// here.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CanaryService {
    /// The name of the Service that clients call. The other two Services are named `NAME-primary` and `NAME-canary`. Default: the name of
    /// the target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The port number of the Services.
    #[serde(deserialize_with = "lenient::count")]
    #[schemars(schema_with = "schema::number")]
    pub port: i64,
    /// The name of the Services' port. Default: http.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port_name: Option<String>,
    /// The port of the pods, as a number or a name. Default: `port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::int_or_string")]
    pub target_port: Option<IntOrString>,
    /// The application protocol of the Services' port. On Istio, `tcp` routes connections instead of requests. Default: not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_protocol: Option<String>,
    /// The endpoints that the Services prefer. Default: not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["PreferClose", "PreferSameZone", "PreferSameNode"]))]
    pub traffic_distribution: Option<String>,
    /// Whether the Services have the other ports of the containers too. Default: false.
    #[serde(
        default,
        deserialize_with = "lenient::or_default",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub port_discovery: bool,
    /// Whether the Services are headless (without a cluster IP). Default: false.
    #[serde(
        default,
        deserialize_with = "lenient::or_default",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub headless: bool,
    /// The time limit of a request, for example `15s`. Default: the default of the mesh or gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
    /// The time limit of one attempt at a backend (Gateway API only). Default: the default of the gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend_timeout: Option<String>,
    /// The name of the mesh (App Mesh v1beta1 only, which needs it).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mesh_name: Option<String>,
    /// The VirtualServices that the workload calls, by name; in v1beta2 also by ARN (App Mesh only).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backends: Option<Vec<String>>,
    /// The host names of the route. On Istio, the name of the Service is always one of them; on App Mesh, they are those at its gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hosts: Option<Vec<String>>,
    /// The Istio gateways that the route belongs to. Default: `mesh`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateways: Option<Vec<String>>,
    /// The Gateway API gateways (`parentRefs`) that the route belongs to (Gateway API only).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::elsewhere")]
    pub gateway_refs: Option<Vec<Value>>,
    /// The routes of the user in which the operator sets the weights of both versions, or of which it makes copies with the weights. It makes
    /// no other route. The fields of `service` that describe a route have no effect then. (Not in Flagger. With its CRDs, use the annotation
    /// `flagger-rs.github.io/route-refs`, which has the same list as JSON or YAML.) Default: the operator makes the route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route_refs: Option<Vec<RouteRef>>,
    /// Makes the route a GRPCRoute in place of an HTTPRoute (provider `gatewayapi:v1` only; not in Flagger, whose CRDs prune the field). A
    /// GRPCRoute cannot have `timeout`, `backendTimeout`, `rewrite` and `corsPolicy`, and of `match` only headers. Default: an HTTPRoute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc: Option<Grpc>,
    /// Whether the VirtualService is a delegate of another one; then `hosts` and `gateways` must be empty (Istio only). Default: false.
    #[serde(
        default,
        deserialize_with = "lenient::or_default",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub delegation: bool,
    /// The requests that the route applies to. A request must match one of these sets of conditions. Default: all requests.
    #[serde(default, rename = "match", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::elsewhere")]
    pub match_: Option<Vec<Value>>,
    /// How the route changes the path or the host of a request. Default: not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::elsewhere")]
    pub rewrite: Option<Value>,
    /// How often, and after which failures, a request is sent again. Default: the default of the mesh or gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::elsewhere")]
    pub retries: Option<Value>,
    /// The headers that the route adds, sets or removes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::elsewhere")]
    pub headers: Option<Value>,
    /// The backends that get copies of the requests (Gateway API only).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::elsewhere")]
    pub mirror: Option<Vec<Value>>,
    /// The rules for cross-origin requests (CORS).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::elsewhere")]
    pub cors_policy: Option<Value>,
    /// How the mesh connects to the pods; part of the DestinationRules (Istio only).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::elsewhere")]
    pub traffic_policy: Option<Value>,
    /// Labels and annotations of the Service that clients call and of the routes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apex: Option<CustomMetadata>,
    /// Labels and annotations of the primary's Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub primary: Option<CustomMetadata>,
    /// Labels and annotations of the canary's Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<CustomMetadata>,
    /// The labels and annotations that other tools manage on the Services and routes. The operator leaves them unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unmanaged_metadata: Option<UnmanagedMetadata>,
}

/// The requests of a GRPCRoute.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub struct Grpc {
    /// The methods that the route applies to. Default: all methods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub methods: Option<Vec<GrpcMethod>>,
}

/// One method, or all methods of a gRPC service. At least one of both fields is needed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub struct GrpcMethod {
    /// The full name of the gRPC service, for example `shop.Cart`. Default: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The name of the method. Default: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
}

/// The labels and annotations of an object that the operator creates.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
pub struct CustomMetadata {
    /// The labels, by key. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
    /// The annotations, by key. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
}

/// The keys of labels and annotations that other tools manage.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
pub struct UnmanagedMetadata {
    /// The keys of the labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<Vec<String>>,
    /// The keys of the annotations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<Vec<String>>,
}
