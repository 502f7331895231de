//! Google Cloud Monitoring (Flagger: `pkg/metrics/providers/stackdriver.go`). Flagger calls the same API by gRPC.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    metrics::{
        answer::{finite, json as parsed},
        endpoint::{Endpoint, credential},
        error::{MetricError, OfflineError, ServerError},
        identity::{Identity, google::Google},
        provider::{Access, Provider, Setup},
    },
    snapshot::{HttpRequest, HttpResponse, Secret, excerpt, go},
};

/// Queries in the Monitoring Query Language.
pub struct Stackdriver;

impl Provider for Stackdriver {
    fn name(&self) -> &'static str {
        "stackdriver"
    }

    /// Without a key in its Secret, the operator asks with the identity of its pod.
    fn access(&self, setup: &Setup<'_>) -> Result<Access, ServerError> {
        let project = credential(setup.credentials, "project");
        let project = project.ok_or(ServerError::MissingCredential {
            provider: "stackdriver",
            key: "a project id",
        })?;
        let is_part = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
        if !project.chars().all(is_part) || project.starts_with('.') {
            let why = "project in its Secret is not the ID of a project";
            return Err(ServerError::not_allowed("stackdriver", why));
        }
        let key = credential(setup.credentials, "serviceAccountKey");
        let identity = key.map_or(Google::Pod, |key| Google::Key(Secret(key.to_owned())));
        let endpoint = Endpoint::at("stackdriver", "https://monitoring.googleapis.com")?
            .below(&format!("/v3/projects/{project}"))
            .with_identity(Identity::Google(identity));
        Ok(Access::without_window(endpoint))
    }

    fn query(&self, access: &Access, query: &str, _now: Timestamp) -> HttpRequest {
        let body = json!({"query": query}).to_string();
        let body = ("application/json", body);
        access.endpoint.post("/timeSeries:query", &[], body)
    }

    /// An empty query shows whether the token is accepted: Google then refuses the query.
    fn probe(&self, access: &Access) -> HttpRequest {
        self.query(access, "", Timestamp::UNIX_EPOCH)
    }

    /// The first value of the first point of the first series. Flagger takes a whole number for 0.
    fn value(&self, response: &HttpResponse) -> Result<f64, MetricError> {
        if response.status != 200 {
            let why = refusal(response).text();
            return Err(MetricError::failed("error requesting stackdriver", &why));
        }
        let body = &response.body;
        let answer: Answer = parsed(body)?;
        let series = answer.data.into_iter().flatten().next();
        let point = series.and_then(|series| series.points?.into_iter().next());
        let value = point.and_then(|point| point.values?.into_iter().next());
        let none = || MetricError::none_in(body);
        match value.ok_or_else(none)? {
            Typed::Double(value) => {
                let number = value.as_f64();
                let number = number.or_else(|| value.as_str()?.parse().ok());
                number.and_then(finite).ok_or_else(none)
            }
            Typed::Whole(text) => match (text.parse::<i64>(), text.parse()) {
                (Ok(_), Ok(number)) => Ok(number),
                _ => Err(MetricError::not_a_number(&text)),
            },
            Typed::Other(other) => Err(MetricError::not_a_number(&other.to_string())),
        }
    }

    fn online(&self, answer: Result<&HttpResponse, MetricError>) -> Result<(), OfflineError> {
        let response = answer.map_err(OfflineError::Call)?;
        let refusal = refusal(response);
        match response.status {
            200 => Ok(()),
            400 if refusal.status == "INVALID_ARGUMENT" => Ok(()),
            _ => Err(OfflineError::UnexpectedStatus(excerpt(&refusal.text()))),
        }
    }
}

/// The reason that Google gives for an answer with another status than 200.
fn refusal(response: &HttpResponse) -> Refusal {
    let known: Option<Envelope> = serde_json::from_str(&response.body).ok();
    known.map_or_else(
        || Refusal {
            status: go::status(response.status),
            message: excerpt(&response.body),
        },
        |known| known.error,
    )
}

#[derive(Deserialize)]
struct Envelope {
    error: Refusal,
}

#[derive(Deserialize)]
struct Refusal {
    status: String,
    #[serde(default)]
    message: String,
}

impl Refusal {
    fn text(&self) -> String {
        format!("{}: {}", self.status, self.message)
    }
}

#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "timeSeriesData")]
    data: Option<Vec<Series>>,
}

#[derive(Deserialize)]
struct Series {
    #[serde(rename = "pointData")]
    points: Option<Vec<Point>>,
}

#[derive(Deserialize)]
struct Point {
    values: Option<Vec<Typed>>,
}

/// A value with its type.
#[derive(Deserialize)]
enum Typed {
    /// A number, or a text: JSON has no infinite numbers, and no `NaN`.
    #[serde(rename = "doubleValue")]
    Double(Value),
    #[serde(rename = "int64Value")]
    Whole(String),
    #[serde(untagged)]
    Other(Value),
}
