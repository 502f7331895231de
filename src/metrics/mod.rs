//! PURE: what a metric's value is asked with, and what an answer says; one file per provider.
//!
//! A provider has a variant of [`Server`], its name in [`Server::of`] and in [`Server::name`], an arm in each function after them, and a
//! row in the table of `measure/tests.rs`.

mod datadog;
mod dynatrace;
pub mod endpoint;
mod graphite;
mod new_relic;
pub mod observer;
pub mod prometheus;
pub mod template;
#[cfg(test)]
mod tests;

use std::time::Duration;

use jiff::Timestamp;
use serde::de::DeserializeOwned;

use crate::{
    api::{duration, metric_template::MetricTemplateProvider},
    snapshot::{HttpRequest, HttpResponse},
};
use endpoint::Credentials;

/// Text from outside that a user will read is cut to this many bytes.
const SHOWN: usize = 256;
/// The window of a metric that has none. (Flagger's providers that need one fail then.)
const WINDOW: Duration = Duration::from_secs(60);

/// Why there is no value.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum MetricError {
    /// The server has none, or one that is no number.
    #[error("no values found")]
    NoValues,
    /// The same, of a provider that shows the answer in which there is none.
    #[error("invalid response: {0}: no values found")]
    NoValuesIn(String),
    /// The query gives a series, not a value.
    #[error("query returned multiple values")]
    MultipleValues,
    /// The server could not be asked, or its answer not be understood.
    #[error("{0}")]
    Failed(String),
}

impl MetricError {
    /// There is no value in this answer.
    fn none_in(body: &str) -> Self {
        Self::NoValuesIn(shown(body))
    }

    /// Whether the server answered well, but has no value.
    pub const fn is_none(&self) -> bool {
        match self {
            Self::NoValues | Self::NoValuesIn(_) => true,
            Self::MultipleValues | Self::Failed(_) => false,
        }
    }
}

/// A server that has values, of a kind that this version knows, and how to be let in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Server {
    /// Prometheus, or what understands its queries.
    Prometheus(prometheus::Server),
    /// Datadog.
    Datadog(datadog::Server),
    /// New Relic.
    NewRelic(new_relic::Server),
    /// Graphite.
    Graphite(graphite::Server),
    /// Dynatrace.
    Dynatrace(dynatrace::Server),
}

impl Server {
    /// The server of a MetricTemplate, with what its Secret has, for a metric with this window; or what is missing.
    pub fn of(
        spec: &MetricTemplateProvider,
        credentials: Option<&Credentials>,
        interval: Option<&str>,
    ) -> Result<Self, String> {
        Ok(match spec.type_.as_str() {
            "prometheus" => Self::Prometheus(prometheus::Server::of(spec, credentials)?),
            "datadog" => Self::Datadog(datadog::Server::of(spec, credentials, interval)?),
            "newrelic" => Self::NewRelic(new_relic::Server::of(spec, credentials, interval)?),
            "graphite" => Self::Graphite(graphite::Server::of(spec, credentials)?),
            "dynatrace" => Self::Dynatrace(dynatrace::Server::of(spec, credentials, interval)?),
            _ => {
                return Err(
                    "not supported yet, only prometheus, datadog, newrelic, graphite and dynatrace are"
                        .to_owned(),
                );
            }
        })
    }

    /// The `type` of its MetricTemplate.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Prometheus(_) => "prometheus",
            Self::Datadog(_) => "datadog",
            Self::NewRelic(_) => "newrelic",
            Self::Graphite(_) => "graphite",
            Self::Dynatrace(_) => "dynatrace",
        }
    }

    fn query(&self, query: &str, now: Timestamp) -> HttpRequest {
        match self {
            Self::Prometheus(server) => server.query(query),
            Self::Datadog(server) => server.query(query, now),
            Self::NewRelic(server) => server.query(query),
            Self::Graphite(server) => server.query(query),
            Self::Dynatrace(server) => server.query(query, now),
        }
    }

    fn probe(&self) -> HttpRequest {
        match self {
            Self::Prometheus(server) => server.probe(),
            Self::Datadog(server) => server.probe(),
            Self::NewRelic(server) => server.probe(),
            Self::Graphite(server) => server.probe(),
            Self::Dynatrace(server) => server.probe(),
        }
    }

    /// The value that an answer has. What is not a number is none: no threshold would stop it.
    pub fn value(&self, response: &HttpResponse) -> Result<f64, MetricError> {
        let value = match self {
            Self::Prometheus(_) => prometheus::parse(response),
            Self::Datadog(_) => datadog::parse(response),
            Self::NewRelic(_) => new_relic::parse(response),
            Self::Graphite(_) => graphite::parse(response),
            Self::Dynatrace(_) => dynatrace::parse(response),
        }?;
        if value.is_nan() {
            Err(MetricError::NoValues)
        } else {
            Ok(value)
        }
    }

    /// What the answer to the question whether the server is there says, if it is not.
    pub fn online(&self, answer: Result<&HttpResponse, MetricError>) -> Result<(), String> {
        match self {
            Self::Prometheus(_) => prometheus::online(answer),
            Self::Graphite(_) => graphite::online(answer),
            Self::Datadog(_) | Self::NewRelic(_) | Self::Dynatrace(_) => match answer {
                Ok(HttpResponse { status: 200, .. }) => Ok(()),
                Ok(response) => Err(format!("error response: {}", shown(&response.body))),
                Err(error) => Err(error.to_string()),
            },
        }
    }
}

