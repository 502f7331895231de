//! The default objects of scenarios. A scenario writes only its differences from them.

use serde_json::{Value, json};

pub const FLAGGER: &str = "flagger.app/v1beta1";

/// Applies a JSON merge patch, except that containers are merged by name.
pub fn merge(into: &mut Value, patch: &Value) {
    let Some(patch) = patch.as_object() else {
        *into = patch.clone();
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    for (key, value) in patch {
        if value.is_null() {
            into.as_object_mut().unwrap().remove(key);
        } else if key == "containers" && into[key].is_array() {
            merge_by_name(into[key].as_array_mut().unwrap(), value.as_array().unwrap());
        } else {
            merge(&mut into[key], value);
        }
    }
}

fn merge_by_name(into: &mut Vec<Value>, patch: &[Value]) {
    for part in patch {
        match into.iter_mut().find(|there| there["name"] == part["name"]) {
            Some(there) => merge(there, part),
            None => into.push(part.clone()),
        }
    }
}

/// Completes an object of a scenario: `podinfo`, `canary` and `hpa` stand for the default objects, with the differences as their value.
/// Other objects are already complete.
pub fn complete(written: &Value) -> Value {
    for (name, usual) in [
        ("podinfo", podinfo as fn() -> Value),
        ("canary", canary),
        ("hpa", hpa),
    ] {
        if let Some(different) = written.get(name) {
            let mut object = usual();
            merge(&mut object, different);
            return object;
        }
    }
    written.clone()
}

fn podinfo() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "podinfo", "labels": {"app": "podinfo"}},
        "spec": {
            "replicas": 1, "revisionHistoryLimit": 5, "progressDeadlineSeconds": 60,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}},
            "selector": {"matchLabels": {"app": "podinfo"}},
            "template": {
                "metadata": {"labels": {"app": "podinfo"}, "annotations": {"prometheus.io/scrape": "true"}},
                "spec": {
                    "terminationGracePeriodSeconds": 0,
                    "containers": [{
                        "name": "podinfod", "image": "stefanprodan/podinfo:3.1.0", "imagePullPolicy": "IfNotPresent",
                        "ports": [{"name": "http", "containerPort": 9898}, {"name": "http-metrics", "containerPort": 9797},
                            {"name": "grpc", "containerPort": 9999}],
                        "resources": {"limits": {"cpu": "2000m", "memory": "512Mi"}, "requests": {"cpu": "100m", "memory": "64Mi"}},
                    }],
                },
            },
        },
    })
}

/// A canary release in steps of 25 percent up to 50, with both built-in metrics. It is rolled back after two failed checks.
fn canary() -> Value {
    json!({
        "apiVersion": FLAGGER, "kind": "Canary", "metadata": {"name": "podinfo"},
        "spec": {
            "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "podinfo"},
            "progressDeadlineSeconds": 60,
            "service": {"port": 80, "targetPort": 9898},
            "analysis": {
                "interval": "10s", "threshold": 2, "stepWeight": 25, "maxWeight": 50,
                "metrics": [{"name": "request-success-rate", "thresholdRange": {"min": 99}, "interval": "1m"},
                    {"name": "request-duration", "thresholdRange": {"max": 500}, "interval": "30s"}],
            },
        },
    })
}

fn hpa() -> Value {
    json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "podinfo"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "podinfo"}, "minReplicas": 2, "maxReplicas": 4,
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 99}}}],
        },
    })
}
