//! Changes that a user, or anybody with access to the cluster, makes between two reconciles.

use flagger_rs::snapshot::{Changed, Kind, TargetKind, Tick};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Simulation, cluster::bump_generation};

/// Any state of the cluster, even one that no release can reach.
#[derive(Debug)]
pub struct AnyState {
    pub phase: &'static str,
    pub weight: i64,
    pub iterations: i64,
    pub failed: i64,
    pub canary_ready: i64,
    pub primary_ready: i64,
    pub routed: u8,
    pub applied: Option<String>,
    /// The positions of the objects that do not exist.
    pub gone: Vec<usize>,
    pub condition: Option<&'static str>,
    pub reason: String,
}

impl Simulation {
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

    /// Edits the weights of the VirtualService.
    pub fn route(&mut self, canary: u8) {
        let name = self.snapshot.reference(Kind::VirtualService, "podinfo");
        let Some(route) = self.snapshot.objects.get_mut(&name) else {
            return;
        };
        let rule = route["spec"]["http"][0]["route"].as_array_mut().unwrap();
        rule[0]["weight"] = json!(100 - canary);
        rule[1]["weight"] = json!(canary);
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
        bump_generation(object);
    }

    /// Puts the cluster into this state.
    pub fn arrange(&mut self, state: &AnyState) {
        self.snapshot.canary.status = Some(serde_json::from_value(state.status()).unwrap());
        self.snapshot.now = Timestamp::from_second(1000).unwrap();
        self.snapshot.tick = Some(Tick {
            at: self.snapshot.now,
            late: false,
        });
        self.snapshot.changed = Some(Changed {
            first: Timestamp::UNIX_EPOCH,
            last: Timestamp::UNIX_EPOCH,
        });
        self.end_step();
        for (name, ready) in [
            ("podinfo", state.canary_ready),
            ("podinfo-primary", state.primary_ready),
        ] {
            let name = self.snapshot.reference(Kind::Deployment, name);
            if let Some(object) = self.snapshot.objects.get_mut(&name) {
                object["status"]["readyReplicas"] = json!(ready);
            }
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
}

impl AnyState {
    fn status(&self) -> Value {
        let mut conditions =
            vec![json!({"type": "Promoted", "status": "Unknown", "reason": self.phase})];
        conditions.extend(self.condition.map(
            |condition| json!({"type": condition, "status": "True", "reason": self.reason, "message": "2"}),
        ));
        let mut status = json!({"phase": self.phase, "canaryWeight": self.weight, "iterations": self.iterations, "failedChecks": self.failed,
            "conditions": conditions, "lastTransitionTime": "1970-01-01T00:00:00Z", "trackedConfigs": {}});
        if let Some(applied) = &self.applied {
            status["lastAppliedSpec"] = json!(applied);
        }
        status
    }
}
