//! Datadog (Flagger: `pkg/metrics/providers/datadog.go`).

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

/// A query covers this many intervals of its metric.
const INTERVALS: u32 = 10;

/// Datadog's metrics API.
pub struct Datadog;

impl Provider for Datadog {
    fn name(&self) -> &'static str {
        "datadog"
    }

    fn access(&self, setup: &Setup<'_>) -> Result<Access, ServerError> {
        let find = |key| {
            let found = credential(setup.credentials, key).map(str::to_owned);
            found.ok_or(ServerError::MissingCredential {
                provider: "datadog",
                key,
            })
        };
        let endpoint = Endpoint::of(setup.spec, "https://api.datadoghq.com")?
            .with_header("DD-API-KEY", find("datadog_api_key")?)
            .with_header("DD-APPLICATION-KEY", find("datadog_application_key")?);
        let window = setup.window()?.saturating_mul(INTERVALS);
        Ok(Access { endpoint, window })
    }

    fn query(&self, access: &Access, query: &str, now: Timestamp) -> HttpRequest {
        let to = now.as_second();
        let from = to.saturating_sub_unsigned(access.window.as_secs());
        let (from, to) = (from.to_string(), to.to_string());
        let parameters = [("from", from.as_str()), ("query", query), ("to", &to)];
        access.endpoint.get("/api/v1/query", &parameters)
    }

    fn probe(&self, access: &Access) -> HttpRequest {
        access.endpoint.get("/api/v1/validate", &[])
    }

    /// The oldest point of the first series, as in Flagger: the newest point covers a time that has not ended. Null points are skipped;
    /// Flagger reads them as 0.
    fn value(&self, response: &HttpResponse) -> Result<f64, MetricError> {
        let body = accepted(response)?;
        let answer: Answer = json(body)?;
        let points = answer.series.into_iter().flatten().next();
        let points = points.and_then(|series| series.pointlist);
        let mut points = points.into_iter().flatten();
        let value = points.find_map(|point| point.get(1).copied()?);
        value.ok_or_else(|| MetricError::none_in(body))
    }
}

#[derive(Deserialize)]
struct Answer {
    series: Option<Vec<Series>>,
}

#[derive(Deserialize)]
struct Series {
    /// The milliseconds and the value of each point.
    pointlist: Option<Vec<Vec<Option<f64>>>>,
}
