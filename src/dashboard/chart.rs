//! A chart of one metric as SVG: the curves of the canary and the primary, the thresholds, and the weights as bands.

use std::fmt::Write;

use jiff::Timestamp;
use maud::{Markup, html};

use super::{
    series::{Point, Series},
    text::{NAME, cut, number, with_unit},
};
use crate::api::release::Metric;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 220.0;
/// The plot without the margins for the axes.
const LEFT: f64 = 64.0;
const RIGHT: f64 = WIDTH - 12.0;
const TOP: f64 = 24.0;
const BOTTOM: f64 = HEIGHT - 26.0;
/// A band that is narrower has no text.
const NARROW: f64 = 34.0;

/// Places values on the plot.
struct Scale {
    first: Timestamp,
    seconds: f64,
    low: f64,
    high: f64,
}

impl Scale {
    /// `None` without a point.
    fn of(series: &Series, metric: &Metric) -> Option<Self> {
        let times = series.points.iter().filter_map(|point| point.at);
        let (first, last) = (times.clone().min()?, times.max()?);
        let values = series.points.iter().flat_map(|it| [it.canary, it.primary]);
        let values: Vec<f64> = values.flatten().filter(|it| it.is_finite()).collect();
        if values.is_empty() {
            return None;
        }
        let bounds = thresholds(series, metric);
        let all = values.iter().copied().chain(bounds.iter().map(|it| it.1));
        let (low, high) = all.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
            (low.min(value), high.max(value))
        });
        let margin = match high - low {
            height if height > 0.0 => height * 0.08,
            _ => (high.abs() * 0.1).max(1.0),
        };
        // A value that cannot be negative has an axis that is not, either.
        let bottom = if low >= 0.0 {
            (low - margin).max(0.0)
        } else {
            low - margin
        };
        let scale = Self {
            first,
            seconds: last.duration_since(first).as_secs_f64(),
            low: bottom,
            high: high + margin,
        };
        (scale.high - scale.low).is_finite().then_some(scale)
    }

    fn x(&self, at: Timestamp) -> f64 {
        if self.seconds <= 0.0 {
            return f64::midpoint(LEFT, RIGHT);
        }
        let part = at.duration_since(self.first).as_secs_f64() / self.seconds;
        // The first point is not on the axis.
        let left = LEFT + 16.0;
        left + part.clamp(0.0, 1.0) * (RIGHT - 8.0 - left)
    }

    fn y(&self, value: f64) -> f64 {
        let part = (value - self.low) / (self.high - self.low);
        BOTTOM - part.clamp(0.0, 1.0) * (BOTTOM - TOP)
    }
}

/// The thresholds of a metric, each with its word. They do not apply to a comparison.
fn thresholds(series: &Series, metric: &Metric) -> Vec<(&'static str, f64)> {
    if series.is_compared {
        return Vec::new();
    }
    let bounds = [("at least", metric.min), ("at most", metric.max)];
    let known = bounds
        .into_iter()
        .filter_map(|(word, bound)| Some((word, bound?)));
    known.filter(|(_, bound)| bound.is_finite()).collect()
}

/// A position with one decimal.
fn at(position: f64) -> String {
    format!("{position:.1}")
}

/// The chart; nothing if there is no value.
pub fn chart(series: &Series, metric: &Metric) -> Markup {
    let Some(scale) = Scale::of(series, metric) else {
        return html! {};
    };
    let unit = unit(series, metric);
    let last = series.points.iter().filter_map(|point| point.at).max();
    let label = format!("{}: the values of each step", cut(&metric.name, NAME));
    html! {
        svg.chart viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img" aria-label=(label) {
            (bands(&scale, series))
            @for tick in [scale.low, f64::midpoint(scale.low, scale.high), scale.high] {
                line.grid x1=(at(LEFT)) x2=(at(RIGHT)) y1=(at(scale.y(tick))) y2=(at(scale.y(tick))) {}
                text.tick x=(at(LEFT - 6.0)) y=(at(scale.y(tick) + 4.0)) text-anchor="end" { (number(tick)) }
            }
            @for (word, bound) in thresholds(series, metric) {
                line.threshold x1=(at(LEFT)) x2=(at(RIGHT)) y1=(at(scale.y(bound))) y2=(at(scale.y(bound))) {}
                text.threshold x=(at(RIGHT)) y=(at(scale.y(bound) - 4.0)) text-anchor="end" { (word) " " (with_unit(bound, &unit)) }
            }
            (curve(&scale, series, &unit, Version::Primary))
            (curve(&scale, series, &unit, Version::Canary))
            @for (time, anchor) in [(Some(scale.first), "start"), (last, "end")] {
                @if let Some(time) = time.filter(|_| scale.seconds > 0.0 || anchor == "start") {
                    text.tick x=(at(scale.x(time))) y=(at(HEIGHT - 8.0)) text-anchor=(anchor) { (time.strftime("%H:%M:%S").to_string()) }
                }
            }
        }
        p.legend {
            span.canary { span aria-hidden="true" { "●" } " canary" }
            @if series.is_compared { span.primary { span aria-hidden="true" { "■" } " primary" } }
            span.bad { span aria-hidden="true" { "✗" } " failed" }
            @if !thresholds(series, metric).is_empty() { span.threshold { span aria-hidden="true" { "╌" } " threshold" } }
            span.dim { "in " @if unit.is_empty() { "the unit of the query" } @else { (unit) } ", bands: traffic of the canary" }
        }
    }
}

