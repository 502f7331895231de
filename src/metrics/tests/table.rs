//! The test table of metric providers: one row per provider. `each_provider_has_one_row` fails while one is missing.

mod azure_monitor;
mod cloudwatch;
mod external_metrics;
mod influxdb;
mod keptn;
mod splunk;
mod stackdriver;

use serde_json::{Value, json};

/// The expectations for one provider.
pub struct Row {
    /// The `provider` of a MetricTemplate.
    pub spec: Value,
    /// A query.
    pub query: &'static str,
    /// Each key of its Secret, a value for it, and the error without that key.
    pub secret: &'static [(&'static str, &'static str, &'static str)],
    /// The request for the value of the query, for a metric of one minute, at [`NOW`].
    pub value: Call,
    /// The request that checks whether the server is online.
    pub online: Call,
    /// The body with which an online server answers that request.
    pub online_answer: &'static str,
    /// The errors about the answer 403 with the body `no`: to a query, and to the check.
    pub refused: [&'static str; 2],
    /// Answers, and how they are read.
    pub answers: Vec<(&'static str, Reading)>,
}

/// The second of all requests.
pub const NOW: i64 = 1_577_232_000;

/// A request.
pub struct Call {
    pub url: &'static str,
    pub headers: Headers,
    /// The body of a POST request. A request without one is a GET request.
    pub body: Option<&'static str>,
}

type Headers = &'static [(&'static str, &'static str)];

impl Call {
    const fn get(url: &'static str, headers: Headers) -> Self {
        Self {
            url,
            headers,
            body: None,
        }
    }

    const fn post(url: &'static str, headers: Headers, body: &'static str) -> Self {
        Self {
            url,
            headers,
            body: Some(body),
        }
    }
}

/// How an answer is read.
pub enum Reading {
    Value(f64),
    /// No value, with this text.
    None(&'static str),
    /// An error whose text begins like this.
    Error(&'static str),
}

/// The rows, in the order of the table of providers.
pub fn rows() -> Vec<Row> {
    vec![
        prometheus(),
        datadog(),
        new_relic(),
        graphite(),
        dynatrace(),
        influxdb::row(),
        keptn::row(),
        external_metrics::row(),
        splunk::row(),
        azure_monitor::row(),
        cloudwatch::row(),
        stackdriver::row(),
    ]
}

fn prometheus() -> Row {
    let headers = &[("Authorization", "Basic dTpw")];
    Row {
        spec: json!({"type": "prometheus", "address": "http://prometheus:9090/x/"}),
        query: "q",
        secret: &[
            (
                "username",
                "u",
                "prometheus credentials does not contain a username",
            ),
            (
                "password",
                "p",
                "prometheus credentials does not contain a password",
            ),
        ],
        value: Call::get("http://prometheus:9090/x/api/v1/query?query=q", headers),
        online: Call::get(
            "http://prometheus:9090/x/api/v1/query?query=vector%281%29",
            headers,
        ),
        online_answer: r#"{"data":{"result":[{"value":[1577232000,"1"]}]}}"#,
        refused: [
            "error response: Status 403 Forbidden: no",
            "running query failed: error response: Status 403 Forbidden: no",
        ],
        answers: vec![
            (
                r#"{"data":{"result":[{"value":[1,"1"]},{"value":[1,"1.11111"]}]}}"#,
                Reading::Value(1.11111),
            ),
            ("{}", Reading::None("no values found")),
            (
                r#"{"data":{"result":[{"value":[1,"NaN"]}]}}"#,
                Reading::None("no values found"),
            ),
            (
                r#"{"data":{"result":[{"value":[1,"x"]}]}}"#,
                Reading::Error(r#"the value "x" is not a number"#),
            ),
            (
                r#"{"data":{"result":[{"values":[[1,"1"]]}]}}"#,
                Reading::Error("query returned multiple values"),
            ),
        ],
    }
}

fn datadog() -> Row {
    let headers = &[("DD-API-KEY", "k"), ("DD-APPLICATION-KEY", "a")];
    Row {
        spec: json!({"type": "datadog"}),
        query: "q",
        secret: &[
            (
                "datadog_api_key",
                "k",
                "datadog credentials does not contain datadog_api_key",
            ),
            (
                "datadog_application_key",
                "a",
                "datadog credentials does not contain datadog_application_key",
            ),
        ],
        value: Call::get(
            "https://api.datadoghq.com/api/v1/query?from=1577231400&query=q&to=1577232000",
            headers,
        ),
        online: Call::get("https://api.datadoghq.com/api/v1/validate", headers),
        online_answer: "",
        refused: ["error response: no: 403 Forbidden", "error response: no"],
        answers: datadog_answers(),
    }
}

fn datadog_answers() -> Vec<(&'static str, Reading)> {
    vec![
        (
            r#"{"series":[{"pointlist":[[1577232000000,1.11111],[1577232060000,2],[1577232120000,3]]},{"pointlist":[[1,9]]}]}"#,
            Reading::Value(1.11111),
        ),
        (
            r#"{"series":[{"pointlist":[[1577232000000,null],[1577232060000,2]]}]}"#,
            Reading::Value(2.0),
        ),
        (
            r#"{"series":[]}"#,
            Reading::None(r#"invalid response: {"series":[]}: no values found"#),
        ),
        (
            r#"{"series":[{"pointlist":[]}]}"#,
            Reading::None(r#"invalid response: {"series":[{"pointlist":[]}]}: no values found"#),
        ),
        (
            r#"{"series":[{"pointlist":[[],[1],[1,null]]}]}"#,
            Reading::None(
                r#"invalid response: {"series":[{"pointlist":[[],[1],[1,null]]}]}: no values found"#,
            ),
        ),
        (
            r#"{"status":"error"}"#,
            Reading::None(r#"invalid response: {"status":"error"}: no values found"#),
        ),
        (
            r#"{"series":[{"pointlist":[[1,"1.5"]]}]}"#,
            Reading::Error(
                r#"error unmarshaling result: invalid type: string "1.5", expected f64"#,
            ),
        ),
        (
            r#"{"series":[{"pointlist":[[1,NaN]]}]}"#,
            Reading::Error("error unmarshaling result: expected value"),
        ),
    ]
}

fn new_relic() -> Row {
    let headers = &[("X-Query-Key", "k")];
    Row {
        spec: json!({"type": "newrelic", "address": "http://nr/x/"}),
        query: "q",
        secret: &[
            (
                "newrelic_account_id",
                "7",
                "newrelic credentials does not contain the key 'newrelic_account_id'",
            ),
            (
                "newrelic_query_key",
                "k",
                "newrelic credentials does not contain the key ''newrelic_query_key",
            ),
        ],
        value: Call::get(
            "http://nr/x/v1/accounts/7/query?nrql=q+SINCE+60+seconds+ago",
            headers,
        ),
        online: Call::get(
            "http://nr/x/v1/accounts/7/query?nrql=SELECT+*+FROM+Metric+SINCE+60+seconds+ago",
            headers,
        ),
        online_answer: "",
        refused: ["error response: no: 403 Forbidden", "error response: no"],
        answers: vec![
            (
                r#"{"results":[{"result":1.11111}]}"#,
                Reading::Value(1.11111),
            ),
            (
                r#"{"results":[]}"#,
                Reading::None(r#"invalid response: {"results":[]}: no values found"#),
            ),
            (
                r#"{"results":[{"count":3}]}"#,
                Reading::None(r#"invalid response: {"results":[{"count":3}]}: no values found"#),
            ),
            (
                r#"{"results":[{"result":1},{"result":2}]}"#,
                Reading::None(
                    r#"invalid response: {"results":[{"result":1},{"result":2}]}: no values found"#,
                ),
            ),
            (
                r#"{"results":[{"result":"1"}]}"#,
                Reading::Error(
                    r#"error unmarshaling result: invalid type: string "1", expected f64"#,
                ),
            ),
        ],
    }
}

fn graphite() -> Row {
    let headers = &[("Authorization", "Basic dTpw")];
    Row {
        spec: json!({"type": "graphite", "address": "http://graphite/x"}),
        query: "q",
        secret: &[
            (
                "username",
                "u",
                "graphite credentials does not contain a username",
            ),
            (
                "password",
                "p",
                "graphite credentials does not contain a password",
            ),
        ],
        value: Call::get("http://graphite/x/render?format=json&q=", headers),
        online: Call::get("http://graphite/x/render?format=json&target=test", headers),
        online_answer: "[]",
        refused: [
            "error response: no",
            "running query failed: error response: no",
        ],
        answers: vec![
            (
                r#"[{"target":"a","datapoints":[[10,1],[75,2],[25,3],[100,4],[null,5]]}]"#,
                Reading::Value(100.0),
            ),
            (
                r#"[{"datapoints":[["1.5","4"]]},{"datapoints":[[null,null],["NaN",5]]}]"#,
                Reading::Value(1.5),
            ),
            ("[]", Reading::None("no values found")),
            ("null", Reading::None("no values found")),
            (
                r#"[{"datapoints":[["x",1]]}]"#,
                Reading::Error(r#"the value "x" is not a number"#),
            ),
            (
                r#"[{"datapoints":[[1]]}]"#,
                Reading::Error("error unmarshaling result: invalid length 1"),
            ),
            (
                "[",
                Reading::Error("error unmarshaling result: unexpected end of JSON input, '['"),
            ),
        ],
    }
}

fn dynatrace() -> Row {
    let headers = &[("Authorization", "Api-Token t")];
    Row {
        spec: json!({"type": "dynatrace", "address": "http://dt"}),
        query: "q",
        secret: &[(
            "dynatrace_token",
            "t",
            "dynatrace credentials does not contain dynatrace_token",
        )],
        value: Call::get(
            "http://dt/api/v2/metrics/query?from=1577231400000&metricSelector=q&resolution=Inf&to=1577232000000",
            headers,
        ),
        online: Call::get("http://dt/api/v2/metrics?pageSize=1", headers),
        online_answer: "",
        refused: ["error response: no: 403 Forbidden", "error response: no"],
        answers: vec![
            (
                r#"{"result":[{"data":[{"values":[9]},{"values":[1.11111,2]}]}]}"#,
                Reading::Value(1.11111),
            ),
            ("{}", Reading::None("invalid response: {}: no values found")),
            (
                r#"{"result":[{"data":[{"values":[null]}]}]}"#,
                Reading::None(
                    r#"invalid response: {"result":[{"data":[{"values":[null]}]}]}: no values found"#,
                ),
            ),
            (
                r#"{"result":[{"data":[{"values":["1"]}]}]}"#,
                Reading::Error(
                    r#"error unmarshaling result: invalid type: string "1", expected f64"#,
                ),
            ),
        ],
    }
}
