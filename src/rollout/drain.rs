//! Between the moment when traffic leaves the target's pods and the moment when they go: connections end, and every proxy learns the
//! new routes. Flagger scales down in the same breath, and loses what is on its way.

use jiff::{SignedDuration, Timestamp};

use super::{
    phase::{self, ConditionType},
    plan::{Decision, Plan},
    release::Release,
};
use crate::{
    api::canary::{CanaryPhase, CanaryStatus},
    snapshot::{Snapshot, Weights},
};

/// How long proxies may take to learn new routes, where Flagger does not wait at all: at the start and at the end of a Canary.
const SETTLE: SignedDuration = SignedDuration::from_secs(5);

/// The same status; from now on connections drain.
pub fn begin(status: CanaryStatus, snapshot: &Snapshot) -> CanaryStatus {
    phase::with_condition(
        status,
        snapshot,
        ConditionType::Draining,
        "TrafficMoved",
        "",
    )
}

/// When they will have drained: an interval after a run; `None` while none do.
pub fn end(snapshot: &Snapshot) -> Option<Timestamp> {
    use CanaryPhase as P;
    let since = phase::since(snapshot, ConditionType::Draining)?;
    let wait = match snapshot.phase() {
        P::Initializing | P::Terminating => SETTLE,
        _ => SignedDuration::try_from(snapshot.canary.interval()).unwrap_or(SETTLE),
    };
    Some(since.saturating_add(wait).unwrap_or(snapshot.now))
}

/// Whether they have drained.
pub fn is_over(snapshot: &Snapshot) -> bool {
    end(snapshot).is_some_and(|end| end <= snapshot.now)
}

/// After a run: the canary goes, if traffic is still where it should be.
pub fn finish(release: &Release<'_>) -> Option<Decision> {
    use CanaryPhase as P;
    let snapshot = release.snapshot;
    let is_settled = matches!(
        snapshot.phase(),
        P::Initialized | P::Waiting | P::Succeeded | P::Failed
    );
    let is_at_primary =
        || release.weights() == Ok(Weights::PRIMARY) && release.routes_lag().is_none();
    if !is_settled || !is_over(snapshot) || !is_at_primary() {
        return None;
    }
    Some(Decision::Do(Plan {
        writes: release.scale_down(),
        status: Some(phase::without_condition(
            phase::status(snapshot),
            ConditionType::Draining,
        )),
        notifications: Vec::new(),
    }))
}
