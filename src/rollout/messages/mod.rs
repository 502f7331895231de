//! The texts of events and alerts. Where Flagger has an event, the text is exactly Flagger's.
//!
//! | event | place |
//! | --- | --- |
//! | the course of a run, from its start to the promotion; actions | [`run`] |
//! | hooks and gates | [`checks`], `rollout/checks/gates.rs` |
//! | metrics over their threshold, or without a value | `rollout/checks/metrics.rs` |
//! | the end of a run | [`outcome`] |
//! | obstacles, and the errors that they wrap | `rollout/blocked.rs` |
//! | Canaries that are refused | `rollout/safety/validation.rs`, `workload/ownership.rs` |
//! | pods that are not ready | `snapshot/readiness.rs` |
//! | writes that another actor undoes | this file |
//! | plans that are refused as unsafe | `shell/controller/execute.rs` |

pub mod checks;
pub mod outcome;
pub mod run;

use jiff::Timestamp;

use crate::{
    api::canary::{CanaryPhase, CanaryStatus},
    notifications::{EventKind, Frequency, Notification, Severity, alert, webhook},
    snapshot::{ObjectRef, Snapshot},
};

/// A Warning event about the canary in its current phase: an obstacle or a failed check, which the next step may report again.
pub fn warning(snapshot: &Snapshot, message: String) -> Notification {
    recurring(snapshot, EventKind::Warning, message)
}

/// The text of a warning; `None` for any other notification.
pub fn warned(notification: &Notification) -> Option<&str> {
    match notification {
        Notification::Event {
            kind: EventKind::Warning,
            message,
            ..
        } => Some(message),
        _ => None,
    }
}

/// An event that each step may send again.
pub fn recurring(snapshot: &Snapshot, kind: EventKind, message: String) -> Notification {
    Notification::Event {
        kind,
        message,
        phase: snapshot.phase(),
        checksum: webhook::checksum(snapshot.status()),
        frequency: Frequency::Recurring,
    }
}

/// A Normal event about the canary in its current phase.
pub fn normal(snapshot: &Snapshot, message: String) -> Notification {
    event_in(snapshot, EventKind::Normal, message, snapshot.phase())
}

/// A Warning event about an object that another actor changes after each write of the operator. `manager` is the field manager of the last
/// write; `None` if it is unknown or is the operator.
pub fn undone(snapshot: &Snapshot, object: &ObjectRef, manager: Option<&str>) -> Notification {
    let actor = manager.map_or_else(
        || "an admission policy, a webhook or another controller".to_owned(),
        |manager| format!("{manager:?}"),
    );
    let message = format!(
        "{} {} does not keep what is written: {actor} changes it back each time. It is written again with growing pauses, \
         until only one of the two changes these fields",
        object.kind.name(),
        object.full_name()
    );
    warning(snapshot, message)
}

/// A Warning event about a status that another operator has changed.
pub fn another_operator(snapshot: &Snapshot) -> Notification {
    let message = format!(
        "Another operator changes the status of {}: hooks may be called and alerts sent twice. Run only one, or start each with \
         -enable-leader-election=true and the same -leader-election-namespace",
        snapshot.full_name()
    );
    warning(snapshot, message)
}

/// An event with this phase, instead of the current one, in the payload of event webhooks.
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
        checksum: webhook::checksum(snapshot.status()),
        frequency: Frequency::Once,
    }
}

/// A Normal event about a status that is committed before the event is sent.
pub fn normal_after(status: &CanaryStatus, message: String) -> Notification {
    Notification::Event {
        kind: EventKind::Normal,
        message,
        phase: status.phase,
        checksum: webhook::checksum(status),
        frequency: Frequency::Once,
    }
}

/// An alert without the fields that describe the canary.
pub fn alert(snapshot: &Snapshot, severity: Severity, text: &str) -> Notification {
    Notification::Alert {
        severity,
        text: text.to_owned(),
        fields: alert::fields(&snapshot.settings.cluster_name, None),
        announces: None,
    }
}

/// An Info alert with the fields that describe the canary.
pub fn describing_alert(snapshot: &Snapshot, text: &str) -> Notification {
    Notification::Alert {
        severity: Severity::Info,
        text: text.to_owned(),
        fields: alert::fields(&snapshot.settings.cluster_name, Some(&snapshot.canary)),
        announces: None,
    }
}

/// Marks an alert as the announcement of a phase that was entered at this time. Each reconcile repeats the alert until the status
/// records a step of the phase, but a process sends it only once.
pub fn announcing(mut notification: Notification, entered: Option<Timestamp>) -> Notification {
    if let Notification::Alert { announces, .. } = &mut notification {
        *announces = entered;
    }
    notification
}
