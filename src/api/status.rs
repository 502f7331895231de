//! The state of a release: `status` of a Canary.

use std::{collections::BTreeMap, fmt};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{lenient, percent::Percent, schema};

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
    /// The traffic weight of the canary, in percent, rounded up to a whole number.
    #[serde(deserialize_with = "lenient::count")]
    #[schemars(schema_with = "schema::number")]
    pub canary_weight: i64,
    /// The exact traffic weight of the canary, in percent; only if it is not whole (`decimalStepWeights`). Not in Flagger.
    #[serde(
        deserialize_with = "lenient::percent",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(schema_with = "schema::number")]
    pub canary_weight_decimal: Option<Percent>,
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
    /// The version of the target that Flagger (after 1.44) compared last, as `UID/GENERATION`. The operator keeps this field, and does not
    /// read it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_tracked_revision: Option<String>,
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

/// The types of the conditions that a status may hold.
///
/// Flagger writes `Promoted` only; it always stands first. The others exist only while they are true. They record work in progress that a
/// restarted operator could not derive from the cluster. They are conditions because Flagger's own CRD keeps any condition, but prunes
/// status fields that it does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConditionType {
    /// Whether the last revision was promoted.
    Promoted,
    /// Traffic must return to the primary and the canary must be scaled down; the reason is the run's outcome.
    RollingBack,
    /// The target went back to the promoted revision: the run ends without a promotion.
    Reverting,
    /// Traffic has left the canary. The canary is scaled to zero after an interval, when its connections have drained.
    Draining,
    /// The primary did not become ready with a promoted version, and no promotion has succeeded since.
    PromotionFailed,
    /// All ready pods of a version under analysis were lost; the message says how often, and how far the run was.
    PodsLost,
    /// The outcome of a run, or of the initialization, has not been sent yet. (Its name in the status is older than the word notification:
    /// `NoticePending`.)
    NotificationPending,
    /// The spec is invalid; the operator does nothing for this canary until a user corrects it.
    Invalid,
    /// An older canary has the same target, or another object that this one would write.
    TargetConflict,
    /// An object of a name that this canary needs exists and belongs to someone else.
    ForeignObject,
    /// The action of a person that was handled last; the message begins with its ID. It stays until the next run starts.
    Action,
    /// A person paused the release: the weight stays, and checks go on.
    Paused,
    /// A person asked to end this step, or to open the gate at which the release waits.
    SkipRequested,
    /// A person asked to promote the version without further steps and checks.
    PromoteRequested,
    /// A person asked to release the failed version again.
    RetryRequested,
    /// The reason why the version failed, why its last check failed, or why it waits: the reason is a code, the message a sentence.
    Verdict,
    /// The API server refuses a write during a release or an initialization; the reason is the kind of the object.
    WriteRefused,
    /// How far the comparison of the canary with the primary is; the message is for the operator.
    Comparison,
    /// The operator sets weights in routes of the user, and must give them back; the message names the routes and rules. It stays until
    /// the Canary names no such routes any more.
    RouteRefs,
    /// The operator makes a GRPCRoute for the Canary, or has made one that may still lead requests. It ends when the Canary has an HTTPRoute
    /// again.
    GrpcRoute,
}

impl ConditionType {
    /// The conditions by which a person steers a release.
    pub const STEERING: [Self; 4] = [
        Self::Paused,
        Self::SkipRequested,
        Self::PromoteRequested,
        Self::RetryRequested,
    ];

    /// The `type` of the condition.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Promoted => "Promoted",
            Self::RollingBack => "RollingBack",
            Self::Reverting => "Reverting",
            Self::Draining => "Draining",
            Self::PromotionFailed => "PromotionFailed",
            Self::PodsLost => "PodsLost",
            Self::NotificationPending => "NoticePending",
            Self::Invalid => "Invalid",
            Self::TargetConflict => "TargetConflict",
            Self::ForeignObject => "ForeignObject",
            Self::Action => "Action",
            Self::Paused => "Paused",
            Self::SkipRequested => "SkipRequested",
            Self::PromoteRequested => "PromoteRequested",
            Self::RetryRequested => "RetryRequested",
            Self::Verdict => "Verdict",
            Self::WriteRefused => "WriteRefused",
            Self::Comparison => "Comparison",
            Self::RouteRefs => "RouteRefs",
            Self::GrpcRoute => "GrpcRoute",
        }
    }
}

