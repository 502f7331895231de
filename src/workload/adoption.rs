//! The adoption of the Service that clients call, if the user made it. It gets the Canary's port and the primary's selector. Everything
//! else stays: other ports, node ports, names of ports, labels. A deletion with `revertOnDeletion` gives the Service back as the user last
//! wrote it. (Flagger replaces all ports, matches node ports by name, and restores the selector only: `pkg/router/kubernetes_default.go`.)
//!
//! An annotation records the fields before and after the adoption, in the same write. A field that still has the adopted value gets its
//! former value again. If a field has another value, the user has written it since then, for example with `kubectl apply`, and this value
//! stays.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{
    metadata::{FLUX, ORIGINAL, last_applied, original, with_flux},
    ports::{LONGEST, unused_name},
};

/// The fields of a Service that an adoption changes.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
struct Fields {
    #[serde(default, skip_serializing_if = "Value::is_null")]
    selector: Value,
    #[serde(default)]
    ports: Vec<Value>,
}

/// The changes of an adoption, as the annotation [`ORIGINAL`] keeps them.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
struct Record {
    /// The fields as the user wrote them.
    before: Fields,
    /// The fields as the operator wrote them.
    adopted: Fields,
    /// The annotations for Flux that were there before.
    #[serde(default)]
    annotations: Map<String, Value>,
}

/// The fields that an adopted Service gets.
#[derive(Clone, Copy, Debug)]
pub struct Adoption<'a> {
    /// The selector of the primary's pods.
    pub selector: &'a Value,
    /// The ports of the Canary.
    pub ports: &'a [Value],
    /// Whether the Canary names its first port. If not, the name that the user gave it stays.
    pub is_named: bool,
}

impl Adoption<'_> {
    /// The Service with the adopted fields; `None` if it has them already.
    pub fn adopted(&self, live: &Value) -> Option<Value> {
        let record = original::<Record>(live);
        let users = Fields::of_user(live, record.as_ref());
        let now = Fields::of(live);
        let adopted = Fields {
            selector: self.selector.clone(),
            ports: with_node_ports(self.merged(&users.ports), &now.ports),
        };
        let is_led = now.selector == adopted.selector;
        if is_led && sorted(&now.ports) == sorted(&adopted.ports) {
            return None;
        }
        let mut service = live.clone();
        adopted.put_into(&mut service);
        let mut annotations = annotations(live);
        // A Service that leads to the primary and has no record was adopted by Flagger. Its former fields are unknown, so they cannot be
        // recorded.
        if record.is_some() || !is_led {
            let before = |record: Record| record.annotations;
            let record = Record {
                before: users,
                adopted,
                annotations: record.map_or_else(|| of_flux(&annotations), before),
            };
            let text = serde_json::to_string(&record).unwrap_or_default();
            annotations.insert(ORIGINAL.to_owned(), json!(text));
        }
        service["metadata"]["annotations"] = Value::Object(with_flux(annotations));
        Some(service)
    }

    /// The Service as the user last wrote it; `None` if nobody adopted it. If Flagger adopted it, the user's fields are those that kubectl
    /// applied last. Without these, the ports stay, and the selector is `targets`, that of the target's pods.
    pub fn given_back(&self, live: &Value, targets: Value) -> Option<Value> {
        let record = original::<Record>(live);
        let applied = last_applied(live);
        let (fields, flux) = match &record {
            Some(record) => (
                Fields::of_user(live, Some(record)),
                record.annotations.clone(),
            ),
            None if live["spec"]["selector"] != *self.selector => return None,
            None => {
                let now = Fields::of(live);
                let ports = applied.pointer("/spec/ports").and_then(Value::as_array);
                let ports = ports.map(|ports| with_defaults(ports, &now.ports));
                let selector = applied.pointer("/spec/selector").cloned();
                let fields = Fields {
                    selector: selector.unwrap_or(targets),
                    ports: ports.unwrap_or(now.ports),
                };
                (fields, of_flux(&annotations(&applied)))
            }
        };
        let mut service = live.clone();
        fields.put_into(&mut service);
        let mut annotations = annotations(live);
        annotations.retain(|key, _| key != ORIGINAL && !FLUX.iter().any(|(flux, _)| key == flux));
        annotations.extend(flux);
        match service.get_mut("metadata").and_then(Value::as_object_mut) {
            Some(metadata) if annotations.is_empty() => drop(metadata.remove("annotations")),
            _ => service["metadata"]["annotations"] = Value::Object(annotations),
        }
        Some(service)
    }

    /// The user's ports, together with those of the Canary.
    fn merged(&self, users: &[Value]) -> Vec<Value> {
        let mut ports: Vec<_> = users.iter().map(|port| self.overlaid(port)).collect();
        for port in self.ports {
            if twin(users, port).is_none() {
                ports.push(port.clone());
            }
        }
        if ports.len() > 1 {
            with_unique_names(ports)
        } else {
            ports
        }
    }

    /// The user's port with the fields of the Canary's port of the same number and protocol, if there is one.
    fn overlaid(&self, users: &Value) -> Value {
        let mut port = users.clone();
        let Some(ours) = twin(self.ports, users).and_then(Value::as_object) else {
            return port;
        };
        let is_first = self.ports.first().and_then(Value::as_object) == Some(ours);
        let keeps_name = name(users).is_some() && !(is_first && self.is_named);
        for (key, value) in ours {
            if key != "name" || !keeps_name {
                port[key] = value.clone();
            }
        }
        port
    }
}

