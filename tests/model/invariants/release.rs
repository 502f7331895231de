//! The objects of one canary at one revision, and the invariants that hold at each revision.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde_json::{Value, json};

use super::{
    Change, Key,
    routes::{self, KNATIVE_SERVICES},
};
use crate::resources::Resource;

/// The objects at one revision.
#[derive(Default)]
pub struct Cluster {
    pub objects: BTreeMap<Key, Arc<Value>>,
    /// The version of each workload at the last change of its template, when its pods started.
    started: BTreeMap<Key, String>,
}

impl Cluster {
    pub fn apply(&mut self, change: &Change) {
        match &change.after {
            Some(after) => drop(self.objects.insert(change.key.clone(), after.clone())),
            None => drop(self.objects.remove(&change.key)),
        }
        let template =
            |object: &Option<Arc<Value>>| object.as_ref()?.pointer("/spec/template").cloned();
        let after = template(&change.after);
        if after.is_some() && after != template(&change.before) {
            let version = self.version(&change.key, change.after.as_ref().unwrap());
            self.started.insert(change.key.clone(), version);
        }
    }

    /// The part of a workload that differs between versions: its containers with the content of their configs, or the selector of a
    /// Service.
    fn version(&self, key: &Key, workload: &Value) -> String {
        let spec = &workload["spec"];
        // A Revision of Knative has no template.
        let pods = spec.pointer("/template/spec").unwrap_or(spec);
        let Some(containers) = pods.get("containers") else {
            return spec
                .get("selector")
                .expect("a workload has a version")
                .to_string();
        };
        let mut version = containers.to_string().replace("-primary\"", "\"");
        let sources = { containers.as_array().into_iter().flatten() }
            .flat_map(|container| container["envFrom"].as_array().into_iter().flatten());
        for source in sources {
            for (field, plural) in [("configMapRef", "configmaps"), ("secretRef", "secrets")] {
                let Some(name) = source[field]["name"].as_str() else {
                    continue;
                };
                let config = self.objects.get(&Key::new(plural, &key.namespace, name));
                version += &config
                    .map_or(Value::Null, |config| config["data"].clone())
                    .to_string();
            }
        }
        version
    }

    /// The number of ready pods of a workload. A Service has those of the Deployments that it selects.
    fn ready(&self, key: &Key, workload: &Value) -> i64 {
        let count = |workload: &Value| {
            let status = &workload["status"];
            let ready = { status["readyReplicas"].as_i64() }.or(status["numberReady"].as_i64());
            // Knative starts pods of a Revision that is ready when requests arrive.
            let is_ready = || status["conditions"][0] == json!({"type": "Ready", "status": "True"});
            ready.unwrap_or_else(|| i64::from(is_ready()))
        };
        if key.plural != "services" {
            return count(workload);
        }
        let is_selected = |(at, pods): &(&Key, &Arc<Value>)| {
            at.plural == "deployments" && at.namespace == key.namespace && selects(workload, pods)
        };
        let selected = self.objects.iter().filter(is_selected);
        selected.map(|(_, pods)| count(pods)).sum()
    }
}

/// The shares of the primary and the target if clients call the Service, and no route splits their requests.
fn shares_by_service(apex: &Value, primary: &Workload<'_>, target: &Workload<'_>) -> (i64, i64) {
    let is_selected = |of: &Workload<'_>| of.object.is_some_and(|of| selects(apex, of));
    match (is_selected(primary), is_selected(target)) {
        (true, _) => (100, 0),
        (false, true) => (0, 100),
        (false, false) => (0, 0),
    }
}

/// Whether a Service selects the pods of a workload.
fn selects(service: &Value, workload: &Value) -> bool {
    let labels = &workload["spec"]["template"]["metadata"]["labels"];
    let selector = service["spec"]["selector"].as_object();
    selector.is_some_and(|selector| selector.iter().all(|(key, value)| labels[key] == *value))
}

/// A workload at one revision.
#[derive(Clone, Default)]
pub struct Workload<'a> {
    /// `None` if it does not exist.
    pub object: Option<&'a Value>,
    /// The number of its ready pods.
    pub ready: i64,
    /// Its version; `None` if it does not exist.
    pub version: Option<String>,
}

