//! A canary without a ready pod gets no traffic. Flagger leaves its share of the traffic until the progress deadline has passed, and
//! clients get errors.

use crate::{
    providers,
    rollout::{
        messages::run,
        plan::{Decision, Plan},
        status::{StatusChange, transitions::is_under_analysis},
    },
    snapshot::{Snapshot, Weights},
    workload::scaler::Scaler,
};

/// Withdraws the traffic from a canary without a ready pod, if the primary has one; `None` if there is nothing to withdraw. A version
/// under analysis counts a failed check and starts over once it is ready.
pub fn decide(snapshot: &Snapshot) -> Option<Decision> {
    let router = providers::router(snapshot).ok()?;
    let routed = router.current_weights(snapshot).ok()?;
    let has_no_pods = router.splits_traffic()
        && routed.canary > 0
        && !snapshot.canary_has_ready_pods()
        && snapshot.primary_has_ready_pods()
        // A scaler that may scale to zero wakes its workload when requests arrive.
        && !Scaler::of(snapshot).is_some_and(|scaler| scaler.may_scale_to_zero());
    if !has_no_pods {
        return None;
    }
    let writes = router.set_weights(snapshot, &Weights::PRIMARY).ok()?;
    let step = StatusChange::end_step(snapshot)
        .progress(0, 0)
        .retire_cookies();
    let step = if is_under_analysis(snapshot.phase()) {
        step.failed_check()
    } else {
        step
    };
    Some(Decision::Do(Plan {
        writes,
        status: Some(step.build()),
        notifications: vec![run::withdrawn(snapshot)],
    }))
}
