//! Knative's gateway, an Envoy. It names the Revision.

use super::{Named, Observer, Series, of_envoy};
use crate::metrics::template::Model;

/// Knative's gateway.
#[derive(Clone, Copy, Debug)]
pub struct Knative;

impl Observer for Knative {
    fn series(&self, model: &Model) -> Series {
        let Model {
            namespace,
            target,
            route,
            ..
        } = model;
        let revision = if model.is_primary { target } else { route };
        of_envoy(&format!("envoy_cluster_name=~\"{namespace}/{revision}\""))
    }

    fn named(&self) -> Named {
        Named::Services
    }
}
