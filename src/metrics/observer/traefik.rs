//! Traefik. It reports durations in seconds, which the query turns into milliseconds.

use super::{Named, Observer, Series, rate};
use crate::metrics::template::Model;

/// Traefik.
#[derive(Clone, Copy, Debug)]
pub struct Traefik;

impl Observer for Traefik {
    /// Traefik names the Service. (Flagger asks for the target's name, and finds nothing if `spec.service.name` is another.)
    fn series(&self, model: &Model) -> Series {
        let Model {
            namespace, service, ..
        } = model;
        let version = model.version();
        let service =
            format!("service=~\"{namespace}-{service}-{version}-[0-9a-zA-Z-]+@kubernetescrd\"");
        // The last bucket counts all requests.
        Series {
            succeeded: format!("{service}, code!~\"5..\", le=\"+Inf\""),
            selector: format!("{service}, le=\"+Inf\""),
            requests: "traefik_service_request_duration_seconds_bucket",
            durations: "traefik_service_request_duration_seconds",
        }
    }

    fn duration_query(&self, model: &Model) -> String {
        let series = self.series(model);
        let buckets = format!("{}_bucket", series.durations);
        let rate = rate(model, &buckets, &self.buckets(&series));
        format!(" histogram_quantile( 0.99, {rate} by (le) ) * 1000")
    }

    fn named(&self) -> Named {
        Named::Services
    }

    fn unit_millis(&self) -> f64 {
        1000.0
    }

    /// Traefik's counter of requests is the last bucket.
    fn buckets(&self, series: &Series) -> String {
        series.selector.replace(", le=\"+Inf\"", "")
    }
}
