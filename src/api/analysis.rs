//! How the operator analyses a new version: `spec.analysis` of a Canary.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    compare::{Compare, CompareMode, CountQueries, Policy},
    lenient, schema,
};

/// How the operator analyses a new version before it promotes it. Set `interval`, `threshold`, and one of `stepWeight`, `stepWeights`,
/// `decimalStepWeights` and `iterations`.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CanaryAnalysis {
    /// The time between two steps of the analysis, in minutes or seconds (`1m`, `30s`). Minimum: 10s.
    #[serde(default)]
    #[schemars(schema_with = "schema::interval")]
    pub interval: String,
    /// The number of failed checks at which the operator rolls the version back. Minimum: 1.
    #[serde(default, deserialize_with = "lenient::count")]
    #[schemars(schema_with = "schema::number")]
    pub threshold: i64,
    /// The number of steps of a blue/green release or, together with `match`, of an A/B test.
    #[serde(
        default,
        deserialize_with = "lenient::integer",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(schema_with = "schema::number")]
    pub iterations: Option<i64>,
    /// The traffic weight of the canary, in percent, after which the operator promotes the version. Maximum and default: 100.
    #[serde(
        default,
        deserialize_with = "lenient::integer",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(schema_with = "schema::number")]
    pub max_weight: Option<i64>,
    /// The traffic weight that each step adds to the canary, in percent.
    #[serde(
        default,
        deserialize_with = "lenient::integer",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(schema_with = "schema::number")]
    pub step_weight: Option<i64>,
    /// The traffic weights of the canary at each step, in percent and in ascending order. The last one is the maximum weight.
    #[serde(
        default,
        deserialize_with = "lenient::integers",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(schema_with = "schema::numbers")]
    pub step_weights: Option<Vec<i64>>,
    /// The traffic weights of the canary at each step, as in `stepWeights`, with at most one decimal place: `[0.1, 1, 10, 50]`. It replaces
    /// `stepWeights`, `stepWeight` and `maxWeight`. Weights that are not whole need Istio, Gateway API, Contour, NGINX, Traefik, or routes of
    /// the user. Not in Flagger, and Flagger's CRDs remove it: end a run before you apply these, or go back to Flagger.
    #[serde(
        default,
        deserialize_with = "lenient::numbers",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(schema_with = "schema::numbers")]
    pub decimal_step_weights: Option<Vec<f64>>,
    /// The traffic weight that each step of a promotion moves from the canary back to the primary, in percent. Default: 100, in one step.
    #[serde(
        default,
        deserialize_with = "lenient::integer",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(schema_with = "schema::number")]
    pub step_weight_promotion: Option<i64>,
    /// Whether requests are mirrored to the canary before it gets live traffic. Default: false.
    #[serde(
        default,
        deserialize_with = "lenient::or_default",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub mirror: bool,
    /// The percentage of requests that are mirrored to the canary. Default: the default of the mesh or gateway.
    #[serde(
        default,
        deserialize_with = "lenient::integer",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(schema_with = "schema::number")]
    pub mirror_weight: Option<i64>,
    /// The percentage of the primary's pods that must be available for the primary to count as ready. Default: 100.
    #[serde(
        default,
        deserialize_with = "lenient::integer",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(schema_with = "schema::number")]
    pub primary_ready_threshold: Option<i64>,
    /// The percentage of the canary's pods that must be available for the canary to count as ready. Default: 100.
    #[serde(
        default,
        deserialize_with = "lenient::integer",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(schema_with = "schema::number")]
    pub canary_ready_threshold: Option<i64>,
    /// The requests that the canary gets during an A/B test. A request must match one of these sets of conditions. Needs `iterations`.
    #[serde(
        default,
        rename = "match",
        deserialize_with = "lenient::or_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    #[schemars(schema_with = "schema::elsewhere")]
    pub match_: Vec<Value>,
    /// The metrics that the operator checks at each step.
    #[serde(
        default,
        deserialize_with = "lenient::or_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub metrics: Vec<CanaryMetric>,
    /// The alerts of this Canary. Default: the operator's own chat (`-slack-url`, `-msteams-url`).
    #[serde(
        default,
        deserialize_with = "lenient::or_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub alerts: Vec<CanaryAlert>,
    /// The webhooks that the operator calls during a release: to test the version, put load on it, approve it or roll it back.
    #[serde(
        default,
        deserialize_with = "lenient::or_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub webhooks: Vec<CanaryWebhook>,
    /// Keeps a client by a cookie on the side, canary or primary, that answered its first request. Default: no session affinity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_affinity: Option<SessionAffinity>,
}

impl CanaryAnalysis {
    /// Whether `decimalStepWeights` has the weights of the steps.
    pub fn has_decimals(&self) -> bool {
        let decimals = self.decimal_step_weights.as_ref();
        decimals.is_some_and(|decimals| !decimals.is_empty())
    }
}

/// A metric whose value must be within a range.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CanaryMetric {
    /// The name of the metric. Built in are `request-success-rate` (percent) and `request-duration` (99th percentile, in milliseconds).
    pub name: String,
    /// The time window of the query, in minutes or seconds. Default: 1m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::interval")]
    pub interval: Option<String>,
    /// Deprecated, use `thresholdRange`: the minimum of a success rate, or the maximum of any other metric.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f64>,
    /// The accepted values. Default: `threshold` decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold_range: Option<ThresholdRange>,
    /// Deprecated, use `templateRef`: a Prometheus query that returns the value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// The MetricTemplate with the query of this metric.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template_ref: Option<CrossNamespaceRef>,
    /// The values of `{{ variables.NAME }}` in the template's query, by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template_variables: Option<BTreeMap<String, String>>,
    /// Compares the canary's requests with the primary's, in place of a value with a threshold. For built-in metrics and for those with `counts`; not in
    /// Flagger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compare: Option<Compare>,
    /// The counters that are compared, for a metric that is not built in. The operator queries the server of the built-in metrics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counts: Option<CountQueries>,
    /// The effect of the comparison. Default: enforce.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<CompareMode>,
    /// The decision about a step in which a version has no series to compare. Default: hold, until the progress deadline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_no_data: Option<Policy>,
    /// The decision about a step in which the metric server does not answer. Default: hold, until the progress deadline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_error: Option<Policy>,
    /// The decision about a step in which the canary has too few requests. Default: hold, for at most `compare.maxExtend` intervals.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_low_traffic: Option<Policy>,
}

