//! PURE: what to do about a canary, given what was seen of it and what was answered so far.

pub mod plan;

mod analysis;
mod audit;
mod bootstrap;
mod deletion;
mod drain;
mod facts;
mod gate;
mod guard;
mod hearsay;
mod hooks;
mod metric_template;
mod metrics;
mod objects;
mod outlook;
mod phase;
mod promotion;
mod rollback;
mod say;
mod settled;
mod traffic;
mod withdrawal;

pub use audit::audit;
pub use facts::{needs, new_version, whole};
pub use hearsay::hearsay;
pub use metrics::samples;
pub use outlook::{Outlook, Verdict, outlook};
pub use plan::{Answer, Decision, Evidence, Next, Plan, Question};

use crate::{
    api::canary::CanaryPhase,
    notice::{EventKind, Notice},
    route::{self, Dialect},
    world::{Effect, Weights, World},
};
use facts::Facts;
use say::event;

/// The decision. Total: whatever was seen, there is one, and it is one of [`Decision`]'s.
pub fn decide(world: &World, evidence: &Evidence) -> Decision {
    if world.canary.metadata.deletion_timestamp.is_some() {
        return deletion::decide(world);
    }
    if let Some(decision) = guard::refuse(world).or_else(|| deletion::prepare(world)) {
        return decision;
    }
    if world.phase() == CanaryPhase::New {
        return Decision::commit(phase::enter(world, CanaryPhase::Initializing), Vec::new());
    }
    let facts = match Facts::of(world) {
        Ok(facts) => facts,
        Err(problem) => {
            return withdrawal::decide(world).unwrap_or_else(|| warn(world, problem));
        }
    };
    if let Some(finish) = drain::finish(&facts) {
        return finish;
    }
    if !rollback::is_under_way(world)
        && let Some(withdrawal) = withdrawal::decide(world)
    {
        // Pods that make room for those of a newer version are no fault of the one before.
        return if analysis::is_overtaken(&facts) {
            analysis::changed(&facts).unwrap_or(withdrawal)
        } else {
            withdrawal
        };
    }
    let decision = match world.phase() {
        _ if rollback::is_under_way(world) => rollback::proceed(&facts),
        _ if rollback::is_owed(world) => Ok(settled::tell(world, evidence)),
        CanaryPhase::Initializing => bootstrap::decide(&facts, evidence),
        CanaryPhase::New | CanaryPhase::Terminating | CanaryPhase::Terminated => {
            Ok(Decision::Wait(Next::Change, Vec::new()))
        }
        phase => upkeep(&facts).and_then(|effects| match phase {
            _ if !effects.is_empty() => Ok(Decision::Do(Plan {
                effects,
                ..Plan::default()
            })),
            CanaryPhase::Progressing | CanaryPhase::WaitingPromotion => {
                let news = settled::started_news(world);
                analysis::decide(&facts, evidence).map(|decision| decision.saying(news))
            }
            CanaryPhase::Promoting => promotion::promoting(&facts),
            CanaryPhase::Finalising => promotion::finalising(&facts),
            _ => settled::decide(&facts, evidence),
        }),
    };
    decision.unwrap_or_else(|problem| warn(world, problem))
}

/// The weights that are routed, if they can be told.
pub fn weights(world: &World) -> Option<Weights> {
    route::read(Dialect::of(world).ok()?, world).ok()
}

/// A warning about a canary, as of its phase now.
pub fn warning(world: &World, message: String) -> Notice {
    event(world, EventKind::Warning, message)
}

/// What stands in the way is said, at every due again; nothing else is touched.
fn warn(world: &World, problem: String) -> Decision {
    Decision::Wait(Next::Due, vec![event(world, EventKind::Warning, problem)])
}

/// Keeps the objects that carry a release as they should be: whoever deleted or changed one, it is repaired with the weights that are
/// routed now; between runs, with those that belong there. Who changes it back is not argued with before the next due, and nothing
/// else waits for it.
fn upkeep(facts: &Facts<'_>) -> Result<Vec<Effect>, String> {
    let world = facts.world;
    let mut effects: Vec<Effect> = facts.workload_services();
    if world.primary().is_none() {
        // Without all its configs it would get those that were not promoted.
        facts.complete()?;
        effects.extend(facts.promote());
    }
    // A promotion says what is wrong with the target's scaler.
    effects.extend(facts.primary_scaler(false).unwrap_or_default());
    effects.extend(facts.apex_service());
    effects.extend(facts.routes()?);
    effects.retain(|effect| !world.mended.contains(&effect.object));
    Ok(effects)
}
