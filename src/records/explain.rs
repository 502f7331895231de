//! A record as a text for people: first a sentence, then the evidence, by which they can check each number.

use std::fmt::Write;

use jiff::{SignedDuration, Timestamp, Unit};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::unpack;
use crate::{
    api::release::{
        Change, HookCall, Measurement, Metric, ReleaseResult, ReleaseSpec, RunEvidence,
    },
    snapshot::{excerpt, excerpt::printable, go},
};

/// The most rows of a table. Failures come first.
const ROWS: usize = 12;

/// The sentence about a record that has gaps. It has no number: a process that ended before it wrote the record left no trace in it.
pub const GAPS: &str =
    "the operator restarted during the run; checks that passed may be missing below";

/// Explains a record. Texts that people chose are shown on one line, without control characters.
pub fn explain(spec: &ReleaseSpec) -> String {
    let mut text = format!("{}\n", headline(spec));
    if let Some(cause) = &spec.cause {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{}", printable(&cause.sentence));
    }
    facts(&mut text, spec);
    match spec.evidence.as_deref().map(unpack) {
        Some(Some(evidence)) => {
            if spec.result == ReleaseResult::Running {
                until(&mut text, &evidence);
            }
            evidenced(&mut text, &evidence);
        }
        Some(None) => text.push_str(
            "\nThe evidence cannot be read: it was changed, or a newer version of the operator wrote it.\n",
        ),
        None => text.push_str("\nThe record has no evidence.\n"),
    }
    text
}

/// The result in one line.
pub fn headline(spec: &ReleaseSpec) -> String {
    let canary = one_line(&spec.canary);
    let what = match spec.images.first() {
        // Only the registry or a folder has changed.
        Some(Change { from, to, .. }) if !to.is_empty() && from != to && tag(from) == tag(to) => {
            format!("{} → {}", one_line(from), one_line(to))
        }
        Some(Change { from, to, .. }) if !to.is_empty() => {
            format!("{} → {}", tag(from), tag(to))
        }
        _ if !spec.configs.is_empty() => "changed configs".to_owned(),
        _ => one_line(&spec.revision),
    };
    let took = match (&spec.started_at, &spec.ended_at) {
        (Some(start), Some(end)) if start <= end => {
            format!(" after {}", duration(end.0.duration_since(start.0)))
        }
        _ => String::new(),
    };
    let words = match spec.result {
        ReleaseResult::Running => "is being released",
        ReleaseResult::Promoted => "was promoted",
        ReleaseResult::Failed => "was rolled back",
        ReleaseResult::Aborted => "was aborted",
        ReleaseResult::Superseded => "was superseded",
        ReleaseResult::Withdrawn => "was withdrawn",
    };
    let place = if spec.steps > 0 {
        format!(", at step {} of {}", spec.reached, spec.steps)
    } else {
        String::new()
    };
    format!("{canary}: {what} {words}{took}{place}.")
}

fn facts(text: &mut String, spec: &ReleaseSpec) {
    let started = spec.started_at.as_ref().map(|at| at.0.to_string());
    let by = spec
        .trigger
        .as_deref()
        .map(|by| format!(" by {}", one_line(by)));
    text.push('\n');
    row(
        text,
        "Started",
        &format!("{}{}", started.unwrap_or_default(), by.unwrap_or_default()),
    );
    if let Some(ended) = &spec.ended_at {
        row(text, "Ended", &ended.0.to_string());
    }
    row(text, "Revision", &one_line(&spec.revision));
    for change in spec.images.iter().chain(&spec.configs) {
        let side = |side: &str| {
            if side.is_empty() {
                "none".to_owned()
            } else {
                one_line(side)
            }
        };
        let value = format!(
            "{}: {} → {}",
            one_line(&change.name),
            side(&change.from),
            side(&change.to)
        );
        row(text, "Changed", &value);
    }
    for steered in &spec.actions {
        let at = steered
            .at
            .as_ref()
            .map(|at| at.0.to_string())
            .unwrap_or_default();
        let value = format!(
            "{at} {}: {}",
            one_line(&steered.outcome),
            one_line(&steered.action)
        );
        row(text, "Action", &value);
    }
    if spec.gaps > 0 {
        row(text, "Gaps", GAPS);
    }
}

fn row(text: &mut String, label: &str, value: &str) {
    let _ = writeln!(text, "{label:<9} {}", value.trim());
}

/// The record of a run in progress does not have its last steps, so its text tells where it ends.
fn until(text: &mut String, evidence: &RunEvidence) {
    let moments = evidence.timeline.last().map(|it| it.at.clone());
    let measurements = evidence.measurements.last().map(|it| it.at.clone());
    if let Some(last) = moments.max(measurements).flatten() {
        let value = format!(
            "until {}; checks that pass are added with every tenth one, with a failure, and at the end",
            last.0
        );
        row(text, "Evidence", &value);
    }
}