/// A range of accepted values. Both limits belong to the range.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
pub struct ThresholdRange {
    /// The least accepted value. Default: no minimum.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    /// The greatest accepted value. Default: no maximum.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
}

/// A reference to an object in the Canary's namespace or in another one.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
pub struct CrossNamespaceRef {
    /// The name of the object.
    pub name: String,
    /// The namespace of the object. Default: the Canary's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// An alert that a chat service gets.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CanaryAlert {
    /// A name for people who read the Canary. The operator does not use it.
    pub name: String,
    /// The least severity of the events that are sent: info (all events), warn or error. Default: info.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["", "info", "warn", "error"]))]
    pub severity: Option<String>,
    /// The AlertProvider that describes the chat service.
    pub provider_ref: CrossNamespaceRef,
}

/// A webhook that the operator calls during a release.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CanaryWebhook {
    /// When the operator calls the webhook, and what the answer decides. Default: rollout.
    #[serde(default, rename = "type", deserialize_with = "lenient::or_default")]
    #[schemars(extend("enum" = ["", "confirm-rollout", "pre-rollout", "rollout", "confirm-promotion", "post-rollout",
        "event", "rollback", "confirm-traffic-increase"]), with = "String")]
    pub type_: WebhookType,
    /// The name of the webhook in events and alerts.
    pub name: String,
    /// The URL that gets a POST request with a JSON body. The check passes with any 2xx status.
    #[schemars(extend("format" = "url"))]
    pub url: String,
    /// Whether to send no alert while this webhook holds the release back. Default: false.
    #[serde(
        default,
        deserialize_with = "lenient::or_default",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub mute_alert: bool,
    /// The time limit of one attempt, in minutes or seconds. Default: 10s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::interval")]
    pub timeout: Option<String>,
    /// The number of further attempts after a failed one. Default: 0.
    #[serde(
        default,
        deserialize_with = "lenient::integer",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(schema_with = "schema::number")]
    pub retries: Option<i64>,
    /// Whether to accept any TLS certificate of the server. Default: false.
    #[serde(
        default,
        rename = "disableTLS",
        deserialize_with = "lenient::or_default",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub disable_tls: bool,
    /// Additional values in the request's body, besides the Canary's name, namespace, phase and checksum.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<BTreeMap<String, String>>,
}

/// When the operator calls a webhook, and what the answer decides.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum WebhookType {
    /// Called at every step, before the metrics are queried. A failure is a failed check.
    #[default]
    #[serde(alias = "")]
    Rollout,
    /// Called before a new version is scaled up. The release waits until the webhook passes.
    ConfirmRollout,
    /// Called before the canary gets traffic. A failure is a failed check.
    PreRollout,
    /// Called before the canary gets more traffic. The weight stays until the webhook passes.
    ConfirmTrafficIncrease,
    /// Called before the version is promoted. The release waits until the webhook passes.
    ConfirmPromotion,
    /// Called after a release. The answer decides nothing.
    PostRollout,
    /// Called at every step. If the webhook passes, the operator rolls the version back.
    Rollback,
    /// Called for every event.
    Event,
}

impl WebhookType {
    /// The name of the type in the spec.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rollout => "rollout",
            Self::ConfirmRollout => "confirm-rollout",
            Self::PreRollout => "pre-rollout",
            Self::ConfirmTrafficIncrease => "confirm-traffic-increase",
            Self::ConfirmPromotion => "confirm-promotion",
            Self::PostRollout => "post-rollout",
            Self::Rollback => "rollback",
            Self::Event => "event",
        }
    }
}

/// Keeps a client by a cookie on the side that answered its first request.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionAffinity {
    /// The name of the cookie that keeps a client on the canary.
    pub cookie_name: String,
    /// The name of the cookie that keeps a client on the primary. Default: clients of the primary are not kept on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub primary_cookie_name: Option<String>,
    /// The `Domain` attribute of the cookies. Default: no such attribute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// Whether the cookies have the attribute `HttpOnly`. Default: false.
    #[serde(
        default,
        deserialize_with = "lenient::or_default",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub http_only: bool,
    /// The lifetime of the canary's cookie, in seconds. The primary's cookie lives for one `interval`. Default: 86400.
    #[serde(
        default,
        deserialize_with = "lenient::integer",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(schema_with = "schema::elsewhere")]
    pub max_age: Option<i64>,
    /// Whether the cookies have the attribute `Partitioned`. Default: false.
    #[serde(
        default,
        deserialize_with = "lenient::or_default",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub partitioned: bool,
    /// The `Path` attribute of the cookies. Default: no such attribute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The `SameSite` attribute of the cookies. Default: no such attribute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["Strict", "Lax", "None"]))]
    pub same_site: Option<String>,
    /// Whether the cookies have the attribute `Secure`. Default: false.
    #[serde(
        default,
        deserialize_with = "lenient::or_default",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub secure: bool,
}
