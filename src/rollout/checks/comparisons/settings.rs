//! The comparison that a Canary asks for: by the field `compare` of a metric, or by an annotation for all built-in metrics.

use std::time::Duration;

use crate::{
    api::compare::{ANNOTATION, Compare, CompareMode, CountQueries, Policy},
    api::{canary::CanaryMetric, duration},
    comparison::{Margin, Measure, Rules},
    metrics::{
        counting::Counted,
        observer::Builtin,
        template::{RenderError, render},
    },
    providers,
    rollout::checks::metric_query::{Check, Source, checks},
    snapshot::{Snapshot, TargetKind},
};

/// The comparison that a Canary asks for.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The requests that are bad.
    pub measure: Measure,
    /// The settings of the test.
    pub compare: Compare,
    /// The effect of the comparison on a release.
    pub mode: CompareMode,
    /// The counters of both versions.
    pub counted: Counted,
}

/// The comparison that the Canary asks for; `None` if a threshold decides alone.
pub fn setting(snapshot: &Snapshot, check: &Check<'_>) -> Option<Setting> {
    let annotations = snapshot.canary.metadata.annotations.as_ref();
    let annotation = annotations.and_then(|all| all.get(ANNOTATION));
    let annotation = match annotation.map(String::as_str) {
        Some("compare") => Some(CompareMode::Enforce),
        Some("observe") => Some(CompareMode::Observe),
        _ => None,
    };
    let compare = check.metric.compare.clone();
    let compare = compare.or_else(|| annotation.map(|_| Compare::default()))?;
    let (measure, counted) = counted(snapshot, check).ok()?;
    Some(Setting {
        measure,
        compare,
        mode: check.metric.mode.or(annotation).unwrap_or_default(),
        counted,
    })
}

/// The counters of a metric, or the reason why there are none.
fn counted(snapshot: &Snapshot, check: &Check<'_>) -> Result<(Measure, Counted), String> {
    let builtin = match check.source {
        Source::Builtin(builtin) => builtin,
        Source::Counts(queries) => {
            let counted = of_queries(snapshot, check, queries);
            let counted = counted.map_err(|error| format!("the query of counts: {error}"))?;
            return Ok((Measure::Errors, counted));
        }
        Source::Inline(_) | Source::Template(_) | Source::Nothing => {
            let why = "only request-success-rate, request-duration and metrics with counts can be compared";
            return Err(why.to_owned());
        }
    };
    let observer = providers::observer(snapshot);
    let measure = match builtin {
        Builtin::SuccessRate => Measure::Errors,
        Builtin::Duration => Measure::Latency,
    };
    let has_histogram = measure == Measure::Errors || observer.has_histogram();
    let kind = TargetKind::of(&snapshot.canary);
    let separates = kind.is_some_and(|kind| observer.named().separates(kind));
    if !has_histogram || !separates {
        let provider = providers::metrics_provider(snapshot);
        let (name, kind) = (&check.metric.name, &snapshot.canary.spec.target_ref.kind);
        return Err(format!(
            "the provider {provider} has no counters by which {name} of a {kind} can be compared"
        ));
    }
    let model = check.model(snapshot, "1m");
    Ok((measure, Counted::of(observer, &model, &primary(snapshot))))
}

fn of_queries(
    snapshot: &Snapshot,
    check: &Check<'_>,
    queries: &CountQueries,
) -> Result<Counted, RenderError> {
    let canary = check.model(snapshot, "1m");
    let primary = canary.of_primary(&primary(snapshot));
    let of = |model| Ok((render(&queries.all, model)?, render(&queries.bad, model)?));
    Ok(Counted::of_queries(of(&canary)?, of(&primary)?))
}

fn primary(snapshot: &Snapshot) -> String {
    let primary = snapshot.primary_reference().map(|primary| primary.name);
    primary.unwrap_or_default()
}

/// The first metric of a Canary that asks for a comparison which cannot be made: its place in the list, and the reason.
pub fn problem(snapshot: &Snapshot) -> Option<(usize, String)> {
    let checks = checks(&snapshot.canary);
    let problem = |check: &Check<'_>| match (&check.metric.compare, &check.source) {
        (None, Source::Counts(_)) => Some("is needed by counts".to_owned()),
        (None, _) => None,
        (Some(compare), _) => {
            let problem = compare.problem().map(str::to_owned);
            problem.or_else(|| counted(snapshot, check).err())
        }
    };
    let mut problems = checks.iter();
    let found = problems.find_map(|check| Some((check.place, problem(check)?)));
    found.or_else(|| ambiguous(&checks))
}

