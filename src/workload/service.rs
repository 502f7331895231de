//! The three Services of a release: the one that clients call, the primary's and the canary's (Flagger:
//! `pkg/router/kubernetes_default.go`).

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{
    adoption::{Adoption, sorted, twin},
    metadata::{is_owned, json_map, owner_reference, with_flux},
    ports,
    selection::Selection,
};
use crate::{
    api::canary::{Canary, CustomMetadata},
    snapshot::{Action, Kind, ObjectRef, Write},
};

/// The values from which the Services are made.
pub struct Services<'a> {
    /// The Canary.
    pub canary: &'a Canary,
    /// The labels that select the target's pods, and the primary's.
    pub selection: &'a Selection,
    /// The target's pod template, for `portDiscovery`.
    pub template: &'a Value,
}

/// The labels, annotations and selector that a Service should have.
struct Wanted {
    labels: Map<String, Value>,
    annotations: Map<String, Value>,
    selector: Value,
}

impl Services<'_> {
    /// Creates or repairs the canary's Service. Returns no write if it is correct already.
    pub fn canary(&self, live: Option<&Value>) -> Option<Write> {
        let metadata = self.canary.spec.service.canary.as_ref();
        let selected = json!(self.selection.canary);
        self.service(&self.canary.canary_name(), selected, metadata, live)
    }

    /// Creates or repairs the primary's Service. Returns no write if it is correct already.
    pub fn primary(&self, live: Option<&Value>) -> Option<Write> {
        let metadata = self.canary.spec.service.primary.as_ref();
        self.service(
            &self.canary.primary_name(),
            json!(self.selection.primary),
            metadata,
            live,
        )
    }

    /// Creates or repairs the Service that clients call, and adopts one that the user made. Returns no write if it is correct already.
    pub fn apex(&self, live: Option<&Value>) -> Option<Write> {
        let name = self.canary.apex_name();
        let selected = json!(self.selection.primary);
        if let Some(live) = live.filter(|live| !is_owned(live, self.canary)) {
            let adopted = self.adopt(|adoption| adoption.adopted(live))?;
            return Some(self.update(name, adopted));
        }
        let metadata = self.canary.spec.service.apex.as_ref();
        self.service(name, selected, metadata, live)
    }

    /// Restores the Service that clients call, as it was without the Canary. A Service that the operator created selects the target's pods
    /// until Kubernetes deletes it together with the Canary. Returns no write if there is nothing to change.
    pub fn restored_apex(&self, live: Option<&Value>) -> Option<Write> {
        let live = live?;
        let targets = json!(self.selection.canary);
        let wanted = if is_owned(live, self.canary) {
            let mut wanted = live.clone();
            wanted["spec"]["selector"] = targets;
            wanted
        } else {
            self.adopt(|adoption| adoption.given_back(live, targets))?
        };
        (wanted != *live).then(|| self.update(self.canary.apex_name(), wanted))
    }

    fn adopt<T>(&self, with: impl FnOnce(&Adoption<'_>) -> T) -> T {
        let port_name = self.canary.spec.service.port_name.as_ref();
        with(&Adoption {
            selector: &json!(self.selection.primary),
            ports: &ports::wanted(self.canary, self.template),
            is_named: port_name.is_some_and(|name| !name.is_empty()),
        })
    }

    /// The write that replaces a Service.
    fn update(&self, name: &str, wanted: Value) -> Write {
        Write {
            object: ObjectRef {
                kind: Kind::Service,
                namespace: self.canary.metadata.namespace.clone().unwrap_or_default(),
                name: name.to_owned(),
            },
            action: Action::Replace(wanted),
            failure: format!("reconcileService failed: service {name} update error: "),
        }
    }

    fn service(
        &self,
        name: &str,
        selected: Value,
        metadata: Option<&CustomMetadata>,
        live: Option<&Value>,
    ) -> Option<Write> {
        let namespace = self.canary.metadata.namespace.clone().unwrap_or_default();
        let map = |map: Option<&BTreeMap<String, String>>| json_map(map.into_iter().flatten());
        let mut labels = map(metadata.and_then(|m| m.labels.as_ref()));
        labels.insert(self.selection.label.0.clone(), json!(name));
        let wanted = Wanted {
            labels,
            annotations: with_flux(map(metadata.and_then(|m| m.annotations.as_ref()))),
            selector: selected,
        };
        if let Some(live) = live {
            return Some(self.update(name, self.repaired(live, wanted)?));
        }
        Some(Write {
            action: Action::Create(self.new_service(name, &namespace, wanted)),
            failure: format!("reconcileService failed: service {name}.{namespace} create error: "),
            object: ObjectRef {
                kind: Kind::Service,
                namespace,
                name: name.to_owned(),
            },
        })
    }

    fn new_service(&self, name: &str, namespace: &str, wanted: Wanted) -> Value {
        let Wanted {
            labels,
            annotations,
            selector,
        } = wanted;
        let service = &self.canary.spec.service;
        let mut spec = json!({"type": "ClusterIP", "selector": selector, "ports": ports::wanted(self.canary, self.template)});
        if service.headless {
            spec["clusterIP"] = json!("None");
        }
        if let Some(distribution) = service
            .traffic_distribution
            .as_ref()
            .filter(|d| !d.is_empty())
        {
            spec["trafficDistribution"] = json!(distribution);
        }
        json!({"apiVersion": "v1", "kind": "Service",
            "metadata": {"name": name, "namespace": namespace, "labels": labels, "annotations": annotations,
                "ownerReferences": [owner_reference(self.canary)]},
            "spec": spec})
    }

    /// The live Service with the wanted ports and selector and, if the Canary owns it, the wanted metadata. Returns `None` if it has
    /// them already.
    fn repaired(&self, live: &Value, wanted: Wanted) -> Option<Value> {
        let mut changes = Vec::new();
        let nothing = Vec::new();
        let live_ports = live["spec"]["ports"].as_array().unwrap_or(&nothing);
        let mut ports = ports::wanted(self.canary, self.template);
        for port in &mut ports {
            let of_same_name = || {
                let mut live = live_ports.iter();
                live.find(|live| live.get("name") == port.get("name"))
            };
            let twin = twin(live_ports, port).or_else(of_same_name);
            if let Some(node_port) = twin.and_then(|twin| twin.get("nodePort")) {
                port["nodePort"] = node_port.clone();
            }
        }
        if sorted(&ports) != sorted(live_ports) {
            changes.push(("spec", "ports", Value::Array(ports)));
        }
        if live["spec"]["selector"] != wanted.selector {
            changes.push(("spec", "selector", wanted.selector));
        }
        if is_owned(live, self.canary) {
            let metadata = [
                ("labels", wanted.labels),
                ("annotations", wanted.annotations),
            ];
            for (field, mut map) in metadata {
                map.extend(unmanaged(self.canary, live, field));
                if live["metadata"][field].as_object() != Some(&map) {
                    changes.push(("metadata", field, Value::Object(map)));
                }
            }
        }
        if changes.is_empty() {
            return None;
        }
        let mut repaired = live.clone();
        for (part, field, value) in changes {
            repaired[part][field] = value;
        }
        let annotations = repaired["metadata"]["annotations"].as_object().cloned();
        repaired["metadata"]["annotations"] =
            Value::Object(with_flux(annotations.unwrap_or_default()));
        Some(repaired)
    }
}

/// The labels or annotations of a live object that other tools manage, as `unmanagedMetadata` lists them.
pub fn unmanaged(canary: &Canary, live: &Value, field: &str) -> Map<String, Value> {
    let keys = canary.spec.service.unmanaged_metadata.as_ref();
    let keys = keys.and_then(|keys| match field {
        "labels" => keys.labels.as_ref(),
        _ => keys.annotations.as_ref(),
    });
    let live = live["metadata"][field].as_object();
    let value = |key: &String| Some((key.clone(), live?.get(key)?.clone()));
    keys.into_iter().flatten().filter_map(value).collect()
}

#[cfg(test)]
mod tests;
