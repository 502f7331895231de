//! Counts of requests of both versions, for their comparison.
//!
//! `rate` and `increase` of Prometheus are not used: they extrapolate to the ends of the window, and lose the first value of a new pod. One
//! query asks for the raw counters at three instants: the start of the run, the end of the last window, and now. So only the first two
//! instants must be kept between two steps.

pub mod minutes;
mod reporters;

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::{
    TimeSeries,
    observer::{Observer, Series},
    template::Model,
};
use crate::comparison::{Arms, Counts, Measure, Readings, counters::Reading};
use reporters::{PART, REPORTER, Reported};

/// All instants are moved this far into the past, because Prometheus scrapes pods only at intervals.
pub const LAG: SignedDuration = SignedDuration::from_secs(15);
/// The last value of a counter counts for this long. This covers failed scrapes and the last requests of a pod that has ended.
const LOOKBACK: &str = "5m";
/// The resolution at which a user's query is evaluated.
const RESOLUTION: &str = "15s";
/// The words for the requests that did not fail, and for those that did.
const GOOD: &str = "good";
const BAD: &str = "bad";
const BUCKET: &str = "bucket";
/// The labels that may have the name of the pod. The first one that a series has is used.
const POD: [&str; 3] = ["pod", "kubernetes_pod_name", "instance"];
/// The label with the bound of a bucket, and the labels of the buckets of pods.
const BOUND: &str = "le";
const BY_BOUND: [&str; 4] = [POD[0], POD[1], POD[2], BOUND];

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

/// A counter: a selector of series, or any query that returns counters.
#[derive(Clone, Debug)]
enum Counter {
    Selector(String),
    Query(String),
}

impl Counter {
    /// The query for the values that many seconds ago.
    fn ago(&self, offset: i64) -> String {
        match self {
            Self::Selector(series) => {
                format!("last_over_time({series}[{LOOKBACK}] offset {offset}s)")
            }
            Self::Query(query) => {
                format!("last_over_time(({query})[{LOOKBACK}:{RESOLUTION}] offset {offset}s)")
            }
        }
    }

    /// The query for the time of the newest point; `None` for a user's query, whose evaluation hides the times of its points.
    fn newest(&self) -> Option<String> {
        let lag = LAG.as_secs();
        match self {
            Self::Selector(series) => Some(format!("max(timestamp({series} offset {lag}s))")),
            Self::Query(_) => None,
        }
    }

    /// The query for the sums of the values that many seconds ago, by these labels, and by the reporter. A user's query decides itself
    /// whose reports it counts.
    fn sum(&self, by: &[&str], offset: i64) -> String {
        let reporter = match self {
            Self::Selector(_) => [REPORTER].as_slice(),
            Self::Query(_) => &[],
        };
        let by = [by, reporter].concat().join(", ");
        format!("sum by ({by}) ({})", self.ago(offset))
    }

    fn text(&self) -> &str {
        match self {
            Self::Selector(text) | Self::Query(text) => text,
        }
    }
}

/// The counters of one version.
#[derive(Clone, Debug)]
struct Counters {
    all: Counter,
    /// The good requests, or the bad ones.
    part: Counter,
    /// The buckets of durations: the name of the series and its selector.
    buckets: Option<(String, String)>,
}

/// The counters of both versions.
#[derive(Clone, Debug)]
pub struct Counted {
    canary: Counters,
    primary: Counters,
    /// The word for the part of all requests that is counted.
    part: &'static str,
    /// Whether the counters are those of the workload's pods, and not of a gateway's, unless other proxies of Istio report them.
    pub counts_pods: bool,
}

impl Counted {
    /// The counters of a canary, whose primary has this name.
    pub fn of(observer: &dyn Observer, model: &Model, primary: &str) -> Self {
        let of = |model: &Model| counters(observer, &observer.counted(model));
        Self {
            canary: of(model),
            primary: of(&model.of_primary(primary)),
            part: GOOD,
            counts_pods: observer.named().counts_pods(),
        }
    }

