//! The knowledge of this process about the records of runs.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::records::Record;

/// The settings of records, and what is known about the API server's support for them.
#[derive(Debug, Default)]
pub struct Records {
    /// `-release-history`: how many records of each canary are kept; 0 for none.
    history: usize,
    /// Whether the log tells that no records are written.
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

    /// Whether the log does not tell yet that no records are written. True once.
    pub fn is_first_report(&self) -> bool {
        !self.is_reported.swap(true, Ordering::Relaxed)
    }
}

/// The record of a canary's run, as far as this process knows.
#[derive(Default)]
pub enum Recording {
    /// This process has not looked.
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
        /// Whether the object has all that is worth it.
        is_saved: bool,
    },
}
