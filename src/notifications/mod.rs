//! What people are told: events on the Canary, alerts in a chat, samples and counts in the operator's own metrics.

use jiff::Timestamp;

use crate::api::canary::CanaryPhase;

pub mod alert;
mod discord;
mod google_chat;
pub mod hook;
mod rocket;
mod slack;
mod teams;
#[cfg(test)]
mod tests;

pub use alert::Severity;

/// One thing to tell.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Notification {
    /// An Event on the Canary, in Flagger's words; also a log line, and a call of the event webhooks.
    Event {
        /// `Normal` or `Warning`.
        kind: EventKind,
        /// The text.
        message: String,
        /// The phase that event webhooks are told.
        phase: CanaryPhase,
        /// The checksum that event webhooks are told.
        checksum: String,
    },
    /// A message for the chat.
    Alert {
        /// How bad it is.
        severity: Severity,
        /// The text.
        text: String,
        /// Name and value, in order.
        fields: Vec<(String, String)>,
        /// When the phase was entered of which it tells: until a step of that is on record it is told by each process, once.
        opens: Option<Timestamp>,
    },
}

impl Notification {
    /// Of an alert about the beginning of a phase: when that was entered, and the text.
    pub fn opening(&self) -> Option<(Timestamp, &str)> {
        match self {
            Self::Alert { opens, text, .. } => opens.map(|at| (at, text.as_str())),
            Self::Event { .. } => None,
        }
    }
}

/// The types of Kubernetes events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EventKind {
    /// As it should be.
    Normal,
    /// Worth a look.
    Warning,
}

impl EventKind {
    /// `type` of the Event.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}
