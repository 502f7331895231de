//! Applies writes to the simulated cluster, and simulates the reactions of Kubernetes and KEDA.

use flagger_rs::{
    api::canary::{CanaryCondition, CanaryPhase},
    providers, rollout,
    snapshot::{Action, Kind, ObjectRef, TargetKind, Write},
};
use serde_json::{Value, json};

use super::{Simulation, transcript::whole};

/// The API server refuses longer names.
const LONGEST_NAME: usize = 253;

impl Simulation {
    pub(super) fn write(&mut self, write: Write) {
        self.refusals.push(write.refusal("…"));
        self.memory.mark_written(&write.object);
        let (interval, now) = (self.snapshot.canary.interval(), self.snapshot.now);
        self.memory.repeated_writes.count(&write, interval, now);
        let Write { object, action, .. } = write;
        match action {
            Action::Patch(patch) if object.kind == Kind::Canary => {
                return self.patch_canary(&object, &patch);
            }
            Action::Create(value) => {
                let name = shown(&object);
                let exists = self.snapshot.objects.contains_key(&object);
                assert!(!exists, "{name} exists");
                let length = object.name.len();
                assert!(length <= LONGEST_NAME, "{name} has {length} bytes");
                self.line(format!("create {name}"));
                self.store(object.clone(), value);
            }
            Action::Replace(value) => self.replace(&object, value),
            Action::Patch(patch) => self.patch(&object, &patch),
        }
        if let Some(policy) = self.policy {
            policy(object.kind, self.snapshot.objects.get_mut(&object).unwrap());
        }
        if self.holds_weights(&object) {
            self.note_route(&object);
        }
    }

    /// Whether an object holds the weights: without the object, the weights cannot be read. This applies to every router.
    fn holds_weights(&mut self, object: &ObjectRef) -> bool {
        if rollout::weights(&self.snapshot).is_none() {
            return false;
        }
        let router = providers::router(&self.snapshot);
        if router.are_users() {
            // Without a user's route no request reaches the canary.
            return router.objects(&self.snapshot.canary).contains(object);
        }
        let value = self.snapshot.objects.remove(object).unwrap();
        let is_needed = rollout::weights(&self.snapshot).is_none();
        self.snapshot.objects.insert(object.clone(), value);
        is_needed
    }

    /// Patches the Canary: sets its finalizers, or removes an annotation.
    fn patch_canary(&mut self, object: &ObjectRef, patch: &Value) {
        let metadata = &mut self.snapshot.canary.metadata;
        if let Some(path) = patch[2]["path"].as_str()
            && let Some(key) = path.strip_prefix("/metadata/annotations/")
        {
            assert_eq!(patch[2]["op"], "remove");
            let key = key.replace("~1", "/");
            let annotations = metadata.annotations.as_mut();
            let removed = annotations.and_then(|all| all.remove(&key));
            assert!(removed.is_some(), "{key} is there");
            let version = json!({"op": "test", "path": "/metadata/resourceVersion", "value": metadata.resource_version});
            assert_eq!(patch[1], version);
            return self.line(format!("patch  {}: without {key}", shown(object)));
        }
        let finalizers = patch.pointer("/2/value").unwrap();
        self.line(format!("patch  {}: finalizers {finalizers}", shown(object)));
        self.snapshot.canary.metadata.finalizers =
            serde_json::from_value(finalizers.clone()).unwrap();
    }

    fn replace(&mut self, object: &ObjectRef, value: Value) {
        let is_paused_now = is_paused(&value);
        let was_paused = self.snapshot.objects.get(object).map(is_paused);
        let change = match (was_paused, is_paused_now) {
            (Some(false), true) => ": paused",
            (Some(true), false) => ": resumed",
            _ => "",
        };
        self.line(format!("write  {}{change}", shown(object)));
        self.store(object.clone(), value);
    }

    pub(super) fn patch(&mut self, object: &ObjectRef, patch: &Value) {
        let name = shown(object);
        self.keep_version(object);
        let target = self.snapshot.objects.get_mut(object).unwrap();
        let operations = patch.as_array().unwrap().iter();
        let changes: Vec<_> = operations
            .filter_map(|operation| patch_one(target, operation, &name))
            .collect();
        bump_generation(target);
        self.line(format!("patch  {name}: {}", changes.join(", ")));
    }

