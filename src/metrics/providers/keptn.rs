//! Keptn (Flagger: `pkg/metrics/providers/keptn.go`): a KeptnMetric has a value; an Analysis is created, awaited and deleted. Both are
//! objects of the cluster, which the operator reads with rights of its own.

mod analysis;
mod named;

use jiff::Timestamp;
use serde_json::Value;

use crate::{
    metrics::{
        answer::{self, finite, refusal},
        endpoint::Endpoint,
        error::{MetricError, ServerError},
        provider::{Access, Exchange, Next, Provider, Queried, Setup},
    },
    snapshot::{HttpRequest, HttpResponse, excerpt},
};
use named::{API, Kind, Named};

/// Keptn's metrics operator.
pub struct Keptn;

impl Provider for Keptn {
    fn name(&self) -> &'static str {
        "keptn"
    }

    fn access(&self, _setup: &Setup<'_>) -> Result<Access, ServerError> {
        Endpoint::api_server(self.name()).map(Access::without_window)
    }

    fn queried(&self, _access: &Access, query: &str) -> Result<Option<Queried>, MetricError> {
        let named = Named::read(query)?;
        let (what, resource, verbs): (_, _, &[_]) = match named.kind {
            Kind::Metric => ("keptn metric", "keptnmetrics", &["get"]),
            Kind::Analysis { .. } => {
                let verbs = &["create", "get", "delete"];
                ("keptn analysis definition", "analyses", verbs)
            }
        };
        Ok(Some(Queried {
            what,
            name: named.name,
            namespace: named.namespace,
            rights: Some(("metrics.keptn.sh", resource, verbs)),
        }))
    }

    fn query(&self, access: &Access, query: &str, now: Timestamp) -> HttpRequest {
        match Named::read(query) {
            Ok(named) => named.request(&access.endpoint, now),
            // Such a query is never sent: `queried` has refused it.
            Err(_) => self.probe(access),
        }
    }

    /// Whether the API server has Keptn's kinds. (To Flagger, Keptn is always online.)
    fn probe(&self, access: &Access) -> HttpRequest {
        access.endpoint.get(API, &[])
    }

    /// The value of a KeptnMetric.
    fn value(&self, response: &HttpResponse) -> Result<f64, MetricError> {
        if response.status != 200 {
            let why = refusal(response);
            return Err(MetricError::failed("could not retrieve KeptnMetric", &why));
        }
        let metric: Value = answer::json(&response.body)?;
        let text = |pointer| metric.pointer(pointer).and_then(Value::as_str);
        let name = || {
            let part = |pointer| text(pointer).unwrap_or_default();
            format!("{}/{}", part("/metadata/namespace"), part("/metadata/name"))
        };
        let value = text("/status/value").filter(|value| !value.is_empty());
        let number = value.map(str::parse::<f64>).transpose().map_err(|error| {
            let call = format!("could not parse value of KeptnMetric {} to float", name());
            MetricError::failed(&call, &error.to_string())
        })?;
        number.and_then(finite).ok_or_else(|| {
            let call = "could not retrieve KeptnMetric - no value found in resource";
            MetricError::Failed(format!("{call} {}", excerpt(&name())))
        })
    }

    fn next(&self, exchange: &Exchange<'_>) -> Next {
        let named = match Named::read(exchange.query) {
            Ok(named) => named,
            Err(error) => return Next::Value(Err(error)),
        };
        if let Kind::Analysis { .. } = named.kind {
            return analysis::next(&named, exchange);
        }
        let unread = |why: &str| {
            let call = format!("could not retrieve KeptnMetric {}", named.full_name());
            MetricError::failed(&call, why)
        };
        Next::Value(match exchange.last() {
            Ok(answer) if answer.status == 200 => self.value(answer),
            Ok(answer) => Err(unread(&refusal(answer))),
            Err(error) => Err(unread(&error.to_string())),
        })
    }
}
