//! Prometheus (Flagger: `pkg/metrics/providers/prometheus.go`), for built-in metrics, inline queries and MetricTemplates.

use std::{collections::BTreeMap, fmt};

use jiff::Timestamp;
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, SeqAccess, Visitor},
};
use serde_json::Value;

use crate::{
    metrics::{
        answer::json,
        endpoint::{Endpoint, basic_authorization},
        error::{MetricError, OfflineError, ServerError},
        provider::{Access, Provider, Setup, collapsed},
    },
    snapshot::{HttpRequest, HttpResponse, excerpt, go},
};

/// The query that every server can answer, with the value 1.
const PROBE: &str = "vector(1)";

/// A Prometheus server, or one that understands its queries.
pub struct Prometheus;

/// The most series in an answer.
const SERIES: usize = 10_000;

/// A series of an answer, with its points: the time in seconds, and the value.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TimeSeries {
    /// The labels.
    pub labels: BTreeMap<String, String>,
    /// The points that have a value.
    pub points: Vec<(f64, f64)>,
}

/// The request for the series of a query at an instant.
pub fn at(access: &Access, query: &str, at: Timestamp) -> HttpRequest {
    let query = collapsed(query);
    let time = at.as_second().to_string();
    access
        .endpoint
        .get("/api/v1/query", &[("query", &query), ("time", &time)])
}

/// Reads the series of an answer: those of an instant, which have one point each, or of a range.
pub fn series(response: &HttpResponse) -> Result<Vec<TimeSeries>, MetricError> {
    let answer: Option<Answer<Vec<Option<Series>>>> = json(successful(response)?)?;
    let series = answer.and_then(|answer| answer.data?.result);
    let series = series.unwrap_or_default();
    if series.len() > SERIES {
        let why = format!(
            "the answer has {} series; at most {SERIES} are read",
            series.len()
        );
        return Err(MetricError::Refused(why));
    }
    let sample = |series: Series| {
        let points = series
            .value
            .into_iter()
            .chain(series.values.unwrap_or_default());
        let number = |(time, value): (f64, String)| Some((time, value.parse().ok()?));
        let is_value = |point: &(f64, f64)| point.1.is_finite();
        TimeSeries {
            labels: series.metric,
            points: points.filter_map(number).filter(is_value).collect(),
        }
    };
    Ok(series.into_iter().flatten().map(sample).collect())
}

/// The body of an answer without an error.
fn successful(response: &HttpResponse) -> Result<&str, MetricError> {
    let HttpResponse { status, body } = response;
    if *status >= 400 {
        let (status, body) = (go::status(*status), excerpt(body));
        return Err(MetricError::Refused(format!("Status {status}: {body}")));
    }
    Ok(body)
}

impl Provider for Prometheus {
    fn name(&self) -> &'static str {
        "prometheus"
    }

    /// The Secret has a token, or else user and password.
    fn access(&self, setup: &Setup<'_>) -> Result<Access, ServerError> {
        let endpoint = Endpoint::of(setup.spec, "")?
            .with_verification_of(setup.spec)
            .with_headers_of(setup.spec);
        let authorization = match setup.credentials {
            Some(credentials) => match credentials.get("token") {
                Some(token) => Some(format!("Bearer {token}")),
                None => basic_authorization("prometheus", credentials)?,
            },
            None => None,
        };
        let endpoint = endpoint.with_authorization(authorization);
        Ok(Access::without_window(endpoint))
    }

    fn query(&self, access: &Access, query: &str, _now: Timestamp) -> HttpRequest {
        let query = collapsed(query);
        access.endpoint.get("/api/v1/query", &[("query", &query)])
    }

    fn probe(&self, access: &Access) -> HttpRequest {
        self.query(access, PROBE, Timestamp::UNIX_EPOCH)
    }

    /// The value of the last sample, as in Flagger.
    fn value(&self, response: &HttpResponse) -> Result<f64, MetricError> {
        let answer: Option<Answer<Samples>> = json(successful(response)?)?;
        let samples = answer
            .and_then(|answer| answer.data?.result)
            .unwrap_or_default();
        if samples.are_series {
            return Err(MetricError::MultipleValues);
        }
        let last = samples.last.ok_or(MetricError::NoValues)?;
        last.parse().map_err(|_| MetricError::not_a_number(&last))
    }

    fn online(&self, answer: Result<&HttpResponse, MetricError>) -> Result<(), OfflineError> {
        match answer.and_then(|response| self.value(response)) {
            Ok(1.0) => Ok(()),
            Ok(_) => Err(OfflineError::WrongValue {
                expected: 1,
                query: PROBE,
            }),
            Err(error) => Err(OfflineError::Query(error)),
        }
    }
}

/// The fields of an answer that count; null counts as missing, as in Go. Flagger reads no other field either, not even `status`. The types
/// of Prometheus' own client library are stricter and would refuse the answers of some compatible servers.
#[derive(Deserialize)]
struct Answer<T> {
    data: Option<Data<T>>,
}

#[derive(Deserialize)]
struct Data<T> {
    result: Option<T>,
}

/// A series with its labels.
#[derive(Deserialize)]
struct Series {
    #[serde(default)]
    metric: BTreeMap<String, String>,
    value: Option<(f64, String)>,
    values: Option<Vec<(f64, String)>>,
}

/// The part of a list of samples that a check uses. The list itself is not kept, because an answer may have a hundred thousand samples.
#[derive(Default)]
struct Samples {
    /// Whether a sample has several values.
    are_series: bool,
    /// The value of the last sample that has one.
    last: Option<String>,
}

