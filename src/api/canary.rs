//! The Canary: the workload to release, how to release it, and the state of the release.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use super::{
    analysis::{
        CanaryAlert, CanaryAnalysis, CanaryMetric, CanaryWebhook, CrossNamespaceRef,
        SessionAffinity, ThresholdRange, WebhookType,
    },
    service::{CanaryService, CustomMetadata, Grpc, GrpcMethod},
    status::{CanaryCondition, CanaryPhase, CanaryStatus},
};
use super::{
    duration, lenient,
    percent::Percent,
    route_refs::{self, InvalidRouteRefs, RouteRef},
    schema,
};

/// The annotation of a Canary whose built-in metrics are those of Istio's waypoints, which report requests in the ambient mode. Its value is `true`.
pub const AMBIENT: &str = "flagger-rs.github.io/istio-ambient";
/// The annotation of a Canary whose built-in metrics are those of the proxies that send the requests: Istio's gateways, and the sidecars of
/// callers. Its value is `true`.
pub const GATEWAY: &str = "flagger-rs.github.io/istio-gateway";

/// A proxy of Istio that reports requests to pods without sidecars.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IstioReporter {
    /// The waypoint of a Service in the ambient mode.
    Waypoint,
    /// A gateway, or the sidecar of a caller.
    Gateway,
}

/// CanarySpec describes the workload to release and how to release it.
#[derive(CustomResource, Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[kube(
    group = "flagger.app",
    version = "v1beta1",
    kind = "Canary",
    doc = "Canary releases each new version of a workload progressively.",
    plural = "canaries",
    namespaced,
    status = "CanaryStatus",
    derive = "Default",
    category = "all",
    annotation("helm.sh/resource-policy", "keep"),
    printcolumn = r#"{"name":"Status","type":"string","jsonPath":".status.phase"}"#,
    printcolumn = r#"{"name":"Weight","type":"string","jsonPath":".status.canaryWeight"}"#,
    printcolumn = r#"{"name":"Suspended","type":"boolean","jsonPath":".spec.suspend","priority":1}"#,
    printcolumn = r#"{"name":"FailedChecks","type":"string","jsonPath":".status.failedChecks","priority":1}"#,
    printcolumn = r#"{"name":"Interval","type":"string","jsonPath":".spec.analysis.interval","priority":1}"#,
    printcolumn = r#"{"name":"Mirror","type":"boolean","jsonPath":".spec.analysis.mirror","priority":1}"#,
    printcolumn = r#"{"name":"StepWeight","type":"string","jsonPath":".spec.analysis.stepWeight","priority":1}"#,
    printcolumn = r#"{"name":"StepWeights","type":"string","jsonPath":".spec.analysis.stepWeights","priority":1}"#,
    printcolumn = r#"{"name":"MaxWeight","type":"string","jsonPath":".spec.analysis.maxWeight","priority":1}"#,
    printcolumn = r#"{"name":"LastTransitionTime","type":"string","jsonPath":".status.lastTransitionTime"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct CanarySpec {
    /// The mesh, gateway or ingress controller that routes the traffic. Default: the operator's flag `-mesh-provider`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "provider_schema")]
    pub provider: Option<String>,
    /// The URL of the Prometheus server for the built-in metrics. Default: the operator's flag `-metrics-server`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics_server: Option<String>,
    /// The time, in seconds, that pods have to become ready before the operator rolls the release back. Default: 600.
    #[serde(
        default,
        deserialize_with = "lenient::integer",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(schema_with = "schema::number")]
    pub progress_deadline_seconds: Option<i64>,
    /// The workload to release. It is in the Canary's namespace.
    pub target_ref: TargetRef,
    /// The autoscaler of the target. The primary gets a copy of it. Default: no autoscaler.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaler_ref: Option<AutoscalerRef>,
    /// The Ingress that routes to the Services (NGINX and Skipper only).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "ingress_ref_schema")]
    pub ingress_ref: Option<ObjectRef>,
    /// The ApisixRoute that routes to the Services (APISIX only).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "route_ref_schema")]
    pub route_ref: Option<ObjectRef>,
    /// The Upstream that is the template of the canary's and the primary's Upstreams (Gloo only).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "upstream_ref_schema")]
    pub upstream_ref: Option<ObjectRef>,
    /// The Services of the release, and how the mesh or gateway routes traffic to them.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub service: CanaryService,
    /// How the operator analyses a new version before it promotes it.
    pub analysis: Option<CanaryAnalysis>,
    /// Whether to promote each new version without analysis. Default: false.
    #[serde(
        default,
        deserialize_with = "lenient::or_default",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub skip_analysis: bool,
    /// Whether the deletion of the Canary scales the target up and restores its routes and Services first. Default: false.
    #[serde(
        default,
        deserialize_with = "lenient::or_default",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub revert_on_deletion: bool,
    /// Whether the operator leaves this Canary and its objects unchanged. Default: false.
    #[serde(
        default,
        deserialize_with = "lenient::or_default",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub suspend: bool,
}

