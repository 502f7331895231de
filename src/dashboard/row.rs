//! One canary in the list, small enough to keep thousands of them.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use serde_json::Value;

use super::{
    recorded::Recorded,
    text::{NAME, SENTENCE, cut},
};
use crate::view::{Seen, State, View};

/// The maximum number of labels that the filter knows of a canary.
const LABELS: usize = 32;

/// A canary in the list.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Its view, without the parts that the list does not show.
    pub view: View,
    /// The record of its current run, or of the last one; `None` if it is not known.
    pub recorded: Option<Arc<Recorded>>,
    labels: BTreeMap<String, String>,
    searched: String,
}

/// The place of a canary in the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// It needs the attention of a person.
    Attention,
    /// A run is in progress.
    Run,
    /// Nothing happens.
    Quiet,
}

impl Row {
    /// The row of a Canary at this time.
    pub fn of(canary: Value, now: Timestamp) -> Self {
        let labels = canary
            .pointer("/metadata/labels")
            .and_then(Value::as_object);
        let labels = labels.into_iter().flatten().take(LABELS);
        let labels = labels
            .filter_map(|(key, value)| Some((cut(key, NAME), cut(value.as_str()?, NAME))))
            .collect();
        let seen = Seen {
            canary,
            ..Seen::default()
        };
        let mut view = View::of(&seen, now);
        view.sentence = cut(&view.sentence, SENTENCE);
        view.conditions = Vec::new();
        view.checks = Vec::new();
        view.hooks = Vec::new();
        view.action = None;
        Self {
            searched: searched(&view),
            labels,
            view,
            recorded: None,
        }
    }

    /// The row with a record, if it is of the current run or of the last one.
    #[must_use]
    pub fn with(mut self, recorded: Option<&Arc<Recorded>>) -> Self {
        let of_this = recorded.filter(|recorded| recorded.is_of(&self.view));
        self.recorded = of_this.cloned();
        self
    }

    /// The row from this time on, if the next sign of the operator is overdue now; `None` if the row stays as it is.
    pub fn silent(&self, now: Timestamp) -> Option<Self> {
        self.view.overdue_since(now)?;
        let mut row = self.clone();
        row.view.fall_silent(now);
        row.searched = searched(&row.view);
        Some(row)
    }

    /// Whether the Canary has a label with this value.
    pub fn has_label(&self, key: &str, value: &str) -> bool {
        self.labels.get(key).is_some_and(|found| found == value)
    }

    /// The text, in lower case, in which the filter searches.
    pub fn searched(&self) -> &str {
        &self.searched
    }

    /// The place of the canary in the list.
    pub fn rank(&self) -> Rank {
        match self.view.state {
            _ if self.view.needs_attention => Rank::Attention,
            State::New | State::Initializing => Rank::Run,
            state if state.is_in_run() => Rank::Run,
            _ => Rank::Quiet,
        }
    }
}

/// The text, in lower case, in which the filter searches.
fn searched(view: &View) -> String {
    format!("{}/{} {}", view.namespace, view.name, view.sentence).to_lowercase()
}
