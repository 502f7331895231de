//! The condition `Comparison`: how far the comparison of the canary with the primary is (not in Flagger).
//!
//! The counters of pods are not kept: they are asked for again, at the instant of the last window and now. So a restart of the operator loses
//! nothing.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::{Deserialize, Serialize};
use serde_json::{Number, Value};

use crate::{
    api::{
        canary::{CanaryCondition, CanaryStatus},
        status::ConditionType,
    },
    comparison::MetricTest,
};

/// `reason` of the condition.
const REASON: &str = "Compared";
/// The precision of the kept numbers.
const DIGITS: f64 = 1e6;

/// The tests of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// The end of the last window.
    pub at: Timestamp,
    /// The test of each metric, by its name.
    pub tests: BTreeMap<String, MetricTest>,
}

/// The tests of the run under way; `None` if none has begun, or if someone else wrote the condition.
pub fn kept(status: &CanaryStatus) -> Option<Kept> {
    let condition = status.condition(ConditionType::Comparison)?;
    serde_json::from_str(condition.message.as_deref()?).ok()
}

/// Puts the tests into a status.
pub fn put(status: &mut CanaryStatus, kept: &Kept, now: Timestamp) {
    let mut value = serde_json::to_value(kept).unwrap_or_default();
    shorten(&mut value);
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

/// Rounds all numbers.
fn shorten(value: &mut Value) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(shorten),
        Value::Object(fields) => fields.values_mut().for_each(shorten),
        Value::Number(number) => {
            let rounded = number.as_f64().map(|it| (it * DIGITS).round() / DIGITS);
            if let Some(rounded) = rounded.and_then(Number::from_f64) {
                *number = rounded;
            }
        }
        _ => {}
    }
}