    /// The counters that a user's queries return: of all requests, and of the bad ones.
    pub fn of_queries(canary: (String, String), primary: (String, String)) -> Self {
        let counters = |(all, bad)| Counters {
            all: Counter::Query(all),
            part: Counter::Query(bad),
            buckets: None,
        };
        Self {
            canary: counters(canary),
            primary: counters(primary),
            part: BAD,
            counts_pods: true,
        }
    }

    /// The counters of the requests of the canary, and of the primary.
    pub fn counters(&self) -> [&str; 2] {
        [&self.canary, &self.primary].map(|it| it.all.text())
    }

    fn of_arm(&self, arm: Arm) -> &Counters {
        match arm {
            Arm::Canary => &self.canary,
            Arm::Primary => &self.primary,
        }
    }

    /// The query for the requests of both versions.
    pub fn errors(&self, window: Window) -> String {
        let parts = Arm::ALL.into_iter().flat_map(|arm| {
            let counters = self.of_arm(arm);
            let of = move |what: &str, counter: &Counter| at_all(arm, what, counter, &POD, window);
            let parts = [of("all", &counters.all), of(self.part, &counters.part)];
            let newest = counters.all.newest();
            let newest = newest.map(|time| named(&newest_of(arm), &time));
            parts.into_iter().flatten().chain(newest)
        });
        parts.collect::<Vec<_>>().join(" or ")
    }

    /// The query for the requests of both versions that were not slower than these bounds, and for all.
    pub fn durations(&self, bounds: impl IntoIterator<Item = f64>, window: Window) -> String {
        let bounds: Vec<_> = bounds.into_iter().map(pattern).collect();
        let bounds = bounds.join("|");
        let parts = Arm::ALL.into_iter().flat_map(|arm| {
            let buckets = self.of_arm(arm).buckets.iter();
            let bounds = bounds.clone();
            buckets.flat_map(move |(name, selector)| {
                let series = format!("{name}{{{selector}, le=~\"{bounds}|[+]Inf\"}}");
                let counter = Counter::Selector(series);
                let newest = counter.newest();
                let newest = newest.map(|time| named(&newest_of(arm), &time));
                let all = at_all(arm, BUCKET, &counter, &BY_BOUND, window);
                all.into_iter().chain(newest)
            })
        });
        parts.collect::<Vec<_>>().join(" or ")
    }

    /// The query for the primary's requests of the hour before a run, from which a test of this kind begins.
    pub fn history(&self, measure: Measure) -> String {
        match measure {
            Measure::Errors => self.error_history(),
            Measure::Latency => self.duration_history(),
        }
    }

    /// The primary's requests in the answer to [`Counted::history`]. Of durations, none is bad without a bound.
    pub fn read_history(&self, measure: Measure, samples: &[TimeSeries]) -> Counts {
        let blocks = match measure {
            Measure::Errors => self.read_error_history(samples),
            Measure::Latency => {
                let bounds = duration_blocks(samples);
                let all = bounds.into_iter().next().map(|(_, blocks)| blocks);
                let count = |block: &Counts| Counts::new(block.all(), 0.0).unwrap_or_default();
                all.unwrap_or_default().iter().map(count).collect()
            }
        };
        blocks.into_iter().fold(Counts::NONE, Counts::and)
    }

    /// The query for the primary's requests in each minute of the hour before a run.
    pub fn error_history(&self) -> String {
        let of = |what: &str, counter: &Counter| named(what, &counter.sum(&[], 0));
        let (all, part) = (&self.primary.all, &self.primary.part);
        format!("({} or {})[1h:1m]", of("all", all), of(self.part, part))
    }

    /// The query for the buckets of durations of the primary's requests in each minute of the hour before a run.
    pub fn duration_history(&self) -> String {
        let buckets = self.primary.buckets.iter().map(|(name, selector)| {
            let counter = Counter::Selector(format!("{name}{{{selector}}}"));
            format!("({})[1h:1m]", counter.sum(&[BOUND], 0))
        });
        buckets.collect()
    }

