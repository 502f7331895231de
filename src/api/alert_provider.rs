//! The AlertProvider: a chat service that gets the alerts of Canaries.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::metric_template::LocalObjectReference;

/// AlertProviderSpec describes a chat service. Any number of Canaries can refer to it in `spec.analysis.alerts`.
#[derive(CustomResource, Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[kube(
    group = "flagger.app",
    version = "v1beta1",
    kind = "AlertProvider",
    doc = "AlertProvider is a chat service that gets the alerts of Canaries.",
    plural = "alertproviders",
    namespaced,
    category = "all",
    annotation("helm.sh/resource-policy", "keep"),
    printcolumn = r#"{"name":"Type","type":"string","jsonPath":".spec.type"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct AlertProviderSpec {
    /// The chat service: Slack, Microsoft Teams, Discord, Rocket.Chat or Google Chat.
    #[serde(default, rename = "type")]
    #[schemars(extend("enum" = ["slack", "msteams", "discord", "rocket", "gchat"]))]
    pub type_: String,
    /// The channel that gets the alerts (Slack, Discord and Rocket.Chat). Default: general.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    /// The name of the sender that the chat shows (Slack, Discord and Rocket.Chat). Default: flagger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// The URL of the chat's webhook. Set either this or `secretRef`. On Microsoft Teams, the URL of a workflow
    /// (`…/workflows/…/paths/invoke…`) gets an adaptive card; any other URL gets the older message card.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The URL of the HTTP proxy for requests to the chat. Default: no proxy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<String>,
    /// The Secret with the URL of the chat's webhook (key `address`) and, for Slack, a bot's token (key `token`). The Secret is in the
    /// AlertProvider's namespace. Set either this or `address`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<LocalObjectReference>,
}
