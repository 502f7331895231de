//! Chooses the records to delete.

use crate::api::release::{Release, ReleaseResult};

/// The names of the records to delete before another one is created, so that `history` records are left. The last promoted and the last
/// failed one stay anyway.
pub fn outdated(releases: &[Release], history: usize) -> Vec<String> {
    let mut newest_first: Vec<_> = releases.iter().collect();
    newest_first.sort_by_key(|release| {
        let started = release.spec.started_at.as_ref().map(|time| time.0);
        std::cmp::Reverse((started, release.metadata.name.clone()))
    });
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