    /// The counters in the answer to [`Counted::errors`].
    pub fn read_errors(&self, samples: &[TimeSeries]) -> Arms {
        let reported = of_versions(samples, "all");
        let parts = parts(reported.samples.iter().copied());
        let reading = |arm: Arm, when: &str| {
            let of = |what: &str| parts.get(part(arm, what, when).as_str());
            reading(of("all"), of(self.part), |all, part| self.bad(all, part))
        };
        self.arms(&reported, reading)
    }

    /// The counters in the answer to [`Counted::durations`], of the requests that were slower than a bound.
    pub fn slower(&self, samples: &[TimeSeries], bound: f64) -> Arms {
        let reported = of_versions(samples, BUCKET);
        let at = |le: f64| {
            let samples = reported.samples.iter().copied();
            parts(samples.filter(move |sample| is_at(sample, le)))
        };
        let (fast, all) = (at(bound), at(f64::INFINITY));
        let reading = |arm: Arm, when: &str| {
            let part = part(arm, BUCKET, when);
            let (all, fast) = (all.get(part.as_str()), fast.get(part.as_str()));
            reading(all, fast, |all, fast| all - fast)
        };
        self.arms(&reported, reading)
    }

    fn arms(&self, reported: &Reported<'_>, reading: impl Fn(Arm, &str) -> Reading) -> Arms {
        let readings = |arm| Readings {
            start: reading(arm, "start"),
            before: reading(arm, "before"),
            now: reading(arm, "now"),
        };
        Arms {
            canary: readings(Arm::Canary),
            primary: readings(Arm::Primary),
            counts_pods: self.counts_pods && !reported.by_others,
        }
    }

    /// The primary's requests of each minute, from the answer to [`Counted::error_history`]. Minutes in which a counter decreased are left
    /// out.
    pub fn read_error_history(&self, samples: &[TimeSeries]) -> Vec<Counts> {
        let samples = Reported::of(samples, &["all"]).samples;
        let of = |part: &str| {
            let mut samples = samples.iter().copied();
            samples.find(|sample| sample.labels.get(PART).is_some_and(|it| it == part))
        };
        of("all").map_or_else(Vec::new, |all| {
            blocks(all, of(self.part), |all, part| self.bad(all, part))
        })
    }

    fn bad(&self, all: f64, part: f64) -> f64 {
        if self.part == BAD { part } else { all - part }
    }
}

fn counters(observer: &dyn Observer, series: &Series) -> Counters {
    let of = |selector: &str| Counter::Selector(format!("{}{{{selector}}}", series.requests));
    Counters {
        all: of(&series.selector),
        part: of(&series.succeeded),
        buckets: Some((
            format!("{}_bucket", series.durations),
            observer.buckets(series),
        )),
    }
}

/// The instants at which counters are read, each as the time since then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The end of the last window.
    pub before: SignedDuration,
    /// The start of the run.
    pub start: SignedDuration,
}

