//! The metrics of a step. All are queried at the same time, and all failures are reported, in Flagger's order (Flagger:
//! `pkg/controller/scheduler_metrics.go`).

use std::{collections::BTreeSet, time::Duration};

use super::{
    Halt, comparisons,
    hooks::Stage,
    metric_query::{Check, Source, Unqueryable, checks, question},
    metric_templates,
};
use crate::{
    api::{canary::CanaryPhase, duration, status::VerdictCode},
    metrics::{MetricError, Query, observer::Builtin},
    providers,
    rollout::{
        plan::{Answer, Evidence, Question},
        status::FailedCheck,
    },
    snapshot::{ObjectRef, Snapshot, go, redacted},
};

/// The objects that the checks of the current phase need: MetricTemplates and the Secrets that they name.
pub fn needs(snapshot: &Snapshot) -> BTreeSet<ObjectRef> {
    let analysed = [
        CanaryPhase::New,
        CanaryPhase::Initializing,
        CanaryPhase::Progressing,
        CanaryPhase::WaitingPromotion,
    ];
    if !analysed.contains(&snapshot.phase()) {
        return BTreeSet::new();
    }
    checks(&snapshot.canary)
        .iter()
        .filter_map(|check| check.metric.template_ref.as_ref())
        .flat_map(|reference| metric_templates::needs(snapshot, reference))
        .collect()
}

/// Checks all metrics: the questions to ask first, or the reasons why metrics hold the release back.
pub fn check(snapshot: &Snapshot, evidence: &Evidence) -> Stage<Vec<Halt>> {
    let mut questions = Vec::new();
    let mut halts = Vec::new();
    for check in &by_threshold(snapshot) {
        match check.value(snapshot, evidence) {
            Stage::Ask(more) => questions.extend(more),
            Stage::Done(Err(error)) => halts.push(check.unqueryable(&error)),
            Stage::Done(Ok(value)) => halts.extend(check.halt(snapshot, value)),
        }
    }
    if questions.is_empty() {
        Stage::Done(halts)
    } else {
        Stage::Ask(questions)
    }
}

/// The values that are known in this step, by the name of the metric, as the operator exports them. Durations are in seconds.
pub fn samples(snapshot: &Snapshot, evidence: &Evidence) -> Vec<(String, f64)> {
    if evidence.is_empty() {
        return Vec::new();
    }
    let checks = by_threshold(snapshot);
    let values = checks
        .iter()
        .filter_map(|check| match check.value(snapshot, evidence) {
            Stage::Done(Ok(Ok(value))) => Some((check.metric.name.clone(), check.exported(value))),
            _ => None,
        });
    let compared = match comparisons::results(snapshot, evidence) {
        Stage::Done(compared) => compared,
        Stage::Ask(_) => Vec::new(),
    };
    let compared = compared.into_iter();
    let rates = compared.filter_map(|it| Some((it.metric.clone(), it.success_rate()?)));
    values.chain(rates).collect()
}

/// The checks that compare a value with a threshold. A metric whose comparison with the primary decides has none.
fn by_threshold(snapshot: &Snapshot) -> Vec<Check<'_>> {
    let mut checks = checks(&snapshot.canary);
    let compared = comparisons::deciding(snapshot, &checks);
    checks.retain(|check| match check.source {
        Source::Builtin(_) => !compared.contains(&check.place),
        Source::Counts(_) => false,
        Source::Inline(_) | Source::Template(_) | Source::Nothing => true,
    });
    checks
}

/// A value, and whether it holds the release back.
pub struct Judged {
    /// The query; `None` if the metric cannot be queried.
    pub query: Option<Query>,
    /// The value; `None` if there is none.
    pub value: Option<f64>,
    /// The reason why it holds the release back; `None` if it does not.
    pub halt: Option<Halt>,
}

