//! What people are told of a canary, as of the look that says it.

use jiff::Timestamp;

use super::phase;
use crate::{
    api::canary::{CanaryPhase, CanaryStatus},
    notice::{EventKind, Notice, Severity, alert, hook},
    world::World,
};

/// An event about the canary, as of its phase now.
pub fn event(world: &World, kind: EventKind, message: String) -> Notice {
    event_in(world, kind, message, world.phase())
}

/// An event that event webhooks are told with another phase than the one the status has now.
pub fn event_in(world: &World, kind: EventKind, message: String, phase: CanaryPhase) -> Notice {
    Notice::Event {
        kind,
        message,
        phase,
        checksum: hook::checksum(&phase::status(world)),
    }
}

/// An event about what a status says, once that is committed.
pub fn event_of(status: &CanaryStatus, kind: EventKind, message: String) -> Notice {
    Notice::Event {
        kind,
        message,
        phase: status.phase,
        checksum: hook::checksum(status),
    }
}

/// An alert, with the fields that describe the canary or without.
pub fn alert(world: &World, severity: Severity, text: &str, described: bool) -> Notice {
    let fields = alert::fields(
        &world.settings.cluster_name,
        described.then_some(&world.canary),
    );
    Notice::Alert {
        severity,
        text: text.to_owned(),
        fields,
        opens: None,
    }
}

/// The same about a phase that was entered then.
pub fn opening(mut notice: Notice, at: Option<Timestamp>) -> Notice {
    if let Notice::Alert { opens, .. } = &mut notice {
        *opens = at;
    }
    notice
}
