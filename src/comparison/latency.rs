//! Latencies, by counts above the bounds of a histogram: averages of quantiles cannot be compared, and counts can.

use super::Counts;

/// The share of the primary's requests above a bound that is compared: fewer are too rare, and more are the normal case.
const SHARES: std::ops::RangeInclusive<f64> = 0.005..=0.3;

/// Whether so few requests of the primary are slower than a bound that they say little.
pub fn is_rare(slower: Counts) -> bool {
    slower.rate() < *SHARES.start()
}

/// Whether these requests of the primary, of which those slower than a bound are bad, are compared at the bound.
pub fn is_compared(slower: Counts) -> bool {
    SHARES.contains(&slower.rate())
}
