//! The table of metric providers.
//!
//! A new provider is a file here, a row of [`PROVIDERS`], a row of the table in `metrics/tests/table.rs` and an example in
//! `examples/metrics`; the tests fail while one is missing. (The CRD already lists the types that Flagger has.)

mod azure_monitor;
mod cloudwatch;
mod datadog;
mod dynatrace;
mod external_metrics;
mod graphite;
mod influxdb;
mod keptn;
mod new_relic;
pub mod prometheus;
mod splunk;
mod stackdriver;

use super::provider::Provider;

/// All providers.
pub static PROVIDERS: &[&dyn Provider] = &[
    &prometheus::Prometheus,
    &datadog::Datadog,
    &new_relic::NewRelic,
    &graphite::Graphite,
    &dynatrace::Dynatrace,
    &influxdb::InfluxDb,
    &keptn::Keptn,
    &external_metrics::ExternalMetrics,
    &splunk::Splunk,
    &azure_monitor::AzureMonitor,
    &cloudwatch::CloudWatch,
    &stackdriver::Stackdriver,
];

/// Returns the provider of MetricTemplates with this `type`.
pub fn named(name: &str) -> Option<&'static dyn Provider> {
    PROVIDERS
        .iter()
        .copied()
        .find(|provider| provider.name() == name)
}

/// Returns the names of all providers, in the order of the table.
pub fn names() -> impl Iterator<Item = &'static str> {
    PROVIDERS.iter().map(|provider| provider.name())
}

/// Returns the names as part of a sentence: `prometheus, datadog and graphite`.
pub fn listed() -> String {
    let names: Vec<_> = names().collect();
    match names.as_slice() {
        [] => String::new(),
        [only] => (*only).to_owned(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}
