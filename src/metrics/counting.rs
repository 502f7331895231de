//! Counts of requests of both versions, for their comparison.
//!
//! `rate` and `increase` of Prometheus are not used: they extrapolate to the ends of the window, and lose the first value of a new pod. One
//! query asks for the raw counters at two instants, the end of the last window and now, so nothing has to be remembered between two steps
//! but the first of these instants.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::{
    TimeSeries,
    observer::{Observer, Series},
    template::Model,
};
use crate::comparison::{Arms, Counts, Readings, counters::Reading};

/// The instants lie this far in the past, so that all pods have been scraped since.
pub const LAG: SignedDuration = SignedDuration::from_secs(15);
/// A counter keeps its last value for this long. It bridges scrapes that fail, and has the last requests of a pod that has ended.
const LOOKBACK: &str = "5m";
/// The label that tells the parts of an answer apart.
const PART: &str = "flagger";
/// The labels of which the first that a series has names the pod.
const POD: [&str; 3] = ["pod", "kubernetes_pod_name", "instance"];

/// The version that a series is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Arm {
    Canary,
    Primary,
}

impl Arm {
    const ALL: [Self; 2] = [Self::Canary, Self::Primary];

    const fn word(self) -> &'static str {
        match self {
            Self::Canary => "canary",
            Self::Primary => "primary",
        }
    }
}

/// The Prometheus series of both versions.
#[derive(Clone, Debug)]
pub struct Counted {
    canary: Series,
    primary: Series,
    /// Whether the counters are those of the workload's pods, and not of a gateway's.
    pub counts_pods: bool,
}

impl Counted {
    /// The series of a canary; `None` if the observer has none that can be compared.
    pub fn of(observer: &dyn Observer, model: &Model, primary: &str) -> Option<Self> {
        let of_primary = observer.primary_series(model, primary)?;
        Some(Self {
            canary: observer.series(model),
            primary: of_primary,
            counts_pods: observer.counts_pods(),
        })
    }

    /// The counters of both versions, for people.
    pub fn described(&self) -> String {
        let of = |series: &Series| format!("{}{{{}}}", series.requests, series.selector);
        format!("{} against {}", of(&self.canary), of(&self.primary))
    }

    fn of_arm(&self, arm: Arm) -> &Series {
        match arm {
            Arm::Canary => &self.canary,
            Arm::Primary => &self.primary,
        }
    }

    /// The query for the requests of both versions that did not fail, and for all, `window` ago and now.
    pub fn errors(&self, window: SignedDuration) -> String {
        let parts = Arm::ALL.into_iter().flat_map(|arm| {
            let series = self.of_arm(arm);
            let of = move |what: &str, selector: &str| {
                let counter = format!("{}{{{selector}}}", series.requests);
                at_both(&format!("{} {what}", arm.word()), &counter, "", window)
            };
            let newest = newest_part(arm, &format!("{}{{{}}}", series.requests, series.selector));
            let parts = [of("all", &series.selector), of("good", &series.succeeded)];
            parts.into_iter().flatten().chain([newest])
        });
        parts.collect::<Vec<_>>().join(" or ")
    }

    /// The query for the requests of both versions that were not slower than these bounds, and for all, `window` ago and now.
    pub fn durations(
        &self,
        bounds: impl IntoIterator<Item = f64>,
        window: SignedDuration,
    ) -> String {
        let bounds: Vec<_> = bounds.into_iter().map(pattern).collect();
        let bounds = bounds.join("|");
        let parts = Arm::ALL.into_iter().flat_map(|arm| {
            let series = self.of_arm(arm);
            let selector = of_buckets(series);
            let counter = format!(
                "{}_bucket{{{selector}, le=~\"{bounds}|[+]Inf\"}}",
                series.durations
            );
            let newest = newest_part(arm, &counter);
            at_both(arm.word(), &counter, ", le", window)
                .into_iter()
                .chain([newest])
        });
        parts.collect::<Vec<_>>().join(" or ")
    }

