//! The routes that exist, or the reason why one of them cannot be used.

use serde_json::Value;

use super::{rules, used::Used};
use crate::{
    routers::{
        RouteError,
        route::{full_object, has_parents, not_found},
    },
    snapshot::{ObjectRef, Snapshot, references},
    workload::ownership::Ownership,
};

/// Checks that a route is in a namespace that the Canary may name.
///
/// # Errors
/// The route is in another namespace, and such references are blocked.
pub fn check_namespace(snapshot: &Snapshot, route: &ObjectRef) -> Result<(), references::Blocked> {
    references::own_route(route, snapshot.namespace(), snapshot.other_namespaces())
}

/// The route that exists.
///
/// # Errors
/// It does not exist, or the operator may not read it.
pub fn live<'a>(snapshot: &'a Snapshot, route: &ObjectRef) -> Result<&'a Value, RouteError> {
    check_namespace(snapshot, route)?;
    if let Some(why) = forbidden(snapshot, route) {
        return Err(why);
    }
    let live = snapshot.objects.get(route);
    live.ok_or_else(|| not_found(full_object(route), "get error:", route.kind, &route.name))
}

/// The route with the weights, if it exists. An object of others with the name of a copy is none.
///
/// # Errors
/// The operator may not read it, or an object of others with the name of a copy leads requests to the canary.
pub fn with_weights<'a>(
    snapshot: &'a Snapshot,
    used: &Used,
) -> Result<Option<&'a Value>, RouteError> {
    let canary = &snapshot.canary;
    let Some(live) = snapshot.objects.get(&used.route) else {
        return forbidden(snapshot, &used.route).map_or(Ok(None), Err);
    };
    if used.template.is_none() || Ownership::of(live, canary) == Ownership::Own {
        return Ok(Some(live));
    }
    if has_parents(live) && rules::leads_beside(used, live, canary, &[]) {
        return Err(RouteError::NoWeights(format!(
            "{} is not the operator's copy and leads requests to the canary: take its weight there away, or delete it",
            full_object(&used.route)
        )));
    }
    Ok(None)
}

/// The error about a route that the operator is not allowed to read; `None` if it is.
fn forbidden(snapshot: &Snapshot, route: &ObjectRef) -> Option<RouteError> {
    let why = snapshot.forbidden.get(route)?;
    let text = format!("{} get error: {why}", full_object(route));
    Some(RouteError::NoWeights(text))
}

/// The error about a route whose rules cannot be used.
pub fn of_route(route: &ObjectRef, problem: rules::Problem) -> RouteError {
    RouteError::NoWeights(format!("{} {problem}", full_object(route)))
}
