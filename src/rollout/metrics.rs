//! The metrics of a step: all are asked at once and all are told, in Flagger's order (`pkg/controller/scheduler_metrics.go`).

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde_json::Value;

use super::{
    hooks::Stage,
    plan::{Answer, Evidence, Question},
};
use crate::{
    api::{
        canary::{Canary, CanaryMetric, CanaryPhase, CrossNamespaceRef},
        duration,
        metric_template::{MetricTemplate, MetricTemplateSpec},
    },
    measure::{
        MetricError, go_float,
        observer::{self, Builtin, Observer},
        prometheus::{self, Server},
        template::{Model, render},
    },
    notice::alert::secret_text,
    world::{HttpRequest, Kind, ObjectRef, World},
};

/// Where a check's value comes from.
enum Source<'a> {
    Builtin(Builtin),
    Inline(&'a str),
    Template(&'a CrossNamespaceRef),
    Nothing,
}

/// One check of one metric; a metric can be checked twice, as in Flagger.
struct Check<'a> {
    place: usize,
    metric: &'a CanaryMetric,
    source: Source<'a>,
}

/// The objects that the checks of this phase look at: templates and the Secrets that they name.
pub fn needs(world: &World) -> BTreeSet<ObjectRef> {
    let mut needs = BTreeSet::new();
    let analysed = [
        CanaryPhase::New,
        CanaryPhase::Initializing,
        CanaryPhase::Progressing,
        CanaryPhase::WaitingPromotion,
    ];
    if !analysed.contains(&world.phase()) {
        return needs;
    }
    for reference in checks(&world.canary)
        .iter()
        .filter_map(|check| check.metric.template_ref.as_ref())
    {
        let template = template_ref(world, reference);
        if let Some(secret) = world
            .objects
            .get(&template)
            .and_then(|t| t.pointer("/spec/provider/secretRef/name")?.as_str())
        {
            needs.insert(ObjectRef {
                kind: Kind::Secret,
                namespace: template.namespace.clone(),
                name: secret.to_owned(),
            });
        }
        needs.insert(template);
    }
    needs
}

/// Checks all metrics: what is to be asked, or the texts of those that hold the release back.
pub fn check(world: &World, evidence: &Evidence) -> Stage<Vec<String>> {
    let checks = checks(&world.canary);
    let mut questions = Vec::new();
    let mut halts = Vec::new();
    for check in &checks {
        match check.value(world, evidence) {
            Stage::Ask(more) => questions.extend(more),
            Stage::Done(Err(problem)) => halts.push(problem),
            Stage::Done(Ok(value)) => halts.extend(check.halt(world, value)),
        }
    }
    if questions.is_empty() {
        Stage::Done(halts)
    } else {
        Stage::Ask(questions)
    }
}

/// The values that are known in this step, as the operator's own metrics show them: by name, durations in seconds.
pub fn samples(world: &World, evidence: &Evidence) -> Vec<(String, f64)> {
    if evidence.is_empty() {
        return Vec::new();
    }
    checks(&world.canary)
        .iter()
        .filter_map(|check| match check.value(world, evidence) {
            Stage::Done(Ok(Ok(value))) => Some((check.metric.name.clone(), check.exported(value))),
            _ => None,
        })
        .collect()
}