impl Window {
    /// The word and the offset of each instant. The first instant of the primary is an hour before the start of the run.
    fn instants(self, arm: Arm) -> [(&'static str, i64); 3] {
        let hour = match arm {
            Arm::Canary => SignedDuration::ZERO,
            Arm::Primary => SignedDuration::from_hours(1),
        };
        let ago = |time: SignedDuration| (LAG + time.max(SignedDuration::ZERO)).as_secs();
        [
            ("start", ago(self.start + hour)),
            ("before", ago(self.before)),
            ("now", ago(SignedDuration::ZERO)),
        ]
    }
}

/// The parts of a query about a counter of a version, at all instants.
fn at_all(arm: Arm, what: &str, counter: &Counter, by: &[&str], window: Window) -> [String; 3] {
    window
        .instants(arm)
        .map(|(when, offset)| named(&part(arm, what, when), &counter.sum(by, offset)))
}

/// The name of a part.
fn part(arm: Arm, what: &str, when: &str) -> String {
    format!("{} {what} {when}", arm.word())
}

/// The series of an expression, with the name of a part.
fn named(part: &str, expression: &str) -> String {
    format!("label_replace({expression}, \"{PART}\", \"{part}\", \"\", \"\")")
}

/// The pattern of a bound in the label `le`. Go writes large and small numbers with an exponent, and newer versions of Prometheus add a
/// decimal point to whole numbers.
fn pattern(bound: f64) -> String {
    let decimal = bound.to_string().replace('.', "[.]");
    let whole = if decimal.contains('.') { "" } else { "([.]0)?" };
    let exponent = format!("{bound:e}").replace('.', "[.]");
    let (digits, power) = exponent.split_once('e').unwrap_or((&exponent, "0"));
    let (sign, power) = power
        .strip_prefix('-')
        .map_or(("[+]", power), |power| ("-", power));
    format!("{decimal}{whole}|{digits}e{sign}{power:0>2}")
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
    let mut labels = POD.iter().filter_map(|label| sample.labels.get(*label));
    let name = labels.find(|name| !name.is_empty());
    name.cloned().unwrap_or_default()
}

/// The samples by the reporter that has the counters of both versions now.
fn of_versions<'a>(samples: &'a [TimeSeries], what: &str) -> Reported<'a> {
    let now = Arm::ALL.map(|arm| part(arm, what, "now"));
    Reported::of(samples, &now.each_ref().map(String::as_str))
}

/// The requests of each pod. `bad` computes the bad ones from all requests and the counted part. A pod without requests of that part has no
/// series for it, and the part counts as 0.
fn reading(
    all: Option<&BTreeMap<String, f64>>,
    part: Option<&BTreeMap<String, f64>>,
    bad: impl Fn(f64, f64) -> f64,
) -> Reading {
    let part = |pod: &String| part.and_then(|part| part.get(pod)).copied().unwrap_or(0.0);
    let counts = |(pod, all): (&String, &f64)| {
        let bad = bad(*all, part(pod)).max(0.0);
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

/// The primary's requests of each minute, for each bound of durations, from the answer to [`Counted::duration_history`].
pub fn duration_blocks(samples: &[TimeSeries]) -> Vec<(f64, Vec<Counts>)> {
    let samples = Reported::of(samples, &[""]).samples;
    let mut totals = samples.iter().copied();
    let Some(all) = totals.find(|sample| is_at(sample, f64::INFINITY)) else {
        return Vec::new();
    };
    let bound = |sample: &TimeSeries| sample.labels.get("le")?.parse::<f64>().ok();
    let mut bounds: Vec<_> = samples
        .into_iter()
        .filter_map(|sample| Some((bound(sample)?, sample)))
        .filter(|(bound, _)| bound.is_finite())
        .map(|(bound, sample)| (bound, blocks(all, Some(sample), |all, fast| all - fast)))
        .collect();
    bounds.sort_by(|one, other| one.0.total_cmp(&other.0));
    bounds
}

/// The requests between each two points. `bad` computes the bad ones from the increments of both counters.
fn blocks(
    all: &TimeSeries,
    part: Option<&TimeSeries>,
    bad: impl Fn(f64, f64) -> f64,
) -> Vec<Counts> {
    let at = |time: f64| {
        let mut points = part.into_iter().flat_map(|part| &part.points);
        points
            .find(|point| point.0.total_cmp(&time).is_eq())
            .map_or(0.0, |point| point.1)
    };
    let block = |pair: &[(f64, f64)]| {
        let (all, part) = (pair[1].1 - pair[0].1, at(pair[1].0) - at(pair[0].0));
        Counts::new(all, bad(all, part))
    };
    all.points.windows(2).filter_map(block).collect()
}

/// Whether a bound of the histogram is this number of milliseconds.
pub fn is_bound(bound: f64, unit_millis: f64, millis: Option<f64>) -> bool {
    Some((bound * unit_millis).round()) == millis
}

/// The older one of the times of both versions' newest points; `None` if the answer does not have both.
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

/// The instant at which counters are read, in whole seconds.
pub fn instant(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

#[cfg(test)]
mod tests;
