//! What must hold at every revision, whoever wrote it: seen from the objects alone, by nothing that the operator uses itself.
//!
//! Pure functions over a history. Each says what is wrong, or nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use serde_json::Value;

use super::store::{Change, Key};

/// What is said of a version that goes on where another was.
pub const INHERITED: &str = "the share grows of a version that came after it began to";

/// What a run may take from its beginning to its end, and a finalizer from the deletion to its removal.
const RUN: Duration = Duration::from_secs(3600);
const FINALIZER: Duration = Duration::from_secs(120);

/// All that is wrong in a history; `end` is when it was looked at.
pub fn violations(history: &[Change], end: Timestamp) -> Vec<String> {
    let mut cluster = Cluster::default();
    let mut memories: BTreeMap<String, Memory> = BTreeMap::new();
    let mut wrong = Vec::new();
    for change in history {
        cluster.take(change);
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
            found.extend(release.traffic_meets_pods());
            found.extend(release.primary_has_replicas());
            found.extend(release.failed_is_safe(change));
            let memory = memories
                .entry(canary["metadata"]["uid"].to_string())
                .or_default();
            found.extend(memory.drains(&release, change));
            found.extend(memory.steps(&release, change));
            found.extend(memory.templates(&release, change));
            wrong.extend(found.into_iter().map(|what| {
                format!(
                    "{} at {} by {}: {what}",
                    change.revision, change.at, change.by
                )
            }));
        }
    }
    wrong.extend(runs_end(history, end));
    wrong.extend(finalizers_go(history, end));
    wrong
}

/// Of these texts, those that stand in an event or in a status.
pub fn leaks(history: &[Change], secrets: &[&str]) -> Vec<String> {
    let told = history
        .iter()
        .filter(|change| matches!(change.key.plural, "events" | "canaries"));
    let texts: Vec<_> = told
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
        .map(|secret| format!("{secret:?} was told"))
        .collect()
}

/// Versions that had more than one cookie: who met it once may not meet it again.
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

