//! Prometheus, for built-in and inline metrics and for MetricTemplates (`pkg/metrics/providers/prometheus.go`).

use std::{collections::BTreeMap, time::Duration};

use serde::Deserialize;
use serde_json::Value;
use url::{Url, form_urlencoded};

use super::{MetricError, shown};
use crate::{
    api::metric_template::MetricTemplateProvider,
    world::{HttpRequest, HttpResponse, Method, Secret},
};

/// The longest that a query may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// A query that fails for a reason that may pass is sent again so often before it counts as failed. (Flagger asks once.)
const RETRIES: u32 = 2;
/// The query that every server can answer.
pub const ONLINE: &str = "vector(1)";

/// A Prometheus server, and how to be let in.
#[derive(Clone, Debug)]
pub struct Server {
    /// Without user and password, so that it can be printed.
    address: Url,
    /// What user and password of the address amount to; headers that let in come before it.
    login: Option<Secret>,
    headers: Vec<(String, Secret)>,
    insecure_skip_verify: bool,
}

impl Server {
    /// The server at an address, without credentials.
    pub fn at(address: &str) -> Result<Self, String> {
        let url = Url::parse(address)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        let address = url
            .ok_or_else(|| format!("prometheus address {} is not a valid URL", public(address)))?;
        let login = login(&address);
        let mut address = address;
        // Both fail only for addresses that cannot have credentials.
        let _ = address.set_username("");
        let _ = address.set_password(None);
        Ok(Self {
            address,
            login,
            headers: Vec::new(),
            insecure_skip_verify: false,
        })
    }

    /// The server of a MetricTemplate, with the credentials of its Secret: a token, or else user and password.
    pub fn of(
        provider: &MetricTemplateProvider,
        credentials: Option<&BTreeMap<String, String>>,
    ) -> Result<Self, String> {
        let mut server = Self::at(provider.address.as_deref().unwrap_or_default())?;
        server.insecure_skip_verify = provider.insecure_skip_verify;
        for (name, values) in provider.headers.iter().flatten() {
            server.headers.extend(
                values
                    .iter()
                    .map(|value| (name.clone(), Secret(value.clone()))),
            );
        }
        if let Some(credentials) = credentials {
            server.headers.extend(authorization(credentials)?);
        }
        Ok(server)
    }

    /// The call that asks for a query's value, within so long.
    pub fn query(&self, query: &str, budget: Duration) -> HttpRequest {
        let mut url = self.address.clone();
        let mut headers = self.headers.clone();
        if !headers.iter().any(is_authorization) {
            let login = self.login.clone();
            headers.extend(login.map(|login| ("Authorization".to_owned(), login)));
        }
        url.set_path(&format!(
            "{}/api/v1/query",
            self.address.path().trim_end_matches('/')
        ));
        let query: String = form_urlencoded::byte_serialize(collapsed(query).as_bytes()).collect();
        url.set_query(Some(&format!("query={query}")));
        HttpRequest {
            method: Method::Get,
            url: Secret(url.to_string()),
            headers,
            body: None,
            timeout: TIMEOUT,
            retries: RETRIES,
            budget: Some(budget),
            proxy: None,
            insecure_skip_verify: self.insecure_skip_verify,
        }
    }
}

/// The value that an answer has; of several samples the last, as in Flagger.
pub fn parse(response: &HttpResponse) -> Result<f64, MetricError> {
    let HttpResponse { status, body } = response;
    if *status >= 400 {
        return Err(MetricError::Failed(format!(
            "error response: Status {}: {}",
            reason(*status),
            shown(body)
        )));
    }
    let answer: Option<Answer> = serde_json::from_str(body).map_err(|error| {
        let error = in_go(&error, body);
        MetricError::Failed(shown(&format!(
            "error unmarshaling result: {error}, '{}'",
            shown(body)
        )))
    })?;
    let samples = answer.and_then(|answer| answer.data?.result);
    let samples: Vec<_> = samples.unwrap_or_default().into_iter().flatten().collect();
    if samples.iter().any(|sample| sample.values.is_some()) {
        return Err(MetricError::MultipleValues);
    }
    let mut texts = samples
        .iter()
        .filter_map(|sample| sample.value.as_ref()?.get(1)?.as_str());
    let last = texts.next_back().ok_or(MetricError::NoValues)?;
    match last.parse::<f64>() {
        Ok(value) if value.is_nan() => Err(MetricError::NoValues),
        Ok(value) => Ok(value),
        Err(_) => Err(MetricError::Failed(format!(
            "the value {:?} is not a number",
            shown(last)
        ))),
    }
}