/// The first compared metric that has the name of another metric, or that has counts and also a query or a template.
fn ambiguous(checks: &[Check<'_>]) -> Option<(usize, String)> {
    let mut compared = checks.iter().filter(|check| check.metric.compare.is_some());
    compared.find_map(|check| {
        let has_value = check.metric.query.is_some() || check.metric.template_ref.is_some();
        let is_same = |other: &Check<'_>| {
            other.place != check.place && other.metric.name == check.metric.name
        };
        let problem = match () {
            () if check.metric.counts.is_some() && has_value => {
                "a metric with counts has neither query nor templateRef"
            }
            () if checks.iter().any(is_same) => "another metric has this name",
            () => return None,
        };
        Some((check.place, problem.to_owned()))
    })
}

/// A metric as a comparison would judge it, whether the Canary asks for one or not.
#[derive(Clone, Debug)]
pub struct Comparable {
    /// Its name.
    pub metric: String,
    /// The counters of both versions.
    pub counted: Counted,
    /// The rules of the test.
    pub rules: Rules,
    /// The settings of the comparison; the defaults if the Canary has none.
    pub compare: Compare,
    /// The treatment of a version without requests.
    pub no_data: Policy,
    /// The treatment of a version with too few requests.
    pub low_traffic: Policy,
    /// The least and the greatest value that its threshold accepts; `None` if it has none.
    pub limits: Option<(Option<f64>, Option<f64>)>,
    /// The time whose requests the threshold is about.
    pub window: Duration,
    /// The milliseconds of one unit of the bounds of durations.
    pub unit_millis: f64,
    /// Whether the Canary asks for the comparison.
    pub is_asked: bool,
}

/// The metrics of a canary, by their names: as comparisons would judge them, or the reasons why they cannot.
pub fn comparable(snapshot: &Snapshot) -> Vec<(String, Result<Comparable, String>)> {
    let checks = checks(&snapshot.canary);
    let counted: Vec<_> = checks
        .iter()
        .map(|check| counted(snapshot, check))
        .collect();
    let tests = counted.iter().filter(|it| it.is_ok()).count();
    let of = |(check, counted): (&Check<'_>, Result<(Measure, Counted), String>)| {
        let metric = check.metric;
        let comparable = counted.and_then(|(measure, counted)| {
            let setting = Setting {
                measure,
                compare: metric.compare.clone().unwrap_or_default(),
                mode: CompareMode::Enforce,
                counted,
            };
            let rules = rules(&setting, tests).ok_or("its margin is invalid")?;
            let has_limit = metric.threshold_range.is_some() || metric.threshold.is_some();
            let has_value = !matches!(check.source, Source::Counts(_));
            Ok(Comparable {
                metric: metric.name.clone(),
                counted: setting.counted,
                rules,
                compare: setting.compare,
                no_data: metric.on_no_data.unwrap_or_default(),
                low_traffic: metric.on_low_traffic.unwrap_or_default(),
                limits: (has_value && has_limit).then(|| check.bounds()),
                window: window(metric),
                unit_millis: providers::observer(snapshot).unit_millis(),
                is_asked: self::setting(snapshot, check).is_some(),
            })
        });
        (metric.name.clone(), comparable)
    };
    checks.iter().zip(counted).map(of).collect()
}

/// The time that the queries of a metric are about.
fn window(metric: &CanaryMetric) -> Duration {
    let own = metric.interval.as_deref().and_then(duration::parse);
    own.unwrap_or(Duration::from_secs(60))
}

/// The rules of one test. `tests` is the number of tests in a run.
pub fn rules(setting: &Setting, tests: usize) -> Option<Rules> {
    let compare = &setting.compare;
    let increase = compare.max_increase.unwrap_or(0.25) / 100.0;
    let false_alarms = compare.false_alarms.unwrap_or(5.0) / 100.0;
    let tests = u32::try_from(tests.max(1)).unwrap_or(u32::MAX);
    Some(Rules {
        measure: setting.measure,
        margin: Margin::new(increase, compare.max_factor.unwrap_or(1.25))?,
        false_alarms: false_alarms / f64::from(tests),
        detect: compare.detect.unwrap_or(1.0) / 100.0,
        least: compare.min_samples,
    })
}
