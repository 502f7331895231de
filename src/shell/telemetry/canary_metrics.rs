//! The metrics `flagger_*` of canaries, with Flagger's names, labels and help texts.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use prometheus::{GaugeVec, Registry, TextEncoder};

use super::{
    metric::{Metric, MetricKind},
    operator_metrics::OperatorMetrics,
    series::{self, Numbers, RunEnd, Series},
};
use crate::{
    api::{
        canary::{Canary, CanaryPhase},
        percent::Percent,
    },
    shell::lock::lock,
};

const INFO: Metric = Metric::new(
    "flagger_info",
    MetricKind::Gauge,
    "Flagger version and mesh provider information",
)
.labels(&["version", "mesh_provider"]);
const TOTAL: Metric = Metric::new(
    "flagger_canary_total",
    MetricKind::Gauge,
    "Total number of canary objects",
)
.labels(&["namespace"]);

/// All metrics of this module.
pub const METRICS: [&Metric; 10] = [
    &INFO,
    &TOTAL,
    &series::STATUS,
    &series::WEIGHT,
    &series::METRIC_ANALYSIS,
    &series::EVIDENCE,
    &series::COMPARISON,
    &series::DURATION,
    &series::SUCCESSES,
    &series::FAILURES,
];

/// Records the metrics of canaries and renders `/metrics`. Clones share the numbers.
#[derive(Clone)]
pub struct CanaryMetrics(Arc<Inner>);

struct Inner {
    registry: Registry,
    info: GaugeVec,
    total: GaugeVec,
    series: Mutex<Series>,
}

/// How a run of a canary ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunResult {
    /// The version was promoted after its analysis.
    Promoted,
    /// The version was promoted without analysis (`skipAnalysis`).
    Skipped,
    /// The version was rolled back.
    Failed,
}

