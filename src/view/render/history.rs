//! The table of recorded releases.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::Style;
use crate::{
    api::release::{Release, ReleaseResult},
    view::text::{age, clean, duration, versions},
};

/// The head of the table.
pub fn history_head(is_wide: bool) -> Vec<(Style, String)> {
    let names = ["WHEN", "FROM", "TO", "RESULT", "TOOK", "BY", "RELEASE"];
    let wide = ["WHY"].into_iter().filter(|_| is_wide);
    let cells = names.into_iter().chain(wide);
    cells.map(|name| (Style::Plain, name.to_owned())).collect()
}

/// The row of a release. If no image changed, its versions are those of the status.
pub fn history_row(release: &Release, is_wide: bool, now: Timestamp) -> Vec<(Style, String)> {
    let spec = &release.spec;
    let time = |time: &Option<Time>| time.as_ref().map(|time| time.0);
    let started = time(&spec.started_at);
    let took = started.map(|start| {
        let end = time(&spec.ended_at).unwrap_or(now);
        duration(end.duration_since(start))
    });
    let (from, to) = versions(spec);
    let style = match spec.result {
        ReleaseResult::Promoted => Style::Good,
        ReleaseResult::Failed => Style::Bad,
        ReleaseResult::Aborted => Style::Warn,
        ReleaseResult::Running | ReleaseResult::Superseded | ReleaseResult::Withdrawn => {
            Style::Plain
        }
    };
    let cell = |style, text: &str| {
        let text = clean(text);
        let is_empty = text.is_empty();
        (style, if is_empty { "-".to_owned() } else { text })
    };
    let when = started.map(|_| format!("{} ago", age(started, now)));
    let mut cells = vec![
        cell(Style::Plain, &when.unwrap_or_default()),
        cell(Style::Plain, from),
        cell(Style::Plain, to),
        cell(style, spec.result.as_str()),
        cell(Style::Plain, &took.unwrap_or_default()),
        cell(Style::Plain, spec.trigger.as_deref().unwrap_or_default()),
        cell(
            Style::Plain,
            release.metadata.name.as_deref().unwrap_or_default(),
        ),
    ];
    if is_wide {
        let why = spec.cause.as_ref().map(|cause| cause.sentence.as_str());
        cells.push(cell(Style::Plain, why.unwrap_or_default()));
    }
    cells
}
