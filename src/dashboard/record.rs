//! The record of a release: its changes, its timeline, and the evidence of each check.

use maud::{Markup, html};

use super::{
    chart::{chart, unit},
    marks,
    place::Named,
    series::{Point, Series, evidence},
    site::Site,
    text::{NAME, clock, cut, name, number, path, sentence, since, with_unit},
};
use crate::{
    api::{
        action::recorded,
        compare::ANNOTATION,
        release::{Change, HookCall, Metric, Moment, Release, ReleaseSpec, RunEvidence},
    },
    records,
    view::text::duration,
};

/// The maximum number of rows of a table. The newest ones are shown.
const ROWS: usize = 120;

/// The last rows of a list.
pub fn newest<T>(rows: &[T], most: usize) -> &[T] {
    &rows[rows.len().saturating_sub(most)..]
}

/// A record in full.
pub fn record(site: &Site<'_>, release: &Release) -> Markup {
    let spec = &release.spec;
    let evidence = evidence(spec);
    html! {
        (summary(site, release))
        @if let Some(evidence) = &evidence {
            (timeline(site, spec, evidence))
            @for (place, metric) in evidence.metrics.iter().enumerate().take(ROWS) { (measured(evidence, place, metric)) }
            (unmeasured(site, release, evidence))
            (hooks(&evidence.hooks))
            @if evidence.left_out > 0 { p.dim { (evidence.left_out) " older entries were left out of the record." } }
        } @else if spec.evidence.is_some() {
            p.dim { "The evidence cannot be read: it was changed, or a newer version of the operator wrote it." }
        } @else {
            p.dim { "The record has no evidence yet." }
        }
    }
}

fn summary(site: &Site<'_>, release: &Release) -> Markup {
    let spec = &release.spec;
    let [started, ended] = [&spec.started_at, &spec.ended_at].map(|at| at.as_ref().map(|at| at.0));
    html! {
        section.summary aria-labelledby="h-record" {
            h2 #h-record { "Release " (name(release.metadata.name.as_deref().unwrap_or_default())) }
            p { (marks::result(spec.result)) " " @if let Some(cause) = &spec.cause { (sentence(&cause.sentence)) } }
            dl {
                dt { "Started" } dd {
                    (since(started, site.now)) @if started.is_some() { " ago" }
                    @if let Some(by) = &spec.trigger { " by " (name(by)) }
                }
                @if let Some((started, ended)) = started.zip(ended) { dt { "Took" } dd { (duration(ended.duration_since(started))) } }
                @if spec.steps > 0 { dt { "Steps" } dd { (spec.reached) " of " (spec.steps) ", at most " (spec.weight) " % of the traffic" } }
                dt { "Revision" } dd { (name(&spec.revision)) @if let Some(from) = &spec.from { span.dim { " after " (name(from)) } } }
                @for steered in newest(&spec.actions, 20) {
                    dt { "Action" } dd { (clock(steered.at.as_ref().map(|at| at.0))) " " (name(&steered.outcome)) ": " (sentence(recorded(&steered.action).1)) }
                }
                @if spec.gaps > 0 { dt { "Gaps" } dd { (records::GAPS) } }
            }
        }
        (changes("Images", &spec.images))
        (changes("ConfigMaps and Secrets", &spec.configs))
    }
}

/// The differences between the promoted version and the released one.
pub fn changes(title: &str, changes: &[Change]) -> Markup {
    let side =
        |side: &str| html! { @if side.is_empty() { span.dim { "none" } } @else { (path(side)) } };
    html! {
        @if !changes.is_empty() {
            section {
                h3 { (title) }
                table.diff.stack {
                    thead { tr { th scope="col" { "Name" } th scope="col" { "Before" } th scope="col" { "After" } } }
                    tbody { @for change in changes.iter().take(ROWS) {
                        tr {
                            th scope="row" { (name(&change.name)) }
                            td { span.minus aria-hidden="true" { "− " } (side(&change.from)) }
                            td { span.plus aria-hidden="true" { "+ " } (side(&change.to)) }
                        }
                    } }
                }
            }
        }
    }
}

fn timeline(site: &Site<'_>, spec: &ReleaseSpec, evidence: &RunEvidence) -> Markup {
    let moments = newest(&evidence.timeline, ROWS);
    let end = spec.ended_at.as_ref().map_or(site.now, |at| at.0);
    let lasted = |place: usize, moment: &Moment| {
        let next = moments.get(place + 1).and_then(|next| next.at.as_ref());
        let until = next.map_or(end, |at| at.0);
        let from = moment.at.as_ref()?.0;
        Some(duration(until.duration_since(from)))
    };
    html! {
        @if !moments.is_empty() {
            section {
                h3 { "Timeline" }
                table.timeline {
                    thead { tr {
                        th scope="col" { "Time (UTC)" } th scope="col" { "Phase" } th.num scope="col" { "Traffic" } th.num scope="col" { "Lasted" }
                    } }
                    tbody { @for (place, moment) in moments.iter().enumerate() {
                        tr {
                            td { (clock(moment.at.as_ref().map(|at| at.0))) }
                            td { (name(&moment.phase)) @if moment.iterations > 0 { ", iteration " (moment.iterations) } }
                            td.num { (moment.weight) " %" }
                            td.num { (lasted(place, moment).unwrap_or_default()) }
                        }
                    } }
                }
            }
        }
    }
}

