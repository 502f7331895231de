//! The number of requests that a comparison needs.

use super::{Comparison, Counts, Margin, Measure, Window, is_proven};

/// The most requests that are considered.
const MOST: f64 = 1e9;

/// The conditions of a comparison.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    /// The kind of requests that are bad.
    pub measure: Measure,
    /// How much worse the canary may be.
    pub margin: Margin,
    /// The primary's requests of the hour before.
    pub history: Counts,
    /// The canary's share of the requests: above 0 and below 1.
    pub share: f64,
    /// The increase of the rate that is to be detected, as a share: 0.01 is one percentage point.
    pub increase: f64,
    /// The probability of a false alarm in a run.
    pub false_alarms: f64,
    /// The dispersion.
    pub dispersion: f64,
}

/// Whether the e-value of the *expected* counts suffices with this number of the canary's requests.
pub fn is_enough(plan: &Plan, requests: f64) -> bool {
    let base = plan.history.rate();
    let counts = |all: f64, rate: f64| Counts::new(all, all * rate.clamp(0.0, 1.0));
    let (Some(canary), Some(primary)) = (
        counts(requests, base + plan.increase),
        counts(requests * (1.0 - plan.share) / plan.share, base),
    ) else {
        return false;
    };
    let mut test = Comparison::new(plan.measure, plan.margin, plan.history);
    test.add(Window { canary, primary });
    is_proven(test.worse(plan.dispersion), plan.false_alarms)
}

/// The number of the canary's requests at which the e-value of the *expected* counts suffices, if its rate is higher by this increase. For
/// a probability of 95 % about 3.3 times as many are needed. `None` if no number suffices: the increase is within the margin.
pub fn requests_to_detect(plan: &Plan) -> Option<f64> {
    let is_enough = |requests: f64| is_enough(plan, requests);
    let (mut low, mut high) = (0.0, 1.0);
    while !is_enough(high) {
        low = high;
        high *= 2.0;
        if high > MOST {
            return None;
        }
    }
    while high - low > 1.0 {
        let middle = f64::midpoint(low, high).floor();
        if is_enough(middle) {
            high = middle;
        } else {
            low = middle;
        }
    }
    Some(high)
}
