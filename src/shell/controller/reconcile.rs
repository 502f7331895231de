//! One reconciliation of a canary: observes and decides until there is nothing left to do for now.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use tracing::warn;

use super::{
    context::{Context, Operator, RETRY, full_name},
    deciding::Decided,
    observe::{ObserveError, observe},
    reconcile_state::ReconcileState,
    requeue,
};
use crate::{
    api::canary::{Canary, CanaryPhase},
    notifications::{EventKind, Frequency, Notification},
    rollout::{self, Decision, Measurements, Plan, Question, Requeue},
    shell::{api_server::ClusterError, lock::lock},
    snapshot::{ObjectRef, Snapshot},
};

/// The maximum number of plans that one reconciliation carries out, so that other canaries are reconciled, too.
const MAX_PLANS: usize = 16;

/// One reconciliation.
pub struct Reconciliation<'a> {
    pub(super) context: &'a Context,
    pub(super) canary: &'a ObjectRef,
    pub(super) state: Arc<Mutex<ReconcileState>>,
    /// Whether cached objects were already read again in this reconciliation; that happens at most once.
    has_reread: bool,
    /// How many plans were carried out.
    plans: usize,
    /// The object that was written last.
    last_written: Option<ObjectRef>,
}

/// The next action after a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Execution {
    /// The plan was carried out: observe and decide again.
    DecideAgain,
    /// A write failed because the object has changed: observe and decide again.
    Lost,
    /// The plan was refused, or another actor undoes its writes. Nothing is tried again before the next tick.
    WaitForTick,
}

/// The next action after a decision.
enum AfterDecision {
    /// Observe and decide again. The snapshot, if any, saves reading what has not changed.
    DecideAgain(Option<Box<Snapshot>>),
    /// The reconciliation ends, and another one follows after this time.
    Wait(Duration),
}

impl<'a> Reconciliation<'a> {
    pub fn new(context: &'a Context, canary: &'a ObjectRef) -> Self {
        Self {
            context,
            canary,
            state: context.with_entry(canary, |entry| entry.state.clone()),
            has_reread: false,
            plans: 0,
            last_written: None,
        }
    }

    /// Reconciles. Returns when to reconcile again if nothing changes before; `None` if the canary is gone.
    ///
    /// # Errors
    /// A request to the API server failed.
    pub async fn run(mut self) -> Result<Option<Duration>, ClusterError> {
        let cache = &self.context.cache;
        let settings = &self.operator().settings;
        let mut last = None;
        while self.plans < MAX_PLANS {
            let last_snapshot = last.take().map(|last: Box<Snapshot>| *last);
            let observing = observe(cache, settings, self.canary, &self.state, last_snapshot);
            let snapshot = match Box::pin(observing).await {
                Ok(Some(snapshot)) => snapshot,
                // If the cache still lists the Canary, the API server may have answered with an older state.
                Ok(None) => return Ok(cache.is_listed(self.canary).then_some(RETRY.1)),
                Err(ObserveError::Invalid { error, metadata }) => {
                    self.report_invalid(&error, &metadata);
                    return Ok(Some(requeue::IDLE));
                }
                Err(ObserveError::Cluster(error)) => return Err(error),
            };
            if let Some(rest) = lock(&self.state).overruns.rest(&snapshot) {
                return Ok(Some(rest));
            }
            match self.act(snapshot).await? {
                AfterDecision::DecideAgain(snapshot) => last = snapshot,
                AfterDecision::Wait(time) => {
                    lock(&self.state).overruns.reset();
                    return Ok(Some(time));
                }
            }
        }
        warn!(
            canary = full_name(self.canary),
            "{MAX_PLANS} plans in a row did not reach a stable state: another controller or user changes what is written"
        );
        // Each plan was decided on the result of the plan before, unless a write of that plan failed because the object had changed.
        let (Some(snapshot), Some(object)) = (last, self.last_written.take()) else {
            return Ok(Some(RETRY.1));
        };
        let pause = lock(&self.state).overruns.count(&snapshot, RETRY.1);
        let event = self.undone(&snapshot, &object).await?;
        self.notify(&snapshot, vec![event]);
        Ok(Some(pause))
    }

    /// Decides, and acts on the decision.
    async fn act(&mut self, snapshot: Snapshot) -> Result<AfterDecision, ClusterError> {
        let target = &snapshot.canary.spec.target_ref.name;
        self.context.set_target(self.canary, target);
        self.report_another_operator(&snapshot);
        let evidence = self
            .operator()
            .answers
            .evidence(self.canary, &snapshot.step());
        let deciding = self.context.deciding.decide(snapshot, evidence);
        let Decided {
            snapshot,
            decision,
            samples,
            measurements,
        } = deciding.await;
        self.record_metrics(&snapshot, samples, &measurements);
        match decision {
            Decision::Ask(questions, notifications) => {
                Ok(self.ask(*snapshot, questions, notifications).await)
            }
            Decision::Wait(requeue, notifications) => {
                if self.is_to_reread(&snapshot, requeue, &notifications) {
                    // The cache may have missed the change that the canary waits for. (For a wait without notifications, the hourly list
                    // corrects the cache.)
                    self.context.cache.mark_stale(&snapshot.seen);
                    self.has_reread = true;
                    return Ok(AfterDecision::DecideAgain(None));
                }
                self.record_wait(&snapshot, &measurements).await;
                Ok(AfterDecision::Wait(self.wait(
                    &snapshot,
                    requeue,
                    notifications,
                )))
            }
            Decision::Do(plan) => {
                if !self.has_reread && self.reread_stale(&snapshot, &plan).await? {
                    self.has_reread = true;
                    return Ok(AfterDecision::DecideAgain(None));
                }
                self.plans += 1;
                let object = plan.writes.last().map(|write| write.object.clone());
                let execution = self.execute(&snapshot, plan, &measurements).await?;
                self.last_written = object.filter(|_| execution != Execution::Lost);
                Ok(match execution {
                    Execution::DecideAgain | Execution::Lost => {
                        AfterDecision::DecideAgain(Some(snapshot))
                    }
                    Execution::WaitForTick => {
                        AfterDecision::Wait(requeue::time_until(&snapshot, Requeue::AtTick))
                    }
                })
            }
        }
    }

