//! Latencies, by counts above the bounds of a histogram: averages of quantiles cannot be compared, and counts can.

use super::Counts;

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
        let is_compared =
            |bound: &f64| self.slower(*bound).is_some_and(is_compared) || own == Some(*bound);
        bounds
            .filter(|bound| bound.is_finite() && is_compared(bound))
            .collect()
    }
}

/// Whether so few requests of the primary are slower than a bound that they say little.
pub fn is_rare(slower: Counts) -> bool {
    slower.rate() < *SHARES.start()
}

/// Whether these requests of the primary, of which those slower than a bound are bad, are compared at the bound.
pub fn is_compared(slower: Counts) -> bool {
    SHARES.contains(&slower.rate())
}