    /// The query for the primary's requests in each minute of the hour before a run.
    pub fn error_history(&self) -> String {
        let of = |what: &str, selector: &str| {
            let counter = format!("{}{{{selector}}}", self.primary.requests);
            named(what, &format!("sum(last_over_time({counter}[{LOOKBACK}]))"))
        };
        let (all, good) = (
            of("all", &self.primary.selector),
            of("good", &self.primary.succeeded),
        );
        format!("({all} or {good})[1h:1m]")
    }

    /// The same for the buckets of durations.
    pub fn duration_history(&self) -> String {
        let (durations, selector) = (self.primary.durations, of_buckets(&self.primary));
        format!(
            "(sum by (le) (last_over_time({durations}_bucket{{{selector}}}[{LOOKBACK}])))[1h:1m]"
        )
    }
}

/// The labels of all buckets of durations. Traefik's counter of requests is the last bucket.
fn of_buckets(series: &Series) -> String {
    let selector = series.selector.replace(", le=\"+Inf\"", "");
    selector.trim_end_matches(',').to_owned()
}

/// The parts of a query about a counter, `window` ago and now.
fn at_both(part: &str, counter: &str, by: &str, window: SignedDuration) -> [String; 2] {
    let lag = LAG.as_secs();
    [("before", lag + window.as_secs().max(0)), ("now", lag)].map(|(when, offset)| {
        let pods = POD.join(", ");
        let sum =
            format!("sum by ({pods}{by}) (last_over_time({counter}[{LOOKBACK}] offset {offset}s))");
        named(&format!("{part} {when}"), &sum)
    })
}

/// The part with the time of the newest point.
fn newest_part(arm: Arm, counter: &str) -> String {
    let lag = LAG.as_secs();
    let time = format!("max(timestamp({counter} offset {lag}s))");
    named(&newest_of(arm), &time)
}

/// The series of an expression, with the name of a part.
fn named(part: &str, expression: &str) -> String {
    format!("label_replace({expression}, \"{PART}\", \"{part}\", \"\", \"\")")
}

/// The pattern of a bound in the label `le`, which newer versions of Prometheus write with a decimal point.
fn pattern(bound: f64) -> String {
    let text = bound.to_string().replace('.', "[.]");
    if text.contains('.') {
        text
    } else {
        format!("{text}([.]0)?")
    }
}

/// The values of the parts of an answer: by the part, and then by the pod.
type Parts<'a> = BTreeMap<&'a str, BTreeMap<String, f64>>;

fn parts<'a>(samples: impl Iterator<Item = &'a TimeSeries>) -> Parts<'a> {
    let mut parts = Parts::new();
    for sample in samples {
        if let (Some(part), Some((_, value))) = (sample.labels.get(PART), sample.points.last()) {
            let pods = parts.entry(part.as_str()).or_default();
            *pods.entry(pod(sample)).or_default() += value;
        }
    }
    parts
}

fn pod(sample: &TimeSeries) -> String {
    let labels = POD.iter().filter_map(|label| sample.labels.get(*label));
    labels
        .filter(|name| !name.is_empty())
        .next()
        .cloned()
        .unwrap_or_default()
}

/// The counters in the answer to [`Counted::errors`].
pub fn errors(samples: &[TimeSeries]) -> Arms {
    let parts = parts(samples.iter());
    let reading = |arm: Arm, when: &str| {
        let of = |what: &str| parts.get(format!("{} {what} {when}", arm.word()).as_str());
        reading(of("all"), of("good"))
    };
    arms(reading)
}

/// The counters in the answer to [`Counted::durations`], of the requests that were slower than a bound.
pub fn slower(samples: &[TimeSeries], bound: f64) -> Arms {
    let at = |le: f64| parts(samples.iter().filter(move |sample| is_at(sample, le)));
    let (fast, all) = (at(bound), at(f64::INFINITY));
    let reading = |arm: Arm, when: &str| {
        let part = format!("{} {when}", arm.word());
        reading(all.get(part.as_str()), fast.get(part.as_str()))
    };
    arms(reading)
}

