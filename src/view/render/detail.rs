//! One canary in full.

use jiff::Timestamp;

use super::{Line, Style, Table, line::padded, style_of};
use crate::{
    api::percent::Percent,
    view::{
        Check, Pod, Progress, Step, Typed, Version, View,
        text::{age, duration, image_pair, short_image},
    },
};

/// The width of the left column.
const LEFT: usize = 11;
/// The most events that are shown.
const EVENTS: usize = 8;

/// The lines about a canary, for this width.
pub fn detail(view: &View, width: usize, now: Timestamp, typed: &Typed) -> Vec<Line> {
    let mut lines = header(view, width, now);
    lines.push(Line::default());
    lines.extend(steps(view, width, now));
    lines.extend(checks(view));
    lines.extend(hooks(view, width));
    lines.extend(pods(view, now));
    lines.extend(events(view, now));
    lines.extend(next(view, typed));
    lines
}

fn named(name: &str) -> Line {
    Line::default().and(Style::Dim, padded(name, LEFT))
}

fn header(view: &View, width: usize, now: Timestamp) -> Vec<Line> {
    let since = match view.since {
        Some(since) => format!(", last change {} ago", age(Some(since), now)),
        None => String::new(),
    };
    let title = Line::default()
        .and(Style::Strong, view.full_name())
        .and(Style::Plain, "  ")
        .and(style_of(view.state), view.state.as_str())
        .and(Style::Plain, since);
    let mut lines = vec![title];
    let why = named("Why").and(Style::Plain, view.sentence.clone());
    lines.extend(why.wrapped(width, LEFT));
    let target = format!(
        "{} {}, {}",
        view.target.kind, view.target.name, view.strategy
    );
    lines.push(named("Target").and(Style::Plain, target));
    lines.extend(images(view));
    if let Some(action) = &view.action {
        let answer = if action.accepted {
            "accepted"
        } else {
            "refused"
        };
        let action = named("Action").and(Style::Plain, format!("{answer}: {}", action.text));
        lines.extend(action.wrapped(width, LEFT));
    }
    lines
}

/// The image of each container, and its new image.
fn images(view: &View) -> Vec<Line> {
    let Some(images) = &view.images else {
        return vec![named("Image").and(Style::Dim, "not readable with your rights")];
    };
    let names = std::iter::once("Image").chain(std::iter::repeat(""));
    let lines = names.zip(images).map(|(name, image)| {
        let text = match (image.primary.as_deref(), image.canary.as_deref()) {
            (Some(old), Some(new)) if old != new => {
                let (old, new) = image_pair(old, new);
                format!("{old} → {new}")
            }
            (old, new) => new
                .or(old)
                .map_or_else(String::new, |it| short_image(it).to_owned()),
        };
        let line = named(name).and(Style::Plain, text);
        if images.len() > 1 {
            return line.and(Style::Dim, format!("  {}", image.container));
        }
        line
    });
    lines.collect()
}

fn steps(view: &View, width: usize, now: Timestamp) -> Vec<Line> {
    let traffic = format!(
        "{} % to the canary, at most {} %",
        view.weight.intended, view.weight.max
    );
    let traffic = named("Traffic").and(Style::Plain, traffic);
    if view.steps.is_empty() || !view.state.is_in_run() {
        // A canary that is suspended in a run keeps its traffic.
        let has_traffic = view.weight.intended > Percent::ZERO;
        return Vec::from_iter(has_traffic.then_some(traffic));
    }
    let is_iterations = view.strategy != "canary";
    let mut line = named("Steps");
    for Step { at, state } in &view.steps {
        line = match state {
            Progress::Done => line.and(Style::Good, format!("✓{at} ")),
            Progress::Now => line.and(Style::Strong, format!("▶{at} ")),
            Progress::Later => line.and(Style::Dim, format!("·{at} ")),
        };
    }
    let what = if is_iterations { "iteration" } else { "step" };
    let place = format!(" {what} {} of {}", view.steps_taken(), view.steps.len());
    let mut lines = line.and(Style::Plain, place).wrapped(width, LEFT);
    lines.push(traffic);
    if let Some(next) = next_step(view, now) {
        lines.push(named("Next step").and(Style::Plain, next));
    }
    lines
}

/// When the next step begins, and the end of the run.
pub fn next_step(view: &View, now: Timestamp) -> Option<String> {
    let left = |at: Timestamp| duration(at.duration_since(now));
    let (next, ends) = (view.next_step?, view.ends?);
    Some(format!(
        "in {}, promoted in {} at the earliest",
        left(next),
        left(ends)
    ))
}

