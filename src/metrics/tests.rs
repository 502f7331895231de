//! What each provider is asked, and what of its answers counts. A new one adds a row to [`rows`].

use serde_json::{Value, json};

use super::*;
use crate::snapshot::{Method, Secret};

/// A provider, as far as the tests must know it.
struct Row {
    /// A MetricTemplate's `provider`.
    spec: Value,
    /// What its Secret has, and what is said without each.
    secret: &'static [(&'static str, &'static str, &'static str)],
    /// The call for the query `q`, for a metric of one minute, at [`NOW`].
    value: Call,
    /// The call that asks whether it is there.
    online: Call,
    /// What is said of the answer 403 with the body `no`.
    refused: &'static str,
    /// Answers, and what they say.
    answers: Vec<(&'static str, Said)>,
}

/// The second at which all is asked.
const NOW: i64 = 1_577_232_000;

struct Call {
    url: &'static str,
    headers: &'static [(&'static str, &'static str)],
}

enum Said {
    Value(f64),
    /// None, and in which words.
    None(&'static str),
    /// How the error begins.
    Error(&'static str),
}

fn rows() -> Vec<Row> {
    vec![datadog(), new_relic(), graphite(), dynatrace()]
}

fn datadog() -> Row {
    let headers = &[("DD-API-KEY", "k"), ("DD-APPLICATION-KEY", "a")];
    Row {
        spec: json!({"type": "datadog"}),
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
        value: Call {
            url: "https://api.datadoghq.com/api/v1/query?from=1577231400&query=q&to=1577232000",
            headers,
        },
        online: Call {
            url: "https://api.datadoghq.com/api/v1/validate",
            headers,
        },
        refused: "error response: no: 403 Forbidden",
        answers: vec![
            (
                r#"{"series":[{"pointlist":[[1577232000000,1.11111],[1577232060000,2],[1577232120000,3]]},{"pointlist":[[1,9]]}]}"#,
                Said::Value(1.11111),
            ),
            (
                r#"{"series":[{"pointlist":[[1577232000000,null],[1577232060000,2]]}]}"#,
                Said::Value(2.0),
            ),
            (
                r#"{"series":[]}"#,
                Said::None(r#"invalid response: {"series":[]}: no values found"#),
            ),
            (
                r#"{"series":[{"pointlist":[]}]}"#,
                Said::None(r#"invalid response: {"series":[{"pointlist":[]}]}: no values found"#),
            ),
            (
                r#"{"series":[{"pointlist":[[],[1],[1,null]]}]}"#,
                Said::None(
                    r#"invalid response: {"series":[{"pointlist":[[],[1],[1,null]]}]}: no values found"#,
                ),
            ),
            (
                r#"{"status":"error"}"#,
                Said::None(r#"invalid response: {"status":"error"}: no values found"#),
            ),
            (
                r#"{"series":[{"pointlist":[[1,"1.5"]]}]}"#,
                Said::Error(
                    r#"error unmarshaling result: invalid type: string "1.5", expected f64"#,
                ),
            ),
            (
                r#"{"series":[{"pointlist":[[1,NaN]]}]}"#,
                Said::Error("error unmarshaling result: expected value"),
            ),
        ],
    }
}

fn new_relic() -> Row {
    let headers = &[("X-Query-Key", "k")];
    Row {
        spec: json!({"type": "newrelic", "address": "http://nr/x/"}),
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
        value: Call {
            url: "http://nr/x/v1/accounts/7/query?nrql=q+SINCE+60+seconds+ago",
            headers,
        },
        online: Call {
            url: "http://nr/x/v1/accounts/7/query?nrql=SELECT+*+FROM+Metric+SINCE+60+seconds+ago",
            headers,
        },
        refused: "error response: no: 403 Forbidden",
        answers: vec![
            (r#"{"results":[{"result":1.11111}]}"#, Said::Value(1.11111)),
            (
                r#"{"results":[]}"#,
                Said::None(r#"invalid response: {"results":[]}: no values found"#),
            ),
            (
                r#"{"results":[{"count":3}]}"#,
                Said::None(r#"invalid response: {"results":[{"count":3}]}: no values found"#),
            ),
            (
                r#"{"results":[{"result":1},{"result":2}]}"#,
                Said::None(
                    r#"invalid response: {"results":[{"result":1},{"result":2}]}: no values found"#,
                ),
            ),
            (
                r#"{"results":[{"result":"1"}]}"#,
                Said::Error(r#"error unmarshaling result: invalid type: string "1", expected f64"#),
            ),
        ],
    }
}

fn graphite() -> Row {
    let headers = &[("Authorization", "Basic dTpw")];
    Row {
        spec: json!({"type": "graphite", "address": "http://graphite/x"}),
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
        value: Call {
            url: "http://graphite/x/render?format=json&q=",
            headers,
        },
        online: Call {
            url: "http://graphite/x/render?format=json&target=test",
            headers,
        },
        refused: "error response: no",
        answers: vec![
            (
                r#"[{"target":"a","datapoints":[[10,1],[75,2],[25,3],[100,4],[null,5]]}]"#,
                Said::Value(100.0),
            ),
            (
                r#"[{"datapoints":[["1.5","4"]]},{"datapoints":[[null,null],["NaN",5]]}]"#,
                Said::Value(1.5),
            ),
            ("[]", Said::None("no values found")),
            ("null", Said::None("no values found")),
            (
                r#"[{"datapoints":[["x",1]]}]"#,
                Said::Error(r#"the value "x" is not a number"#),
            ),
            (
                r#"[{"datapoints":[[1]]}]"#,
                Said::Error("error unmarshaling result: invalid length 1"),
            ),
            (
                "[",
                Said::Error("error unmarshaling result: unexpected end of JSON input, '['"),
            ),
        ],
    }
}

fn dynatrace() -> Row {
    let headers = &[("Authorization", "Api-Token t")];
    Row {
        spec: json!({"type": "dynatrace", "address": "http://dt"}),
        secret: &[(
            "dynatrace_token",
            "t",
            "dynatrace credentials does not contain dynatrace_token",
        )],
        value: Call {
            url: "http://dt/api/v2/metrics/query?from=1577231400000&metricSelector=q&resolution=Inf&to=1577232000000",
            headers,
        },
        online: Call {
            url: "http://dt/api/v2/metrics?pageSize=1",
            headers,
        },
        refused: "error response: no: 403 Forbidden",
        answers: vec![
            (
                r#"{"result":[{"data":[{"values":[9]},{"values":[1.11111,2]}]}]}"#,
                Said::Value(1.11111),
            ),
            ("{}", Said::None("invalid response: {}: no values found")),
            (
                r#"{"result":[{"data":[{"values":[null]}]}]}"#,
                Said::None(
                    r#"invalid response: {"result":[{"data":[{"values":[null]}]}]}: no values found"#,
                ),
            ),
            (
                r#"{"result":[{"data":[{"values":["1"]}]}]}"#,
                Said::Error(r#"error unmarshaling result: invalid type: string "1", expected f64"#),
            ),
        ],
    }
}

impl Row {
    /// The server, with the Secret without one of its keys.
    fn server(&self, without: Option<&str>) -> Result<Server, String> {
        let secret = self.secret.iter().filter(|(key, ..)| Some(*key) != without);
        let secret = secret.map(|(key, value, _)| ((*key).to_owned(), (*value).to_owned()));
        let spec = serde_json::from_value(self.spec.clone()).unwrap();
        Server::of(&spec, Some(&secret.collect()), Some("1m"))
    }

    fn query(&self, asks: Asks) -> HttpRequest {
        let query = Query {
            server: self.server(None).unwrap(),
            asks,
            budget: Duration::from_secs(9),
        };
        query.request(Timestamp::from_second(NOW).unwrap())
    }
}

fn answer(status: u16, body: &str) -> HttpResponse {
    HttpResponse {
        status,
        body: body.to_owned(),
    }
}

#[test]
fn each_provider_is_asked_as_flagger_asks_it() {
    for row in rows() {
        let name = row.server(None).unwrap().name();
        assert_eq!(row.spec["type"], name);
        let asked = [
            (Asks::Value("q".to_owned()), &row.value),
            (Asks::Online, &row.online),
        ];
        for (asks, call) in asked {
            let request = row.query(asks);
            assert_eq!(request.url.0, call.url);
            let headers: Vec<_> = request
                .headers
                .iter()
                .map(|(name, value)| (name.as_str(), value.0.as_str()))
                .collect();
            assert_eq!(headers, call.headers, "{name}");
            assert_eq!(request.method, Method::Get);
            assert_eq!(
                (request.budget, request.retries),
                (Some(Duration::from_secs(9)), 2),
                "{name}: what may pass is asked again, within the step"
            );
        }
    }
}

#[test]
fn of_each_providers_answers_counts_what_counts_for_flagger() {
    for row in rows() {
        let server = row.server(None).unwrap();
        let name = server.name();
        for (body, said) in &row.answers {
            let value = server.value(&answer(200, body));
            match (said, value) {
                (Said::Value(expected), value) => assert_eq!(value, Ok(*expected), "{name} {body}"),
                (Said::None(text), Err(error)) => {
                    assert!(error.is_none(), "{name} {body}: {error}");
                    assert_eq!(error.to_string(), *text);
                }
                (Said::Error(start), Err(error)) => {
                    assert!(!error.is_none(), "{name} {body}");
                    assert!(
                        error.to_string().starts_with(start),
                        "{name} {body}: {error}"
                    );
                }
                (Said::None(_) | Said::Error(_), Ok(value)) => panic!("{name} {body}: {value}"),
            }
        }
    }
}

#[test]
fn a_server_that_refuses_says_so_whatever_it_sends() {
    for row in rows() {
        let server = row.server(None).unwrap();
        let name = server.name();
        let error = server.value(&answer(403, "no")).unwrap_err();
        assert_eq!(error.to_string(), row.refused, "{name}");
        assert!(!error.is_none());
        let error = server.online(Ok(&answer(403, "no"))).unwrap_err();
        assert!(error.ends_with("error response: no"), "{name}: {error}");
        for body in [
            "<html>".repeat(1000),
            "[".repeat(500_000),
            "\u{0}\n".repeat(9),
        ] {
            for status in [200, 500] {
                let error = server
                    .value(&answer(status, &body))
                    .unwrap_err()
                    .to_string();
                assert!(
                    error.len() < 320 && !error.contains('\n'),
                    "{name}: {error}"
                );
            }
        }
        let failed = MetricError::Failed("request failed: cannot connect".to_owned());
        let error = server.online(Err(failed)).unwrap_err();
        assert!(error.ends_with("request failed: cannot connect"), "{error}");
    }
}

#[test]
fn a_server_is_there_if_it_takes_the_keys() {
    for row in rows() {
        let server = row.server(None).unwrap();
        assert_eq!(server.online(Ok(&answer(200, "[]"))), Ok(()));
    }
}

#[test]
fn half_a_secret_is_named_by_what_it_lacks() {
    for row in rows() {
        for (key, _, said) in row.secret {
            assert_eq!(row.server(Some(key)).unwrap_err(), *said);
        }
    }
    let none = |spec: Value| Server::of(&serde_json::from_value(spec).unwrap(), None, Some("1m"));
    assert_eq!(
        none(json!({"type": "datadog"})).unwrap_err(),
        "datadog credentials does not contain datadog_api_key"
    );
    assert!(none(json!({"type": "graphite", "address": "http://g"})).is_ok());
}

#[test]
fn keys_are_used_as_they_were_meant_and_never_printed() {
    let secret = [
        ("datadog_api_key".to_owned(), "hush\n".to_owned()),
        ("datadog_application_key".to_owned(), "hush".to_owned()),
    ];
    let mut spec = MetricTemplateProvider {
        type_: "datadog".to_owned(),
        address: Some("http://user:hush@dd".to_owned()),
        ..MetricTemplateProvider::default()
    };
    let server = Server::of(&spec, Some(&secret.clone().into()), Some("1m")).unwrap();
    let request = server.query("q", Timestamp::UNIX_EPOCH);
    assert_eq!(request.headers[0].1, Secret("hush".to_owned()));
    assert!(!format!("{server:?} {request:?}").contains("hush"));
    spec.address = Some("user:hush@dd".to_owned());
    let error = Server::of(&spec, Some(&secret.into()), Some("1m")).unwrap_err();
    assert_eq!(error, "datadog address user:hush@dd is not a valid URL");
}

#[test]
fn a_window_is_gos_duration_and_a_minute_where_there_is_none() {
    for (interval, seconds) in [
        (Some("30s"), Ok(30)),
        (Some(""), Ok(60)),
        (None, Ok(60)),
        (Some("0m"), Ok(0)),
        (
            Some("1min"),
            Err("error parsing metric interval: time: unknown unit \"min\" in duration \"1min\""),
        ),
        (
            Some("99999999999999m"),
            Err("error parsing metric interval: time: invalid duration \"99999999999999m\""),
        ),
    ] {
        let window = window(interval).map(|window| window.as_secs());
        assert_eq!(window, seconds.map_err(str::to_owned), "{interval:?}");
    }
}

#[test]
fn an_address_of_graphite_has_its_parameters_in_order_and_its_answer_in_json() {
    let spec = json!({"type": "graphite", "address": "http://graphite"});
    let server = Server::of(&serde_json::from_value(spec).unwrap(), None, None).unwrap();
    let query = "target=summarize(\n  a.b,'1min')&from=-5min&format=csv#&target=c\n";
    assert_eq!(
        server.query(query, Timestamp::UNIX_EPOCH).url.0,
        "http://graphite/render?format=json&from=-5min&target=summarize%28+a.b%2C%271min%27%29&target=c"
    );
}

#[test]
fn what_is_not_a_number_is_no_value_whoever_says_so() {
    let prometheus = Server::Prometheus(prometheus::Server::at("http://p").unwrap());
    let body = r#"{"data":{"result":[{"value":[1,"NaN"]}]}}"#;
    assert_eq!(
        prometheus.value(&answer(200, body)),
        Err(MetricError::NoValues)
    );
}

#[test]
fn numbers_print_as_in_go() {
    for (value, text) in [
        (99.0, "99"),
        (99.5, "99.5"),
        (1e6, "1e+06"),
        (1_234_567.0, "1.234567e+06"),
        (0.0001, "0.0001"),
        (0.00001, "1e-05"),
        (0.0, "0"),
        (-3.5, "-3.5"),
    ] {
        assert_eq!(go_float(value), text);
    }
}

#[test]
fn what_a_hostile_server_says_is_one_short_line() {
    let text = shown(&format!("<html>\n\u{1b}[31m{}", "é".repeat(10_000)));
    assert!(
        text.len() <= 256 && !text.contains(['\n', '\u{1b}']),
        "{text}"
    );
}
