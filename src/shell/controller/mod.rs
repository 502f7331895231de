//! The reconcile loop: `observe → decide ⇄ answer → execute → commit → report`, for one canary after another.
//!
//! | question | place |
//! | --- | --- |
//! | what happens in one reconciliation? | `reconcile` |
//! | which objects does a decision see? | [`observe`] |
//! | how are questions asked? | [`answers`] |
//! | how is a plan carried out? | `execute` |
//! | when is a canary reconciled? | [`schedule`], [`requeue`] |
//! | what is remembered between two reconciliations? | [`reconcile_state`] |

pub mod answers;
mod execute;
pub mod observe;
mod reconcile;
pub mod reconcile_state;
pub mod requeue;
pub mod schedule;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tokio::{sync::mpsc, time::Instant};
use tracing::{error, info, warn};

use super::{
    api_server::{Cluster, cache::Cache},
    lock::lock,
    notify::Notifier,
    telemetry::{canary_metrics::CanaryMetrics, operator_metrics::OperatorMetrics, server::Health},
};
use crate::snapshot::{ObjectRef, Settings};
use answers::Answers;
use reconcile::Reconciliation;
use reconcile_state::ReconcileState;
use schedule::{Reconciler, Schedule};

/// How often deleted canaries are forgotten.
const SWEEP: Duration = Duration::from_secs(10);
/// The shortest and the longest pause after a failed reconciliation.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(15));

/// What all reconciliations share.
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
}

/// What reconciles canaries. Clones are the same.
#[derive(Clone)]
struct Context {
    operator: Arc<Operator>,
    cache: Arc<Cache>,
    health: Health,
    canaries: Arc<Mutex<HashMap<ObjectRef, CanaryEntry>>>,
}

/// What is kept of a canary between reconciliations.
#[derive(Clone, Default)]
struct CanaryEntry {
    state: Arc<Mutex<ReconcileState>>,
    /// The name of its target: a label of its metrics.
    target: Option<String>,
    /// The last resourceVersion of the Canary that could not be read and for which that was reported.
    reported_invalid: Option<String>,
    /// The failed reconciliations in a row.
    failures: u32,
}

/// Reconciles all canaries of a namespace, or of all namespaces, until `stop` completes. The channel carries the names of canaries that
/// changed or got an answer.
pub async fn run(
    namespace: Option<&str>,
    operator: Arc<Operator>,
    (trigger, mut triggers): (
        mpsc::UnboundedSender<ObjectRef>,
        mpsc::UnboundedReceiver<ObjectRef>,
    ),
    health: Health,
    stop: impl Future<Output = ()>,
) {
    let settings = operator.settings.clone();
    let needs = Box::new(
        move |canary: &ObjectRef, peek: &dyn Fn(&ObjectRef) -> Option<serde_json::Value>| {
            observe::needs(canary, &settings, peek)
        },
    );
    let (cache, kinds_to_watch) = Cache::new(operator.cluster.clone(), namespace, needs, trigger);
    let cache = Arc::new(cache);
    let context = Context {
        operator,
        cache: cache.clone(),
        health: health.clone(),
        canaries: Arc::default(),
    };
    let _cleanup = Cleanup(context.clone());
    let reconciling = async {
        tokio::pin!(stop);
        let mut initial = tokio::select! {
            canaries = cache.synced() => canaries,
            () = &mut stop => return,
        };
        health.leading();
        info!("Reconciling {} canaries", initial.len());
        // The first lists triggered the initial canaries, which are scheduled anyway. Canaries that were created since are added.
        let known: HashSet<_> = initial.iter().cloned().collect();
        while let Ok(canary) = triggers.try_recv() {
            if !known.contains(&canary) {
                initial.push_back(canary);
            }
        }
        drop(known);
        Schedule::new(initial).run(&context, triggers, stop).await;
    };
    let sweeping = async {
        let mut sweeps = tokio::time::interval(SWEEP);
        loop {
            sweeps.tick().await;
            context.sweep();
        }
    };
    tokio::select! {
        () = reconciling => {}
        () = cache.run(kinds_to_watch) => {}
        () = sweeping => {}
    }
}

/// Ends all questions and removes the gauges of all canaries when this process does not reconcile any more, because another one leads.
struct Cleanup(Context);

impl Drop for Cleanup {
    fn drop(&mut self) {
        let Operator {
            answers,
            canary_metrics,
            operator_metrics,
            ..
        } = self.0.operator.as_ref();
        answers.forget_all();
        canary_metrics.total(&BTreeMap::new());
        operator_metrics.cached(&HashMap::new());
        for (canary, entry) in self.0.canaries().drain() {
            if let Some(target) = entry.target {
                canary_metrics.forget(&target, &canary.namespace);
            }
        }
    }
}

impl Reconciler<ObjectRef> for Context {
    fn reconcile(
        &self,
        canary: ObjectRef,
    ) -> impl Future<Output = Option<Duration>> + Send + 'static {
        let context = self.clone();
        async move {
            let begun = Instant::now();
            let result = Reconciliation::new(&context, &canary).run().await;
            context
                .operator
                .operator_metrics
                .reconciled(begun.elapsed());
            match result {
                Ok(again) => {
                    context.with_entry(&canary, |entry| entry.failures = 0);
                    again
                }
                Err(error) => {
                    let pause = context.failed(&canary, error.category());
                    warn!(
                        canary = full_name(&canary),
                        "reconciliation failed, next attempt in {} s: {error}",
                        pause.as_secs_f64()
                    );
                    Some(pause)
                }
            }
        }
    }

    fn panicked(&self, canary: &ObjectRef) -> Duration {
        let pause = self.failed(canary, "panic");
        error!(
            canary = full_name(canary),
            "a defect of the operator: the reconciliation panicked; next attempt in {} s. Please report it",
            pause.as_secs_f64()
        );
        pause
    }

    fn late(&self, by: Duration) {
        self.operator.operator_metrics.late(by);
    }

    fn heartbeat(&self) {
        self.health.heartbeat();
    }
}

impl Context {
    fn canaries(&self) -> MutexGuard<'_, HashMap<ObjectRef, CanaryEntry>> {
        lock(&self.canaries)
    }

    fn with_entry<T>(&self, canary: &ObjectRef, f: impl FnOnce(&mut CanaryEntry) -> T) -> T {
        f(self.canaries().entry(canary.clone()).or_default())
    }

    /// Records a failed reconciliation. Returns how long to wait before the next attempt.
    fn failed(&self, canary: &ObjectRef, category: &str) -> Duration {
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
    fn set_target(&self, canary: &ObjectRef, target: &str) {
        let before = self.with_entry(canary, |entry| entry.target.replace(target.to_owned()));
        if let Some(other) = before.filter(|before| before != target) {
            self.forget_target(&other, &canary.namespace);
        }
    }

    /// Removes the gauges of a target, unless another canary has it.
    fn forget_target(&self, target: &str, namespace: &str) {
        let has_it = |(canary, entry): (&ObjectRef, &CanaryEntry)| {
            canary.namespace == namespace && entry.target.as_deref() == Some(target)
        };
        if !self.canaries().iter().any(has_it) {
            self.operator.canary_metrics.forget(target, namespace);
        }
    }

    /// Forgets deleted canaries, and counts those that exist.
    fn sweep(&self) {
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
fn full_name(canary: &ObjectRef) -> String {
    format!("{}.{}", canary.name, canary.namespace)
}
