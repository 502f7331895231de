//! Istio's telemetry, as the proxy at the destination reports it.

use super::{Named, Observer, Series};
use crate::metrics::template::Model;

/// Istio's telemetry.
#[derive(Clone, Copy, Debug)]
pub struct Istio;

impl Observer for Istio {
    fn series(&self, model: &Model) -> Series {
        let Model {
            namespace, target, ..
        } = model;
        Series::new(
            format!(
                "reporter=\"destination\", destination_workload_namespace=\"{namespace}\", destination_workload=~\"{target}\""
            ),
            "response_code!~\"5.*\"",
            "istio_requests_total",
            "istio_request_duration_milliseconds",
        )
    }

    fn named(&self) -> Named {
        Named::Workloads
    }
}
