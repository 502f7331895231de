//! Invariants that must hold at every revision, whichever client wrote it. They judge the objects alone, without code of the operator.
//!
//! Pure functions over a history. Each returns the violations it finds.

mod endings;
mod release;
mod routes;
#[cfg(test)]
mod tests;
mod track;

pub use routes::KNATIVE_SERVICES;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::Timestamp;

use super::store::{Change, Key};
pub use endings::dangling;
use release::{Cluster, Release};
use track::Track;

/// The times for which a situation is no violation, because the operator cannot know of it yet. Each counts from the moment at which the
/// situation begins.
#[derive(Clone, Copy, Debug)]
pub struct Tolerance {
    /// Requests reach no ready pod of a canary that has lost its pods.
    pub lost_pods: Duration,
    /// The weight of an earlier version grows although the target has a newer one.
    pub stale_target: Duration,
    /// The finalizer holds a deleted Canary.
    pub deletion: Duration,
}

impl Default for Tolerance {
    fn default() -> Self {
        Self {
            lost_pods: Duration::ZERO,
            stale_target: Duration::ZERO,
            deletion: Duration::from_secs(120),
        }
    }
}

/// All violations in a history that ends at `end`. The history must have a Canary.
pub fn violations(history: &[Change], end: Timestamp, tolerance: &Tolerance) -> Vec<String> {
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
            found.extend(release.primary_is_reached());
            found.extend(release.primary_has_replicas());
            found.extend(release.failed_is_safe(change));
            let track = tracks
                .entry(canary["metadata"]["uid"].to_string())
                .or_default();
            found.extend(track.canary_is_reached(&release, change, tolerance));
            found.extend(track.drains(&release, change));
            found.extend(track.steps(&release, change, tolerance));
            found.extend(track.mirroring(&release, change));
            found.extend(track.iterations(&release, change));
            found.extend(track.promotions(&release, change));
            wrong.extend(found.into_iter().map(|what| {
                format!(
                    "{} at {} by {}: {what}",
                    change.revision, change.at, change.by
                )
            }));
        }
    }
    wrong.extend(endings::runs_end(history, end));
    wrong.extend(endings::finalizers_are_removed(
        history,
        end,
        tolerance.deletion,
    ));
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

/// Finds versions with more than one cookie: their users would not stay with them. Finds cookies of more than one version: users of the
/// earlier version would get the later one at once.
pub fn cookies(history: &[Change]) -> Vec<String> {
    let mut cookies: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut versions = cookies.clone();
    let of_canaries = history
        .iter()
        .filter(|change| change.key.plural == "canaries");
    for canary in of_canaries.filter_map(|change| change.after.as_ref()) {
        let status = &canary["status"];
        let cookie = status["sessionAffinityCookie"].as_str();
        if let Some(cookie) = cookie.filter(|cookie| !cookie.is_empty()) {
            let (cookie, version) = (cookie.to_owned(), status["lastAppliedSpec"].to_string());
            let of_version = cookies.entry(version.clone()).or_default();
            of_version.insert(cookie.clone());
            versions.entry(cookie).or_default().insert(version);
        }
    }
    let several = |all: BTreeMap<String, BTreeSet<String>>, what: &str| -> Vec<String> {
        let several = all.into_iter().filter(|(_, found)| found.len() > 1);
        several
            .map(|(of, found)| format!("{of} has the {what} {found:?}"))
            .collect()
    };
    let mut wrong = several(cookies, "cookies");
    wrong.extend(several(versions, "versions"));
    wrong
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