/// A reference to a workload.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TargetRef {
    /// The API version of the workload.
    pub api_version: String,
    /// The kind of the workload.
    #[schemars(extend("enum" = ["DaemonSet", "Deployment", "Service"]))]
    pub kind: String,
    /// The name of the workload.
    pub name: String,
}

/// A reference to an object by kind and name.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ObjectRef {
    /// The API version of the object.
    #[serde(default)]
    pub api_version: String,
    /// The kind of the object.
    #[serde(default)]
    pub kind: String,
    /// The name of the object.
    pub name: String,
    /// The namespace of the object. Default: the Canary's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// A reference to an autoscaler, and the differences of the primary's copy.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AutoscalerRef {
    /// The API version of the autoscaler.
    pub api_version: String,
    /// The kind of the autoscaler.
    #[schemars(extend("enum" = ["HorizontalPodAutoscaler", "ScaledObject"]))]
    pub kind: String,
    /// The name of the autoscaler.
    pub name: String,
    /// The queries of the triggers in the primary's copy, by the name of the trigger (`ScaledObject` only). Default: the target's queries,
    /// with the name of the primary in place of the target's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub primary_scaler_queries: Option<BTreeMap<String, String>>,
    /// The limits of replicas in the primary's copy. Default: those of the target's autoscaler.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub primary_scaler_replicas: Option<ScalerReplicas>,
}

/// The limits within which an autoscaler sets replicas.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScalerReplicas {
    /// The minimum number of replicas. 0 lets a `ScaledObject` scale the primary to zero. Default: that of the target's autoscaler.
    #[serde(
        default,
        deserialize_with = "lenient::integer",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(schema_with = "schema::natural")]
    pub min_replicas: Option<i64>,
    /// The maximum number of replicas; at least 1. Default: that of the target's autoscaler.
    #[serde(
        default,
        deserialize_with = "lenient::integer",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(schema_with = "schema::positive")]
    pub max_replicas: Option<i64>,
}

/// How users get to a new version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// The version gets a growing share of the traffic.
    Canary,
    /// The version gets no traffic for some iterations; then all traffic at once.
    BlueGreen,
    /// The version gets the matching requests for some iterations.
    AbTesting,
}

impl Strategy {
    /// The strategy's name, as in the labels of Flagger's metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Canary => "canary",
            Self::BlueGreen => "blue-green",
            Self::AbTesting => "ab-testing",
        }
    }
}

/// The effective values of a Canary's fields: where a field is missing, Flagger's default.
impl Canary {
    /// The name of the Service that clients call.
    pub fn apex_name(&self) -> &str {
        self.spec
            .service
            .name
            .as_deref()
            .filter(|name| !name.is_empty())
            .unwrap_or(&self.spec.target_ref.name)
    }

    /// The name of the primary's Service.
    pub fn primary_name(&self) -> String {
        format!("{}-primary", self.apex_name())
    }

    /// The name of the canary's Service.
    pub fn canary_name(&self) -> String {
        format!("{}-canary", self.apex_name())
    }

    /// The name of the primary workload.
    pub fn primary_workload_name(&self) -> String {
        format!("{}-primary", self.spec.target_ref.name)
    }

    /// The time between two steps: one minute if the field is missing or no duration, and never less than ten seconds.
    pub fn interval(&self) -> Duration {
        let interval = self
            .spec
            .analysis
            .as_ref()
            .and_then(|analysis| duration::parse(&analysis.interval));
        interval
            .unwrap_or(Duration::from_secs(60))
            .max(Duration::from_secs(10))
    }

    /// The number of failed checks at which a version is rolled back; at least 1.
    pub fn threshold(&self) -> i64 {
        self.spec
            .analysis
            .as_ref()
            .map_or(1, |analysis| analysis.threshold.max(1))
    }

    /// The weights of the steps that the spec lists; none if each step adds the same. Numbers that are no share are left out: such a spec is
    /// refused.
    pub fn step_weights(&self) -> Vec<Percent> {
        let Some(analysis) = &self.spec.analysis else {
            return Vec::new();
        };
        if analysis.has_decimals() {
            let decimals = analysis.decimal_step_weights.iter().flatten();
            return decimals.copied().filter_map(Percent::exact).collect();
        }
        let weights = analysis.step_weights.iter().flatten();
        weights.copied().map(Percent::nearest).collect()
    }

    /// The canary's weight after which a version is promoted.
    pub fn max_weight(&self) -> Percent {
        let max = self.spec.analysis.as_ref().and_then(|it| it.max_weight);
        match (self.step_weights().last(), max) {
            (Some(last), _) => *last,
            (None, Some(max)) if max > 0 => Percent::nearest(max),
            (None, _) => Percent::ALL,
        }
    }

