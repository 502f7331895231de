//! New Relic's Insights (Flagger: `pkg/metrics/providers/newrelic.go`).

use jiff::Timestamp;
use serde::Deserialize;

use crate::{
    metrics::{
        answer::{accepted, json},
        endpoint::{Endpoint, credential},
        error::{MetricError, ServerError},
        provider::{Access, Provider, Setup},
    },
    snapshot::{HttpRequest, HttpResponse},
};

/// The Insights query API of one account.
pub struct NewRelic;

impl Provider for NewRelic {
    fn name(&self) -> &'static str {
        "newrelic"
    }

    fn access(&self, setup: &Setup<'_>) -> Result<Access, ServerError> {
        // `shown` is the key with Flagger's words and quotes.
        let find = |key, shown| {
            let found = credential(setup.credentials, key).map(str::to_owned);
            found.ok_or(ServerError::MissingCredential {
                provider: "newrelic",
                key: shown,
            })
        };
        let account = find("newrelic_account_id", "the key 'newrelic_account_id'")?;
        let key = find("newrelic_query_key", "the key ''newrelic_query_key")?;
        let endpoint = Endpoint::of(setup.spec, "https://insights-api.newrelic.com")?
            .below(&format!("/v1/accounts/{account}"))
            .with_header("X-Query-Key", key);
        let window = setup.window()?;
        Ok(Access { endpoint, window })
    }

    fn query(&self, access: &Access, query: &str, _now: Timestamp) -> HttpRequest {
        let query = format!("{query} SINCE {} seconds ago", access.window.as_secs());
        access.endpoint.get("/query", &[("nrql", &query)])
    }

    /// A query that every account can answer.
    fn probe(&self, access: &Access) -> HttpRequest {
        self.query(access, "SELECT * FROM Metric", Timestamp::UNIX_EPOCH)
    }

    /// The value of the only result.
    fn value(&self, response: &HttpResponse) -> Result<f64, MetricError> {
        let body = accepted(response)?;
        let answer: Answer = json(body)?;
        match answer.results.as_deref() {
            Some(
                [
                    QueryResult {
                        result: Some(value),
                    },
                ],
            ) => Ok(*value),
            _ => Err(MetricError::none_in(body)),
        }
    }
}

#[derive(Deserialize)]
struct Answer {
    results: Option<Vec<QueryResult>>,
}

#[derive(Deserialize)]
struct QueryResult {
    result: Option<f64>,
}
