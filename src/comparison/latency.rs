//! Latencies, by counts above the bounds of a histogram: averages of quantiles cannot be compared, and counts can.

use serde::{Deserialize, Serialize};

use super::{Comparison, Counts, Margin, Measure, Window, sequential::mean_of_powers};

/// The share of the primary's requests above a bound that is compared: fewer are too rare, and more are the normal case.
const SHARES: std::ops::RangeInclusive<f64> = 0.005..=0.3;

/// A cumulative histogram of Prometheus: for each bound, in the order of the bounds, the requests that were not slower. The bound of the last
/// bucket is infinite.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram(Vec<(f64, f64)>);

impl Histogram {
    /// A histogram from its buckets. `None` if they are none: without the infinite bucket, or with counts that decrease.
    pub fn new(mut buckets: Vec<(f64, f64)>) -> Option<Self> {
        buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
        let is_infinite = buckets
            .last()
            .is_some_and(|(bound, _)| *bound == f64::INFINITY);
        let grows = buckets.windows(2).all(|pair| pair[0].1 <= pair[1].1);
        let is_count = |count: f64| count.is_finite() && count >= 0.0;
        let are_counts = buckets.iter().all(|(_, count)| is_count(*count));
        (is_infinite && grows && are_counts).then_some(Self(buckets))
    }

    /// The requests, of which those slower than this bound are bad; `None` if the histogram does not have the bound.
    pub fn slower(&self, bound: f64) -> Option<Counts> {
        let (_, all) = self.0.last()?;
        let (_, fast) = self.0.iter().find(|(of, _)| of.total_cmp(&bound).is_eq())?;
        Counts::new(*all, all - fast)
    }

    /// The bounds that are compared in a run: those that between 0.5 % and 30 % of the primary's requests exceed, and the user's own one.
    pub fn bounds(&self, own: Option<f64>) -> Vec<f64> {
        let bounds = self.0.iter().map(|(bound, _)| *bound);
        let is_compared = |bound: &f64| {
            let rate = self.slower(*bound).map(Counts::rate);
            rate.is_some_and(|rate| SHARES.contains(&rate)) || own == Some(*bound)
        };
        bounds
            .filter(|bound| bound.is_finite() && is_compared(bound))
            .collect()
    }
}

/// A comparison at several bounds. The mean of e-values is an e-value, so no bound has to prove more than one alone would.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Latencies(Vec<(f64, Comparison)>);

impl Latencies {
    /// A test at the start of a run. `history` has the primary's requests of the hour before; the bounds stay the same for the run.
    pub fn new(margin: Margin, history: &Histogram, own: Option<f64>) -> Self {
        let bounds = history.bounds(own).into_iter();
        let tests = bounds.filter_map(|bound| {
            let slower = history.slower(bound)?;
            Some((bound, Comparison::new(Measure::Latency, margin, slower)))
        });
        Self(tests.collect())
    }

    /// The bounds that are compared.
    pub fn bounds(&self) -> impl Iterator<Item = f64> {
        self.0.iter().map(|(bound, _)| *bound)
    }

    /// Adds the requests since the last window. A histogram that lacks a bound adds nothing to its test.
    pub fn add(&mut self, canary: &Histogram, primary: &Histogram) {
        for (bound, test) in &mut self.0 {
            if let (Some(canary), Some(primary)) = (canary.slower(*bound), primary.slower(*bound)) {
                test.add(Window { canary, primary });
            }
        }
    }

    /// The evidence that the canary is slower than the margin allows: the natural logarithm of an e-value; 0 without a bound.
    pub fn worse(&self, dispersion: f64) -> f64 {
        self.mean(|test| test.worse(dispersion))
    }

    /// The evidence that the canary is within the margin at all bounds: the natural logarithm of an e-value.
    pub fn not_worse(&self, dispersion: f64) -> f64 {
        // One bound that is not proven leaves the whole unproven.
        let tests = self.0.iter().map(|(_, test)| test.not_worse(dispersion));
        tests.reduce(f64::min).unwrap_or(0.0)
    }

    fn mean(&self, of: impl Fn(&Comparison) -> f64) -> f64 {
        if self.0.is_empty() {
            return 0.0;
        }
        let powers: Vec<_> = self.0.iter().map(|(_, test)| of(test)).collect();
        mean_of_powers(&powers)
    }
}
