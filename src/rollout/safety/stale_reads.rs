//! Two steps are irreversible: the rollback of a version because pods or routes did not become ready, and the copy of the target to the
//! primary. Cached objects may be stale, so the shell reads the objects anew before these steps. Any other decision on a stale object is
//! corrected by the reconcile that follows the object's change.

use crate::{
    api::{canary::CanaryStatus, status::ConditionType},
    providers,
    rollout::{plan::Plan, reads::users_routes, rollback, status::Outcome},
    snapshot::{ObjectRef, Snapshot},
};

/// The objects that must be read anew before this plan is executed: the workloads whose pods did not become ready, the routes if the data
/// plane has not accepted them, or the target that the plan copies.
pub fn stale_reads(snapshot: &Snapshot, plan: &Plan) -> Vec<ObjectRef> {
    let (target, primary) = (snapshot.canary_reference(), snapshot.primary_reference());
    let mut writes = plan.writes.iter();
    if plan.status.as_ref().is_some_and(gives_up_on_pods) && !rollback::is_under_way(snapshot) {
        let router = providers::router(snapshot);
        let is_unaccepted = router.accepted(snapshot).is_err() && !router.are_users();
        let routes = is_unaccepted.then(|| router.objects(&snapshot.canary));
        // Routes of the user may have another trouble, too. Those that must not be read cannot be read again.
        let mut of_user = users_routes(snapshot);
        of_user.retain(|route| {
            snapshot.seen.contains(route) && !snapshot.forbidden.contains_key(route)
        });
        let workloads = target.into_iter().chain(primary);
        workloads
            .chain(routes.into_iter().flatten())
            .chain(of_user)
            .collect()
    } else if writes.any(|write| Some(&write.object) == primary.as_ref()) {
        target.into_iter().collect()
    } else {
        Vec::new()
    }
}

/// Whether a status begins a rollback because pods are not ready.
fn gives_up_on_pods(status: &CanaryStatus) -> bool {
    let Some(condition) = status.condition(ConditionType::RollingBack) else {
        return false;
    };
    let message = condition.message.as_deref().unwrap_or_default();
    matches!(
        Outcome::parse(&condition.reason, message),
        Outcome::NotReady(_) | Outcome::FailedPromotion(_)
    )
}