    /// The canary's weight at the step after this one. It never exceeds the maximum, so that a step that does not divide the maximum
    /// reaches it as well. Equal steps go on from whole percentages, if a user has replaced `decimalStepWeights` by them during a run.
    pub fn next_weight(&self, weight: Percent) -> Percent {
        let Some(analysis) = &self.spec.analysis else {
            return Percent::ALL;
        };
        let step = analysis.step_weight.filter(|_| !analysis.has_decimals());
        let step = Percent::nearest(step.unwrap_or(0));
        let weights = self.step_weights();
        let next = if step > Percent::ZERO || weights.is_empty() {
            weight.rounded_down().with(step)
        } else {
            let next = weights.into_iter().find(|next| *next > weight);
            next.unwrap_or(Percent::ALL)
        };
        next.min(self.max_weight())
    }

    /// The time, in seconds, that pods have to become ready.
    pub fn progress_deadline_seconds(&self) -> i64 {
        self.spec.progress_deadline_seconds.unwrap_or(600)
    }

    /// Whether versions are promoted without analysis.
    pub fn skip_analysis(&self) -> bool {
        self.spec.skip_analysis || self.spec.analysis.is_none()
    }

    /// How users get to a new version: `iterations` and `match` decide.
    pub fn strategy(&self) -> Strategy {
        match &self.spec.analysis {
            Some(analysis) if analysis.iterations.unwrap_or(0) > 0 => {
                if analysis.match_.is_empty() {
                    Strategy::BlueGreen
                } else {
                    Strategy::AbTesting
                }
            }
            _ => Strategy::Canary,
        }
    }

    /// Whether the operator sets the weights in routes of the user, and makes no route of its own.
    pub fn has_route_refs(&self) -> bool {
        route_refs::are_named(
            self.spec.service.route_refs.as_deref(),
            self.route_refs_annotation(),
        )
    }

    /// The routes of the user in which the operator sets the weights; none if the operator makes the route.
    pub fn route_refs(&self) -> Result<Vec<RouteRef>, InvalidRouteRefs> {
        route_refs::named(
            self.spec.service.route_refs.as_deref(),
            self.route_refs_annotation(),
        )
    }

    /// The proxies of Istio by which the user wants the requests to be counted; `None` if the user names none.
    pub fn istio_reporter(&self) -> Option<IstioReporter> {
        let annotations = self.metadata.annotations.as_ref()?;
        let is_set = |name: &str| annotations.get(name).is_some_and(|it| it == "true");
        let rows = [
            (AMBIENT, IstioReporter::Waypoint),
            (GATEWAY, IstioReporter::Gateway),
        ];
        rows.into_iter()
            .find_map(|(name, reporter)| is_set(name).then_some(reporter))
    }

    fn route_refs_annotation(&self) -> Option<&str> {
        let annotations = self.metadata.annotations.as_ref()?;
        annotations.get(route_refs::ANNOTATION).map(String::as_str)
    }

    /// The name of the Services' first port.
    pub fn port_name(&self) -> &str {
        self.spec
            .service
            .port_name
            .as_deref()
            .filter(|name| !name.is_empty())
            .unwrap_or("http")
    }

    /// The port of the pods. Returns the Service's port if the field is missing or 0.
    pub fn target_port(&self) -> IntOrString {
        match &self.spec.service.target_port {
            Some(IntOrString::String(name)) if name != "0" && !name.is_empty() => {
                IntOrString::String(name.clone())
            }
            Some(IntOrString::Int(port)) if *port != 0 => IntOrString::Int(*port),
            _ => IntOrString::Int(i32::try_from(self.spec.service.port).unwrap_or(0)),
        }
    }
}

fn provider_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "string", "enum": [
        "apisix", "appmesh", "appmesh:v1beta2", "contour", "gatewayapi:v1", "gatewayapi:v1beta1", "gloo", "istio",
        "knative", "kubernetes", "kuma", "linkerd", "nginx", "osm", "skipper", "smi:v1alpha1", "smi:v1alpha2",
        "smi:v1alpha3", "traefik"]})
}

fn reference_schema(kind: &str, with_namespace: bool) -> schemars::Schema {
    let mut schema = schemars::json_schema!({"type": "object", "required": ["apiVersion", "kind", "name"], "properties": {
        "apiVersion": {"type": "string"}, "kind": {"type": "string", "enum": [kind]}, "name": {"type": "string"}}});
    if with_namespace && let Some(properties) = schema.get_mut("properties") {
        properties["namespace"] = serde_json::json!({"type": "string"});
    }
    schema
}

fn ingress_ref_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    reference_schema("Ingress", false)
}

fn route_ref_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    reference_schema("ApisixRoute", false)
}

fn upstream_ref_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    reference_schema("Upstream", true)
}
