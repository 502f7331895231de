//! The three Services of a release: the one that clients call, the primary's and the canary's (Flagger:
//! `pkg/router/kubernetes_default.go`).

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::metadata::{is_owned, json_map, owner_reference, with_flux};
use crate::{
    api::canary::{Canary, CustomMetadata},
    snapshot::{Action, Kind, ObjectRef, Write},
};

/// The containers whose ports belong to the mesh and not to the application.
const PROXIES: [&str; 2] = ["istio-proxy", "envoy"];

/// The values from which the Services are made.
pub struct Services<'a> {
    /// The Canary.
    pub canary: &'a Canary,
    /// The label that selects the target's pods: its key and its value.
    pub selector: (&'a str, &'a str),
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
        self.service(&self.canary.canary_name(), self.selector.1, metadata, live)
    }

    /// Creates or repairs the primary's Service. Returns no write if it is correct already.
    pub fn primary(&self, live: Option<&Value>) -> Option<Write> {
        let metadata = self.canary.spec.service.primary.as_ref();
        self.service(
            &self.canary.primary_name(),
            &format!("{}-primary", self.selector.1),
            metadata,
            live,
        )
    }

    /// Creates or repairs the Service that clients call, and takes over an existing one. Returns no write if it is correct already.
    pub fn apex(&self, live: Option<&Value>) -> Option<Write> {
        let metadata = self.canary.spec.service.apex.as_ref();
        self.service(
            self.canary.apex_name(),
            &format!("{}-primary", self.selector.1),
            metadata,
            live,
        )
    }

    /// Gives the Service that clients call the selector that it had before the Canary. A Service that the operator created selects the
    /// target's pods until Kubernetes deletes it together with the Canary. Returns no write if there is nothing to change.
    pub fn restored_apex(&self, live: Option<&Value>) -> Option<Write> {
        let live = live?;
        let name = self.canary.apex_name();
        let applied = live
            .pointer("/metadata/annotations/kubectl.kubernetes.io~1last-applied-configuration")
            .and_then(Value::as_str)
            .filter(|_| !is_owned(live, self.canary))
            .and_then(|text| serde_json::from_str::<Value>(text).ok())
            .and_then(|applied| applied.pointer("/spec/selector").cloned());
        let mut wanted = live.clone();
        wanted["spec"]["selector"] =
            applied.unwrap_or_else(|| json!({self.selector.0: self.selector.1}));
        if wanted == *live {
            return None;
        }
        let namespace = self.canary.metadata.namespace.clone().unwrap_or_default();
        Some(Write {
            object: ObjectRef {
                kind: Kind::Service,
                namespace,
                name: name.to_owned(),
            },
            action: Action::Replace(wanted),
            failure: format!("reconcileService failed: service {name} update error: "),
        })
    }

    fn service(
        &self,
        name: &str,
        selected: &str,
        metadata: Option<&CustomMetadata>,
        live: Option<&Value>,
    ) -> Option<Write> {
        let namespace = self.canary.metadata.namespace.clone().unwrap_or_default();
        let map = |map: Option<&BTreeMap<String, String>>| json_map(map.into_iter().flatten());
        let mut labels = map(metadata.and_then(|m| m.labels.as_ref()));
        labels.insert(self.selector.0.to_owned(), json!(name));
        let wanted = Wanted {
            labels,
            annotations: with_flux(map(metadata.and_then(|m| m.annotations.as_ref()))),
            selector: json!({self.selector.0: selected}),
        };
        let (action, failure) = match live {
            None => (
                Action::Create(self.new_service(name, &namespace, wanted)),
                format!("reconcileService failed: service {name}.{namespace} create error: "),
            ),
            Some(live) => (
                Action::Replace(self.repaired(live, wanted)?),
                format!("reconcileService failed: service {name} update error: "),
            ),
        };
        Some(Write {
            object: ObjectRef {
                kind: Kind::Service,
                namespace,
                name: name.to_owned(),
            },
            action,
            failure,
        })
    }

    fn new_service(&self, name: &str, namespace: &str, wanted: Wanted) -> Value {
        let Wanted {
            labels,
            annotations,
            selector,
        } = wanted;
        let service = &self.canary.spec.service;
        let mut spec = json!({"type": "ClusterIP", "selector": selector, "ports": self.ports()});
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
        let mut ports = self.ports();
        for port in &mut ports {
            let twin = live_ports
                .iter()
                .find(|live| live.get("name") == port.get("name"));
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

    fn ports(&self) -> Vec<Value> {
        let service = &self.canary.spec.service;
        let mut first = json!({"name": self.canary.port_name(), "protocol": "TCP", "port": service.port, "targetPort": self.canary.target_port()});
        if let Some(protocol) = service.app_protocol.as_ref().filter(|p| !p.is_empty()) {
            first["appProtocol"] = json!(protocol);
        }
        let mut ports = vec![first];
        if service.port_discovery {
            ports.extend(self.discovered().into_iter().map(|(name, port)| {
                json!({"name": name, "protocol": "TCP", "port": port, "targetPort": port})
            }));
        }
        ports
    }

    /// The other ports of the application's containers, by name.
    fn discovered(&self) -> BTreeMap<String, i64> {
        let service = &self.canary.spec.service;
        let target = serde_json::to_value(self.canary.target_port()).unwrap_or_default();
        let mut discovered = BTreeMap::new();
        let containers = self.template.pointer("/spec/containers");
        for container in containers.and_then(Value::as_array).into_iter().flatten() {
            let container_name = container
                .get("name")
                .and_then(Value::as_str)
                .unwrap_or_default();
            if PROXIES.contains(&container_name) {
                continue;
            }
            let ports = container.get("ports").and_then(Value::as_array);
            for (i, port) in ports.into_iter().flatten().enumerate() {
                let number = port
                    .get("containerPort")
                    .and_then(Value::as_i64)
                    .unwrap_or_default();
                let name = port
                    .get("name")
                    .and_then(Value::as_str)
                    .filter(|name| !name.is_empty());
                let is_main = target == json!(number)
                    || (name.is_some() && target.as_str() == name)
                    || (service.target_port.is_none() && number == service.port);
                if !is_main {
                    discovered.insert(
                        name.map_or_else(|| format!("tcp-{container_name}-{i}"), str::to_owned),
                        number,
                    );
                }
            }
        }
        discovered
    }
}

fn sorted(ports: &[Value]) -> Vec<&Value> {
    let mut ports: Vec<_> = ports.iter().collect();
    ports.sort_by_key(|port| port.get("port").and_then(Value::as_i64));
    ports
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
