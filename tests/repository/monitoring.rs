//! The dashboard and the alerts query metrics that exist.

use flagger_rs::shell::telemetry::{self, MetricKind};

use crate::{files, queries};

/// Istio's metrics of requests.
const ISTIO: [&str; 2] = [
    "istio_requests_total",
    "istio_request_duration_milliseconds_bucket",
];

#[test]
fn each_metric_of_the_dashboard_and_the_alerts_is_exported() {
    let exported: Vec<String> = telemetry::exported_metrics()
        .flat_map(|metric| match metric.kind {
            MetricKind::Histogram => ["bucket", "count", "sum"]
                .map(|part| format!("{}_{part}", metric.name))
                .to_vec(),
            _ => vec![metric.name.to_owned()],
        })
        .chain(ISTIO.map(str::to_owned))
        .collect();
    let queries = [queries::dashboard_queries(), queries::alert_queries()].concat();
    assert!(queries.len() > 25, "{}", queries.len());
    for query in queries {
        let words = query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let named: Vec<_> = words
            .filter(|word| word.starts_with("flagger_") || word.starts_with("istio_"))
            .collect();
        assert!(!named.is_empty(), "no metric: {query}");
        for metric in named {
            assert!(
                exported.iter().any(|name| name == metric),
                "{metric} in {query}"
            );
        }
    }
}

/// A person selects one canary by its namespace and its name.
#[test]
fn the_dashboard_has_a_variable_for_each_name_in_its_queries() {
    let [dashboard] = files::objects(&files::path(queries::DASHBOARD))
        .try_into()
        .unwrap();
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let variables: Vec<_> = variables
        .iter()
        .map(|variable| variable["name"].as_str().unwrap())
        .chain(["__rate_interval", "1"])
        .collect();
    for query in queries::dashboard_queries() {
        for rest in query.split('$').skip(1) {
            let name = rest
                .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                .next();
            assert!(variables.contains(&name.unwrap()), "{name:?} in {query}");
        }
    }
}
