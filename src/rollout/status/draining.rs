//! The time between the moment when traffic leaves the target's pods and the moment when the target is scaled down. Meanwhile connections
//! end, and every proxy applies the new routes. Flagger scales down at once and loses the requests in flight.

use jiff::{SignedDuration, Timestamp};

use super::StatusChange;
use crate::{
    api::{canary::CanaryPhase, status::ConditionType},
    snapshot::Snapshot,
};

/// The time that proxies get to apply new routes when a Canary is initialized or deleted. Flagger does not wait there.
const PROXY_UPDATE: SignedDuration = SignedDuration::from_secs(5);

/// Records that connections drain from now on.
pub fn begin(change: StatusChange<'_>) -> StatusChange<'_> {
    const WHY: &str = "Traffic has left the target's pods. They are scaled down when their connections have drained.";
    change.set(ConditionType::Draining, "TrafficMoved", WHY)
}

/// The time since which connections drain; `None` if none do.
pub fn since(snapshot: &Snapshot) -> Option<Timestamp> {
    let draining = snapshot.status().condition(ConditionType::Draining)?;
    let since = draining.last_transition_time.as_ref();
    Some(since.map_or(Timestamp::MIN, |since| since.0))
}

/// The time at which the connections will have drained: an interval after the end of a run, or some seconds after traffic moved in an
/// initialization or a deletion. `None` if none drain.
pub fn end(snapshot: &Snapshot) -> Option<Timestamp> {
    use CanaryPhase as P;
    let since = since(snapshot)?;
    let wait = match snapshot.phase() {
        P::Initializing | P::Terminating => PROXY_UPDATE,
        _ => SignedDuration::try_from(snapshot.canary.interval()).unwrap_or(PROXY_UPDATE),
    };
    Some(since.saturating_add(wait).unwrap_or(snapshot.now))
}

/// Whether a drain was in progress and is over.
pub fn is_over(snapshot: &Snapshot) -> bool {
    end(snapshot).is_some_and(|end| end <= snapshot.now)
}
