//! The table of releases.

use jiff::Timestamp;

use super::{Style, table::Cell};
use crate::view::{
    releases::{Changed, ReleaseView},
    text::{age, duration, short_image},
};

/// The head of the table.
pub fn history_head(wide: bool) -> Vec<Cell> {
    let mut names = vec!["STARTED", "CHANGE", "RESULT", "STEPS", "WEIGHT", "TOOK", "BY"];
    if wide {
        names.extend(["RELEASE", "REVISION"]);
    }
    names.push("WHY");
    let cell = |name: &str| (Style::Plain, name.to_owned());
    names.into_iter().map(cell).collect()
}

/// The row of a release.
pub fn history_row(view: &ReleaseView, wide: bool, now: Timestamp) -> Vec<Cell> {
    let plain = |text: String| (Style::Plain, text);
    let style = match view.result.as_str() {
        "Promoted" => Style::Good,
        "Failed" => Style::Bad,
        "Aborted" => Style::Warn,
        _ => Style::Plain,
    };
    let took = view.started.zip(view.ended.or(Some(now)));
    let took = took.map(|(start, end)| duration(end.duration_since(start)));
    let started = view.started.map(|_| format!("{} ago", age(view.started, now)));
    let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    let mut cells = vec![
        plain(started.unwrap_or_default()),
        plain(change(&view.changes)),
        (style, view.result.clone()),
        plain(format!("{}/{}", view.steps.0, view.steps.1)),
        plain(view.weight.to_string()),
        plain(took.unwrap_or_default()),
        plain(or_dash(&view.trigger)),
    ];
    if wide {
        cells.extend([plain(view.name.clone()), plain(view.revision.clone())]);
    }
    cells.push(plain(view.sentence.clone()));
    cells
}

/// The first change, and how many there are besides.
fn change(changes: &[Changed]) -> String {
    let Some(Changed { name, from, to }) = changes.first() else {
        return "-".to_owned();
    };
    let first = if name.contains('/') {
        name.clone()
    } else {
        format!("{} → {}", short_image(from), short_image(to))
    };
    match changes.len() {
        1 => first,
        all => format!("{first}, {} more", all - 1),
    }
}
