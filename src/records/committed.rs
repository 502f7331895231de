//! A change of the status, as the record of a run sees it.

use std::collections::BTreeMap;

use crate::{
    api::{
        canary::{CanaryPhase, CanaryStatus},
        release::Change,
        status::ConditionType,
    },
    rollout::{self, Measurements, is_in_run},
    snapshot::Snapshot,
};

/// A change of the status that was committed.
#[derive(Clone, Copy)]
pub struct Committed<'a> {
    /// The snapshot before it.
    pub snapshot: &'a Snapshot,
    /// The status after it.
    pub status: &'a CanaryStatus,
    /// The measurements and calls on which the decision was based.
    pub measurements: &'a Measurements,
}

impl Committed<'_> {
    /// Whether a record starts: a version begins to wait for its run, or a run starts or replaces another one.
    pub fn starts(&self) -> bool {
        let before = self.snapshot.status();
        let replaces = || {
            is_in_run(before.phase)
                && (before.last_applied_spec != self.status.last_applied_spec
                    || before.tracked_configs != self.status.tracked_configs)
        };
        is_recorded(self.status.phase) && (!is_recorded(before.phase) || replaces())
    }

    /// The author of the retry that started the run.
    pub fn retried_by(&self) -> Option<String> {
        let retry = self.snapshot.status();
        let retry = retry.condition(ConditionType::RetryRequested)?;
        let author = retry.message.as_deref()?.strip_prefix("by ")?;
        let (author, _) = author.split_once(": ").unwrap_or((author, ""));
        Some(author.to_owned())
    }

    /// Whether this change starts the run of a version that has waited for it.
    pub(super) fn ends_wait(&self) -> bool {
        self.snapshot.phase() == CanaryPhase::Waiting && is_in_run(self.status.phase)
    }

    /// Whether this change is within a run of another revision than `recorded`.
    pub fn is_of_another_run(&self, recorded: &str) -> bool {
        let revision = self.revision();
        !self.ends() && revision.is_some_and(|revision| revision != recorded)
    }

    /// Whether this change belongs to a run or to the wait before it. After a restart, a run with pending notifications counts as well,
    /// because its end may be missing in the record.
    pub fn concerns_a_run(&self) -> bool {
        let before = self.snapshot.status();
        // Kubernetes deletes the records together with the Canary.
        if self.status.phase == CanaryPhase::Terminating {
            return false;
        }
        is_recorded(before.phase)
            || is_recorded(self.status.phase)
            || (before.has_condition(ConditionType::NotificationPending)
                && matches!(before.phase, CanaryPhase::Succeeded | CanaryPhase::Failed))
    }

    /// Whether the run is over and its notifications are still to be sent.
    pub fn has_unsent_notifications(&self) -> bool {
        self.ends()
            && self
                .status
                .has_condition(ConditionType::NotificationPending)
    }

    /// Whether the run is over.
    pub const fn ends(&self) -> bool {
        !is_recorded(self.status.phase)
    }

    /// The revision of the version. While a version waits for its run, the status does not have the revision, so it is computed from the
    /// target.
    pub(super) fn revision(&self) -> Option<String> {
        match self.status.phase {
            CanaryPhase::Waiting => rollout::version(self.snapshot).map(|(revision, _)| revision),
            _ => self.status.last_applied_spec.clone(),
        }
    }

    /// The configs that the version changes.
    pub(super) fn configs(&self) -> Vec<Change> {
        let list = |configs: &Option<BTreeMap<String, String>>| -> Vec<_> {
            configs.clone().into_iter().flatten().collect()
        };
        let waiting = match self.status.phase {
            CanaryPhase::Waiting => rollout::version(self.snapshot),
            _ => None,
        };
        let (_, after) =
            waiting.unwrap_or_else(|| (String::new(), self.status.tracked_configs.clone()));
        changes(
            &list(&self.snapshot.status().tracked_configs),
            &list(&after),
        )
    }
}

/// Whether a version has a record in this phase: it is released, or waits for its run.
const fn is_recorded(phase: CanaryPhase) -> bool {
    is_in_run(phase) || matches!(phase, CanaryPhase::Waiting)
}

/// The values that differ between two lists of names and values.
pub(super) fn changes(from: &[(String, String)], to: &[(String, String)]) -> Vec<Change> {
    let find = |list: &[(String, String)], name: &str| {
        let found = list.iter().find(|(of, _)| of == name);
        found.map(|(_, value)| value.clone()).unwrap_or_default()
    };
    let removed = from
        .iter()
        .filter(|(name, _)| !to.iter().any(|(of, _)| of == name));
    let names = to.iter().chain(removed).map(|(name, _)| name);
    names
        .map(|name| Change {
            name: name.clone(),
            from: find(from, name),
            to: find(to, name),
        })
        .filter(|change| change.from != change.to)
        .collect()
}