/// The checks of a metric: chart, exact values, and the query.
pub fn measured(evidence: &RunEvidence, place: usize, metric: &Metric) -> Markup {
    let series = Series::of(evidence, place);
    html! {
        section.metric {
            h3 { (name(&metric.name)) span.dim { (bounds(metric)) } }
            div.plot { (chart(&series, metric)) }
            @if series.points.is_empty() { p.dim { "It was not measured." } } @else {
                details open {
                    summary { "Exact values" }
                    @if series.is_compared { (compared(&series)) } @else { (values(&series, metric)) }
                }
            }
            @if !metric.query.is_empty() {
                details {
                    summary { "Query to " (name(&metric.provider)) " at " (name(&metric.host)) }
                    pre { code { (cut(&metric.query, 4000)) } }
                }
            }
        }
    }
}

/// How to get the curve of the primary, if a metric has none.
fn unmeasured(site: &Site<'_>, release: &Release, evidence: &RunEvidence) -> Markup {
    let is_alone = |place: usize| {
        let series = Series::of(evidence, place);
        !series.is_compared && !series.points.is_empty()
    };
    let has_one = (0..evidence.metrics.len()).any(is_alone);
    let namespace = release.metadata.namespace.as_deref().unwrap_or_default();
    let canary = Named::new(namespace, &release.spec.canary);
    html! {
        @if let Some(Named { namespace, name }) = canary.filter(|_| has_one) {
            p.dim {
                "The primary was not measured where a chart has one curve: a threshold judges the canary alone. With this annotation, the operator also "
                "compares both versions in each built-in metric, and thresholds decide as before: "
                code { (site.typed.kubectl) " -n " (namespace) " annotate canary " (name) " " (ANNOTATION) "=observe" }
                ". Any other metric needs the fields " code { "compare" } " and " code { "counts" } "."
            }
        }
    }
}

/// The values that pass, and the window of the query.
fn bounds(metric: &Metric) -> String {
    let bound = |word: &str, bound: Option<f64>| {
        Some(format!("{word} {}", with_unit(bound?, &metric.unit)))
    };
    let window = (!metric.window.is_empty()).then(|| format!("over {}", cut(&metric.window, 20)));
    let parts = [
        bound("at least", metric.min),
        bound("at most", metric.max),
        window,
    ];
    let parts: Vec<_> = parts.into_iter().flatten().collect();
    match parts.join(", ") {
        parts if parts.is_empty() => parts,
        parts => format!(" {parts}"),
    }
}

fn values(series: &Series, metric: &Metric) -> Markup {
    let unit = unit(series, metric);
    html! {
        table.values.stack {
            thead { tr {
                th scope="col" { "Time (UTC)" } th.num scope="col" { "Traffic" } th.num scope="col" { "Value" } th scope="col" { "Verdict" }
            } }
            tbody { @for point in &series.points {
                tr {
                    td { (clock(point.at)) }
                    td.num data-label="traffic" { (point.weight) " %" }
                    td.num data-label="value" { @match point.canary { Some(value) => (with_unit(value, &unit)), None => "no value" } }
                    td { (verdict(point)) }
                }
            } }
        }
    }
}

fn compared(series: &Series) -> Markup {
    let percent =
        |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |it| format!("{} %", number(it)));
    html! {
        table.values.stack {
            caption.dim { "Bad requests of all requests since the begin of the run; the percentages are those of the step." }
            thead { tr {
                th scope="col" { "Time (UTC)" } th.num scope="col" { "Traffic" } th.num.wide scope="col" { "Measured" }
                th.num scope="col" { "Canary" } th.num scope="col" { "Primary" } th.num.wide scope="col" { "e-value" } th scope="col" { "Verdict" }
            } }
            tbody { @for point in &series.points {
                @let counts = point.measured.comparison.clone().unwrap_or_default();
                tr {
                    td { (clock(point.at)) }
                    td.num data-label="traffic" { (point.weight) " %" }
                    td.num.wide { (percent(point.share)) }
                    td.num data-label="canary" { (number(counts.bad)) "/" (number(counts.requests)) " " span.dim { (percent(point.canary)) } }
                    td.num data-label="primary" { (number(counts.primary_bad)) "/" (number(counts.primary_requests)) " " span.dim { (percent(point.primary)) } }
                    td.num.wide { (number(counts.evidence.exp())) }
                    td { (verdict(point)) }
                }
            } }
        }
    }
}

fn verdict(point: &Point) -> Markup {
    html! {
        @match (&point.measured.failure, &point.measured.comparison) {
            (Some(why), None) => { (marks::chip("bad", "✗", "failed")) " " (sentence(why)) }
            (failure, Some(compared)) => {
                @let (class, sign) = if failure.is_some() { ("bad", "✗") } else { ("idle", "·") };
                (marks::chip(class, sign, &cut(&compared.state, NAME))) " " (sentence(&compared.detail))
            }
            (None, None) => (marks::chip("good", "✓", "passed")),
        }
    }
}

/// The calls of webhooks.
pub fn hooks(calls: &[HookCall]) -> Markup {
    let has_passed = |call: &HookCall| call.status.is_some_and(|status| status < 300);
    html! {
        @if !calls.is_empty() {
            section {
                h3 { "Calls of webhooks" }
                table.hooks.stack {
                    thead { tr {
                        th scope="col" { "Time (UTC)" } th scope="col" { "Webhook" } th.wide scope="col" { "Host" } th scope="col" { "Answer" }
                    } }
                    tbody { @for call in newest(calls, ROWS) {
                        tr {
                            td { (clock(call.at.as_ref().map(|at| at.0))) }
                            td { (name(&call.name)) span.dim { " " (name(&call.kind)) } }
                            td.wide { (name(&call.host)) }
                            td {
                                @if has_passed(call) { (marks::chip("good", "✓", "passed")) } @else { (marks::chip("bad", "✗", "not passed")) }
                                " " @match call.status { Some(status) => (status), None => "no answer" } " " (sentence(&call.answer))
                            }
                        }
                    } }
                }
            }
        }
    }
}
