//! Dynatrace (Flagger: `pkg/metrics/providers/dynatrace.go`).

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

/// Dynatrace's metrics API.
pub struct Dynatrace;

impl Provider for Dynatrace {
    fn name(&self) -> &'static str {
        "dynatrace"
    }

    fn access(&self, setup: &Setup<'_>) -> Result<Access, ServerError> {
        if setup.spec.address.as_deref().is_none_or(str::is_empty) {
            return Err(ServerError::NoAddress("dynatrace"));
        }
        let token = credential(setup.credentials, "dynatrace_token").ok_or(
            ServerError::MissingCredential {
                provider: "dynatrace",
                key: "dynatrace_token",
            },
        )?;
        let endpoint = Endpoint::of(setup.spec, "")?
            .with_header("Authorization", format!("Api-Token {token}"));
        let window = setup.window()?.saturating_mul(INTERVALS);
        Ok(Access { endpoint, window })
    }

    fn query(&self, access: &Access, query: &str, now: Timestamp) -> HttpRequest {
        let to = now.as_second().saturating_mul(1000);
        let window = u64::try_from(access.window.as_millis()).unwrap_or(u64::MAX);
        let from = to.saturating_sub_unsigned(window).to_string();
        let to = to.to_string();
        let parameters = [
            ("from", from.as_str()),
            ("metricSelector", query),
            ("resolution", "Inf"),
            ("to", &to),
        ];
        access.endpoint.get("/api/v2/metrics/query", &parameters)
    }

    fn probe(&self, access: &Access) -> HttpRequest {
        access.endpoint.get("/api/v2/metrics", &[("pageSize", "1")])
    }

    /// The first value in the last data of the first result, as in Flagger. Null is no value; Flagger reads it as 0.
    fn value(&self, response: &HttpResponse) -> Result<f64, MetricError> {
        let body = accepted(response)?;
        let answer: Answer = json(body)?;
        let first = answer.result.into_iter().flatten().next();
        let last = first.and_then(|result| result.data?.pop());
        let value = last.and_then(|data| *data.values?.first()?);
        value.ok_or_else(|| MetricError::none_in(body))
    }
}

#[derive(Deserialize)]
struct Answer {
    result: Option<Vec<Series>>,
}

#[derive(Deserialize)]
struct Series {
    data: Option<Vec<Data>>,
}

#[derive(Deserialize)]
struct Data {
    values: Option<Vec<Option<f64>>>,
}
