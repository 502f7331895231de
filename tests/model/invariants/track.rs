//! Invariants over several revisions of one canary: draining, steps and promotions.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::Timestamp;

use super::{Change, Release, Tolerance, release::replicas};

/// The history of one canary up to a revision.
#[derive(Default)]
pub struct Track {
    share: i64,
    reach: i64,
    /// Whether the canary had ready pods, and since when it has none although requests reach it.
    was_ready: bool,
    lost_pods: Option<Timestamp>,
    /// The iterations in the status, and when they last grew.
    iterations: i64,
    iterated: Option<Timestamp>,
    /// The revision at which the weight began to grow, and when it last grew.
    began: u64,
    raised: Option<Timestamp>,
    /// Since when requests are copied to the canary.
    mirrored: Option<Timestamp>,
    /// When the canary's weight became 0, and its replicas.
    left: Option<Timestamp>,
    replicas: i64,
    /// The template of the target, and the time and revision at which it got it.
    target: Option<(String, Timestamp)>,
    target_since: u64,
    /// The templates whose pods received requests.
    analysed: BTreeSet<String>,
    promoted: BTreeMap<String, u32>,
    primary: Option<String>,
}

impl Track {
    /// No request reaches a canary without ready pods. If it loses its pods, the operator gets some time to react.
    pub fn canary_is_reached(
        &mut self,
        release: &Release<'_>,
        change: &Change,
        tolerance: &Tolerance,
    ) -> Option<String> {
        let reach = release.reach.map_or(0, |(_, canary)| canary);
        let is_ready = release.target.ready > 0;
        let had_pods = std::mem::replace(&mut self.was_ready, is_ready);
        let is_lost = reach > 0 && !is_ready;
        if is_lost && had_pods && reach <= self.reach {
            self.lost_pods = Some(change.at);
        }
        let since = if is_lost {
            self.lost_pods
        } else {
            self.lost_pods.take()
        };
        let is_tolerated = since.is_some_and(|since| {
            let passed = change.at.duration_since(since).unsigned_abs();
            passed <= tolerance.lost_pods && reach <= self.reach
        });
        let is_late = since.is_some() || is_lost;
        (is_late && !is_tolerated).then(|| {
            let share = reach.max(self.reach);
            let since = since.map_or_else(|| "the raise".to_owned(), |since| since.to_string());
            format!("{share} % of the requests reach no ready pod of the canary, since {since}")
        })
    }

    /// Pods are scaled down only after their connections had time to end.
    pub fn drains(&mut self, release: &Release<'_>, change: &Change) -> Option<String> {
        let reach = release.reach.map_or(0, |(_, canary)| canary);
        match std::mem::replace(&mut self.reach, reach) {
            1.. if reach == 0 => self.left = Some(change.at),
            _ if reach > 0 => self.left = None,
            _ => {}
        }
        let replicas = replicas(release.target.object?);
        let is_scaled_down = std::mem::replace(&mut self.replicas, replicas) > 0 && replicas == 0;
        let passed = change.at.duration_since(self.left?).unsigned_abs();
        let wait = match release.phase() {
            "Initializing" => Duration::from_secs(5),
            _ => release.interval(),
        };
        // One second is allowed for a write that took effect late.
        let is_early =
            is_scaled_down && release.target.ready > 0 && passed + Duration::from_secs(1) < wait;
        is_early.then(|| format!("the canary is scaled down {passed:?} after it lost its weight"))
    }

    /// The canary's weight grows by one step at most, once an interval at most, and for one version.
    pub fn steps(
        &mut self,
        release: &Release<'_>,
        change: &Change,
        tolerance: &Tolerance,
    ) -> Option<String> {
        let share = release.shares.map_or(0, |(_, canary)| canary);
        let was = std::mem::replace(&mut self.share, share);
        let is_raised = share > was;
        if was == 0 {
            self.began = change.revision;
        }
        // Before and after all runs, requests may reach the target directly.
        let is_in_run = !matches!(release.phase(), "" | "Initializing" | "Terminating");
        let is_step = is_in_run && change.by != "user" && change.key.plural != "canaries";
        if !is_raised || !is_step {
            return None;
        }
        let before = self.raised.replace(change.at);
        if share - was > release.greatest_raise() {
            return Some(format!("the weight grows from {was} to {share} at once"));
        }
        let before = before?;
        let (_, since) = self.target.as_ref()?;
        let known = change.at.duration_since(*since).unsigned_abs();
        if self.target_since > self.began && known > tolerance.stale_target {
            return Some(format!(
                "the weight grows for a version that came {known:?} ago, after the run began"
            ));
        }
        let passed = Duration::try_from(change.at.duration_since(before)).unwrap_or_default();
        // Times in a status are whole seconds.
        let is_early = passed + Duration::from_secs(1) < release.interval();
        is_early.then(|| format!("two steps within {passed:?}"))
    }

    /// Requests are copied to the canary for an interval before it gets any of its own.
    pub fn mirroring(&mut self, release: &Release<'_>, change: &Change) -> Option<String> {
        let since = match (self.mirrored, release.mirrors) {
            (None, true) => {
                self.mirrored = Some(change.at);
                return None;
            }
            (Some(since), false) => {
                self.mirrored = None;
                since
            }
            _ => return None,
        };
        let share = release.shares.map_or(0, |(_, canary)| canary);
        let passed = change.at.duration_since(since).unsigned_abs();
        let is_early = share > 0 && passed + Duration::from_secs(1) < release.interval();
        (is_early && change.by != "user")
            .then(|| format!("{share} % of the requests after copies for {passed:?}"))
    }

    /// Iterations begin one by one, and at most once an interval. They are the only steps where routes have no weights.
    pub fn iterations(&mut self, release: &Release<'_>, change: &Change) -> Option<String> {
        let iterations = release.canary["status"]["iterations"].as_i64().unwrap_or(0);
        let was = std::mem::replace(&mut self.iterations, iterations);
        if iterations <= was {
            return None;
        }
        if iterations > was + 1 {
            return Some(format!("iteration {iterations} follows iteration {was}"));
        }
        if was == 0 {
            self.iterated = None;
        }
        let before = self.iterated.replace(change.at)?;
        let passed = change.at.duration_since(before).unsigned_abs();
        let is_early = passed + Duration::from_secs(1) < release.interval();
        is_early.then(|| format!("two iterations within {passed:?}"))
    }

    /// The primary gets each template once, and only after a complete analysis of it, unless a person promotes it.
    pub fn promotions(&mut self, release: &Release<'_>, change: &Change) -> Option<String> {
        let target = release.target.version.clone();
        if self.target.as_ref().map(|(template, _)| template) != target.as_ref() {
            self.target = target.map(|template| (template, change.at));
            self.target_since = change.revision;
        }
        // Without a mesh only hooks send requests to the canary.
        let is_called = release.canary["spec"]["provider"] == "kubernetes"
            && release.phase() == "Progressing"
            && release.target.ready > 0;
        if self.share > 0 || is_called {
            self.analysed.extend(release.target.version.clone());
        }
        let is = release.primary.version.clone();
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
                "the primary got {is}, whose pods received no request"
            ));
        }
        let (target, since) = self.target.as_ref()?;
        if *target != is {
            return Some(format!("the primary got {is}, but the target has {target}"));
        }
        if release.is_promoted_by_hand() {
            return None;
        }
        let passed = change.at.duration_since(*since).unsigned_abs();
        let is_early = passed < release.interval() * (release.steps() + 1);
        is_early.then(|| format!("the primary got {is} after {passed:?}"))
    }
}
