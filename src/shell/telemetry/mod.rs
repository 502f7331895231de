//! Logs, metrics and health checks of the operator.

pub mod canary_metrics;
pub mod logs;
mod metric;
pub mod operator_metrics;
pub mod page;
mod series;
pub mod server;

pub use metric::{Metric, MetricKind};

/// Returns every metric that the operator exports, for the reference documentation: Flagger's first, then those of the operator itself.
pub fn exported_metrics() -> impl Iterator<Item = &'static Metric> {
    canary_metrics::METRICS
        .iter()
        .chain(&operator_metrics::METRICS)
        .copied()
}
