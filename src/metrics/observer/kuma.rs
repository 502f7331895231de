//! Kuma's Envoys, beside the pods.

use super::{Named, Observer, Series, of_envoy};
use crate::metrics::template::Model;

/// Kuma's Envoys.
#[derive(Clone, Copy, Debug)]
pub struct Kuma;

impl Observer for Kuma {
    /// Kuma names the Service. (Flagger asks for the target's name, and finds nothing if `spec.service.name` is another.)
    fn series(&self, model: &Model) -> Series {
        let Model {
            namespace, service, ..
        } = model;
        let version = model.version();
        of_envoy(&format!(
            "service=~\"{service}-{version}_{namespace}_svc_[0-9a-zA-Z-]+\""
        ))
    }

    fn named(&self) -> Named {
        Named::Services
    }
}