    /// Keeps the version of a workload, as Kubernetes does in ReplicaSets and `ControllerRevision`s.
    fn keep_version(&mut self, object: &ObjectRef) {
        let workload = &self.snapshot.objects[object];
        let (uid, template) = (&workload["metadata"]["uid"], &workload["spec"]["template"]);
        let number = self.kept.len();
        let owners = json!([{"uid": uid}]);
        let version = match object.kind {
            Kind::Deployment => {
                let annotations = json!({"deployment.kubernetes.io/revision": number.to_string()});
                let metadata = json!({"ownerReferences": owners, "annotations": annotations});
                (
                    Kind::ReplicaSet,
                    json!({"metadata": metadata, "spec": {"template": template}}),
                )
            }
            Kind::DaemonSet => {
                let data = json!({"spec": {"template": template}});
                let metadata = json!({"ownerReferences": owners});
                (
                    Kind::ControllerRevision,
                    json!({"metadata": metadata, "revision": number, "data": data}),
                )
            }
            _ => return,
        };
        self.kept.push(version);
    }

    /// Keeps the weights and the cookies of a route that was just written.
    fn note_route(&mut self, object: &ObjectRef) {
        let route = self.snapshot.objects[object].to_string();
        let cookies = route.split('"').filter(|text| text.contains("; Max-Age="));
        self.cookies.extend(cookies.map(str::to_owned));
        let Some(weights) = rollout::weights(&self.snapshot) else {
            return;
        };
        let canary = whole(weights.canary);
        self.routed.push(canary);
        let phases = [CanaryPhase::Progressing, CanaryPhase::WaitingPromotion];
        let status = self.snapshot.canary.status.as_ref();
        let conditions = status.and_then(|status| status.conditions.as_ref());
        // With a second condition, the run is ending: its route is no step of the analysis.
        let is_running = conditions.is_some_and(|all| {
            let is_other = |c: &&CanaryCondition| {
                !["Verdict", "RouteRefs", "GrpcRoute"].contains(&c.type_.as_str())
            };
            all.iter().filter(is_other).count() == 1
        });
        if phases.contains(&self.snapshot.phase()) && is_running {
            self.analysed.push(canary);
        }
        let mirrored = if weights.mirrored { " mirrored" } else { "" };
        self.line(format!(
            "       primary {} canary {}{mirrored}",
            weights.primary, weights.canary
        ));
    }

    /// Creates or replaces an object.
    pub fn store(&mut self, name: ObjectRef, mut value: Value) {
        if value.pointer("/metadata/uid").is_none() {
            value["metadata"]["uid"] = json!(format!("{}-{}", name.kind.name(), name.name));
            value["metadata"]["generation"] = json!(1);
        }
        self.snapshot.objects.insert(name, value);
    }

    /// KEDA without load: it scales paused workloads to zero, and all others to their minimum.
    pub(super) fn run_keda(&mut self) {
        let scalers: Vec<_> = self
            .snapshot
            .objects
            .iter()
            .filter(|(name, _)| name.kind == Kind::ScaledObject)
            .map(|(_, scaler)| scaler.clone())
            .collect();
        for scaler in scalers {
            let workload = scaler["spec"]["scaleTargetRef"]["name"].as_str().unwrap();
            let workload = self.snapshot.reference(Kind::Deployment, workload);
            let least = scaler["spec"]["minReplicaCount"].as_i64().unwrap_or(0);
            let replicas = if is_paused(&scaler) { 0 } else { least };
            let Some(workload) = self.snapshot.objects.get_mut(&workload) else {
                continue;
            };
            if workload["spec"]["replicas"] == replicas {
                continue;
            }
            workload["spec"]["replicas"] = json!(replicas);
            bump_generation(workload);
            let name = workload["metadata"]["name"].as_str().unwrap();
            let line = format!("KEDA   Deployment {name}: replicas {replicas}");
            self.line(line);
        }
    }

