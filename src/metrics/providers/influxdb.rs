//! InfluxDB 2 and its compatible successors (Flagger: `pkg/metrics/providers/influxdb.go`). Queries are in Flux, answers are annotated CSV.

mod csv;

use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;

use crate::{
    metrics::{
        answer::finite,
        endpoint::{Endpoint, credential},
        error::{MetricError, OfflineError, ServerError},
        provider::{Access, Provider, Setup},
    },
    snapshot::{HttpRequest, HttpResponse, excerpt, go},
};
use csv::{NotCsv, Reader};

/// The longest that one attempt may take: Flagger gives a query of Flux three times as long as others.
const TIMEOUT: Duration = Duration::from_secs(15);
/// A query that every server can answer. Flagger's has no limit, so its answer is all that was stored in two hours.
const PROBE: &str = r#"from(bucket: "default") |> range(start: -2h) |> group() |> limit(n: 1)"#;
/// The types of columns with numbers.
const NUMBERS: [&str; 3] = ["double", "long", "unsignedLong"];
/// Flagger's name of the call.
const CALL: &str = "error accessing influxdb query api";

/// The query API of an InfluxDB server.
pub struct InfluxDb;

impl Provider for InfluxDb {
    fn name(&self) -> &'static str {
        "influxdb"
    }

    /// The Secret has the token and the organization. A server without authentication needs no Secret.
    fn access(&self, setup: &Setup<'_>) -> Result<Access, ServerError> {
        let endpoint = Endpoint::of(setup.spec, "")?;
        if setup.credentials.is_none() {
            return Ok(Access::without_window(endpoint.with_parameter("org", "")));
        }
        // `shown` is Flagger's name for the key.
        let find = |key, shown| {
            credential(setup.credentials, key).ok_or(ServerError::MissingCredential {
                provider: "influxdb",
                key: shown,
            })
        };
        let token = find("token", "an authentication token")?;
        let endpoint = endpoint
            .with_parameter("org", find("org", "an organisation")?)
            .with_header("Authorization", format!("Token {token}"));
        Ok(Access::without_window(endpoint))
    }

    fn query(&self, access: &Access, query: &str, _now: Timestamp) -> HttpRequest {
        let dialect = json!({
            "annotations": ["datatype", "group", "default"],
            "delimiter": ",",
            "header": true,
        });
        let body = json!({"dialect": dialect, "query": query, "type": "flux"}).to_string();
        let endpoint = &access.endpoint;
        HttpRequest {
            timeout: TIMEOUT,
            ..endpoint.post("/api/v2/query", &[], ("application/json", body))
        }
    }

    fn probe(&self, access: &Access) -> HttpRequest {
        self.query(access, PROBE, Timestamp::UNIX_EPOCH)
    }

    /// The `_value` of the first record, as in Flagger. Flagger returns 0 if there is no record, and accepts no whole numbers.
    fn value(&self, response: &HttpResponse) -> Result<f64, MetricError> {
        let Record { text, value } =
            first_record(accepted(response)?)?.ok_or(MetricError::NoValues)?;
        let number = match value {
            Some((_, number)) if number.is_empty() => None,
            Some((kind, number)) if NUMBERS.contains(&kind.as_str()) => {
                let value = number.parse::<f64>();
                finite(value.map_err(|_| MetricError::not_a_number(&number))?)
            }
            Some(_) | None => return Err(MetricError::failed("invalid response", &text)),
        };
        number.ok_or_else(|| MetricError::none_in(&text))
    }

    /// A server that has no bucket of the name in the probe is online, too: it has accepted the credentials.
    fn online(&self, answer: Result<&HttpResponse, MetricError>) -> Result<(), OfflineError> {
        let read = answer.and_then(|response| match Refusal::of(&response.body) {
            Some(refusal) if response.status == 404 && refusal.code == "not found" => Ok(()),
            _ => first_record(accepted(response)?).map(drop),
        });
        read.map_err(OfflineError::Call)
    }
}

/// The first record of all tables.
struct Record {
    /// Its cells, for messages.
    text: String,
    /// The cell of the column `_value`: its type and its text.
    value: Option<(String, String)>,
}

/// Returns the first record. An error in any table is an error: a query that fails after its first rows has status 200, too.
fn first_record(body: &str) -> Result<Option<Record>, MetricError> {
    let mut first = None;
    let mut reader = Reader::new(body);
    let broken =
        |NotCsv| MetricError::failed(CALL, &format!("the answer is not annotated CSV: {body}"));
    while let Some(record) = reader.record().map_err(broken)? {
        if let Some(error) = reader.error(&record) {
            return Err(MetricError::failed(CALL, error));
        }
        first.get_or_insert_with(|| Record {
            value: reader
                .cell(&record, "_value")
                .map(|cell| (cell.kind.to_owned(), cell.text.to_owned())),
            text: record.join(","),
        });
    }
    Ok(first)
}

/// The body of InfluxDB's refusals.
#[derive(Deserialize)]
struct Refusal {
    code: String,
    message: String,
}

impl Refusal {
    fn of(body: &str) -> Option<Self> {
        serde_json::from_str(body).ok()
    }
}

/// Returns the body of an answer with status 200; any other status is an error.
fn accepted(response: &HttpResponse) -> Result<&str, MetricError> {
    let HttpResponse { status, body } = response;
    if *status == 200 {
        return Ok(body);
    }
    Err(match Refusal::of(body) {
        Some(Refusal { code, message }) => MetricError::failed(CALL, &format!("{code}: {message}")),
        None => {
            let (body, status) = (excerpt(body), go::status(*status));
            MetricError::Failed(format!("{CALL}: {body}: {status}"))
        }
    })
}
