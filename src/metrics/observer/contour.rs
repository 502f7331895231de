//! Contour's Envoy.

use super::{Observer, Series};
use crate::metrics::template::Model;

/// Contour's Envoy.
#[derive(Clone, Copy, Debug)]
pub struct Contour;

impl Observer for Contour {
    fn series(&self, model: &Model) -> Series {
        let Model {
            namespace, service, ..
        } = model;
        // Flagger's selector ends with a comma.
        let cluster =
            format!("envoy_cluster_name=~\"{namespace}_{service}-canary_[0-9a-zA-Z-]+\",");
        Series {
            succeeded: format!("{cluster} envoy_response_code!~\"5.*\""),
            selector: cluster,
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
