//! `flagger backtest`: how a Canary's thresholds, and comparisons, would have judged versions that were no worse than the primary. Pure:
//! `shell/client/backtest` asks the metric server.
//!
//! The past has no canary, so half of the primary's pods stand for one. A run begins with each hour of the past, and takes the steps of the
//! Canary. All runs that are rolled back are false alarms. Then some of the canary's good requests are made bad, and the runs that are rolled back
//! are those that find it.
//!
//! | question | place |
//! | --- | --- |
//! | Which fields has the JSON? | [`Backtest`] |
//! | Which metrics are replayed, and what is asked about them? | [`ReplayedMetric`] |
//! | How do counters become requests of each minute? | `history.rs` |
//! | Which steps has a run? | `schedule.rs` |
//! | How is a run made of the past? | `halves.rs` |
//! | How is a run judged? | `judges.rs` |
//! | Which runs are played, and what do they show? | `runs.rs` |
//! | How does a report look? | `lines.rs` |

mod halves;
mod history;
mod judges;
mod lines;
mod metric;
mod runs;
mod schedule;
#[cfg(test)]
mod tests;

use serde::Serialize;
use serde_json::{Value, json};

pub use lines::{lines, markdown};
pub use metric::ReplayedMetric;
pub use runs::replay;
pub use schedule::{Schedule, schedule};

use crate::view::API_VERSION;

/// The result of a backtest. Its JSON is an interface: fields are added, and none is renamed or removed.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Backtest {
    /// The namespace of the Canary.
    pub namespace: String,
    /// The name of the Canary.
    pub name: String,
    /// The first minute with requests, in RFC 3339; null without any.
    pub from: Option<String>,
    /// The last one.
    pub to: Option<String>,
    /// The minutes of a step.
    pub step_minutes: i64,
    /// The canary's share of the requests in each step, in percent.
    pub weights: Vec<f64>,
    /// The number of failed checks at which a version is rolled back.
    pub threshold: i64,
    /// The metrics.
    pub metrics: Vec<Metric>,
    /// The judgements about all metrics together; null if there is only one metric.
    pub release: Option<Judged>,
    /// The metrics that were not replayed.
    pub not_replayed: Vec<NotReplayed>,
}

/// A metric that was not replayed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NotReplayed {
    /// Its name.
    pub metric: String,
    /// The reason.
    pub why: String,
}

/// The replay of one metric.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Metric {
    /// Its name.
    pub metric: String,
    /// Whether the counters are those of the primary's pods. If not, they are those of a gateway or a waypoint, and each request is drawn for one half.
    pub per_pod: bool,
    /// The greatest number of pods that the primary had at a time.
    pub pods: usize,
    /// The number of requests.
    pub requests: f64,
    /// The share of them that failed, or that were slower than the bound of the threshold.
    pub bad_share: f64,
    /// How much more the failures vary from minute to minute than those of independent requests do. 1 means independent.
    pub dispersion: f64,
    /// The judgements.
    pub judged: Judged,
    /// The comparison with other margins.
    pub margins: Vec<OtherMargin>,
    /// The least of these values of `maxIncrease` with at most 1 % false alarms and 10 % waiting runs, in percentage points; null if there is
    /// none, or if there were fewer than 100 runs.
    pub suggested_max_increase: Option<f64>,
}

/// The scores of both judges.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Judged {
    /// The threshold of the Canary; null if it has none.
    pub threshold: Option<Scores>,
    /// The comparison with the settings of the Canary, or with its defaults.
    pub comparison: Scores,
}

/// The scores of a judge. Shares are from 0 to 1.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Scores {
    /// The number of runs.
    pub runs: usize,
    /// The share of the runs without any difference that are rolled back.
    pub false_alarms: f64,
    /// The share of these that have too few requests, and wait for a person.
    pub waits: f64,
    /// How often worse versions are rolled back.
    pub found: Vec<Found>,
}

/// How often a worse version is rolled back.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Found {
    /// The percentage of the canary's good requests that are made bad.
    pub increase: f64,
    /// The share of the runs that are rolled back.
    pub share: f64,
    /// The step, from 1, by which half of these are rolled back; null if there are none.
    pub median_step: Option<usize>,
}

/// The comparison with another margin.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OtherMargin {
    /// The field `maxIncrease` of the comparison, in percentage points.
    pub max_increase: f64,
    /// Its scores.
    pub scores: Scores,
}

impl Backtest {
    /// The number of runs that were played.
    pub fn runs(&self) -> usize {
        let of = |metric: &Metric| metric.judged.comparison.runs;
        self.metrics.iter().map(of).max().unwrap_or(0)
    }

    /// The JSON.
    pub fn json(&self) -> Value {
        let mut value = json!({"apiVersion": API_VERSION, "kind": "Backtest"});
        if let (Some(fields), Ok(Value::Object(own))) =
            (value.as_object_mut(), serde_json::to_value(self))
        {
            fields.extend(own);
        }
        value
    }
}
