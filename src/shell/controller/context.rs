//! The state that all reconciliations share, and the state of each canary.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use super::{
    answers::Answers,
    deciding::Deciding,
    reconcile_state::ReconcileState,
    recording::{Recording, Records},
};
use crate::{
    shell::{
        api_server::{Cluster, cache::Cache},
        lock::lock,
        notify::Notifier,
        telemetry::{
            canary_metrics::CanaryMetrics, operator_metrics::OperatorMetrics, server::Health,
        },
    },
    snapshot::{ObjectRef, Settings},
};

/// The shortest and the longest pause after a failed reconciliation.
pub const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(15));

/// The parts of the operator that all reconciliations share.
pub struct Operator {
    /// Reads and writes objects.
    pub cluster: Cluster,
    /// The settings that the operator was started with.
    pub settings: Arc<Settings>,
    /// Sends notifications.
    pub notifier: Notifier,
    /// The metrics of canaries.
    pub canary_metrics: CanaryMetrics,
    /// The metrics of the operator's own work.
    pub operator_metrics: OperatorMetrics,
    /// The questions that are being asked.
    pub answers: Arc<Answers>,
    /// The settings of records.
    pub records: Records,
}

/// Reconciles canaries. Clones share their state.
#[derive(Clone)]
pub struct Context {
    pub operator: Arc<Operator>,
    pub cache: Arc<Cache>,
    pub health: Health,
    pub deciding: Deciding,
    canaries: Arc<Mutex<HashMap<ObjectRef, CanaryEntry>>>,
}

/// The state of a canary between reconciliations.
#[derive(Clone, Default)]
pub struct CanaryEntry {
    pub state: Arc<Mutex<ReconcileState>>,
    /// The record of its run.
    pub recording: Arc<Mutex<Recording>>,
    /// The name of its target: a label of its metrics.
    pub target: Option<String>,
    /// The last resourceVersion for which an event reported that the Canary cannot be read.
    pub reported_invalid: Option<String>,
    /// The failed reconciliations in a row.
    pub failures: u32,
}

impl Context {
    pub fn new(operator: Arc<Operator>, cache: Arc<Cache>, health: Health) -> Self {
        Self {
            operator,
            cache,
            health,
            deciding: Deciding::default(),
            canaries: Arc::default(),
        }
    }

    pub fn canaries(&self) -> MutexGuard<'_, HashMap<ObjectRef, CanaryEntry>> {
        lock(&self.canaries)
    }

    pub fn with_entry<T>(&self, canary: &ObjectRef, f: impl FnOnce(&mut CanaryEntry) -> T) -> T {
        f(self.canaries().entry(canary.clone()).or_default())
    }

    /// Records a failed reconciliation. Returns how long to wait before the next attempt.
    pub fn failed(&self, canary: &ObjectRef, category: &str) -> Duration {
        self.operator.operator_metrics.error(category);
        let failures = self.with_entry(canary, |entry| {
            lock(&entry.state).failed();
            entry.failures += 1;
            entry.failures
        });
        let (first, most) = RETRY;
        first.saturating_mul(1 << failures.min(10)).min(most)
    }

    /// Remembers the target of a canary. If the canary had another one, removes the gauges of that.
    pub fn set_target(&self, canary: &ObjectRef, target: &str) {
        let before = self.with_entry(canary, |entry| entry.target.replace(target.to_owned()));
        if let Some(other) = before.filter(|before| before != target) {
            self.forget_target(&other, &canary.namespace);
        }
    }

    /// Removes the gauges of a target, unless another canary has it.
    pub fn forget_target(&self, target: &str, namespace: &str) {
        let has_it = |(canary, entry): (&ObjectRef, &CanaryEntry)| {
            canary.namespace == namespace && entry.target.as_deref() == Some(target)
        };
        if !self.canaries().iter().any(has_it) {
            self.operator.canary_metrics.forget(target, namespace);
        }
    }

    /// Forgets deleted canaries, and counts those that exist.
    pub fn sweep(&self) {
        let mut namespaces: BTreeMap<String, usize> = BTreeMap::new();
        let existing: HashSet<_> = self.cache.canaries().into_iter().collect();
        for canary in &existing {
            *namespaces.entry(canary.namespace.clone()).or_default() += 1;
        }
        let operator = &self.operator;
        operator.canary_metrics.total(&namespaces);
        operator.operator_metrics.cached(&self.cache.sizes());
        let mut targets = Vec::new();
        self.canaries().retain(|canary, entry| {
            let exists = existing.contains(canary);
            if !exists {
                operator.answers.forget(canary);
                operator
                    .operator_metrics
                    .forget(&canary.name, &canary.namespace);
                let target = entry.target.take();
                targets.extend(target.map(|target| (target, canary.namespace.clone())));
            }
            exists
        });
        for (target, namespace) in targets {
            self.forget_target(&target, &namespace);
        }
    }
}

/// Returns `NAME.NAMESPACE` of a canary, the value of the field `canary` of log lines.
pub fn full_name(canary: &ObjectRef) -> String {
    format!("{}.{}", canary.name, canary.namespace)
}

#[cfg(test)]
mod tests;
