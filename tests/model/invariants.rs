//! Invariants that must hold at every revision, whichever client wrote it. They judge the objects alone, without code of the operator.
//!
//! Pure functions over a history. Each returns the violations it finds.

mod routes;
#[cfg(test)]
mod tests;
mod track;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use serde_json::Value;

use super::store::{Change, Key};
use track::Track;

/// The violation of a version that continues with the weight of an earlier one.
pub const INHERITED: &str = "the weight grows for a version that came after the run began";

/// The longest time from the beginning of a run to its end, and from a deletion to the removal of the finalizer.
const RUN: Duration = Duration::from_secs(3600);
const FINALIZER: Duration = Duration::from_secs(120);

/// All violations in a history that ends at `end`. The history must have a Canary.
pub fn violations(history: &[Change], end: Timestamp) -> Vec<String> {
    let mut cluster = Cluster::default();
    let mut tracks: BTreeMap<String, Track> = BTreeMap::new();
    let mut wrong = Vec::new();
    let has_canary = { history.iter() }.any(|change| change.key.plural == "canaries");
    assert!(
        has_canary,
        "a history without a Canary has nothing to check"
    );
    for change in history {
        cluster.apply(change);
        let canaries: Vec<_> = cluster
            .objects
            .iter()
            .filter(|(key, _)| key.plural == "canaries")
            .map(|(_, canary)| canary.clone())
            .collect();
        for canary in &canaries {
            let release = Release::of(&cluster, canary);
            let mut found = Vec::new();
            found.extend(release.shares());
            found.extend(release.traffic_reaches_pods());
            found.extend(release.primary_has_replicas());
            found.extend(release.failed_is_safe(change));
            let track = tracks
                .entry(canary["metadata"]["uid"].to_string())
                .or_default();
            found.extend(track.drains(&release, change));
            found.extend(track.steps(&release, change));
            found.extend(track.promotions(&release, change));
            wrong.extend(found.into_iter().map(|what| {
                format!(
                    "{} at {} by {}: {what}",
                    change.revision, change.at, change.by
                )
            }));
        }
    }
    wrong.extend(runs_end(history, end));
    wrong.extend(finalizers_are_removed(history, end));
    wrong
}

/// The secrets that appear in an event or in a Canary's status.
pub fn leaks(history: &[Change], secrets: &[&str]) -> Vec<String> {
    let published = history
        .iter()
        .filter(|change| matches!(change.key.plural, "events" | "canaries"));
    let texts: Vec<_> = published
        .filter_map(|change| change.after.as_ref())
        .map(|object| {
            if object["kind"] == "Canary" {
                object["status"].to_string()
            } else {
                object.to_string()
            }
        })
        .collect();
    let leaked = |secret: &&&str| texts.iter().any(|text| text.contains(**secret));
    secrets
        .iter()
        .filter(leaked)
        .map(|secret| format!("{secret:?} was published"))
        .collect()
}

/// Versions with more than one cookie: their users would not stay with them.
pub fn changed_cookies(history: &[Change]) -> Vec<String> {
    let mut cookies: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    let of_canaries = history
        .iter()
        .filter(|change| change.key.plural == "canaries");
    for canary in of_canaries.filter_map(|change| change.after.as_ref()) {
        let status = &canary["status"];
        let cookie = status["sessionAffinityCookie"].as_str();
        if let Some(cookie) = cookie.filter(|cookie| !cookie.is_empty()) {
            let version = status["lastAppliedSpec"].to_string();
            cookies.entry(version).or_default().insert(cookie);
        }
    }
    cookies.retain(|_, cookies| cookies.len() > 1);
    let wrong = cookies.into_iter();
    wrong
        .map(|(version, cookies)| format!("{version} has the cookies {cookies:?}"))
        .collect()
}

/// The writes of an operator after it became idle: there must be none.
pub fn writes_since(history: &[Change], idle: Timestamp) -> Vec<String> {
    let later = history
        .iter()
        .filter(|change| change.at > idle && !matches!(change.by.as_str(), "user" | "controllers"));
    later
        .map(|change| {
            format!(
                "{} was written while idle: {} {}",
                change.revision, change.key.plural, change.key.name
            )
        })
        .collect()
}

