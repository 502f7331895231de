//! Kuma's Envoys, beside the pods.

use super::{Observer, Series};
use crate::metrics::template::Model;

/// Kuma's Envoys.
#[derive(Clone, Copy, Debug)]
pub struct Kuma;

impl Observer for Kuma {
    /// Kuma names the Service. (Flagger asks for the target's name, and finds nothing if `spec.service.name` is another.)
    fn series(&self, model: &Model) -> Series {
        let Model {
            namespace, service, ..
        } = model;
        // Flagger's selector ends with a comma.
        let selector = format!("service=~\"{service}-canary_{namespace}_svc_[0-9a-zA-Z-]+\",");
        Series {
            succeeded: format!("{selector} envoy_response_code!~\"5.*\""),
            selector,
            requests: "envoy_cluster_upstream_rq",
            durations: "envoy_cluster_upstream_rq_time",
        }
    }

    fn primary_series(&self, model: &Model, _primary: &str) -> Option<Series> {
        Some(self.series(model).renamed("-canary_", "-primary_"))
    }

    fn counts_pods(&self) -> bool {
        false
    }
}