/// Whether all servers of metrics can be reached: what is to be asked, or the first problem.
pub fn online(world: &World, evidence: &Evidence) -> Stage<Result<(), String>> {
    let mut checks = checks(&world.canary);
    checks.sort_by_key(|check| check.place);
    let mut questions = Vec::new();
    let mut known = BTreeSet::new();
    for check in checks {
        let (prefix, server) = match check.source {
            Source::Builtin(_) => (
                "prometheus not avaiable: ".to_owned(),
                builtin_server(world),
            ),
            // Of a metric with a built-in name the template is not asked after, nor an inline query's server, as in Flagger.
            Source::Template(_) if Builtin::named(&check.metric.name).is_some() => continue,
            Source::Inline(_) | Source::Nothing => continue,
            Source::Template(reference) => {
                let name = template_ref(world, reference);
                let prefix = format!(
                    "prometheus in metric template {}.{} not avaiable: ",
                    name.name, name.namespace
                );
                let server = template(world, reference).map(|(_, server)| server);
                (prefix, server)
            }
        };
        if !known.insert(prefix.clone()) {
            continue;
        }
        let asked = server
            .map(|server| {
                ask(
                    &prefix,
                    server.query(prometheus::ONLINE, budget(world)),
                    evidence,
                )
            })
            .map_err(|problem| lower_first(&problem));
        let problem = match asked {
            Ok(Stage::Ask(more)) => {
                questions.extend(more);
                continue;
            }
            Ok(Stage::Done(Ok(1.0))) => continue,
            Ok(Stage::Done(Ok(_))) => format!("{prefix}value is not 1 for query: vector(1)"),
            Ok(Stage::Done(Err(error))) => format!("{prefix}running query failed: {error}"),
            Err(problem) => problem,
        };
        // It is the first problem that is told: first those before it must have answered.
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

/// How long the attempts at one metric may take: less than an interval, so that the step ends before the next is due.
fn budget(world: &World) -> Duration {
    world.canary.interval().mul_f64(0.9)
}

/// First the built-in metrics and the inline queries, then the templates; each in the order of the list.
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
    /// The value, once it is known; or the text that says why it cannot even be asked for.
    fn value(
        &self,
        world: &World,
        evidence: &Evidence,
    ) -> Stage<Result<Result<f64, MetricError>, String>> {
        let request = match self.request(world) {
            Ok(request) => request,
            Err(problem) => return Stage::Done(Err(problem)),
        };
        match ask(&format!("metric {}", self.place), request, evidence) {
            Stage::Ask(questions) => Stage::Ask(questions),
            Stage::Done(answer) => Stage::Done(Ok(answer.map(|value| self.whole(world, value)))),
        }
    }

    fn request(&self, world: &World) -> Result<HttpRequest, String> {
        let model = |default| Model::of(&world.canary, self.metric, default);
        match self.source {
            Source::Builtin(builtin) => {
                let observer = Observer::of(&provider(world))?;
                Ok(builtin_server(world)?
                    .query(&observer.query(builtin, &model("1m")), budget(world)))
            }
            Source::Inline(query) => {
                let failed =
                    |error| format!("Prometheus query failed for {}: {error}", self.metric.name);
                Ok(builtin_server(world)?
                    .query(&render(query, &model("1m")).map_err(failed)?, budget(world)))
            }
            Source::Template(reference) => {
                let (template, server) = template(world, reference)?;
                let ObjectRef {
                    namespace, name, ..
                } = template_ref(world, reference);
                let failed = |error| {
                    format!("Metric template {name}.{namespace} query render error: {error}")
                };
                Ok(server.query(
                    &render(&template.query, &model("")).map_err(failed)?,
                    budget(world),
                ))
            }
            Source::Nothing => Err(
                "Metric query failed for no usable metrics template and query were configured"
                    .to_owned(),
            ),
        }
    }

    /// Durations count in whole milliseconds.
    fn whole(&self, world: &World, value: f64) -> f64 {
        match (&self.source, Observer::of(&provider(world))) {
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

    /// What holds the release back, if anything does.
    fn halt(&self, world: &World, value: Result<f64, MetricError>) -> Option<String> {
        let value = match value {
            Ok(value) => value,
            Err(error) => return Some(self.no_value(world, &error)),
        };
        let (min, max) = self.bounds();
        let (sign, bound) = match (min, max) {
            (Some(min), _) if value < min => ('<', min),
            (_, Some(max)) if value > max => ('>', max),
            _ => return None,
        };
        let name = world.full_name();
        Some(match self.source {
            Source::Builtin(Builtin::SuccessRate) => {
                format!(
                    "Halt {name} advancement success rate {}% {sign} {}%",
                    two_places(value),
                    go_float(bound)
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
                go_float(bound)
            ),
        })
    }

    /// The least and the greatest good value. A bare threshold is the least success rate, or the most of anything else.
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

    fn no_value(&self, world: &World, error: &MetricError) -> String {
        let metric = &self.metric.name;
        let none = *error == MetricError::NoValues;
        let failure = |builtin| match Observer::of(&provider(world)) {
            Ok(observer) => observer.failure(builtin, error),
            Err(why) => why,
        };
        match self.source {
            Source::Builtin(builtin) if none => {
                let provider = provider(world);
                let text = format!(
                    "Halt advancement no values found for {provider} metric {metric} probably {} is not receiving traffic",
                    world.full_target()
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

fn ask(label: &str, request: HttpRequest, evidence: &Evidence) -> Stage<Result<f64, MetricError>> {
    let question = Question::Call {
        label: label.to_owned(),
        request,
    };
    match evidence.get(&question) {
        Some(Answer::Response(response)) => Stage::Done(prometheus::parse(response)),
        Some(Answer::Failed(why)) => {
            Stage::Done(Err(MetricError::Failed(format!("request failed: {why}"))))
        }
        Some(Answer::Told) | None => Stage::Ask(vec![question]),
    }
}

/// Why the built-in metrics that a canary asks for cannot be had, if so.
pub fn unsupported(world: &World) -> Option<String> {
    let is_builtin = |check: &Check<'_>| matches!(check.source, Source::Builtin(_));
    let any = checks(&world.canary).iter().any(is_builtin);
    Observer::of(&provider(world)).err().filter(|_| any)
}

/// The provider of the built-in metrics.
fn provider(world: &World) -> String {
    let spec = &world.canary.spec;
    let flag = &world.settings.mesh_provider;
    observer::provider(flag, spec.provider.as_deref(), &spec.target_ref)
}

fn builtin_server(world: &World) -> Result<Server, String> {
    let own = world
        .canary
        .spec
        .metrics_server
        .as_deref()
        .filter(|server| !server.is_empty());
    let address = own.unwrap_or(&world.settings.metrics_server);
    Server::at(address).map_err(|error| {
        format!(
            "Error building Prometheus client for {} {error}",
            prometheus::public(address)
        )
    })
}

/// The template and its server, or what a user reads if there is none.
fn template(
    world: &World,
    reference: &CrossNamespaceRef,
) -> Result<(MetricTemplateSpec, Server), String> {
    let object = template_ref(world, reference);
    let full = format!("Metric template {}.{}", object.name, object.namespace);
    let found = world.objects.get(&object).ok_or_else(|| {
        format!(
            "{full} error: metrictemplate.flagger.app {:?} not found",
            object.name
        )
    })?;
    let template: MetricTemplate =
        serde_json::from_value(found.clone()).map_err(|error| format!("{full} error: {error}"))?;
    let provider = &template.spec.provider;
    if provider.type_ != "prometheus" {
        return Err(format!(
            "{full} provider {} error: not supported yet, only prometheus is",
            provider.type_
        ));
    }
    let secret = match &provider.secret_ref {
        Some(secret) => {
            let reference = ObjectRef {
                kind: Kind::Secret,
                namespace: object.namespace.clone(),
                name: secret.name.clone(),
            };
            let found = world.objects.get(&reference);
            Some(credentials(found.ok_or_else(|| {
                format!(
                    "{full} secret {} error: secrets {:?} not found",
                    secret.name, secret.name
                )
            })?))
        }
        None => None,
    };
    let server = Server::of(provider, secret.as_ref())
        .map_err(|error| format!("{full} provider {} error: {error}", provider.type_))?;
    Ok((template.spec, server))
}

fn template_ref(world: &World, reference: &CrossNamespaceRef) -> ObjectRef {
    let namespace = reference
        .namespace
        .clone()
        .filter(|namespace| !namespace.is_empty());
    ObjectRef {
        kind: Kind::MetricTemplate,
        namespace: namespace.unwrap_or_else(|| world.namespace().to_owned()),
        name: reference.name.clone(),
    }
}

fn credentials(secret: &Value) -> BTreeMap<String, String> {
    let keys = secret
        .get("data")
        .and_then(Value::as_object)
        .into_iter()
        .flat_map(|data| data.keys());
    keys.filter_map(|key| Some((key.clone(), secret_text(secret, key)?)))
        .collect()
}

/// Go's `%.2f`.
fn two_places(value: f64) -> String {
    if value.is_finite() {
        format!("{value:.2}")
    } else {
        go_float(value)
    }
}

fn millis(value: f64) -> String {
    duration::display(Duration::from_secs_f64((value.max(0.0) / 1000.0).min(9e9)))
}

/// Flagger says the same of a template at the start of a sentence and within one.
fn lower_first(text: &str) -> String {
    text.replacen("Metric template", "metric template", 1)
}
