//! APISIX. It names the route; durations are in milliseconds.

use super::{Observer, Series, rate};
use crate::metrics::template::Model;

/// APISIX.
#[derive(Clone, Copy, Debug)]
pub struct Apisix;

impl Observer for Apisix {
    /// The name of our route has the apex' name. (Flagger asks for the target's name, and finds nothing if `spec.service.name` is another.)
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

    /// Without the type, the time of APISIX itself would count, too.
    fn duration_query(&self, model: &Model) -> String {
        let series = self.series(model);
        let buckets = format!("{}_bucket", series.durations);
        let selector = format!("type=~\"request\", {}", series.selector);
        let rate = rate(model, &buckets, &selector);
        format!(" histogram_quantile( 0.99, {rate} by (le) )")
    }

    fn primary_series(&self, model: &Model, _primary: &str) -> Option<Series> {
        Some(self.series(model).renamed("-canary_", "-primary_"))
    }

    fn counts_pods(&self) -> bool {
        false
    }
}
