//! Compares the canary's requests with those of the primary: whether more of the canary's are bad than margins allow.
//!
//! With few requests, a threshold that is checked once a minute decides by chance. The test here counts requests and asks for evidence that
//! the counts are not chance. It may be repeated at any time and as often as needed: the probability that it *ever* raises a false alarm in
//! a run is at most the chosen one. The module is pure; `rollout/checks/comparisons.rs` uses it in a release, and `examples/verdicts`
//! measures it.
//!
//! | question | place |
//! | --- | --- |
//! | Which counts are compared, and with which margins? | [`Counts`], [`Window`], [`Margin`] |
//! | What is the formula, and why does it hold? | [`Comparison`], in `sequential.rs` |
//! | How are latencies compared? | `latency.rs`: requests slower than a bound are bad |
//! | How does a metric come to its finding at a step? | [`MetricTest`], in `metric_test.rs` |
//! | What if requests depend on each other, or pods differ? | [`dispersion`] |
//! | What if the primary's rate has changed before the run? | `history.rs` |
//! | Is the version bad, or one of its pods? | [`pods`] |
//! | Does the canary get its share of the requests? | [`share`] |
//! | How many requests are needed? | [`requests_to_detect`] |
//! | How do counters of pods become counts? | [`counters`] |

pub mod counters;
pub mod counts;
pub mod dispersion;
mod history;
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

/// Whether evidence suffices to reject a null hypothesis. `evidence` is the natural logarithm of an e-value. If the hypothesis is true, the
/// probability that the evidence ever suffices in a run is at most `false_alarms` (Ville's inequality).
pub fn is_proven(evidence: f64, false_alarms: f64) -> bool {
    evidence >= -false_alarms.ln()
}