/// What Go says of a body that is not JSON, for the bodies that there are: none, or a page of HTML.
fn in_go(error: &serde_json::Error, body: &str) -> String {
    let first = body
        .trim_start_matches([' ', '\t', '\r', '\n'])
        .chars()
        .next();
    match first {
        _ if error.is_eof() => "unexpected end of JSON input".to_owned(),
        Some(c) if c.is_ascii_punctuation() && !"{[\"-'".contains(c) => {
            format!("invalid character '{c}' looking for beginning of value")
        }
        _ => error.to_string(),
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

/// Every run of white space is one space.
fn collapsed(query: &str) -> String {
    let mut collapsed = String::with_capacity(query.len());
    for c in query.chars() {
        if !c.is_whitespace() {
            collapsed.push(c);
        } else if !collapsed.ends_with(' ') {
            collapsed.push(' ');
        }
    }
    collapsed
}

fn is_authorization((name, _): &(String, Secret)) -> bool {
    name.eq_ignore_ascii_case("authorization")
}

/// The header of a Secret's credentials; none if user or password is empty, as in Flagger.
fn authorization(
    credentials: &BTreeMap<String, String>,
) -> Result<Option<(String, Secret)>, String> {
    let find = |key: &str| {
        credentials
            .get(key)
            .ok_or_else(|| format!("prometheus credentials does not contain a {key}"))
    };
    let value = if let Some(token) = credentials.get("token") {
        format!("Bearer {token}")
    } else {
        let (user, password) = (find("username")?, find("password")?);
        if user.is_empty() || password.is_empty() {
            return Ok(None);
        }
        basic(user, password)
    };
    Ok(Some(("Authorization".to_owned(), Secret(value))))
}

/// What user and password in an address amount to; there they are percent-encoded.
fn login(address: &Url) -> Option<Secret> {
    let decoded = |text| percent_encoding::percent_decode_str(text).decode_utf8_lossy();
    let (user, password) = (address.username(), address.password().unwrap_or_default());
    (!user.is_empty()).then(|| Secret(basic(&decoded(user), &decoded(password))))
}

fn basic(user: &str, password: &str) -> String {
    use k8s_openapi::ByteString;
    // A ByteString is base64 in JSON: the one encoder that is here already.
    let encoded = serde_json::to_value(ByteString(format!("{user}:{password}").into_bytes()))
        .unwrap_or_default();
    format!("Basic {}", encoded.as_str().unwrap_or_default())
}

/// An address fit to be shown: without user and password, also where it cannot be parsed.
pub fn public(address: &str) -> String {
    let public = match (address.find("://"), address.rfind('@')) {
        (Some(scheme), Some(at)) if scheme + 3 <= at => {
            format!(
                "{}{}",
                address.get(..scheme + 3).unwrap_or_default(),
                address.get(at + 1..).unwrap_or_default()
            )
        }
        _ => address.to_owned(),
    };
    shown(&public)
}

/// A status with its name, as Go prints it.
fn reason(status: u16) -> String {
    let name = http::StatusCode::from_u16(status)
        .ok()
        .and_then(|status| status.canonical_reason())
        .unwrap_or_default();
    format!("{status} {name}")
}

#[cfg(test)]
mod tests {
    use super::*;

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
            .query(" sum(\n  rate(x[1m])) + 1", Duration::from_secs(9));
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
                server
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
        assert_eq!(vector(r#"{"value":[1,"NaN"]}"#), Err(MetricError::NoValues));
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