    /// Asks questions. If their answers take longer than a moment, their arrival triggers the canary.
    async fn ask(
        &self,
        snapshot: Snapshot,
        questions: Vec<Question>,
        notifications: Vec<Notification>,
    ) -> AfterDecision {
        lock(&self.state).asks(snapshot.tick, snapshot.now);
        self.notify(&snapshot, notifications);
        let answers = &self.operator().answers;
        let asking = answers.ask(self.canary, &snapshot.canary, snapshot.step(), questions);
        if asking.await {
            AfterDecision::DecideAgain(Some(Box::new(snapshot)))
        } else {
            AfterDecision::Wait(snapshot.canary.interval())
        }
    }

    /// Whether the objects of a canary that waits are to be read again.
    fn is_to_reread(
        &self,
        snapshot: &Snapshot,
        requeue: Requeue,
        notifications: &[Notification],
    ) -> bool {
        !self.has_reread
            && lock(&self.state).obstacle_persists(snapshot.tick, requeue, notifications)
    }

    /// Ends a reconciliation without a write. Returns how long to wait.
    fn wait(
        &self,
        snapshot: &Snapshot,
        requeue: Requeue,
        notifications: Vec<Notification>,
    ) -> Duration {
        let is_idle = notifications.is_empty() && requeue::is_idle(snapshot, requeue);
        let unsent = {
            let mut state = lock(&self.state);
            state.waited(snapshot.tick, requeue);
            if is_idle {
                state.idle();
            }
            state.unsent_of_wait(&snapshot.step(), requeue, notifications)
        };
        self.operator().notifier.notify(&snapshot.canary, unsent);
        if is_idle {
            let uses_unwatched_kind = self.context.cache.uses_unwatched_kind(self.canary);
            requeue::idle_time(&snapshot.canary, uses_unwatched_kind)
        } else {
            requeue::time_until(snapshot, requeue)
        }
    }

    /// Reads the objects that must not be stale before this plan is carried out. Returns whether there are any: then the plan has to be
    /// decided again.
    async fn reread_stale(&self, snapshot: &Snapshot, plan: &Plan) -> Result<bool, ClusterError> {
        let stale_reads = rollout::stale_reads(snapshot, plan);
        for object in &stale_reads {
            match self.context.cache.fetch(self.canary, object).await {
                // The rights for a route of the user may be taken away at any time. The next snapshot has that.
                Err(error)
                    if error.code() == Some(403)
                        && rollout::users_routes(snapshot).contains(object) => {}
                read => drop(read?),
            }
        }
        Ok(!stale_reads.is_empty())
    }

    fn record_metrics(
        &self,
        snapshot: &Snapshot,
        samples: Vec<(String, f64)>,
        measurements: &Measurements,
    ) {
        let metrics = &self.operator().canary_metrics;
        metrics.status(&snapshot.canary, snapshot.phase());
        if let Some(weights) = rollout::weights(snapshot) {
            metrics.weights(&snapshot.canary, weights.primary, weights.canary);
        }
        metrics.keep_named_samples(&snapshot.canary);
        for (metric, value) in samples {
            metrics.sample(&snapshot.canary, &metric, value);
        }
        for (metric, comparison) in measurements.comparisons() {
            let (state, evidence) = (&comparison.state, comparison.evidence);
            metrics.comparison(&snapshot.canary, metric, state, evidence);
        }
    }

    /// Sends the notifications that were not sent in this step yet.
    pub(super) fn notify(&self, snapshot: &Snapshot, notifications: Vec<Notification>) {
        let unsent = lock(&self.state).unsent(&snapshot.step(), notifications);
        self.operator().notifier.notify(&snapshot.canary, unsent);
    }

    /// Sends an event if another operator, or Flagger, runs at the same time and serves the same canary.
    fn report_another_operator(&self, snapshot: &Snapshot) {
        let transition = snapshot.status().last_transition_time.as_ref();
        let transition = transition.map(|time| time.0);
        let writers = &mut lock(&self.state).status_writers;
        let event = writers
            .shows_another(transition)
            .then(|| rollout::another_operator(snapshot));
        self.operator()
            .notifier
            .notify(&snapshot.canary, event.into_iter().collect());
    }

    /// Reports a Canary that cannot be read, once for each of its versions.
    fn report_invalid(&self, error: &serde_json::Error, metadata: &ObjectMeta) {
        self.operator().operator_metrics.error("unreadable");
        let version = metadata.resource_version.clone();
        let is_reported = self.context.with_entry(self.canary, |entry| {
            std::mem::replace(&mut entry.reported_invalid, version.clone()) == version
        });
        if is_reported {
            return;
        }
        let canary = Canary {
            metadata: metadata.clone(),
            ..Canary::default()
        };
        let notification = Notification::Event {
            kind: EventKind::Warning,
            message: format!(
                "canary cannot be read: {error}; nothing is done for it until this field is corrected"
            ),
            phase: CanaryPhase::New,
            checksum: String::new(),
            frequency: Frequency::Recurring,
        };
        self.operator().notifier.notify(&canary, vec![notification]);
    }

    pub(super) fn operator(&self) -> &'a Operator {
        &self.context.operator
    }
}
