//! Prometheus, for built-in and inline metrics and for MetricTemplates (`pkg/metrics/providers/prometheus.go`).

use serde::Deserialize;
use serde_json::Value;

use super::{
    MetricError, collapsed,
    endpoint::{Credentials, Endpoint, basic_of},
    json, shown, status_line,
};
use crate::{
    api::metric_template::MetricTemplateProvider,
    snapshot::{HttpRequest, HttpResponse},
};

/// A Prometheus server.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Server(Endpoint);

impl Server {
    /// The server at an address, without credentials.
    pub fn at(address: &str) -> Result<Self, String> {
        Endpoint::at("prometheus", address).map(Self)
    }

    /// The server of a MetricTemplate, with the credentials of its Secret: a token, or else user and password.
    pub fn of(
        spec: &MetricTemplateProvider,
        credentials: Option<&Credentials>,
    ) -> Result<Self, String> {
        let mut server = Endpoint::of(spec, "")?.checked_as(spec);
        for (name, values) in spec.headers.iter().flatten() {
            for value in values {
                server = server.with(name, value.clone());
            }
        }
        let authorization = match credentials {
            Some(credentials) => match credentials.get("token") {
                Some(token) => Some(format!("Bearer {token}")),
                None => basic_of("prometheus", credentials)?,
            },
            None => None,
        };
        Ok(Self(match authorization {
            Some(value) => server.with("Authorization", value),
            None => server,
        }))
    }

    /// The call that asks for a query's value.
    pub fn query(&self, query: &str) -> HttpRequest {
        self.0.get("/api/v1/query", &[("query", &collapsed(query))])
    }

    /// The query that every server can answer.
    pub fn probe(&self) -> HttpRequest {
        self.query("vector(1)")
    }
}

/// The value that an answer has; of several samples the last, as in Flagger.
pub fn parse(response: &HttpResponse) -> Result<f64, MetricError> {
    let HttpResponse { status, body } = response;
    if *status >= 400 {
        return Err(MetricError::Failed(format!(
            "error response: Status {}: {}",
            status_line(*status),
            shown(body)
        )));
    }
    let answer: Option<Answer> = json(body)?;
    let samples = answer.and_then(|answer| answer.data?.result);
    let samples: Vec<_> = samples.unwrap_or_default().into_iter().flatten().collect();
    if samples.iter().any(|sample| sample.values.is_some()) {
        return Err(MetricError::MultipleValues);
    }
    let mut texts = samples
        .iter()
        .filter_map(|sample| sample.value.as_ref()?.get(1)?.as_str());
    let last = texts.next_back().ok_or(MetricError::NoValues)?;
    last.parse()
        .map_err(|_| MetricError::Failed(format!("the value {:?} is not a number", shown(last))))
}

/// What the answer to the probe says, if the server is not there.
pub fn online(answer: Result<&HttpResponse, MetricError>) -> Result<(), String> {
    match answer.and_then(parse) {
        Ok(1.0) => Ok(()),
        Ok(_) => Err("value is not 1 for query: vector(1)".to_owned()),
        Err(error) => Err(format!("running query failed: {error}")),
    }
}

/// What of an answer counts; null is as good as nothing, as in Go. Flagger looks at nothing else, not even at `status`; the types of Prometheus' own client library are
/// stricter, and would refuse answers of servers that are only like Prometheus.
#[derive(Deserialize)]
struct Answer {
    data: Option<Data>,
}

#[derive(Deserialize)]
struct Data {
    result: Option<Vec<Option<Sample>>>,
}

#[derive(Deserialize)]
struct Sample {
    value: Option<Vec<Value>>,
    values: Option<Value>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::Secret;

    fn value(body: &str) -> Result<f64, MetricError> {
        parse(&HttpResponse {
            status: 200,
            body: body.to_owned(),
        })
    }

    #[test]
    fn a_query_is_asked_as_flagger_asks_it() {
        let request = Server::at("http://user:p%40ss@prom:9090/prefix/?x=1")
            .unwrap()
            .query(" sum(\n  rate(x[1m])) + 1");
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
        let server = Server::at("http://user:hush@prom").unwrap();
        assert!(!format!("{server:?}").contains("hush"));
        assert_eq!(
            Server::at("").unwrap_err(),
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
            Server::of(&provider, Some(&map)).map(|server| {
                let request = server.query("x");
                request
                    .headers
                    .into_iter()
                    .map(|(_, v)| v.0)
                    .collect::<Vec<_>>()
                    .join(",")
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
            with(&[("username", "u")]).unwrap_err(),
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
            matches!(value("<html>"), Err(MetricError::Failed(why)) if why.starts_with("error unmarshaling result: ") && why.contains("<html>"))
        );
        let bad = parse(&HttpResponse {
            status: 502,
            body: "no".to_owned(),
        });
        assert_eq!(
            bad,
            Err(MetricError::Failed(
                "error response: Status 502 Bad Gateway: no".to_owned()
            ))
        );
    }

    #[test]
    fn null_is_no_value_and_what_is_not_json_is_said_in_gos_words() {
        for body in [
            "null",
            r#"{"data":null}"#,
            r#"{"data":{"result":null}}"#,
            r#"{"data":{"result":[null,{"value":null,"values":null}]}}"#,
        ] {
            assert_eq!(value(body), Err(MetricError::NoValues), "{body}");
        }
        for (body, said) in [
            ("", "unexpected end of JSON input"),
            (
                "<html>",
                "invalid character '<' looking for beginning of value",
            ),
            (" #", "invalid character '#' looking for beginning of value"),
            (r#"{"data":"#, "unexpected end of JSON input"),
        ] {
            let text = format!("error unmarshaling result: {said}, '{body}'");
            assert_eq!(value(body), Err(MetricError::Failed(text)), "{body}");
        }
        assert!(matches!(
            value(r#"{"data":7}"#),
            Err(MetricError::Failed(_))
        ));
    }
}
