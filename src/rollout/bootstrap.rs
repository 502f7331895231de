//! From a bare Deployment to a canary that can be released: Flagger's phase Initializing, in its order.

use super::{
    drain,
    facts::Facts,
    hooks::Stage,
    metrics,
    phase::{self, Intent},
    plan::{Decision, Evidence, Next, Plan},
    rollback::{self, Cause},
    say::{event, event_of},
};
use crate::{
    api::canary::CanaryPhase,
    notice::EventKind,
    world::{Action, Effect, Readiness, Weights},
};

/// The primary beside the target, traffic on it, the target at zero.
pub fn decide(facts: &Facts<'_>, evidence: &Evidence) -> Result<Decision, String> {
    let world = facts.world;
    facts.complete().map_err(|problem| {
        format!(
            "createPrimary{} failed: {problem}",
            facts.kind.kind().name()
        )
    })?;
    let mut services = facts.workload_services();
    services.retain(|effect| !world.mended.contains(&effect.object));
    if !services.is_empty() {
        return Ok(Decision::Do(Plan {
            effects: services,
            ..Plan::default()
        }));
    }
    let mut notices = Vec::new();
    if !world.canary.skip_analysis() {
        match metrics::online(world, evidence) {
            Stage::Ask(questions) => return Ok(Decision::Ask(questions, Vec::new())),
            Stage::Done(result) => notices.push(match result {
                Ok(()) => event(
                    world,
                    EventKind::Normal,
                    "all the metrics providers are available!".to_owned(),
                ),
                Err(why) => event(
                    world,
                    EventKind::Warning,
                    format!("Error checking metric providers: {why}"),
                ),
            }),
        }
    }
    // Until it serves anyone the primary follows the target, so that a fix of a version that never got ready is taken up.
    let mut effects = if facts.is_what_the_primary_runs() {
        Vec::new()
    } else {
        facts.promote()
    };
    // While it gets ready, proxies learn where traffic will go. What cannot be routed is said when it is.
    let coming = facts.routes_to(&Weights::PRIMARY).unwrap_or_default();
    effects.extend(facts.announce(&coming));
    if !effects.is_empty() {
        return Ok(Decision::Do(Plan {
            effects,
            status: None,
            notices,
        }));
    }
    if !world.canary.skip_analysis()
        && let Readiness::Waiting(why) | Readiness::Failed(why) = facts.primary_readiness()
    {
        notices.push(event(world, EventKind::Warning, why));
        return Ok(Decision::Wait(Next::Due, notices));
    }
    initialized(facts)
}

/// Traffic moves to the primary, and only then, when every proxy knows, the target goes. (Flagger scales the target down first, and
/// routes afterwards.)
fn initialized(facts: &Facts<'_>) -> Result<Decision, String> {
    let world = facts.world;
    if world.canary_answers() && !world.primary_answers() {
        let name = world.canary.primary_workload_name();
        let text = format!("{name}.{} has no ready pod yet", world.namespace());
        return Ok(Decision::Wait(
            Next::Due,
            vec![event(world, EventKind::Warning, text)],
        ));
    }
    if let Some(wait) = facts.routes_lag() {
        return Ok(wait);
    }
    let mut effects: Vec<Effect> = facts.primary_scaler(false)?.into_iter().collect();
    effects.extend(facts.routes_to(&Weights::PRIMARY)?);
    effects.extend(facts.apex_service());
    let (tried, effects): (Vec<_>, Vec<_>) = effects
        .into_iter()
        .partition(|effect| facts.is_tried(effect));
    if !effects.is_empty() {
        return Ok(Decision::Do(Plan {
            effects,
            ..Plan::default()
        }));
    }
    // What somebody changes back all the time is not argued with. What was refused, and without which clients would not be answered
    // once the target is gone, was said, and is tried again.
    let is_missing = |effect: &Effect| matches!(effect.action, Action::Create(_));
    if tried.iter().any(is_missing) || !(facts.leads_to_primary() || tried.is_empty()) {
        return Ok(Decision::Wait(Next::Due, Vec::new()));
    }
    let down = facts.scale_down();
    match drain::end(world) {
        None if world.canary_answers() && !down.is_empty() => {
            return Ok(Decision::commit(
                drain::begin(phase::status(world), world),
                Vec::new(),
            ));
        }
        Some(end) if world.now < end => return Ok(Decision::Wait(Next::At(end), Vec::new())),
        _ => {}
    }
    let status = phase::enter(world, CanaryPhase::Initialized);
    let mut status = phase::without_intent(status, Intent::Draining);
    status.canary_weight = 0;
    status.iterations = 0;
    status.failed_checks = 0;
    status.last_applied_spec = Some(facts.revision.clone());
    status.last_promoted_spec = Some(facts.revision.clone());
    status.tracked_configs.clone_from(&facts.configs);
    let text = format!("Initialization done! {}", world.full_name());
    let done = event_of(&status, EventKind::Normal, text);
    Ok(Decision::Do(Plan {
        effects: down,
        status: Some(rollback::owe(status, world, &Cause::Initialized)),
        notices: vec![done],
    }))
}
