//! The built-in metrics: Flagger's exact queries, by what reports them (`pkg/metrics/observers`).

use super::template::Model;

/// Who reports the built-in metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observer {
    /// Istio's telemetry, at the destination.
    Istio,
}

/// The built-in metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Builtin {
    /// `request-success-rate`: percent of the requests that did not fail.
    SuccessRate,
    /// `request-duration`: the 99th percentile, in milliseconds.
    Duration,
}

impl Builtin {
    /// The built-in metric of this name.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "request-success-rate" => Some(Self::SuccessRate),
            "request-duration" => Some(Self::Duration),
            _ => None,
        }
    }
}

impl Observer {
    /// The query of a built-in metric. (The leading space is Flagger's: servers that are mocked by their query see no difference.)
    pub fn query(self, metric: Builtin, model: &Model) -> String {
        let Model {
            namespace,
            target,
            interval,
            ..
        } = model;
        match (self, metric) {
            (Self::Istio, metric) => {
                let selector = format!(
                    "reporter=\"destination\", destination_workload_namespace=\"{namespace}\", destination_workload=~\"{target}\""
                );
                match metric {
                    Builtin::SuccessRate => format!(
                        " sum( rate( istio_requests_total{{ {selector}, response_code!~\"5.*\" }}[{interval}] ) ) / sum( rate( istio_requests_total{{ {selector} }}[{interval}] ) ) * 100"
                    ),
                    Builtin::Duration => format!(
                        " histogram_quantile( 0.99, sum( rate( istio_request_duration_milliseconds_bucket{{ {selector} }}[{interval}] ) ) by (le) )"
                    ),
                }
            }
        }
    }
}
