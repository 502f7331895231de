//! A canary without a ready pod gets no traffic. Flagger leaves its share where it is until the progress deadline has passed, and those
//! clients get errors.

use super::{
    phase,
    plan::{Decision, Plan},
    say::event,
    traffic::on_record,
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
    let is_judged = matches!(
        world.phase(),
        CanaryPhase::Progressing | CanaryPhase::WaitingPromotion
    );
    let is_stranded = dialect.splits()
        && (routed.canary > 0 || (is_judged && is_off_record(world)))
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
    status.failed_checks += i64::from(is_judged);
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

/// Whether the status still has a share for the canary. Where nothing is routed to it, traffic was taken back, and what that means was
/// not written any more: the next step would go on from there.
fn is_off_record(world: &World) -> bool {
    let analysis = world.canary.spec.analysis.as_ref();
    let iterations = analysis.and_then(|analysis| analysis.iterations);
    on_record(world, world.canary.strategy(), iterations.unwrap_or(0)).canary > 0
}
