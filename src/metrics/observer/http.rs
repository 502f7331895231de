//! Metrics of the application itself, under Prometheus' common names. It reports durations in seconds.

use super::{Builtin, Observer, Series, of_pods};
use crate::metrics::{MetricError, template::Model};

/// The application's own metrics.
#[derive(Clone, Copy, Debug)]
pub struct Http;

impl Observer for Http {
    fn series(&self, model: &Model) -> Series {
        Series::new(
            of_pods(model),
            "status!~\"5.*\"",
            "http_request_duration_seconds_count",
            "http_request_duration_seconds",
        )
    }

    fn millis(&self, duration: f64) -> f64 {
        (duration * 1000.0).trunc()
    }

    /// Flagger does not wrap the error of this one query.
    fn failure(&self, metric: Builtin, error: &MetricError) -> String {
        match metric {
            Builtin::SuccessRate => error.to_string(),
            Builtin::Duration => format!("running query failed: {error}"),
        }
    }

    fn unit_millis(&self) -> f64 {
        1000.0
    }
}
