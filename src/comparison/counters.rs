//! Counts from the raw counters of pods, which only grow until their process restarts.
//!
//! `rate()` and `increase()` of Prometheus are not used: they need two samples, extrapolate, and lose the first value of a new series,
//! which has all requests that a new pod has served until then.

use std::collections::{BTreeMap, BTreeSet};

use super::Counts;

/// The values of the counters of one version's pods at one instant, by the name of the pod. Values that are no counts are left out.
pub type Reading = BTreeMap<String, Counts>;

/// The requests since the last reading.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Increments {
    /// The requests of each pod.
    pub pods: BTreeMap<String, Counts>,
    /// The pods whose requests since the last reading are not counted. Their counters decreased, because their process restarted or another
    /// replica of Prometheus answered; or their earlier counters are missing.
    pub restarted: BTreeSet<String>,
}

impl Increments {
    /// The requests between two readings. The counters of a new pod began at 0.
    pub fn between(before: &Reading, now: &Reading) -> Self {
        let mut increments = Self::default();
        for (pod, now) in now {
            let before = before.get(pod).copied().unwrap_or(Counts::NONE);
            // These are no counts if bad requests grew more than all requests.
            match Counts::new(now.all() - before.all(), now.bad() - before.bad()) {
                Some(increment) if now.all() >= before.all() => {
                    increments.pods.insert(pod.clone(), increment);
                }
                _ => {
                    increments.restarted.insert(pod.clone());
                }
            }
        }
        increments
    }

    /// The requests of all pods.
    pub fn total(&self) -> Counts {
        self.pods
            .values()
            .fold(Counts::NONE, |sum, pod| sum.and(*pod))
    }
}
