//! How a version is judged: `spec.analysis` of a Canary.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{lenient, schema};

/// How a version is judged before it is promoted.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CanaryAnalysis {
    /// The time between two steps, in minutes or seconds (`1m`, `30s`); at least ten seconds.
    #[serde(default)]
    #[schemars(schema_with = "schema::interval")]
    pub interval: String,
    /// How many checks may fail before the version is rolled back.
    #[serde(default, deserialize_with = "lenient::count")]
    #[schemars(schema_with = "schema::number")]
    pub threshold: i64,
    /// How many times the version is checked without a share of the traffic (blue/green), or with the requests that match (A/B testing).
    #[serde(
        default,
        deserialize_with = "lenient::integer",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(schema_with = "schema::number")]
    pub iterations: Option<i64>,
    /// The percentage of traffic at which the version is promoted. Default: 100.
    #[serde(
        default,
        deserialize_with = "lenient::integer",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(schema_with = "schema::number")]
    pub max_weight: Option<i64>,
    /// The percentage of traffic that each step adds.
    #[serde(
        default,
        deserialize_with = "lenient::integer",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(schema_with = "schema::number")]
    pub step_weight: Option<i64>,
    /// The percentages of traffic of the steps, one after another.
    #[serde(
        default,
        deserialize_with = "lenient::integers",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(schema_with = "schema::numbers")]
    pub step_weights: Option<Vec<i64>>,
    /// The percentage of traffic that each step of a promotion gives back to the primary. Default: all at once.
    #[serde(
        default,
        deserialize_with = "lenient::integer",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(schema_with = "schema::number")]
    pub step_weight_promotion: Option<i64>,
    /// Give the version copies of the requests before it gets any.
    #[serde(
        default,
        deserialize_with = "lenient::or_default",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub mirror: bool,
    /// The percentage of requests that are copied. Default: the mesh's.
    #[serde(
        default,
        deserialize_with = "lenient::integer",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(schema_with = "schema::number")]
    pub mirror_weight: Option<i64>,
    /// The percentage of the primary's pods that must be available. Default: 100.
    #[serde(
        default,
        deserialize_with = "lenient::integer",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(schema_with = "schema::number")]
    pub primary_ready_threshold: Option<i64>,
    /// The percentage of the canary's pods that must be available. Default: 100.
    #[serde(
        default,
        deserialize_with = "lenient::integer",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(schema_with = "schema::number")]
    pub canary_ready_threshold: Option<i64>,
    /// The requests that the version gets in A/B testing.
    #[serde(
        default,
        rename = "match",
        deserialize_with = "lenient::or_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    #[schemars(schema_with = "schema::elsewhere")]
    pub match_: Vec<Value>,
    /// The metrics that a version must meet at each step.
    #[serde(
        default,
        deserialize_with = "lenient::or_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub metrics: Vec<CanaryMetric>,
    /// The chats that are told of this release, in place of the operator's own.
    #[serde(
        default,
        deserialize_with = "lenient::or_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub alerts: Vec<CanaryAlert>,
    /// What is called during a release: to approve, test, load, or stop it.
    #[serde(
        default,
        deserialize_with = "lenient::or_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub webhooks: Vec<CanaryWebhook>,
    /// Keeps a client on the side that answered it first, by a cookie.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_affinity: Option<SessionAffinity>,
}

/// A metric that a version must meet.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CanaryMetric {
    /// Its name; `request-success-rate` (percent) and `request-duration` (milliseconds, 99th percentile) are built in.
    pub name: String,
    /// The window that it is measured over (`1m`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::interval")]
    pub interval: Option<String>,
    /// Deprecated, use `thresholdRange`: the least success rate, or the most of anything else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f64>,
    /// The values that are good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold_range: Option<ThresholdRange>,
    /// Deprecated, use `templateRef`: a Prometheus query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// The MetricTemplate that says how to get the value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template_ref: Option<CrossNamespaceRef>,
    /// Values for `{{ variables.NAME }}` in the template's query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template_variables: Option<BTreeMap<String, String>>,
}

