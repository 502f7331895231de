//! Reading the answers of metric servers: the parts that several providers share.

use serde::{Deserialize, de::DeserializeOwned};

use super::error::MetricError;
use crate::snapshot::{HttpResponse, excerpt, go};

/// Returns the body of an answer with status 200; any other status is an error. (The text is that of Flagger's Datadog provider. Its
/// texts for New Relic and Dynatrace print the status wrongly.)
pub fn accepted(response: &HttpResponse) -> Result<&str, MetricError> {
    let HttpResponse { status, body } = response;
    if *status == 200 {
        return Ok(body);
    }
    let status = go::status(*status);
    Err(MetricError::Refused(format!("{}: {status}", excerpt(body))))
}

/// Parses a body of JSON.
pub fn json<T: DeserializeOwned>(body: &str) -> Result<T, MetricError> {
    serde_json::from_str(body).map_err(|error| MetricError::NotJson {
        // The parser's error may quote a long text of the answer.
        reason: excerpt(&go::json_error(&error, body)),
        body: excerpt(body),
    })
}

/// The reason that the API server, or another server, gives when it refuses a request.
pub fn refusal(response: &HttpResponse) -> String {
    #[derive(Deserialize)]
    struct Status {
        message: String,
    }
    let HttpResponse { status, body } = response;
    match serde_json::from_str::<Status>(body) {
        Ok(Status { message }) => message,
        Err(_) => format!("{}: {}", excerpt(body), go::status(*status)),
    }
}

/// Returns a number if it is finite. An infinite number would pass a comparison with a threshold, as `NaN` does.
pub fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}
