//! The pods of a workload, as far as the selectors of others could select them.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Kind, TargetKind};

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
    /// The pods of a Deployment or a DaemonSet; `None` for any other kind.
    pub fn of(kind: Kind, workload: &Value) -> Option<Self> {
        let kind = match kind {
            Kind::Deployment => TargetKind::Deployment,
            Kind::DaemonSet => TargetKind::DaemonSet,
            _ => return None,
        };
        Some(Self {
            labels: labels(workload.pointer("/spec/template/metadata/labels")),
            are_ready: kind.has_ready_pods(workload),
        })
    }
}

/// A map of labels. Values that are no texts are left out.
pub fn labels(map: Option<&Value>) -> Labels {
    let map = map.and_then(Value::as_object);
    map.into_iter()
        .flatten()
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect()
}
