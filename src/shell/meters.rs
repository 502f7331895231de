//! How the operator itself fares: the `flagger_rs_*` metrics, beside Flagger's.

use std::{collections::HashMap, sync::Arc, time::Duration};

use prometheus::{
    Error, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, core::Collector,
};

use crate::snapshot::Kind;

/// Seconds, from what a look takes to what somebody would notice.
const BUCKETS: [f64; 10] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.0, 10.0];

/// What is counted of the operator's own work.
#[derive(Clone)]
pub struct Meters(Arc<Counted>);

struct Counted {
    looks: Histogram,
    lateness: Histogram,
    errors: IntCounterVec,
    refused: IntCounterVec,
    requests: IntCounterVec,
    conflicts: IntCounter,
    fences: IntCounter,
    answers: IntGauge,
    objects: IntGaugeVec,
    bytes: IntGaugeVec,
}

impl Meters {
    /// All at nothing, shown by this registry.
    pub fn new(registry: &Registry) -> Result<Self, Error> {
        fn shown<C: Collector + Clone + 'static>(
            registry: &Registry,
            collector: Result<C, Error>,
        ) -> Result<C, Error> {
            let collector = collector?;
            registry.register(Box::new(collector.clone()))?;
            Ok(collector)
        }
        let seconds = |name, help| {
            Histogram::with_opts(HistogramOpts::new(name, help).buckets(BUCKETS.to_vec()))
        };
        Ok(Self(Arc::new(Counted {
            looks: shown(
                registry,
                seconds(
                    "flagger_rs_reconcile_duration_seconds",
                    "Seconds that a look at a canary took, with its writes",
                ),
            )?,
            lateness: shown(
                registry,
                seconds(
                    "flagger_rs_tick_lateness_seconds",
                    "Seconds between the instant at which a canary was to be looked at and the look",
                ),
            )?,
            errors: shown(
                registry,
                IntCounterVec::new(
                    Opts::new(
                        "flagger_rs_reconcile_errors_total",
                        "Looks at a canary that came to nothing, by why",
                    ),
                    &["category"],
                ),
            )?,
            refused: shown(
                registry,
                IntCounterVec::new(
                    Opts::new(
                        "flagger_rs_refused_plans_total",
                        "Plans that would have been unsafe",
                    ),
                    &["name", "namespace"],
                ),
            )?,
            requests: shown(
                registry,
                IntCounterVec::new(
                    Opts::new(
                        "flagger_rs_api_requests_total",
                        "Requests to the API server but those of watches and of the leader election",
                    ),
                    &["verb", "kind"],
                ),
            )?,
            conflicts: shown(
                registry,
                IntCounter::new(
                    "flagger_rs_conflicts_total",
                    "Writes that lost against a change that was not seen yet",
                ),
            )?,
            fences: shown(
                registry,
                IntCounter::new(
                    "flagger_rs_fence_waits_total",
                    "Reads of the API server because the caches could not be relied on, or did not know the object yet",
                ),
            )?,
            answers: shown(
                registry,
                IntGauge::new(
                    "flagger_rs_answers_in_flight",
                    "Calls of webhooks, metric servers and chats under way",
                ),
            )?,
            objects: shown(
                registry,
                IntGaugeVec::new(
                    Opts::new("flagger_rs_cache_objects", "Objects in the caches"),
                    &["kind"],
                ),
            )?,
            bytes: shown(
                registry,
                IntGaugeVec::new(
                    Opts::new("flagger_rs_cache_bytes", "Bytes of objects in the caches"),
                    &["kind"],
                ),
            )?,
        })))
    }

    /// A look at a canary took so long.
    pub fn reconcile(&self, took: Duration) {
        self.0.looks.observe(took.as_secs_f64());
    }

    /// A look at a canary began so long after it was tick.
    pub fn late(&self, by: Duration) {
        self.0.lateness.observe(by.as_secs_f64());
    }

    /// A look came to nothing.
    pub fn error(&self, category: &str) {
        self.0.errors.with_label_values(&[category]).inc();
    }

    /// A plan was refused.
    pub fn refused(&self, name: &str, namespace: &str) {
        self.0.refused.with_label_values(&[name, namespace]).inc();
    }

    /// A request was sent.
    pub fn request(&self, verb: &str, kind: &str) {
        self.0.requests.with_label_values(&[verb, kind]).inc();
    }

    /// A write lost.
    pub fn conflict(&self) {
        self.0.conflicts.inc();
    }

    /// So many objects had to be read.
    pub fn fenced(&self, objects: usize) {
        self.0.fences.inc_by(u64::try_from(objects).unwrap_or(0));
    }

    /// A call begins; it is over when this is dropped.
    pub fn answering(&self) -> Answering {
        self.0.answers.inc();
        Answering(self.0.answers.clone())
    }

    /// What the caches hold: objects and bytes by kind, whatever its version.
    pub fn cached(&self, sizes: &HashMap<Kind, (usize, usize)>) {
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.0.objects.reset();
        self.0.bytes.reset();
        for (kind, (objects, bytes)) in sizes {
            let labels = [kind.name()];
            let of_kind = self.0.objects.with_label_values(&labels);
            of_kind.add(number(*objects));
            let of_kind = self.0.bytes.with_label_values(&labels);
            of_kind.add(number(*bytes));
        }
    }
}

/// A call under way.
pub struct Answering(IntGauge);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.dec();
    }
}
