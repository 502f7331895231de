//! A chart of one metric as SVG: the curves of the canary and the primary, the thresholds, and the weights as bands.

use jiff::Timestamp;
use maud::{Markup, html};

use super::{
    series::{Point, Series},
    text::{NAME, cut, number, with_unit},
};
use crate::api::{percent::Percent, release::Metric};

/// Positions across are in percent of the plot, and those down are in pixels: so the chart fits each screen, and its texts keep their size.
/// The style sheet has the margins and the height.
const HEIGHT: f64 = 220.0;
const TOP: f64 = 24.0;
const BOTTOM: f64 = HEIGHT - 26.0;
/// The first and the last point are not on the border.
const FIRST: f64 = 2.5;
const LAST: f64 = 98.75;
/// A band that is narrower has no text, or none on a narrow screen.
const NARROW: f64 = 5.5;
const NARROW_ON_PHONES: f64 = 14.0;

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
            return 50.0;
        }
        let part = at.duration_since(self.first).as_secs_f64() / self.seconds;
        FIRST + part.clamp(0.0, 1.0) * (LAST - FIRST)
    }

    fn y(&self, value: f64) -> f64 {
        let part = (value - self.low) / (self.high - self.low);
        BOTTOM - part.clamp(0.0, 1.0) * (BOTTOM - TOP)
    }

    /// The round numbers of the axis: up to six multiples of 1, 2 or 5 of a power of ten.
    fn ticks(&self) -> Vec<f64> {
        let least = (self.high - self.low) / 5.0;
        let power = 10_f64.powf(least.log10().floor());
        let step = match least / power {
            times if times <= 1.0 => power,
            times if times <= 2.0 => 2.0 * power,
            times if times <= 5.0 => 5.0 * power,
            _ => 10.0 * power,
        };
        let first = (self.low / step).ceil();
        // Without the second addition, zero could be -0.
        let ticks = (0..6).map(|n| (first + f64::from(n)) * step + 0.0);
        ticks.filter(|tick| *tick <= self.high).collect()
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

/// A position down.
fn at(pixels: f64) -> String {
    format!("{pixels:.1}")
}

/// A position across.
fn across(percent: f64) -> String {
    format!("{percent:.1}%")
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
        svg.chart role="img" aria-label=(label) {
            (bands(&scale, series))
            line.grid x1="0" x2="100%" y1=(at(BOTTOM)) y2=(at(BOTTOM)) {}
            @for tick in scale.ticks() {
                line.grid x1="0" x2="100%" y1=(at(scale.y(tick))) y2=(at(scale.y(tick))) {}
                text.tick x="-6" y=(at(scale.y(tick) + 4.0)) text-anchor="end" { (number(tick)) }
            }
            @for (word, bound) in thresholds(series, metric) {
                line.threshold x1="0" x2="100%" y1=(at(scale.y(bound))) y2=(at(scale.y(bound))) {}
                text.threshold x="100%" y=(at(scale.y(bound) - 4.0)) text-anchor="end" { (word) " " (with_unit(bound, &unit)) }
            }
            (curve(&scale, series, &unit, Version::Primary))
            (curve(&scale, series, &unit, Version::Canary))
            @for (time, anchor) in [(Some(scale.first), "start"), (last, "end")] {
                @if let Some(time) = time.filter(|_| scale.seconds > 0.0 || anchor == "start") {
                    text.tick x=(across(scale.x(time))) y=(at(HEIGHT - 8.0)) text-anchor=(anchor) { (time.strftime("%H:%M:%S").to_string()) }
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
    let mut bands: Vec<(Percent, f64, f64)> = Vec::new();
    let mut from = 0.0;
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
            rect class=(if place % 2 == 0 { "band even" } else { "band odd" }) x=(across(*from)) y=(at(TOP)) width=(across(to - from)) height=(at(BOTTOM - TOP)) {}
            @if to - from >= NARROW {
                text.tick.wide[to - from < NARROW_ON_PHONES] x=(across(f64::midpoint(*from, *to))) y=(at(TOP - 8.0)) text-anchor="middle" { (weight) " %" }
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

/// The values of one version: lines, and a point with a title for each value. A step without a value interrupts the lines.
fn curve(scale: &Scale, series: &Series, unit: &str, version: Version) -> Markup {
    let place = |point: &Point| {
        let (time, value) = point.at.zip(version.of(point))?;
        Some((across(scale.x(time)), at(scale.y(value)), value))
    };
    let places: Vec<_> = series.points.iter().map(place).collect();
    html! {
        @for pair in places.windows(2) {
            @if let [Some((x1, y1, _)), Some((x2, y2, _))] = pair {
                line class={ "curve " (version.as_str()) } x1=(x1) y1=(y1) x2=(x2) y2=(y2) {}
            }
        }
        @for (point, place) in series.points.iter().zip(&places) {
            @if let Some((x, y, value)) = place { (mark(version, point, (x, y), &with_unit(*value, unit))) }
        }
    }
}

/// The point of a value. A failed one has another form, not only another color.
fn mark(version: Version, point: &Point, (x, y): (&str, &str), value: &str) -> Markup {
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
        // A picture in the picture can be placed in percent and drawn in pixels.
        @if has_failed {
            svg.mark.bad x=(x) y=(y) { path d="M-5 -5l10 10m0 -10l-10 10" { title { (title) } } }
        } @else if version == Version::Primary {
            svg.mark.primary x=(x) y=(y) { rect x="-3" y="-3" width="6" height="6" { title { (title) } } }
        } @else {
            circle.mark.canary cx=(x) cy=(y) r="3.5" { title { (title) } }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_has_a_few_round_numbers() {
        let ticks = |low, high| {
            let scale = Scale {
                first: Timestamp::UNIX_EPOCH,
                seconds: 1.0,
                low,
                high,
            };
            scale.ticks().into_iter().map(number).collect::<Vec<_>>()
        };
        assert_eq!(ticks(64.64, 867.36), ["200", "400", "600", "800"]);
        assert_eq!(ticks(0.0, 1.072), ["0", "0.5", "1"]);
        assert_eq!(ticks(98.7, 100.1), ["99", "99.5", "100"]);
        assert_eq!(ticks(-3.0, 9.0), ["0", "5"]);
        assert!(ticks(1e300, 2e300).len() <= 6);
        // So near to each other that no number is between them.
        assert!(ticks(1.0, 1.0 + f64::EPSILON).len() <= 6);
        assert!(ticks(0.0, f64::MIN_POSITIVE / 1e10).len() <= 6);
    }
}
