//! The state of a release: `status` of a Canary.

use std::{collections::BTreeMap, fmt};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{lenient, schema};

/// CanaryStatus is the state of the release. Only the operator writes it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CanaryStatus {
    /// The phase of the release.
    #[serde(deserialize_with = "lenient::or_default")]
    pub phase: CanaryPhase,
    /// The number of failed checks in the current run.
    #[serde(deserialize_with = "lenient::count")]
    #[schemars(schema_with = "schema::number")]
    pub failed_checks: i64,
    /// The traffic weight of the canary, in percent.
    #[serde(deserialize_with = "lenient::count")]
    #[schemars(schema_with = "schema::number")]
    pub canary_weight: i64,
    /// The number of completed iterations in the current run (blue/green and A/B testing).
    #[serde(deserialize_with = "lenient::count")]
    #[schemars(schema_with = "schema::number")]
    pub iterations: i64,
    /// The cookie, as `NAME=VALUE`, that keeps a client on the canary.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_affinity_cookie: Option<String>,
    /// The cookie, as `NAME=VALUE`, that keeps a client on the primary.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub primary_session_affinity_cookie: Option<String>,
    /// The canary's cookie of the last run. Routes make clients delete it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous_session_affinity_cookie: Option<String>,
    /// The checksums of the ConfigMaps and Secrets that the target uses, by `configmap/NAME` or `secret/NAME`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tracked_configs: Option<BTreeMap<String, String>>,
    /// The hash of the target's revision that the current or last run released.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_applied_spec: Option<String>,
    /// The hash of the revision that was last promoted to the primary.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_promoted_spec: Option<String>,
    /// The time at which the last step ended. The next step is due one `interval` later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<Time>,
    /// The conditions. `Promoted` states whether the last revision was promoted. Any other condition exists only while it is true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conditions: Option<Vec<CanaryCondition>>,
}

/// One condition of the release.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CanaryCondition {
    /// The type of the condition.
    #[serde(rename = "type")]
    pub type_: String,
    /// The status of the condition: True, False or Unknown.
    pub status: String,
    /// The reason of the status, in one word.
    pub reason: String,
    /// The reason of the status, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The time at which the condition was last updated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_update_time: Option<Time>,
    /// The time at which the status of the condition last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<Time>,
}

/// The phases of a release.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Deserialize,
    Serialize,
    JsonSchema,
)]
#[schemars(inline)]
pub enum CanaryPhase {
    /// The operator has not reconciled the Canary yet.
    #[default]
    #[serde(rename = "")]
    New,
    /// The operator creates the primary and waits for its pods.
    Initializing,
    /// The primary serves the traffic. Everything is ready for a release.
    Initialized,
    /// A new version waits for approval of its rollout.
    Waiting,
    /// The analysis of a new version is in progress.
    Progressing,
    /// A version that passed its analysis waits for approval of its promotion.
    WaitingPromotion,
    /// The primary gets the new version.
    Promoting,
    /// All traffic is back on the primary; the canary drains.
    Finalising,
    /// The version was promoted.
    Succeeded,
    /// The version was rolled back.
    Failed,
    /// The Canary is being deleted.
    Terminating,
    /// The Canary is gone.
    Terminated,
}

impl CanaryPhase {
    /// The name of the phase in the status.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::New => "",
            Self::Initializing => "Initializing",
            Self::Initialized => "Initialized",
            Self::Waiting => "Waiting",
            Self::Progressing => "Progressing",
            Self::WaitingPromotion => "WaitingPromotion",
            Self::Promoting => "Promoting",
            Self::Finalising => "Finalising",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
            Self::Terminating => "Terminating",
            Self::Terminated => "Terminated",
        }
    }
}

impl fmt::Display for CanaryPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
