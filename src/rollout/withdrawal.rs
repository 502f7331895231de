//! A canary without a ready pod gets no traffic. Flagger leaves its share where it is until the progress deadline has passed, and those
//! clients get errors.

use super::{
    events::event,
    phase,
    plan::{Decision, Plan},
};
use crate::{
    api::canary::CanaryPhase,
    notifications::EventKind,
    providers,
    routers::affinity,
    snapshot::{Snapshot, Weights},
    workload::scaler::Scaler,
};

/// Takes the traffic back from a canary that cannot answer, if the primary can. A version under judgement has failed a check, and
/// starts over once it is ready.
pub fn decide(snapshot: &Snapshot) -> Option<Decision> {
    let router = providers::router(snapshot).ok()?;
    let routed = router.current_weights(snapshot).ok()?;
    let is_stranded = router.splits_traffic()
        && routed.canary > 0
        && !snapshot.canary_has_ready_pods()
        && snapshot.primary_has_ready_pods()
        // A scaler that may leave it without pods wakes it when requests come.
        && !Scaler::of(snapshot).is_some_and(|scaler| scaler.may_rest());
    if !is_stranded {
        return None;
    }
    let writes = router.set_weights(snapshot, &Weights::PRIMARY).ok()?;
    let mut status = phase::step(snapshot);
    (status.canary_weight, status.iterations) = (0, 0);
    affinity::retire(&mut status);
    if matches!(
        snapshot.phase(),
        CanaryPhase::Progressing | CanaryPhase::WaitingPromotion
    ) {
        status.failed_checks += 1;
    }
    let text = format!(
        "Halt {} advancement {} has no ready pod: routing all traffic to primary",
        snapshot.full_name(),
        snapshot.full_target()
    );
    Some(Decision::Do(Plan {
        writes,
        status: Some(status),
        notifications: vec![event(snapshot, EventKind::Warning, text)],
    }))
}