fn checks(view: &View) -> Vec<Line> {
    if view.checks.is_empty() {
        return Vec::new();
    }
    let failed = view.failed_checks;
    // After a run, the number of its failed checks does not count for the next run.
    let (style, text) = match (view.state.is_in_run(), failed.now) {
        (false, _) => {
            let text = match failed.threshold {
                1 => "1 failed check rolls a version back".to_owned(),
                most => format!("{most} failed checks roll a version back"),
            };
            (Style::Plain, text)
        }
        (true, now) => {
            let style = if now > 0 { Style::Warn } else { Style::Plain };
            let text = format!("{now} of {} failed checks until rollback", failed.threshold);
            (style, text)
        }
    };
    let mut lines = vec![named("Checks").and(style, text)];
    let row = |check: &Check| {
        [
            format!("  {}", check.name),
            range(check),
            format!("over {}", check.interval),
        ]
        .map(|text| (Style::Plain, text))
        .to_vec()
    };
    let rows: Vec<_> = view.checks.iter().map(row).collect();
    lines.extend(Table::default().lines(&rows));
    lines
}

/// The values that pass.
fn range(check: &Check) -> String {
    match (check.min, check.max) {
        (Some(min), Some(max)) => format!("{min} to {max}"),
        (Some(min), None) => format!("at least {min}"),
        (None, Some(max)) => format!("at most {max}"),
        (None, None) => "any value".to_owned(),
    }
}

fn hooks(view: &View, width: usize) -> Vec<Line> {
    if view.hooks.is_empty() {
        return Vec::new();
    }
    let hooks: Vec<_> = view
        .hooks
        .iter()
        .map(|hook| format!("{} ({})", hook.name, hook.type_))
        .collect();
    let line = named("Hooks").and(Style::Plain, hooks.join(", "));
    line.wrapped(width, LEFT)
}

fn pods(view: &View, now: Timestamp) -> Vec<Line> {
    let Some(pods) = &view.pods else {
        return vec![named("Pods").and(Style::Dim, "not readable with your rights")];
    };
    let count = |of: Version| {
        let all: Vec<_> = pods.iter().filter(|pod| pod.of == of).collect();
        let ready = all.iter().filter(|pod| pod.ready).count();
        format!("{ready}/{} ready", all.len())
    };
    let counts = format!(
        "canary {}, primary {}",
        count(Version::Canary),
        count(Version::Primary)
    );
    let mut lines = vec![named("Pods").and(Style::Plain, counts)];
    // The primary's pods matter only if one of them is not ready.
    let shown = pods
        .iter()
        .filter(|pod| pod.of == Version::Canary || !pod.ready);
    let row = |pod: &Pod| {
        let style = if pod.ready { Style::Plain } else { Style::Warn };
        let ready = if pod.ready { "ready" } else { "not ready" };
        vec![
            (Style::Plain, format!("  {}", pod.name)),
            (style, ready.to_owned()),
            (Style::Plain, format!("{} restarts", pod.restarts)),
            (Style::Plain, age(pod.created, now)),
            (style, pod.status.clone()),
        ]
    };
    let rows: Vec<_> = shown.map(row).collect();
    lines.extend(Table::default().lines(&rows));
    lines
}

fn events(view: &View, now: Timestamp) -> Vec<Line> {
    let events = view.events.iter().flatten().collect::<Vec<_>>();
    let shown = &events[events.len().saturating_sub(EVENTS)..];
    if shown.is_empty() {
        return Vec::new();
    }
    let rows: Vec<_> = shown
        .iter()
        .map(|event| {
            let style = if event.type_ == "Warning" {
                Style::Warn
            } else {
                Style::Plain
            };
            let times = if event.count > 1 {
                format!(" (×{})", event.count)
            } else {
                String::new()
            };
            vec![
                (Style::Dim, format!("  {}", age(event.at, now))),
                (style, event.type_.clone()),
                (Style::Plain, format!("{}{times}", event.message)),
            ]
        })
        .collect();
    let mut lines = vec![named("Events")];
    lines.extend(Table::default().lines(&rows));
    lines
}

/// The commands that a person may type next.
fn next(view: &View, typed: &Typed) -> Vec<Line> {
    let commands = view.next_commands(typed);
    let names = std::iter::once("Next").chain(std::iter::repeat(""));
    let lines = names
        .zip(commands)
        .map(|(name, command)| named(name).and(Style::Plain, command));
    lines.collect()
}
