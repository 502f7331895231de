//! The reconcile loop: `observe → decide ⇄ answer → execute → commit → notify`, for one canary after another.
//!
//! | question | place |
//! | --- | --- |
//! | what happens in one reconciliation? | `reconcile` |
//! | which objects does a decision see? | [`observe`] |
//! | on which thread is a decision made? | `deciding` |
//! | how are questions asked? | [`answers`] |
//! | how is a plan carried out? | `execute` |
//! | when is a canary reconciled? | [`schedule`], [`requeue`] |
//! | what is remembered between two reconciliations? | [`reconcile_state`] |
//! | what if another actor undoes a write again and again? | `repeated_writes` |
//! | what if two operators run at once? | `status_writers` |
//! | what do all reconciliations share: clients, caches, settings, queues? | `context` |
//! | how is a metric that needs several requests queried? | `querying` |
//! | when is the record of a run read and written? | `records`; `recording` is what the process knows of it |

pub mod answers;
mod context;
mod deciding;
mod execute;
pub mod observe;
pub mod querying;
mod reconcile;
pub mod reconcile_state;
mod recording;
mod records;
mod repeated_writes;
pub mod requeue;
pub mod schedule;
mod status_writers;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use tokio::{sync::mpsc, time::Instant};
use tracing::{error, info, warn};

use super::{api_server::cache::Cache, telemetry::server::Health};
use crate::snapshot::{ObjectRef, Watched};
pub use context::Operator;
use context::{Context, full_name};
use reconcile::Reconciliation;
pub use recording::Records;
use schedule::{Reconciler, Schedule};

/// How often deleted canaries are forgotten.
const SWEEP: Duration = Duration::from_secs(10);

/// Reconciles the `watched` canaries until `stop` completes. The channel carries the names of canaries that changed or got an answer.
pub async fn run(
    watched: Watched,
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
    let (cache, kinds_to_watch) = Cache::new(operator.cluster.clone(), watched, needs, trigger);
    let cache = Arc::new(cache);
    let context = Context::new(operator, cache.clone(), health.clone());
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
            let result = Box::pin(Reconciliation::new(&context, &canary).run()).await;
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
