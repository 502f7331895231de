//! The queries of the dashboard and of the alerts, for the test targets that check them.

use serde_json::Value;

use crate::files;

/// Grafana's dashboard.
pub const DASHBOARD: &str = "deploy/monitoring/dashboard.json";

/// The queries of the dashboard's panels and variables, with Grafana's variables in them.
pub fn dashboard_queries() -> Vec<String> {
    let text = std::fs::read_to_string(files::path(DASHBOARD)).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let panels = list(&dashboard["panels"]).into_iter();
    let queries = panels.flat_map(|panel| list(&panel["targets"]));
    let queries = queries.map(|target| target["expr"].as_str().unwrap().to_owned());
    let variables = list(&dashboard["templating"]["list"]).into_iter();
    let variables = variables.filter_map(|variable| {
        let query = variable["query"]["query"].as_str()?;
        let inner = query.strip_prefix("query_result(")?.strip_suffix(')')?;
        Some(inner.to_owned())
    });
    queries.chain(variables).collect()
}

/// The queries of the alerting rules.
pub fn alert_queries() -> Vec<String> {
    let [rules] = files::objects(&files::path("deploy/monitoring/alerts.yaml"))
        .try_into()
        .unwrap();
    let groups = rules["groups"].as_array().unwrap().iter();
    let rules = groups.flat_map(|group| group["rules"].as_array().unwrap());
    rules
        .map(|rule| rule["expr"].as_str().unwrap().to_owned())
        .collect()
}
