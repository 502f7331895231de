//! A metric that is replayed: the queries about it, its requests, and the limits that it is judged by.

use super::history::History;
use crate::{
    api::compare::{OnUndecided, Policy},
    comparison::{Counts, Measure, MetricTest, Rules},
    metrics::{
        TimeSeries,
        counting::{self, Counted, minutes::Tally},
    },
    rollout::Comparable,
};

/// A metric, and the requests that it is about.
#[derive(Clone, Debug)]
pub struct ReplayedMetric {
    /// Its name.
    pub name: String,
    /// The rules of the comparison.
    pub rules: Rules,
    /// The treatment of steps that cannot be compared.
    pub policies: Policies,
    /// The threshold; `None` if there is none.
    pub limit: Option<Limit>,
    /// The minutes whose requests the threshold is about.
    pub window: usize,
    /// The bounds of durations that requests are counted by, in ascending order; empty for errors.
    pub bounds: Vec<f64>,
    /// The bound that is the user's own threshold, if the histogram has it.
    pub own: Option<f64>,
    /// The requests.
    pub history: History,
    compared: Vec<f64>,
    counted: Counted,
}

/// The treatment of steps that cannot be compared.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Policies {
    /// Of a version without requests.
    pub no_data: Policy,
    /// Of a version with too few requests.
    pub low_traffic: Policy,
    /// The number of steps for which a run waits for requests.
    pub max_extend: f64,
    /// The decision after this wait.
    pub on_undecided: OnUndecided,
}

/// The limit of a threshold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Limit {
    /// The least and the greatest success rate, in percent.
    SuccessRate(Option<f64>, Option<f64>),
    /// The greatest 99th percentile lies between two bounds of the histogram: the place of the lower one among the bounds (`None`: 0), that
    /// of the upper one, and the position between them, from 0 to 1. Like Prometheus, it assumes that durations between two bounds are evenly spread.
    Duration(Option<usize>, usize, f64),
    /// The greatest 99th percentile is above all finite bounds, which Prometheus never reports.
    Never,
}

impl Limit {
    /// Whether a check of these requests passes. Without a request there is no value, so it fails.
    pub fn passes(self, window: &Tally) -> bool {
        let slower = |place: usize| window.bad.get(place).copied().unwrap_or(0.0);
        if window.all <= 0.0 {
            return false;
        }
        match self {
            Self::SuccessRate(min, max) => {
                let rate = (1.0 - slower(0) / window.all) * 100.0;
                min.is_none_or(|min| rate >= min) && max.is_none_or(|max| rate <= max)
            }
            Self::Duration(lower, upper, position) => {
                let (from, to) = (lower.map_or(window.all, slower), slower(upper));
                (to - from).mul_add(position, from) <= 0.01 * window.all
            }
            Self::Never => true,
        }
    }
}

impl ReplayedMetric {
    /// A metric of errors, or of durations with the primary's buckets of an hour. The reason is returned if there is nothing to replay.
    pub fn of(comparable: Comparable, buckets: &[TimeSeries]) -> Result<Self, String> {
        let Comparable {
            metric,
            counted,
            rules,
            compare,
            no_data,
            low_traffic,
            limits,
            window,
            unit_millis,
            is_asked: _,
        } = comparable;
        let mut replayed = Self {
            name: metric,
            rules,
            policies: Policies {
                no_data,
                low_traffic,
                max_extend: compare.max_extend(),
                on_undecided: compare.on_undecided.unwrap_or_default(),
            },
            limit: limits.map(|(min, max)| Limit::SuccessRate(min, max)),
            window: usize::try_from(window.as_secs().div_ceil(60))
                .unwrap_or(usize::MAX)
                .max(1),
            bounds: Vec::new(),
            own: None,
            history: History::default(),
            compared: Vec::new(),
            counted,
        };
        if replayed.rules.measure == Measure::Latency {
            let max = limits.and_then(|(_, max)| max);
            replayed.choose(&counting::duration_blocks(buckets), max, unit_millis)?;
        }
        Ok(replayed)
    }

    /// Chooses the bounds: those that are compared, and those around the threshold.
    fn choose(
        &mut self,
        buckets: &[(f64, Vec<Counts>)],
        max: Option<f64>,
        unit_millis: f64,
    ) -> Result<(), String> {
        let bounds: Vec<_> = buckets.iter().map(|(bound, _)| *bound).collect();
        if bounds.is_empty() {
            return Err("the primary has no buckets of durations".to_owned());
        }
        let own = |bound: &f64| counting::is_bound(*bound, unit_millis, max);
        self.own = bounds.iter().copied().find(own);
        let max = max.map(|millis| millis / unit_millis);
        let upper = { bounds.iter() }.position(|bound| max.is_some_and(|max| *bound >= max));
        let upper_bound = upper.map(|place| bounds[place]);
        let lower_bound = upper.and_then(|place| Some(bounds[place.checked_sub(1)?]));
        let test = MetricTest::of_durations(&self.rules, buckets, self.own);
        self.compared = test.bounds().collect();
        let mut all: Vec<_> = { self.compared.iter().copied() }
            .chain(upper_bound)
            .chain(lower_bound)
            .collect();
        all.sort_by(f64::total_cmp);
        all.dedup();
        self.bounds = all;
        self.limit = max.map(|max| match upper_bound {
            None => Limit::Never,
            Some(upper) => {
                let from = lower_bound.unwrap_or(0.0);
                let position = (max - from) / (upper - from);
                let lower = lower_bound.and_then(|bound| self.place(bound));
                Limit::Duration(lower, self.place(upper).unwrap_or(0), position)
            }
        });
        Ok(())
    }

    /// The query for the requests of each of the primary's pods in each minute of an hour.
    pub fn query(&self) -> String {
        if self.bounds.is_empty() {
            self.counted.pod_errors()
        } else {
            self.counted.pod_durations(&self.bounds)
        }
    }

    /// Adds the answer to [`ReplayedMetric::query`] about the hour after all others.
    pub fn add(&mut self, samples: &[TimeSeries]) {
        let counters = if self.bounds.is_empty() {
            self.counted.read_pod_errors(samples)
        } else {
            self.counted.read_pod_durations(samples, &self.bounds)
        };
        self.history.add(counters);
    }

    /// The place of a bound.
    pub fn place(&self, bound: f64) -> Option<usize> {
        let mut bounds = self.bounds.iter();
        bounds.position(|it| it.total_cmp(&bound).is_eq())
    }

    /// The bounds that are compared, with their places.
    pub fn compared(&self) -> impl Iterator<Item = (usize, f64)> {
        let place = |bound: &f64| Some((self.place(*bound)?, *bound));
        self.compared.iter().filter_map(place)
    }

    /// The criterion that the report shows: errors, or the bound of the threshold, or the lowest one.
    pub fn shown(&self) -> usize {
        match self.limit {
            Some(Limit::Duration(_, upper, _)) => upper,
            Some(Limit::SuccessRate(..) | Limit::Never) | None => 0,
        }
    }
}
