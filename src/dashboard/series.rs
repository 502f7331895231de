//! The measurements of one metric, as the points of a chart and the rows of its table.

use jiff::Timestamp;

use crate::{
    api::{
        percent::Percent,
        release::{Comparison, Measured, ReleaseSpec, RunEvidence},
    },
    records,
};

/// The maximum number of points of a chart. The newest ones are shown.
const POINTS: usize = 120;

/// The evidence of a record; `None` if there is none, or if it cannot be read.
pub fn evidence(spec: &ReleaseSpec) -> Option<RunEvidence> {
    records::unpack(spec.evidence.as_deref()?)
}

/// The measurements of a metric.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Series {
    /// Whether the canary is compared with the primary. The values are then the bad requests of each step in percent.
    pub is_compared: bool,
    /// The measurements, oldest first.
    pub points: Vec<Point>,
}

/// One measurement.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Point {
    /// When the step ended.
    pub at: Option<Timestamp>,
    /// The intended traffic of the canary, in percent.
    pub weight: Percent,
    /// The value of the canary.
    pub canary: Option<f64>,
    /// The value of the primary.
    pub primary: Option<f64>,
    /// The measured traffic of the canary in this step, in percent.
    pub share: Option<f64>,
    /// The measurement as it was recorded.
    pub measured: Measured,
}

impl Series {
    /// The series of the metric at this place of the evidence.
    pub fn of(evidence: &RunEvidence, place: usize) -> Self {
        let found: Vec<_> = evidence
            .measurements
            .iter()
            .filter_map(|it| Some((it, it.values.iter().find(|value| value.metric == place)?)))
            .collect();
        let is_compared = found.iter().any(|(_, value)| value.comparison.is_some());
        let mut before = Comparison::default();
        let mut points = Vec::new();
        for (measurement, value) in found {
            let mut point = Point {
                at: measurement.at.as_ref().map(|at| at.0),
                weight: measurement.weight,
                measured: value.clone(),
                ..Point::default()
            };
            match &value.comparison {
                Some(now) => {
                    compare(&mut point, &before, now);
                    before = now.clone();
                }
                None if !is_compared => point.canary = value.value.filter(|it| it.is_finite()),
                None => {}
            }
            points.push(point);
        }
        points.drain(..points.len().saturating_sub(POINTS));
        Self {
            is_compared,
            points,
        }
    }
}

/// Computes the numbers of a step. The recorded counts are those of the run so far.
fn compare(point: &mut Point, before: &Comparison, now: &Comparison) {
    let canary = now.requests - before.requests;
    let primary = now.primary_requests - before.primary_requests;
    point.canary = percent(now.bad - before.bad, canary);
    point.primary = percent(now.primary_bad - before.primary_bad, primary);
    point.share = percent(canary, canary + primary);
}

fn percent(part: f64, all: f64) -> Option<f64> {
    let percent = 100.0 * part / all;
    (all > 0.0 && percent.is_finite()).then_some(percent.clamp(0.0, 100.0))
}
