//! Kuma's Envoys, beside the pods.

use super::{Observer, Series};
use crate::{metrics::template::Model, snapshot::TargetKind};

/// Kuma's Envoys.
#[derive(Clone, Copy, Debug)]
pub struct Kuma;

impl Observer for Kuma {
    fn series(&self, model: &Model) -> Series {
        series(model, "canary")
    }

    fn primary_series(&self, model: &Model, _primary: &str) -> Option<Series> {
        Some(series(model, "primary"))
    }

    fn counts_pods(&self) -> bool {
        false
    }

    fn compares(&self, _kind: TargetKind) -> bool {
        true
    }
}

/// Kuma names the Service. (Flagger asks for the target's name, and finds nothing if `spec.service.name` is another.)
fn series(model: &Model, version: &str) -> Series {
    let Model {
        namespace, service, ..
    } = model;
    // Flagger's selector ends with a comma.
    let selector = format!("service=~\"{service}-{version}_{namespace}_svc_[0-9a-zA-Z-]+\",");
    Series {
        succeeded: format!("{selector} envoy_response_code!~\"5.*\""),
        selector,
        requests: "envoy_cluster_upstream_rq",
        durations: "envoy_cluster_upstream_rq_time",
    }
}