/// A question to a server of metrics: all of it but the instant, which some servers want to be told.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Query {
    /// Whom it is put to.
    pub server: Server,
    /// What is asked.
    pub asks: Asks,
    /// The longest that all attempts may take.
    pub budget: Duration,
}

/// What a server of metrics is asked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Asks {
    /// The value of this query.
    Value(String),
    /// Whether it is there and lets us in.
    Online,
}

impl Query {
    /// The call, as it is sent at this instant.
    pub fn request(&self, now: Timestamp) -> HttpRequest {
        let request = match &self.asks {
            Asks::Value(query) => self.server.query(query, now),
            Asks::Online => self.server.probe(),
        };
        HttpRequest {
            budget: Some(self.budget),
            ..request
        }
    }
}

/// The body of an answer, if it is 200 and nothing else; or what Flagger says then (where Flagger's text of the status is broken, that
/// of its other providers).
fn accepted(response: &HttpResponse) -> Result<&str, MetricError> {
    let HttpResponse { status, body } = response;
    if *status == 200 {
        return Ok(body);
    }
    let status = status_line(*status);
    Err(MetricError::Failed(format!(
        "error response: {}: {status}",
        shown(body)
    )))
}

/// What a body of JSON says.
fn json<T: DeserializeOwned>(body: &str) -> Result<T, MetricError> {
    serde_json::from_str(body).map_err(|error| {
        let error = in_go(&error, body);
        MetricError::Failed(shown(&format!(
            "error unmarshaling result: {error}, '{}'",
            shown(body)
        )))
    })
}

/// What Go says of a body that is not JSON, for the bodies that there are: none, or a page of HTML.
fn in_go(error: &serde_json::Error, body: &str) -> String {
    let first = body
        .trim_start_matches([' ', '\t', '\r', '\n'])
        .chars()
        .next();
    match first {
        _ if error.is_eof() => "unexpected end of JSON input".to_owned(),
        Some(c) if c.is_ascii_punctuation() && !"{[\"-'".contains(c) => {
            format!("invalid character '{c}' looking for beginning of value")
        }
        _ => error.to_string(),
    }
}

/// The time that a metric is measured over.
fn window(interval: Option<&str>) -> Result<Duration, String> {
    match interval.filter(|interval| !interval.is_empty()) {
        Some(interval) => duration::read(interval)
            .map_err(|error| format!("error parsing metric interval: {error}")),
        None => Ok(WINDOW),
    }
}

/// A status with its name, as Go prints it.
fn status_line(status: u16) -> String {
    let name = http::StatusCode::from_u16(status)
        .ok()
        .and_then(|status| status.canonical_reason())
        .unwrap_or_default();
    format!("{status} {name}")
}

/// Every run of white space is one space.
fn collapsed(query: &str) -> String {
    let mut collapsed = String::with_capacity(query.len());
    for c in query.chars() {
        if !c.is_whitespace() {
            collapsed.push(c);
        } else if !collapsed.ends_with(' ') {
            collapsed.push(' ');
        }
    }
    collapsed
}

/// Text from outside, fit to be shown: one line, no control characters, not long.
pub fn shown(text: &str) -> String {
    let mut line: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if line.len() > SHOWN {
        let cut = (0..=SHOWN - 3)
            .rev()
            .find(|i| line.is_char_boundary(*i))
            .unwrap_or(0);
        line.truncate(cut);
        line.push('…');
    }
    line
}

/// A number as Go's `%v` prints it.
pub fn go_float(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return match value {
            _ if value.is_nan() => "NaN".to_owned(),
            _ if value.is_infinite() && value > 0.0 => "+Inf".to_owned(),
            _ if value.is_infinite() => "-Inf".to_owned(),
            _ => "0".to_owned(),
        };
    }
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..6).contains(&exponent) {
        return format!("{value}");
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}
