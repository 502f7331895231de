//! Knative's gateway, an Envoy. It names the Revision.

use super::{Observer, Series};
use crate::{metrics::template::Model, snapshot::TargetKind};

/// Knative's gateway.
#[derive(Clone, Copy, Debug)]
pub struct Knative;

impl Observer for Knative {
    fn series(&self, model: &Model) -> Series {
        let Model {
            namespace, route, ..
        } = model;
        // Flagger's selector ends with a comma.
        let selector = format!("envoy_cluster_name=~\"{namespace}/{route}\",");
        Series {
            succeeded: format!("{selector} envoy_response_code!~\"5.*\""),
            selector,
            requests: "envoy_cluster_upstream_rq",
            durations: "envoy_cluster_upstream_rq_time",
        }
    }

    fn primary_series(&self, model: &Model, primary: &str) -> Option<Series> {
        let route = primary.to_owned();
        Some(self.series(&Model {
            route,
            ..model.clone()
        }))
    }

    fn counts_pods(&self) -> bool {
        false
    }

    fn compares(&self, kind: TargetKind) -> bool {
        kind == TargetKind::Knative
    }
}