/// The values that are good, both ends included.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
pub struct ThresholdRange {
    /// The least good value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    /// The greatest good value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
}

/// An object by name, here or in another namespace.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
pub struct CrossNamespaceRef {
    /// Its name.
    pub name: String,
    /// Its namespace. Default: the Canary's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// A chat that is told of a release.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CanaryAlert {
    /// A name for the reader.
    pub name: String,
    /// How bad the news must be: info (all), warn or error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["", "info", "warn", "error"]))]
    pub severity: Option<String>,
    /// The AlertProvider that says where the chat is.
    pub provider_ref: CrossNamespaceRef,
}

/// A call during a release.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CanaryWebhook {
    /// When it is called, and what its answer decides. Default: rollout.
    #[serde(default, rename = "type", deserialize_with = "lenient::or_default")]
    #[schemars(extend("enum" = ["", "confirm-rollout", "pre-rollout", "rollout", "confirm-promotion", "post-rollout",
        "event", "rollback", "confirm-traffic-increase"]), with = "String")]
    pub type_: WebhookType,
    /// Its name, as events say it.
    pub name: String,
    /// Where it is called: a POST of JSON; any 2xx answer passes.
    #[schemars(extend("format" = "url"))]
    pub url: String,
    /// No alert while this hook holds a release back.
    #[serde(
        default,
        deserialize_with = "lenient::or_default",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub mute_alert: bool,
    /// How long one attempt may take. Default: 10s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::interval")]
    pub timeout: Option<String>,
    /// How often a failed attempt is repeated. Default: 0.
    #[serde(
        default,
        deserialize_with = "lenient::integer",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(schema_with = "schema::number")]
    pub retries: Option<i64>,
    /// Do not check the server's certificate.
    #[serde(
        default,
        rename = "disableTLS",
        deserialize_with = "lenient::or_default",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub disable_tls: bool,
    /// What the call carries besides the Canary's name, namespace, phase and checksum.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<BTreeMap<String, String>>,
}

/// When a webhook is called, and what its answer decides.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum WebhookType {
    /// At every step, before the metrics; a failure is a failed check.
    #[default]
    #[serde(alias = "")]
    Rollout,
    /// Before a new version is scaled up; until it passes, the release waits.
    ConfirmRollout,
    /// Before the version gets traffic; a failure is a failed check.
    PreRollout,
    /// Before the version gets more traffic; until it passes, the weight stays.
    ConfirmTrafficIncrease,
    /// Before the version is promoted; until it passes, the release waits.
    ConfirmPromotion,
    /// After a release; the answer decides nothing.
    PostRollout,
    /// At every step; a pass rolls the version back.
    Rollback,
    /// For every event.
    Event,
}

impl WebhookType {
    /// As the spec has it.
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

/// Keeps a client on the side that answered it first.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionAffinity {
    /// The cookie of clients that the canary answered.
    pub cookie_name: String,
    /// The cookie of clients that the primary answered. Default: they are not kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub primary_cookie_name: Option<String>,
    /// The cookie's Domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// The cookie's `HttpOnly`.
    #[serde(
        default,
        deserialize_with = "lenient::or_default",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub http_only: bool,
    /// How many seconds the cookie lives. Default: 86400.
    #[serde(
        default,
        deserialize_with = "lenient::integer",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(schema_with = "schema::elsewhere")]
    pub max_age: Option<i64>,
    /// The cookie's Partitioned.
    #[serde(
        default,
        deserialize_with = "lenient::or_default",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub partitioned: bool,
    /// The cookie's Path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The cookie's `SameSite`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["Strict", "Lax", "None"]))]
    pub same_site: Option<String>,
    /// The cookie's Secure.
    #[serde(
        default,
        deserialize_with = "lenient::or_default",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub secure: bool,
}
