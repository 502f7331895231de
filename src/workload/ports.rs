//! The ports of the Services: the one of the Canary and, with `portDiscovery`, the other ports of the target's containers (Flagger:
//! `pkg/canary/util.go`).

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::api::{canary::Canary, limits::PORTS};

/// The containers whose ports belong to the mesh and not to the application.
const PROXIES: [&str; 2] = ["istio-proxy", "envoy"];
/// The longest name of a Service's port.
pub const LONGEST: usize = 63;

/// A port of a container that the Services have, too. Its number is the same in the Service and in the pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// The name in the Service: valid, and different from all others.
    pub name: String,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// The number.
    pub number: i64,
}

/// A port of a container, as the template has it.
struct Declared<'a> {
    container: &'a str,
    /// The index in the list of the container's ports.
    index: usize,
    name: Option<&'a str>,
    protocol: &'a str,
    number: i64,
}

/// The ports of the Services, the Canary's first.
pub fn wanted(canary: &Canary, template: &Value) -> Vec<Value> {
    let service = &canary.spec.service;
    let mut first = json!({"name": canary.port_name(), "protocol": "TCP", "port": service.port, "targetPort": canary.target_port()});
    if let Some(protocol) = service.app_protocol.as_ref().filter(|p| !p.is_empty()) {
        first["appProtocol"] = json!(protocol);
    }
    let further = discovered(canary, template).into_iter().map(|port| {
        json!({"name": port.name, "protocol": port.protocol, "port": port.number, "targetPort": port.number})
    });
    std::iter::once(first).chain(further).collect()
}

/// The other ports of the application's containers, by name; none without `portDiscovery`. A Service has each number once per protocol, so
/// a port with the number of an earlier one is left out. (Flagger takes all for TCP, and the API server refuses equal ones.)
pub fn discovered(canary: &Canary, template: &Value) -> Vec<Port> {
    if !canary.spec.service.port_discovery {
        return Vec::new();
    }
    let mut taken = BTreeSet::from([("TCP", canary.spec.service.port)]);
    let mut names = BTreeSet::from([canary.port_name().to_owned()]);
    let mut ports = Vec::new();
    // Validation refuses a target with more.
    for port in declared(template).take(PORTS) {
        if leads_to(canary, &port) || !taken.insert((port.protocol, port.number)) {
            continue;
        }
        let name = unique_name(&port, &names);
        names.insert(name.clone());
        ports.push(Port {
            name,
            protocol: port.protocol.to_owned(),
            number: port.number,
        });
    }
    ports.sort_by(|a, b| a.name.cmp(&b.name));
    ports
}

/// The number of ports of the application's containers, among which `portDiscovery` chooses.
pub fn count(template: &Value) -> usize {
    declared(template).count()
}

/// The ports of all containers but proxies.
fn declared(template: &Value) -> impl Iterator<Item = Declared<'_>> {
    let containers = template
        .pointer("/spec/containers")
        .and_then(Value::as_array);
    containers
        .into_iter()
        .flatten()
        .filter_map(|container| {
            let name = container.get("name").and_then(Value::as_str);
            let name = name.unwrap_or_default();
            let ports = container.get("ports")?.as_array()?;
            (!PROXIES.contains(&name)).then_some((name, ports))
        })
        .flat_map(|(container, ports)| {
            ports
                .iter()
                .enumerate()
                .filter_map(move |(index, port)| Declared::of(container, index, port))
        })
}

impl<'a> Declared<'a> {
    fn of(container: &'a str, index: usize, port: &'a Value) -> Option<Self> {
        let text = |key: &str| {
            let text = port.get(key).and_then(Value::as_str);
            text.filter(|text| !text.is_empty())
        };
        let number = port.get("containerPort").and_then(Value::as_i64)?;
        (1..=65535).contains(&number).then_some(Self {
            container,
            index,
            name: text("name"),
            protocol: text("protocol").unwrap_or("TCP"),
            number,
        })
    }
}

/// Whether the Canary's own port of the Services leads to this port.
fn leads_to(canary: &Canary, port: &Declared<'_>) -> bool {
    let target = serde_json::to_value(canary.target_port()).unwrap_or_default();
    let is_named = || port.name.is_some() && target.as_str() == port.name;
    port.protocol == "TCP" && (target == json!(port.number) || is_named())
}

/// The name of the port's container port, or one made of the container or of the number if that is taken.
fn unique_name(port: &Declared<'_>, taken: &BTreeSet<String>) -> String {
    let own = port.name.map(str::to_owned);
    let own = own.filter(|name| !taken.contains(name)).or_else(|| {
        let protocol = port.protocol.to_lowercase();
        let made = format!("{protocol}-{}-{}", port.container, port.index);
        (made.len() <= LONGEST).then_some(made)
    });
    unused_name(own, port.protocol, port.number, |name| taken.contains(name))
}

/// A port's own name, or if that is taken, one made of its protocol and number.
pub fn unused_name(
    own: Option<String>,
    protocol: &str,
    number: i64,
    is_taken: impl Fn(&str) -> bool,
) -> String {
    let numbered = format!("{}-{number}", protocol.to_lowercase());
    let further = (2..).map(|n| format!("{numbered}-{n}"));
    let mut names = own.into_iter().chain([numbered.clone()]).chain(further);
    names.find(|name| !is_taken(name)).unwrap_or(numbered)
}

#[cfg(test)]
mod tests;
