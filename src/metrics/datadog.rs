//! Datadog (`pkg/metrics/providers/datadog.go`).

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

/// Datadog, as an organization sees it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Server {
    endpoint: Endpoint,
    window: Duration,
}

impl Server {
    /// The server of a MetricTemplate, with the two keys of its Secret.
    pub fn of(
        spec: &MetricTemplateProvider,
        credentials: Option<&Credentials>,
        interval: Option<&str>,
    ) -> Result<Self, String> {
        let key = |key: &str| {
            credential(credentials, key)
                .map(str::to_owned)
                .ok_or_else(|| format!("datadog credentials does not contain {key}"))
        };
        Ok(Self {
            endpoint: Endpoint::of(spec, "https://api.datadoghq.com")?
                .with("DD-API-KEY", key("datadog_api_key")?)
                .with("DD-APPLICATION-KEY", key("datadog_application_key")?),
            window: window(interval)?.saturating_mul(INTERVALS),
        })
    }

    /// The call that asks for a query's value.
    pub fn query(&self, query: &str, now: Timestamp) -> HttpRequest {
        let to = now.as_second();
        let from = to.saturating_sub_unsigned(self.window.as_secs());
        let (from, to) = (from.to_string(), to.to_string());
        let parameters = [("from", from.as_str()), ("query", query), ("to", &to)];
        self.endpoint.get("/api/v1/query", &parameters)
    }

    /// The call that only asks whether the keys are good.
    pub fn probe(&self) -> HttpRequest {
        self.endpoint.get("/api/v1/validate", &[])
    }
}

/// The value that an answer has: the oldest of the first series, as in Flagger, since the newest is of a time that has not ended.
/// Where there is none for a time it is the next that counts; Flagger takes it for 0.
pub fn parse(response: &HttpResponse) -> Result<f64, MetricError> {
    let body = accepted(response)?;
    let answer: Answer = json(body)?;
    let points = answer.series.into_iter().flatten().next();
    let points = points.and_then(|series| series.pointlist);
    let mut points = points.into_iter().flatten();
    let value = points.find_map(|point| point.get(1).copied()?);
    value.ok_or_else(|| MetricError::none_in(body))
}

#[derive(Deserialize)]
struct Answer {
    series: Option<Vec<Series>>,
}

#[derive(Deserialize)]
struct Series {
    /// Of each point the milliseconds and the value.
    pointlist: Option<Vec<Vec<Option<f64>>>>,
}
