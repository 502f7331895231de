//! The table of canaries.

use jiff::Timestamp;

use super::{
    Line, Style,
    line::{padded, width},
    progress, style_of,
};
use crate::{
    api::percent::Percent,
    view::{
        View,
        text::{age, short_image},
    },
};

/// Which columns a table has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Columns {
    /// The namespace.
    pub namespace: bool,
    /// The columns of `-o wide`.
    pub wide: bool,
}

/// One cell.
type Cell = (Style, String);

/// A table that can grow: the widths of its columns only ever increase.
#[derive(Clone, Debug, Default)]
pub struct Table {
    widths: Vec<usize>,
}

impl Table {
    /// The lines of these rows. Rows that come later are aligned with those before, unless they need more space.
    pub fn lines(&mut self, rows: &[Vec<Cell>]) -> Vec<Line> {
        for row in rows {
            self.widths.resize(self.widths.len().max(row.len()), 0);
            for (widest, (_, text)) in self.widths.iter_mut().zip(row) {
                *widest = width(text).max(*widest);
            }
        }
        rows.iter().map(|row| self.line(row)).collect()
    }

    fn line(&self, row: &[Cell]) -> Line {
        let last = row.len().saturating_sub(1);
        let cells = row.iter().zip(&self.widths).enumerate();
        cells.fold(
            Line::default(),
            |line, (position, ((style, text), width))| {
                if position == last {
                    return line.and(*style, text.clone());
                }
                line.and(*style, padded(text, *width))
                    .and(Style::Plain, "   ")
            },
        )
    }
}

/// The head of the table of canaries.
pub fn head(columns: Columns) -> Vec<Cell> {
    let mut names = vec!["NAME", "STATE", "STEP", "WEIGHT"];
    if columns.namespace {
        names.insert(0, "NAMESPACE");
    }
    if columns.wide {
        names.extend(["FAILED", "TARGET", "STRATEGY", "IMAGE", "SINCE"]);
    }
    names.extend(["AGE", "VERDICT"]);
    let cell = |name: &str| (Style::Plain, name.to_owned());
    names.into_iter().map(cell).collect()
}

/// The row of a canary.
pub fn row(view: &View, columns: Columns, now: Timestamp) -> Vec<Cell> {
    let plain = |text: String| (Style::Plain, text);
    let mut cells = Vec::new();
    if columns.namespace {
        cells.push(plain(view.namespace.clone()));
    }
    let weight = if view.strategy == "canary" || view.weight.intended > Percent::ZERO {
        view.weight.intended.to_string()
    } else {
        "-".to_owned()
    };
    cells.extend([
        plain(view.name.clone()),
        (style_of(view.state), view.state.as_str().to_owned()),
        plain(progress(view)),
        plain(weight),
    ]);
    if columns.wide {
        let failed = view.failed_checks;
        cells.extend([
            plain(format!("{}/{}", failed.now, failed.threshold)),
            plain(format!("{}/{}", view.target.kind, view.target.name)),
            plain(view.strategy.clone()),
            plain(images(view)),
            plain(age(view.since, now)),
        ]);
    }
    cells.extend([plain(age(view.created, now)), plain(verdict(view))]);
    cells
}

/// The sentence, unless it only repeats the state.
fn verdict(view: &View) -> String {
    if view.needs_attention || !view.code.is_empty() {
        view.sentence.clone()
    } else {
        String::new()
    }
}

fn images(view: &View) -> String {
    let images = view.images.iter().flatten();
    let images: Vec<_> = images
        .filter_map(|it| it.canary.as_deref())
        .map(short_image)
        .collect();
    if images.is_empty() {
        return "-".to_owned();
    }
    images.join(",")
}

/// One change of a canary as a line, for an output that is no terminal.
pub fn change_line(view: &View, now: Timestamp) -> Line {
    let seconds = Timestamp::from_second(now.as_second()).unwrap_or(now);
    let step = match progress(view) {
        none if none == "-" => String::new(),
        step => format!(" step {step}"),
    };
    Line::plain(format!("{seconds}  {}  ", view.full_name()))
        .and(style_of(view.state), view.state.as_str())
        .and(
            Style::Plain,
            format!("{step} weight {}  {}", view.weight.intended, view.sentence),
        )
}
