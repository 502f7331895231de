//! Changes that a user, or another actor in the cluster, makes between two reconciles.

use flagger_rs::{
    providers,
    snapshot::{Action, Changed, Conflict, Kind, TargetKind, Tick, Weights},
};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Simulation, cluster::bump_generation};

/// Any state of the cluster, even one that no release can reach.
#[derive(Clone, Debug)]
pub struct AnyState {
    pub phase: &'static str,
    pub weight: i64,
    pub iterations: i64,
    pub failed: i64,
    pub canary: Rollout,
    pub primary: Rollout,
    pub routed: u8,
    pub applied: Revision,
    pub promoted: Revision,
    /// The positions of the objects that do not exist.
    pub gone: Vec<usize>,
    pub conditions: Vec<&'static str>,
    pub reason: String,
    /// How many seconds ago the conditions were set: since then, connections drain.
    pub since: i64,
    /// The tick, if one has come: how many seconds ago, and whether it is late. The last step ended an interval before.
    pub tick: Option<(i64, bool)>,
    /// How many milliseconds ago the target began to differ, and last changed.
    pub changed: (i64, i64),
}

/// A revision in the status.
#[derive(Clone, Debug)]
pub enum Revision {
    None,
    /// The target's present one.
    Present,
    /// The one that the primary runs.
    Promoted,
    Other(String),
}

/// The pods of a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rollout {
    Ready,
    /// Some pods are ready.
    Partly,
    /// No pod is ready.
    Waiting,
    /// No pod is ready, and the deadline has passed.
    Stuck,
    /// It is scaled to zero.
    AtZero,
}

impl Simulation {
    /// An older canary has the same target.
    pub fn conflict(&mut self, canary: &str) {
        let object = self.snapshot.reference(Kind::Deployment, "podinfo");
        let canary = canary.to_owned();
        self.snapshot.conflicting_canary = Some(Conflict { canary, object });
    }

    /// `kubectl delete canary`.
    pub fn delete(&mut self) {
        let now = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(self.snapshot.now);
        self.snapshot.canary.metadata.deletion_timestamp = Some(now);
        self.lines.clear();
    }

    /// Whether the Canary was deleted and has no finalizer left.
    pub fn is_gone(&self) -> bool {
        let meta = &self.snapshot.canary.metadata;
        meta.deletion_timestamp.is_some() && meta.finalizers.iter().flatten().count() == 0
    }

    /// Edits the weights of the route, as a user may.
    pub fn route(&mut self, canary: u8) {
        let router = providers::router(&self.snapshot);
        let writes = router.set_weights(&self.snapshot, &Weights::canary(canary));
        for write in writes.unwrap_or_default() {
            if let Action::Create(object) | Action::Replace(object) = write.action {
                self.store(write.object, object);
            }
        }
    }

    /// Edits a field of the Canary's spec.
    pub fn edit(&mut self, field: &str, value: &Value) {
        let mut canary = serde_json::to_value(&self.snapshot.canary).unwrap();
        let old = canary["spec"][field].take();
        canary["spec"][field] = value.clone();
        if field == "analysis" {
            for kept in ["interval", "metrics"] {
                canary["spec"][field][kept] = old[kept].clone();
            }
        }
        self.snapshot.canary = serde_json::from_value(canary).unwrap();
    }

    /// Updates the target to a new version.
    pub fn image(&mut self, image: &str) {
        let kind = TargetKind::of(&self.snapshot.canary).unwrap().kind();
        let target = self.snapshot.reference(kind, "podinfo");
        let object = self.snapshot.objects.get_mut(&target).unwrap();
        match kind {
            Kind::Service => object["spec"]["selector"]["app"] = json!(image),
            _ => object["spec"]["template"]["spec"]["containers"][0]["image"] = json!(image),
        }
        if let Some(policy) = self.policy {
            policy(kind, object);
        }
        bump_generation(object);
    }

