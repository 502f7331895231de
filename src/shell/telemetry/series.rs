//! The series of each canary in `/metrics`. With thousands of canaries there are tens of thousands of series: they are kept as numbers
//! under one key for each canary, and become text only when Prometheus asks.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Write,
};

use prometheus::DEFAULT_BUCKETS;

use super::metric::{Metric, MetricKind};
use crate::api::percent::Percent;

/// State of the release.
pub const STATUS: Metric = Metric::new(
    "flagger_canary_status",
    MetricKind::Gauge,
    "Last canary analysis result",
)
.labels(&["name", "namespace"]);
/// Shares of traffic.
pub const WEIGHT: Metric = Metric::new(
    "flagger_canary_weight",
    MetricKind::Gauge,
    "The virtual service destination weight current value",
)
.labels(&["workload", "namespace"]);
/// Values of the metrics of the analysis.
pub const METRIC_ANALYSIS: Metric = Metric::new(
    "flagger_canary_metric_analysis",
    MetricKind::Gauge,
    "Last canary analysis result per metric",
)
.labels(&["metric", "name", "namespace"]);
/// Evidence of comparisons (not in Flagger).
pub const EVIDENCE: Metric = Metric::new(
    "flagger_rs_canary_comparison_evidence",
    MetricKind::Gauge,
    "Natural logarithm of the e-value against the hypothesis that the canary is no worse than the primary",
)
.labels(&["metric", "name", "namespace"]);
/// States of comparisons (not in Flagger).
pub const COMPARISON: Metric = Metric::new(
    "flagger_rs_canary_comparison_state",
    MetricKind::Gauge,
    "State of the comparison of a canary with its primary, with the value 1",
)
.labels(&["metric", "name", "namespace", "state"]);
/// Duration of the questions of a step.
pub const DURATION: Metric = Metric::new(
    "flagger_canary_duration_seconds",
    MetricKind::Histogram,
    "Seconds spent performing canary analysis.",
)
.labels(&["name", "namespace"]);
/// Runs that ended with a promotion.
pub const SUCCESSES: Metric = Metric::new(
    "flagger_canary_successes_total",
    MetricKind::Counter,
    "Total number of canary successes",
)
.labels(RUN_LABELS);
/// Runs that ended with a rollback.
pub const FAILURES: Metric = Metric::new(
    "flagger_canary_failures_total",
    MetricKind::Counter,
    "Total number of canary failures",
)
.labels(RUN_LABELS);

const RUN_LABELS: &[&str] = &[
    "name",
    "namespace",
    "deployment_strategy",
    "analysis_status",
];

/// The maximum number of deleted canaries whose counters and histograms are kept. Without it, environments that users create and delete
/// again and again would fill the memory.
const MAX_DELETED: usize = 256;

/// The namespace and the target of a canary.
type Name = (Box<str>, Box<str>);

/// The numbers of all canaries.
#[derive(Default)]
pub struct Series {
    numbers: BTreeMap<Name, Numbers>,
    /// The deleted canaries that have numbers; those that were deleted last are at the end.
    deleted: VecDeque<Name>,
}

/// The numbers of one canary.
#[derive(Default)]
pub struct Numbers {
    /// The state of its release.
    pub status: Option<u8>,
    /// The shares of the primary and of the canary.
    pub weights: Option<(Percent, Percent)>,
    samples: Vec<(Box<str>, f64)>,
    /// The state and the evidence of the comparison of each metric.
    comparisons: BTreeMap<Box<str>, (Box<str>, f64)>,
    durations: Option<Box<Durations>>,
    /// How many runs ended in each way.
    ended_runs: Vec<(RunEnd, u64)>,
    /// Whether the canary was deleted and only its counters and its histogram are left.
    is_deleted: bool,
}

/// How a run ended: the labels of its counter.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RunEnd {
    /// Whether the version was promoted.
    pub success: bool,
    /// `deployment_strategy`.
    pub strategy: &'static str,
    /// `analysis_status`.
    pub analysis_status: &'static str,
}

/// A histogram of seconds.
#[derive(Default)]
struct Durations {
    /// How many values lie at or below each bound.
    counts: [u64; DEFAULT_BUCKETS.len()],
    count: u64,
    sum: f64,
}

impl Numbers {
    /// Sets the value of a metric of the analysis.
    pub fn sample(&mut self, metric: &str, value: f64) {
        match self.samples.iter_mut().find(|(name, _)| **name == *metric) {
            Some((_, known)) => *known = value,
            None => self.samples.push((metric.into(), value)),
        }
    }

