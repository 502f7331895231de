//! ingress-nginx. Its duration is a mean, in seconds, which the query turns into milliseconds.

use super::{Named, Observer, Series, rate};
use crate::metrics::template::Model;

/// ingress-nginx.
#[derive(Clone, Copy, Debug)]
pub struct Nginx;

impl Observer for Nginx {
    /// The label `canary` has the Service of the canary, and is empty for the primary.
    fn series(&self, model: &Model) -> Series {
        let Model {
            namespace, ingress, ..
        } = model;
        let version = if model.is_primary { "=" } else { "!=" };
        Series::new(
            format!("namespace=\"{namespace}\", ingress=\"{ingress}\", canary{version}\"\""),
            "status!~\"5.*\"",
            "nginx_ingress_controller_requests",
            "nginx_ingress_controller_response_duration_seconds",
        )
    }

    fn duration_query(&self, model: &Model) -> String {
        let series = self.series(model);
        let of = |suffix| {
            let counter = format!("{}_{suffix}", series.durations);
            rate(model, &counter, &series.selector)
        };
        format!(" {} / {} * 1000", of("sum"), of("count"))
    }

    fn named(&self) -> Named {
        Named::Services
    }

    fn has_histogram(&self) -> bool {
        false
    }
}
