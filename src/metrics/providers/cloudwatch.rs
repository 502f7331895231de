//! Amazon CloudWatch (Flagger: `pkg/metrics/providers/cloudwatch.go`). Flagger's library speaks the older of two protocols; here requests
//! and answers are JSON, as in the AWS CLI.

use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{
    metrics::{
        answer::{finite, json as parsed},
        endpoint::Endpoint,
        error::{MetricError, OfflineError, ServerError},
        identity::{Identity, aws},
        provider::{Access, Exchange, Next, Provider, Queried, Setup},
    },
    snapshot::{HttpRequest, HttpResponse, Secret, excerpt, go},
};

/// A query covers this many intervals of its metric.
const INTERVALS: u32 = 10;
/// The most pages of an answer that are read.
const PAGES: usize = 5;
/// The fields of a query. Go reads them whatever their case is, AWS does not.
const FIELDS: [&str; 14] = [
    "AccountId",
    "Dimensions",
    "Expression",
    "Id",
    "Label",
    "Metric",
    "MetricName",
    "MetricStat",
    "Name",
    "Namespace",
    "Period",
    "ReturnData",
    "Stat",
    "Unit",
];

/// CloudWatch in one region, asked with the identity of the operator's pod.
pub struct CloudWatch;

impl Provider for CloudWatch {
    fn name(&self) -> &'static str {
        "cloudwatch"
    }

    fn access(&self, setup: &Setup<'_>) -> Result<Access, ServerError> {
        let region = setup.spec.region.as_deref().unwrap_or_default();
        if region.is_empty() {
            return Err(ServerError::NoRegion);
        }
        let host = aws::host("monitoring", region).ok_or_else(|| {
            let why = "region is not the name of a region of AWS, as eu-west-1 is";
            ServerError::not_allowed("cloudwatch", why)
        })?;
        let endpoint = Endpoint::at("cloudwatch", &format!("https://{host}"))?;
        let window = setup.window()?.saturating_mul(INTERVALS);
        Ok(Access {
            endpoint: endpoint.with_identity(Identity::Aws),
            window,
        })
    }

    fn queried(&self, _access: &Access, query: &str) -> Result<Option<Queried>, MetricError> {
        queries(query).map(|_| None)
    }

    fn query(&self, access: &Access, query: &str, now: Timestamp) -> HttpRequest {
        page(access, query, now, None)
    }

    /// A call without a query shows whether AWS accepts the keys: if so, it refuses the call for the missing query.
    fn probe(&self, access: &Access) -> HttpRequest {
        call(
            access,
            &json!({"StartTime": 0, "EndTime": 0, "MetricDataQueries": []}),
        )
    }

    /// The first value of the first result, which is the newest.
    fn value(&self, response: &HttpResponse) -> Result<f64, MetricError> {
        let (value, _) = read(&[read_page(Ok(response))?]);
        value.ok_or_else(|| MetricError::none_in(&response.body))
    }

    /// AWS may need several pages, of which the first ones have no value. (Flagger reads the first.)
    fn next(&self, exchange: &Exchange<'_>) -> Next {
        let pages = exchange.answers.iter();
        let pages: Result<Vec<_>, _> = pages.map(|answer| read_page(answer.as_ref())).collect();
        let pages = match pages {
            Ok(pages) => pages,
            Err(error) => return Next::Value(Err(error)),
        };
        match read(&pages) {
            (Some(value), _) => Next::Value(Ok(value)),
            (None, Some(token)) if pages.len() < PAGES => {
                let Exchange {
                    access,
                    query,
                    begun,
                    ..
                } = *exchange;
                let request = page(access, query, begun, Some(token));
                Next::Send(Box::new(request), Duration::ZERO)
            }
            (None, _) => {
                let last = exchange.last();
                Next::Value(last.and_then(|last| Err(MetricError::none_in(&last.body))))
            }
        }
    }

    fn online(&self, answer: Result<&HttpResponse, MetricError>) -> Result<(), OfflineError> {
        let response = answer.map_err(OfflineError::Call)?;
        let refusal = refusal(response);
        match response.status {
            200 => Ok(()),
            400 if refusal.is_about_parameters() => Ok(()),
            _ => Err(OfflineError::UnexpectedStatus(excerpt(&refusal.text()))),
        }
    }
}

