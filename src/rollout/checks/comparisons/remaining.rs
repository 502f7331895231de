//! The requests that a version still gets after a rollback has moved its traffic away. A proxy that lags sends them to pods that are about to
//! end. (Not in Flagger, which scales down at once.)

use jiff::{SignedDuration, Timestamp};

use super::{Comparing, comparisons};
use crate::{
    api::{
        canary::{Canary, CanaryAnalysis},
        compare::COMPARED_TWICE,
        percent::Percent,
    },
    comparison::Measure,
    metrics::counting::{self, LAG},
    rollout::{
        checks::metric_query::checks,
        plan::{Evidence, Question},
    },
    snapshot::Snapshot,
};

/// After this many intervals, a version is scaled down whatever it gets: a caller may use the version's own Service.
const MOST: i32 = 5;
/// A smaller share of all requests counts as none.
const NONE: f64 = 0.001;
/// With `decimalStepWeights`, a share counts as none only if it is also smaller than this part of the first step.
const PART_OF_FIRST: f64 = 0.1;

/// Whether a version still gets requests.
#[derive(Clone, Debug, PartialEq)]
pub enum Remaining {
    /// Ask this question first.
    Ask(Question),
    /// It gets none, or nothing tells.
    None,
    /// It does. At this time it is measured again.
    Some {
        /// The time of the next measurement.
        until: Timestamp,
        /// The requests of the version.
        canary: f64,
        /// The requests of both versions.
        all: f64,
    },
}

/// Whether the canary still gets requests, after its traffic has moved away at `since`. Only a comparison of errors that decides has the
/// counters for it.
pub fn remaining(snapshot: &Snapshot, evidence: &Evidence, since: Timestamp) -> Remaining {
    let checks = checks(&snapshot.canary);
    let all = comparisons(snapshot, &checks);
    let counts = |it: &&Comparing<'_>| it.decides() && it.setting.measure == Measure::Errors;
    let (Some(comparing), Some(interval)) = (all.iter().find(counts), interval(snapshot)) else {
        return Remaining::None;
    };
    let waited = snapshot.now.duration_since(since);
    let Some(passed) = (1..=MOST).rev().find(|it| interval * *it <= waited) else {
        return Remaining::None;
    };
    if passed == MOST {
        return Remaining::None;
    }
    let to = counting::instant(later(since, interval * passed));
    // Proxies apply the route first, and counters show requests late.
    let from = later(since, 2 * LAG).max(later(to, -interval));
    let before = to.duration_since(from);
    let start = before;
    let query = comparing
        .setting
        .counted
        .errors(counting::Window { before, start });
    let series = match comparing.answer(snapshot, evidence, "remaining", (&query, to)) {
        Some(Ok(series)) => series,
        Some(Err(_)) => return Remaining::None,
        None => {
            let question = comparing.question("remaining", &query, to, snapshot);
            return question.map_or(Remaining::None, Remaining::Ask);
        }
    };
    let window = comparing.setting.counted.read_errors(series).window();
    let (canary, all) = (window.canary.all(), window.canary.and(window.primary).all());
    if canary <= none(&snapshot.canary) * all {
        return Remaining::None;
    }
    let until = later(since, interval * (passed + 1));
    Remaining::Some { until, canary, all }
}

/// The share of all requests that counts as none.
fn none(canary: &Canary) -> f64 {
    let analysis = canary.spec.analysis.as_ref();
    if analysis.is_some_and(CanaryAnalysis::has_decimals) {
        NONE.min(PART_OF_FIRST * canary.next_weight(Percent::ZERO).share())
    } else {
        NONE
    }
}

/// The interval; `None` if it is too short, because counters are late.
fn interval(snapshot: &Snapshot) -> Option<SignedDuration> {
    let interval = snapshot.canary.interval();
    let is_long = interval >= COMPARED_TWICE;
    is_long.then(|| SignedDuration::try_from(interval).ok())?
}

fn later(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.saturating_add(by).unwrap_or(at)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_a_run_with_finer_steps_waits_for_a_smaller_share() {
        for (analysis, share) in [
            (json!({"iterations": 5}), 0.001),
            (json!({"stepWeight": 1}), 0.001),
            (json!({"decimalStepWeights": [5, 50]}), 0.001),
            (json!({"decimalStepWeights": [0.1, 50]}), 0.000_1),
        ] {
            let mut canary = Canary::new("web", serde_json::from_value(json!({"targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}, "service": {"port": 80}})).unwrap());
            canary.spec.analysis = Some(serde_json::from_value(analysis.clone()).unwrap());
            let difference = none(&canary) - share;
            assert!(difference.abs() < 1e-9, "{analysis}");
        }
    }
}
