//! The metrics `flagger_rs_*` of the operator's own work; Flagger has none of them.

use std::{collections::HashMap, sync::Arc, time::Duration};

use prometheus::{
    Error, Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry, core::Collector,
};

use super::metric::{Metric, MetricKind};
use crate::snapshot::Kind;

/// Upper bounds in seconds: from a usual reconciliation up to delays that a user would notice.
const BUCKETS: [f64; 10] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.0, 10.0];

const RECONCILE_DURATION: Metric = Metric::new(
    "flagger_rs_reconcile_duration_seconds",
    MetricKind::Histogram,
    "Seconds that one reconciliation of a canary took, including its writes",
);
const TICK_LATENESS: Metric = Metric::new(
    "flagger_rs_tick_lateness_seconds",
    MetricKind::Histogram,
    "Seconds between the scheduled time of a reconciliation and its start",
);
const RECONCILE_ERRORS: Metric = Metric::new(
    "flagger_rs_reconcile_errors_total",
    MetricKind::Counter,
    "Reconciliations of a canary that failed, by category of the error",
)
.labels(&["category"]);
const REFUSED_PLANS: Metric = Metric::new(
    "flagger_rs_refused_plans_total",
    MetricKind::Counter,
    "Plans that the safety audit refused",
)
.labels(&["name", "namespace"]);
const API_REQUESTS: Metric = Metric::new(
    "flagger_rs_api_requests_total",
    MetricKind::Counter,
    "Requests to the API server, except those of watches and of the leader election",
)
.labels(&["verb", "kind"]);
const CONFLICTS: Metric = Metric::new(
    "flagger_rs_conflicts_total",
    MetricKind::Counter,
    "Writes that the API server rejected because the object had changed since it was read",
);
const CACHE_MISSES: Metric = Metric::new(
    "flagger_rs_cache_misses_total",
    MetricKind::Counter,
    "Objects of watched kinds that were read from the API server because the cache had no current copy",
);
const CALLS_IN_FLIGHT: Metric = Metric::new(
    "flagger_rs_answers_in_flight",
    MetricKind::Gauge,
    "Calls of webhooks, metric servers and chats that wait for an answer",
);
const CACHE_OBJECTS: Metric = Metric::new(
    "flagger_rs_cache_objects",
    MetricKind::Gauge,
    "Objects in the cache",
)
.labels(&["kind"]);
const CACHE_BYTES: Metric = Metric::new(
    "flagger_rs_cache_bytes",
    MetricKind::Gauge,
    "Bytes of compressed objects in the cache",
)
.labels(&["kind"]);

/// All metrics of this module.
pub const METRICS: [&Metric; 10] = [
    &RECONCILE_DURATION,
    &TICK_LATENESS,
    &RECONCILE_ERRORS,
    &REFUSED_PLANS,
    &API_REQUESTS,
    &CONFLICTS,
    &CACHE_MISSES,
    &CALLS_IN_FLIGHT,
    &CACHE_OBJECTS,
    &CACHE_BYTES,
];

/// Counts the operator's own work. Clones share the numbers.
#[derive(Clone)]
pub struct OperatorMetrics(Arc<Inner>);

struct Inner {
    reconcile_duration: Histogram,
    tick_lateness: Histogram,
    reconcile_errors: IntCounterVec,
    refused_plans: IntCounterVec,
    api_requests: IntCounterVec,
    conflicts: IntCounter,
    cache_misses: IntCounter,
    calls_in_flight: IntGauge,
    cache_objects: IntGaugeVec,
    cache_bytes: IntGaugeVec,
}

impl OperatorMetrics {
    /// Registers the metrics, all at zero.
    pub(super) fn new(registry: &Registry) -> Result<Self, Error> {
        let seconds = |metric: &Metric| {
            registered(
                registry,
                Histogram::with_opts(metric.histogram_opts(&BUCKETS)),
            )
        };
        let counter = |metric: &Metric| registered(registry, IntCounter::with_opts(metric.opts()));
        let counters = |metric: &Metric| {
            registered(registry, IntCounterVec::new(metric.opts(), metric.labels))
        };
        let gauges =
            |metric: &Metric| registered(registry, IntGaugeVec::new(metric.opts(), metric.labels));
        Ok(Self(Arc::new(Inner {
            reconcile_duration: seconds(&RECONCILE_DURATION)?,
            tick_lateness: seconds(&TICK_LATENESS)?,
            reconcile_errors: counters(&RECONCILE_ERRORS)?,
            refused_plans: counters(&REFUSED_PLANS)?,
            api_requests: counters(&API_REQUESTS)?,
            conflicts: counter(&CONFLICTS)?,
            cache_misses: counter(&CACHE_MISSES)?,
            calls_in_flight: registered(registry, IntGauge::with_opts(CALLS_IN_FLIGHT.opts()))?,
            cache_objects: gauges(&CACHE_OBJECTS)?,
            cache_bytes: gauges(&CACHE_BYTES)?,
        })))
    }

