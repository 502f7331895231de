//! Compares latencies by the number of requests above the bounds of a histogram. Averages of quantiles cannot be compared, but counts can.

use super::Counts;

/// The share of the primary's requests above a bound that is compared. A smaller share is too rare to show a difference, and a larger one
/// is the normal case.
const SHARES: std::ops::RangeInclusive<f64> = 0.005..=0.3;

/// Whether the requests of the primary that are slower than a bound are too rare to show a difference.
pub fn is_rare(slower: Counts) -> bool {
    slower.rate() < *SHARES.start()
}

/// Whether the versions are compared at a bound. `slower` has the primary's requests, of which those slower than the bound are bad.
pub fn is_compared(slower: Counts) -> bool {
    SHARES.contains(&slower.rate())
}
