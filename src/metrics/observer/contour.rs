//! Contour's Envoy.

use super::{Named, Observer, Series, of_envoy};
use crate::metrics::template::Model;

/// Contour's Envoy.
#[derive(Clone, Copy, Debug)]
pub struct Contour;

impl Observer for Contour {
    fn series(&self, model: &Model) -> Series {
        let Model {
            namespace, service, ..
        } = model;
        let version = model.version();
        of_envoy(&format!(
            "envoy_cluster_name=~\"{namespace}_{service}-{version}_[0-9a-zA-Z-]+\""
        ))
    }

    fn named(&self) -> Named {
        Named::Services
    }
}
