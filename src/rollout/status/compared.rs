//! The condition `Comparison`: the state of the comparison of the canary with the primary (not in Flagger).
//!
//! The condition does not keep the counters of pods. The operator queries them again, at the end of the last window and now, so that a
//! restart of the operator loses nothing.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::{Deserialize, Serialize};
use serde_json::{Number, Value};

use crate::{
    api::{
        canary::{CanaryCondition, CanaryStatus},
        percent::Percent,
        status::ConditionType,
    },
    comparison::MetricTest,
};

/// `reason` of the condition.
const REASON: &str = "Compared";
/// The precision of the kept evidence.
const DIGITS: f64 = 1e6;
/// The fields with evidence.
const EVIDENCE: [&str; 2] = ["worse", "not_worse"];

/// The tests of a run, by the name of the metric.
pub type Tests = BTreeMap<String, Kept>;

/// The test of a metric.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// The start of the run's first step with traffic.
    pub begun: Timestamp,
    /// The end of the last window.
    pub at: Timestamp,
    /// The canary's weight in the last step that was measured to its end.
    pub weight: Percent,
    /// The test.
    pub test: MetricTest,
}

/// The tests of the run in progress; none if none has begun, or if the condition cannot be read.
pub fn kept(status: &CanaryStatus) -> Tests {
    let condition = status.condition(ConditionType::Comparison);
    let message = condition.and_then(|condition| condition.message.as_deref());
    let tests = message.and_then(|message| serde_json::from_str(message).ok());
    tests.unwrap_or_default()
}

/// Puts the tests into a status.
pub fn put(status: &mut CanaryStatus, tests: &Tests, now: Timestamp) {
    if tests.is_empty() {
        return;
    }
    let mut value = serde_json::to_value(tests).unwrap_or_default();
    shorten(&mut value, false);
    let at = Some(Time(now));
    let conditions = status.conditions.get_or_insert_default();
    conditions.retain(|it| it.type_ != ConditionType::Comparison.as_str());
    conditions.push(CanaryCondition {
        type_: ConditionType::Comparison.as_str().to_owned(),
        status: "True".to_owned(),
        reason: REASON.to_owned(),
        message: Some(value.to_string()),
        last_update_time: at.clone(),
        last_transition_time: at,
    });
}

/// Rounds the evidence. Other numbers, such as the bounds of buckets, must not change.
fn shorten(value: &mut Value, is_evidence: bool) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(|it| shorten(it, is_evidence)),
        Value::Object(fields) => {
            for (name, field) in fields {
                shorten(field, EVIDENCE.contains(&name.as_str()));
            }
        }
        Value::Number(number) if is_evidence => {
            let rounded = number.as_f64().map(|it| (it * DIGITS).round() / DIGITS);
            if let Some(rounded) = rounded.and_then(Number::from_f64) {
                *number = rounded;
            }
        }
        _ => {}
    }
}