impl CanaryMetrics {
    /// Registers the metrics; none has a value yet.
    ///
    /// # Errors
    /// A metric is defined wrongly. No input leads here.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let gauge = |metric: &Metric| {
            let gauge = GaugeVec::new(metric.opts(), metric.labels)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        Ok(Self(Arc::new(Inner {
            info: gauge(&INFO)?,
            total: gauge(&TOTAL)?,
            series: Mutex::default(),
            registry,
        })))
    }

    /// Creates the metrics of the operator itself; [`Self::render`] writes them too.
    ///
    /// # Errors
    /// They were created before.
    pub fn operator_metrics(&self) -> Result<OperatorMetrics, prometheus::Error> {
        OperatorMetrics::new(&self.0.registry)
    }

    /// Records which version runs with which mesh provider.
    pub fn info(&self, version: &str, mesh_provider: &str) {
        self.0
            .info
            .with_label_values(&[version, mesh_provider])
            .set(1.0);
    }

    /// Records how many canaries each namespace has. The gauges of all other namespaces are removed.
    pub fn total(&self, namespaces: &BTreeMap<String, usize>) {
        self.0.total.reset();
        for (namespace, count) in namespaces {
            self.0
                .total
                .with_label_values(&[namespace])
                .set(f64::from(u32::try_from(*count).unwrap_or(u32::MAX)));
        }
    }

    /// Records the state of a release: 0 while it runs, 2 if it failed, otherwise 1.
    pub fn status(&self, canary: &Canary, phase: CanaryPhase) {
        let value = match phase {
            CanaryPhase::Progressing => 0,
            CanaryPhase::Failed => 2,
            _ => 1,
        };
        self.update(canary, |numbers| numbers.status = Some(value));
    }

    /// Records the shares of traffic that the primary and the canary get.
    pub fn weights(&self, canary: &Canary, primary: Percent, share: Percent) {
        self.update(canary, |numbers| numbers.weights = Some((primary, share)));
    }

    /// Records the value of a metric of the analysis.
    pub fn sample(&self, canary: &Canary, metric: &str, value: f64) {
        self.update(canary, |numbers| numbers.sample(metric, value));
    }

    /// Records the state of the comparison of a metric with the primary, and its evidence.
    pub fn comparison(&self, canary: &Canary, metric: &str, state: &str, evidence: f64) {
        self.update(canary, |numbers| {
            numbers.comparison(metric, state, evidence);
        });
    }

    /// Removes the values of metrics that the analysis of a canary does not name any more.
    pub fn keep_named_samples(&self, canary: &Canary) {
        let analysis = canary.spec.analysis.as_ref();
        let named = |name: &str| {
            let mut metrics = analysis.iter().flat_map(|analysis| &analysis.metrics);
            metrics.any(|metric| metric.name == name)
        };
        self.update(canary, |numbers| numbers.keep_samples(named));
    }

    /// Records how long the questions of a step took.
    pub fn step(&self, canary: &Canary, seconds: f64) {
        self.update(canary, |numbers| numbers.step(seconds));
    }

    /// Counts a run that ended.
    pub fn run_ended(&self, canary: &Canary, result: RunResult) {
        let end = RunEnd {
            success: result != RunResult::Failed,
            strategy: canary.strategy().as_str(),
            analysis_status: match result {
                RunResult::Skipped => "skipped",
                RunResult::Promoted | RunResult::Failed => "completed",
            },
        };
        self.update(canary, |numbers| numbers.run_ended(end));
    }

    /// Removes the gauges of a deleted canary; its counters stay until many others were deleted.
    pub fn forget(&self, target: &str, namespace: &str) {
        self.series().forget(namespace, target);
    }

    /// Renders all metrics in the text format of Prometheus.
    pub fn render(&self) -> String {
        let mut text = TextEncoder::new()
            .encode_to_string(&self.0.registry.gather())
            .unwrap_or_default();
        self.series().write(&mut text);
        text
    }

    fn update(&self, canary: &Canary, change: impl FnOnce(&mut Numbers)) {
        let namespace = canary.metadata.namespace.as_deref().unwrap_or_default();
        change(self.series().of(namespace, &canary.spec.target_ref.name));
    }

    fn series(&self) -> MutexGuard<'_, Series> {
        lock(&self.0.series)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::*;
    use crate::shell::telemetry::exported_metrics;

    fn canary(name: &str) -> Canary {
        serde_json::from_value(json!({"apiVersion": "flagger.app/v1beta1", "kind": "Canary",
            "metadata": {"name": name, "namespace": "test"},
            "spec": {"targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": format!("{name}-app")},
                "service": {"port": 80}, "analysis": {"interval": "1m", "threshold": 1, "stepWeight": 10}}}))
        .unwrap()
    }

    /// Metrics in which every series of canaries has a value.
    fn filled() -> CanaryMetrics {
        let metrics = CanaryMetrics::new().unwrap();
        let canary = canary("podinfo");
        metrics.info("1.44.0", "istio");
        metrics.total(&[("test".to_owned(), 2)].into());
        metrics.status(&canary, CanaryPhase::Failed);
        metrics.weights(&canary, 95.into(), 5.into());
        metrics.sample(&canary, "request-success-rate", 99.5);
        metrics.comparison(&canary, "request-duration", "lowTraffic", 1.5);
        metrics.step(&canary, 0.3);
        metrics.run_ended(&canary, RunResult::Skipped);
        metrics.run_ended(&canary, RunResult::Failed);
        metrics
    }

    #[test]
    fn metrics_read_like_flaggers() {
        let text = filled().render();
        for line in [
            "# HELP flagger_info Flagger version and mesh provider information",
            "# TYPE flagger_info gauge",
            r#"flagger_info{mesh_provider="istio",version="1.44.0"} 1"#,
            r#"flagger_canary_total{namespace="test"} 2"#,
            r#"flagger_canary_status{name="podinfo-app",namespace="test"} 2"#,
            r#"flagger_canary_weight{namespace="test",workload="podinfo-app"} 5"#,
            r#"flagger_canary_weight{namespace="test",workload="podinfo-app-primary"} 95"#,
            r#"flagger_canary_metric_analysis{metric="request-success-rate",name="podinfo-app",namespace="test"} 99.5"#,
            r#"flagger_rs_canary_comparison_evidence{metric="request-duration",name="podinfo-app",namespace="test"} 1.5"#,
            r#"flagger_rs_canary_comparison_state{metric="request-duration",name="podinfo-app",namespace="test",state="lowTraffic"} 1"#,
            "# HELP flagger_canary_duration_seconds Seconds spent performing canary analysis.",
            "# TYPE flagger_canary_duration_seconds histogram",
            r#"flagger_canary_duration_seconds_bucket{name="podinfo-app",namespace="test",le="0.25"} 0"#,
            r#"flagger_canary_duration_seconds_bucket{name="podinfo-app",namespace="test",le="0.5"} 1"#,
            r#"flagger_canary_duration_seconds_bucket{name="podinfo-app",namespace="test",le="10"} 1"#,
            r#"flagger_canary_duration_seconds_bucket{name="podinfo-app",namespace="test",le="+Inf"} 1"#,
            r#"flagger_canary_duration_seconds_sum{name="podinfo-app",namespace="test"} 0.3"#,
            "# TYPE flagger_canary_successes_total counter",
            r#"flagger_canary_successes_total{analysis_status="skipped",deployment_strategy="canary",name="podinfo-app",namespace="test"} 1"#,
            r#"flagger_canary_failures_total{analysis_status="completed",deployment_strategy="canary",name="podinfo-app",namespace="test"} 1"#,
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n\n{text}");
        }
    }

    #[test]
    fn the_status_is_0_during_a_run_2_after_a_failure_and_otherwise_1() {
        use CanaryPhase as P;
        let metrics = CanaryMetrics::new().unwrap();
        for (phase, value) in [
            (P::Initializing, 1),
            (P::Initialized, 1),
            (P::Waiting, 1),
            (P::Progressing, 0),
            (P::Promoting, 1),
            (P::Finalising, 1),
            (P::Succeeded, 1),
            (P::Failed, 2),
        ] {
            metrics.status(&canary("a"), phase);
            let line = format!(r#"flagger_canary_status{{name="a-app",namespace="test"}} {value}"#);
            let text = metrics.render();
            assert!(text.lines().any(|l| l == line), "{phase}: {text}");
        }
    }

    #[test]
    fn gauges_show_the_last_value_and_counters_the_number_of_all() {
        let metrics = CanaryMetrics::new().unwrap();
        let canary = canary("a");
        for (share, value) in [(5, 99.0), (10, 98.5)] {
            metrics.weights(&canary, (100 - share).into(), share.into());
            metrics.sample(&canary, "rate", value);
            metrics.step(&canary, 2.0);
            metrics.run_ended(&canary, RunResult::Promoted);
        }
        metrics.run_ended(&canary, RunResult::Skipped);
        metrics.total(&[("test".to_owned(), 2), ("gone".to_owned(), 1)].into());
        metrics.total(&[("test".to_owned(), 3)].into());
        let text = metrics.render();
        let run = r#"deployment_strategy="canary",name="a-app",namespace="test""#;
        for line in [
            r#"flagger_canary_weight{namespace="test",workload="a-app"} 10"#,
            r#"flagger_canary_weight{namespace="test",workload="a-app-primary"} 90"#,
            r#"flagger_canary_metric_analysis{metric="rate",name="a-app",namespace="test"} 98.5"#,
            r#"flagger_canary_duration_seconds_count{name="a-app",namespace="test"} 2"#,
            r#"flagger_canary_duration_seconds_sum{name="a-app",namespace="test"} 4"#,
            r#"flagger_canary_duration_seconds_bucket{name="a-app",namespace="test",le="1"} 0"#,
            r#"flagger_canary_duration_seconds_bucket{name="a-app",namespace="test",le="2.5"} 2"#,
            &format!(r#"flagger_canary_successes_total{{analysis_status="completed",{run}}} 2"#),
            &format!(r#"flagger_canary_successes_total{{analysis_status="skipped",{run}}} 1"#),
            r#"flagger_canary_total{namespace="test"} 3"#,
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n\n{text}");
        }
        assert!(!text.contains("gone"), "{text}");
        assert!(!text.contains("flagger_canary_failures_total"), "{text}");
    }

    #[test]
    fn the_list_of_exported_metrics_is_the_one_that_is_rendered() {
        let metrics = filled();
        metrics.operator_metrics().unwrap().fill_for_tests();
        let text = metrics.render();
        let rendered: BTreeSet<_> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE "))
            .map(str::to_owned)
            .collect();
        let listed: BTreeSet<_> = exported_metrics()
            .map(|metric| format!("{} {}", metric.name, metric.kind))
            .collect();
        assert_eq!(rendered, listed);
        for Metric {
            name, help, labels, ..
        } in exported_metrics()
        {
            assert!(text.contains(&format!("# HELP {name} {help}\n")), "{name}");
            let lines = text.lines().filter(|line| line.starts_with(name));
            for label in *labels {
                assert!(
                    lines.clone().any(|l| l.contains(&format!("{label}=\""))),
                    "{name}: {label}"
                );
            }
        }
    }

    #[test]
    fn a_deleted_canary_leaves_no_gauge_and_takes_no_other_with_it() {
        let metrics = CanaryMetrics::new().unwrap();
        for name in ["gone", "stays"] {
            let canary = canary(name);
            metrics.status(&canary, CanaryPhase::Succeeded);
            metrics.weights(&canary, Percent::ALL, Percent::ZERO);
            // The spec does not name this metric any more.
            metrics.sample(&canary, "latency", 1.0);
        }
        metrics.forget("gone-app", "test");
        let text = metrics.render();
        assert!(!text.contains("gone"), "{text}");
        assert_eq!(text.matches("stays-app").count(), 4, "{text}");
    }

    #[test]
    fn counters_outlive_their_canary() {
        let metrics = CanaryMetrics::new().unwrap();
        metrics.status(&canary("a"), CanaryPhase::Succeeded);
        metrics.step(&canary("a"), 1.0);
        metrics.run_ended(&canary("a"), RunResult::Promoted);
        metrics.forget("a-app", "test");
        metrics.run_ended(&canary("a"), RunResult::Promoted);
        let text = metrics.render();
        let labels = r#"analysis_status="completed",deployment_strategy="canary",name="a-app",namespace="test""#;
        let line = format!("flagger_canary_successes_total{{{labels}}} 2");
        assert!(text.lines().any(|l| l == line), "{text}");
        assert!(
            text.contains("flagger_canary_duration_seconds_count"),
            "{text}"
        );
        assert!(!text.contains("flagger_canary_status"), "{text}");
    }

    #[test]
    fn a_name_cannot_break_out_of_its_label() {
        let metrics = CanaryMetrics::new().unwrap();
        let mut canary = canary("a");
        canary.spec.target_ref.name = "a\"} 1\nb\\".to_owned();
        metrics.status(&canary, CanaryPhase::Failed);
        let line = r#"flagger_canary_status{name="a\"} 1\nb\\",namespace="test"} 2"#;
        let text = metrics.render();
        assert!(text.lines().any(|l| l == line), "{text}");
    }
}
