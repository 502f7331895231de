//! Gloo's Envoy.

use super::{Observer, Series};
use crate::metrics::template::Model;

/// Gloo's Envoy.
#[derive(Clone, Copy, Debug)]
pub struct Gloo;

impl Observer for Gloo {
    fn series(&self, model: &Model) -> Series {
        let Model {
            namespace, service, ..
        } = model;
        // The Upstream has the name of the Service. (Flagger's query has that of the target, and finds nothing if they differ.) Flagger's
        // selector ends with a comma.
        let cluster = format!(
            "envoy_cluster_name=~\"{namespace}-{service}-canaryupstream-[0-9a-zA-Z-]+_[0-9a-zA-Z-]+\","
        );
        Series {
            succeeded: format!("{cluster} envoy_response_code!~\"5.*\""),
            selector: cluster,
            requests: "envoy_cluster_upstream_rq",
            durations: "envoy_cluster_upstream_rq_time",
        }
    }

    fn primary_series(&self, model: &Model, _primary: &str) -> Option<Series> {
        Some(
            self.series(model)
                .renamed("-canaryupstream-", "-primaryupstream-"),
        )
    }

    fn counts_pods(&self) -> bool {
        false
    }
}
