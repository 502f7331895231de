//! Splits traffic between the primary and the canary, one file per router (Flagger: `pkg/router`). Pure.
//!
//! A router builds the objects that route traffic as values ([`Write`]) and reads the weights back from the objects that exist. It does
//! not decide which weights a release needs, and it does not know the names of providers: the table
//! `PROVIDERS` in `src/providers/mod.rs` does.
//!
//! A new router is a file with a [`Router`], a row in that table, rows for its kinds in the table of [`Kind`](crate::snapshot::Kind),
//! and a row in the table of `routers/tests/table.rs`.

mod adoption;
pub mod affinity;
pub mod apisix;
pub mod appmesh;
pub mod conditions;
pub mod contour;
mod error;
pub mod gateway_api;
pub mod gloo;
mod ingress;
pub mod istio;
pub mod knative;
pub mod kubernetes;
pub mod kuma;
pub mod nginx;
pub mod own_routes;
mod route;
pub mod skipper;
pub mod smi;
pub mod traefik;

use std::{collections::BTreeSet, fmt::Debug};

use crate::{
    api::canary::Canary,
    snapshot::{ObjectRef, Snapshot, Weights, Write, route_references::Named},
    workload::ports::Port,
};
use affinity::Cookies;
pub use error::RouteError;

/// A way to split traffic between the primary and the canary.
///
/// The defaults are those of a router that splits traffic by the weights of one object, and whose data plane does not report whether it has
/// applied the routes.
pub trait Router: Debug + Sync {
    /// The objects that this router reads or writes for a canary.
    fn objects(&self, canary: &Canary) -> BTreeSet<ObjectRef>;

    /// The objects of the user that this router only reads, and that several canaries may share. One that the canary may not read is left
    /// out.
    fn sources(&self, _snapshot: &Snapshot) -> BTreeSet<ObjectRef> {
        BTreeSet::new()
    }

    /// Whether the routes are the user's, in which the operator changes the weights and nothing else. The status of the Canary alone then
    /// shows how far a release is, and several canaries may set weights in one route.
    fn are_users(&self) -> bool {
        false
    }

    /// Creates or repairs the routes, with these weights if they are written. Returns no writes if the routes are correct for any weights.
    /// `selector` is the label that selects the target's pods. Objects that users had before the Canary keep their labels and annotations,
    /// and further annotations keep the former values that the operator changes.
    fn reconcile(
        &self,
        snapshot: &Snapshot,
        selector: &(String, String),
        weights: &Weights,
    ) -> Result<Vec<Write>, RouteError> {
        let writes = self.repairs(snapshot, selector, weights)?;
        let objects = self.objects(&snapshot.canary);
        Ok(adoption::kept(snapshot, &objects, writes))
    }

    /// The writes of [`reconcile`](Self::reconcile), as if all labels and annotations were the operator's.
    fn repairs(
        &self,
        snapshot: &Snapshot,
        selector: &(String, String),
        weights: &Weights,
    ) -> Result<Vec<Write>, RouteError>;

    /// Those writes of [`reconcile`](Self::reconcile) that create objects which must exist before pods start. The primary is created
    /// after them.
    fn before_pods(
        &self,
        _snapshot: &Snapshot,
        _selector: &(String, String),
    ) -> Result<Vec<Write>, RouteError> {
        Ok(Vec::new())
    }

    /// The weights of the routes that exist.
    fn current_weights(&self, snapshot: &Snapshot) -> Result<Weights, RouteError>;

    /// Changes the weights of the routes that exist. Returns no writes if they have these weights already.
    fn set_weights(&self, snapshot: &Snapshot, weights: &Weights)
    -> Result<Vec<Write>, RouteError>;

    /// Restores the next object as it was before the Canary, when the Canary is deleted. Returns `None` if there is nothing to restore.
    fn restore(&self, snapshot: &Snapshot) -> Option<Write> {
        let others = || adoption::given_back(snapshot, &self.objects(&snapshot.canary));
        self.reverted(snapshot).or_else(others)
    }

    /// The parts of a spec in which the routes name objects that may be in other namespaces.
    fn named(&self, _snapshot: &Snapshot) -> &'static [Named] {
        &[]
    }

    /// The write that leads requests to where they went before the Canary. Other objects of the user are given back after it.
    fn reverted(&self, snapshot: &Snapshot) -> Option<Write>;

    /// The user's route that would lose something if the operator adopted it, and the field; `None` if nothing would be lost. Such a route is
    /// not adopted.
    fn loses(&self, _snapshot: &Snapshot) -> Option<(ObjectRef, &'static str)> {
        None
    }

    /// Whether the operator makes a GRPCRoute, or has made one that may still lead requests. The status records this
    /// ([`ConditionType::GrpcRoute`](crate::api::status::ConditionType::GrpcRoute)).
    fn has_grpc_route(&self, _snapshot: &Snapshot) -> bool {
        false
    }

    /// Whether this router can split traffic by weight. If not, a release is always blue/green, and no event mentions routing.
    fn splits_traffic(&self) -> bool {
        true
    }

    /// Whether this router can split traffic by tenths of a percent (`analysis.decimalStepWeights`). Otherwise its smallest step is one
    /// percent. The documents of the data plane must promise this: that weights are relative, or that their sum can be set.
    fn splits_tenths(&self) -> bool {
        false
    }

    /// Whether this router can mirror requests to the canary. If not, `analysis.mirror` is ignored. (Flagger waits for ever for the
    /// copies.)
    fn mirrors(&self) -> bool {
        false
    }

    /// The further ports of the Services (`portDiscovery`) to which requests of the mesh are not split: they reach the primary.
    fn unsplit_ports(&self, _snapshot: &Snapshot) -> Vec<Port> {
        Vec::new()
    }

    /// Checks that the data plane has applied the routes as they are written. Metrics that were measured before are not about the current
    /// weights. A rollback does not wait for this.
    fn accepted(&self, _snapshot: &Snapshot) -> Result<(), RouteError> {
        Ok(())
    }

    /// Returns the reason why the data plane has not processed the written routes. `None` if it has, or if it does not report this.
    fn lag(&self, _snapshot: &Snapshot) -> Option<RouteError> {
        None
    }

    /// The write that must come before `coming`, a write of the routes, so that the data plane knows every Service in `coming` before
    /// requests go there.
    fn announce(&self, _snapshot: &Snapshot, _coming: &Write) -> Option<Write> {
        None
    }

    /// Whether the object of `coming` still holds temporary routes: those that `announce` added, or those that a change left behind.
    fn is_announced(&self, _snapshot: &Snapshot, _coming: &Write) -> bool {
        false
    }

    /// Removes temporary routes once the data plane has seen the current ones. Returns `None` if there are none.
    fn tidy(&self, _snapshot: &Snapshot) -> Option<Write> {
        None
    }

    /// The cookies of session affinity that the status needs before the canary gets a share of the traffic; `None` if it has them, or
    /// needs none. The nonce decides their letters.
    fn new_cookies(&self, _canary: &Canary, _nonce: u64) -> Option<Cookies> {
        None
    }
}

/// The name of a canary's provider: the Canary's own, or the operator's (`-mesh-provider`).
pub fn provider_name(snapshot: &Snapshot) -> &str {
    let own = snapshot.canary.spec.provider.as_deref();
    let own = own.filter(|provider| !provider.is_empty());
    own.unwrap_or(&snapshot.settings.mesh_provider)
}

#[cfg(test)]
pub(crate) mod tests;