/// The objects at one revision.
#[derive(Default)]
struct Cluster {
    objects: BTreeMap<Key, Arc<Value>>,
}

impl Cluster {
    fn apply(&mut self, change: &Change) {
        match &change.after {
            Some(after) => drop(self.objects.insert(change.key.clone(), after.clone())),
            None => drop(self.objects.remove(&change.key)),
        }
    }
}

/// One canary's objects at one revision.
struct Release<'a> {
    canary: &'a Value,
    target: Option<&'a Value>,
    primary: Option<&'a Value>,
    /// The weights of the primary and the target; `None` without a route.
    shares: Option<(i64, i64)>,
    /// Their highest weights over all rules of the route.
    reach: Option<(i64, i64)>,
    target_name: String,
}

impl<'a> Release<'a> {
    fn of(cluster: &'a Cluster, canary: &'a Value) -> Self {
        let namespace = canary["metadata"]["namespace"].as_str().unwrap_or_default();
        let reference = &canary["spec"]["targetRef"];
        let target = reference["name"].as_str().unwrap_or_default();
        let apex = canary["spec"]["service"]["name"].as_str().unwrap_or(target);
        let get = |plural, name: &str| {
            cluster
                .objects
                .get(&Key::new(plural, namespace, name))
                .map(|object| &**object)
        };
        let rules = routes::rules(canary, apex, get);
        // The rules for users who ask for a version, or have a cookie, come before the rule for all others.
        let shares = rules.as_ref().and_then(|rules| {
            let is_test = canary["spec"]["analysis"]["match"].is_array();
            let split = if is_test { rules.first() } else { rules.last() };
            split.copied()
        });
        let greatest = |all: (i64, i64), rule: &(i64, i64)| (all.0.max(rule.0), all.1.max(rule.1));
        let workloads = match reference["kind"].as_str() {
            Some("DaemonSet") => "daemonsets",
            Some("Service") => "services",
            Some("Deployment") => "deployments",
            other => panic!("the invariants do not know the target kind {other:?}"),
        };
        Self {
            canary,
            target: get(workloads, target),
            primary: get(workloads, &format!("{target}-primary")),
            shares,
            reach: rules.map(|rules| rules.iter().fold((0, 0), greatest)),
            target_name: target.to_owned(),
        }
    }

    fn phase(&self) -> &str {
        self.canary["status"]["phase"].as_str().unwrap_or_default()
    }

    fn shares(&self) -> Option<String> {
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

    fn traffic_reaches_pods(&self) -> Option<String> {
        let (primary, canary) = self.reach?;
        let is_empty = |weight: i64, to: Option<&Value>| weight > 0 && ready(to) == 0;
        if is_empty(primary, self.primary) {
            return Some(format!(
                "{primary} % of the requests reach no ready pod of the primary"
            ));
        }
        is_empty(canary, self.target)
            .then(|| format!("{canary} % of the requests reach no ready pod of the canary"))
    }

    fn primary_has_replicas(&self) -> Option<String> {
        (replicas(self.primary?) == 0).then(|| "the primary has 0 replicas".to_owned())
    }

    /// When a run fails, all requests reach ready pods of another version than the failed one.
    fn failed_is_safe(&self, change: &Change) -> Option<String> {
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
            self.shares == Some((0, 100)) && ready(self.target) > 0
        } else {
            self.reach == Some((100, 0))
                && ready(self.primary) > 0
                && template(self.primary) != template(self.target)
        };
        (!is_safe).then(|| {
            format!(
                "failed with the weights {:?} and {} ready pods of the primary",
                self.shares,
                ready(self.primary)
            )
        })
    }

    /// The number of steps of an analysis before its promotion.
    fn steps(&self) -> u32 {
        let analysis = &self.canary["spec"]["analysis"];
        let number = |field: &str| analysis[field].as_u64();
        let steps = match (number("iterations"), number("stepWeight")) {
            (Some(iterations), None) => iterations,
            (None, Some(step)) => number("maxWeight").unwrap_or(100).div_ceil(step),
            other => panic!("the invariants cannot count the steps of {other:?}"),
        };
        u32::try_from(steps).unwrap()
    }

