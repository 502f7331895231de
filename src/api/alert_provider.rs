//! The AlertProvider: a chat that releases are told to.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::metric_template::LocalObjectReference;

/// An AlertProvider says where a chat is, for any number of Canaries.
#[derive(CustomResource, Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[kube(
    group = "flagger.app",
    version = "v1beta1",
    kind = "AlertProvider",
    plural = "alertproviders",
    namespaced,
    category = "all",
    annotation("helm.sh/resource-policy", "keep"),
    printcolumn = r#"{"name":"Type","type":"string","jsonPath":".spec.type"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct AlertProviderSpec {
    /// What chat it is.
    #[serde(default, rename = "type")]
    #[schemars(extend("enum" = ["slack", "msteams", "discord", "rocket", "gchat"]))]
    pub type_: String,
    /// The channel, for Slack, Discord and Rocket.Chat. Default: general.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    /// Who writes, for Slack, Discord and Rocket.Chat. Default: flagger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// The address of the chat's webhook. For Microsoft Teams that of a workflow (`…/workflows/…/paths/invoke…`), which gets an adaptive
    /// card; any other gets the older message card.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The proxy to reach it through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<String>,
    /// The Secret with the address (key `address`) and, for Slack, a bot's token (key `token`), in the provider's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<LocalObjectReference>,
}