    /// The pods of each workload become ready at once, except those that `dead` and `broken` name.
    pub(super) fn run_pods(&mut self) {
        for (name, object) in &mut self.snapshot.objects {
            let image = object
                .pointer("/spec/template/spec/containers/0/image")
                .and_then(Value::as_str);
            let is_broken =
                name.name == "podinfo-primary" && self.broken.is_some() && image == self.broken;
            match name.kind {
                Kind::DaemonSet => {
                    let is_short = is_broken || self.short == Some(name.name.as_str());
                    daemon_set_status(object, i64::from(is_short));
                }
                Kind::Deployment => {
                    let is_dead = name.name == "podinfo" && self.dead;
                    deployment_status(object, is_dead, is_broken);
                    if self.unready == Some(name.name.as_str()) {
                        object["status"]["readyReplicas"] = json!(0);
                        object["status"]["availableReplicas"] = json!(0);
                    }
                    if self.short == Some(name.name.as_str()) {
                        let ready = object["status"]["readyReplicas"].as_i64().unwrap();
                        let ready = json!((ready - 1).max(0));
                        object["status"]["readyReplicas"] = ready.clone();
                        object["status"]["availableReplicas"] = ready;
                    }
                }
                _ => {}
            }
        }
    }
}

/// An object as transcripts name it.
fn shown(object: &ObjectRef) -> String {
    format!("{} {}", object.kind.name(), object.name)
}

/// Applies one operation of a JSON patch. Returns a description of its change; a `test` changes nothing.
fn patch_one(target: &mut Value, operation: &Value, name: &str) -> Option<String> {
    let path = operation["path"].as_str().unwrap();
    let (_, key) = path.rsplit_once('/').unwrap();
    let value = &operation["value"];
    let patch: json_patch::Patch = serde_json::from_value(json!([operation])).unwrap();
    let patched = json_patch::patch(target, &patch);
    patched.unwrap_or_else(|error| panic!("{name} {path}: {error}"));
    let in_list = key.parse::<usize>().is_ok();
    match operation["op"].as_str().unwrap() {
        "test" => None,
        "add" => Some(match key {
            "weight" | "replicas" | "nodeSelector" => format!("{key} {value}"),
            _ if in_list => format!("new {value}"),
            _ => key.to_owned(),
        }),
        _ if in_list => Some(format!("no {path}")),
        _ => Some(format!("no {key}")),
    }
}

pub(super) fn bump_generation(object: &mut Value) {
    let generation = object["metadata"]["generation"].as_i64().unwrap();
    object["metadata"]["generation"] = json!(generation + 1);
}

fn daemon_set_status(object: &mut Value, missing: i64) {
    let is_at_zero = TargetKind::DaemonSet.is_at_zero(object);
    let pods = if is_at_zero { 0 } else { 3 };
    let ready = (pods - missing).max(0);
    object["status"] = json!({"observedGeneration": object["metadata"]["generation"], "desiredNumberScheduled": pods,
        "updatedNumberScheduled": pods, "numberReady": ready, "numberAvailable": ready});
}

fn deployment_status(object: &mut Value, is_dead: bool, is_broken: bool) {
    let replicas = object["spec"]["replicas"].as_i64().unwrap_or(1);
    let ready = if is_broken || is_dead { 0 } else { replicas };
    object["status"] = json!({"observedGeneration": object["metadata"]["generation"], "replicas": replicas,
        "updatedReplicas": replicas, "readyReplicas": ready, "availableReplicas": ready});
    if is_dead {
        object["status"]["conditions"] = json!([{"type": "Progressing", "status": "True"},
            {"type": "Available", "status": "False", "reason": "MinimumReplicasUnavailable", "lastUpdateTime": "1970-01-01T00:00:00Z"}]);
    }
    if is_broken {
        object["status"]["conditions"] = json!([{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}]);
    }
}

fn is_paused(object: &Value) -> bool {
    object
        .pointer("/metadata/annotations/autoscaling.keda.sh~1paused-replicas")
        .is_some_and(|replicas| replicas == "0")
}
