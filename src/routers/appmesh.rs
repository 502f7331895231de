//! AWS App Mesh (Flagger: `pkg/router/appmesh.go`, `appmesh_v1beta2.go`). The primary's pods and the canary's are a VirtualNode each. The
//! Service that clients call and the canary's own are a VirtualService with a VirtualRouter each. The routes of the first VirtualRouter have
//! the weights; the second one always leads to the canary.
//!
//! In `v1beta1` the VirtualRouter is a part of the VirtualService, and the Service that clients call has a VirtualNode, too, which leads to
//! the primary.
//!
//! These fields are ours: of a VirtualNode its listener, its DNS name, `podSelector`, `backends`, `logging` and its metadata; of a
//! VirtualRouter `listeners` and `routes`; of a VirtualService `provider` (in `v1beta1` `meshName`, `virtualRouter` and `routes`) and the
//! annotations for the gateway. Other fields stay: App Mesh's controller writes `awsName`, `meshRef` and the IP preference of the DNS name,
//! and refuses a change of the first two.
//!
//! The listeners have one port. Requests to further ports (`portDiscovery`) have no route, and reach the primary through the apex Service; an event
//! names these ports.

mod nodes;
mod restore;
mod routes;
mod services;

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};

use super::{
    RouteError, Router,
    route::{further_ports, not_found, put_fields, reference},
};
use crate::{
    api::{canary::Canary, duration},
    snapshot::{Action, Kind, ObjectRef, Snapshot, Weights, Write},
    workload::ports::Port,
};

/// The router of App Mesh, in one version of its API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppMesh {
    /// `v1beta1`
    V1Beta1,
    /// `v1beta2`
    V1Beta2,
}

/// The Service whose requests a set of routes is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    /// The one that clients call.
    Apex,
    /// The canary's own.
    Canary,
}

impl Side {
    fn service(self, canary: &Canary) -> String {
        match self {
            Self::Apex => canary.apex_name().to_owned(),
            Self::Canary => canary.canary_name(),
        }
    }
}

impl Router for AppMesh {
    fn objects(&self, canary: &Canary) -> BTreeSet<ObjectRef> {
        let pods = self.nodes(canary).into_iter();
        let pods = pods.map(|(node, _)| reference(canary, self.node_kind(), &node));
        let sides = [Side::Apex, Side::Canary].into_iter().flat_map(|side| {
            let kinds = self.service_kinds().iter();
            kinds.map(move |kind| reference(canary, *kind, &self.name(canary, side)))
        });
        pods.chain(sides).collect()
    }

    fn repairs(
        &self,
        snapshot: &Snapshot,
        selector: &(String, String),
        weights: &Weights,
    ) -> Result<Vec<Write>, RouteError> {
        let apex = self.routes_write(snapshot, Side::Apex, weights)?;
        let canary = self.routes_write(snapshot, Side::Canary, &Weights::CANARY)?;
        let service = |side| self.service_write(snapshot, side);
        let mut writes = self.node_writes(snapshot, selector);
        writes.extend(apex.into_iter().chain(service(Side::Apex)));
        writes.extend(canary.into_iter().chain(service(Side::Canary)));
        Ok(writes)
    }

    /// The VirtualNodes: pods that start without one get no proxy.
    fn before_pods(
        &self,
        snapshot: &Snapshot,
        selector: &(String, String),
    ) -> Result<Vec<Write>, RouteError> {
        let mut writes = self.reconcile(snapshot, selector, &Weights::PRIMARY)?;
        writes.retain(|write| {
            write.object.kind == self.node_kind() && matches!(write.action, Action::Create(_))
        });
        Ok(writes)
    }

    /// The weights of the first route. The routes after it are for requests outside an A/B test, or have the same weights.
    fn current_weights(&self, snapshot: &Snapshot) -> Result<Weights, RouteError> {
        self.routed(&snapshot.canary, self.live(snapshot)?)
    }

    fn set_weights(
        &self,
        snapshot: &Snapshot,
        weights: &Weights,
    ) -> Result<Vec<Write>, RouteError> {
        let live = self.live(snapshot)?;
        let mut wanted = live.clone();
        match self.routes_spec(&snapshot.canary, Side::Apex, weights) {
            Ok(spec) => put_fields(&mut wanted, spec, self.ours()),
            Err(_) if *weights == Weights::PRIMARY => self.withdraw(&snapshot.canary, &mut wanted),
            Err(why) => return Err(why),
        }
        if wanted == *live {
            return Ok(Vec::new());
        }
        Ok(vec![self.replace(snapshot, wanted)])
    }

    fn reverted(&self, snapshot: &Snapshot) -> Option<Write> {
        self.next_restored(snapshot)
    }

    /// The listeners have one port.
    fn unsplit_ports(&self, snapshot: &Snapshot) -> Vec<Port> {
        further_ports(snapshot)
    }

    /// A step waits until App Mesh's controller has processed the routes. (Flagger does not wait.)
    fn accepted(&self, snapshot: &Snapshot) -> Result<(), RouteError> {
        self.lag(snapshot).map_or(Ok(()), Err)
    }

