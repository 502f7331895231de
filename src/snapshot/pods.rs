//! The pods of a workload, as far as the selectors of others could select them.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// The labels of pods.
pub type Labels = BTreeMap<String, String>;

/// The pods of a workload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pods {
    /// The labels of the pod template.
    pub labels: Labels,
    /// Whether at least one pod is ready.
    pub are_ready: bool,
}

impl Pods {
    /// The pods of a Deployment or a DaemonSet, from its JSON. Other fields are skipped, because this function is called for each workload
    /// of the cluster. If the text is no such workload, the result has no labels.
    pub fn parse(text: &str) -> Self {
        let Workload { spec, status } = serde_json::from_str(text).unwrap_or_default();
        Self {
            labels: spec.template.metadata.labels,
            are_ready: status.ready_replicas > 0 || status.number_ready > 0,
        }
    }
}

/// The fields of a workload that are read.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Workload {
    spec: Spec,
    status: Status,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Spec {
    template: Template,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Template {
    metadata: Metadata,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Metadata {
    labels: Labels,
}

/// The ready pods, of a Deployment or of a DaemonSet.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Status {
    ready_replicas: i64,
    number_ready: i64,
}

/// A map of labels. Values that are no texts are left out.
pub fn labels(map: Option<&Value>) -> Labels {
    let map = map.and_then(Value::as_object);
    map.into_iter()
        .flatten()
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect()
}
