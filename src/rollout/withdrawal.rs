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
    routers::{self, Dialect, affinity},
    snapshot::{Snapshot, Weights},
    workload::scaler::Scaler,
};

/// Takes the traffic back from a canary that cannot answer, if the primary can. A version under judgement has failed a check, and
/// starts over once it is ready.
pub fn decide(snapshot: &Snapshot) -> Option<Decision> {
    let dialect = Dialect::of(snapshot).ok()?;
    let routed = routers::read(dialect, snapshot).ok()?;
    let is_stranded = dialect.splits()
        && routed.canary > 0
        && !snapshot.canary_has_ready_pods()
        && snapshot.primary_has_ready_pods()
        // A scaler that may leave it without pods wakes it when requests come.
        && !Scaler::of(snapshot).is_some_and(|scaler| scaler.may_scale_to_zero());
    if !is_stranded {
        return None;
    }
    let writes = routers::set(dialect, snapshot, &Weights::PRIMARY).ok()?;
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
