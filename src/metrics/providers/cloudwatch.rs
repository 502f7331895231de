//! Amazon CloudWatch (Flagger: `pkg/metrics/providers/cloudwatch.go`). Flagger's library speaks the older of two protocols; here requests
//! and answers are JSON, as in the AWS CLI.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{
    metrics::{
        answer::{finite, json as parsed},
        endpoint::Endpoint,
        error::{MetricError, OfflineError, ServerError},
        identity::{Identity, aws},
        provider::{Access, Provider, Setup},
    },
    snapshot::{HttpRequest, HttpResponse, excerpt, go},
};

/// A query covers this many intervals of its metric.
const INTERVALS: u32 = 10;
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
            let why = "its region is not the name of a region of AWS, as eu-west-1 is";
            ServerError::not_allowed("cloudwatch", why)
        })?;
        let endpoint = Endpoint::at("cloudwatch", &format!("https://{host}"))?;
        let window = setup.window()?.saturating_mul(INTERVALS);
        Ok(Access {
            endpoint: endpoint.with_identity(Identity::Aws),
            window,
        })
    }

    fn check(&self, query: &str) -> Result<(), MetricError> {
        queries(query).map(|_| ())
    }

    fn query(&self, access: &Access, query: &str, now: Timestamp) -> HttpRequest {
        let to = now.as_second();
        let from = to.saturating_sub_unsigned(access.window.as_secs());
        // A query that cannot be read is not asked.
        call(access, [from, to], queries(query).unwrap_or_default())
    }

    /// A call without a query shows whether the keys are accepted: AWS then refuses what is missing.
    fn probe(&self, access: &Access) -> HttpRequest {
        call(access, [0, 0], Vec::new())
    }

    /// The first value of the first result: the newest.
    fn value(&self, response: &HttpResponse) -> Result<f64, MetricError> {
        if response.status != 200 {
            let why = refusal(response).text();
            return Err(MetricError::failed("error requesting cloudwatch", &why));
        }
        let body = &response.body;
        let answer: Answer = parsed(body)?;
        let first = answer.results.into_iter().flatten().next();
        let value = first.and_then(|first| *first.values?.first()?);
        let value = value.and_then(finite);
        value.ok_or_else(|| MetricError::none_in(body))
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

fn call(access: &Access, [from, to]: [i64; 2], queries: Vec<Value>) -> HttpRequest {
    let body = json!({
        "StartTime": from,
        "EndTime": to,
        "MaxDatapoints": 20,
        "MetricDataQueries": queries,
    });
    let mut request =
        access
            .endpoint
            .post("/", &[], ("application/x-amz-json-1.0", body.to_string()));
    let target = "GraniteServiceVersion20100801.GetMetricData";
    let target = crate::snapshot::Secret(target.to_owned());
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
}

#[derive(Deserialize)]
struct QueryResult {
    #[serde(rename = "Values")]
    values: Option<Vec<Option<f64>>>,
}