    /// Records how long a reconciliation took.
    pub fn reconciled(&self, took: Duration) {
        self.0.reconcile_duration.observe(took.as_secs_f64());
    }

    /// Records how much later than its tick a reconciliation began.
    pub fn late(&self, by: Duration) {
        self.0.tick_lateness.observe(by.as_secs_f64());
    }

    /// Counts a reconciliation that failed.
    pub fn error(&self, category: &str) {
        self.0.reconcile_errors.with_label_values(&[category]).inc();
    }

    /// Counts a plan of a canary that the audit refused.
    pub fn plan_refused(&self, name: &str, namespace: &str) {
        self.0
            .refused_plans
            .with_label_values(&[name, namespace])
            .inc();
    }

    /// Removes the counter of a deleted canary.
    pub fn forget(&self, name: &str, namespace: &str) {
        // This fails if no plan of the canary was refused.
        let _ = self.0.refused_plans.remove_label_values(&[name, namespace]);
    }

    /// Counts a request to the API server.
    pub fn request(&self, verb: &str, kind: &str) {
        self.0.api_requests.with_label_values(&[verb, kind]).inc();
    }

    /// Counts a write that failed because another write had changed the object.
    pub fn conflict(&self) {
        self.0.conflicts.inc();
    }

    /// Counts objects that the cache could not supply.
    pub fn cache_misses(&self, objects: usize) {
        self.0
            .cache_misses
            .inc_by(u64::try_from(objects).unwrap_or(0));
    }

    /// Counts a call as in flight until the returned value is dropped.
    pub fn call_in_flight(&self) -> CallInFlight {
        self.0.calls_in_flight.inc();
        CallInFlight(self.0.calls_in_flight.clone())
    }

    /// Records the contents of the cache: objects and bytes of each kind. Versions of one kind count together.
    pub fn cached(&self, sizes: &HashMap<Kind, (usize, usize)>) {
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.0.cache_objects.reset();
        self.0.cache_bytes.reset();
        for (kind, (objects, bytes)) in sizes {
            let labels = [kind.name()];
            let of_kind = self.0.cache_objects.with_label_values(&labels);
            of_kind.add(number(*objects));
            let of_kind = self.0.cache_bytes.with_label_values(&labels);
            of_kind.add(number(*bytes));
        }
    }

    /// Gives every metric a value, so that all of them are rendered.
    #[cfg(test)]
    pub(super) fn fill_for_tests(&self) {
        self.reconciled(Duration::from_millis(1));
        self.late(Duration::from_millis(1));
        self.error("conflict");
        self.plan_refused("podinfo", "test");
        self.request("get", "Canary");
        self.cached(&[(Kind::Canary, (1, 1))].into());
    }
}

fn registered<C: Collector + Clone + 'static>(
    registry: &Registry,
    collector: Result<C, Error>,
) -> Result<C, Error> {
    let collector = collector?;
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

/// A call that waits for its answer.
pub struct CallInFlight(IntGauge);

impl Drop for CallInFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::telemetry::canary_metrics::CanaryMetrics;

    #[test]
    fn each_number_is_that_of_its_metric() {
        let all = CanaryMetrics::new().unwrap();
        let metrics = all.operator_metrics().unwrap();
        metrics.reconciled(Duration::from_millis(20));
        metrics.late(Duration::from_secs(3));
        metrics.error("lost");
        metrics.plan_refused("web", "shop");
        metrics.request("get", "Canary");
        metrics.conflict();
        metrics.cache_misses(4);
        let _call = metrics.call_in_flight();
        drop(metrics.call_in_flight());
        metrics.cached(&[(Kind::Service, (9, 900))].into());
        // Versions of one kind count together, and the earlier numbers are gone.
        let routes = [
            (Kind::HttpRoute, (1, 10)),
            (Kind::HttpRouteV1Beta1, (2, 20)),
        ];
        metrics.cached(&routes.into());
        let text = all.render();
        for line in [
            r#"flagger_rs_reconcile_duration_seconds_bucket{le="0.01"} 0"#,
            r#"flagger_rs_reconcile_duration_seconds_bucket{le="0.025"} 1"#,
            "flagger_rs_tick_lateness_seconds_sum 3",
            r#"flagger_rs_reconcile_errors_total{category="lost"} 1"#,
            r#"flagger_rs_refused_plans_total{name="web",namespace="shop"} 1"#,
            r#"flagger_rs_api_requests_total{kind="Canary",verb="get"} 1"#,
            "flagger_rs_conflicts_total 1",
            "flagger_rs_cache_misses_total 4",
            "flagger_rs_answers_in_flight 1",
            r#"flagger_rs_cache_objects{kind="HTTPRoute"} 3"#,
            r#"flagger_rs_cache_bytes{kind="HTTPRoute"} 30"#,
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n\n{text}");
        }
        assert!(!text.contains("Service"), "{text}");
        metrics.forget("web", "shop");
        metrics.forget("other", "shop");
        let text = all.render();
        assert!(!text.contains("refused_plans"), "{text}");
    }
}
