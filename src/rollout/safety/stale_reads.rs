//! Two steps are irreversible: the rollback of a version because pods or routes did not become ready, and the copy of the target to the
//! primary. Cached objects may be stale, so the shell reads the objects anew before these steps. Any other decision on a stale object is
//! corrected by the reconcile that follows the object's change.

use crate::{
    api::{canary::CanaryStatus, status::ConditionType},
    providers,
    rollout::{plan::Plan, reads::is_users_route, rollback, status::Outcome},
    snapshot::{ObjectRef, Snapshot},
};

/// The objects that must be read anew before this plan is executed: the workloads whose pods did not become ready, the routes if the data
/// plane has not accepted them, or the target that the plan copies.
pub fn stale_reads(snapshot: &Snapshot, plan: &Plan) -> Vec<ObjectRef> {
    let (target, primary) = (snapshot.canary_reference(), snapshot.primary_reference());
    let mut writes = plan.writes.iter();
    if plan.status.as_ref().is_some_and(gives_up_on_pods) && !rollback::is_under_way(snapshot) {
        let router = providers::router(snapshot);
        let is_unaccepted = router.accepted(snapshot).is_err();
        let routes = is_unaccepted.then(|| router.objects(&snapshot.canary));
        let routes = routes.filter(|_| !router.are_users());
        let of_user = snapshot.seen.iter();
        let is_readable = |object: &&ObjectRef| !snapshot.forbidden.contains_key(*object);
        let of_user = of_user
            .filter(|object| is_users_route(snapshot, object))
            .filter(is_readable);
        let workloads = target.into_iter().chain(primary);
        let routes = routes.into_iter().flatten();
        workloads.chain(routes).chain(of_user.cloned()).collect()
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
