//! A plan as text for a terminal.

use std::fmt::Write as _;

use super::{By, Change, Comparison, Metric, MissingRight, Plan, Verb, YOU};
use crate::{
    snapshot::go,
    view::{
        render::{Line, Style},
        text::clean,
    },
};

/// The number of blanks before the second and later lines of a paragraph.
const INDENT: usize = 4;

/// The lines of a plan. Lines of a diff are not wrapped. All others are wrapped to the width of the terminal.
pub fn lines(plan: &Plan, width: usize) -> Vec<Line> {
    let name = format!("{}/{}", clean(&plan.namespace), clean(&plan.name));
    let mut lines = vec![Line::default().and(Style::Strong, format!("Canary {name}"))];
    for change in &plan.changes {
        lines.extend(changed(change, width));
    }
    if !plan.first_step.is_empty() {
        let head = Line::plain("  ").and(Style::Strong, "at the first step of the next run");
        lines.push(head.and(Style::Plain, ":"));
        let changes = plan.first_step.iter();
        lines.extend(changes.flat_map(|change| changed(change, width)));
    }
    let mut paragraph = |word: &str, style: Style, text: String| {
        let line = Line::plain("  ").and(style, word);
        let line = line.and(Style::Plain, format!(": {text}"));
        lines.extend(line.wrapped(width, INDENT));
    };
    for problem in &plan.problems {
        paragraph("problem", Style::Bad, clean(problem));
    }
    for conflict in &plan.conflicts {
        let [canary, object, not_run] =
            [&conflict.canary, &conflict.object, &conflict.not_run].map(|text| clean(text));
        let text = format!("canary {canary} has the {object}, too, so {not_run} is not run");
        paragraph("conflict", Style::Bad, text);
    }
    for right in &plan.missing_rights {
        let style = if right.who == YOU {
            Style::Warn
        } else {
            Style::Bad
        };
        paragraph("missing right", style, words(right));
    }
    for why in &plan.not_checked {
        paragraph("not checked", Style::Warn, clean(why));
    }
    for metric in &plan.metrics {
        let (style, text) = asked(metric);
        paragraph("metric", style, text);
    }
    for comparison in &plan.comparisons {
        let (style, text) = compared(comparison);
        paragraph("comparison", style, text);
    }
    let then = if plan.then.is_empty() {
        "nothing".to_owned()
    } else {
        clean(&plan.then)
    };
    paragraph("then", Style::Strong, then);
    lines
}

fn changed(change: &Change, width: usize) -> Vec<Line> {
    let verb = match change.verb {
        Verb::Create => "create",
        Verb::Update => "update",
    };
    let by = match change.by {
        By::You => "you",
        By::Operator => "the operator",
    };
    let (kind, name) = (change.kind, clean(&change.name));
    let mut lines = vec![Line::plain(format!("  {verb} {kind} {name} (by {by})"))];
    let mut remark = |style, word: &str, text: &Option<String>| {
        if let Some(text) = text {
            let line = Line::plain("  ").and(style, word);
            let line = line.and(Style::Plain, format!(": {}", clean(text)));
            lines.extend(line.wrapped(width, INDENT));
        }
    };
    remark(Style::Bad, "refused", &change.refused);
    remark(Style::Warn, "not tried", &change.untried);
    lines.extend(change.diff.lines().map(of_diff));
    lines
}

fn of_diff(line: &str) -> Line {
    let style = match line.as_bytes().first() {
        _ if line.starts_with("+++") || line.starts_with("---") => Style::Strong,
        Some(b'+') => Style::Good,
        Some(b'-') => Style::Bad,
        Some(b'@') => Style::Dim,
        _ => Style::Plain,
    };
    Line::default().and(style, line)
}

fn words(right: &MissingRight) -> String {
    let may = if right.who == YOU {
        "you may not".to_owned()
    } else {
        format!("{} may not", clean(&right.who))
    };
    let (resource, subresource) = match right.resource.split_once('/') {
        Some((resource, subresource)) => (resource, format!("/{subresource}")),
        None => (right.resource.as_str(), String::new()),
    };
    let dot = if right.group.is_empty() { "" } else { "." };
    let place = match &right.namespace {
        Some(namespace) => format!("in namespace {namespace}"),
        None => "in all namespaces".to_owned(),
    };
    let (verb, group) = (&right.verb, &right.group);
    clean(&format!(
        "{may} {verb} {resource}{dot}{group}{subresource} {place}"
    ))
}

fn compared(comparison: &Comparison) -> (Style, String) {
    let (metric, counter) = (clean(&comparison.metric), clean(&comparison.counter));
    let (style, found) = match (&comparison.not_asked, comparison.requests) {
        (Some(why), _) => (Style::Warn, format!("not asked: {}", clean(why))),
        (None, Some(requests)) if requests > 0.0 => {
            let bad = comparison.bad.unwrap_or(0.0);
            let found = format!(
                "the primary had {requests} requests in the last hour, {bad} of them failed"
            );
            (Style::Good, found)
        }
        (None, _) => (
            Style::Warn,
            "the primary had no requests in the last hour, so a step would wait".to_owned(),
        ),
    };
    (style, format!("{metric}: {found}; {counter}"))
}

fn asked(metric: &Metric) -> (Style, String) {
    let of = &metric.metric;
    let mut text = clean(&of.name);
    let unit = match of.unit.as_str() {
        "" => String::new(),
        unit => format!(" {unit}"),
    };
    let style = match (&metric.not_asked, &metric.failure, metric.value) {
        (Some(why), ..) => {
            let _ = write!(text, " not asked: {}", clean(why));
            Style::Warn
        }
        (None, Some(why), _) => {
            let _ = write!(text, " would fail now: {}", clean(why));
            Style::Warn
        }
        (None, None, Some(value)) => {
            let _ = write!(text, " is {}{unit}", go::float(value));
            Style::Good
        }
        (None, None, None) => Style::Plain,
    };
    for (word, bound) in [("at least", of.min), ("at most", of.max)] {
        if let Some(bound) = bound {
            let _ = write!(text, ", {word} {}{unit}", go::float(bound));
        }
    }
    if !of.query.is_empty() {
        let from = if of.host.is_empty() {
            String::new()
        } else {
            format!(" at {}", clean(&of.host))
        };
        let (provider, query) = (clean(&of.provider), clean(&of.query));
        let _ = write!(text, "; {provider}{from}: {query}");
    }
    (style, text)
}
