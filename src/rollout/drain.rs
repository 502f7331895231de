//! Between the moment when traffic leaves the target's pods and the moment when they go: connections end, and every proxy learns the
//! new routes. Flagger scales down in the same breath, and loses what is on its way.

use jiff::{SignedDuration, Timestamp};

use super::{
    facts::Facts,
    phase::{self, Intent},
    plan::{Decision, Plan},
};
use crate::{
    api::canary::{CanaryPhase, CanaryStatus},
    world::{Weights, World},
};

/// How long proxies may take to learn new routes, where Flagger does not wait at all: at the start and at the end of a Canary.
const SETTLE: SignedDuration = SignedDuration::from_secs(5);

/// The same status; from now on connections drain.
pub fn begin(status: CanaryStatus, world: &World) -> CanaryStatus {
    phase::with_intent(status, world, Intent::Draining, "TrafficMoved", "")
}

/// When they will have drained: an interval after a run; `None` while none do.
pub fn end(world: &World) -> Option<Timestamp> {
    use CanaryPhase as P;
    let since = phase::since(world, Intent::Draining)?;
    let wait = match world.phase() {
        P::Initializing | P::Terminating => SETTLE,
        _ => SignedDuration::try_from(world.canary.interval()).unwrap_or(SETTLE),
    };
    Some(since.saturating_add(wait).unwrap_or(world.now))
}

/// Whether they have drained.
pub fn is_over(world: &World) -> bool {
    end(world).is_some_and(|end| end <= world.now)
}

/// After a run: the canary goes, if traffic is still where it should be.
pub fn finish(facts: &Facts<'_>) -> Option<Decision> {
    use CanaryPhase as P;
    let world = facts.world;
    let is_settled = matches!(
        world.phase(),
        P::Initialized | P::Waiting | P::Succeeded | P::Failed
    );
    let is_at_primary = || facts.weights() == Ok(Weights::PRIMARY) && facts.routes_lag().is_none();
    if !is_settled || !is_over(world) || !is_at_primary() {
        return None;
    }
    Some(Decision::Do(Plan {
        effects: facts.scale_down(),
        status: Some(phase::without_intent(
            phase::status(world),
            Intent::Draining,
        )),
        notices: Vec::new(),
    }))
}
