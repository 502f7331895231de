//! The recorded releases of a canary: their results, numbers about all of them, and two side by side.

use std::cmp::Ordering;

use jiff::{SignedDuration, Timestamp};
use maud::{Markup, html};

use super::{
    marks,
    place::{Named, Place, is_name},
    record::newest,
    series::{Series, evidence},
    site::Site,
    text::{NAME, cut, name, number, sentence, since},
};
use crate::{
    api::release::{Release, ReleaseResult, ReleaseSpec},
    view::text::{duration, versions},
};

/// The maximum number of releases in the table.
const ROWS: usize = 200;
/// The maximum number of metrics in a comparison.
const METRICS: usize = 20;

/// The history of a canary. `records`: newest first; `None` if the user may not read them.
pub fn history(
    site: &Site<'_>,
    canary: &Named,
    records: Option<&[Release]>,
    compared: Option<&(String, String)>,
) -> Markup {
    let find = |wanted: &String| {
        let mut all = records.iter().flat_map(|it| it.iter());
        all.find(|it| it.metadata.name.as_ref() == Some(wanted))
    };
    let pair = compared.and_then(|(a, b)| find(a).zip(find(b)));
    let current = Place::Release {
        canary: canary.clone(),
        record: None,
    };
    html! {
        p.crumbs { a href=(site.href(&Place::first())) { "Canaries" } " / " a href=(site.href(&current)) { "Current state" } }
        h1 { "History of " span.dim { (name(&canary.namespace)) "/" } (name(&canary.name)) }
        @if let Some(pair) = pair { (compare(pair)) }
        @else if compared.is_some() { p.failure { "One of the two releases is not recorded any more." } }
        @match records {
            None => p.dim { "You may not read the records of releases." },
            Some([]) => p.dim { "No release of this canary is recorded." },
            Some(records) => { (numbers(records)) (table(site, canary, records, compared)) }
        }
    }
}

fn time(time: Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>) -> Option<Timestamp> {
    time.map(|time| time.0)
}

/// How long a run took; `None` while it is in progress.
fn took(spec: &ReleaseSpec) -> Option<SignedDuration> {
    let (started, ended) = (
        time(spec.started_at.as_ref())?,
        time(spec.ended_at.as_ref())?,
    );
    Some(ended.duration_since(started))
}

/// The middle one of these durations.
fn median(mut all: Vec<SignedDuration>) -> Option<SignedDuration> {
    all.sort();
    all.get(all.len() / 2).copied()
}

/// Numbers about all recorded releases. A version that a person or a check rolled back is a failed change.
fn numbers(records: &[Release]) -> Markup {
    let ended = records.iter().filter(|it| it.spec.ended_at.is_some());
    let of = |results: &[ReleaseResult]| {
        let found = ended.clone().filter(|it| results.contains(&it.spec.result));
        found.count()
    };
    let promoted = of(&[ReleaseResult::Promoted]);
    let failed = of(&[ReleaseResult::Failed, ReleaseResult::Aborted]);
    let first = records
        .last()
        .and_then(|it| time(it.spec.started_at.as_ref()));
    let last = records
        .first()
        .and_then(|it| time(it.spec.started_at.as_ref()));
    let days = first
        .zip(last)
        .map(|(first, last)| last.duration_since(first).as_secs_f64() / 86_400.0);
    let is_promoted = |it: &&Release| it.spec.result == ReleaseResult::Promoted;
    let lasted = median(
        ended
            .clone()
            .filter(is_promoted)
            .filter_map(|it| took(&it.spec))
            .collect(),
    );
    html! {
        dl.numbers {
            @if let Some(days) = days.filter(|days| *days >= 1.0) {
                div { dt { "Promoted a week" } dd { (a_week(promoted, days)) } }
            }
            @if promoted + failed > 0 {
                div { dt { "Failed changes" } dd { (failed * 100 / (promoted + failed)) " % " span.dim { "(" (failed) " of " (promoted + failed) ")" } } }
            }
            @if let Some(lasted) = lasted { div { dt { "Until promoted" } dd { (duration(lasted)) } } }
            @if let Some(restored) = restored(records) { div { dt { "Until the next good version" } dd { (duration(restored)) } } }
        }
    }
}

