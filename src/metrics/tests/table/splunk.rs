//! Splunk Observability Cloud: streams of events, as its API sends them.

use serde_json::json;

use super::{Call, Reading, Row};

/// A stream with these events between its first and its last one.
macro_rules! stream {
    ($($event:expr),*) => {
        concat!(
            "event: control-message\ndata: {\ndata:   \"event\" : \"STREAM_START\",\ndata:   \"timestampMs\" : 1577232000000\ndata: }\n\n",
            "event: control-message\ndata: {\"event\":\"JOB_START\",\"handle\":\"EXAMPLE\",\"timestampMs\":1577232000001}\n\n",
            "event: metadata\ndata: {\"properties\":{\"sf_metric\":\"_SF_COMP_01\"},\"tsId\":\"AAAA\"}\n\n",
            $($event,)*
            "event: control-message\ndata: {\"event\":\"END_OF_CHANNEL\",\"timestampMs\":1577232000900}\n\n"
        )
    };
}

/// The points of one instant.
macro_rules! data {
    ($points:literal) => {
        concat!(
            "event: data\nid: data-1\ndata: {\ndata:   \"data\" : [",
            $points,
            "],\ndata:   \"logicalTimestampMs\" : 1577231400000,\ndata:   \"maxDelayMs\" : 1000\ndata: }\n\n"
        )
    };
}

pub fn row() -> Row {
    Row {
        spec: json!({"type": "splunk", "address": "https://api.us1.signalfx.com"}),
        query: "q",
        secret: &[(
            "sf_token_key",
            "t",
            "splunk credentials does not contain sf_token_key",
        )],
        value: Call::post(
            "https://stream.us1.signalfx.com/v2/signalflow/execute?start=1577231400000&stop=1577232000000&immediate=true",
            &[("X-SF-Token", "t"), ("Content-Type", "text/plain")],
            "q",
        ),
        online: Call::get(
            "https://api.us1.signalfx.com/v2/metric?limit=1",
            &[("X-SF-Token", "t")],
        ),
        online_answer: r#"{"count":1,"results":[]}"#,
        refused: [
            "error executing query: no: 403 Forbidden",
            "error response: no",
        ],
        answers: values().into_iter().chain(errors()).collect(),
    }
}

fn values() -> Vec<(&'static str, Reading)> {
    const NONE: &str = "invalid response: no values found";
    vec![
        (
            stream!(
                data!(r#"{"tsId":"AAAA","value":3}"#),
                data!(r#"{"tsId":"AAAA","value":1.11111}"#),
                data!(r#"{"tsId":"AAAA","value":null}"#),
                data!("")
            ),
            Reading::Value(1.11111),
        ),
        (
            stream!(
                "event: message\ndata: {\"message\":{\"messageCode\":\"JOB_RUNNING_RESOLUTION\"}}\n\n",
                data!(r#"{"tsId":"AAAA","value":-2}"#)
            ),
            Reading::Value(-2.0),
        ),
        (stream!(), Reading::None(NONE)),
        (
            stream!(data!(r#"{"tsId":"AAAA","value":null}"#)),
            Reading::None(NONE),
        ),
    ]
}

fn errors() -> Vec<(&'static str, Reading)> {
    const MULTIPLE: &str = "invalid response: query returned multiple values";
    const NO_END: &str = "error executing query: the stream of events has no end: ";
    vec![
        (
            stream!(data!(
                r#"{"tsId":"AAAA","value":1},{"tsId":"BBBB","value":1}"#
            )),
            Reading::Error(MULTIPLE),
        ),
        (
            stream!(
                data!(r#"{"tsId":"AAAA","value":1}"#),
                data!(r#"{"tsId":"BBBB","value":1}"#)
            ),
            Reading::Error(MULTIPLE),
        ),
        (
            stream!(data!(r#"{"tsId":"AAAA","value":"1"}"#)),
            Reading::Error("invalid response: UnsupportedValueType"),
        ),
        (
            stream!(
                data!(r#"{"tsId":"AAAA","value":1}"#),
                "event: error\ndata: {\"errors\":[{\"code\":\"ANALYTICS_INTERNAL_ERROR\"}]}\n\n"
            ),
            Reading::Error(
                r#"error executing query: {"errors":[{"code":"ANALYTICS_INTERNAL_ERROR"}]}"#,
            ),
        ),
        (
            stream!(
                "event: control-message\ndata: {\"event\":\"CHANNEL_ABORT\",\"abortInfo\":{\"sf_job_abortReason\":\"quota\"}}\n\n"
            ),
            Reading::Error(r#"error executing query: {"event":"CHANNEL_ABORT""#),
        ),
        (
            concat!(data!(r#"{"tsId":"AAAA","value":1}"#), "event: data\n"),
            Reading::Error(NO_END),
        ),
        (
            "event: data\ndata: {\"data\":[{\"tsId\":\"AAAA\",\"va",
            Reading::Error("error unmarshaling result: unexpected end of JSON input"),
        ),
        ("", Reading::Error(NO_END)),
        ("<html>", Reading::Error(NO_END)),
        (r#"{"data":[]}"#, Reading::Error(NO_END)),
    ]
}
