//! Istio's telemetry: as the proxy at the destination reports it, which is the sidecar of a pod or in the ambient mode the waypoint of a
//! Service; or as the proxy that sends the requests reports it, such as a gateway.

use super::{Named, Observer, Series};
use crate::metrics::template::Model;

/// Istio's telemetry by sidecars, which Flagger's queries ask for. Counts are also taken from waypoints.
#[derive(Clone, Copy, Debug)]
pub struct Istio;

/// Istio's telemetry by waypoints only.
#[derive(Clone, Copy, Debug)]
pub struct Waypoint;

/// Istio's telemetry by gateways and by the sidecars of callers, for pods without a sidecar. While the pods have sidecars, these report
/// the same requests.
#[derive(Clone, Copy, Debug)]
pub struct Gateway;

impl Observer for Istio {
    fn series(&self, model: &Model) -> Series {
        reported("=\"destination\"", model)
    }

    fn counted(&self, model: &Model) -> Series {
        reported("=~\"destination|waypoint\"", model)
    }

    fn named(&self) -> Named {
        Named::Workloads
    }
}

impl Observer for Waypoint {
    fn series(&self, model: &Model) -> Series {
        reported("=\"waypoint\"", model)
    }

    fn named(&self) -> Named {
        Named::Workloads
    }
}

impl Observer for Gateway {
    fn series(&self, model: &Model) -> Series {
        reported("=\"source\"", model)
    }

    fn named(&self) -> Named {
        Named::Workloads
    }
}

/// The series by these reporters. Each of them names the workload of the pod that answered.
fn reported(by: &str, model: &Model) -> Series {
    let Model {
        namespace, target, ..
    } = model;
    Series::new(
        format!(
            "reporter{by}, destination_workload_namespace=\"{namespace}\", destination_workload=~\"{target}\""
        ),
        "response_code!~\"5.*\"",
        "istio_requests_total",
        "istio_request_duration_milliseconds",
    )
}
