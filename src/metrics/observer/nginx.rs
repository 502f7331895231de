//! ingress-nginx. Its duration is a mean, in seconds, which the query turns into milliseconds.

use super::{Observer, Series, rate};
use crate::metrics::template::Model;

/// ingress-nginx.
#[derive(Clone, Copy, Debug)]
pub struct Nginx;

impl Observer for Nginx {
    fn series(&self, model: &Model) -> Series {
        let Model {
            namespace, ingress, ..
        } = model;
        Series::new(
            format!("namespace=\"{namespace}\", ingress=\"{ingress}\", canary!=\"\""),
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

    fn primary_series(&self, model: &Model, _primary: &str) -> Option<Series> {
        Some(self.series(model).renamed(r#"canary!="""#, r#"canary="""#))
    }

    fn counts_pods(&self) -> bool {
        false
    }

    fn has_histogram(&self) -> bool {
        false
    }
}