impl Check<'_> {
    /// The value of the metric, judged; `None` if it is not known yet.
    pub fn judge(&self, snapshot: &Snapshot, evidence: &Evidence) -> Option<Judged> {
        let query = match self.query(snapshot) {
            Ok(query) => query,
            Err(error) => {
                return Some(Judged {
                    query: None,
                    value: None,
                    halt: Some(self.unqueryable(&error)),
                });
            }
        };
        let value = self.answer(snapshot, evidence, &self.question(query.clone()))?;
        Some(Judged {
            query: Some(query),
            value: value.as_ref().ok().copied(),
            halt: self.halt(snapshot, value),
        })
    }

    /// The question to ask first, or the value of the metric. The outer error is the reason why the metric cannot be queried at all.
    fn value(
        &self,
        snapshot: &Snapshot,
        evidence: &Evidence,
    ) -> Stage<Result<Result<f64, MetricError>, Unqueryable>> {
        let question = match self.query(snapshot) {
            Ok(query) => self.question(query),
            Err(problem) => return Stage::Done(Err(problem)),
        };
        match self.answer(snapshot, evidence, &question) {
            Some(value) => Stage::Done(Ok(value)),
            None => Stage::Ask(vec![question]),
        }
    }

    /// The question about this metric.
    pub fn question(&self, query: Query) -> Question {
        question(format!("metric {}", self.place), query)
    }

    /// The answer to the question about this metric; `None` if it is not known yet.
    fn answer(
        &self,
        snapshot: &Snapshot,
        evidence: &Evidence,
        question: &Question,
    ) -> Option<Result<f64, MetricError>> {
        match evidence.get(question) {
            Some(Answer::Value(value)) => {
                let value = value.clone();
                Some(value.map(|value| self.rounded(snapshot, value)))
            }
            Some(_) | None => None,
        }
    }

    /// Rounds a built-in duration down to whole milliseconds.
    fn rounded(&self, snapshot: &Snapshot, value: f64) -> f64 {
        match self.source {
            Source::Builtin(Builtin::Duration) => providers::observer(snapshot).millis(value),
            _ => value,
        }
    }

    fn exported(&self, value: f64) -> f64 {
        if matches!(self.source, Source::Builtin(Builtin::Duration)) {
            value / 1000.0
        } else {
            value
        }
    }

    fn unqueryable(&self, error: &Unqueryable) -> Halt {
        let why = redacted(&error.to_string());
        let detail = format!("{} cannot be queried: {why}", self.metric.name);
        Halt {
            event: error.to_string(),
            failed: FailedCheck::new(VerdictCode::ProviderError, &detail),
        }
    }

    /// The reason why this metric holds the release back; `None` if it does not.
    fn halt(&self, snapshot: &Snapshot, value: Result<f64, MetricError>) -> Option<Halt> {
        let value = match value {
            Ok(value) => value,
            Err(error) => {
                return Some(Halt {
                    event: self.no_value(snapshot, &error),
                    failed: self.found_no_value(snapshot, &error),
                });
            }
        };
        let (min, max) = self.bounds();
        let (sign, bound) = match (min, max) {
            (Some(min), _) if value < min => ('<', min),
            (_, Some(max)) if value > max => ('>', max),
            _ => return None,
        };
        let name = snapshot.full_name();
        let event = match self.source {
            Source::Builtin(Builtin::SuccessRate) => {
                format!(
                    "Halt {name} advancement success rate {}% {sign} {}%",
                    two_places(value),
                    go::float(bound)
                )
            }
            Source::Builtin(Builtin::Duration) => {
                format!(
                    "Halt {name} advancement request duration {} {sign} {}",
                    millis(value),
                    millis(bound)
                )
            }
            _ => format!(
                "Halt {name} advancement {} {} {sign} {}",
                self.metric.name,
                two_places(value),
                go::float(bound)
            ),
        };
        let words = if sign == '<' {
            "below the minimum"
        } else {
            "above the maximum"
        };
        let (metric, unit) = (&self.metric.name, self.unit());
        let (value, bound) = (measured(value, bound), go::float(bound));
        let detail = format!("{metric} was {value}{unit}, {words} {bound}{unit}");
        Some(Halt {
            event,
            failed: FailedCheck::new(VerdictCode::Threshold, &detail),
        })
    }

    /// The unit of the values, with the space before it.
    pub const fn unit(&self) -> &'static str {
        match self.source {
            Source::Builtin(Builtin::SuccessRate) => " %",
            Source::Builtin(Builtin::Duration) => " ms",
            _ => "",
        }
    }

    fn found_no_value(&self, snapshot: &Snapshot, error: &MetricError) -> FailedCheck {
        let metric = &self.metric.name;
        if !error.is_none() {
            let why = redacted(&error.to_string());
            let detail = format!("{metric} could not be measured: {why}");
            return FailedCheck::new(VerdictCode::ProviderError, &detail);
        }
        let nothing = "the query returned no number";
        let why = match self.source {
            Source::Builtin(_) => format!(
                "{nothing}, so probably {} receives no traffic",
                snapshot.full_target()
            ),
            _ => nothing.to_owned(),
        };
        FailedCheck::new(
            VerdictCode::NoData,
            &format!("{metric} had no value: {why}"),
        )
    }

    /// The least and the greatest acceptable value. A single `threshold` is the minimum of a success rate and the maximum of any other
    /// metric.
    pub fn bounds(&self) -> (Option<f64>, Option<f64>) {
        let (min, max) = match &self.metric.threshold_range {
            Some(range) => (range.min, range.max),
            None => {
                let threshold = self.metric.threshold.unwrap_or(0.0);
                match self.source {
                    Source::Builtin(Builtin::SuccessRate) => (Some(threshold), None),
                    _ => (None, Some(threshold)),
                }
            }
        };
        match self.source {
            Source::Builtin(Builtin::Duration) => (min.map(f64::trunc), max.map(f64::trunc)),
            _ => (min, max),
        }
    }

    fn no_value(&self, snapshot: &Snapshot, error: &MetricError) -> String {
        let metric = &self.metric.name;
        let none = error.is_none();
        let failure = |builtin| providers::observer(snapshot).failure(builtin, error);
        match self.source {
            Source::Builtin(builtin) if none => {
                let provider = providers::metrics_provider(snapshot);
                let text = format!(
                    "Halt advancement no values found for {provider} metric {metric} probably {} is not receiving traffic",
                    snapshot.full_target()
                );
                match builtin {
                    Builtin::SuccessRate => format!("{text}: {}", failure(builtin)),
                    Builtin::Duration => text,
                }
            }
            Source::Builtin(builtin) => format!("Prometheus query failed: {}", failure(builtin)),
            Source::Inline(_) if none => {
                format!("Halt advancement no values found for metric: {metric}")
            }
            Source::Inline(_) => format!("Prometheus query failed for {metric}: {error}"),
            _ if none => {
                format!("Halt advancement no values found for custom metric: {metric}: {error}")
            }
            _ => format!("Metric query failed for {metric}: {error}"),
        }
    }
}

/// Formats a measured value with at most six digits, or with all its digits if six digits would show the value as equal to the bound.
fn measured(value: f64, bound: f64) -> String {
    let rounded = format!("{value:.5e}").parse().unwrap_or(value);
    if go::float(rounded) == go::float(bound) {
        go::float(value)
    } else {
        go::float(rounded)
    }
}

/// Go's `%.2f`.
fn two_places(value: f64) -> String {
    if value.is_finite() {
        format!("{value:.2}")
    } else {
        go::float(value)
    }
}

fn millis(value: f64) -> String {
    duration::display(Duration::from_secs_f64((value.max(0.0) / 1000.0).min(9e9)))
}