impl CanaryStatus {
    /// The exact traffic weight of the canary. If another actor, such as Flagger, changed `canaryWeight` alone, that field counts.
    pub fn weight(&self) -> Percent {
        let exact = self.canary_weight_decimal;
        exact
            .filter(|exact| exact.rounded_up() == self.canary_weight)
            .unwrap_or(Percent::nearest(self.canary_weight))
    }

    /// Whether the weight is greater than this. Flagger's CRDs remove the exact weight; then the rounded one is compared, so that it counts
    /// as reached.
    pub fn exceeds(&self, weight: Percent) -> bool {
        let rounded = self.canary_weight > weight.rounded_up();
        rounded || (self.canary_weight_decimal.is_some() && self.weight() > weight)
    }

    /// Records the traffic weight of the canary.
    pub fn set_weight(&mut self, weight: Percent) {
        self.canary_weight = weight.rounded_up();
        self.canary_weight_decimal = Some(weight).filter(|weight| !weight.is_whole());
    }

    /// The condition of this type, if the status holds it.
    pub fn condition(&self, type_: ConditionType) -> Option<&CanaryCondition> {
        let mut conditions = self.conditions.iter().flatten();
        conditions.find(|condition| condition.type_ == type_.as_str())
    }

    /// Whether the status holds a condition of this type.
    pub fn has_condition(&self, type_: ConditionType) -> bool {
        self.condition(type_).is_some()
    }
}

/// The codes of the condition `Verdict`, in its `reason`; also `cause.code` of a Release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerdictCode {
    /// A metric was beyond its threshold.
    Threshold,
    /// A metric had no value.
    NoData,
    /// A metric server could not be asked, or answered with an error.
    ProviderError,
    /// A metric server has no new values.
    Stale,
    /// The canary is worse than the primary.
    Regression,
    /// One pod of the canary has nearly all its bad requests.
    OnePod,
    /// The canary had too few requests to be compared with the primary.
    LowTraffic,
    /// The canary still had too few requests after the longest wait; a person decides.
    Undecided,
    /// The canary does not get the share of the requests that its weight asks for.
    TrafficNotShifted,
    /// A webhook did not pass.
    Hook,
    /// A gate is closed.
    Gate,
    /// Checks failed, for reasons that are not known any more.
    FailedChecks,
    /// Pods did not become ready in time, or routes were not accepted.
    NotReady,
    /// The canary lost all its ready pods too often.
    PodsLost,
    /// A rollback webhook asked for a rollback.
    RollbackHook,
    /// The Canary changed so that the run could not go on.
    Refused,
    /// A person ended the run.
    Aborted,
    /// The primary did not become ready with the promoted version.
    PromotionFailed,
    /// The version was promoted.
    Promoted,
    /// The target went back to the promoted version.
    Reverted,
    /// A newer version took the place of this one.
    Superseded,
}

impl VerdictCode {
    /// All codes.
    pub const ALL: [Self; 21] = [
        Self::Threshold,
        Self::NoData,
        Self::ProviderError,
        Self::Stale,
        Self::Regression,
        Self::OnePod,
        Self::LowTraffic,
        Self::Undecided,
        Self::TrafficNotShifted,
        Self::Hook,
        Self::Gate,
        Self::FailedChecks,
        Self::NotReady,
        Self::PodsLost,
        Self::RollbackHook,
        Self::Refused,
        Self::Aborted,
        Self::PromotionFailed,
        Self::Promoted,
        Self::Reverted,
        Self::Superseded,
    ];

    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Threshold => "Threshold",
            Self::NoData => "NoData",
            Self::ProviderError => "ProviderError",
            Self::Stale => "Stale",
            Self::Regression => "Regression",
            Self::OnePod => "OnePod",
            Self::LowTraffic => "LowTraffic",
            Self::Undecided => "Undecided",
            Self::TrafficNotShifted => "TrafficNotShifted",
            Self::Hook => "Hook",
            Self::Gate => "Gate",
            Self::FailedChecks => "FailedChecks",
            Self::NotReady => "NotReady",
            Self::PodsLost => "PodsLost",
            Self::RollbackHook => "RollbackHook",
            Self::Refused => "Refused",
            Self::Aborted => "Aborted",
            Self::PromotionFailed => "PromotionFailed",
            Self::Promoted => "Promoted",
            Self::Reverted => "Reverted",
            Self::Superseded => "Superseded",
        }
    }

    /// The code of a word; [`VerdictCode::FailedChecks`] if the word is unknown.
    pub fn parse(word: &str) -> Self {
        let known = Self::ALL.into_iter().find(|code| code.as_str() == word);
        known.unwrap_or(Self::FailedChecks)
    }
}
