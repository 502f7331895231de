//! The counters of each of the primary's pods, minute by minute: the history that `flagger backtest` replays.

use std::collections::BTreeMap;

use jiff::SignedDuration;

use super::{
    BUCKET, BY_BOUND, Counted, Counter, PART, POD, TimeSeries, is_at, named, pattern, pod,
    reporters::Reported,
};

/// The counters of a pod at one instant.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tally {
    /// All requests.
    pub all: f64,
    /// The requests that are bad by each criterion: failed, or slower than a bound. The bounds ascend, so these numbers do not.
    pub bad: Vec<f64>,
}

/// Counters by the time in seconds, then by the pod. The counters of a gateway, or of a waypoint, are those of one pod without
/// a name.
pub type Minutes = BTreeMap<i64, BTreeMap<String, Tally>>;

/// One counter by time and pod.
type Points = BTreeMap<(i64, String), f64>;

impl Counted {
    /// The query for the requests of each of the primary's pods in each minute of an hour.
    pub fn pod_errors(&self) -> String {
        let of = |what: &str, counter: &Counter| named(what, &counter.sum(&POD, 0));
        let (all, part) = (&self.primary.all, &self.primary.part);
        format!("({} or {})[1h:1m]", of("all", all), of(self.part, part))
    }

    /// The same for the buckets of durations with these bounds.
    pub fn pod_durations(&self, bounds: &[f64]) -> String {
        let bounds: Vec<_> = bounds.iter().map(|bound| pattern(*bound)).collect();
        let bounds = bounds.join("|");
        let buckets = self.primary.buckets.iter().map(|(name, selector)| {
            let series = format!("{name}{{{selector}, le=~\"{bounds}|[+]Inf\"}}");
            let counter = named(BUCKET, &Counter::Selector(series).sum(&BY_BOUND, 0));
            format!("({counter})[1h:1m]")
        });
        buckets.collect()
    }

    /// The counters in the answer to [`Counted::pod_errors`].
    pub fn read_pod_errors(&self, samples: &[TimeSeries]) -> Minutes {
        let reported = Reported::of(samples, &["all"]);
        let of = |part: &str| {
            let is_it = |it: &TimeSeries| it.labels.get(PART).is_some_and(|it| it == part);
            self.points(&reported, is_it)
        };
        minutes(&of("all"), &[of(self.part)], |all, part| {
            self.bad(all, part)
        })
    }

    /// The counters in the answer to [`Counted::pod_durations`].
    pub fn read_pod_durations(&self, samples: &[TimeSeries], bounds: &[f64]) -> Minutes {
        let reported = Reported::of(samples, &[BUCKET]);
        let at = |bound: f64| self.points(&reported, |it| is_at(it, bound));
        let fast: Vec<_> = bounds.iter().map(|bound| at(*bound)).collect();
        minutes(&at(f64::INFINITY), &fast, |all, fast| all - fast)
    }

    fn points(&self, reported: &Reported<'_>, is_it: impl Fn(&TimeSeries) -> bool) -> Points {
        let mut points = Points::new();
        for sample in reported.samples.iter().filter(|it| is_it(it)) {
            let pod = if self.counts_pods && !reported.by_others {
                pod(sample)
            } else {
                String::new()
            };
            for (time, value) in &sample.points {
                if let Ok(time) = SignedDuration::try_from_secs_f64(*time) {
                    *points.entry((time.as_secs(), pod.clone())).or_default() += value;
                }
            }
        }
        points
    }
}

fn minutes(all: &Points, parts: &[Points], bad: impl Fn(f64, f64) -> f64) -> Minutes {
    let mut minutes = Minutes::new();
    for (at, all) in all {
        // A pod without such a request has no series of them.
        let part = |points: &Points| points.get(at).copied().unwrap_or(0.0);
        let bad = parts.iter().map(|points| bad(*all, part(points)).max(0.0));
        let tally = Tally {
            all: *all,
            bad: bad.collect(),
        };
        let (time, pod) = at;
        let pods = minutes.entry(*time).or_default();
        pods.insert(pod.clone(), tally);
    }
    minutes
}
