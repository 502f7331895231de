//! Records changed objects, as watches report them.

use serde_json::{Value, json};

use super::{Seen, State};
use crate::mask::{Masks, clean, spaced, take_weights, written_as};

const COOKIES: [(&str, &str); 3] = [
    ("sessionAffinityCookie", "cookie"),
    ("primarySessionAffinityCookie", "primaryCookie"),
    ("previousSessionAffinityCookie", "previousCookie"),
];

/// One change that a watch reported.
pub struct Change {
    pub object: Value,
    pub is_gone: bool,
}

impl Change {
    fn version(&self) -> u64 {
        self.text("/metadata/resourceVersion").parse().unwrap_or(0)
    }

    fn text(&self, at: &str) -> &str {
        text(&self.object, at)
    }

    fn key(&self) -> String {
        format!("{}/{}", self.text("/kind"), self.text("/metadata/name"))
    }
}

fn text<'a>(of: &'a Value, at: &str) -> &'a str {
    of.pointer(at).and_then(Value::as_str).unwrap_or_default()
}

/// Returns a value as text, or `none` if it is missing or null.
fn shown(value: Option<&Value>, none: &str) -> String {
    match value {
        None | Some(Value::Null) => none.to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => spaced(&other.to_string()),
    }
}

impl Seen {
    /// Records a change of a Canary.
    pub fn canary(&self, change: &Change) {
        let (mut state, version, name) = (
            self.state(),
            change.version(),
            change.text("/metadata/name"),
        );
        if change.is_gone {
            state.add(&self.masks, "status", &format!("{name} deleted"), version);
            state.add(
                &self.masks,
                "timeline",
                &format!("canary {name} deleted"),
                version,
            );
            return;
        }
        let status = &change.object["status"];
        let phase = Some(text(status, "/phase"))
            .filter(|phase| !phase.is_empty())
            .unwrap_or("-");
        let short = format!(
            "{name} {phase} weight={} iterations={} failed={}",
            shown(status.get("canaryWeight"), "-"),
            shown(status.get("iterations"), "-"),
            shown(status.get("failedChecks"), "-")
        );
        let line = format!(
            "{short} {} [{}]",
            state.rest(&change.object),
            conditions(status)
        );
        if state.is_new(&format!("canary {name}"), &line) {
            state.add(&self.masks, "status", &line, version);
            state.add(&self.masks, "timeline", &format!("status {short}"), version);
        }
    }

    /// Records an Event about a Canary.
    pub fn event(&self, change: &Change) {
        if change.is_gone || change.text("/involvedObject/kind") != "Canary" {
            return;
        }
        let by = [
            change.text("/source/component"),
            change.text("/reportingComponent"),
            "-",
        ];
        let line = format!(
            "{} {} {} {}: {}",
            change.text("/type"),
            change.text("/reason"),
            by.into_iter().find(|by| !by.is_empty()).unwrap_or_default(),
            change.text("/involvedObject/name"),
            change.text("/message")
        );
        let count = change.object["count"].as_u64().unwrap_or(1);
        let counted = if count > 1 {
            format!(" (count {count})")
        } else {
            String::new()
        };
        self.state()
            .add(&self.masks, "events", &(line + &counted), change.version());
    }

    /// Records a change of a route object.
    pub fn route(&self, change: &Change) {
        let mut key = change.key();
        if change.text("/kind") == "Service" {
            key = format!("KnativeService/{}", change.text("/metadata/name"));
        }
        let (mut state, version) = (self.state(), change.version());
        if change.is_gone {
            state.add(&self.masks, "routes", &format!("{key} deleted"), version);
            state.add(
                &self.masks,
                "timeline",
                &format!("route {key} deleted"),
                version,
            );
            state.objects.remove(&key);
            return;
        }
        let mut object = clean(&change.object);
        if key.starts_with("KnativeService/") {
            object["status"] = json!({"traffic": change.object.pointer("/status/traffic")});
        }
        state.objects.insert(key.clone(), object.clone());
        let mut shape = json!({"apiVersion": object["apiVersion"], "writtenAs": written_as(&change.object),
            "labels": object["metadata"].get("labels"), "annotations": object["metadata"].get("annotations"), "spec": object.get("spec")});
        for more in ["mesh", "status"] {
            if let Some(value) = object.get(more) {
                shape[more] = value.clone();
            }
        }
        state.shape(&self.masks, &key, shape, version);
    }

    /// Records a change of a workload, Service, config or autoscaler.
    pub fn workload(&self, change: &Change) {
        let (key, version) = (change.key(), change.version());
        let name = change.text("/metadata/name");
        if key == "ConfigMap/kube-root-ca.crt" || name.starts_with("ignored-") {
            return;
        }
        let mut state = self.state();
        if change.is_gone {
            state.objects.remove(&key);
            state.add(&self.masks, "workloads", &format!("{key} deleted"), version);
            return;
        }
        let object = clean(&change.object);
        let line = format!("{key} {}", state.described(&change.object, &object));
        state.objects.insert(key.clone(), object);
        if state.is_new(&key, &line) {
            state.add(&self.masks, "workloads", &line, version);
            if !key.starts_with("Service/") {
                state.add(&self.masks, "timeline", &line, version);
            }
        }
    }
}

