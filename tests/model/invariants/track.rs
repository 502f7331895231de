//! Invariants over several revisions of one canary: draining, steps and promotions.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::Timestamp;

use super::{Change, INHERITED, Release, ready, replicas, template};

/// The history of one canary up to a revision.
#[derive(Default)]
pub struct Track {
    share: i64,
    reach: i64,
    /// The revision at which the weight began to grow, and when it last grew.
    began: u64,
    raised: Option<Timestamp>,
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
    /// Pods are scaled down only after their connections had time to end.
    pub fn drains(&mut self, release: &Release<'_>, change: &Change) -> Option<String> {
        let reach = release.reach.map_or(0, |(_, canary)| canary);
        match std::mem::replace(&mut self.reach, reach) {
            1.. if reach == 0 => self.left = Some(change.at),
            _ if reach > 0 => self.left = None,
            _ => {}
        }
        let replicas = replicas(release.target?);
        let is_scaled_down = std::mem::replace(&mut self.replicas, replicas) > 0 && replicas == 0;
        let passed = change.at.duration_since(self.left?).unsigned_abs();
        let wait = match release.phase() {
            "Initializing" => Duration::from_secs(5),
            _ => release.interval(),
        };
        // One second is allowed for a write that took effect late.
        let is_early =
            is_scaled_down && ready(release.target) > 0 && passed + Duration::from_secs(1) < wait;
        is_early.then(|| format!("the canary is scaled down {passed:?} after it lost its weight"))
    }

    /// The canary's weight grows at most once an interval, and for one version.
    pub fn steps(&mut self, release: &Release<'_>, change: &Change) -> Option<String> {
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
        // Times in a status are whole seconds.
        let is_early = passed + Duration::from_secs(1) < release.interval();
        is_early.then(|| format!("two steps within {passed:?}"))
    }

    /// The primary gets each template once, and only after a complete analysis of it.
    pub fn promotions(&mut self, release: &Release<'_>, change: &Change) -> Option<String> {
        let target = template(release.target);
        if self.target.as_ref().map(|(template, _)| template) != target.as_ref() {
            self.target = target.map(|template| (template, change.at));
            self.target_since = change.revision;
        }
        // Without a mesh only hooks send requests to the canary.
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
                "the primary got {is}, whose pods received no request"
            ));
        }
        let (target, since) = self.target.as_ref()?;
        if *target != is {
            return Some(format!("the primary got {is}, but the target has {target}"));
        }
        let passed = change.at.duration_since(*since).unsigned_abs();
        let is_early = passed < release.interval() * (release.steps() + 1);
        is_early.then(|| format!("the primary got {is} after {passed:?}"))
    }
}