/// The request for a page of the answer; the first has no token.
fn page(access: &Access, query: &str, now: Timestamp, token: Option<&str>) -> HttpRequest {
    let to = now.as_second();
    let mut body = json!({
        "StartTime": to.saturating_sub_unsigned(access.window.as_secs()),
        "EndTime": to,
        "MaxDatapoints": 20,
        // A query that cannot be read is never sent: `queried` has refused it.
        "MetricDataQueries": queries(query).unwrap_or_default(),
    });
    if let (Some(token), Some(body)) = (token, body.as_object_mut()) {
        body.insert("NextToken".to_owned(), token.into());
    }
    call(access, &body)
}

fn call(access: &Access, body: &Value) -> HttpRequest {
    let mut request =
        access
            .endpoint
            .post("/", &[], ("application/x-amz-json-1.0", body.to_string()));
    let target = "GraniteServiceVersion20100801.GetMetricData";
    let target = Secret(target.to_owned());
    request.headers.push(("X-Amz-Target".to_owned(), target));
    request
}

/// Reads the text of a query: a list of `MetricDataQuery` objects.
fn queries(query: &str) -> Result<Vec<Value>, MetricError> {
    let read: Result<Vec<Map<String, Value>>, _> = serde_json::from_str(query);
    let read = read.map_err(|error| {
        let why = go::json_error(&error, query);
        MetricError::failed("error unmarshaling query", &why)
    })?;
    Ok(read
        .into_iter()
        .map(|it| named(Value::Object(it)))
        .collect())
}

/// Gives all fields the names that AWS knows.
fn named(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields.into_iter().map(|(name, value)| {
                let known = FIELDS
                    .iter()
                    .find(|known| known.eq_ignore_ascii_case(&name));
                let name = known.map_or(name, |known| (*known).to_owned());
                (name, named(value))
            });
            Value::Object(fields.collect())
        }
        Value::Array(list) => Value::Array(list.into_iter().map(named).collect()),
        other => other,
    }
}

/// Reads a page.
fn read_page(answer: Result<&HttpResponse, &MetricError>) -> Result<Answer, MetricError> {
    let why = match answer {
        Ok(response) if response.status == 200 => return parsed(&response.body),
        Ok(response) => refusal(response).text(),
        Err(error) => error.to_string(),
    };
    Err(MetricError::failed("error requesting cloudwatch", &why))
}

/// The first value of the first result in these pages, and the token of the next page. A result may begin on one page and have its values
/// on another.
fn read(pages: &[Answer]) -> (Option<f64>, Option<&str>) {
    let first = pages.iter().flat_map(Answer::results).next();
    let value = first.and_then(|first| {
        pages.iter().find_map(|page| {
            let same = page.results().find(|result| result.id == first.id)?;
            same.values.as_ref()?.first().copied()
        })
    });
    let token = pages.last().and_then(|last| last.next_token.as_deref());
    (
        value.flatten().and_then(finite),
        token.filter(|token| !token.is_empty()),
    )
}

/// The reason that AWS gives for an answer with another status than 200.
fn refusal(response: &HttpResponse) -> Refusal {
    let known: Option<Refusal> = serde_json::from_str(&response.body).ok();
    known
        .filter(|refusal| !refusal.type_.is_empty())
        .unwrap_or_else(|| Refusal {
            type_: go::status(response.status),
            message: excerpt(&response.body),
        })
}

#[derive(Default, Deserialize)]
struct Refusal {
    /// The error, perhaps after a namespace and `#`.
    #[serde(rename = "__type", default)]
    type_: String,
    #[serde(alias = "Message", default)]
    message: String,
}

impl Refusal {
    fn name(&self) -> &str {
        let name = self.type_.rsplit('#').next();
        name.unwrap_or_default()
    }

    fn text(&self) -> String {
        format!("{}: {}", self.name(), self.message)
    }

    /// Whether AWS has accepted the keys, but not the parameters. Refused keys have status 400 too.
    fn is_about_parameters(&self) -> bool {
        [
            "InvalidParameter",
            "MissingParameter",
            "MissingRequiredParameter",
            "Validation",
        ]
        .iter()
        .any(|start| self.name().starts_with(start))
    }
}

#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "MetricDataResults")]
    results: Option<Vec<QueryResult>>,
    #[serde(rename = "NextToken")]
    next_token: Option<String>,
}

impl Answer {
    fn results(&self) -> impl Iterator<Item = &QueryResult> {
        self.results.iter().flatten()
    }
}

#[derive(Deserialize)]
struct QueryResult {
    #[serde(rename = "Id")]
    id: Option<String>,
    #[serde(rename = "Values")]
    values: Option<Vec<Option<f64>>>,
}