/// The unit of the values of a chart.
pub fn unit(series: &Series, metric: &Metric) -> String {
    if series.is_compared {
        "% bad requests".to_owned()
    } else {
        cut(&metric.unit, 20)
    }
}

/// The weights as bands: each reaches from the end of the step before to the end of its own step.
fn bands(scale: &Scale, series: &Series) -> Markup {
    let mut bands: Vec<(i64, f64, f64)> = Vec::new();
    let mut from = LEFT;
    for point in &series.points {
        let Some(time) = point.at else { continue };
        let to = scale.x(time).max(from);
        match bands.last_mut() {
            Some((weight, _, end)) if *weight == point.weight => *end = to,
            _ => bands.push((point.weight, from, to)),
        }
        from = to;
    }
    html! {
        @for (place, (weight, from, to)) in bands.iter().enumerate() {
            rect class=(if place % 2 == 0 { "band even" } else { "band odd" }) x=(at(*from)) y=(at(TOP)) width=(at(to - from)) height=(at(BOTTOM - TOP)) {}
            @if to - from >= NARROW {
                text.tick x=(at(f64::midpoint(*from, *to))) y=(at(TOP - 8.0)) text-anchor="middle" { (weight) " %" }
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    Canary,
    Primary,
}

impl Version {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Canary => "canary",
            Self::Primary => "primary",
        }
    }

    const fn of(self, point: &Point) -> Option<f64> {
        match self {
            Self::Canary => point.canary,
            Self::Primary => point.primary,
        }
    }
}

/// The values of one version: a line, and a point with a title for each value.
fn curve(scale: &Scale, series: &Series, unit: &str, version: Version) -> Markup {
    let mut path = String::new();
    let mut is_gap = true;
    for point in &series.points {
        let Some((time, value)) = point.at.zip(version.of(point)) else {
            is_gap = true;
            continue;
        };
        let command = if is_gap { 'M' } else { 'L' };
        // Writing to a String cannot fail.
        let _ = write!(
            path,
            "{command}{} {}",
            at(scale.x(time)),
            at(scale.y(value))
        );
        is_gap = false;
    }
    html! {
        @if !path.is_empty() { path class={ "curve " (version.as_str()) } d=(path) {} }
        @for point in &series.points {
            @if let Some((time, value)) = point.at.zip(version.of(point)) {
                (mark(version, point, (scale.x(time), scale.y(value)), &with_unit(value, unit)))
            }
        }
    }
}

/// The point of a value. A failed one has another form, not only another color.
fn mark(version: Version, point: &Point, (x, y): (f64, f64), value: &str) -> Markup {
    let has_failed = version == Version::Canary && point.measured.failure.is_some();
    let time = point.at.map(|time| time.strftime("%H:%M:%S").to_string());
    let title = format!(
        "{} {}: {value}, traffic {} %{}",
        time.unwrap_or_default(),
        version.as_str(),
        point.weight,
        if has_failed { ", failed" } else { "" }
    );
    html! {
        @if has_failed {
            path.mark.bad d=(format!("M{} {}l10 10m0 -10l-10 10", at(x - 5.0), at(y - 5.0))) { title { (title) } }
        } @else if version == Version::Primary {
            rect.mark.primary x=(at(x - 3.0)) y=(at(y - 3.0)) width="6" height="6" { title { (title) } }
        } @else {
            circle.mark.canary cx=(at(x)) cy=(at(y)) r="3.5" { title { (title) } }
        }
    }
}