    /// Sets the state and the evidence of the comparison of a metric.
    pub fn comparison(&mut self, metric: &str, state: &str, evidence: f64) {
        let comparison = (state.into(), evidence);
        self.comparisons.insert(metric.into(), comparison);
    }

    /// Keeps the values of these metrics of the analysis only.
    pub fn keep_samples(&mut self, is_kept: impl Fn(&str) -> bool) {
        self.samples.retain(|(metric, _)| is_kept(metric));
        self.comparisons.retain(|metric, _| is_kept(metric));
    }

    /// Adds the duration of a step.
    pub fn step(&mut self, seconds: f64) {
        let durations = self.durations.get_or_insert_default();
        for (count, bound) in durations.counts.iter_mut().zip(DEFAULT_BUCKETS) {
            *count += u64::from(seconds <= *bound);
        }
        durations.count += 1;
        durations.sum += seconds;
    }

    /// Counts a run that ended.
    pub fn run_ended(&mut self, end: RunEnd) {
        match self.ended_runs.iter_mut().find(|(known, _)| *known == end) {
            Some((_, times)) => *times += 1,
            None => self.ended_runs.push((end, 1)),
        }
    }
}

impl Series {
    /// Returns the numbers of a canary.
    pub fn of(&mut self, namespace: &str, target: &str) -> &mut Numbers {
        let name = (namespace.into(), target.into());
        let numbers = self.numbers.entry(name).or_default();
        if std::mem::take(&mut numbers.is_deleted) {
            self.deleted
                .retain(|(n, t)| (&**n, &**t) != (namespace, target));
        }
        numbers
    }

    /// Removes the gauges of a deleted canary. Its counters and its histogram stay until many others were deleted.
    pub fn forget(&mut self, namespace: &str, target: &str) {
        let key = (namespace.into(), target.into());
        if let Some(numbers) = self.numbers.remove(&key)
            && (numbers.durations.is_some() || !numbers.ended_runs.is_empty())
        {
            let Numbers {
                durations,
                ended_runs,
                ..
            } = numbers;
            let counted = Numbers {
                durations,
                ended_runs,
                is_deleted: true,
                ..Numbers::default()
            };
            self.numbers.insert(key.clone(), counted);
            self.deleted.retain(|deleted| *deleted != key);
            self.deleted.push_back(key);
            if self.deleted.len() > MAX_DELETED
                && let Some(oldest) = self.deleted.pop_front()
            {
                self.numbers.remove(&oldest);
            }
        }
    }

    /// Appends all metrics that have a value, in the text format of Prometheus.
    pub fn write(&self, text: &mut String) {
        self.family(text, &STATUS, |numbers, canary, lines| {
            let status = numbers.status.iter();
            lines.extend(status.map(|status| Line::of(canary.labels("name"), *status)));
        });
        self.family(text, &WEIGHT, |numbers, canary, lines| {
            if let Some((primary, share)) = numbers.weights {
                lines.push(Line::of(canary.labels("workload"), share));
                lines.push(Line::of(canary.primary_labels(), primary));
            }
        });
        self.family(text, &METRIC_ANALYSIS, |numbers, canary, lines| {
            for (metric, value) in &numbers.samples {
                let labels = format!("metric={},{}", quoted(metric), canary.labels("name"));
                lines.push(Line::of(labels, *value));
            }
        });
        self.family(text, &EVIDENCE, |numbers, canary, lines| {
            for (metric, (_, evidence)) in &numbers.comparisons {
                let labels = format!("metric={},{}", quoted(metric), canary.labels("name"));
                lines.push(Line::of(labels, *evidence));
            }
        });
        self.family(text, &COMPARISON, |numbers, canary, lines| {
            for (metric, (state, _)) in &numbers.comparisons {
                let (metric, state) = (quoted(metric), quoted(state));
                let labels = format!("metric={metric},{},state={state}", canary.labels("name"));
                lines.push(Line::of(labels, 1));
            }
        });
        self.family(text, &DURATION, |numbers, canary, lines| {
            if let Some(durations) = &numbers.durations {
                durations.lines(&canary.labels("name"), lines);
            }
        });
        for (metric, success) in [(&SUCCESSES, true), (&FAILURES, false)] {
            self.family(text, metric, |numbers, canary, lines| {
                let runs = numbers.ended_runs.iter();
                lines.extend(
                    runs.filter(|(end, _)| end.success == success)
                        .map(|(end, times)| {
                            let labels = format!(
                                "analysis_status={},deployment_strategy={},{}",
                                quoted(end.analysis_status),
                                quoted(end.strategy),
                                canary.labels("name")
                            );
                            Line::of(labels, *times)
                        }),
                );
            });
        }
    }

