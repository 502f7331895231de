//! The Release: the record of one run (not in Flagger). The operator writes it, people and scripts read it, and no decision depends on it.
//!
//! A record is small: what people search for is in fields, and the measurements behind it are one compressed text ([`RunEvidence`]), because
//! an API server needs six times the memory for the same content in fields.

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::percent::Percent;

/// The label of a Release with the uid of its Canary.
pub const CANARY_UID: &str = "flagger-rs.github.io/canary-uid";
/// The label of a Release with its [`ReleaseResult`].
pub const RESULT: &str = "flagger-rs.github.io/result";

/// ReleaseSpec records one run of a Canary. Only the operator writes it.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[kube(
    group = "flagger-rs.github.io",
    version = "v1alpha1",
    kind = "Release",
    doc = "Release is the record of one run of a Canary: what was released, how it ended, and why.",
    plural = "releases",
    shortname = "rel",
    namespaced,
    annotation("helm.sh/resource-policy", "keep"),
    printcolumn = r#"{"name":"Canary","type":"string","jsonPath":".spec.canary"}"#,
    printcolumn = r#"{"name":"Result","type":"string","jsonPath":".spec.result"}"#,
    printcolumn = r#"{"name":"From","type":"string","jsonPath":".spec.images[0].from"}"#,
    printcolumn = r#"{"name":"To","type":"string","jsonPath":".spec.images[0].to"}"#,
    printcolumn = r#"{"name":"Weight","type":"integer","jsonPath":".spec.weight"}"#,
    printcolumn = r#"{"name":"Started","type":"date","jsonPath":".spec.startedAt"}"#,
    printcolumn = r#"{"name":"Why","type":"string","jsonPath":".spec.cause.sentence","priority":1}"#
)]
#[serde(rename_all = "camelCase", default)]
pub struct ReleaseSpec {
    /// The name of the Canary.
    pub canary: String,
    /// The revision of the target that was released.
    pub revision: String,
    /// The revision that the primary had before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The strategy: canary, blue-green or ab-testing.
    pub strategy: String,
    /// The images that changed, by container.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<Change>,
    /// The ConfigMaps and Secrets that changed, with their checksums.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub configs: Vec<Change>,
    /// The name of the field manager that changed the target last. If a person began the run with a retry, the name of the person.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trigger: Option<String>,
    /// The time at which the run started, or at which the version began to wait for its run.
    pub started_at: Option<Time>,
    /// The time at which the run ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Time>,
    /// Running, or how the run ended.
    pub result: ReleaseResult,
    /// Why the run ended, or why its last check failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// The number of steps of a run that passes all its checks.
    pub steps: i64,
    /// The number of steps that were taken.
    pub reached: i64,
    /// The greatest traffic weight of the canary, in percent, rounded up to a whole number.
    pub weight: i64,
    /// The actions by which people steered the run, oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub actions: Vec<Steered>,
    /// How often the operator restarted during the run. Each time, checks that passed may be missing in the evidence.
    #[serde(skip_serializing_if = "is_zero")]
    pub gaps: i64,
    /// The measurements: JSON, compressed with zlib, in base64. `kubectl flagger explain` prints them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evidence: Option<String>,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
const fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// A difference between the promoted version and the released one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct Change {
    /// The container, or `configmap/NAME` or `secret/NAME`.
    pub name: String,
    /// Its image or checksum before; empty if it is new.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub from: String,
    /// Its image or checksum now; empty if it was removed.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub to: String,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[schemars(inline)]
pub enum ReleaseResult {
    /// The run is in progress.
    #[default]
    Running,
    /// The version was promoted.
    Promoted,
    /// The version was rolled back.
    Failed,
    /// A person ended the run.
    Aborted,
    /// A newer version took its place.
    Superseded,
    /// The target went back to the promoted version.
    Withdrawn,
}

impl ReleaseResult {
    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "Running",
            Self::Promoted => "Promoted",
            Self::Failed => "Failed",
            Self::Aborted => "Aborted",
            Self::Superseded => "Superseded",
            Self::Withdrawn => "Withdrawn",
        }
    }
}

