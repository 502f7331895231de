//! APISIX. It names the route; durations are in milliseconds.

use super::{Named, Observer, Series, rate};
use crate::metrics::template::Model;

/// APISIX.
#[derive(Clone, Copy, Debug)]
pub struct Apisix;

impl Observer for Apisix {
    /// The operator's route has the apex' name in its own. (Flagger asks for the target's name, and finds nothing if `spec.service.name` is
    /// another.)
    fn series(&self, model: &Model) -> Series {
        let Model {
            namespace,
            route,
            service,
            ..
        } = model;
        Series::new(
            format!("route=~\"{namespace}_{route}-{service}-canary_.+\""),
            "code!~\"5..\"",
            "apisix_http_status",
            "apisix_http_latency",
        )
    }

    fn duration_query(&self, model: &Model) -> String {
        let series = self.series(model);
        let buckets = format!("{}_bucket", series.durations);
        let rate = rate(model, &buckets, &self.buckets(&series));
        format!(" histogram_quantile( 0.99, {rate} by (le) )")
    }

    /// Both versions share one route of APISIX.
    fn named(&self) -> Named {
        Named::Neither
    }

    /// The type excludes the time that APISIX itself needs.
    fn buckets(&self, series: &Series) -> String {
        format!("type=~\"request\", {}", series.selector)
    }
}
