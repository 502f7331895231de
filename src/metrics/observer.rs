//! The built-in metrics: Flagger's exact queries. Each file has an observer: a system that reports the requests of a canary
//! (`pkg/metrics/observers`).
//!
//! A new observer is a file with an [`Observer`], and the column `queries` of its row in `PROVIDERS` in `src/providers/mod.rs`.

pub mod apisix;
pub mod appmesh;
pub mod contour;
pub mod gloo;
pub mod http;
pub mod istio;
pub mod knative;
pub mod kuma;
pub mod linkerd;
pub mod nginx;
pub mod osm;
pub mod skipper;
pub mod traefik;

use std::fmt::Debug;

use super::{MetricError, template::Model};
use crate::snapshot::TargetKind;

/// The built-in metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Builtin {
    /// `request-success-rate`: the percentage of requests that did not fail.
    SuccessRate,
    /// `request-duration`: the 99th percentile, in milliseconds.
    Duration,
}

impl Builtin {
    /// The built-in metric of this name.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "request-success-rate" => Some(Self::SuccessRate),
            "request-duration" => Some(Self::Duration),
            _ => None,
        }
    }
}

/// The objects that series name. The requests of both versions can be compared only if each version has a name of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// Deployments or their pods.
    Deployments,
    /// Deployments and DaemonSets.
    Workloads,
    /// The Services, or Knative's Revisions, to which a gateway or a proxy of the client sends requests. The counters are not those of
    /// pods.
    Services,
    /// An object that both versions share, or none.
    Neither,
}

impl Named {
    /// Whether both versions of a target of this kind have series of their own.
    pub const fn separates(self, kind: TargetKind) -> bool {
        match self {
            Self::Deployments => matches!(kind, TargetKind::Deployment),
            Self::Workloads => matches!(kind, TargetKind::Deployment | TargetKind::DaemonSet),
            Self::Services => true,
            Self::Neither => false,
        }
    }

    /// Whether the counters are those of the workload's pods.
    pub const fn counts_pods(self) -> bool {
        matches!(self, Self::Deployments | Self::Workloads)
    }
}

/// The built-in metrics of one system that reports the requests of a canary to Prometheus.
pub trait Observer: Debug + Sync {
    /// The series of a version's requests.
    fn series(&self, model: &Model) -> Series;

    /// The series from which the requests of a version are counted. These counts are not part of Flagger, so the series may be others than those
    /// of its queries.
    fn counted(&self, model: &Model) -> Series {
        self.series(model)
    }

    /// The query of a built-in metric. (The leading space is Flagger's, so that test servers that expect Flagger's queries accept ours.)
    fn query(&self, metric: Builtin, model: &Model) -> String {
        match metric {
            Builtin::SuccessRate => {
                let series = self.series(model);
                let succeeded = rate(model, series.requests, &series.succeeded);
                let all = rate(model, series.requests, &series.selector);
                format!(" {succeeded} / {all} * 100")
            }
            Builtin::Duration => self.duration_query(model),
        }
    }

    /// The query of `request-duration`: the 99th percentile of the histogram.
    fn duration_query(&self, model: &Model) -> String {
        let series = self.series(model);
        let buckets = format!("{}_bucket", series.durations);
        let rate = rate(model, &buckets, &series.selector);
        format!(" histogram_quantile( 0.99, {rate} by (le) )")
    }

    /// The objects that the series name.
    fn named(&self) -> Named {
        Named::Deployments
    }

    /// Whether durations are a histogram.
    fn has_histogram(&self) -> bool {
        true
    }

    /// The labels of the buckets of durations.
    fn buckets(&self, series: &Series) -> String {
        series.selector.trim_end_matches(',').to_owned()
    }

    /// The milliseconds of one unit of the bounds of the histogram.
    fn unit_millis(&self) -> f64 {
        1.0
    }

    /// A value of `request-duration`, in whole milliseconds.
    fn millis(&self, duration: f64) -> f64 {
        duration.trunc()
    }

    /// The text that users read if the query of a metric gave no value.
    fn failure(&self, _metric: Builtin, error: &MetricError) -> String {
        format!("running query failed: {error}")
    }
}

/// The Prometheus series in which an observer reports the canary's requests.
#[derive(Clone, Debug)]
pub struct Series {
    /// The labels of all requests.
    pub(super) selector: String,
    /// The labels of the requests that did not fail.
    pub(super) succeeded: String,
    /// The name of the counter of requests.
    pub(super) requests: &'static str,
    /// The name of the histogram of durations, without its suffix.
    pub(super) durations: &'static str,
}

impl Series {
    /// Series in which the requests that did not fail have one more label.
    fn new(
        selector: String,
        success: &str,
        requests: &'static str,
        durations: &'static str,
    ) -> Self {
        Self {
            succeeded: format!("{selector}, {success}"),
            selector,
            requests,
            durations,
        }
    }
}

/// The series of an Envoy's cluster with these labels. Flagger's selector ends with a comma.
fn of_envoy(labels: &str) -> Series {
    Series {
        succeeded: format!("{labels}, envoy_response_code!~\"5.*\""),
        selector: format!("{labels},"),
        requests: "envoy_cluster_upstream_rq",
        durations: "envoy_cluster_upstream_rq_time",
    }
}

/// The labels of the samples that the target's pods report. Flagger's pattern is that of the pods of a Deployment.
fn of_pods(model: &Model) -> String {
    let Model {
        namespace, target, ..
    } = model;
    format!(
        "kubernetes_namespace=\"{namespace}\", kubernetes_pod_name=~\"{target}-[0-9a-zA-Z]+(-[0-9a-zA-Z]+)\""
    )
}

/// The rate of a counter over the interval, summed over all series with these labels.
fn rate(model: &Model, counter: &str, selector: &str) -> String {
    let interval = &model.interval;
    format!("sum( rate( {counter}{{ {selector} }}[{interval}] ) )")
}

#[cfg(test)]
mod tests {
    use super::{http::Http, istio::Istio, *};

    #[test]
    fn the_seconds_of_an_application_become_milliseconds() {
        assert!((Http.millis(0.123_9) - 123.0).abs() < f64::EPSILON);
        assert!((Istio.millis(123.9) - 123.0).abs() < f64::EPSILON);
    }

    #[test]
    fn the_built_in_metrics_have_flaggers_names() {
        assert_eq!(
            Builtin::named("request-success-rate"),
            Some(Builtin::SuccessRate)
        );
        assert_eq!(Builtin::named("request-duration"), Some(Builtin::Duration));
        assert_eq!(Builtin::named("request"), None);
    }
}