impl fmt::Display for ReleaseResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a run ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct Cause {
    /// The kind of the cause, in one word.
    pub code: String,
    /// The cause, in one or two sentences.
    pub sentence: String,
}

/// An action by which a person steered the run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct Steered {
    /// The time at which the operator accepted or refused the action.
    pub at: Option<Time>,
    /// The operator's answer: Accepted or Refused.
    pub outcome: String,
    /// The ID, the verb, the author and the reason, as the condition `Action` has them.
    pub action: String,
}

/// The measurements of a run, decoded from [`ReleaseSpec::evidence`].
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RunEvidence {
    /// The metrics, each with its query.
    pub metrics: Vec<Metric>,
    /// The measurements, one for each step, oldest first.
    pub measurements: Vec<Measurement>,
    /// The webhooks that were called.
    pub hooks: Vec<HookCall>,
    /// The phases and weights of the run.
    pub timeline: Vec<Moment>,
    /// How many entries were left out, to keep the record small. They are the oldest of those that passed.
    #[serde(skip_serializing_if = "is_zero")]
    pub left_out: i64,
}

/// A metric, and how it is measured.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Metric {
    /// The name.
    pub name: String,
    /// The kind of metric server; empty if the metric could not be queried.
    pub provider: String,
    /// The host of the metric server.
    pub host: String,
    /// The query, as it was sent.
    pub query: String,
    /// The time window of the query, as the Canary has it; empty for the default.
    pub window: String,
    /// The unit of the values; empty if it is not known.
    pub unit: String,
    /// The least acceptable value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    /// The greatest acceptable value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
}

/// The values that were measured in one step.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Measurement {
    /// When the step ended.
    pub at: Option<Time>,
    /// The traffic weight of the canary during the measurement, in percent.
    pub weight: Percent,
    /// The values.
    pub values: Vec<Measured>,
}

impl Measurement {
    /// Whether all metrics passed.
    pub fn passed(&self) -> bool {
        self.values.iter().all(|value| value.failure.is_none())
    }
}

/// One value.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Measured {
    /// The place of the metric in [`RunEvidence::metrics`].
    pub metric: usize,
    /// The value; `None` if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
    /// Why the check failed; `None` if it passed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// The comparison of the canary with the primary; `None` if a threshold decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comparison: Option<Comparison>,
}

/// A comparison of the canary with the primary. The numbers are those of the run so far.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Comparison {
    /// The state: `worse`, `notWorse`, `undecided`, `partial`, `lowTraffic`, `noData`, `providerError`, `stale`, `onePod` or `notShifted`.
    pub state: String,
    /// Whether the comparison decides, in place of the threshold.
    pub decides: bool,
    /// The result in a sentence.
    pub detail: String,
    /// The requests of the canary.
    pub requests: f64,
    /// Those that were bad.
    pub bad: f64,
    /// The requests of the primary.
    pub primary_requests: f64,
    /// Those that were bad.
    pub primary_bad: f64,
    /// The natural logarithm of the e-value against "the canary is not worse".
    pub evidence: f64,
}

/// One call of a webhook.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HookCall {
    /// When the step ended in which the hook was called.
    pub at: Option<Time>,
    /// The name of the hook.
    pub name: String,
    /// The type of the hook.
    pub kind: String,
    /// The host that was called.
    pub host: String,
    /// The HTTP status of the answer; `None` if there was no answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The beginning of an answer that did not pass, or why there was no answer.
    pub answer: String,
}

/// A moment of the run.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Moment {
    /// When the phase, or the weight, began.
    pub at: Option<Time>,
    /// The phase.
    pub phase: String,
    /// The traffic weight of the canary, in percent.
    pub weight: Percent,
    /// The completed iterations of blue/green and A/B testing.
    #[serde(skip_serializing_if = "is_zero")]
    pub iterations: i64,
}