/// One canary's objects at one revision.
pub struct Release<'a> {
    pub canary: &'a Value,
    pub target: Workload<'a>,
    pub primary: Workload<'a>,
    /// The weights of the primary and the target; `None` if clients reach neither yet.
    pub shares: Option<(i64, i64)>,
    /// Their highest weights over all rules of the route.
    pub reach: Option<(i64, i64)>,
    /// Whether requests are copied to the canary.
    pub mirrors: bool,
    target_name: String,
}

impl<'a> Release<'a> {
    pub fn of(cluster: &'a Cluster, canary: &'a Value) -> Self {
        let namespace = canary["metadata"]["namespace"].as_str().unwrap_or_default();
        let reference = &canary["spec"]["targetRef"];
        let target = reference["name"].as_str().unwrap_or_default();
        let apex = canary["spec"]["service"]["name"].as_str().unwrap_or(target);
        let get = |plural, name: &str| {
            // The model has no App Mesh.
            Resource::of(plural)?;
            let key = Key::new(plural, namespace, name);
            cluster.objects.get(&key).map(|object| &**object)
        };
        let knative = (canary["spec"]["provider"] == "knative")
            .then(|| get(KNATIVE_SERVICES, target).unwrap_or(&Value::Null));
        let workloads = match reference["kind"].as_str() {
            _ if knative.is_some() => "revisions",
            Some("DaemonSet") => "daemonsets",
            Some("Service") => "services",
            Some("Deployment") => "deployments",
            other => panic!("the invariants do not know the target kind {other:?}"),
        };
        let workload = |name: &str| {
            let (key, object) = (Key::new(workloads, namespace, name), get(workloads, name));
            Workload {
                object,
                ready: object.map_or(0, |object| cluster.ready(&key, object)),
                version: object.map(|object| cluster.version(&key, object)),
            }
        };
        let name = match knative {
            Some(service) => routes::knative_primary(service).to_owned(),
            None => format!("{target}-primary"),
        };
        let mut primary = workload(&name);
        // The primary's copies of configs change before its pods are restarted.
        let started = cluster.started.get(&Key::new(workloads, namespace, &name));
        primary.version = primary.version.map(|now| started.cloned().unwrap_or(now));
        let target_workload = workload(match knative {
            Some(service) => {
                let latest = &service["status"]["latestCreatedRevisionName"];
                latest.as_str().unwrap_or_default()
            }
            None => target,
        });
        let by_service = || {
            let apex = get("services", apex).filter(|_| workloads != "services")?;
            Some(vec![shares_by_service(apex, &primary, &target_workload)])
        };
        let rules = routes::rules(canary, apex, get).or_else(by_service);
        // The rules for users who ask for a version, or have a cookie, come before the rule for all others.
        let shares = rules.as_ref().and_then(|rules| {
            let is_test = canary["spec"]["analysis"]["match"].is_array();
            let split = if is_test { rules.first() } else { rules.last() };
            split.copied()
        });
        let greatest = |all: (i64, i64), rule: &(i64, i64)| (all.0.max(rule.0), all.1.max(rule.1));
        Self {
            canary,
            target: target_workload,
            primary,
            shares,
            mirrors: routes::mirrors(apex, get),
            reach: rules.map(|rules| rules.iter().fold((0, 0), greatest)),
            target_name: target.to_owned(),
        }
    }

    pub fn phase(&self) -> &str {
        self.canary["status"]["phase"].as_str().unwrap_or_default()
    }

    pub fn shares(&self) -> Option<String> {
        let (primary, canary) = self.shares?;
        let fits =
            (0..=100).contains(&primary) && (0..=100).contains(&canary) && primary + canary == 100;
        (!fits).then(|| {
            format!(
                "the weights of {} are {primary} and {canary}",
                self.target_name
            )
        })
    }

    pub fn primary_is_reached(&self) -> Option<String> {
        let (primary, _) = self.reach?;
        (primary > 0 && self.primary.ready == 0)
            .then(|| format!("{primary} % of the requests reach no ready pod of the primary"))
    }

    pub fn primary_has_replicas(&self) -> Option<String> {
        (replicas(self.primary.object?) == 0).then(|| "the primary has 0 replicas".to_owned())
    }

