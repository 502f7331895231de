//! The MetricTemplate: how to get the value of a metric.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::lenient;

/// A MetricTemplate says where a metric's value comes from, for any number of Canaries.
#[derive(CustomResource, Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[kube(
    group = "flagger.app",
    version = "v1beta1",
    kind = "MetricTemplate",
    plural = "metrictemplates",
    namespaced,
    category = "all",
    annotation("helm.sh/resource-policy", "keep"),
    printcolumn = r#"{"name":"Provider","type":"string","jsonPath":".spec.provider.type"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct MetricTemplateSpec {
    /// The server that has the values.
    pub provider: MetricTemplateProvider,
    /// The query, a Go template: `{{ target }}`, `{{ namespace }}`, `{{ interval }}`, `{{ variables.NAME }}`, ….
    pub query: String,
}

/// A server that has values.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MetricTemplateProvider {
    /// What server it is.
    #[serde(rename = "type")]
    #[schemars(extend("enum" = ["prometheus", "influxdb", "datadog", "externalmetrics", "stackdriver", "cloudwatch", "newrelic",
        "graphite", "dynatrace", "keptn", "splunk"]))]
    pub type_: String,
    /// Its address. Datadog and New Relic have one of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Headers to send, each with its values (Prometheus).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers: Option<BTreeMap<String, Vec<String>>>,
    /// The region (CloudWatch).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// The Secret with the credentials, in the template's namespace. Its keys are `token`, or `username` and `password` (Prometheus),
    /// `datadog_api_key` and `datadog_application_key`, `newrelic_account_id` and `newrelic_query_key`, `username` and `password`
    /// (Graphite), `dynatrace_token`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<LocalObjectReference>,
    /// Do not check the server's certificate (Prometheus, Graphite).
    #[serde(
        default,
        deserialize_with = "lenient::or_default",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub insecure_skip_verify: bool,
}

/// An object of the same namespace, by name.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
pub struct LocalObjectReference {
    /// Its name.
    pub name: String,
}
