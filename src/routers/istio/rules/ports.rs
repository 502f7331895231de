//! The rules for the further ports of the Services, which `portDiscovery` finds.

use serde_json::{Value, json};

use crate::{
    api::canary::Canary,
    routers::{RouteError, conditions},
    snapshot::Snapshot,
    workload::ports::{self, Port},
};

/// The gateway that stands for all sidecars.
const MESH: &str = "mesh";

/// Whether destinations have the number of a port: behind a gateway, the port of a request is that of the gateway. (Flagger: `makeDestination`.)
pub fn have_number(canary: &Canary) -> bool {
    let service = &canary.spec.service;
    let first = service.gateways.as_deref().and_then(<[_]>::first);
    service.port_discovery && (service.delegation || first.is_some_and(|gateway| gateway != MESH))
}

/// These rules, after copies of them for each further port. A copy leads requests of the mesh to a port to the same port. (Flagger leads them
/// to the first.) Requests through a gateway have the gateway's port, which says nothing about the Services': the first port gets them, as in
/// Flagger.
///
/// It is an error if the copies would be too large.
pub fn with_further(snapshot: &Snapshot, rules: Vec<Value>) -> Result<Vec<Value>, RouteError> {
    let service = &snapshot.canary.spec.service;
    let mut gateways = service.gateways.iter().flatten();
    let is_in_mesh = service.delegation || gateways.any(|gateway| gateway == MESH);
    if !have_number(&snapshot.canary) || !is_in_mesh {
        return Ok(rules);
    }
    let template = snapshot
        .target()
        .and_then(|target| target.pointer("/spec/template"));
    let further = ports::discovered(&snapshot.canary, template.unwrap_or(&Value::Null));
    let tcp: Vec<_> = further
        .iter()
        .filter(|port| port.protocol == "TCP")
        .collect();
    conditions::check_copies(&rules, tcp.len())?;
    let copies = tcp
        .into_iter()
        .flat_map(|port| rules.iter().filter_map(move |rule| at_port(rule, port)));
    let mut all: Vec<_> = copies.collect();
    all.extend(rules);
    Ok(all)
}

/// The rule for requests of the mesh to this port; `None` if its conditions exclude them.
fn at_port(rule: &Value, port: &Port) -> Option<Value> {
    let mut rule = rule.clone();
    let matches = match rule.get("match").and_then(Value::as_array) {
        None => vec![narrowed(&json!({}), port)?],
        Some(conditions) => {
            let narrowed = conditions.iter().filter_map(|one| narrowed(one, port));
            narrowed.collect()
        }
    };
    if matches.is_empty() {
        return None;
    }
    rule["match"] = Value::Array(matches);
    for destination in rule["route"].as_array_mut()? {
        destination["destination"]["port"] = json!({"number": port.number});
    }
    Some(rule)
}

/// The condition, for requests of the mesh to this port only; `None` if it excludes them.
fn narrowed(condition: &Value, port: &Port) -> Option<Value> {
    let number = condition.get("port").and_then(Value::as_i64).unwrap_or(0);
    let gateways = condition.get("gateways").and_then(Value::as_array);
    let excludes =
        |gateways: &&Vec<Value>| !gateways.is_empty() && !gateways.contains(&json!(MESH));
    if ![0, port.number].contains(&number) || gateways.as_ref().is_some_and(excludes) {
        return None;
    }
    let mut condition = condition.as_object().cloned()?;
    condition.insert("port".to_owned(), json!(port.number));
    condition.insert("gateways".to_owned(), json!([MESH]));
    Some(Value::Object(condition))
}
