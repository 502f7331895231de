//! The checks of a step: webhooks, gates, and metrics.

pub mod comparisons;
pub mod gates;
pub mod hooks;
pub mod measurements;
pub mod metric_query;
pub mod metric_servers;
pub mod metric_templates;
pub mod metrics;
pub mod pods;

use super::status::FailedCheck;

/// The reason why a check holds a release back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Halt {
    /// The text of the event, in Flagger's words.
    pub event: String,
    /// The same reason for the condition `Verdict` and the record.
    pub failed: FailedCheck,
}
