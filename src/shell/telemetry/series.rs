//! What `/metrics` says of each canary, in Flagger's families. There are thousands of canaries, and each has a dozen numbers or more: they
//! are kept as numbers under one name, and written out when somebody asks.

use std::{collections::BTreeMap, fmt::Write};

use prometheus::DEFAULT_BUCKETS;

/// The numbers of all canaries, by namespace and target.
#[derive(Default)]
pub struct Series(BTreeMap<(Box<str>, Box<str>), Numbers>);

/// The numbers of one canary.
#[derive(Default)]
pub struct Numbers {
    /// Where its release stands.
    pub status: Option<u8>,
    /// The shares of the primary and of the target.
    pub weights: Option<(u8, u8)>,
    samples: Vec<(Box<str>, f64)>,
    durations: Option<Box<Durations>>,
    /// How often runs of a strategy ended in a way, well or not.
    ended: Vec<(End, u64)>,
}

/// How a run ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// Whether it was promoted.
    pub success: bool,
    /// Its `deployment_strategy`.
    pub strategy: &'static str,
    /// Its `analysis_status`.
    pub how: &'static str,
}

/// A histogram of seconds.
#[derive(Default)]
struct Durations {
    /// How many there were up to each bound.
    counts: [u64; DEFAULT_BUCKETS.len()],
    count: u64,
    sum: f64,
}

impl Numbers {
    /// The value of a metric of the release.
    pub fn sample(&mut self, metric: &str, value: f64) {
        match self.samples.iter_mut().find(|(name, _)| **name == *metric) {
            Some((_, known)) => *known = value,
            None => self.samples.push((metric.into(), value)),
        }
    }

    /// How long a step took.
    pub fn step(&mut self, seconds: f64) {
        let durations = self.durations.get_or_insert_default();
        for (count, bound) in durations.counts.iter_mut().zip(DEFAULT_BUCKETS) {
            *count += u64::from(seconds <= *bound);
        }
        durations.count += 1;
        durations.sum += seconds;
    }

    /// A run ended.
    pub fn ended(&mut self, end: End) {
        match self.ended.iter_mut().find(|(known, _)| *known == end) {
            Some((_, times)) => *times += 1,
            None => self.ended.push((end, 1)),
        }
    }
}

impl Series {
    /// The numbers of a canary.
    pub fn of(&mut self, namespace: &str, target: &str) -> &mut Numbers {
        self.0.entry((namespace.into(), target.into())).or_default()
    }

    /// A canary is gone: what was counted stays, what stood somewhere does not.
    pub fn forget(&mut self, namespace: &str, target: &str) {
        let key = (namespace.into(), target.into());
        if let Some(numbers) = self.0.remove(&key)
            && (numbers.durations.is_some() || !numbers.ended.is_empty())
        {
            let Numbers {
                durations, ended, ..
            } = numbers;
            let counted = Numbers {
                durations,
                ended,
                ..Numbers::default()
            };
            self.0.insert(key, counted);
        }
    }

    /// Appends the families that have numbers, in the text format.
    pub fn write(&self, text: &mut String) {
        self.family(
            text,
            ("flagger_canary_status", "gauge"),
            "Last canary analysis result",
            |numbers, canary, lines| {
                let status = numbers.status.iter();
                lines.extend(status.map(|status| Line::of(canary.named("name"), *status)));
            },
        );
        self.family(
            text,
            ("flagger_canary_weight", "gauge"),
            "The virtual service destination weight current value",
            |numbers, canary, lines| {
                if let Some((primary, share)) = numbers.weights {
                    lines.push(Line::of(canary.named("workload"), share));
                    lines.push(Line::of(canary.primary(), primary));
                }
            },
        );
        self.family(
            text,
            ("flagger_canary_metric_analysis", "gauge"),
            "Last canary analysis result per metric",
            |numbers, canary, lines| {
                for (metric, value) in &numbers.samples {
                    let labels = format!("metric={},{}", quoted(metric), canary.named("name"));
                    lines.push(Line::of(labels, *value));
                }
            },
        );
        self.family(
            text,
            ("flagger_canary_duration_seconds", "histogram"),
            "Seconds spent performing canary analysis.",
            |numbers, canary, lines| {
                if let Some(durations) = &numbers.durations {
                    durations.lines(&canary.named("name"), lines);
                }
            },
        );
        for (name, help, success) in [
            (
                "flagger_canary_successes_total",
                "Total number of canary successes",
                true,
            ),
            (
                "flagger_canary_failures_total",
                "Total number of canary failures",
                false,
            ),
        ] {
            self.family(text, (name, "counter"), help, |numbers, canary, lines| {
                for (end, times) in numbers
                    .ended
                    .iter()
                    .filter(|(end, _)| end.success == success)
                {
                    let labels = format!(
                        "analysis_status={},deployment_strategy={},{}",
                        quoted(end.how),
                        quoted(end.strategy),
                        canary.named("name")
                    );
                    lines.push(Line::of(labels, *times));
                }
            });
        }
    }

    fn family(
        &self,
        text: &mut String,
        (name, kind): (&str, &str),
        help: &str,
        lines_of: impl Fn(&Numbers, &Canary<'_>, &mut Vec<Line>),
    ) {
        let (mut lines, mut is_first) = (Vec::new(), true);
        for ((namespace, target), numbers) in &self.0 {
            lines_of(numbers, &Canary { namespace, target }, &mut lines);
            for Line {
                suffix,
                labels,
                value,
            } in lines.drain(..)
            {
                if std::mem::take(&mut is_first) {
                    // A string takes all that is written to it.
                    let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
                }
                let _ = writeln!(text, "{name}{suffix}{{{labels}}} {value}");
            }
        }
    }
}

/// One line of a family.
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
        let all = [
            ("_sum", self.sum.to_string()),
            ("_count", self.count.to_string()),
        ];
        lines.extend(all.map(|(suffix, value)| Line {
            suffix,
            labels: labels.to_owned(),
            value,
        }));
    }
}

/// Whose numbers they are.
struct Canary<'a> {
    namespace: &'a str,
    target: &'a str,
}

impl Canary<'_> {
    /// The labels, in the order of their names, with the target's under this one.
    fn named(&self, label: &str) -> String {
        labels(label, self.namespace, self.target)
    }

    fn primary(&self) -> String {
        labels(
            "workload",
            self.namespace,
            &format!("{}-primary", self.target),
        )
    }
}

fn labels(label: &str, namespace: &str, name: &str) -> String {
    let (name, namespace) = (
        format!("{label}={}", quoted(name)),
        format!("namespace={}", quoted(namespace)),
    );
    if label < "namespace" {
        format!("{name},{namespace}")
    } else {
        format!("{namespace},{name}")
    }
}

/// A label's value: a spec may name anything.
fn quoted(value: &str) -> String {
    let value = value.replace('\\', r"\\").replace('\n', r"\n");
    format!("\"{}\"", value.replace('"', "\\\""))
}