impl State {
    /// Returns the second half of a Canary's line: revisions, configs, cookies, finalizers.
    fn rest(&mut self, canary: &Value) -> String {
        let status = &canary["status"];
        let revision = |state: &mut Self, of: &str| state.numbers.of("rev", status[of].as_str());
        let mut parts = vec![
            format!("applied={}", revision(self, "lastAppliedSpec")),
            format!("promoted={}", revision(self, "lastPromotedSpec")),
        ];
        if let Some(configs) = status.get("trackedConfigs") {
            parts.push(format!("configs={}", spaced(&configs.to_string())));
        }
        for (field, short) in COOKIES {
            let cookie = text(&status[field], "");
            if !cookie.is_empty() {
                let value = cookie
                    .split_once('=')
                    .map_or(cookie, |(_, value)| value)
                    .to_owned();
                if !self.cookies.contains(&value) {
                    self.cookies.push(value);
                }
                parts.push(format!("{short}={cookie}"));
            }
        }
        let finalizers: Vec<_> = canary["metadata"]["finalizers"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        if !finalizers.is_empty() {
            parts.push(format!("finalizers={}", finalizers.join(",")));
        }
        if canary.pointer("/metadata/deletionTimestamp").is_some() {
            parts.push("deleting".to_owned());
        }
        parts.join(" ")
    }

    /// Adds a line for a route object: the number of its shape, and its weights.
    fn shape(&mut self, masks: &Masks, key: &str, mut shape: Value, version: u64) {
        let mut weights = Vec::new();
        take_weights(&mut shape, &mut weights);
        let weights = weights.join(" ");
        let known = self.shapes.entry(key.to_owned()).or_default();
        let number = known
            .iter()
            .position(|there| *there == shape)
            .unwrap_or_else(|| {
                known.push(shape);
                known.len() - 1
            });
        let suffix = if weights.is_empty() {
            String::new()
        } else {
            format!(": {weights}")
        };
        let line = format!("{key} shape {}{suffix}", number + 1);
        if self.is_new(&format!("route {key}"), &line) {
            self.add(masks, "routes", &line, version);
            if !weights.is_empty() {
                self.add(
                    masks,
                    "timeline",
                    &format!("route {key} {weights}"),
                    version,
                );
            }
        }
    }

    /// Returns the most important fields of an object as text.
    fn described(&mut self, object: &Value, clean: &Value) -> String {
        let spec = &object["spec"];
        match text(object, "/kind") {
            kind @ ("Deployment" | "DaemonSet") => {
                let pod = &spec["template"];
                let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
                let images: Vec<_> = containers
                    .map(|container| {
                        text(container, "/image")
                            .rsplit('/')
                            .next()
                            .unwrap_or_default()
                    })
                    .collect();
                let id = self
                    .numbers
                    .of("id", pod["metadata"]["annotations"]["flagger-id"].as_str());
                let line = format!(
                    "replicas={} image={} id={id}",
                    shown(spec.get("replicas"), "-"),
                    images.join(",")
                );
                let selector = pod["spec"]
                    .get("nodeSelector")
                    .cloned()
                    .unwrap_or_else(|| json!({}));
                if kind == "DaemonSet" {
                    format!("{line} selector={}", spaced(&selector.to_string()))
                } else {
                    line
                }
            }
            "ScaledObject" => format!(
                "paused={} min={} max={}",
                shown(
                    object["metadata"]["annotations"].get("autoscaling.keda.sh/paused-replicas"),
                    "-"
                ),
                shown(spec.get("minReplicaCount"), "None"),
                shown(spec.get("maxReplicaCount"), "None")
            ),
            "HorizontalPodAutoscaler" => {
                format!(
                    "min={} max={}",
                    shown(spec.get("minReplicas"), "None"),
                    shown(spec.get("maxReplicas"), "None")
                )
            }
            "ConfigMap" | "Secret" => format!("data={}", spaced(&object["data"].to_string())),
            _ => {
                let ports = clean["spec"]["ports"].as_array().into_iter().flatten();
                let ports: Vec<_> = ports
                    .map(|port| {
                        format!("{}→{}", port["port"], shown(port.get("targetPort"), "None"))
                    })
                    .collect();
                format!(
                    "selector={} ports={}",
                    spaced(&spec["selector"].to_string()),
                    ports.join(",")
                )
            }
        }
    }
}

fn conditions(status: &Value) -> String {
    let conditions = status["conditions"].as_array().into_iter().flatten();
    let lines: Vec<_> = conditions
        .map(|condition| {
            let text = |at: &str| text(condition, at).to_owned();
            format!(
                "{} {} {}: {}",
                text("/type"),
                text("/status"),
                text("/reason"),
                text("/message")
            )
        })
        .collect();
    lines.join("; ")
}
