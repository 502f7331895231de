//! What people are told of a canary, as of the look that says it.

use jiff::Timestamp;

use super::phase;
use crate::{
    api::canary::{CanaryPhase, CanaryStatus},
    notifications::{EventKind, Notification, Severity, alert, hook},
    snapshot::Snapshot,
};

/// An event about the canary, as of its phase now.
pub fn event(snapshot: &Snapshot, kind: EventKind, message: String) -> Notification {
    event_in(snapshot, kind, message, snapshot.phase())
}

/// An event that event webhooks are told with another phase than the one the status has now.
pub fn event_in(
    snapshot: &Snapshot,
    kind: EventKind,
    message: String,
    phase: CanaryPhase,
) -> Notification {
    Notification::Event {
        kind,
        message,
        phase,
        checksum: hook::checksum(&phase::status(snapshot)),
    }
}

/// An event about what a status says, once that is committed.
pub fn event_of(status: &CanaryStatus, kind: EventKind, message: String) -> Notification {
    Notification::Event {
        kind,
        message,
        phase: status.phase,
        checksum: hook::checksum(status),
    }
}

/// An alert, with the fields that describe the canary or without.
pub fn alert(snapshot: &Snapshot, severity: Severity, text: &str, described: bool) -> Notification {
    let fields = alert::fields(
        &snapshot.settings.cluster_name,
        described.then_some(&snapshot.canary),
    );
    Notification::Alert {
        severity,
        text: text.to_owned(),
        fields,
        opens: None,
    }
}

/// The same about a phase that was entered then.
pub fn opening(mut notification: Notification, at: Option<Timestamp>) -> Notification {
    if let Notification::Alert { opens, .. } = &mut notification {
        *opens = at;
    }
    notification
}
