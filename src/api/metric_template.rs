//! The MetricTemplate: how to query the value of a metric.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::lenient;

/// MetricTemplateSpec describes how to query a metric. Any number of Canaries can refer to it in `spec.analysis.metrics`.
#[derive(CustomResource, Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[kube(
    group = "flagger.app",
    version = "v1beta1",
    kind = "MetricTemplate",
    doc = "MetricTemplate is a query that gets the value of a metric for Canaries.",
    plural = "metrictemplates",
    namespaced,
    category = "all",
    annotation("helm.sh/resource-policy", "keep"),
    printcolumn = r#"{"name":"Provider","type":"string","jsonPath":".spec.provider.type"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct MetricTemplateSpec {
    /// The metrics server that answers the query.
    pub provider: MetricTemplateProvider,
    /// The query as a Go template. Functions: `name`, `namespace`, `target`, `service`, `ingress`, `route`, `interval` and
    /// `variables.NAME`, for example `{{ target }}`.
    pub query: String,
}

/// The metrics server that answers the query.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MetricTemplateProvider {
    /// The type of metrics server.
    #[serde(rename = "type")]
    #[schemars(extend("enum" = ["prometheus", "influxdb", "datadog", "externalmetrics", "stackdriver", "cloudwatch", "newrelic",
        "graphite", "dynatrace", "keptn", "splunk", "azuremonitor"]))]
    pub type_: String,
    /// The URL of the server. Default for Datadog and New Relic: their public API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Additional HTTP headers of each query, as lists of values by name (Prometheus and Azure Monitor).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers: Option<BTreeMap<String, Vec<String>>>,
    /// The AWS region (CloudWatch only).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// The Secret with the credentials, in the MetricTemplate's namespace. Its keys are `token`, or `username` and `password` (Prometheus),
    /// `datadog_api_key` and `datadog_application_key`, `newrelic_account_id` and `newrelic_query_key`, `username` and `password`
    /// (Graphite), `dynatrace_token`, `token` and `org` (InfluxDB), `sf_token_key` (Splunk), `token` (external metrics), `project` and,
    /// unless the operator uses its own identity, `serviceAccountKey` (Google Cloud Monitoring), and for Azure Monitor all of `clientId`,
    /// `tenantId` and `clientSecret`, or the first two, or none. CloudWatch and Keptn read none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<LocalObjectReference>,
    /// Whether to accept any TLS certificate of the server (Prometheus and Graphite; Azure Monitor refuses it). Default: false.
    #[serde(
        default,
        deserialize_with = "lenient::or_default",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub insecure_skip_verify: bool,
}

/// A reference to an object in the same namespace.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
pub struct LocalObjectReference {
    /// The name of the object.
    pub name: String,
}
