//! Masks for values that differ from run to run, such as uids and times. Both sides of a comparison are masked in the same way.

use std::collections::HashMap;

use regex::Regex;
use serde_json::{Value, json};

use crate::cluster::USER;

const VOLATILE: [&str; 9] = [
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "managedFields",
    "selfLink",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "namespace",
];

/// Masks values in lines of text.
pub struct Masks {
    rollout: Regex,
    uuid: Regex,
    service: Regex,
    servers: [String; 2],
}

impl Masks {
    /// `port` is the port of the fake servers.
    pub fn new(port: u16) -> Self {
        let rollout = concat!(
            r"waiting for rollout to finish: (?:observed \w+ generation less than desired generation",
            r"|\d+ out of \d+ new (?:replicas|pods) have been updated|\d+ old replicas are pending termination",
            r"|\d+ of \d+ \(readyThreshold \d+%\) updated (?:replicas|pods) are available)",
        );
        Self {
            rollout: Regex::new(rollout).unwrap(),
            uuid: Regex::new("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
                .unwrap(),
            service: Regex::new(r"\b10\.96\.\d+\.\d+").unwrap(),
            servers: [format!("127.0.0.1:{port}"), format!("127.0.0.1%3A{port}")],
        }
    }

    pub fn line(&self, text: &str) -> String {
        let text = self
            .rollout
            .replace_all(text, "waiting for rollout to finish: <…>");
        let text = self.uuid.replace_all(&text, "<uuid>");
        let text = self.service.replace_all(&text, "<ip>");
        let [plain, encoded] = &self.servers;
        text.replace(plain, "FAKES").replace(encoded, "FAKES")
    }
}

/// Numbers for values that differ from run to run, in the order in which they appear. Equal values get the same number.
#[derive(Default)]
pub struct Numbers(HashMap<&'static str, Vec<String>>);

impl Numbers {
    pub fn of(&mut self, kind: &'static str, value: Option<&str>) -> String {
        let Some(value) = value.filter(|value| !value.is_empty()) else {
            return String::new();
        };
        let known = self.0.entry(kind).or_default();
        let number = known
            .iter()
            .position(|there| there == value)
            .unwrap_or_else(|| {
                known.push(value.to_owned());
                known.len() - 1
            });
        format!("<{kind}{}>", number + 1)
    }
}

/// Returns an object without its status, and with its uids, versions, times and addresses removed or masked.
pub fn clean(object: &Value) -> Value {
    let mut object = object.clone();
    object.as_object_mut().unwrap().remove("status");
    let metadata = object["metadata"].as_object_mut().unwrap();
    for key in VOLATILE {
        metadata.remove(key);
    }
    let owners = metadata
        .get_mut("ownerReferences")
        .and_then(Value::as_array_mut);
    for owner in owners.into_iter().flatten() {
        owner["uid"] = json!("<uid>");
    }
    for at in [
        "/metadata/annotations",
        "/spec/template/metadata/annotations",
    ] {
        annotations(object.pointer_mut(at));
    }
    if object["kind"] == "Service" && object["apiVersion"] == "v1" {
        service(&mut object["spec"]);
    }
    let is_typed = object["apiVersion"] == "v1" || object["apiVersion"] == "apps/v1";
    if is_typed { trim(object) } else { object }
}

fn annotations(of: Option<&mut Value>) {
    for (key, value) in of.and_then(Value::as_object_mut).into_iter().flatten() {
        match key.as_str() {
            "flagger-id" => *value = json!("<uuid>"),
            "kubectl.kubernetes.io/last-applied-configuration" => *value = json!("<last applied>"),
            _ => {}
        }
    }
}

fn service(spec: &mut Value) {
    let addresses = spec.get_mut("clusterIPs").and_then(Value::as_array_mut);
    for address in addresses
        .into_iter()
        .flatten()
        .filter(|address| *address != "None")
    {
        *address = json!("<ip>");
    }
    if spec
        .get("clusterIP")
        .is_some_and(|address| address != "None")
    {
        spec["clusterIP"] = json!("<ip>");
    }
    let Some(ports) = spec.get_mut("ports").and_then(Value::as_array_mut) else {
        return;
    };
    // The order of discovered ports is not fixed.
    if let [_, discovered @ ..] = ports.as_mut_slice()
        && discovered.len() > 1
    {
        discovered.sort_by_key(|port| port["name"].as_str().unwrap_or_default().to_owned());
    }
    for port in ports
        .iter_mut()
        .filter(|port| port.get("nodePort").is_some())
    {
        port["nodePort"] = json!("<port>");
    }
}

/// Removes fields that have the API server's default.
fn trim(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields
                .into_iter()
                .filter(|(key, value)| !is_default(key, value));
            fields.map(|(key, value)| (key, trim(value))).collect()
        }
        Value::Array(values) => values.into_iter().map(trim).collect(),
        other => other,
    }
}

