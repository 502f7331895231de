//! Keptn (Flagger: `pkg/metrics/providers/keptn.go`): a KeptnMetric has a value; an Analysis is created, awaited and deleted. Both are
//! objects of the cluster, which the operator reads with rights of its own.

mod analysis;

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::{
    metrics::{
        answer::{self, finite, refusal},
        endpoint::Endpoint,
        error::{MetricError, ServerError},
        provider::{Access, Exchange, Next, Provider, Queried, Setup},
    },
    snapshot::{HttpRequest, HttpResponse, excerpt},
};

/// The API of Keptn's objects.
const API: &str = "/apis/metrics.keptn.sh/v1beta1";

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
            // Nobody asks such a query: `queried` has refused it.
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

/// The object that a query names.
struct Named {
    kind: Kind,
    namespace: String,
    name: String,
}

enum Kind {
    /// A KeptnMetric.
    Metric,
    /// An AnalysisDefinition. The operator makes an Analysis of it.
    Analysis {
        /// The time up to now that is analysed.
        recent: String,
        /// The arguments of its queries.
        args: Map<String, Value>,
    },
}

impl Named {
    /// Reads `KIND/NAMESPACE/NAME/DURATION/ARGUMENTS`; only an analysis has the last two. All but the arguments is in lower case then.
    fn read(query: &str) -> Result<Self, MetricError> {
        let parts: Vec<_> = query.trim().split('/').collect();
        let lower = |place: usize| parts.get(place).map(|part| part.to_lowercase());
        let (Some(kind), Some(namespace), Some(name)) = (lower(0), lower(1), lower(2)) else {
            return Err(MetricError::Failed(FORM.to_owned()));
        };
        let kind = match kind.as_str() {
            "keptnmetric" | "keptnmetrics" => Kind::Metric,
            "analysis" | "analyses" => Kind::Analysis {
                recent: lower(3).unwrap_or_else(|| "1m".to_owned()),
                args: arguments(parts.get(4).copied().unwrap_or_default()),
            },
            _ => return Err(MetricError::Failed(KINDS.to_owned())),
        };
        if !(is_name(&namespace) && is_name(&name)) {
            return Err(MetricError::Failed(FORM.to_owned()));
        }
        Ok(Self {
            kind,
            namespace,
            name,
        })
    }

    fn full_name(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// The first request.
    fn request(&self, endpoint: &Endpoint, now: Timestamp) -> HttpRequest {
        match &self.kind {
            Kind::Metric => endpoint.get(&self.path("keptnmetrics", &self.name), &[]),
            Kind::Analysis { recent, args } => {
                let analysis = json!({
                    "apiVersion": "metrics.keptn.sh/v1beta1",
                    "kind": "Analysis",
                    "metadata": {
                        "name": self.analysis(now),
                        "namespace": self.namespace,
                        "labels": {"app.kubernetes.io/managed-by": "flagger"},
                    },
                    "spec": {
                        "analysisDefinition": {"name": self.name},
                        "timeframe": {"recent": recent},
                        "args": args,
                    },
                });
                let path = format!("{API}/namespaces/{}/analyses", self.namespace);
                HttpRequest {
                    // A second attempt could find that the first one has created the Analysis.
                    retries: 0,
                    ..endpoint.post(&path, &[], ("application/json", analysis.to_string()))
                }
            }
        }
    }

    /// The name of the Analysis of a query that began at this instant: each has another one, as in Flagger.
    fn analysis(&self, begun: Timestamp) -> String {
        let seed = format!("{begun} {}", self.full_name());
        let hash: [u8; 32] = Sha256::digest(seed).into();
        let [a, b, c, ..] = hash;
        format!("{}-{a:02x}{b:02x}{c:02x}", self.name)
    }

    fn path(&self, plural: &str, name: &str) -> String {
        format!("{API}/namespaces/{}/{plural}/{name}", self.namespace)
    }
}

/// Whether a text can be the name of an object. Others could lead to another path.
fn is_name(text: &str) -> bool {
    let is_allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
    text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(is_allowed)
}

/// Reads `KEY=VALUE;KEY=VALUE`. As in Flagger, other parts are ignored.
fn arguments(text: &str) -> Map<String, Value> {
    let pairs = text.split(';').filter_map(|pair| pair.split_once('='));
    let pairs = pairs.filter(|(_, value)| !value.contains('='));
    pairs
        .map(|(key, value)| (key.to_owned(), value.into()))
        .collect()
}

/// Flagger's texts about queries that cannot be read.
const FORM: &str = "unexpected query format. query must be in the format <keptnmetric|analysis>/<namespace>/<resourceName>/<duration>/<arguments>";
const KINDS: &str =
    "unexpected resource kind provided in the query. must be one of: ['keptnmetric', 'analysis']";
