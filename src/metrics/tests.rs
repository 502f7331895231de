//! The requests that each provider sends, and the answers that it accepts, by the table of `tests/table.rs`.

mod azure_monitor;
mod cloudwatch;
mod external_metrics;
mod keptn;
mod splunk;
mod stackdriver;
mod table;

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::*;
use crate::{
    api,
    metrics::providers::PROVIDERS,
    snapshot::{Method, Secret},
};
use table::{NOW, Reading, Row, rows};

impl Row {
    /// The server. The Secret lacks the key `without`.
    fn server(&self, without: Option<&str>) -> Result<Server, ServerError> {
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
fn each_provider_has_one_row() {
    let rows: Vec<_> = rows().iter().map(|row| row.spec["type"].clone()).collect();
    let providers: Vec<_> = PROVIDERS.iter().map(|provider| provider.name()).collect();
    assert_eq!(
        rows, providers,
        "a row for each provider, in the order of the table"
    );
    let unique: BTreeSet<_> = providers.iter().collect();
    assert_eq!(unique.len(), providers.len(), "no name is used twice");
}

#[test]
fn the_api_server_accepts_each_provider() {
    let path = "/properties/spec/properties/provider/properties/type/enum";
    let crds = api::crds();
    let crd = crds
        .iter()
        .find(|crd| crd["spec"]["names"]["kind"] == "MetricTemplate");
    let schema = crd
        .unwrap()
        .pointer("/spec/versions/0/schema/openAPIV3Schema");
    let accepted: Vec<String> =
        serde_json::from_value(schema.unwrap().pointer(path).unwrap().clone()).unwrap();
    for provider in PROVIDERS {
        assert!(
            accepted.iter().any(|name| name == provider.name()),
            "{provider:?}"
        );
    }
}

#[test]
fn an_unknown_provider_is_refused_with_the_names_of_all_others() {
    let spec = MetricTemplateProvider {
        type_: "unknown".to_owned(),
        ..MetricTemplateProvider::default()
    };
    let error = Server::of(&spec, None, None).unwrap_err().to_string();
    let names = error.strip_prefix("not supported, only ");
    let names = names.and_then(|text| text.strip_suffix(" are")).unwrap();
    let names: Vec<_> = names
        .split(", ")
        .flat_map(|name| name.split(" and "))
        .collect();
    assert_eq!(names, providers::names().collect::<Vec<_>>());
}

#[test]
fn each_provider_sends_flaggers_requests() {
    for row in rows() {
        let name = row.server(None).unwrap().name();
        assert_eq!(row.spec["type"], name);
        let requests = [
            (Asks::Value(row.query.to_owned()), &row.value),
            (Asks::Online, &row.online),
        ];
        for (asks, call) in requests {
            let request = row.query(asks);
            assert_eq!(request.url.0, call.url);
            let headers: Vec<_> = request
                .headers
                .iter()
                .map(|(name, value)| (name.as_str(), value.0.as_str()))
                .collect();
            assert_eq!(headers, call.headers, "{name}");
            let method = call.body.map_or(Method::Get, |_| Method::Post);
            assert_eq!(request.method, method, "{name}");
            assert_eq!(request.body.as_deref(), call.body, "{name}");
            assert_eq!(request.proxy, None);
            let seconds = if name == "influxdb" { 15 } else { 5 };
            assert_eq!(request.timeout, Duration::from_secs(seconds));
            assert!(!request.insecure_skip_verify);
            assert_eq!(
                (request.budget, request.retries),
                (Some(Duration::from_secs(9)), 2),
                "{name}: a temporary failure is retried within the step"
            );
        }
    }
}

#[test]
fn each_provider_reads_answers_as_flagger_does() {
    for row in rows() {
        let server = row.server(None).unwrap();
        let name = server.name();
        for (body, reading) in &row.answers {
            let value = server.value(&answer(200, body));
            match (reading, value) {
                (Reading::Value(expected), value) => {
                    assert_eq!(value, Ok(*expected), "{name} {body}");
                }
                (Reading::None(text), Err(error)) => {
                    assert!(error.is_none(), "{name} {body}: {error}");
                    assert_eq!(error.to_string(), *text);
                }
                (Reading::Error(start), Err(error)) => {
                    assert!(!error.is_none(), "{name} {body}");
                    assert!(
                        error.to_string().starts_with(start),
                        "{name} {body}: {error}"
                    );
                }
                (Reading::None(_) | Reading::Error(_), Ok(value)) => {
                    panic!("{name} {body}: {value}")
                }
            }
        }
    }
}

#[test]
fn a_refusal_is_an_error_of_one_short_line() {
    for row in rows() {
        let server = row.server(None).unwrap();
        let name = server.name();
        let [value, online] = row.refused;
        let error = server.value(&answer(403, "no")).unwrap_err();
        assert_eq!(error.to_string(), value, "{name}");
        assert!(!error.is_none());
        let error = server.online(Ok(&answer(403, "no"))).unwrap_err();
        assert_eq!(error.to_string(), online, "{name}");
        for body in [
            "<html>".repeat(1000),
            "[".repeat(500_000),
            "\u{0}\n".repeat(9),
        ] {
            for status in [200, 401, 403, 404, 429, 500] {
                let error = server.value(&answer(status, &body)).unwrap_err();
                let error = error.to_string();
                assert!(
                    error.len() < 320 && !error.contains('\n'),
                    "{name}: {error}"
                );
            }
        }
    }
}

#[test]
fn a_server_without_an_answer_is_offline() {
    for row in rows() {
        let server = row.server(None).unwrap();
        let failed = MetricError::NoAnswer("cannot connect".to_owned());
        let error = server.online(Err(failed)).unwrap_err().to_string();
        assert!(error.ends_with("request failed: cannot connect"), "{error}");
    }
}

#[test]
fn a_server_that_accepts_the_credentials_is_online() {
    for row in rows() {
        let server = row.server(None).unwrap();
        let answer = answer(200, row.online_answer);
        assert_eq!(server.online(Ok(&answer)), Ok(()), "{}", server.name());
    }
}

#[test]
fn a_key_that_the_secret_lacks_is_named() {
    for row in rows() {
        for (key, _, text) in row.secret {
            assert_eq!(row.server(Some(key)).unwrap_err().to_string(), *text);
        }
    }
    let none = |spec: Value| Server::of(&serde_json::from_value(spec).unwrap(), None, Some("1m"));
    assert_eq!(
        none(json!({"type": "datadog"})).unwrap_err().to_string(),
        "datadog credentials does not contain datadog_api_key"
    );
    assert!(none(json!({"type": "graphite", "address": "http://g"})).is_ok());
}

#[test]
fn keys_are_sent_without_line_ends_and_never_printed() {
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
    let request = request(&server, "q");
    assert_eq!(request.headers[0].1, Secret("hush".to_owned()));
    assert!(!format!("{server:?} {request:?}").contains("hush"));
    spec.address = Some("user:hush@dd".to_owned());
    let error = Server::of(&spec, Some(&secret.into()), Some("1m")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "datadog address user:hush@dd is not a valid URL"
    );
}

fn request(server: &Server, query: &str) -> HttpRequest {
    let query = Query {
        server: server.clone(),
        asks: Asks::Value(query.to_owned()),
        budget: Duration::from_secs(9),
    };
    query.request(Timestamp::UNIX_EPOCH)
}

#[test]
fn a_window_is_gos_duration_and_one_minute_by_default() {
    let spec = MetricTemplateProvider::default();
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
        let setup = Setup {
            spec: &spec,
            credentials: None,
            interval,
        };
        let window = setup.window().map(|window| window.as_secs());
        let window = window.map_err(|error| error.to_string());
        assert_eq!(window, seconds.map_err(str::to_owned), "{interval:?}");
    }
}

#[test]
fn a_query_of_graphite_has_its_parameters_in_order_and_asks_for_json() {
    let spec = json!({"type": "graphite", "address": "http://graphite"});
    let server = Server::of(&serde_json::from_value(spec).unwrap(), None, None).unwrap();
    let query = "target=summarize(\n  a.b,'1min')&from=-5min&format=csv#&target=c\n";
    assert_eq!(
        request(&server, query).url.0,
        "http://graphite/render?format=json&from=-5min&target=summarize%28+a.b%2C%271min%27%29&target=c"
    );
}

#[test]
fn the_template_decides_about_certificates_and_headers() {
    let request_of = |type_: &str| {
        let headers = json!({"X-One": ["1", "2"], "X-Two": ["3"]});
        let spec = json!({"type": type_, "address": "https://u:p@m", "insecureSkipVerify": true, "headers": headers});
        let server = Server::of(&serde_json::from_value(spec).unwrap(), None, None).unwrap();
        let request = request(&server, "q");
        let headers = request.headers.iter();
        let headers: Vec<_> = headers
            .map(|(name, value)| format!("{name}: {}", value.0))
            .collect();
        (request.insecure_skip_verify, headers.join(", "))
    };
    assert_eq!(
        request_of("prometheus"),
        (
            true,
            "X-One: 1, X-One: 2, X-Two: 3, Authorization: Basic dTpw".to_owned()
        )
    );
    assert_eq!(
        request_of("graphite"),
        (true, "Authorization: Basic dTpw".to_owned())
    );
}

/// Each row has the template's type, its address, and the error.
#[test]
fn an_address_is_a_url_of_http() {
    for (type_, address, text) in [
        ("prometheus", "", "prometheus address  is not a valid URL"),
        (
            "prometheus",
            "ftp://u:hush@m",
            "prometheus address ftp://m is not a valid URL",
        ),
        (
            "graphite",
            "m:80",
            "graphite address m:80 is not a valid URL",
        ),
        ("dynatrace", "", "dynatrace endpoint is not set"),
        (
            "dynatrace",
            "https://",
            "dynatrace address https:// is not a valid URL",
        ),
    ] {
        let spec = json!({"type": type_, "address": address});
        let secret = [("dynatrace_token".to_owned(), "t".to_owned())].into();
        let error =
            Server::of(&serde_json::from_value(spec).unwrap(), Some(&secret), None).unwrap_err();
        assert_eq!(error.to_string(), text);
    }
    let none = Server::of(
        &serde_json::from_value(json!({"type": "dynatrace"})).unwrap(),
        None,
        None,
    );
    assert_eq!(
        none.unwrap_err().to_string(),
        "dynatrace endpoint is not set"
    );
}

#[test]
fn influxdb_without_a_secret_is_asked_without_credentials() {
    let spec = serde_json::from_value(json!({"type": "influxdb", "address": "http://i"}));
    let server = Server::of(&spec.unwrap(), None, None).unwrap();
    let request = request(&server, "q");
    assert_eq!(request.url.0, "http://i/api/v2/query?org=");
    let names: Vec<_> = request.headers.iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["Content-Type"]);
}

