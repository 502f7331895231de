//! A Canary that is deleted. What it owns goes with it; with `spec.revertOnDeletion` what it took over is given back before
//! (`pkg/controller/finalizer.go`), in an order that loses no request: the target up, then the routes, then the finalizer.

use super::{
    drain,
    facts::Facts,
    phase,
    plan::{Decision, Next, Plan},
    say::event,
    warn,
};
use crate::{
    api::canary::CanaryPhase,
    notice::EventKind,
    route::{self, Dialect},
    world::{Action, Effect, Kind, Readiness, World},
};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

/// As long as this is on a Canary, the API server does not remove it.
const FINALIZER: &str = "finalizer.flagger.app";

/// Keeps the finalizer on a Canary that is to be reverted, and off any other; `None` if it is so.
pub fn prepare(world: &World) -> Option<Decision> {
    (world.canary.spec.revert_on_deletion != has_finalizer(world))
        .then(|| Decision::Do(write(world, world.canary.spec.revert_on_deletion)))
}

/// What to do about a Canary that is being deleted.
pub fn decide(world: &World) -> Decision {
    if !has_finalizer(world) {
        return Decision::Wait(Next::Change, Vec::new());
    }
    if !world.canary.spec.revert_on_deletion {
        return Decision::Do(write(world, false));
    }
    if world.rival.is_some() {
        // All that could be given back is the older canary's.
        return Decision::Do(gone(world));
    }
    if world.phase() != CanaryPhase::Terminating {
        let mut status = phase::enter(world, CanaryPhase::Terminating);
        status.canary_weight = 0;
        status.iterations = 0;
        let text = format!("Terminating canary {}", world.full_name());
        // The event is about the phase that ends, as Flagger's is.
        return Decision::commit(status, vec![event(world, EventKind::Normal, text)]);
    }
    match Facts::of(world) {
        Ok(facts) => revert(&facts),
        // Somebody may mend it: the primary goes with the Canary, and the target may have no pods.
        Err(problem) if world.target().is_some() && !is_late(world) => warn(world, problem),
        // Without its target there is nobody to give anything back to.
        Err(_) => Decision::Do(gone(world)),
    }
}

fn revert(facts: &Facts<'_>) -> Decision {
    let world = facts.world;
    let late = is_late(world);
    let given_back = given_back(facts);
    let mut up = facts.scale_to_primary(late);
    up.extend(facts.announce(given_back.as_deref().unwrap_or_default()));
    if !up.is_empty() {
        // A scaler that takes it back at once is not argued with before the next due.
        up.retain(|effect| !world.mended.contains(&effect.object));
        return if up.is_empty() {
            Decision::Wait(Next::Due, Vec::new())
        } else {
            effects(up)
        };
    }
    if let Readiness::Waiting(why) | Readiness::Failed(why) = facts.canary_readiness()
        && !late
    {
        let text = format!("canary not ready during finalizing: {why}");
        return Decision::Wait(Next::Due, vec![event(world, EventKind::Warning, text)]);
    }
    // What proxies have not heard of they cannot follow.
    if let Some(wait) = facts.routes_lag().filter(|_| !late) {
        return wait;
    }
    let given_back = match given_back {
        Ok(given_back) => given_back,
        Err(_) if late => Vec::new(),
        Err(problem) => return warn(world, problem),
    };
    if !given_back.is_empty() {
        return effects(given_back);
    }
    match drain::end(world) {
        None => Decision::commit(drain::begin(phase::status(world), world), Vec::new()),
        Some(end) if world.now < end => Decision::Wait(Next::At(end), Vec::new()),
        Some(_) => facts
            .tidy_routes()
            .map_or_else(|| Decision::Do(gone(world)), |effect| effects(vec![effect])),
    }
}

/// The Service and the routes as they were before the Canary.
fn given_back(facts: &Facts<'_>) -> Result<Vec<Effect>, String> {
    let world = facts.world;
    let mut effects: Vec<_> = facts.restored_apex().into_iter().collect();
    effects.extend(route::restore(Dialect::of(world)?, world));
    Ok(effects)
}

/// Whether the target was waited for long enough.
fn is_late(world: &World) -> bool {
    deadline(world).is_none_or(|deadline| deadline <= world.now)
}

/// Until when the target is waited for.
fn deadline(world: &World) -> Option<Timestamp> {
    let since = phase::status(world).last_transition_time?.0;
    let wait = SignedDuration::from_secs(world.canary.progress_deadline_seconds());
    since.checked_add(wait).ok()
}

fn effects(effects: Vec<Effect>) -> Decision {
    Decision::Do(Plan {
        effects,
        ..Plan::default()
    })
}

fn gone(world: &World) -> Plan {
    let text = format!("Terminated canary {}", world.full_name());
    Plan {
        notices: vec![event(world, EventKind::Normal, text)],
        ..write(world, false)
    }
}

fn has_finalizer(world: &World) -> bool {
    let mut finalizers = world.canary.metadata.finalizers.iter().flatten();
    finalizers.any(|finalizer| finalizer == FINALIZER)
}

/// Puts the finalizer on, or takes it off.
fn write(world: &World, on: bool) -> Plan {
    let meta = &world.canary.metadata;
    let others = meta.finalizers.iter().flatten();
    let mut wanted: Vec<_> = others.filter(|other| *other != FINALIZER).collect();
    let own = FINALIZER.to_owned();
    if on {
        wanted.push(&own);
    }
    let test = |path: &str, value: Value| json!({"op": "test", "path": path, "value": value});
    let patch = json!([
        test("/metadata/uid", json!(meta.uid)),
        test("/metadata/resourceVersion", json!(meta.resource_version)),
        {"op": "add", "path": "/metadata/finalizers", "value": wanted},
    ]);
    let failure = format!("updating the finalizer of {} failed: ", world.full_name());
    Plan {
        effects: vec![Effect {
            object: world.reference(Kind::Canary, world.name()),
            action: Action::Patch(patch),
            failure,
        }],
        ..Plan::default()
    }
}
