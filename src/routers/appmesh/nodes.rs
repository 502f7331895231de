//! The VirtualNodes. Each of them leads App Mesh to the pods of one side.

use serde_json::{Map, Value, json};

use super::{AppMesh, listener, routes::request_timeout, write};
use crate::{
    api::canary::Canary,
    routers::route::{metadata, new_object, put_fields, text},
    snapshot::{Action, Snapshot, Write},
    workload::{
        label_selector::required,
        metadata::{LAST_APPLIED, json_map, with_flux},
        ownership::ADOPT,
    },
};

/// The annotation of a Canary whose nodes write an access log if its value is `enabled`.
const ACCESS_LOG: &str = "appmesh.flagger.app/accesslog";
/// The fields of a spec that are ours, in one version or the other.
const OURS: [&str; 6] = [
    "meshName",
    "podSelector",
    "listeners",
    "serviceDiscovery",
    "backends",
    "logging",
];
/// The fields in which others have fields, too: App Mesh's controller adds the IP preference of the DNS name, and users add health checks
/// and certificates.
const SHARED: [&str; 2] = ["listeners", "serviceDiscovery"];

impl AppMesh {
    /// The writes of the VirtualNodes that are missing or not correct.
    pub(super) fn node_writes(
        self,
        snapshot: &Snapshot,
        selector: &(String, String),
    ) -> Vec<Write> {
        let nodes = self.nodes(&snapshot.canary).into_iter();
        let writes = nodes.filter_map(|(node, service)| {
            let spec = self.node_spec(snapshot, selector, &service);
            let action = self.node_action(snapshot, &node, spec)?;
            let within = "reconcileVirtualNode failed: ";
            Some(write(snapshot, self.node_kind(), &node, action, within))
        });
        writes.collect()
    }

    /// Creates or repairs a VirtualNode; `None` if it is correct.
    fn node_action(
        self,
        snapshot: &Snapshot,
        node: &str,
        mut spec: Map<String, Value>,
    ) -> Option<Action> {
        let (canary, kind) = (&snapshot.canary, self.node_kind());
        let live = snapshot.object(kind, node);
        for field in SHARED {
            let now = live.and_then(|live| live.pointer(&format!("/spec/{field}")));
            spec[field] = overlaid(now, &spec[field]);
        }
        let (labels, mut annotations) = apex_metadata(canary);
        let Some(live) = live else {
            let metadata = [labels, annotations];
            let object = new_object(snapshot, kind, node, metadata, Value::Object(spec));
            return Some(Action::Create(object));
        };
        let kept = metadata(live, "annotations");
        for key in [LAST_APPLIED, ADOPT] {
            if let Some(value) = kept.get(key) {
                annotations.insert(key.to_owned(), value.clone());
            }
        }
        let mut wanted = live.clone();
        if kept != annotations || metadata(live, "labels") != labels {
            wanted["metadata"]["labels"] = Value::Object(labels);
            wanted["metadata"]["annotations"] = Value::Object(annotations);
        }
        put_fields(&mut wanted, spec, &OURS);
        if wanted == *live {
            return None;
        }
        Some(Action::Replace(wanted))
    }

    /// The part of a spec that is ours. A null stands for a field that must be missing.
    fn node_spec(
        self,
        snapshot: &Snapshot,
        selector: &(String, String),
        service: &str,
    ) -> Map<String, Value> {
        let canary = &snapshot.canary;
        let mut listener = listener(self, canary);
        let host = self.host_of(canary, service);
        let dns = json!({self.host_field(): host});
        let discovery = json!({"dns": dns, "awsCloudMap": null, "cloudMap": null});
        let mut spec = json!({"serviceDiscovery": discovery});
        match self {
            Self::V1Beta1 => spec["meshName"] = json!(canary.spec.service.mesh_name),
            Self::V1Beta2 => {
                let timeout = request_timeout(canary);
                listener["timeout"] =
                    timeout.map_or(Value::Null, |timeout| json!({"http": timeout}));
                if let Some(labels) = pods_of(snapshot, selector, service) {
                    spec["podSelector"] = json!({"matchLabels": labels});
                }
            }
        }
        spec["listeners"] = json!([listener]);
        let backends = canary.spec.service.backends.iter().flatten();
        let backends: Vec<_> = backends.map(|name| self.backend(name)).collect();
        if !backends.is_empty() {
            spec["backends"] = json!(backends);
        }
        let annotations = canary.metadata.annotations.as_ref();
        if annotations
            .and_then(|all| all.get(ACCESS_LOG))
            .is_some_and(|value| value == "enabled")
        {
            spec["logging"] = json!({"accessLog": {"file": {"path": "/dev/stdout"}}});
        }
        spec.as_object().cloned().unwrap_or_default()
    }

