//! Gloo's Envoy.

use super::{Observer, Series};
use crate::{metrics::template::Model, snapshot::TargetKind};

/// Gloo's Envoy.
#[derive(Clone, Copy, Debug)]
pub struct Gloo;

impl Observer for Gloo {
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

/// The series of a version's requests.
fn series(model: &Model, version: &str) -> Series {
    let Model {
        namespace, service, ..
    } = model;
    // Gloo's Upstream has the name of the Service. (Flagger's query has the name of the target, and finds nothing if the two names
    // differ.) Flagger's selector ends with a comma.
    let cluster = format!(
        "envoy_cluster_name=~\"{namespace}-{service}-{version}upstream-[0-9a-zA-Z-]+_[0-9a-zA-Z-]+\","
    );
    Series {
        succeeded: format!("{cluster} envoy_response_code!~\"5.*\""),
        selector: cluster,
        requests: "envoy_cluster_upstream_rq",
        durations: "envoy_cluster_upstream_rq_time",
    }
}
