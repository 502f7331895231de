//! ingress-nginx. Its duration is a mean, in seconds, which the query turns into milliseconds.

use super::{Observer, Series, rate};
use crate::{metrics::template::Model, snapshot::TargetKind};

/// ingress-nginx.
#[derive(Clone, Copy, Debug)]
pub struct Nginx;

impl Observer for Nginx {
    fn series(&self, model: &Model) -> Series {
        series(model, "canary!=\"\"")
    }

    fn duration_query(&self, model: &Model) -> String {
        let series = self.series(model);
        let of = |suffix| {
            let counter = format!("{}_{suffix}", series.durations);
            rate(model, &counter, &series.selector)
        };
        format!(" {} / {} * 1000", of("sum"), of("count"))
    }

    fn primary_series(&self, model: &Model, _primary: &str) -> Option<Series> {
        Some(series(model, "canary=\"\""))
    }

    fn counts_pods(&self) -> bool {
        false
    }

    fn has_histogram(&self) -> bool {
        false
    }

    fn compares(&self, _kind: TargetKind) -> bool {
        true
    }
}

/// The series of a version's requests. The label `canary` has the Service of the canary, and is empty for the primary.
fn series(model: &Model, version: &str) -> Series {
    let Model {
        namespace, ingress, ..
    } = model;
    Series::new(
        format!("namespace=\"{namespace}\", ingress=\"{ingress}\", {version}"),
        "status!~\"5.*\"",
        "nginx_ingress_controller_requests",
        "nginx_ingress_controller_response_duration_seconds",
    )
}
