//! The sidecars of Open Service Mesh, at the destination. They report Deployments only.

use super::{Observer, Series};
use crate::metrics::template::Model;

/// Open Service Mesh's sidecars.
#[derive(Clone, Copy, Debug)]
pub struct Osm;

impl Observer for Osm {
    fn series(&self, model: &Model) -> Series {
        let Model {
            namespace, target, ..
        } = model;
        Series::new(
            format!(
                "destination_namespace=\"{namespace}\", destination_kind=\"Deployment\", destination_name=\"{target}\""
            ),
            "response_code!~\"5.*\"",
            "osm_request_total",
            "osm_request_duration_ms",
        )
    }
}
