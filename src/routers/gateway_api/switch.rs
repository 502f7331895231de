//! The route of the kind that the Canary does not ask for any more: a user has turned `spec.service.grpc` on or off.
//!
//! A gateway accepts only one of an HTTPRoute and a GRPCRoute with the same host name on a listener: the older one. So the order is:
//!
//! 1. The former route leads to the primary, so that never both lead to the canary.
//! 2. The new route is created. As long as the former one is older, no request takes it.
//! 3. When a gateway has reported about the new route, so that it knows this route, the former one loses its parents: it leads no request,
//!    and the gateway accepts the new one at the same moment. Without parents it stays until the Canary is deleted, because the operator
//!    has no right to delete routes. A route that the user had before gets its former spec, labels and annotations instead, and keeps its
//!    parents; it leads to the Service that clients call.
//!
//! A version takes no step meanwhile, and repeats the steps whose weight the former route has lost.

use serde_json::Value;

use super::{GatewayApi, back, routed, rules};
use crate::{
    api::{canary::Canary, percent::Percent, status::ConditionType},
    routers::{
        RouteError,
        route::{full_name, has_parents, items, route_write},
    },
    snapshot::{Action, Kind, Snapshot, Weights, Write},
    workload::{metadata::is_owned, ownership::Ownership},
};

/// The route of the kind that the Canary does not ask for, if the operator still has to give it back or to take it from its parents.
pub struct Former<'a> {
    /// Its kind.
    pub kind: Kind,
    live: &'a Value,
}

impl GatewayApi {
    /// The kind of the route that the Canary may have had before. Canaries that never had a GRPCRoute do not read the kind.
    pub(super) fn former_kind(self, canary: &Canary) -> Option<Kind> {
        let status = canary.status.as_ref();
        match self.kind(canary) {
            Kind::GrpcRoute => Some(Kind::HttpRoute),
            _ if status?.has_condition(ConditionType::GrpcRoute) => Some(Kind::GrpcRoute),
            _ => None,
        }
    }

    /// The former route.
    pub(super) fn former(self, snapshot: &Snapshot) -> Option<Former<'_>> {
        let canary = &snapshot.canary;
        let kind = self.former_kind(canary)?;
        let live = snapshot.object(kind, canary.apex_name())?;
        let is_left = if is_owned(live, canary) {
            has_parents(live)
        } else {
            let is_of_other = matches!(Ownership::of(live, canary), Ownership::OtherCanary(_));
            !is_of_other && back(snapshot, kind).is_some()
        };
        is_left.then_some(Former { kind, live })
    }

    /// The weights of the former route, if it leads requests to the canary.
    pub(super) fn leads_former_to_canary(self, snapshot: &Snapshot) -> Option<Weights> {
        let former = self.former(snapshot)?;
        let weights = routed(&snapshot.canary, former.live);
        weights.filter(|weights| weights.canary > Percent::ZERO || weights.mirrored)
    }

    /// The write that leads all requests of the former route to the primary; `None` if it leads none to the canary.
    pub(super) fn former_withdrawn(self, snapshot: &Snapshot) -> Option<Write> {
        self.leads_former_to_canary(snapshot)?;
        let Former { kind, live } = self.former(snapshot)?;
        let mut wanted = live.clone();
        rules::withdraw_canary(&snapshot.canary, &mut wanted);
        Some(write(snapshot, kind, wanted))
    }

    /// The write that takes the former route from clients, or gives it back to its user; `None` while no gateway knows the new route.
    pub(super) fn retired(self, snapshot: &Snapshot) -> Option<Write> {
        let Former { kind, live } = self.former(snapshot)?;
        if !is_owned(live, &snapshot.canary) {
            return back(snapshot, kind);
        }
        // Some implementations report about no route.
        let reports = items(live, "/status/parents").next().is_some();
        let is_known = !reports || self.live(snapshot).is_some_and(is_reported);
        let mut wanted = live.clone();
        wanted["spec"].as_object_mut()?.remove("parentRefs");
        is_known.then(|| write(snapshot, kind, wanted))
    }
}

impl Former<'_> {
    /// The reason why a version takes no step.
    pub fn leads(&self, snapshot: &Snapshot) -> RouteError {
        RouteError::NotAccepted(format!(
            "{} still leads the requests, until its parents know the route of the other kind",
            full_name(snapshot, self.kind)
        ))
    }
}

fn write(snapshot: &Snapshot, kind: Kind, wanted: Value) -> Write {
    let failure = "update error: … while changing the kind of the route";
    route_write(snapshot, kind, Action::Replace(wanted), failure)
}

/// Whether a parent has reported about the route as it is now.
fn is_reported(route: &Value) -> bool {
    let generation = route.pointer("/metadata/generation");
    let generation = generation.and_then(Value::as_i64).unwrap_or(0);
    let mut conditions = items(route, "/status/parents").flat_map(|it| items(it, "/conditions"));
    conditions.any(|it| it["observedGeneration"].as_i64().unwrap_or(0) >= generation)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        api::canary::Grpc,
        routers::{
            Router,
            tests::{apply, canary_analysis, reconciled, selector, snapshot},
        },
    };

    /// The gateway may need time for the new route, and for the last change of the former one.
    #[test]
    fn a_gateway_that_does_not_know_the_new_route_yet_keeps_the_former_one() {
        let service = json!({"port": 80, "gatewayRefs": [{"name": "gw"}]});
        let before = snapshot("gatewayapi:v1", service, canary_analysis(), Value::Null);
        let mut snapshot = reconciled(&GatewayApi::V1, before, &Weights::PRIMARY);
        let [http, grpc] =
            [Kind::HttpRoute, Kind::GrpcRoute].map(|it| it.reference("test", "podinfo"));
        let report = json!({"parents": [{"parentRef": {"name": "gw"},
            "conditions": [{"type": "Accepted", "status": "True", "observedGeneration": 1}]}]});
        let former = snapshot.objects.get_mut(&http).unwrap();
        former["status"] = report.clone();
        former["metadata"]["generation"] = json!(2);
        snapshot.canary.spec.service.grpc = Some(Grpc::default());
        let reconcile = |snapshot: &mut Snapshot| {
            let writes = GatewayApi::V1.reconcile(snapshot, &selector(), &Weights::PRIMARY);
            let writes = writes.unwrap();
            let kinds: Vec<_> = writes.iter().map(|write| write.object.kind).collect();
            apply(snapshot, writes);
            kinds
        };
        assert_eq!(reconcile(&mut snapshot), [Kind::GrpcRoute]);
        assert_eq!(reconcile(&mut snapshot), []);
        let why = GatewayApi::V1.accepted(&snapshot).unwrap_err().to_string();
        assert!(
            why.starts_with("HTTPRoute podinfo.test still leads the requests"),
            "{why}"
        );
        let known = snapshot.objects.get_mut(&grpc).unwrap();
        known["status"] = report;
        known["metadata"]["generation"] = json!(1);
        assert_eq!(reconcile(&mut snapshot), [Kind::HttpRoute]);
        assert!(!has_parents(&snapshot.objects[&http]));
        assert_eq!(reconcile(&mut snapshot), []);
    }
}