    fn interval(&self) -> Duration {
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

/// The part that differs between versions: the containers of a workload, or the selector of a Service. `None` without a workload.
fn template(workload: Option<&Value>) -> Option<String> {
    let spec = &workload?["spec"];
    let containers = spec.pointer("/template/spec/containers");
    let version = containers.or_else(|| spec.get("selector"));
    Some(version.expect("a workload has a version").to_string())
}

fn ready(workload: Option<&Value>) -> i64 {
    let Some(workload) = workload else { return 0 };
    let status = |field: &str| workload["status"][field].as_i64();
    // The pods of a Service are unknown: they count as ready.
    let unknown = i64::from(workload["kind"] == "Service");
    let ready = status("readyReplicas").or_else(|| status("numberReady"));
    ready.unwrap_or(unknown)
}

fn replicas(workload: &Value) -> i64 {
    let nodes = workload.pointer("/spec/template/spec/nodeSelector");
    let is_scaled_to_zero =
        nodes.is_some_and(|nodes| nodes["flagger.app/scale-to-zero"].is_string());
    let replicas = workload["spec"]["replicas"].as_i64().unwrap_or(1);
    if is_scaled_to_zero { 0 } else { replicas }
}

/// Routes at the end of a history that lead to missing Services.
pub fn dangling(history: &[Change]) -> Vec<String> {
    let mut cluster = Cluster::default();
    history.iter().for_each(|change| cluster.apply(change));
    let exists = |namespace: &str, host: &str| {
        let key = Key::new("services", namespace, host);
        cluster.objects.contains_key(&key)
    };
    let mut wrong = Vec::new();
    for (key, route) in &cluster.objects {
        let hosts = routes::hosts(key, route);
        // The apex Service may have been created for the Canary, and is then deleted with it.
        let lost = |host: &&str| *host != key.name && !exists(&key.namespace, host);
        let lost = hosts.into_iter().filter(lost);
        wrong.extend(lost.map(|host| format!("{} {} leads to {host}", key.plural, key.name)));
    }
    wrong
}

/// Each run ends in time.
fn runs_end(history: &[Change], end: Timestamp) -> Vec<String> {
    let mut begun: BTreeMap<&Key, Timestamp> = BTreeMap::new();
    let mut wrong = Vec::new();
    for change in history
        .iter()
        .filter(|change| change.key.plural == "canaries")
    {
        let phase = change
            .after
            .as_ref()
            .map(|canary| canary["status"]["phase"].clone())
            .unwrap_or_default();
        let is_over = matches!(
            phase.as_str(),
            None | Some("" | "Initializing" | "Initialized" | "Succeeded" | "Failed")
        );
        if is_over {
            begun.remove(&change.key);
        } else {
            begun.entry(&change.key).or_insert(change.at);
        }
    }
    for (key, since) in begun {
        if end.duration_since(since).unsigned_abs() > RUN {
            wrong.push(format!(
                "the run of {} that began at {since} has no end",
                key.name
            ));
        }
    }
    wrong
}

/// Deleted Canaries are not held for long.
fn finalizers_are_removed(history: &[Change], end: Timestamp) -> Vec<String> {
    let mut held: BTreeMap<&Key, Timestamp> = BTreeMap::new();
    let mut wrong = Vec::new();
    for change in history
        .iter()
        .filter(|change| change.key.plural == "canaries")
    {
        match &change.after {
            Some(canary) if canary["metadata"]["deletionTimestamp"].is_string() => {
                held.entry(&change.key).or_insert(change.at);
            }
            Some(_) => {
                held.remove(&change.key);
            }
            None => {
                let since = held.remove(&change.key).unwrap_or(change.at);
                wrong.extend(too_long(&change.key, since, change.at));
            }
        }
    }
    wrong.extend(
        held.into_iter()
            .filter_map(|(key, since)| too_long(key, since, end)),
    );
    wrong
}

fn too_long(key: &Key, since: Timestamp, until: Timestamp) -> Option<String> {
    (until.duration_since(since).unsigned_abs() > FINALIZER)
        .then(|| format!("{} was held from {since} to {until}", key.name))
}