fn evidenced(text: &mut String, evidence: &RunEvidence) {
    for (place, metric) in evidence.metrics.iter().enumerate() {
        measured(text, evidence, place, metric);
    }
    if !evidence.hooks.is_empty() {
        text.push_str("\nWebhooks\n");
        let is_failed = |call: &&HookCall| call.status.is_none_or(|status| status >= 300);
        for call in chosen(&evidence.hooks, is_failed) {
            let answer = match call.status {
                Some(status) => format!("answered {status}"),
                None => "gave no answer".to_owned(),
            };
            let detail = match one_line(&call.answer) {
                detail if detail.is_empty() => detail,
                detail => format!(": {detail}"),
            };
            let (name, kind) = (one_line(&call.name), one_line(&call.kind));
            let _ = writeln!(
                text,
                "  {}  {name} ({kind} at {}) {answer}{detail}",
                clock(call.at.as_ref()),
                one_line(&call.host)
            );
        }
    }
    if !evidence.timeline.is_empty() {
        text.push_str("\nTimeline\n");
        for moment in chosen(&evidence.timeline, |_| false) {
            let iterations = match moment.iterations {
                0 => String::new(),
                n => format!(", iteration {n}"),
            };
            let _ = writeln!(
                text,
                "  {}  {} at weight {}{iterations}",
                clock(moment.at.as_ref()),
                one_line(&moment.phase),
                moment.weight
            );
        }
    }
    if evidence.left_out > 0 {
        let _ = writeln!(text, "\n{} older entries were left out.", evidence.left_out);
    }
}

fn measured(text: &mut String, evidence: &RunEvidence, place: usize, metric: &Metric) {
    let unit = match metric.unit.as_str() {
        "" => String::new(),
        unit => format!(" {}", one_line(unit)),
    };
    let bound = |word: &str, bound: Option<f64>| {
        bound.map(|bound| format!(", {word} {}{unit}", go::float(bound)))
    };
    let bounds = [bound("at least", metric.min), bound("at most", metric.max)];
    let bounds: String = bounds.into_iter().flatten().collect();
    let window = match metric.window.as_str() {
        "" => String::new(),
        window => format!(", over {}", one_line(window)),
    };
    let _ = writeln!(text, "\nMetric {}{bounds}{window}", one_line(&metric.name));
    let at = |measurement: &Measurement| {
        measurement
            .values
            .iter()
            .find(|it| it.metric == place)
            .cloned()
    };
    let measurements: Vec<_> = evidence
        .measurements
        .iter()
        .filter_map(|measurement| Some((measurement, at(measurement)?)))
        .collect();
    for (measurement, measured) in chosen(&measurements, |(_, it)| it.failure.is_some()) {
        let value = match measured.value {
            Some(value) => format!("{}{unit}", go::float(value)),
            None => "no value".to_owned(),
        };
        let verdict = match (&measured.failure, &measured.comparison) {
            (None, None) => "passed".to_owned(),
            (Some(why), None) => format!("failed: {}", one_line(why)),
            (_, Some(compared)) => {
                format!(
                    "{}: {}",
                    one_line(&compared.state),
                    one_line(&compared.detail)
                )
            }
        };
        let _ = writeln!(
            text,
            "  {}  weight {:>3}  {value}  {verdict}",
            clock(measurement.at.as_ref()),
            measurement.weight
        );
    }
    if !metric.query.is_empty() {
        let _ = writeln!(
            text,
            "  asked {} at {}: {}",
            one_line(&metric.provider),
            one_line(&metric.host),
            metric.query.replace(char::is_control, " ")
        );
    }
}

/// The entries that a table shows, in their order: the failed ones, and the newest of the others.
fn chosen<T>(entries: &[T], is_failed: impl Fn(&&T) -> bool) -> Vec<&T> {
    let failed = entries.iter().filter(&is_failed).count();
    let mut to_skip = entries.len().saturating_sub(ROWS);
    let mut failed_to_skip = failed.saturating_sub(ROWS);
    let mut shown = Vec::new();
    for entry in entries {
        let has_failed = is_failed(&entry);
        let skips = if has_failed {
            &mut failed_to_skip
        } else {
            &mut to_skip
        };
        if *skips > 0 {
            *skips -= 1;
        } else {
            shown.push(entry);
        }
    }
    shown
}

/// The time of day, in UTC.
fn clock(at: Option<&Time>) -> String {
    let at = at.map_or(Timestamp::UNIX_EPOCH, |at| at.0);
    at.strftime("%H:%M:%S").to_string()
}

fn duration(time: SignedDuration) -> String {
    let whole = time.round(Unit::Second).unwrap_or(time);
    let (hours, minutes, seconds) = (whole.as_hours(), whole.as_mins() % 60, whole.as_secs() % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{seconds}s"),
        _ => format!("{hours}h{minutes}m"),
    }
}

/// The tag of an image, or its digest.
fn tag(image: &str) -> String {
    let name = image.rsplit('/').next().unwrap_or(image);
    let tag = match name.split_once('@') {
        Some((_, digest)) => digest.get(..19).unwrap_or(digest),
        None => name.split_once(':').map_or(name, |(_, tag)| tag),
    };
    if tag.is_empty() {
        "none".to_owned()
    } else {
        one_line(tag)
    }
}

fn one_line(text: &str) -> String {
    excerpt(text)
}
