//! The controllers of a cluster: pods become ready a few seconds after they are created, autoscalers keep to their bounds, Contour
//! validates proxies, and the garbage collector deletes orphans.
//!
//! The tag of a pod's first image selects its behaviour, as on a bed: `broken…` never becomes ready, `broken-primary…` not in the primary,
//! `slowN` after N seconds, and `busyN` needs N replicas. A Deployment with the annotation `pods: dead` has no ready pods.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

use super::{
    invariants::KNATIVE_SERVICES,
    server::Model,
    store::{Key, Part},
};

/// The time in which a pod becomes ready, or ends.
const READY: Duration = Duration::from_secs(3);
/// The time until a controller reacts to a change.
const REACTION: Duration = Duration::from_millis(100);
/// The time until Contour has validated a proxy.
const VALIDATION: Duration = Duration::from_millis(700);

/// The rollout of one generation of a workload.
#[derive(Clone)]
struct Rollout {
    generation: i64,
    since: Instant,
    ready_at: Option<Instant>,
    deadline: Instant,
    /// Whether no pods of this template were ready before.
    is_new: bool,
}

/// The state of the controllers.
#[derive(Default)]
struct Controllers {
    rollouts: BTreeMap<String, Rollout>,
    /// The template of the ready pods, by the uid of the workload.
    running: BTreeMap<String, Value>,
    /// The generation of each proxy and of each object of Knative, and when its controller has processed it.
    processed: BTreeMap<Key, (i64, Instant)>,
    /// Since when each object has no owner any more.
    orphans: BTreeMap<Key, Instant>,
}