impl<'de> Deserialize<'de> for Samples {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(SamplesVisitor)
    }
}

struct SamplesVisitor;

impl<'de> Visitor<'de> for SamplesVisitor {
    type Value = Samples;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a sequence")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Samples, A::Error> {
        let mut samples = Samples::default();
        while let Some(sample) = list.next_element::<Option<Sample>>()? {
            let Some(sample) = sample else { continue };
            samples.are_series |= sample.values.is_some();
            if let Some(Value::String(value)) =
                sample.value.and_then(|point| point.into_iter().nth(1))
            {
                samples.last = Some(value);
            }
        }
        Ok(samples)
    }
}

#[derive(Deserialize)]
struct Sample {
    value: Option<Vec<Value>>,
    values: Option<IgnoredAny>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::metric_template::MetricTemplateProvider,
        metrics::Server,
        snapshot::{Origin, Secret},
    };

    fn value(body: &str) -> Result<f64, MetricError> {
        Prometheus.value(&HttpResponse {
            status: 200,
            body: body.to_owned(),
        })
    }

    fn query(endpoint: Endpoint, query: &str) -> HttpRequest {
        let access = Access::without_window(endpoint);
        Prometheus.query(&access, query, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn a_query_becomes_flaggers_request() {
        let address = "http://user:p%40ss@prom:9090/prefix/?x=1";
        let endpoint = Endpoint::at("prometheus", address).unwrap();
        let request = query(endpoint, " sum(\n  rate(x[1m])) + 1");
        assert_eq!(
            request.url.0,
            "http://prom:9090/prefix/api/v1/query?query=+sum%28+rate%28x%5B1m%5D%29%29+%2B+1"
        );
        assert_eq!(
            request.headers,
            [(
                "Authorization".to_owned(),
                Secret("Basic dXNlcjpwQHNz".to_owned())
            )],
            "user:p@ss"
        );
        assert!(
            !format!("{request:?}").contains("user"),
            "credentials are not printed"
        );
        let server = Server::prometheus("http://user:hush@prom", Origin::User).unwrap();
        assert!(!format!("{server:?}").contains("hush"));
        assert_eq!(
            Server::prometheus("", Origin::User)
                .unwrap_err()
                .to_string(),
            "prometheus address  is not a valid URL"
        );
    }

    #[test]
    fn credentials_are_a_token_or_else_user_and_password() {
        let provider = MetricTemplateProvider {
            address: Some("http://p".to_owned()),
            ..MetricTemplateProvider::default()
        };
        let with = |pairs: &[(&str, &str)]| {
            let map = pairs
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect();
            let setup = Setup {
                spec: &provider,
                credentials: Some(&map),
                interval: None,
            };
            Prometheus.access(&setup).map(|access| {
                let headers = query(access.endpoint, "x").headers;
                let values: Vec<_> = headers.into_iter().map(|(_, value)| value.0).collect();
                values.join(",")
            })
        };
        assert_eq!(
            with(&[("token", "t"), ("username", "u")]).unwrap(),
            "Bearer t"
        );
        assert_eq!(
            with(&[("username", "u"), ("password", "p")]).unwrap(),
            "Basic dTpw"
        );
        assert_eq!(with(&[("username", "u"), ("password", "")]).unwrap(), "");
        assert_eq!(
            with(&[("username", "u")]).unwrap_err().to_string(),
            "prometheus credentials does not contain a password"
        );
    }

    #[test]
    fn answers_are_read_as_flagger_reads_them() {
        let vector = |samples: &str| {
            value(&format!(
                r#"{{"status":"success","data":{{"resultType":"vector","result":[{samples}]}}}}"#
            ))
        };
        assert_eq!(
            vector(r#"{"metric":{},"value":[1545905245.458,"100"]}"#),
            Ok(100.0)
        );
        assert_eq!(vector(r#"{"value":[1,"1"]},{"value":[1,"2"]}"#), Ok(2.0));
        assert_eq!(vector(""), Err(MetricError::NoValues));
        assert_eq!(vector("{}"), Err(MetricError::NoValues));
        assert_eq!(
            vector(r#"{"values":[[1,"1"]]}"#),
            Err(MetricError::MultipleValues)
        );
        assert_eq!(value(r#"{"result":[{}]}"#), Err(MetricError::NoValues));
        assert!(
            matches!(value("<html>"), Err(MetricError::NotJson { body, .. }) if body == "<html>")
        );
        let bad = Prometheus.value(&HttpResponse {
            status: 502,
            body: "no".to_owned(),
        });
        assert_eq!(
            bad.unwrap_err().to_string(),
            "error response: Status 502 Bad Gateway: no"
        );
    }

    #[test]
    fn null_is_no_value_and_other_text_than_json_has_gos_error() {
        for body in [
            "null",
            r#"{"data":null}"#,
            r#"{"data":{"result":null}}"#,
            r#"{"data":{"result":[null,{"value":null,"values":null}]}}"#,
        ] {
            assert_eq!(value(body), Err(MetricError::NoValues), "{body}");
        }
        for (body, reason) in [
            ("", "unexpected end of JSON input"),
            (
                "<html>",
                "invalid character '<' looking for beginning of value",
            ),
            (" #", "invalid character '#' looking for beginning of value"),
            (r#"{"data":"#, "unexpected end of JSON input"),
        ] {
            let text = format!("error unmarshaling result: {reason}, '{body}'");
            assert_eq!(value(body).unwrap_err().to_string(), text, "{body}");
        }
        assert!(matches!(
            value(r#"{"data":7}"#),
            Err(MetricError::NotJson { .. })
        ));
    }
}
