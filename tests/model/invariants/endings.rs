//! Invariants of the end of a history: no route leads to a missing Service, runs have ended, and deleted Canaries are gone.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;

use super::{Change, Cluster, Key, routes};

/// The longest time from the beginning of a run to its end.
const RUN: Duration = Duration::from_secs(3600);

/// Routes at the end of a history that lead to missing Services.
pub fn dangling(history: &[Change]) -> Vec<String> {
    let mut cluster = Cluster::default();
    history.iter().for_each(|change| cluster.apply(change));
    let exists = |namespace: &str, host: &str| {
        let mut all = cluster
            .objects
            .keys()
            .filter(|key| key.plural == "services");
        // A route of the whole cluster is in no namespace.
        all.any(|key| key.name == host && (namespace.is_empty() || key.namespace == namespace))
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
pub fn runs_end(history: &[Change], end: Timestamp) -> Vec<String> {
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
pub fn finalizers_are_removed(
    history: &[Change],
    end: Timestamp,
    longest: Duration,
) -> Vec<String> {
    let mut held: BTreeMap<&Key, Timestamp> = BTreeMap::new();
    let mut wrong = Vec::new();
    let held_for = |key: &Key, since: Timestamp, until: Timestamp| {
        (until.duration_since(since).unsigned_abs() > longest)
            .then(|| format!("{} was held from {since} to {until}", key.name))
    };
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
                wrong.extend(held_for(&change.key, since, change.at));
            }
        }
    }
    wrong.extend(
        held.into_iter()
            .filter_map(|(key, since)| held_for(key, since, end)),
    );
    wrong
}
