//! Gloo's Envoy.

use super::{Named, Observer, Series, of_envoy};
use crate::metrics::template::Model;

/// Gloo's Envoy.
#[derive(Clone, Copy, Debug)]
pub struct Gloo;

impl Observer for Gloo {
    /// Gloo's Upstream has the name of the Service. (Flagger's query has the name of the target, and finds nothing if the two names
    /// differ.)
    fn series(&self, model: &Model) -> Series {
        let Model {
            namespace, service, ..
        } = model;
        let version = model.version();
        of_envoy(&format!(
            "envoy_cluster_name=~\"{namespace}-{service}-{version}upstream-[0-9a-zA-Z-]+_[0-9a-zA-Z-]+\""
        ))
    }

    fn named(&self) -> Named {
        Named::Services
    }
}