    /// When a run fails, all requests reach ready pods of another version than the failed one.
    pub fn failed_is_safe(&self, change: &Change) -> Option<String> {
        let before = change
            .before
            .as_ref()
            .map(|before| before["status"]["phase"].clone());
        let has_just_failed = change.key.plural == "canaries"
            && self.phase() == "Failed"
            && before.is_none_or(|before| before != "Failed");
        if !has_just_failed {
            return None;
        }
        let conditions = self.canary["status"]["conditions"].as_array();
        let mut conditions = conditions.into_iter().flatten();
        // After a failed promotion the canary serves all requests.
        let is_safe = if conditions.any(|condition| condition["type"] == "PromotionFailed") {
            self.shares == Some((0, 100)) && self.target.ready > 0
        } else {
            self.reach == Some((100, 0))
                && self.primary.ready > 0
                && self.primary.version != self.target.version
        };
        (!is_safe).then(|| {
            format!(
                "failed with the weights {:?} and {} ready pods of the primary",
                self.shares, self.primary.ready
            )
        })
    }

    /// The most by which the weight may grow at once. If the primary does not become ready with the promoted version, or loses all its pods
    /// when it gets that version, the canary gets all requests at once.
    pub fn greatest_raise(&self) -> i64 {
        let conditions = self.canary["status"]["conditions"].as_array();
        let mut conditions = conditions.into_iter().flatten();
        let has_failed = conditions.any(|condition| {
            condition["type"] == "RollingBack" && condition["reason"] == "FailedPromotion"
        });
        let analysis = &self.canary["spec"]["analysis"];
        let number = |field: &str| analysis[field].as_i64();
        match (number("iterations"), number("stepWeight")) {
            (None, Some(step)) if !has_failed && !self.promotion_takes_all_pods() => step,
            _ => 100,
        }
    }

    /// Whether the promotion, which has begun, takes all pods of the primary away.
    fn promotion_takes_all_pods(&self) -> bool {
        let is_recreated = |primary: &Value| primary["spec"]["strategy"]["type"] == "Recreate";
        self.phase() == "Promoting" && self.primary.object.is_some_and(is_recreated)
    }

    /// Whether the last accepted action asked for the promotion.
    pub fn is_promoted_by_hand(&self) -> bool {
        let conditions = self.canary["status"]["conditions"].as_array();
        let mut conditions = conditions.into_iter().flatten();
        conditions.any(|condition| {
            let message = condition["message"].as_str().unwrap_or_default();
            let verb = message.split(' ').nth(1);
            condition["type"] == "Action"
                && condition["reason"] == "Accepted"
                && verb == Some("promote")
        })
    }

    /// The number of steps of an analysis before its promotion.
    pub fn steps(&self) -> u32 {
        let analysis = &self.canary["spec"]["analysis"];
        let number = |field: &str| analysis[field].as_u64();
        let steps = match (number("iterations"), number("stepWeight")) {
            (Some(iterations), None) => iterations,
            (None, Some(step)) => number("maxWeight").unwrap_or(100).div_ceil(step),
            other => panic!("the invariants cannot count the steps of {other:?}"),
        };
        u32::try_from(steps).unwrap()
    }

    pub fn interval(&self) -> Duration {
        let text = self.canary["spec"]["analysis"]["interval"]
            .as_str()
            .unwrap_or("60s");
        let (number, unit) = text.split_at(text.len() - 1);
        let number: u64 = number.parse().unwrap();
        let seconds = match unit {
            "s" => number,
            "m" => number * 60,
            other => panic!("the invariants do not know the unit {other} of an interval"),
        };
        Duration::from_secs(seconds).max(Duration::from_secs(10))
    }
}

pub fn replicas(workload: &Value) -> i64 {
    let nodes = workload.pointer("/spec/template/spec/nodeSelector");
    let is_scaled_to_zero =
        nodes.is_some_and(|nodes| nodes["flagger.app/scale-to-zero"].is_string());
    let replicas = workload["spec"]["replicas"].as_i64().unwrap_or(1);
    if is_scaled_to_zero { 0 } else { replicas }
}
