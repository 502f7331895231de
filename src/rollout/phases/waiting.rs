//! Waits whose reason stands in the status.

use crate::{
    rollout::{messages, plan::Decision, status::verdict},
    snapshot::Snapshot,
};

/// A decision; if it is a wait that an event reports, the status records the reason first, after the words `waits`. A wait that is not
/// reported is not recorded either.
pub fn recorded(snapshot: &Snapshot, waits: &str, decision: Decision) -> Decision {
    let why = match &decision {
        Decision::Wait(_, events) => events.iter().find_map(messages::warned),
        Decision::Ask(..) | Decision::Do(_) => None,
    };
    let change = why.and_then(|why| verdict::wait(snapshot, waits, why));
    // The wait that follows sends the event.
    change.map_or(decision, |change| {
        Decision::commit(change.build(), Vec::new())
    })
}