    /// Puts the cluster into this state, in which it stays until the operator waits.
    pub fn arrange(&mut self, state: &AnyState) {
        let now = Timestamp::from_second(1000).unwrap();
        let ago = |millis: i64| Timestamp::from_millisecond(1_000_000 - millis).unwrap();
        let status = self.snapshot.status();
        let (present, promoted) = (&status.last_applied_spec, &status.last_promoted_spec);
        let revision = |revision: &Revision| match revision {
            Revision::None => Value::Null,
            Revision::Present => json!(present),
            Revision::Promoted => json!(promoted),
            Revision::Other(other) => json!(other),
        };
        let interval = i64::try_from(self.snapshot.canary.interval().as_secs()).unwrap();
        let step = state
            .tick
            .map_or(interval / 2, |(seconds, _)| seconds + interval);
        let mut status = state.status(ago(state.since * 1000));
        status["lastTransitionTime"] = json!(ago(step * 1000));
        status["lastAppliedSpec"] = revision(&state.applied);
        status["lastPromotedSpec"] = revision(&state.promoted);
        self.snapshot.canary.status = Some(serde_json::from_value(status).unwrap());
        self.snapshot.now = now;
        self.snapshot.tick = state.tick.map(|(seconds, late)| Tick {
            at: ago(seconds * 1000),
            late,
        });
        self.snapshot.changed = Some(Changed {
            first: ago(state.changed.0.max(state.changed.1)),
            last: ago(state.changed.1),
        });
        self.end_step();
        self.frozen = true;
        for (name, rollout) in [
            ("podinfo", state.canary),
            ("podinfo-primary", state.primary),
        ] {
            self.roll_out(name, rollout);
        }
        self.route(state.routed);
        let names: Vec<_> = self.snapshot.objects.keys().cloned().collect();
        for name in state
            .gone
            .iter()
            .filter_map(|position| names.get(*position))
        {
            self.snapshot.objects.remove(name);
        }
    }

    /// Gives a workload these pods.
    pub fn roll_out(&mut self, name: &str, rollout: Rollout) {
        let kind = TargetKind::of(&self.snapshot.canary).unwrap().kind();
        let name = self.snapshot.reference(kind, name);
        let Some(object) = self.snapshot.objects.get_mut(&name) else {
            return;
        };
        let generation = object["metadata"]["generation"].clone();
        let ready = match rollout {
            Rollout::Ready => 2,
            Rollout::Partly => 1,
            Rollout::Waiting | Rollout::Stuck | Rollout::AtZero => 0,
        };
        let pods = if rollout == Rollout::AtZero { 0 } else { 2 };
        match kind {
            Kind::Deployment => {
                object["spec"]["replicas"] = json!(pods);
                object["status"] = json!({"observedGeneration": generation, "replicas": pods, "updatedReplicas": pods,
                    "readyReplicas": ready, "availableReplicas": ready});
                if rollout == Rollout::Stuck {
                    object["status"]["conditions"] = json!([{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}]);
                }
            }
            Kind::DaemonSet => {
                let nodes = match rollout {
                    Rollout::AtZero => json!({"flagger.app/scale-to-zero": "true"}),
                    _ => Value::Null,
                };
                object["spec"]["template"]["spec"]["nodeSelector"] = nodes;
                object["status"] = json!({"observedGeneration": generation, "desiredNumberScheduled": pods,
                    "updatedNumberScheduled": pods, "numberReady": ready, "numberAvailable": ready});
            }
            _ => {}
        }
    }
}

impl AnyState {
    fn status(&self, since: Timestamp) -> Value {
        let mut conditions = vec![
            json!({"type": "Promoted", "status": self.promoted_status(), "reason": self.phase}),
        ];
        conditions.extend(self.conditions.iter().map(|condition| {
            json!({"type": condition, "status": "True", "reason": self.reason, "message": "2",
                "lastUpdateTime": since, "lastTransitionTime": since})
        }));
        json!({"phase": self.phase, "canaryWeight": self.weight, "iterations": self.iterations, "failedChecks": self.failed,
            "conditions": conditions, "trackedConfigs": {}})
    }

    fn promoted_status(&self) -> &'static str {
        match self.phase {
            "Failed" => "False",
            "Initialized" | "Succeeded" => "True",
            _ => "Unknown",
        }
    }
}
