//! The comparison that a Canary asks for: by the field `compare` of a metric, or by an annotation for all built-in metrics.

use crate::{
    api::compare::{ANNOTATION, Compare, CompareMode},
    comparison::{Margin, Measure, Rules},
    metrics::{counting::Counted, observer::Builtin},
    providers,
    rollout::checks::metric_query::{Check, Source, checks},
    snapshot::Snapshot,
};

/// The comparison that a Canary asks for.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The metric.
    pub builtin: Builtin,
    /// The settings of the test.
    pub compare: Compare,
    /// The effect.
    pub mode: CompareMode,
}

/// The comparison that the Canary asks for.
pub fn setting(snapshot: &Snapshot, check: &Check<'_>) -> Option<Setting> {
    let Source::Builtin(builtin) = check.source else {
        return None;
    };
    if builtin == Builtin::Duration && !providers::observer(snapshot).has_histogram() {
        return None;
    }
    let annotations = snapshot.canary.metadata.annotations.as_ref();
    let annotation = annotations.and_then(|all| all.get(ANNOTATION));
    let annotation = match annotation.map(String::as_str) {
        Some("compare") => Some(CompareMode::Enforce),
        Some("observe") => Some(CompareMode::Observe),
        _ => None,
    };
    let compare = check.metric.compare.clone();
    Some(Setting {
        builtin,
        compare: compare.or_else(|| annotation.map(|_| Compare::default()))?,
        mode: check.metric.mode.or(annotation).unwrap_or_default(),
    })
}

/// The first metric of a Canary that asks for a comparison which cannot be made: its place in the list, and the reason.
pub fn problem(snapshot: &Snapshot) -> Option<(usize, String)> {
    let checks = checks(&snapshot.canary);
    let problem = |check: &Check<'_>| {
        let compare = check.metric.compare.as_ref()?;
        let Source::Builtin(builtin) = check.source else {
            return Some(
                "only request-success-rate and request-duration can be compared".to_owned(),
            );
        };
        if let Some(problem) = compare.problem() {
            return Some(problem.to_owned());
        }
        let observer = providers::observer(snapshot);
        let counted = Counted::of(observer, &check.model(snapshot, "1m"), "");
        let can =
            counted.is_some() && (builtin == Builtin::SuccessRate || observer.has_histogram());
        let provider = providers::metrics_provider(snapshot);
        let name = &check.metric.name;
        (!can).then(|| {
            format!("the provider {provider} has no counters by which {name} can be compared")
        })
    };
    checks
        .iter()
        .find_map(|check| Some((check.place, problem(check)?)))
}

/// The rules of a test, of which a run has this many.
pub fn rules(setting: &Setting, tests: usize, counts_pods: bool) -> Option<Rules> {
    let compare = &setting.compare;
    let increase = compare.max_increase.unwrap_or(0.25) / 100.0;
    let false_alarms = compare.false_alarms.unwrap_or(5.0) / 100.0;
    let tests = u32::try_from(tests.max(1)).unwrap_or(u32::MAX);
    Some(Rules {
        measure: match setting.builtin {
            Builtin::SuccessRate => Measure::Errors,
            Builtin::Duration => Measure::Latency,
        },
        margin: Margin::new(increase, compare.max_factor.unwrap_or(1.25))?,
        false_alarms: false_alarms / f64::from(tests),
        detect: compare.detect.unwrap_or(1.0) / 100.0,
        least: compare.min_samples,
        counts_pods,
    })
}