    fn family(
        &self,
        text: &mut String,
        Metric {
            name, kind, help, ..
        }: &Metric,
        lines_of: impl Fn(&Numbers, &Key<'_>, &mut Vec<Line>),
    ) {
        let (mut lines, mut is_first) = (Vec::new(), true);
        for ((namespace, target), numbers) in &self.numbers {
            lines_of(numbers, &Key { namespace, target }, &mut lines);
            for Line {
                suffix,
                labels,
                value,
            } in lines.drain(..)
            {
                if std::mem::take(&mut is_first) {
                    // Writing to a String cannot fail.
                    let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
                }
                let _ = writeln!(text, "{name}{suffix}{{{labels}}} {value}");
            }
        }
    }
}

/// One line of a metric.
struct Line {
    suffix: &'static str,
    labels: String,
    value: String,
}

impl Line {
    fn of(labels: String, value: impl ToString) -> Self {
        Self {
            suffix: "",
            labels,
            value: value.to_string(),
        }
    }
}

impl Durations {
    fn lines(&self, labels: &str, lines: &mut Vec<Line>) {
        let bucket = |bound: &str, count: u64| Line {
            suffix: "_bucket",
            labels: format!("{labels},le=\"{bound}\""),
            value: count.to_string(),
        };
        let buckets = DEFAULT_BUCKETS.iter().zip(self.counts);
        lines.extend(buckets.map(|(bound, count)| bucket(&bound.to_string(), count)));
        lines.push(bucket("+Inf", self.count));
        let totals = [
            ("_sum", self.sum.to_string()),
            ("_count", self.count.to_string()),
        ];
        lines.extend(totals.map(|(suffix, value)| Line {
            suffix,
            labels: labels.to_owned(),
            value,
        }));
    }
}

/// The canary that numbers belong to.
struct Key<'a> {
    namespace: &'a str,
    target: &'a str,
}

impl Key<'_> {
    /// Returns the labels in alphabetical order. The name of the target is the value of the label `name_label`.
    fn labels(&self, name_label: &str) -> String {
        labels(name_label, self.namespace, self.target)
    }

    fn primary_labels(&self) -> String {
        let primary = format!("{}-primary", self.target);
        labels("workload", self.namespace, &primary)
    }
}

fn labels(name_label: &str, namespace: &str, name: &str) -> String {
    let (name, namespace) = (
        format!("{name_label}={}", quoted(name)),
        format!("namespace={}", quoted(namespace)),
    );
    if name_label < "namespace" {
        format!("{name},{namespace}")
    } else {
        format!("{namespace},{name}")
    }
}

/// Quotes the value of a label. A spec may contain any name, so special characters are escaped.
fn quoted(value: &str) -> String {
    let value = value.replace('\\', r"\\").replace('\n', r"\n");
    format!("\"{}\"", value.replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(series: &Series) -> String {
        let mut text = String::new();
        series.write(&mut text);
        text
    }

    #[test]
    fn the_numbers_of_the_last_deleted_canaries_are_kept() {
        let mut series = Series::default();
        for n in 0..MAX_DELETED + 10 {
            let target = format!("t{n}");
            series.of("test", &target).step(1.0);
            series.forget("test", &target);
        }
        assert_eq!(series.numbers.len(), MAX_DELETED);
        assert!(!text(&series).contains("\"t9\""), "{}", text(&series));
        assert!(text(&series).contains("\"t10\""));
    }

    #[test]
    fn a_canary_that_exists_again_loses_nothing_when_others_are_deleted() {
        let mut series = Series::default();
        for _ in 0..2 {
            series.of("test", "back").step(1.0);
            series.forget("test", "back");
        }
        series.of("test", "back").step(1.0);
        for n in 0..2 * MAX_DELETED {
            let target = format!("t{n}");
            series.of("test", &target).step(1.0);
            series.forget("test", &target);
        }
        let line = r#"flagger_canary_duration_seconds_count{name="back",namespace="test"} 3"#;
        assert!(text(&series).lines().any(|l| l == line));
    }

    #[test]
    fn values_of_metrics_that_the_spec_does_not_name_any_more_are_removed() {
        let mut series = Series::default();
        for metric in ["old", "new"] {
            series.of("test", "web").sample(metric, 1.0);
        }
        series
            .of("test", "web")
            .keep_samples(|metric| metric == "new");
        assert!(text(&series).contains("\"new\"") && !text(&series).contains("\"old\""));
    }
}