/// Each row has the status, the body, and the errors about a query and about the check.
#[test]
fn influxdbs_own_words_about_a_refusal_are_shown() {
    let spec = serde_json::from_value(json!({"type": "influxdb", "address": "http://i"}));
    let server = Server::of(&spec.unwrap(), None, None).unwrap();
    let body = |code: &str, why: &str| json!({"code": code, "message": why}).to_string();
    for (status, body, text, is_online) in [
        (
            401,
            body("unauthorized", "unauthorized access"),
            "unauthorized: unauthorized access",
            false,
        ),
        (
            404,
            body("not found", "could not find bucket \"default\""),
            "not found: could not find bucket \"default\"",
            true,
        ),
        (404, "not here".to_owned(), "not here: 404 Not Found", false),
        (429, String::new(), ": 429 Too Many Requests", false),
    ] {
        let answer = answer(status, &body);
        let error = server.value(&answer).unwrap_err().to_string();
        assert_eq!(error, format!("error accessing influxdb query api: {text}"));
        assert_eq!(server.online(Ok(&answer)).is_ok(), is_online, "{body}");
    }
}

#[test]
fn new_relic_has_an_address_of_its_own() {
    let secret = [("newrelic_account_id", "7"), ("newrelic_query_key", "k")];
    let secret = secret
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into();
    let spec = serde_json::from_value(json!({"type": "newrelic"})).unwrap();
    let server = Server::of(&spec, Some(&secret), Some("30s")).unwrap();
    assert_eq!(
        request(&server, "q").url.0,
        "https://insights-api.newrelic.com/v1/accounts/7/query?nrql=q+SINCE+30+seconds+ago"
    );
}

