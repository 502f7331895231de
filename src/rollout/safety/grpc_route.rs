//! The status records that the operator makes a GRPCRoute, before the route is created. If the user takes `spec.service.grpc` out of the Canary,
//! the record shows that there is a route to be taken from clients. Canaries without the record do not read GRPCRoutes.

use crate::{
    api::status::ConditionType,
    providers,
    rollout::{plan::Decision, status::StatusChange},
    snapshot::Snapshot,
};

/// Writes the record, or removes it when the GRPCRoute leads no request any more. `None` if the record is correct.
pub fn record(snapshot: &Snapshot) -> Option<Decision> {
    const WHY: &str = "The operator makes a GRPCRoute for this Canary.";
    let has_route = providers::router(snapshot).has_grpc_route(snapshot);
    if snapshot.status().has_condition(ConditionType::GrpcRoute) == has_route {
        return None;
    }
    let change = StatusChange::within_step(snapshot);
    let change = if has_route {
        change.set(ConditionType::GrpcRoute, "Made", WHY)
    } else {
        change.clear(ConditionType::GrpcRoute)
    };
    Some(Decision::commit(change.build(), Vec::new()))
}
