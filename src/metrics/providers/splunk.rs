//! Splunk Observability Cloud (Flagger: `pkg/metrics/providers/splunk.go`). Flagger executes SignalFlow over a websocket. This operator
//! sends a plain request of the same API, whose answer is a stream of server-sent events. The stream ends, because the program has an end.

mod events;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use crate::{
    metrics::{
        answer::{finite, json, refusal},
        endpoint::{Endpoint, credential},
        error::{MetricError, ServerError},
        provider::{Access, Provider, Setup},
    },
    snapshot::{HttpRequest, HttpResponse},
};
use events::Event;

/// A query covers this many intervals of its metric.
const INTERVALS: u32 = 10;
/// The first labels of the hosts that execute programs, and that describe metrics.
const STREAM: &str = "stream";
const API: &str = "api";
/// Flagger's name of the call.
const CALL: &str = "error executing query";

/// The SignalFlow API of one realm.
pub struct Splunk;

impl Provider for Splunk {
    fn name(&self) -> &'static str {
        "splunk"
    }

    /// The address is that of either host, `https://api.REALM.signalfx.com` or `wss://stream.REALM.signalfx.com`.
    fn access(&self, setup: &Setup<'_>) -> Result<Access, ServerError> {
        let address = setup.spec.address.as_deref().unwrap_or_default();
        if address.is_empty() {
            return Err(ServerError::NoAddress(self.name()));
        }
        let token = credential(setup.credentials, "sf_token_key");
        let token = token.ok_or(ServerError::MissingCredential {
            provider: self.name(),
            key: "sf_token_key",
        })?;
        let of_http = match address.strip_prefix("ws") {
            Some(rest) => &format!("http{rest}"),
            None => address,
        };
        let endpoint = Endpoint::at(self.name(), of_http)?
            .with_first_label(API, STREAM)
            .with_header("X-SF-Token", token.to_owned());
        let window = setup.window()?.saturating_mul(INTERVALS);
        Ok(Access { endpoint, window })
    }

    fn hosts(&self, access: &Access) -> Vec<String> {
        let neighbour = access.endpoint.clone().with_first_label(STREAM, API);
        let mut hosts = vec![
            access.endpoint.host().to_owned(),
            neighbour.host().to_owned(),
        ];
        hosts.dedup();
        hosts
    }

    fn query(&self, access: &Access, query: &str, now: Timestamp) -> HttpRequest {
        let stop = now.as_millisecond();
        let window = u64::try_from(access.window.as_millis()).unwrap_or(u64::MAX);
        let start = stop.saturating_sub_unsigned(window).to_string();
        let stop = stop.to_string();
        let parameters = [
            ("start", start.as_str()),
            ("stop", &stop),
            // Splunk must not wait for values that arrive late.
            ("immediate", "true"),
        ];
        let program = ("text/plain", query.to_owned());
        let endpoint = &access.endpoint;
        endpoint.post("/v2/signalflow/execute", &parameters, program)
    }

    fn probe(&self, access: &Access) -> HttpRequest {
        let endpoint = access.endpoint.clone().with_first_label(STREAM, API);
        endpoint.get("/v2/metric", &[("limit", "1")])
    }

    /// The last value of the only time series, as in Flagger.
    fn value(&self, response: &HttpResponse) -> Result<f64, MetricError> {
        if response.status != 200 {
            return Err(MetricError::failed(CALL, &refusal(response)));
        }
        let invalid = |why: &str| MetricError::Failed(format!("invalid response: {why}"));
        let mut last = None::<Point>;
        for point in points(&response.body)? {
            let is_other = |last: &Point| last.series != point.series;
            if last.as_ref().is_some_and(is_other) {
                return Err(invalid("query returned multiple values"));
            }
            last = Some(point);
        }
        let none = || MetricError::NoValuesIn("invalid response".to_owned());
        let value = last.ok_or_else(none)?.value;
        let value = value
            .as_f64()
            .ok_or_else(|| invalid("UnsupportedValueType"))?;
        finite(value).ok_or_else(none)
    }
}

/// The points of a stream that have a value. A stream without its end is an error, and so is one that reports an error.
fn points(body: &str) -> Result<Vec<Point>, MetricError> {
    let mut points = Vec::new();
    for Event { name, data } in Event::all(body) {
        match name {
            "data" => {
                let batch: Batch = json(&data)?;
                let with_value = |point: &Point| !point.value.is_null();
                points.extend(batch.data.into_iter().filter(with_value));
            }
            "error" => return Err(MetricError::failed(CALL, &data)),
            "control-message" => match json::<Control>(&data)?.event.as_deref() {
                Some("END_OF_CHANNEL") => return Ok(points),
                Some("CHANNEL_ABORT") => return Err(MetricError::failed(CALL, &data)),
                Some(_) | None => {}
            },
            _ => {}
        }
    }
    let why = format!("the stream of events has no end: {body}");
    Err(MetricError::failed(CALL, &why))
}

#[derive(Deserialize)]
struct Control {
    event: Option<String>,
}

/// The points of one instant.
#[derive(Deserialize)]
struct Batch {
    data: Vec<Point>,
}

#[derive(Deserialize)]
struct Point {
    #[serde(rename = "tsId")]
    series: String,
    value: Value,
}
