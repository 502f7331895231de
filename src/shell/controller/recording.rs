//! The knowledge of this process about the records of runs.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::records::Record;

/// The settings of records, and whether the API server supports them, as far as known.
#[derive(Debug, Default)]
pub struct Records {
    /// `-release-history`: how many records of each canary are kept; 0 for none.
    history: usize,
    /// Whether the log has the message that no records are written.
    is_reported: AtomicBool,
}

impl Records {
    /// Keeps this many records of each canary.
    pub const fn keeping(history: usize) -> Self {
        Self {
            history,
            is_reported: AtomicBool::new(false),
        }
    }

    /// How many records of each canary are kept.
    pub const fn history(&self) -> usize {
        self.history
    }

    /// Whether the message that no records are written is still to be logged. True for the first call only.
    pub fn is_first_report(&self) -> bool {
        !self.is_reported.swap(true, Ordering::Relaxed)
    }
}

/// The record of a canary's run, as far as this process knows.
#[derive(Default)]
pub enum Recording {
    /// This process has not read the records yet.
    #[default]
    Unknown,
    /// The run that has started has no record yet, because a request failed.
    Unbegun,
    /// The last run has ended, and its record is complete.
    Ended,
    /// The run cannot be recorded: the API server refuses its record.
    Nothing,
    /// The run has this record.
    Running {
        record: Box<Record>,
        /// Whether the object has all changes that must be written at once.
        is_saved: bool,
    },
}

impl Recording {
    /// Whether there is nothing that must be written at once.
    pub const fn is_saved(&self) -> bool {
        match self {
            Self::Ended | Self::Nothing => true,
            Self::Unknown | Self::Unbegun => false,
            Self::Running { is_saved, .. } => *is_saved,
        }
    }
}