#[test]
fn a_prometheus_without_the_value_1_is_offline() {
    let server = Server::prometheus("http://p", Origin::User).unwrap();
    let body = r#"{"data":{"result":[{"value":[1,"2"]}]}}"#;
    let error = server.online(Ok(&answer(200, body))).unwrap_err();
    assert_eq!(error.to_string(), "value is not 1 for query: vector(1)");
}

/// Each row has the provider and the statuses around the first that is an error.
#[test]
fn the_status_decides_whether_an_answer_has_a_value() {
    for (type_, body, accepted, refused) in [
        (
            "prometheus",
            r#"{"data":{"result":[{"value":[1,"1"]}]}}"#,
            [200, 399],
            [400, 500],
        ),
        (
            "graphite",
            r#"[{"datapoints":[[1,1]]}]"#,
            [200, 399],
            [400, 500],
        ),
        (
            "dynatrace",
            r#"{"result":[{"data":[{"values":[1]}]}]}"#,
            [200, 200],
            [199, 201],
        ),
    ] {
        let spec = json!({"type": type_, "address": "http://m"});
        let secret = [("dynatrace_token".to_owned(), "t".to_owned())].into();
        let secret = (type_ == "dynatrace").then_some(&secret);
        let server = Server::of(&serde_json::from_value(spec).unwrap(), secret, None).unwrap();
        for status in accepted {
            assert_eq!(
                server.value(&answer(status, body)),
                Ok(1.0),
                "{type_} {status}"
            );
        }
        for status in refused {
            let error = server.value(&answer(status, body)).unwrap_err();
            assert!(
                matches!(error, MetricError::Refused(_)),
                "{type_} {status}: {error}"
            );
        }
    }
}

/// The user's own header wins over user and password in the address, whatever the case of its name.
#[test]
fn no_request_has_two_authorizations() {
    let spec = json!({"type": "prometheus", "address": "http://u:p@m", "headers": {"authorization": ["mine"]}});
    let server = Server::of(&serde_json::from_value(spec).unwrap(), None, None).unwrap();
    let headers = request(&server, "q").headers;
    assert_eq!(
        headers,
        [("authorization".to_owned(), Secret("mine".to_owned()))]
    );
}

#[test]
fn credentials_in_an_invalid_address_are_not_shown() {
    for (address, shown) in [
        ("ftp://u:hush@m/x", "ftp://m/x"),
        ("ftp://u:hush@v@m", "ftp://m"),
        ("ftp://@m", "ftp://m"),
        ("ftp://m", "ftp://m"),
        ("m@x://y", "m@x://y"),
    ] {
        assert_eq!(endpoint::public(address), shown);
    }
}
