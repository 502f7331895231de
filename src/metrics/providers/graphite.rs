//! Graphite's render API (Flagger: `pkg/metrics/providers/graphite.go`).

use jiff::Timestamp;
use serde::Deserialize;
use url::form_urlencoded;

use crate::{
    metrics::{
        answer::json,
        endpoint::{Endpoint, basic_authorization},
        error::{MetricError, OfflineError, ServerError},
        provider::{Access, Provider, Setup, collapsed},
    },
    snapshot::{HttpRequest, HttpResponse, excerpt},
};

/// A Graphite server.
pub struct Graphite;

impl Provider for Graphite {
    fn name(&self) -> &'static str {
        "graphite"
    }

    fn access(&self, setup: &Setup<'_>) -> Result<Access, ServerError> {
        let endpoint = Endpoint::of(setup.spec, "")?.with_verification_of(setup.spec);
        let login = match setup.credentials {
            Some(credentials) => basic_authorization("graphite", credentials)?,
            None => None,
        };
        Ok(Access::without_window(endpoint.with_authorization(login)))
    }

    /// The query is the query string of a URL (`target=…&from=-5min`). Its parameters are sent in the order of their names.
    fn query(&self, access: &Access, query: &str, _now: Timestamp) -> HttpRequest {
        let query = collapsed(query.trim());
        let mut parameters: Vec<_> = form_urlencoded::parse(query.as_bytes())
            .filter(|(key, _)| key != "format")
            .collect();
        parameters.push(("format".into(), "json".into()));
        parameters.sort_by(|(one, _), (other, _)| one.cmp(other));
        let parameters: Vec<_> = parameters
            .iter()
            .map(|(key, value)| (&**key, &**value))
            .collect();
        access.endpoint.get("/render", &parameters)
    }

    /// A query that every server can answer.
    fn probe(&self, access: &Access) -> HttpRequest {
        self.query(access, "target=test", Timestamp::UNIX_EPOCH)
    }

    /// The last number of all targets. Graphite writes numbers as text too, `NaN` among them.
    fn value(&self, response: &HttpResponse) -> Result<f64, MetricError> {
        let HttpResponse { status, body } = response;
        if *status >= 400 {
            return Err(MetricError::Refused(excerpt(body)));
        }
        let answer: Option<Vec<Target>> = json(body)?;
        let points = answer.into_iter().flatten();
        let points = points.flat_map(|target| target.datapoints.unwrap_or_default());
        let values = points.filter_map(|Point(value, _)| match value? {
            Value::Number(value) => Some(Ok(value)),
            Value::Text(text) => Some(text.parse().map_err(|_| MetricError::not_a_number(&text))),
        });
        let values = values.collect::<Result<Vec<f64>, _>>()?;
        let last = values.into_iter().rfind(|value| !value.is_nan());
        last.ok_or(MetricError::NoValues)
    }

    /// An answer without values shows that the server is online too.
    fn online(&self, answer: Result<&HttpResponse, MetricError>) -> Result<(), OfflineError> {
        match answer.and_then(|response| self.value(response)) {
            Ok(_) => Ok(()),
            Err(error) if error.is_none() => Ok(()),
            Err(error) => Err(OfflineError::Query(error)),
        }
    }
}

#[derive(Deserialize)]
struct Target {
    datapoints: Option<Vec<Point>>,
}

/// A value and its time, which is a number or text.
#[derive(Deserialize)]
struct Point(
    Option<Value>,
    #[expect(dead_code, reason = "the points are in order of time")] serde_json::Value,
);

#[derive(Deserialize)]
#[serde(untagged)]
enum Value {
    Number(f64),
    Text(String),
}
