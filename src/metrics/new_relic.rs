//! New Relic's Insights (`pkg/metrics/providers/newrelic.go`).

use std::time::Duration;

use serde::Deserialize;

use super::{
    MetricError, accepted,
    endpoint::{Credentials, Endpoint, credential},
    json, window,
};
use crate::{
    api::metric_template::MetricTemplateProvider,
    snapshot::{HttpRequest, HttpResponse},
};

/// New Relic, as an account sees it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Server {
    endpoint: Endpoint,
    account: String,
    window: Duration,
}

impl Server {
    /// The server of a MetricTemplate, with account and key of its Secret. (The quotes are Flagger's.)
    pub fn of(
        spec: &MetricTemplateProvider,
        credentials: Option<&Credentials>,
        interval: Option<&str>,
    ) -> Result<Self, String> {
        let find = |key: &str, shown: &str| {
            credential(credentials, key)
                .map(str::to_owned)
                .ok_or_else(|| format!("newrelic credentials does not contain the key {shown}"))
        };
        let account = find("newrelic_account_id", "'newrelic_account_id'")?;
        let key = find("newrelic_query_key", "''newrelic_query_key")?;
        Ok(Self {
            endpoint: Endpoint::of(spec, "https://insights-api.newrelic.com")?
                .with("X-Query-Key", key),
            account,
            window: window(interval)?,
        })
    }

    /// The call that asks for a query's value.
    pub fn query(&self, query: &str) -> HttpRequest {
        let query = format!("{query} SINCE {} seconds ago", self.window.as_secs());
        let path = format!("/v1/accounts/{}/query", self.account);
        self.endpoint.get(&path, &[("nrql", &query)])
    }

    /// The query that every account can answer.
    pub fn probe(&self) -> HttpRequest {
        self.query("SELECT * FROM Metric")
    }
}

/// The value that an answer has: that of its only result.
pub fn parse(response: &HttpResponse) -> Result<f64, MetricError> {
    let body = accepted(response)?;
    let answer: Answer = json(body)?;
    match answer.results.as_deref() {
        Some(
            [
                Outcome {
                    result: Some(value),
                },
            ],
        ) => Ok(*value),
        _ => Err(MetricError::none_in(body)),
    }
}

#[derive(Deserialize)]
struct Answer {
    results: Option<Vec<Outcome>>,
}

#[derive(Deserialize)]
struct Outcome {
    result: Option<f64>,
}
