//! Notifications: events on the Canary, alerts in chats, and calls of event webhooks; their texts and payloads. Pure: `shell` sends them.

pub mod alert;
pub mod chats;
pub mod message;
#[cfg(test)]
mod tests;
pub mod webhook;

use jiff::Timestamp;

use crate::api::canary::CanaryPhase;

/// One event or alert about a canary.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Notification {
    /// An Event on the Canary, with Flagger's text. It is also logged and sent to event webhooks.
    Event {
        /// `Normal` or `Warning`.
        kind: EventKind,
        /// The text.
        message: String,
        /// The phase in the payload of event webhooks.
        phase: CanaryPhase,
        /// The checksum in the payload of event webhooks.
        checksum: String,
        /// How often a run sends the event.
        frequency: Frequency,
    },
    /// A message for the chats.
    Alert {
        /// The severity.
        severity: Severity,
        /// The text.
        text: String,
        /// Names and values, in order.
        fields: Vec<(String, String)>,
        /// For an alert about the beginning of a phase: when the phase began. Until the status records a step of the phase, each process
        /// sends the alert once.
        announces: Option<Timestamp>,
    },
}

impl Notification {
    /// For an alert about the beginning of a phase: when the phase began, and the text. `None` for all others.
    pub fn announcement(&self) -> Option<(Timestamp, &str)> {
        match self {
            Self::Alert {
                announces, text, ..
            } => announces.map(|at| (at, text.as_str())),
            Self::Event { .. } => None,
        }
    }
}

/// How often a run sends an event. It decides whether the number of Event objects is limited; event webhooks get all events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Frequency {
    /// Once, or once for each step: the course of a run and its outcome. Always written.
    Once,
    /// At any step, and perhaps many at once: obstacles and failed checks. Limited for each canary.
    Recurring,
}

/// The types of Kubernetes events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EventKind {
    /// The release goes as planned.
    Normal,
    /// Something needs a user's attention.
    Warning,
}

impl EventKind {
    /// The `type` of the Event.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// The severity of an alert, in ascending order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The release goes as planned.
    Info,
    /// The release waits for a user.
    Warn,
    /// A release failed.
    Error,
}
