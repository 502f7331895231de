//! No routes: clients reach the canary only through its own Service (Flagger: `pkg/router/nop.go`). All ports of the apex Service lead to the
//! primary, and neither `spec.service.match` nor `spec.analysis.match` is used.

use std::collections::BTreeSet;

use super::{RouteError, Router};
use crate::{
    api::canary::{Canary, CanaryPhase},
    snapshot::{ObjectRef, Snapshot, Weights, Write},
};

/// The router of canaries without a mesh or an ingress.
#[derive(Clone, Copy, Debug)]
pub struct Kubernetes;

impl Router for Kubernetes {
    fn objects(&self, _canary: &Canary) -> BTreeSet<ObjectRef> {
        BTreeSet::new()
    }

    fn repairs(
        &self,
        _snapshot: &Snapshot,
        _selector: &(String, String),
        _weights: &Weights,
    ) -> Result<Vec<Write>, RouteError> {
        Ok(Vec::new())
    }

    /// All traffic counts as the canary's from the first iteration on, as in Flagger. Before the initialization is completed there is no
    /// iteration, whatever an edited status says.
    fn current_weights(&self, snapshot: &Snapshot) -> Result<Weights, RouteError> {
        let is_initialized = !matches!(
            snapshot.phase(),
            CanaryPhase::New | CanaryPhase::Initializing
        );
        let has_begun = is_initialized && snapshot.status().iterations > 0;
        Ok(if has_begun {
            Weights::CANARY
        } else {
            Weights::PRIMARY
        })
    }

    fn set_weights(
        &self,
        _snapshot: &Snapshot,
        _weights: &Weights,
    ) -> Result<Vec<Write>, RouteError> {
        Ok(Vec::new())
    }

    fn reverted(&self, _snapshot: &Snapshot) -> Option<Write> {
        None
    }

    fn splits_traffic(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::routers::tests::{canary_analysis, snapshot};

    #[test]
    fn without_routes_the_weights_follow_from_the_iterations() {
        for (status, weights) in [
            (json!({}), Weights::PRIMARY),
            (
                json!({"phase": "Progressing", "iterations": 1}),
                Weights::CANARY,
            ),
            (
                json!({"phase": "Initializing", "iterations": 1}),
                Weights::PRIMARY,
            ),
        ] {
            let snapshot = snapshot("kubernetes", json!({"port": 80}), canary_analysis(), status);
            assert_eq!(Kubernetes.current_weights(&snapshot), Ok(weights));
            assert_eq!(
                Kubernetes.set_weights(&snapshot, &Weights::canary(50)),
                Ok(vec![])
            );
            assert!(Kubernetes.objects(&snapshot.canary).is_empty());
        }
    }
}