/// The changes of an operator after a time: at rest there are none.
pub fn moves_since(history: &[Change], rest: Timestamp) -> Vec<String> {
    let later = history
        .iter()
        .filter(|change| change.at > rest && !matches!(change.by.as_str(), "user" | "controllers"));
    later
        .map(|change| {
            format!(
                "{} moved at rest: {} {}",
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
    fn take(&mut self, change: &Change) {
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
    /// The shares of the primary and the target, if they are routed.
    shares: Option<(i64, i64)>,
    /// The greatest shares that they have of anybody's requests.
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
        // Before the rule for everybody come those for who asks for a version, or has met it already.
        let shares = rules.as_ref().and_then(|rules| {
            let is_test = canary["spec"]["analysis"]["match"].is_array();
            let split = if is_test { rules.first() } else { rules.last() };
            split.copied()
        });
        let greatest = |all: (i64, i64), rule: &(i64, i64)| (all.0.max(rule.0), all.1.max(rule.1));
        let workloads = match reference["kind"].as_str() {
            Some("DaemonSet") => "daemonsets",
            Some("Service") => "services",
            _ => "deployments",
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
                "the shares of {} are {primary} and {canary}",
                self.target_name
            )
        })
    }

    fn traffic_meets_pods(&self) -> Option<String> {
        let (primary, canary) = self.reach?;
        let is_empty = |share: i64, side: Option<&Value>| share > 0 && ready(side) == 0;
        if is_empty(primary, self.primary) {
            return Some(format!(
                "{primary} % of the requests meet no pod of the primary"
            ));
        }
        is_empty(canary, self.target)
            .then(|| format!("{canary} % of the requests meet no pod of the canary"))
    }

    fn primary_has_replicas(&self) -> Option<String> {
        (replicas(self.primary?) == 0).then(|| "the primary is at 0".to_owned())
    }

    /// When a run is called failed, all requests are with ready pods of another version than the one that failed.
    fn failed_is_safe(&self, change: &Change) -> Option<String> {
        let before = change
            .before
            .as_ref()
            .map(|before| before["status"]["phase"].clone());
        let is_news = change.key.plural == "canaries"
            && self.phase() == "Failed"
            && before.is_none_or(|before| before != "Failed");
        if !is_news {
            return None;
        }
        let conditions = self.canary["status"]["conditions"].as_array();
        let mut conditions = conditions.into_iter().flatten();
        // Of a promotion that failed it is the canary that serves.
        let is_safe = if conditions.any(|condition| condition["type"] == "PromotionFailed") {
            self.shares == Some((0, 100)) && ready(self.target) > 0
        } else {
            self.reach == Some((100, 0))
                && ready(self.primary) > 0
                && template(self.primary) != template(self.target)
        };
        (!is_safe).then(|| {
            format!(
                "failed with the shares {:?} and {} ready pods of the primary",
                self.shares,
                ready(self.primary)
            )
        })
    }

    /// How many steps an analysis has before its promotion.
    fn steps(&self) -> u32 {
        let analysis = &self.canary["spec"]["analysis"];
        let number = |field: &str| analysis[field].as_u64().unwrap_or(0);
        let steps = match number("iterations") {
            0 => number("maxWeight").div_ceil(number("stepWeight").max(1)),
            iterations => iterations,
        };
        u32::try_from(steps).unwrap()
    }

    fn interval(&self) -> Duration {
        let text = self.canary["spec"]["analysis"]["interval"]
            .as_str()
            .unwrap_or("60s");
        let (number, unit) = text.split_at(text.len() - 1);
        let number: u64 = number.parse().unwrap();
        Duration::from_secs(if unit == "m" { number * 60 } else { number })
            .max(Duration::from_secs(10))
    }
}

/// What is remembered of a canary from one revision to the next.
#[derive(Default)]
struct Memory {
    share: i64,
    reach: i64,
    /// At which revision it began to grow, and when it last grew.
    began: u64,
    raised: Option<Timestamp>,
    /// When the canary's share left it, and how many pods it was to have.
    left: Option<Timestamp>,
    replicas: i64,
    /// The template of the target, and since when and which revision it is that.
    target: Option<(String, Timestamp)>,
    target_since: u64,
    /// The templates of which pods met requests.
    analysed: BTreeSet<String>,
    promoted: BTreeMap<String, u32>,
    primary: Option<String>,
}

impl Memory {
    /// Pods go when their connections had time to.
    fn drains(&mut self, release: &Release<'_>, change: &Change) -> Option<String> {
        let reach = release.reach.map_or(0, |(_, canary)| canary);
        match std::mem::replace(&mut self.reach, reach) {
            1.. if reach == 0 => self.left = Some(change.at),
            _ if reach > 0 => self.left = None,
            _ => {}
        }
        let replicas = replicas(release.target?);
        let goes = std::mem::replace(&mut self.replicas, replicas) > 0 && replicas == 0;
        let passed = change.at.duration_since(self.left?).unsigned_abs();
        let wait = match release.phase() {
            "Initializing" => Duration::from_secs(5),
            _ => release.interval(),
        };
        // A write that comes late leaves them as much less.
        let is_early = goes && ready(release.target) > 0 && passed + Duration::from_secs(1) < wait;
        is_early.then(|| format!("the canary goes {passed:?} after its share"))
    }

    /// The canary's share grows once an interval at most, and of one version.
    fn steps(&mut self, release: &Release<'_>, change: &Change) -> Option<String> {
        let share = release.shares.map_or(0, |(_, canary)| canary);
        let was = std::mem::replace(&mut self.share, share);
        let is_raised = share > was;
        if was == 0 {
            self.began = change.revision;
        }
        if !is_raised || change.by == "user" || change.key.plural == "canaries" {
            return None;
        }
        let before = self.raised.replace(change.at)?;
        if self.target_since > self.began {
            return Some(INHERITED.to_owned());
        }
        let passed = Duration::try_from(change.at.duration_since(before)).unwrap_or_default();
        // A status has whole seconds.
        let is_early = passed + Duration::from_secs(1) < release.interval();
        is_early.then(|| format!("two steps within {passed:?}"))
    }

    /// The primary gets templates that were analysed, for as long as that takes, each once.
    fn templates(&mut self, release: &Release<'_>, change: &Change) -> Option<String> {
        let target = template(release.target);
        if self.target.as_ref().map(|(template, _)| template) != target.as_ref() {
            self.target = target.map(|template| (template, change.at));
            self.target_since = change.revision;
        }
        // Without a mesh the hooks are the only ones that call the canary.
        let is_called = release.canary["spec"]["provider"] == "kubernetes"
            && release.phase() == "Progressing"
            && ready(release.target) > 0;
        if self.share > 0 || is_called {
            self.analysed.extend(template(release.target));
        }
        let is = template(release.primary);
        let was = std::mem::replace(&mut self.primary, is.clone());
        let (is, _) = (is?, was.filter(|was| Some(was) != self.primary.as_ref())?);
        let times = self.promoted.entry(is.clone()).or_default();
        *times += 1;
        if *times > 1 {
            return Some(format!("the primary got {is} for the {times}th time"));
        }
        if change.by == "user" || release.canary["spec"]["skipAnalysis"] == true {
            return None;
        }
        if !self.analysed.contains(&is) {
            return Some(format!(
                "the primary got {is}, of which no pod met a request"
            ));
        }
        let (target, since) = self.target.as_ref()?;
        if *target != is {
            return Some(format!(
                "the primary got {is} of a target that has {target}"
            ));
        }
        let passed = change.at.duration_since(*since).unsigned_abs();
        let is_early = passed < release.interval() * (release.steps() + 1);
        is_early.then(|| format!("the primary got {is} after {passed:?}"))
    }
}

/// The containers of a workload, or the pods of a Service: in these versions differ.
fn template(workload: Option<&Value>) -> Option<String> {
    let spec = &workload?["spec"];
    let containers = spec.pointer("/template/spec/containers");
    Some(containers.or_else(|| spec.get("selector"))?.to_string())
}

fn ready(workload: Option<&Value>) -> i64 {
    let Some(workload) = workload else { return 0 };
    let status = |field: &str| workload["status"][field].as_i64();
    // Of the pods of a Service nothing is known.
    let unknown = i64::from(workload["kind"] == "Service");
    let ready = status("readyReplicas").or_else(|| status("numberReady"));
    ready.unwrap_or(unknown)
}

fn replicas(workload: &Value) -> i64 {
    let nodes = workload.pointer("/spec/template/spec/nodeSelector");
    let is_nowhere = nodes.is_some_and(|nodes| nodes["flagger.app/scale-to-zero"].is_string());
    let replicas = workload["spec"]["replicas"].as_i64().unwrap_or(1);
    if is_nowhere { 0 } else { replicas }
}

/// Routes at the end of a history that lead to Services which are not there.
pub fn dangling(history: &[Change]) -> Vec<String> {
    let mut cluster = Cluster::default();
    history.iter().for_each(|change| cluster.take(change));
    let is_there = |namespace: &str, host: &str| {
        let key = Key::new("services", namespace, host);
        cluster.objects.contains_key(&key)
    };
    let mut wrong = Vec::new();
    for (key, route) in &cluster.objects {
        let hosts = routes::hosts(key, route);
        // The Service of all may have been made for the Canary, and goes with it.
        let lost = |host: &&str| *host != key.name && !is_there(&key.namespace, host);
        let lost = hosts.into_iter().filter(lost);
        wrong.extend(lost.map(|host| format!("{} {} leads to {host}", key.plural, key.name)));
    }
    wrong
}

/// Each run comes to an end in time.
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

/// What is deleted is not held for long.
fn finalizers_go(history: &[Change], end: Timestamp) -> Vec<String> {
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

mod routes;
#[cfg(test)]
mod tests;
