//! Carries out a plan: its writes in order, then the status, then the notifications.

use serde_json::Value;
use tracing::{debug, info};

use super::{
    context::full_name,
    reconcile::{Execution, Reconciliation},
};
use crate::{
    api::canary::{Canary, CanaryPhase, CanaryStatus},
    notifications::Notification,
    records::Committed,
    rollout::{self, Measurements, Plan, Requeue, audit},
    shell::{
        api_server::{ClusterError, RawObject},
        lock::lock,
        telemetry::canary_metrics::RunResult,
    },
    snapshot::{ObjectRef, RefusedWrite, Snapshot, Write},
};

/// After this many equal writes of an object in a row, an event reports that another actor undoes them.
const UNDONE: u32 = 2;

impl Reconciliation<'_> {
    /// Carries out a plan, unless the audit refuses it as unsafe.
    ///
    /// # Errors
    /// A request to the API server failed.
    pub async fn execute(
        &self,
        snapshot: &Snapshot,
        plan: Plan,
        measurements: &Measurements,
    ) -> Result<Execution, ClusterError> {
        if let Err(why) = audit(snapshot, &plan) {
            self.operator()
                .operator_metrics
                .plan_refused(snapshot.name(), snapshot.namespace());
            let message = format!("unsafe plan refused: {why}");
            self.notify(snapshot, vec![rollout::warning(snapshot, message)]);
            lock(&self.state).waited(snapshot.tick, Requeue::AtTick);
            return Ok(Execution::WaitForTick);
        }
        if plan.is_paused(snapshot) {
            return Ok(Execution::WaitForTick);
        }
        let cache = &self.context.cache;
        for write in &plan.writes {
            if self.is_undone(write) {
                let event = self.undone(snapshot, &write.object).await?;
                self.notify(snapshot, vec![event]);
            }
            let writing = self.operator().cluster.apply(write);
            match cache.write(self.canary, &write.object, writing).await {
                Ok(()) => self.written(snapshot, write),
                Err(ClusterError::Lost(_)) => return Ok(Execution::Lost),
                Err(ClusterError::Refused { message, .. }) => {
                    return Ok(self.refused(snapshot, write, &message));
                }
                Err(error) => return Err(error),
            }
        }
        if let Some(status) = &plan.status {
            self.complete_record(snapshot, status).await;
            let committing = self.commit(snapshot, status);
            let written = cache.write(self.canary, self.canary, committing).await;
            if !matches!(written, Err(ClusterError::Lost(_))) {
                let transition = status.last_transition_time.as_ref().map(|time| time.0);
                lock(&self.state).status_writers.wrote(transition);
            }
            match written {
                Ok(()) => self.committed(snapshot, status),
                Err(ClusterError::Lost(_)) => return Ok(Execution::Lost),
                Err(error) => return Err(error),
            }
            self.record(Committed {
                snapshot,
                status,
                measurements,
            })
            .await;
        }
        self.notify(snapshot, plan.notifications);
        Ok(Execution::DecideAgain)
    }

    /// Whether another actor has undone this write twice. This is true once, and can be true again only after the object has kept its
    /// content for some time.
    fn is_undone(&self, write: &Write) -> bool {
        lock(&self.state).repeated_writes.times(write) == UNDONE
    }

    /// The event about an object that another actor changes after each write.
    pub(super) async fn undone(
        &self,
        snapshot: &Snapshot,
        object: &ObjectRef,
    ) -> Result<Notification, ClusterError> {
        let manager = self.operator().cluster.other_manager(object).await?;
        Ok(rollout::undone(snapshot, object, manager.as_deref()))
    }

    fn written(&self, snapshot: &Snapshot, write: &Write) {
        let object = &write.object;
        let mut state = lock(&self.state);
        state.mark_written(object);
        state.refused.take_if(|refused| refused.object == *object);
        let interval = snapshot.canary.interval();
        state.repeated_writes.count(write, interval, snapshot.now);
        drop(state);
        let (kind, name) = (object.kind.name(), &object.name);
        debug!(canary = full_name(self.canary), "wrote {kind} {name}");
    }

    /// The API server refused a write. The next plan leaves the write out if it is only a repair, so that nothing else waits for it. A
    /// second refusal in the same tick means that the write cannot be left out. The next decision records the refusal in the status.
    fn refused(&self, snapshot: &Snapshot, write: &Write, message: &str) -> Execution {
        let warning = rollout::warning(snapshot, write.refusal(message));
        self.notify(snapshot, vec![warning]);
        let mut state = lock(&self.state);
        state.refused = Some(RefusedWrite {
            object: write.object.clone(),
            why: message.to_owned(),
            generation: snapshot.canary.metadata.generation,
        });
        if state.mark_written(&write.object) {
            return Execution::DecideAgain;
        }
        state.waited(snapshot.tick, Requeue::AtTick);
        Execution::WaitForTick
    }

    async fn commit(
        &self,
        snapshot: &Snapshot,
        status: &CanaryStatus,
    ) -> Result<RawObject, ClusterError> {
        let json = |status: Option<&CanaryStatus>| serde_json::to_value(status).unwrap_or_default();
        let change = merge_patch(&json(snapshot.canary.status.as_ref()), &json(Some(status)));
        let version = snapshot.canary.metadata.resource_version.as_deref();
        self.operator()
            .cluster
            .commit(self.canary, version.unwrap_or_default(), change)
            .await
    }

    fn committed(&self, snapshot: &Snapshot, status: &CanaryStatus) {
        let mut state = lock(&self.state);
        let canary = &snapshot.canary;
        let metrics = &self.operator().canary_metrics;
        if let Some(asked_at) = state.asked_at {
            metrics.step(canary, snapshot.now.duration_since(asked_at).as_secs_f64());
        }
        // A write within a step leaves the time of the transition as it was, and the step continues.
        let before = snapshot.canary.status.as_ref();
        let before = before.and_then(|status| status.last_transition_time.as_ref());
        if status.last_transition_time.as_ref() != before {
            state.step_ended();
        }
        metrics.status(canary, status.phase);
        if status.phase == snapshot.phase() {
            return;
        }
        info!(
            canary = full_name(self.canary),
            phase = status.phase.as_str(),
            weight = status.canary_weight,
            "canary entered a new phase"
        );
        if let Some(result) = run_result(canary, status.phase) {
            metrics.run_ended(canary, result);
        }
    }
}

