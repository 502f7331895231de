//! The object that a query of Keptn names, and the first request for it.

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::{
    metrics::{endpoint::Endpoint, error::MetricError},
    snapshot::HttpRequest,
};

/// The API of Keptn's objects.
pub const API: &str = "/apis/metrics.keptn.sh/v1beta1";

/// The object that a query names.
pub struct Named {
    /// The kind of the object.
    pub kind: Kind,
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
}

/// The kinds of objects that a query can name.
pub enum Kind {
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
    /// Reads `KIND/NAMESPACE/NAME/DURATION/ARGUMENTS`; only an analysis has the last two. All parts but the arguments are changed to lower
    /// case.
    pub fn read(query: &str) -> Result<Self, MetricError> {
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

    /// `NAMESPACE/NAME`, as in messages.
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// The first request.
    pub fn request(&self, endpoint: &Endpoint, now: Timestamp) -> HttpRequest {
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

    /// The name of the Analysis of a query that began at this instant. As in Flagger, each query has a name of its own.
    pub fn analysis(&self, begun: Timestamp) -> String {
        let seed = format!("{begun} {}", self.full_name());
        let hash: [u8; 32] = Sha256::digest(seed).into();
        let [a, b, c, ..] = hash;
        format!("{}-{a:02x}{b:02x}{c:02x}", self.name)
    }

    /// The path of an object of this kind and name, in the namespace of the query.
    pub fn path(&self, plural: &str, name: &str) -> String {
        format!("{API}/namespaces/{}/{plural}/{name}", self.namespace)
    }
}

/// Whether a text can be the name of an object. Other texts could lead to another path.
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