/// How many of these are in a week, with one decimal.
fn a_week(count: usize, days: f64) -> String {
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    number((f64::from(count) * 70.0 / days).round() / 10.0)
}

/// The median time from the end of a failed release to the end of the next promoted one.
fn restored(records: &[Release]) -> Option<SignedDuration> {
    let mut failed: Option<Timestamp> = None;
    let mut all = Vec::new();
    for spec in records.iter().rev().map(|it| &it.spec) {
        let Some(ended) = time(spec.ended_at.as_ref()) else {
            continue;
        };
        match spec.result {
            ReleaseResult::Failed | ReleaseResult::Aborted => failed = failed.or(Some(ended)),
            ReleaseResult::Promoted => {
                all.extend(failed.take().map(|failed| ended.duration_since(failed)));
            }
            _ => {}
        }
    }
    median(all)
}

fn table(
    site: &Site<'_>,
    canary: &Named,
    records: &[Release],
    compared: Option<&(String, String)>,
) -> Markup {
    let address = format!("{}/history", canary.address());
    html! {
        form method="get" action=(address) {
            @if site.embed { input type="hidden" name="embed" value="1"; }
            table.history.stack {
                thead { tr {
                    @if records.len() > 1 { th scope="col" { "Compare" } }
                    th scope="col" { "Result" } th scope="col" { "Version" } th scope="col" { "Started" }
                    th.wide.num scope="col" { "Took" } th.wide scope="col" { "By" } th.wide scope="col" { "Why" }
                } }
                tbody { @for (place, release) in records.iter().enumerate().take(ROWS) {
                    tr {
                        @if records.len() > 1 { td.choose { (choices(release, place, compared)) } }
                        (row(site, canary, release))
                    }
                } }
            }
            @if records.len() > 1 { button type="submit" { "Compare the two" } }
        }
    }
}

/// The two radio buttons of a row. Without a choice, the newest two are chosen.
fn choices(release: &Release, place: usize, compared: Option<&(String, String)>) -> Markup {
    let record = release.metadata.name.as_deref().unwrap_or_default();
    if !is_name(record) {
        return html! {};
    }
    let is_chosen = |chosen: Option<&String>, default: usize| match chosen {
        Some(chosen) => chosen == record,
        None => place == default,
    };
    let chosen = [
        ("a", "left", is_chosen(compared.map(|(a, _)| a), 1)),
        ("b", "right", is_chosen(compared.map(|(_, b)| b), 0)),
    ];
    html! {
        @for (field, side, is_chosen) in chosen {
            input type="radio" name=(field) value=(record) checked[is_chosen] aria-label={ (cut(record, NAME)) " on the " (side) };
        }
    }
}

fn row(site: &Site<'_>, canary: &Named, release: &Release) -> Markup {
    let spec = &release.spec;
    let (from, to) = versions(spec);
    let record = release
        .metadata
        .name
        .clone()
        .filter(|record| is_name(record));
    let href = record.map(|record| {
        let canary = canary.clone();
        site.href(&Place::Release {
            canary,
            record: Some(record),
        })
    });
    html! {
        td { (marks::result(spec.result)) }
        td { a.open href=[href] { (name(from)) " → " strong { (name(to)) } } }
        td data-label="started" { (since(time(spec.started_at.as_ref()), site.now)) }
        td.wide.num { (took(spec).map(duration).unwrap_or_default()) }
        td.wide { @if let Some(by) = &spec.trigger { (name(by)) } }
        td.wide { @if let Some(cause) = &spec.cause { (sentence(&cause.sentence)) } }
    }
}