/// The result of a run of this canary that has just entered a phase; `None` if the run goes on.
fn run_result(canary: &Canary, phase: CanaryPhase) -> Option<RunResult> {
    match phase {
        CanaryPhase::Succeeded if canary.skip_analysis() => Some(RunResult::Skipped),
        CanaryPhase::Succeeded => Some(RunResult::Promoted),
        CanaryPhase::Failed => Some(RunResult::Failed),
        CanaryPhase::New
        | CanaryPhase::Initializing
        | CanaryPhase::Initialized
        | CanaryPhase::Waiting
        | CanaryPhase::Progressing
        | CanaryPhase::WaitingPromotion
        | CanaryPhase::Promoting
        | CanaryPhase::Finalising
        | CanaryPhase::Terminating
        | CanaryPhase::Terminated => None,
    }
}

/// Returns the JSON merge patch that turns one object into another.
fn merge_patch(from: &Value, to: &Value) -> Value {
    let (Value::Object(from), Value::Object(to)) = (from, to) else {
        return to.clone();
    };
    let removed = from
        .keys()
        .filter(|key| !to.contains_key(*key))
        .map(|key| (key.clone(), Value::Null));
    let changed = to
        .iter()
        .filter(|(key, value)| from.get(*key) != Some(value))
        .map(|(key, value)| {
            (
                key.clone(),
                from.get(key)
                    .map_or_else(|| value.clone(), |old| merge_patch(old, value)),
            )
        });
    Value::Object(removed.chain(changed).collect())
}

#[cfg(test)]
mod tests;
