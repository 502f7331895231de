//! App Mesh's Envoy, beside the pod.

use super::{Observer, Series, of_pods};
use crate::metrics::template::Model;

/// App Mesh's Envoy.
#[derive(Clone, Copy, Debug)]
pub struct AppMesh;

impl Observer for AppMesh {
    fn series(&self, model: &Model) -> Series {
        Series::new(
            of_pods(model),
            "envoy_response_code!~\"5.*\"",
            "envoy_cluster_upstream_rq",
            "envoy_cluster_upstream_rq_time",
        )
    }
}