/// Two releases side by side. A sign marks the rows that differ.
fn compare((a, b): (&Release, &Release)) -> Markup {
    let rows = rows(a);
    let others = rows_of_both(&rows, &self::rows(b));
    let [left_name, right_name] =
        [a, b].map(|it| cut(it.metadata.name.as_deref().unwrap_or_default(), NAME));
    html! {
        section {
            h2 { "Comparison" }
            table.compare.stack {
                thead { tr {
                    th scope="col" { span.hidden { "Difference" } } th scope="col" { "Field" }
                    @for release in [&left_name, &right_name] { th scope="col" { (name(release)) } }
                } }
                tbody { @for (field, left, right) in &others {
                    tr.changed[left != right] {
                        td { @if left != right { span role="img" aria-label="different" { "≠" } } }
                        th scope="row" { (name(field)) }
                        td data-label=(left_name) { (sentence(left)) } td data-label=(right_name) { (sentence(right)) }
                    }
                } }
            }
        }
    }
}

/// The fields of both, in the order of the first.
fn rows_of_both(a: &[(String, String)], b: &[(String, String)]) -> Vec<(String, String, String)> {
    let value = |rows: &[(String, String)], field: &str| {
        let found = rows.iter().find(|(name, _)| name == field);
        found.map_or_else(|| "–".to_owned(), |(_, value)| value.clone())
    };
    let of_a = a
        .iter()
        .map(|(field, value_a)| (field.clone(), value_a.clone(), value(b, field)));
    let is_new = |(field, _): &&(String, String)| a.iter().all(|(name, _)| name != field);
    let of_b = b
        .iter()
        .filter(is_new)
        .map(|(field, value)| (field.clone(), "–".to_owned(), value.clone()));
    of_a.chain(of_b).collect()
}

/// The fields of a release that are compared.
fn rows(release: &Release) -> Vec<(String, String)> {
    let spec = &release.spec;
    let (from, to) = versions(spec);
    let mut rows = vec![
        ("Result".to_owned(), spec.result.to_string()),
        (
            "Version".to_owned(),
            format!("{} → {}", cut(from, NAME), cut(to, NAME)),
        ),
        (
            "Started".to_owned(),
            time(spec.started_at.as_ref())
                .map(|at| at.to_string())
                .unwrap_or_default(),
        ),
        (
            "Took".to_owned(),
            took(spec).map(duration).unwrap_or_default(),
        ),
        ("By".to_owned(), spec.trigger.clone().unwrap_or_default()),
        ("Strategy".to_owned(), spec.strategy.clone()),
        (
            "Steps".to_owned(),
            format!("{} of {}", spec.reached, spec.steps),
        ),
        ("Greatest traffic".to_owned(), format!("{} %", spec.weight)),
        (
            "Cause".to_owned(),
            spec.cause
                .as_ref()
                .map(|it| it.sentence.clone())
                .unwrap_or_default(),
        ),
    ];
    for change in newest(&spec.configs, METRICS) {
        rows.push((
            cut(&change.name, NAME),
            format!("{} → {}", change.from, change.to),
        ));
    }
    let evidence = evidence(spec).unwrap_or_default();
    for (place, metric) in evidence.metrics.iter().enumerate().take(METRICS) {
        rows.push((
            cut(&metric.name, NAME),
            measured(&Series::of(&evidence, place)),
        ));
    }
    rows
}

/// The values of a metric in a release: the least, the greatest, and the number of failures.
fn measured(series: &Series) -> String {
    let values = series.points.iter().filter_map(|point| point.canary);
    let failed = series
        .points
        .iter()
        .filter(|point| point.measured.failure.is_some());
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
        (low.min(value), high.max(value))
    });
    let failed = match failed.count() {
        0 => String::new(),
        failed => format!(", {failed} failed"),
    };
    let unit = if series.is_compared {
        " % bad requests"
    } else {
        ""
    };
    match low.total_cmp(&high) {
        Ordering::Less => format!("{} to {}{unit}{failed}", number(low), number(high)),
        Ordering::Equal => format!("{}{unit}{failed}", number(low)),
        Ordering::Greater => format!("no value{failed}"),
    }
}
