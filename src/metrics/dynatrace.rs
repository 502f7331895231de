//! Dynatrace (`pkg/metrics/providers/dynatrace.go`).

use std::time::Duration;

use jiff::Timestamp;
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

/// So many intervals of the metric are asked for.
const INTERVALS: u32 = 10;

/// An environment of Dynatrace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Server {
    endpoint: Endpoint,
    window: Duration,
}

impl Server {
    /// The server of a MetricTemplate, with the token of its Secret.
    pub fn of(
        spec: &MetricTemplateProvider,
        credentials: Option<&Credentials>,
        interval: Option<&str>,
    ) -> Result<Self, String> {
        if spec.address.as_deref().is_none_or(str::is_empty) {
            return Err("dynatrace endpoint is not set".to_owned());
        }
        let token = credential(credentials, "dynatrace_token")
            .ok_or("dynatrace credentials does not contain dynatrace_token")?;
        Ok(Self {
            endpoint: Endpoint::of(spec, "")?.with("Authorization", format!("Api-Token {token}")),
            window: window(interval)?.saturating_mul(INTERVALS),
        })
    }

    /// The call that asks for a query's value.
    pub fn query(&self, query: &str, now: Timestamp) -> HttpRequest {
        let to = now.as_second().saturating_mul(1000);
        let window = u64::try_from(self.window.as_millis()).unwrap_or(u64::MAX);
        let from = to.saturating_sub_unsigned(window).to_string();
        let to = to.to_string();
        let parameters = [
            ("from", from.as_str()),
            ("metricSelector", query),
            ("resolution", "Inf"),
            ("to", &to),
        ];
        self.endpoint.get("/api/v2/metrics/query", &parameters)
    }

    /// The call that only asks whether the token is good.
    pub fn probe(&self) -> HttpRequest {
        self.endpoint.get("/api/v2/metrics", &[("pageSize", "1")])
    }
}

/// The value that an answer has: the first of the last data of the first result, as in Flagger (which takes null for 0).
pub fn parse(response: &HttpResponse) -> Result<f64, MetricError> {
    let body = accepted(response)?;
    let answer: Answer = json(body)?;
    let first = answer.result.into_iter().flatten().next();
    let last = first.and_then(|result| result.data?.pop());
    let value = last.and_then(|data| *data.values?.first()?);
    value.ok_or_else(|| MetricError::none_in(body))
}

#[derive(Deserialize)]
struct Answer {
    result: Option<Vec<Outcome>>,
}

#[derive(Deserialize)]
struct Outcome {
    data: Option<Vec<Data>>,
}

#[derive(Deserialize)]
struct Data {
    values: Option<Vec<Option<f64>>>,
}