fn arms(reading: impl Fn(Arm, &str) -> Reading) -> Arms {
    let readings = |arm| Readings {
        before: reading(arm, "before"),
        now: reading(arm, "now"),
    };
    Arms {
        canary: readings(Arm::Canary),
        primary: readings(Arm::Primary),
    }
}

/// The requests of each pod. A pod without a good request has no series of good ones.
fn reading(all: Option<&BTreeMap<String, f64>>, good: Option<&BTreeMap<String, f64>>) -> Reading {
    let good = |pod: &String| good.and_then(|good| good.get(pod)).copied();
    let counts = |(pod, all): (&String, &f64)| {
        let bad = (all - good(pod).unwrap_or(0.0)).max(0.0);
        Some((pod.clone(), Counts::new(*all, bad)?))
    };
    all.into_iter().flatten().filter_map(counts).collect()
}

/// Whether a bucket has this bound.
fn is_at(sample: &TimeSeries, bound: f64) -> bool {
    let le = sample
        .labels
        .get("le")
        .and_then(|le| le.parse::<f64>().ok());
    le.is_some_and(|le| le.total_cmp(&bound).is_eq())
}

/// The primary's requests of each minute, from the answer to [`Counted::error_history`]. Minutes in which a counter went back are left out.
pub fn error_blocks(samples: &[TimeSeries]) -> Vec<Counts> {
    let of = |part: &str| {
        let mut samples = samples.iter();
        samples.find(|sample| sample.labels.get(PART).is_some_and(|it| it == part))
    };
    of("all").map_or_else(Vec::new, |all| blocks(all, of("good")))
}

/// The same for each bound of durations, from the answer to [`Counted::duration_history`].
pub fn duration_blocks(samples: &[TimeSeries]) -> Vec<(f64, Vec<Counts>)> {
    let Some(all) = samples.iter().find(|sample| is_at(sample, f64::INFINITY)) else {
        return Vec::new();
    };
    let bound = |sample: &TimeSeries| sample.labels.get("le")?.parse::<f64>().ok();
    let mut bounds: Vec<_> = samples
        .iter()
        .filter_map(|sample| Some((bound(sample)?, sample)))
        .filter(|(bound, _)| bound.is_finite())
        .map(|(bound, sample)| (bound, blocks(all, Some(sample))))
        .collect();
    bounds.sort_by(|one, other| one.0.total_cmp(&other.0));
    bounds
}

/// The differences of two counters between each two points.
fn blocks(all: &TimeSeries, good: Option<&TimeSeries>) -> Vec<Counts> {
    let at = |time: f64| {
        let mut points = good.into_iter().flat_map(|good| &good.points);
        points
            .find(|point| point.0.total_cmp(&time).is_eq())
            .map_or(0.0, |point| point.1)
    };
    let block = |pair: &[(f64, f64)]| {
        let (all, good) = (pair[1].1 - pair[0].1, at(pair[1].0) - at(pair[0].0));
        Counts::new(all, all - good)
    };
    all.points.windows(2).filter_map(block).collect()
}

/// The time of the newest point of the version that has the older one; `None` if the answer does not have both.
pub fn newest(samples: &[TimeSeries]) -> Option<Timestamp> {
    let of = |arm: Arm| {
        let part = newest_of(arm);
        let is_it = |it: &&TimeSeries| it.labels.get(PART) == Some(&part);
        let (_, time) = samples.iter().find(is_it)?.points.last()?;
        Timestamp::from_duration(SignedDuration::try_from_secs_f64(*time).ok()?).ok()
    };
    let [canary, primary] = Arm::ALL.map(of);
    Some(canary?.min(primary?))
}

fn newest_of(arm: Arm) -> String {
    format!("{} newest", arm.word())
}

/// The instant at which counters are asked for, in whole seconds.
pub fn instant(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

#[cfg(test)]
mod tests;
