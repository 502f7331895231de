//! A canary without a ready pod gets no traffic. Flagger leaves its share where it is until the progress deadline has passed, and those
//! clients get errors.

use super::{
    phase,
    plan::{Decision, Plan},
    say::event,
};
use crate::{
    api::canary::CanaryPhase,
    notice::EventKind,
    route::{self, Dialect, affinity},
    workload::scaler::Scaler,
    world::{Weights, World},
};

/// Takes the traffic back from a canary that cannot answer, if the primary can. A version under judgement has failed a check, and
/// starts over once it is ready.
pub fn decide(world: &World) -> Option<Decision> {
    let dialect = Dialect::of(world).ok()?;
    let routed = route::read(dialect, world).ok()?;
    let is_stranded = dialect.splits()
        && routed.canary > 0
        && !world.canary_answers()
        && world.primary_answers()
        // A scaler that may leave it without pods wakes it when requests come.
        && !Scaler::of(world).is_some_and(|scaler| scaler.may_rest());
    if !is_stranded {
        return None;
    }
    let effects = route::set(dialect, world, &Weights::PRIMARY).ok()?;
    let mut status = phase::step(world);
    (status.canary_weight, status.iterations) = (0, 0);
    affinity::retire(&mut status);
    if matches!(
        world.phase(),
        CanaryPhase::Progressing | CanaryPhase::WaitingPromotion
    ) {
        status.failed_checks += 1;
    }
    let text = format!(
        "Halt {} advancement {} has no ready pod: routing all traffic to primary",
        world.full_name(),
        world.full_target()
    );
    Some(Decision::Do(Plan {
        effects,
        status: Some(status),
        notices: vec![event(world, EventKind::Warning, text)],
    }))
}
