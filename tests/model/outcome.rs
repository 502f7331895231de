//! The outcome of a run: the objects at its end that a user sees.

use serde_json::{Map, Value, json};

use super::{
    invariants::KNATIVE_SERVICES,
    resources::{RESOURCES, names_of_routers},
    rig::Rig,
};

/// The names of the target, its primary and its canary.
const TARGET: &str = "podinfo";
const PRIMARY: &str = "podinfo-primary";
const CANARY: &str = "podinfo-canary";

impl Rig {
    /// The state of the cluster, as far as a user sees it. Objects that do not exist are left out.
    pub fn outcome(&self) -> Value {
        let mut outcome = Map::new();
        for (field, value) in self.progress() {
            outcome.insert(field.to_owned(), value);
        }
        for resource in RESOURCES.iter() {
            let found = self.found(resource.plural);
            if found.as_object().is_some_and(|found| !found.is_empty()) {
                outcome.insert(resource.plural.to_owned(), found);
            }
        }
        Value::Object(outcome)
    }

    /// The status of the Canary, and the versions and replicas of its workloads.
    fn progress(&self) -> Vec<(&'static str, Value)> {
        let status = self.get("canaries", TARGET)["status"].clone();
        let of = |name: &str, path: &str| {
            let workload = self.get("deployments", name);
            workload.pointer(path).cloned().unwrap_or_default()
        };
        let image = "/spec/template/spec/containers/0/image";
        let mut conditions = status["conditions"].clone();
        for condition in conditions.as_array_mut().into_iter().flatten() {
            let condition = condition.as_object_mut().unwrap();
            condition.retain(|field, _| !field.ends_with("Time"));
            // A person asks again after a fault, so the IDs differ.
            if condition["type"] == "Action" {
                let message = condition["message"].as_str().unwrap_or_default();
                let words = message.split_once(' ').map(|(_, words)| words);
                condition["message"] = json!(words);
            }
        }
        vec![
            ("phase", status["phase"].clone()),
            ("weight", status["canaryWeight"].clone()),
            ("iterations", status["iterations"].clone()),
            ("failed", status["failedChecks"].clone()),
            ("applied", status["lastAppliedSpec"].clone()),
            ("promoted", status["lastPromotedSpec"].clone()),
            ("tracked", status["trackedConfigs"].clone()),
            ("conditions", conditions),
            ("version", of(TARGET, image)),
            ("primary", of(PRIMARY, image)),
            ("replicas", of(TARGET, "/spec/replicas")),
            ("primary replicas", of(PRIMARY, "/spec/replicas")),
        ]
    }

    /// The result of each run and its reason, by revision, from the run's record.
    fn records(&self) -> Value {
        let releases = self.all("releases").into_iter();
        let ends = releases.map(|release| {
            let spec = &release["spec"];
            let revision = spec["revision"].as_str().unwrap_or_default().to_owned();
            // A run may begin in the second in which another one ends.
            let times = [&spec["startedAt"], &spec["endedAt"]];
            let times = times.map(|time| time.as_str().unwrap_or_default().to_owned());
            (
                times,
                revision,
                json!([spec["result"], spec["cause"]["code"]]),
            )
        });
        let mut ends: Vec<_> = ends.collect();
        ends.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
        let ends = ends.into_iter().enumerate();
        let ends = ends.map(|(place, (_, revision, end))| (format!("{place} {revision}"), end));
        Value::Object(ends.collect())
    }

    /// The objects of a kind, by name: the parts that a user sees.
    fn found(&self, plural: &str) -> Value {
        fn spec(object: &Value) -> Value {
            object["spec"].clone()
        }
        let all = |names: &[&str], part: fn(&Value) -> Value| {
            let objects = names.iter().map(|name| (name, self.get(plural, name)));
            let there = objects.filter(|(_, object)| object.is_object());
            let parts = there.map(|(name, object)| ((*name).to_owned(), part(&object)));
            Value::Object(parts.collect())
        };
        match plural {
            "ingresses" => all(
                &["web", "web-canary"],
                |ingress| json!({"annotations": ingress["metadata"]["annotations"], "spec": ingress["spec"]}),
            ),
            "services" => all(
                &[TARGET, PRIMARY, CANARY],
                |service| json!({"selector": service["spec"]["selector"], "ports": service["spec"]["ports"]}),
            ),
            KNATIVE_SERVICES => all(
                &[TARGET],
                |service| json!({"annotations": service["metadata"]["annotations"], "spec": service["spec"]}),
            ),
            "daemonsets" => all(&[TARGET, PRIMARY], |set| {
                set["spec"]["template"]["spec"].clone()
            }),
            "horizontalpodautoscalers" => all(&[TARGET, PRIMARY, CANARY], spec),
            "scaledobjects" => all(
                &[TARGET, PRIMARY],
                |scaler| json!({"annotations": scaler["metadata"]["annotations"], "spec": scaler["spec"]}),
            ),
            "configmaps" => all(&["podinfo-config", "podinfo-config-primary"], data),
            "secrets" => all(&["podinfo-secret", "podinfo-secret-primary"], data),
            "releases" => self.records(),
            // Their outcome is above, or they are no state that a user sees. Events are compared one by one.
            "canaries"
            | "deployments"
            | "events"
            | "grpcroutes"
            | "tlsroutes"
            | "tcproutes"
            | "leases"
            | "metrictemplates"
            | "alertproviders"
            | "replicasets"
            | "revisions"
            | "controllerrevisions" => Value::Null,
            other => {
                let names = names_of_routers(other);
                assert!(
                    !names.is_empty(),
                    "the outcome of a run has no entry for {other}"
                );
                all(&names, spec)
            }
        }
    }
}

fn data(config: &Value) -> Value {
    config["data"].clone()
}