    /// The controller of `v1beta2` reports the generation of the routes that App Mesh has.
    fn lag(&self, snapshot: &Snapshot) -> Option<RouteError> {
        let live = self.live(snapshot).ok()?;
        let generation = live.pointer("/metadata/generation")?.as_i64()?;
        let observed = live.pointer("/status/observedGeneration")?.as_i64()?;
        (observed < generation).then(|| {
            let route = self.full_name(&snapshot.canary);
            RouteError::NotAccepted(format!(
                "{route} is not taken up by App Mesh's controller (observed generation: {observed}, current generation: {generation})"
            ))
        })
    }
}

/// The differences between the versions, and the names that Flagger gives to the objects.
impl AppMesh {
    const fn node_kind(self) -> Kind {
        match self {
            Self::V1Beta1 => Kind::AppMeshNodeV1Beta1,
            Self::V1Beta2 => Kind::AppMeshNode,
        }
    }

    /// The kind of the object that has the routes.
    const fn route_kind(self) -> Kind {
        match self {
            Self::V1Beta1 => Kind::AppMeshServiceV1Beta1,
            Self::V1Beta2 => Kind::AppMeshRouter,
        }
    }

    /// The kinds of the objects for one Service.
    const fn service_kinds(self) -> &'static [Kind] {
        match self {
            Self::V1Beta1 => &[Kind::AppMeshServiceV1Beta1],
            Self::V1Beta2 => &[Kind::AppMeshRouter, Kind::AppMeshService],
        }
    }

    /// The name of the objects for one Service.
    fn name(self, canary: &Canary, side: Side) -> String {
        let service = side.service(canary);
        match self {
            Self::V1Beta1 => {
                let namespace = canary.metadata.namespace.as_deref().unwrap_or_default();
                format!("{service}.{namespace}")
            }
            Self::V1Beta2 => service,
        }
    }

    /// The VirtualNodes, each with the Service at whose DNS name its pods are.
    fn nodes(self, canary: &Canary) -> Vec<(String, String)> {
        let of = |name: String| (name.clone(), name);
        let sides = vec![of(canary.primary_name()), of(canary.canary_name())];
        match self {
            Self::V1Beta1 => {
                let apex = (canary.apex_name().to_owned(), canary.primary_name());
                [vec![apex], sides].concat()
            }
            Self::V1Beta2 => sides,
        }
    }

    /// Kind and name of the object that has the weights.
    fn full_name(self, canary: &Canary) -> String {
        let name = self.name(canary, Side::Apex);
        format!("{} {name}", self.route_kind().name())
    }

    /// The object that has the weights.
    fn live(self, snapshot: &Snapshot) -> Result<&Value, RouteError> {
        let (canary, kind) = (&snapshot.canary, self.route_kind());
        let name = self.name(canary, Side::Apex);
        let missing = || not_found(self.full_name(canary), "get query error:", kind, &name);
        snapshot.object(kind, &name).ok_or_else(missing)
    }

    /// The beginning of Flagger's error about the objects for one Service.
    const fn within(self, side: Side) -> &'static str {
        match (self, side) {
            (Self::V1Beta1, _) | (Self::V1Beta2, Side::Apex) => "reconcileVirtualService failed: ",
            (Self::V1Beta2, Side::Canary) => "reconcileVirtualRouter failed: ",
        }
    }

    /// The write that replaces the object that has the weights.
    fn replace(self, snapshot: &Snapshot, wanted: Value) -> Write {
        let name = self.name(&snapshot.canary, Side::Apex);
        let action = Action::Replace(wanted);
        write(snapshot, self.route_kind(), &name, action, "")
    }
}

/// A write of an object, with Flagger's words for a failure. `within` is the beginning of these words.
fn write(snapshot: &Snapshot, kind: Kind, name: &str, action: Action, within: &str) -> Write {
    let is_node = kind.name() == Kind::AppMeshNode.name();
    let failure = match &action {
        Action::Create(_) if is_node => format!("{name}.{} create error ", snapshot.namespace()),
        Action::Create(_) => format!("{name} create error "),
        _ if is_node => format!("{name} update error "),
        _ => format!("{name} update error: "),
    };
    Write {
        object: snapshot.reference(kind, name),
        action,
        failure: format!("{within}{} {failure}", kind.name()),
    }
}

/// The port and the protocol of each listener.
fn listener(version: AppMesh, canary: &Canary) -> Value {
    let service = &canary.spec.service;
    let port = match (version, canary.target_port()) {
        (AppMesh::V1Beta2, IntOrString::Int(port)) if port > 0 => i64::from(port),
        _ => service.port,
    };
    let name = service.port_name.as_deref().unwrap_or_default();
    let protocol = if name.contains("grpc") {
        "grpc"
    } else {
        "http"
    };
    json!({"portMapping": {"port": port, "protocol": protocol}})
}

/// A duration in milliseconds; `None` if the text is none.
fn millis(text: &str) -> Option<u64> {
    u64::try_from(duration::parse(text)?.as_millis()).ok()
}

#[cfg(test)]
mod tests;
