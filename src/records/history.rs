//! Finds the record of a run among those of its canary, and chooses the records to delete.

use super::Committed;
use crate::{
    api::{
        canary::CanaryPhase,
        release::{Release, ReleaseResult},
    },
    rollout::of_end,
};

/// The record of a run that another process began, or whose last write failed.
#[derive(Debug)]
pub enum OfRun<'a> {
    /// The run has a record without an end.
    Running(&'a Release),
    /// The run has ended, and its record is complete.
    Complete,
    /// The run has no record.
    Missing,
}

/// Finds the record of the run that a change of the status is about.
pub fn of_run<'a>(releases: &'a [Release], committed: Committed<'_>) -> OfRun<'a> {
    let before = committed.snapshot.status();
    let revisions = [committed.revision(), before.last_applied_spec.clone()];
    let is_its_own = |release: &Release| {
        let mut revisions = revisions.iter().flatten();
        revisions.any(|revision| *revision == release.spec.revision)
    };
    let newest_first = newest_first(releases);
    let mut unended = newest_first
        .iter()
        .filter(|it| it.spec.result == ReleaseResult::Running);
    // If the user took the version back, the status after the run has the promoted revision, not the one of the run. While a version
    // waits for its run, the status does not have its revision.
    let is_taken_back = committed.ends()
        && (before.phase == CanaryPhase::Waiting
            || of_end(committed.snapshot, committed.status).0 == ReleaseResult::Withdrawn);
    let running = unended.find(|it| is_its_own(it) || is_taken_back);
    // The record of this run ends after the last change of the status, and the record of an earlier run ends before that change.
    let changed = before.last_transition_time.as_ref();
    let is_complete = |release: &&Release| release.spec.ended_at.as_ref() >= changed;
    match (running, newest_first.first()) {
        (Some(release), _) => OfRun::Running(release),
        (None, Some(newest)) if committed.ends() && is_complete(newest) => OfRun::Complete,
        (None, _) => OfRun::Missing,
    }
}

fn newest_first(releases: &[Release]) -> Vec<&Release> {
    let mut all: Vec<_> = releases.iter().collect();
    all.sort_by_key(|release| newest_first_key(release));
    all
}

/// The key that sorts records, the newest first. A run may begin in the second in which another one began or ended.
pub fn newest_first_key(release: &Release) -> impl Ord + use<> {
    let [started, ended] = [&release.spec.started_at, &release.spec.ended_at]
        .map(|time| time.as_ref().map(|time| time.0));
    let name = release.metadata.name.clone();
    std::cmp::Reverse((started, ended.is_none(), ended, name))
}

/// The names of the records to delete before another one is created, so that `history` records are left. The last promoted and the last
/// failed one stay anyway.
pub fn outdated(releases: &[Release], history: usize) -> Vec<String> {
    let newest_first = newest_first(releases);
    let last = |wanted: &[ReleaseResult]| {
        let found = newest_first
            .iter()
            .find(|it| wanted.contains(&it.spec.result));
        found.and_then(|release| release.metadata.name.clone())
    };
    let kept = [
        last(&[ReleaseResult::Promoted]),
        last(&[ReleaseResult::Failed, ReleaseResult::Aborted]),
    ];
    newest_first
        .iter()
        .skip(history.saturating_sub(1))
        .filter_map(|release| release.metadata.name.clone())
        .filter(|name| !kept.contains(&Some(name.clone())))
        .collect()
}
