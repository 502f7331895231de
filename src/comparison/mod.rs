//! Compares the canary's requests with those of the primary: whether more of the canary's are bad than margins allow.
//!
//! A threshold that is asked once a minute decides by chance when there are few requests. The test here counts requests, asks for evidence
//! that such counts are not chance, and may be asked at any time and as often as one likes: the probability that it *ever* raises a false
//! alarm in a run is at most the chosen one. Pure;
//! `rollout/checks/comparisons.rs` uses it in a release, and `examples/verdicts` measures it.
//!
//! | question | place |
//! | --- | --- |
//! | Which counts are compared, and with which margins? | [`Counts`], [`Window`], [`Margin`] |
//! | What is the formula, and why does it hold? | [`Comparison`], in `sequential.rs` |
//! | How are latencies compared? | `latency.rs`: requests slower than a bound are bad |
//! | How does a metric come to its finding at a step? | [`MetricTest`], in `metric_test.rs` |
//! | What if requests depend on each other, or pods differ? | [`dispersion`] |
//! | Is the version bad, or one of its pods? | [`pods`] |
//! | Does the canary get its share of the requests? | [`share`] |
//! | How many requests are needed? | [`requests_to_detect`] |
//! | How do counters of pods become counts? | [`counters`] |

pub mod counters;
pub mod counts;
pub mod dispersion;
pub mod latency;
pub mod metric_test;
pub mod pods;
pub mod power;
pub mod sequential;
pub mod share;
#[cfg(test)]
mod tests;

pub use counts::{Counts, Margin, Window};
pub use metric_test::{Arms, Finding, MetricTest, Readings, Rules, State};
pub use power::requests_to_detect;
pub use sequential::{Comparison, Measure};

/// Whether evidence suffices to reject what it speaks against. `evidence` is the natural logarithm of an e-value. Without any difference,
/// it suffices at some time of a run with the probability `false_alarms` at most (Ville's inequality).
pub fn is_proven(evidence: f64, false_alarms: f64) -> bool {
    evidence >= -false_alarms.ln()
}
