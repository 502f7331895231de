//! Graphite's render API (`pkg/metrics/providers/graphite.go`).

use serde::Deserialize;
use url::form_urlencoded;

use super::{
    MetricError, collapsed,
    endpoint::{Credentials, Endpoint, basic_of},
    json, shown,
};
use crate::{
    api::metric_template::MetricTemplateProvider,
    snapshot::{HttpRequest, HttpResponse},
};

/// A Graphite server.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Server(Endpoint);

impl Server {
    /// The server of a MetricTemplate, with user and password of its Secret if it names one.
    pub fn of(
        spec: &MetricTemplateProvider,
        credentials: Option<&Credentials>,
    ) -> Result<Self, String> {
        let endpoint = Endpoint::of(spec, "")?.checked_as(spec);
        let login = match credentials {
            Some(credentials) => basic_of("graphite", credentials)?,
            None => None,
        };
        Ok(Self(match login {
            Some(login) => endpoint.with("Authorization", login),
            None => endpoint,
        }))
    }

    /// The call that asks for a query's value: the query is that of an address (`target=…&from=-5min`), in the order of its keys.
    pub fn query(&self, query: &str) -> HttpRequest {
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
        self.0.get("/render", &parameters)
    }

    /// The query that every server can answer.
    pub fn probe(&self) -> HttpRequest {
        self.query("target=test")
    }
}

/// The value that an answer has: the last of all targets that is one.
pub fn parse(response: &HttpResponse) -> Result<f64, MetricError> {
    let HttpResponse { status, body } = response;
    if *status >= 400 {
        let text = format!("error response: {}", shown(body));
        return Err(MetricError::Failed(text));
    }
    let answer: Option<Vec<Target>> = json(body)?;
    let points = answer.into_iter().flatten();
    let points = points.flat_map(|target| target.datapoints.unwrap_or_default());
    let values = points.filter_map(|Point(value, _)| match value? {
        Value::Number(value) => Some(Ok(value)),
        Value::Text(text) => Some(text.parse().map_err(|_| {
            MetricError::Failed(format!("the value {:?} is not a number", shown(&text)))
        })),
    });
    let values = values.collect::<Result<Vec<f64>, _>>()?;
    // A server in Python writes what is not a number as text.
    let last = values.into_iter().rfind(|value| !value.is_nan());
    last.ok_or(MetricError::NoValues)
}

/// What the answer to the probe says, if the server is not there. That it has no values is as good as any.
pub fn online(answer: Result<&HttpResponse, MetricError>) -> Result<(), String> {
    match answer.and_then(parse) {
        Ok(_) => Ok(()),
        Err(error) if error.is_none() => Ok(()),
        Err(error) => Err(format!("running query failed: {error}")),
    }
}

#[derive(Deserialize)]
struct Target {
    datapoints: Option<Vec<Point>>,
}

/// The value, and seconds in one form or another.
#[derive(Deserialize)]
struct Point(
    Option<Value>,
    #[expect(dead_code, reason = "the points are in order")] serde_json::Value,
);

#[derive(Deserialize)]
#[serde(untagged)]
enum Value {
    Number(f64),
    Text(String),
}
