//! External metrics of Kubernetes (Flagger: `pkg/metrics/providers/externalmetrics.go`), which adapters such as that of KEDA serve below
//! `external.metrics.k8s.io`.

mod quantity;

use std::borrow::Cow;

use jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::Deserialize;
use serde_json::Value;
use url::form_urlencoded;

use crate::{
    metrics::{
        answer::{self, finite, refusal},
        endpoint::{Endpoint, credential},
        error::{MetricError, OfflineError, ServerError},
        provider::{Access, Provider, Queried, Setup},
    },
    snapshot::{HttpRequest, HttpResponse},
};

/// The API of external metrics.
const API: &str = "/apis/external.metrics.k8s.io/v1beta1";
/// The form of a query, in Flagger's words.
const FORM: &str =
    "expected <namespace>/<metricName>?labelSelector=<urlencoded label selectors>, got";
/// The characters of a name that a path has as they are.
const KEPT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// The external metrics of the API server, or of another server.
pub struct ExternalMetrics;

impl Provider for ExternalMetrics {
    fn name(&self) -> &'static str {
        "externalmetrics"
    }

    /// The operator asks the API server with its own rights. A server at another address gets the token of the template's Secret, and never
    /// the operator's own token. (Flagger sends its own token there.)
    fn access(&self, setup: &Setup<'_>) -> Result<Access, ServerError> {
        let address = setup.spec.address.as_deref();
        if address.is_none_or(str::is_empty) {
            return Endpoint::api_server(self.name()).map(Access::without_window);
        }
        let token = credential(setup.credentials, "token");
        let endpoint = Endpoint::of(setup.spec, "")?
            .with_verification_of(setup.spec)
            .with_authorization(token.map(|token| format!("Bearer {token}")));
        Ok(Access::without_window(endpoint))
    }

    fn queried(&self, access: &Access, query: &str) -> Result<Option<Queried>, MetricError> {
        let Metric {
            namespace, name, ..
        } = Metric::read(query)?;
        let rights: (_, _, &[_]) = ("external.metrics.k8s.io", "*", &["list"]);
        Ok(Some(Queried {
            what: "external metric",
            name,
            namespace,
            rights: access.endpoint.is_api_server().then_some(rights),
        }))
    }

    fn query(&self, access: &Access, query: &str, _now: Timestamp) -> HttpRequest {
        let Ok(metric) = Metric::read(query) else {
            // Such a query is never sent: `queried` has refused it.
            return self.probe(access);
        };
        let encoded = |part: &str| utf8_percent_encode(part, KEPT).to_string();
        // Clients of Kubernetes write names of resources in lower case.
        let (namespace, name) = (
            encoded(&metric.namespace),
            encoded(&metric.name.to_lowercase()),
        );
        let selector = ("labelSelector", metric.selector.as_str());
        let timeout = ("timeout", "5s");
        let parameters = if metric.selector.is_empty() {
            &[timeout][..]
        } else {
            &[selector, timeout]
        };
        let path = format!("{API}/namespaces/{namespace}/{name}");
        access.endpoint.get(&path, parameters)
    }

    /// Whether the API is served. (Flagger asks for a metric that does not exist, about which some adapters return an error.)
    fn probe(&self, access: &Access) -> HttpRequest {
        access.endpoint.get(API, &[])
    }

    /// The value of the first metric, as in Flagger.
    fn value(&self, response: &HttpResponse) -> Result<f64, MetricError> {
        if response.status != 200 {
            let call = "error querying external metrics API";
            return Err(MetricError::failed(call, &refusal(response)));
        }
        let list: List = answer::json(&response.body)?;
        let first = list.items.into_iter().flatten().next();
        let value = match first.map(|metric| metric.value) {
            None => {
                return Err(MetricError::NoValuesIn(
                    "no external metrics found".to_owned(),
                ));
            }
            Some(Value::String(text)) => Cow::Owned(text),
            Some(Value::Number(number)) => Cow::Owned(number.to_string()),
            Some(_) => Cow::Borrowed(""),
        };
        let number = quantity::read(&value).and_then(finite);
        number.ok_or_else(|| MetricError::not_a_number(&value))
    }

    fn online(&self, answer: Result<&HttpResponse, MetricError>) -> Result<(), OfflineError> {
        let why = match answer {
            Ok(HttpResponse { status: 200, .. }) => return Ok(()),
            Ok(response) => refusal(response),
            Err(error) => error.to_string(),
        };
        let call = "external metrics service unavailable";
        Err(OfflineError::Call(MetricError::failed(call, &why)))
    }
}

/// The metric that a query names.
struct Metric {
    namespace: String,
    name: String,
    selector: String,
}

impl Metric {
    /// Reads `NAMESPACE/NAME?labelSelector=SELECTOR`. Only the name is required.
    fn read(query: &str) -> Result<Self, MetricError> {
        let failed = |why: &str| MetricError::failed("error parsing metric query", why);
        let query = query.trim();
        let (path, parameters) = query.split_once('?').unwrap_or((query, ""));
        let path = percent_decode_str(path).decode_utf8_lossy();
        let path = path.strip_prefix('/').unwrap_or(&path);
        let (namespace, name) = path.split_once('/').unwrap_or(("", path));
        if name.contains('/') {
            return Err(failed(&format!(
                "malformed query string, too many slashes, {FORM} {query}"
            )));
        }
        if name.is_empty() {
            return Err(failed("metric name cannot be empty"));
        }
        // These names would lead to another path.
        if [namespace, name]
            .iter()
            .any(|part| [".", ".."].contains(part))
        {
            return Err(failed(&format!("malformed query string, {FORM} {query}")));
        }
        let mut parameters = form_urlencoded::parse(parameters.as_bytes());
        let selector = parameters.find(|(key, _)| key == "labelSelector");
        let namespace = if namespace.is_empty() {
            "default"
        } else {
            namespace
        };
        Ok(Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            selector: selector.map_or_else(String::new, |(_, value)| value.into_owned()),
        })
    }
}

/// An `ExternalMetricValueList`.
#[derive(Deserialize)]
struct List {
    items: Option<Vec<ExternalMetric>>,
}

#[derive(Deserialize)]
struct ExternalMetric {
    value: Value,
}
