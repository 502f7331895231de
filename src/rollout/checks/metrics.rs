//! The metrics of a step. All are queried at the same time, and all failures are reported, in Flagger's order (Flagger:
//! `pkg/controller/scheduler_metrics.go`).

use std::{collections::BTreeSet, time::Duration};

use super::{hooks::Stage, metric_templates};
use crate::{
    api::{
        canary::{Canary, CanaryMetric, CanaryPhase, CrossNamespaceRef},
        duration,
    },
    metrics::{
        Asks, MetricError, Query, Server, endpoint,
        observer::Builtin,
        template::{Model, RenderError, render},
    },
    providers::{self, ProviderError},
    rollout::plan::{Answer, Evidence, Question},
    snapshot::{HttpResponse, ObjectRef, Snapshot, go},
};

/// The source of a check's value.
enum Source<'a> {
    Builtin(Builtin),
    Inline(&'a str),
    Template(&'a CrossNamespaceRef),
    Nothing,
}

/// One check of one metric. A metric may be checked twice, as in Flagger.
struct Check<'a> {
    place: usize,
    metric: &'a CanaryMetric,
    source: Source<'a>,
}

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
pub fn check(snapshot: &Snapshot, evidence: &Evidence) -> Stage<Vec<String>> {
    let checks = checks(&snapshot.canary);
    let mut questions = Vec::new();
    let mut halts = Vec::new();
    for check in &checks {
        match check.value(snapshot, evidence) {
            Stage::Ask(more) => questions.extend(more),
            Stage::Done(Err(problem)) => halts.push(problem),
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
    checks(&snapshot.canary)
        .iter()
        .filter_map(|check| match check.value(snapshot, evidence) {
            Stage::Done(Ok(Ok(value))) => Some((check.metric.name.clone(), check.exported(value))),
            _ => None,
        })
        .collect()
}

/// Checks that all metric servers can be reached: the questions to ask first, or the first problem.
pub fn online(snapshot: &Snapshot, evidence: &Evidence) -> Stage<Result<(), String>> {
    let mut checks = checks(&snapshot.canary);
    checks.sort_by_key(|check| check.place);
    let mut questions = Vec::new();
    let mut known = BTreeSet::new();
    for check in checks {
        let (within, server) = match check.source {
            Source::Builtin(_) => (String::new(), builtin_server(snapshot)),
            // As in Flagger, the template of a metric with a built-in name is not checked, nor is the server of an inline query.
            Source::Template(_) if Builtin::named(&check.metric.name).is_some() => continue,
            Source::Inline(_) | Source::Nothing => continue,
            Source::Template(reference) => {
                let ObjectRef {
                    name, namespace, ..
                } = metric_templates::reference(snapshot, reference);
                let server = metric_templates::read(snapshot, reference, check.metric);
                let server = server.map(|(_, server)| server);
                let server = server.map_err(|error| error.to_string());
                (format!(" in metric template {name}.{namespace}"), server)
            }
        };
        if !known.insert(within.clone()) {
            continue;
        }
        let problem = match server {
            Ok(server) => {
                let name = server.name();
                let query = Query {
                    server,
                    asks: Asks::Online,
                    budget: budget(snapshot),
                };
                match ask(&format!("{name}{within}"), &query, evidence) {
                    Stage::Ask(more) => {
                        questions.extend(more);
                        continue;
                    }
                    Stage::Done(answer) => match query.server.online(answer) {
                        Ok(()) => continue,
                        Err(why) => format!("{name}{within} not avaiable: {why}"),
                    },
                }
            }
            Err(problem) => lower_first(&problem),
        };
        // Only the first problem is reported, so the servers before it must have answered.
        return if questions.is_empty() {
            Stage::Done(Err(problem))
        } else {
            Stage::Ask(questions)
        };
    }
    if questions.is_empty() {
        Stage::Done(Ok(()))
    } else {
        Stage::Ask(questions)
    }
}

/// The longest time for all attempts at one metric: less than an interval, so that the step ends before the next tick.
fn budget(snapshot: &Snapshot) -> Duration {
    snapshot.canary.interval().mul_f64(0.9)
}

/// All checks: first the built-in metrics and the inline queries, then the templates; each in the order of the list.
fn checks(canary: &Canary) -> Vec<Check<'_>> {
    let metrics = || {
        canary
            .spec
            .analysis
            .iter()
            .flat_map(|analysis| &analysis.metrics)
            .enumerate()
    };
    let mut checks = Vec::new();
    for (place, metric) in metrics() {
        let builtin = Builtin::named(&metric.name).map(Source::Builtin);
        let inline = metric
            .query
            .as_deref()
            .filter(|query| !query.is_empty())
            .map(Source::Inline);
        checks.extend(builtin.into_iter().chain(inline).map(|source| Check {
            place,
            metric,
            source,
        }));
    }
    for (place, metric) in metrics() {
        let known = Builtin::named(&metric.name).is_some()
            || metric.query.as_ref().is_some_and(|query| !query.is_empty());
        let source = match &metric.template_ref {
            Some(reference) => Source::Template(reference),
            None if known => continue,
            None => Source::Nothing,
        };
        checks.push(Check {
            place,
            metric,
            source,
        });
    }
    checks
}

impl Check<'_> {
    /// The question to ask first, or the value of the metric. The outer error is the reason why the metric cannot be queried at all.
    fn value(
        &self,
        snapshot: &Snapshot,
        evidence: &Evidence,
    ) -> Stage<Result<Result<f64, MetricError>, String>> {
        let query = match self.query(snapshot) {
            Ok(query) => query,
            Err(problem) => return Stage::Done(Err(problem)),
        };
        match ask(&format!("metric {}", self.place), &query, evidence) {
            Stage::Ask(questions) => Stage::Ask(questions),
            Stage::Done(answer) => {
                let value = answer.and_then(|response| query.server.value(response));
                Stage::Done(Ok(value.map(|value| self.rounded(snapshot, value))))
            }
        }
    }

    fn query(&self, snapshot: &Snapshot) -> Result<Query, String> {
        let model = |default| Model::of(&snapshot.canary, self.metric, default);
        let (server, text) = match self.source {
            Source::Builtin(builtin) => {
                let observer = providers::observer(snapshot).map_err(|error| error.to_string())?;
                let text = observer.query(builtin, &model("1m"));
                (builtin_server(snapshot)?, text)
            }
            Source::Inline(query) => {
                let failed = |error: RenderError| {
                    format!("Prometheus query failed for {}: {error}", self.metric.name)
                };
                let text = render(query, &model("1m")).map_err(failed)?;
                (builtin_server(snapshot)?, text)
            }
            Source::Template(reference) => {
                let (template, server) = metric_templates::read(snapshot, reference, self.metric)
                    .map_err(|error| error.to_string())?;
                let ObjectRef {
                    namespace, name, ..
                } = metric_templates::reference(snapshot, reference);
                let failed = |error: RenderError| {
                    format!("Metric template {name}.{namespace} query render error: {error}")
                };
                let text = render(&template.query, &model("")).map_err(failed)?;
                (server, text)
            }
            Source::Nothing => {
                return Err(
                    "Metric query failed for no usable metrics template and query were configured"
                        .to_owned(),
                );
            }
        };
        Ok(Query {
            server,
            asks: Asks::Value(text),
            budget: budget(snapshot),
        })
    }

    /// Rounds a built-in duration down to whole milliseconds.
    fn rounded(&self, snapshot: &Snapshot, value: f64) -> f64 {
        match (&self.source, providers::observer(snapshot)) {
            (Source::Builtin(Builtin::Duration), Ok(observer)) => observer.millis(value),
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

    /// The reason why this metric holds the release back; `None` if it does not.
    fn halt(&self, snapshot: &Snapshot, value: Result<f64, MetricError>) -> Option<String> {
        let value = match value {
            Ok(value) => value,
            Err(error) => return Some(self.no_value(snapshot, &error)),
        };
        let (min, max) = self.bounds();
        let (sign, bound) = match (min, max) {
            (Some(min), _) if value < min => ('<', min),
            (_, Some(max)) if value > max => ('>', max),
            _ => return None,
        };
        let name = snapshot.full_name();
        Some(match self.source {
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
        })
    }

    /// The least and the greatest acceptable value. A bare `threshold` is the minimum of a success rate and the maximum of any other metric.
    fn bounds(&self) -> (Option<f64>, Option<f64>) {
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
        let failure = |builtin| match providers::observer(snapshot) {
            Ok(observer) => observer.failure(builtin, error),
            Err(why) => why.to_string(),
        };
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

fn ask<'a>(
    label: &str,
    query: &Query,
    evidence: &'a Evidence,
) -> Stage<Result<&'a HttpResponse, MetricError>> {
    let question = Question::Metric {
        label: label.to_owned(),
        query: Box::new(query.clone()),
    };
    match evidence.get(&question) {
        Some(Answer::Response(response)) => Stage::Done(Ok(response)),
        Some(Answer::Failed(why)) => Stage::Done(Err(MetricError::NoAnswer(why.to_string()))),
        Some(Answer::Delivered) | None => Stage::Ask(vec![question]),
    }
}

/// The reason why this version does not support the built-in metrics of a canary; `None` if it does.
pub fn unsupported(snapshot: &Snapshot) -> Option<ProviderError> {
    let is_builtin = |check: &Check<'_>| matches!(check.source, Source::Builtin(_));
    let any = checks(&snapshot.canary).iter().any(is_builtin);
    providers::observer(snapshot).err().filter(|_| any)
}

fn builtin_server(snapshot: &Snapshot) -> Result<Server, String> {
    let own = snapshot
        .canary
        .spec
        .metrics_server
        .as_deref()
        .filter(|server| !server.is_empty());
    let address = own.unwrap_or(&snapshot.settings.metrics_server);
    Server::prometheus(address).map_err(|error| {
        let address = endpoint::public(address);
        format!("Error building Prometheus client for {address} {error}")
    })
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

/// Flagger uses the same text at the start of a sentence and within one.
fn lower_first(text: &str) -> String {
    text.replacen("Metric template", "metric template", 1)
}
