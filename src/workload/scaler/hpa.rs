//! Kubernetes' own HorizontalPodAutoscaler (`autoscaling/v2`).

use serde_json::Value;

use super::override_replicas;
use crate::api::canary::AutoscalerRef;

/// What the primary's spec has in place of the target's.
pub fn for_primary(spec: &mut Value, reference: &AutoscalerRef) {
    override_replicas(spec, reference, ["minReplicas", "maxReplicas"]);
}