fn is_default(key: &str, value: &Value) -> bool {
    match key {
        "terminationMessagePath" => value == "/dev/termination-log",
        "terminationMessagePolicy" => value == "File",
        "schedulerName" => value == "default-scheduler",
        "dnsPolicy" => value == "ClusterFirst",
        "securityContext" => *value == json!({}),
        "restartPolicy" => value == "Always",
        "internalTrafficPolicy" => value == "Cluster",
        "ipFamilies" => *value == json!(["IPv4"]),
        "ipFamilyPolicy" => value == "SingleStack",
        "sessionAffinity" => value == "None",
        "protocol" => value == "TCP",
        _ => false,
    }
}

/// Returns the API versions in which clients other than the scenario wrote an object. A watch reports objects in one version only.
pub fn written_as(object: &Value) -> Vec<String> {
    let entries = object
        .pointer("/metadata/managedFields")
        .and_then(Value::as_array);
    let mut versions: Vec<_> = entries
        .into_iter()
        .flatten()
        .filter(|entry| entry.get("subresource").is_none() && entry["manager"] != USER)
        .filter_map(|entry| entry["apiVersion"].as_str().map(str::to_owned))
        .collect();
    versions.sort();
    versions.dedup();
    versions
}

/// Replaces the weights in a route object by `*` and adds them to `weights` as `DESTINATION=WEIGHT`, in the order of the document.
pub fn take_weights(of: &mut Value, weights: &mut Vec<String>) {
    match of {
        Value::Object(fields) => {
            let of_whom = label(fields).unwrap_or_else(|| "None".to_owned());
            for (key, value) in fields {
                if (key == "weight" || key == "percent") && !value.is_object() && !value.is_array()
                {
                    weights.push(format!("{of_whom}={value}"));
                    *value = json!("*");
                } else if key.ends_with("/canary-weight") || key.ends_with("/backend-weights") {
                    let name = key.split('/').nth(1).unwrap_or_default();
                    weights.push(format!("{name}={}", value.as_str().unwrap_or_default()));
                    *value = json!("*");
                } else {
                    take_weights(value, weights);
                }
            }
        }
        Value::Array(values) => values
            .iter_mut()
            .for_each(|value| take_weights(value, weights)),
        _ => {}
    }
}

/// Returns the name of the destination that a weight belongs to.
fn label(fields: &serde_json::Map<String, Value>) -> Option<String> {
    const NAMES: [&str; 7] = [
        "host",
        "name",
        "service",
        "serviceName",
        "virtualNodeName",
        "revisionName",
        "kuma.io/service",
    ];
    let named = NAMES
        .iter()
        .find_map(|name| fields.get(*name)?.as_str().map(str::to_owned));
    let deeper = || fields.values().filter_map(Value::as_object).find_map(label);
    let is_latest = fields.get("latestRevision") == Some(&Value::Bool(true));
    named
        .or_else(deeper)
        .or_else(|| is_latest.then(|| "latest".to_owned()))
}

/// Adds a blank after each comma and colon of a JSON text. Keeps the order of keys, and removes escapes that JSON does not need.
pub fn spaced(json: &str) -> String {
    let (mut spaced, mut text, mut is_escaped) = (String::new(), None::<String>, false);
    for c in json.chars() {
        if let Some(so_far) = &mut text {
            so_far.push(c);
            if c == '"' && !is_escaped {
                let plain: String = serde_json::from_str(so_far).unwrap_or_default();
                spaced += &json!(plain).to_string();
                text = None;
            }
            is_escaped = !is_escaped && c == '\\';
        } else if c == '"' {
            text = Some(c.to_string());
        } else if !c.is_whitespace() {
            spaced.push(c);
            if c == ',' || c == ':' {
                spaced.push(' ');
            }
        }
    }
    spaced
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_spaced_outside_of_texts() {
        assert_eq!(
            spaced(r#"{"a":[1,{"b":"x,\"y:z\u003c\\"}], "c" : null}"#),
            r#"{"a": [1, {"b": "x,\"y:z<\\"}], "c": null}"#
        );
    }

    #[test]
    fn values_that_differ_between_runs_are_masked() {
        let masks = Masks::new(1234);
        let line =
            masks.line("http://127.0.0.1:1234/x 10.96.3.4 01234567-89ab-cdef-0123-456789abcdef");
        assert_eq!(line, "http://FAKES/x <ip> <uuid>");
        let mut numbers = Numbers::default();
        assert_eq!(numbers.of("rev", Some("b")), "<rev1>");
        assert_eq!(numbers.of("rev", Some("a")), "<rev2>");
        assert_eq!(numbers.of("rev", Some("b")), "<rev1>");
        assert_eq!(numbers.of("rev", None), "");
    }

    #[test]
    fn weights_are_taken_out_of_a_route() {
        let mut route = json!({"route": [{"destination": {"host": "a"}, "weight": 90}, {"destination": {"host": "b"}, "weight": 10}]});
        let mut weights = Vec::new();
        take_weights(&mut route, &mut weights);
        assert_eq!(weights, ["a=90", "b=10"]);
        assert_eq!(route["route"][0]["weight"], "*");
    }
}