    /// The DNS name at which the pods of a Service are.
    pub(super) fn host_of(self, canary: &Canary, service: &str) -> String {
        let namespace = canary.metadata.namespace.as_deref().unwrap_or_default();
        match self {
            Self::V1Beta1 => format!("{service}.{namespace}"),
            Self::V1Beta2 => format!("{service}.{namespace}.svc.cluster.local."),
        }
    }

    /// The field of the DNS name.
    pub(super) const fn host_field(self) -> &'static str {
        match self {
            Self::V1Beta1 => "hostName",
            Self::V1Beta2 => "hostname",
        }
    }

    /// The DNS name of a VirtualNode.
    pub(super) fn host(self, node: &Value) -> Option<&str> {
        text(
            node.pointer("/spec/serviceDiscovery/dns")?,
            self.host_field(),
        )
    }

    /// A VirtualService that the pods call.
    fn backend(self, name: &str) -> Value {
        let service = match self {
            Self::V1Beta1 => json!({"virtualServiceName": name}),
            Self::V1Beta2 if name.starts_with("arn:aws") => json!({"virtualServiceARN": name}),
            Self::V1Beta2 => json!({"virtualServiceRef": {"name": name}}),
        };
        json!({"virtualService": service})
    }
}

/// Labels and annotations of the VirtualNodes. They contain none of the Service's, because Flagger writes the
/// VirtualNodes before the Service.
fn apex_metadata(canary: &Canary) -> (Map<String, Value>, Map<String, Value>) {
    let apex = canary.spec.service.apex.as_ref();
    let labels = apex.and_then(|apex| apex.labels.as_ref());
    let annotations = apex.and_then(|apex| apex.annotations.as_ref());
    let annotations = with_flux(json_map(annotations.into_iter().flatten()));
    (json_map(labels.into_iter().flatten()), annotations)
}

/// The label of the pods behind a Service; `None` if the target is a Service, whose pods are not known.
fn pods_of(
    snapshot: &Snapshot,
    (key, value): &(String, String),
    service: &str,
) -> Option<Map<String, Value>> {
    let own = || {
        let selector = snapshot.primary()?.pointer("/spec/selector")?;
        required(selector).remove(key).filter(|own| own != value)
    };
    let value = if service == snapshot.canary.primary_name() {
        own().unwrap_or_else(|| format!("{value}-primary"))
    } else {
        value.clone()
    };
    (!key.is_empty()).then(|| Map::from_iter([(key.clone(), json!(value))]))
}

/// A wanted value with the fields of the live one that it does not have. Null stands for a field that must be missing.
fn overlaid(live: Option<&Value>, wanted: &Value) -> Value {
    match wanted {
        Value::Object(fields) => {
            let mut all = live.and_then(Value::as_object).cloned().unwrap_or_default();
            for (key, wanted) in fields {
                match wanted {
                    Value::Null => drop(all.remove(key)),
                    _ => drop(all.insert(key.clone(), overlaid(all.get(key), wanted))),
                }
            }
            Value::Object(all)
        }
        Value::Array(wanted) => {
            let live = live.and_then(Value::as_array);
            let live = live.filter(|live| live.len() == wanted.len());
            let item = |(index, item)| overlaid(live.and_then(|live| live.get(index)), item);
            wanted.iter().enumerate().map(item).collect()
        }
        other => other.clone(),
    }
}