/// Runs the controllers.
pub async fn run(model: Model) {
    let mut controllers = Controllers::default();
    let mut revisions = model.revisions();
    loop {
        revisions.mark_unchanged();
        let wake = controllers.pass(&model);
        let pause = async {
            match wake {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = pause => {}
            changed = revisions.changed() => if changed.is_err() { return },
        }
    }
}

impl Controllers {
    /// Handles everything that is due. Returns the next instant at which something is due.
    fn pass(&mut self, model: &Model) -> Option<Instant> {
        let objects: Vec<_> = model
            .store()
            .all()
            .map(|(key, object)| (key.clone(), object.clone()))
            .collect();
        let mut wakes: Vec<Instant> = Vec::new();
        for (key, object) in &objects {
            match key.plural {
                "deployments" | "daemonsets" => wakes.extend(self.workload(model, key, object)),
                "horizontalpodautoscalers" => scale(model, key, object, hpa_replicas),
                "scaledobjects" => scale(model, key, object, keda_replicas),
                "httpproxies" => wakes.extend(self.proxy(model, key, object)),
                KNATIVE_SERVICES => wakes.extend(self.knative(model, key, object)),
                "revisions" => wakes.extend(self.revision(model, key, object)),
                _ => {}
            }
        }
        wakes.extend(self.collect(model, &objects));
        wakes.into_iter().min()
    }

    fn workload(&mut self, model: &Model, key: &Key, object: &Arc<Value>) -> Option<Instant> {
        let now = Instant::now();
        let uid = object["metadata"]["uid"].as_str()?.to_owned();
        let generation = object["metadata"]["generation"].as_i64()?;
        let template = &object["spec"]["template"];
        let known = self
            .rollouts
            .get(&uid)
            .filter(|rollout| rollout.generation == generation);
        let rollout = known.cloned().unwrap_or_else(|| {
            let tag = tag(object);
            let slow = tag
                .strip_prefix("slow")
                .and_then(|seconds| seconds.parse().ok());
            let ready = slow.map_or(READY, Duration::from_secs);
            let deadline = object["spec"]["progressDeadlineSeconds"]
                .as_u64()
                .unwrap_or(600);
            let is_broken = is_dead(object)
                || match tag.strip_prefix("broken") {
                    Some(side) => side != "-primary" || key.name.ends_with(side),
                    None => false,
                };
            Rollout {
                generation,
                since: now + REACTION,
                ready_at: (!is_broken || desired(object) == 0).then_some(now + REACTION + ready),
                deadline: now + Duration::from_secs(deadline),
                is_new: self.running.get(&uid) != Some(template),
            }
        });
        self.rollouts.insert(uid.clone(), rollout.clone());
        let is_ready = rollout.ready_at.is_some_and(|at| at <= now);
        if is_ready {
            self.running.insert(uid, template.clone());
        }
        if rollout.since <= now {
            let status = status(object, &rollout, is_ready, model.now());
            report(model, key, object, status);
        }
        let wakes = [
            Some(rollout.since),
            rollout.ready_at,
            Some(rollout.deadline),
        ];
        wakes.into_iter().flatten().filter(|at| *at > now).min()
    }

    /// When a controller that takes this long has processed the object as it is now.
    fn processed_at(&mut self, key: &Key, object: &Value, takes: Duration) -> Instant {
        let generation = object["metadata"]["generation"].as_i64().unwrap_or(0);
        let seen = self.processed.get(key).copied();
        let seen = seen.filter(|(of, _)| *of == generation);
        let (_, at) = seen.unwrap_or((generation, Instant::now() + takes));
        self.processed.insert(key.clone(), (generation, at));
        at
    }

    fn proxy(&mut self, model: &Model, key: &Key, object: &Arc<Value>) -> Option<Instant> {
        let at = self.processed_at(key, object, VALIDATION);
        if at > Instant::now() {
            return Some(at);
        }
        let generation = &object["metadata"]["generation"];
        let valid = json!({"type": "Valid", "status": "True", "observedGeneration": generation});
        let status = json!({"currentStatus": "valid", "conditions": [valid]});
        report(model, key, object, status);
        None
    }

    /// Knative creates a Revision for each template, and reports the traffic of the spec in the status.
    fn knative(&mut self, model: &Model, key: &Key, object: &Arc<Value>) -> Option<Instant> {
        let at = self.processed_at(key, object, REACTION);
        if at > Instant::now() {
            return Some(at);
        }
        let template = &object["spec"]["template"]["spec"];
        let latest = object["status"]["latestCreatedRevisionName"].as_str();
        let get = |name: &str| model.get("revisions", &key.namespace, name);
        let is_current = |name: &&str| get(name).is_some_and(|latest| latest["spec"] == *template);
        let latest = latest.filter(is_current).map(str::to_owned);
        let latest = latest.unwrap_or_else(|| {
            let numbered = |number| format!("{}-{number:05}", key.name);
            let is_free = |name: &String| get(name).is_none();
            let name = (1..).map(numbered).find(is_free).unwrap();
            let revision = json!({"metadata": {"name": name}, "spec": template});
            let made = Key::new("revisions", &key.namespace, &name);
            let _ = model.write("controllers", |store, by| store.create(&made, revision, by));
            name
        });
        let whole = || json!([{"latestRevision": true, "percent": 100}]);
        let traffic = object["spec"].get("traffic").cloned();
        let status = json!({"observedGeneration": object["metadata"]["generation"], "latestCreatedRevisionName": latest,
            "traffic": traffic.unwrap_or_else(whole)});
        report(model, key, object, status);
        None
    }

    fn revision(&mut self, model: &Model, key: &Key, object: &Arc<Value>) -> Option<Instant> {
        let at = self.processed_at(key, object, READY);
        let is_ready = at <= Instant::now() && !tag(object).starts_with("broken");
        let ready = if is_ready { "True" } else { "Unknown" };
        let status = json!({"observedGeneration": object["metadata"]["generation"], "conditions": [{"type": "Ready", "status": ready}]});
        report(model, key, object, status);
        (at > Instant::now()).then_some(at)
    }

    /// Deletes objects a second after they have lost all their owners.
    fn collect(&mut self, model: &Model, objects: &[(Key, Arc<Value>)]) -> Option<Instant> {
        let now = Instant::now();
        let lives = |uid: &Value| {
            objects
                .iter()
                .any(|(_, object)| object["metadata"]["uid"] == *uid)
        };
        for (key, object) in objects {
            let owners = object["metadata"]["ownerReferences"].as_array();
            if owners.is_none_or(|owners| {
                owners.is_empty() || owners.iter().any(|owner| lives(&owner["uid"]))
            }) {
                self.orphans.remove(key);
                continue;
            }
            let since = *self.orphans.entry(key.clone()).or_insert(now);
            if now >= since + Duration::from_secs(1) {
                let _ = model.write("controllers", |store, by| store.delete(key, &json!({}), by));
                self.orphans.remove(key);
            }
        }
        self.orphans
            .values()
            .map(|since| *since + Duration::from_secs(1))
            .min()
    }
}

/// Writes a status, if it differs.
fn report(model: &Model, key: &Key, object: &Value, status: Value) {
    if status != object["status"] {
        let mut wanted = object.clone();
        wanted["status"] = status;
        // After a conflict the next pass tries again.
        let _ = model.write("controllers", |store, by| {
            store.update(key, Part::Status, wanted, by)
        });
    }
}

/// The tag of the first image of a workload's pods.
fn tag(workload: &Value) -> &str {
    let spec = &workload["spec"];
    // A Revision of Knative has no template.
    let pods = spec.pointer("/template/spec").unwrap_or(spec);
    let image = pods.pointer("/containers/0/image");
    let image = image.and_then(Value::as_str).unwrap_or_default();
    image.rsplit_once(':').map_or("", |(_, tag)| tag)
}

fn desired(object: &Value) -> i64 {
    if object["kind"] == "DaemonSet" {
        // The only node has no labels.
        let selector = object
            .pointer("/spec/template/spec/nodeSelector")
            .and_then(Value::as_object);
        i64::from(selector.is_none_or(serde_json::Map::is_empty))
    } else {
        object["spec"]["replicas"].as_i64().unwrap_or(1)
    }
}

fn is_dead(object: &Value) -> bool {
    object["metadata"]["annotations"]["pods"] == "dead"
}

/// The status of a workload. Until the new pods are ready, the ready pods are those of the template before.
fn status(object: &Value, rollout: &Rollout, is_ready: bool, now: Timestamp) -> Value {
    if object["kind"] == "DaemonSet" {
        daemon_set_status(object, rollout, is_ready)
    } else {
        deployment_status(object, rollout, is_ready, now)
    }
}

fn daemon_set_status(object: &Value, rollout: &Rollout, is_ready: bool) -> Value {
    let desired = desired(object);
    let ready = if is_ready {
        desired
    } else {
        count(object, "numberReady").min(desired)
    };
    let updated = if is_ready || !rollout.is_new {
        ready
    } else {
        0
    };
    let mut status = json!({"observedGeneration": rollout.generation, "currentNumberScheduled": desired, "desiredNumberScheduled": desired,
        "numberMisscheduled": 0, "numberReady": ready});
    set_counts(
        &mut status,
        &[
            ("updatedNumberScheduled", updated),
            ("numberAvailable", ready),
            ("numberUnavailable", desired - ready),
        ],
    );
    status
}

fn deployment_status(object: &Value, rollout: &Rollout, is_ready: bool, now: Timestamp) -> Value {
    let desired = desired(object);
    let ready = match is_ready {
        true => desired,
        false if is_dead(object) => 0,
        false => count(object, "readyReplicas").min(desired),
    };
    let updated = if is_ready || !rollout.is_new {
        desired
    } else {
        desired.min(1)
    };
    let mut status = json!({"observedGeneration": rollout.generation});
    let surge = i64::from(!is_ready && rollout.is_new && ready > 0);
    set_counts(
        &mut status,
        &[
            ("replicas", desired.max(ready) + surge),
            ("updatedReplicas", updated),
            ("readyReplicas", ready),
            ("availableReplicas", ready),
            ("unavailableReplicas", desired + surge - ready),
        ],
    );
    let is_late = !is_ready && rollout.deadline <= Instant::now();
    let progress = match (is_ready, is_late) {
        (true, _) => ("True", "NewReplicaSetAvailable"),
        (false, true) => ("False", "ProgressDeadlineExceeded"),
        (false, false) => ("True", "ReplicaSetUpdated"),
    };
    let is_available = ready * 4 >= desired * 3;
    let available = if is_available {
        ("True", "MinimumReplicasAvailable")
    } else {
        ("False", "MinimumReplicasUnavailable")
    };
    status["conditions"] = json!([
        condition(object, "Available", available, now),
        condition(object, "Progressing", progress, now)
    ]);
    status
}

/// A count in the current status.
fn count(object: &Value, field: &str) -> i64 {
    object["status"][field].as_i64().unwrap_or(0)
}

/// Sets the counts that are not zero, as controllers do.
fn set_counts(status: &mut Value, counts: &[(&str, i64)]) {
    for (field, count) in counts.iter().filter(|(_, count)| *count > 0) {
        status[field] = json!(count);
    }
}

fn condition(object: &Value, kind: &str, (holds, reason): (&str, &str), now: Timestamp) -> Value {
    let same =
        |old: &&Value| old["type"] == kind && old["status"] == holds && old["reason"] == reason;
    let old = object["status"]["conditions"]
        .as_array()
        .and_then(|all| all.iter().find(same));
    let at = json!(Timestamp::from_second(now.as_second()).unwrap());
    old.cloned().unwrap_or_else(|| {
        json!({"type": kind, "status": holds, "reason": reason, "message": reason, "lastUpdateTime": at, "lastTransitionTime": at})
    })
}

/// The replicas that a HorizontalPodAutoscaler wants: as many as the load needs within its bounds, unless the workload is scaled to zero.
fn hpa_replicas(scaler: &Value, workload: &Value) -> i64 {
    let bound = |field: &str| scaler["spec"][field].as_i64();
    let (least, most) = (
        bound("minReplicas").unwrap_or(1),
        bound("maxReplicas").unwrap_or(i64::MAX),
    );
    let load = tag(workload).strip_prefix("busy");
    match (desired(workload), load.and_then(|load| load.parse().ok())) {
        (0, _) => 0,
        (is, load) => load.unwrap_or(is).clamp(least, most.max(least)),
    }
}

/// The replicas that KEDA wants: the paused replicas if it is paused, or else at least its minimum.
fn keda_replicas(scaler: &Value, workload: &Value) -> i64 {
    let paused = &scaler["metadata"]["annotations"]["autoscaling.keda.sh/paused-replicas"];
    let paused = paused.as_str().and_then(|replicas| replicas.parse().ok());
    let least = scaler["spec"]["minReplicaCount"].as_i64().unwrap_or(0);
    paused.unwrap_or_else(|| desired(workload).max(least))
}

/// Sets the replicas of an autoscaler's workload if they differ from the wanted ones.
fn scale(model: &Model, key: &Key, scaler: &Value, wanted: fn(&Value, &Value) -> i64) {
    let Some(name) = scaler
        .pointer("/spec/scaleTargetRef/name")
        .and_then(Value::as_str)
    else {
        return;
    };
    let Some(workload) = model.get("deployments", &key.namespace, name) else {
        return;
    };
    let wanted = wanted(scaler, &workload);
    if desired(&workload) == wanted {
        return;
    }
    let mut scaled = (*workload).clone();
    scaled["spec"]["replicas"] = json!(wanted);
    let target = Key::new("deployments", &key.namespace, name);
    let _ = model.write("controllers", |store, by| {
        store.update(&target, Part::Main, scaled, by)
    });
}
