//! A canary without a ready pod gets no traffic. Flagger leaves the canary's traffic as it is until the progress deadline has passed, and
//! clients get errors.

use crate::{
    api::{canary::CanaryPhase, percent::Percent},
    providers,
    rollout::{
        messages::run,
        plan::{Decision, Plan},
        status::{PodsLost, StatusChange, transitions::is_under_analysis},
    },
    snapshot::{Snapshot, TargetKind, Weights},
    workload::scaler::Scaler,
};

/// Whether a scaler has scaled the canary to zero. It wakes the canary when requests arrive.
fn sleeps(snapshot: &Snapshot) -> bool {
    let is_at_zero = TargetKind::of(&snapshot.canary)
        .zip(snapshot.canary_workload())
        .is_some_and(|(kind, workload)| kind.is_at_zero(workload));
    is_at_zero && Scaler::of(snapshot).is_some_and(|scaler| scaler.may_scale_to_zero())
}

/// Withdraws the traffic from a canary without a ready pod, if the primary has one; `None` if there is nothing to withdraw. A version
/// under analysis gets its traffic again when it is ready.
pub fn decide(snapshot: &Snapshot) -> Option<Decision> {
    let router = providers::router(snapshot);
    let has_no_pods = router.splits_traffic()
        && !snapshot.canary_has_ready_pods()
        && snapshot.primary_has_ready_pods()
        && !sleeps(snapshot);
    if !has_no_pods {
        return None;
    }
    let routed = match router.current_weights(snapshot) {
        Ok(routed) if routed.canary == Percent::ZERO => return None,
        Ok(routed) => routed,
        // A rule in a route of the user cannot be changed. The others can.
        Err(_) if router.are_users() => {
            let mut writes = router.set_weights(snapshot, &Weights::PRIMARY).ok()?;
            writes.retain(|write| !snapshot.is_paused(write));
            return (!writes.is_empty()).then(|| Decision::write(writes));
        }
        Err(_) => return None,
    };
    let writes = router.set_weights(snapshot, &Weights::PRIMARY).ok()?;
    let step = match snapshot.phase() {
        // The version returns to the analysis: its checks go on, and its promotion needs the gate again.
        CanaryPhase::WaitingPromotion => {
            StatusChange::enter(snapshot, CanaryPhase::Progressing).announced()
        }
        _ => StatusChange::end_step(snapshot),
    };
    let step = if is_under_analysis(snapshot.phase()) {
        PodsLost::one_more(snapshot.status(), routed).withdraw(step)
    } else {
        step.progress(0, 0)
    };
    Some(Decision::Do(Plan {
        writes,
        status: Some(step.retire_cookies().build()),
        notifications: vec![run::withdrawn(snapshot)],
    }))
}
