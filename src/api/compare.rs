//! The comparison of the canary with the primary (not in Flagger).

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The annotation of a Canary that compares all its built-in metrics with the defaults, for clusters whose CRDs do not have the field
/// `compare`. Its values are those of [`CompareMode`].
pub const ANNOTATION: &str = "flagger-rs.github.io/analysis";

/// The shortest interval in whose middle a run is compared, too. In a shorter one, counters are too late for that.
pub const COMPARED_TWICE: Duration = Duration::from_secs(60);

/// A comparison of the canary's requests with the primary's, by a statistical test that the operator may evaluate at each step.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Compare {
    /// The number of percentage points by which the canary's rate of bad requests may exceed `maxFactor` times the primary's rate. Default:
    /// 0.25.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_increase: Option<f64>,
    /// The factor by which the primary's rate of bad requests is multiplied, before `maxIncrease` is added to it. Default: 1.25.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_factor: Option<f64>,
    /// The accepted probability that a version which is no worse is rolled back, in percent of all runs. Default: 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub false_alarms: Option<f64>,
    /// The increase that the comparison must be able to find, in percentage points. It decides how many requests of the canary are needed.
    /// Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detect: Option<f64>,
    /// The number of requests that the canary must have had since the start of the run. A step waits for them. Default: as many as `detect`
    /// demands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_samples: Option<f64>,
    /// The number of intervals for which a step waits for these requests. Default: 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_extend: Option<f64>,
    /// The decision about a version that still has too few requests after this wait. Default: pause.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_undecided: Option<OnUndecided>,
    /// When a version takes its next step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advance: Option<Advance>,
}

/// When a version takes its next step: after the interval, or `early`, which is after half of it if all comparisons that decide ask for this and have
/// proven that the canary is within the margin. Default: interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub enum Advance {
    /// After the interval.
    #[default]
    Interval,
    /// After half of the interval if that is enough, else after the interval.
    Early,
}

/// The counters of a version's requests, for a comparison. Both queries return counters of Prometheus, not rates. In both, `{{ target }}`
/// stands for the name of the target when the operator counts the canary's requests, and for the name of the primary when it counts the
/// primary's.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
pub struct CountQueries {
    /// The query for the bad requests.
    pub bad: String,
    /// The query for all requests.
    pub all: String,
}

/// The decision about a version that has too few requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub enum OnUndecided {
    /// The step goes on. The next one waits again.
    Promote,
    /// The check fails.
    Fail,
    /// The step waits for a person. The operator sends one alert.
    #[default]
    Pause,
}

/// The effect of a comparison.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub enum CompareMode {
    /// The comparison decides, in place of the threshold.
    #[default]
    Enforce,
    /// The comparison is recorded, and the threshold decides.
    Observe,
}

/// The decision about a step that cannot be compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub enum Policy {
    /// The step waits.
    #[default]
    Hold,
    /// The check fails.
    Fail,
    /// The step goes on.
    Ignore,
}

impl Compare {
    /// The number of intervals for which a step waits for requests.
    pub fn max_extend(&self) -> f64 {
        self.max_extend.unwrap_or(10.0)
    }

    /// The reason why one of these numbers is invalid; `None` if all are valid.
    pub fn problem(&self) -> Option<&'static str> {
        let is = |value: Option<f64>, range: std::ops::Range<f64>| {
            value.is_none_or(|value| range.contains(&value))
        };
        match () {
            () if !is(self.max_increase, 0.0..100.0) => {
                Some("maxIncrease must be at least 0 and below 100 percentage points")
            }
            () if !is(self.max_factor, 1.0..1e6) => Some("maxFactor must be at least 1"),
            () if !is(self.false_alarms, 1e-6..100.0) => {
                Some("falseAlarms must be above 0 and below 100 percent")
            }
            () if !is(self.detect, 1e-6..100.0) => {
                Some("detect must be above 0 and below 100 percentage points")
            }
            () if !is(self.min_samples, 0.0..1e9) => {
                Some("minSamples must be a number of requests")
            }
            () if !is(self.max_extend, 0.0..1e6) => Some("maxExtend must be a number of intervals"),
            () => None,
        }
    }
}