impl Fields {
    fn of(service: &Value) -> Self {
        let ports = service.pointer("/spec/ports").and_then(Value::as_array);
        Self {
            selector: service["spec"]["selector"].clone(),
            ports: ports.cloned().unwrap_or_default(),
        }
    }

    /// The fields as the user last wrote them.
    fn of_user(live: &Value, record: Option<&Record>) -> Self {
        let now = Self::of(live);
        let Some(Record {
            before, adopted, ..
        }) = record
        else {
            return now;
        };
        let selector = if now.selector == adopted.selector {
            before.selector.clone()
        } else {
            now.selector.clone()
        };
        let users = now
            .ports
            .iter()
            .filter_map(|port| match twin(&adopted.ports, port) {
                Some(adopted) if is_same(adopted, port) => twin(&before.ports, port).cloned(),
                _ => Some(port.clone()),
            });
        let users = users.collect();
        Self {
            selector,
            ports: with_node_ports(users, &now.ports),
        }
    }

    fn put_into(&self, service: &mut Value) {
        let put = |service: &mut Value, field: &str, value: Option<Value>| match value {
            Some(value) => service["spec"][field] = value,
            None => {
                if let Some(spec) = service["spec"].as_object_mut() {
                    spec.remove(field);
                }
            }
        };
        let selector = (!self.selector.is_null()).then(|| self.selector.clone());
        put(service, "selector", selector);
        let ports = (!self.ports.is_empty()).then(|| json!(self.ports));
        put(service, "ports", ports);
    }
}

/// The number and the protocol of a port, which no other port of a Service has.
pub fn key(port: &Value) -> (Option<i64>, &str) {
    let protocol = port.get("protocol").and_then(Value::as_str);
    let number = port.get("port").and_then(Value::as_i64);
    (number, protocol.unwrap_or("TCP"))
}

/// The port of a list with the number and the protocol of this port.
pub fn twin<'a>(ports: &'a [Value], port: &Value) -> Option<&'a Value> {
    ports.iter().find(|other| key(other) == key(port))
}

/// The ports by number and protocol: their order has no meaning.
pub fn sorted(ports: &[Value]) -> Vec<&Value> {
    let mut ports: Vec<_> = ports.iter().collect();
    ports.sort_by_key(|port| key(port));
    ports
}

/// Whether a port is still equal to the one that the operator wrote. The API server may have given it a node port since then.
fn is_same(adopted: &Value, port: &Value) -> bool {
    let mut port = port.clone();
    if let Some(port) = port.as_object_mut()
        && adopted.get("nodePort").is_none()
    {
        port.remove("nodePort");
    }
    port == *adopted
}

/// The ports, with the node ports that they have now.
fn with_node_ports(mut ports: Vec<Value>, now: &[Value]) -> Vec<Value> {
    for port in &mut ports {
        let node_port = twin(now, port).and_then(|port| port.get("nodePort"));
        if let (None, Some(node_port)) = (port.get("nodePort"), node_port) {
            port["nodePort"] = node_port.clone();
        }
    }
    ports
}

/// The ports that a user applied, as the API server completes them.
fn with_defaults(applied: &[Value], now: &[Value]) -> Vec<Value> {
    let objects = applied.iter().filter(|port| port.is_object());
    let complete = objects.map(|port| {
        let mut complete = json!({"protocol": "TCP", "targetPort": port["port"]});
        for (key, value) in port.as_object().into_iter().flatten() {
            complete[key] = value.clone();
        }
        complete
    });
    with_node_ports(complete.collect(), now)
}

/// The ports with names that differ, as a Service of several ports needs them. The first port with a name keeps it. Another one gets its
/// number, too, and keeps the beginning of the name, from which Istio takes the protocol.
fn with_unique_names(mut ports: Vec<Value>) -> Vec<Value> {
    let mut names: BTreeSet<String> = BTreeSet::new();
    for port in &mut ports {
        let is_taken = |name: &str| names.contains(name);
        let (number, protocol) = key(port);
        let number = number.unwrap_or(0);
        let own = name(port).map(|own| {
            if is_taken(own) {
                format!("{own}-{number}")
            } else {
                own.to_owned()
            }
        });
        let own = own.filter(|own| own.len() <= LONGEST);
        let name = unused_name(own, protocol, number, is_taken);
        names.insert(name.clone());
        if port.is_object() {
            port["name"] = json!(name);
        }
    }
    ports
}

fn name(port: &Value) -> Option<&str> {
    let name = port.get("name")?.as_str()?;
    (!name.is_empty()).then_some(name)
}

fn annotations(object: &Value) -> Map<String, Value> {
    let annotations = object.pointer("/metadata/annotations");
    annotations
        .and_then(Value::as_object)
        .cloned()
        .unwrap_or_default()
}

/// The annotations for Flux among these.
fn of_flux(annotations: &Map<String, Value>) -> Map<String, Value> {
    let theirs = FLUX
        .iter()
        .filter_map(|(key, _)| annotations.get_key_value(*key));
    theirs
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

#[cfg(test)]
mod tests;
