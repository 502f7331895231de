//! Finds the pod that causes the bad requests: a bad node is not a bad version.

use super::Counts;

/// The share of the bad requests from which on one pod causes them.
const SHARE: f64 = 0.8;
/// A pod with more than this share of all requests has most of the bad ones even if all pods are equal.
const MOST_REQUESTS: f64 = 0.6;

/// The pod of the canary that has at least 80 % of the bad requests, although it has at most 60 % of all requests.
pub fn one_pod<'a>(pods: impl IntoIterator<Item = (&'a str, Counts)>) -> Option<&'a str> {
    let pods: Vec<_> = pods
        .into_iter()
        .filter(|(_, counts)| counts.all() > 0.0)
        .collect();
    let total = pods
        .iter()
        .fold(Counts::NONE, |sum, (_, counts)| sum.and(*counts));
    let is_one = |counts: Counts| {
        total.bad() > 0.0
            && counts.bad() >= SHARE * total.bad()
            && counts.all() <= MOST_REQUESTS * total.all()
    };
    let found = pods.iter().find(|(_, counts)| is_one(*counts));
    found.map(|(name, _)| *name)
}
