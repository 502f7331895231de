//! The objects of the scenarios, and the changes to the spec of the walkthrough's Canary.

use serde_json::{Value, json};

use super::super::rig::template;

/// An analysis that raises the weight twice.
pub fn steps() -> Value {
    json!({"interval": "10s", "stepWeight": 25, "threshold": 2})
}

/// An analysis of two iterations.
pub fn iterations() -> Value {
    json!({"interval": "10s", "stepWeight": null, "maxWeight": null, "iterations": 2, "threshold": 2})
}

/// A spec with one more field in its analysis.
pub fn with(mut analysis: Value, field: &str, value: Value) -> Value {
    analysis[field] = value;
    json!({"analysis": analysis})
}

/// A change to the progress deadline of a workload.
pub fn deadline(seconds: u64) -> Value {
    json!({"spec": {"progressDeadlineSeconds": seconds}})
}

pub fn hook(kind: &str, url: &str) -> Value {
    json!({"name": kind, "type": kind, "url": url})
}

/// A spec for another provider than Istio.
pub fn behind(provider: &str, mut spec: Value) -> Value {
    spec["provider"] = json!(provider);
    spec["service"] = if provider.starts_with("gatewayapi") {
        json!({"gateways": null, "hosts": ["app.example.com"], "gatewayRefs": [{"name": "gateway", "namespace": "infra"}]})
    } else {
        json!({"gateways": null, "hosts": null})
    };
    spec
}

/// A spec with a route of the user.
pub fn on_own_route() -> Value {
    let refs = json!([{"kind": "HTTPRoute", "name": "podinfo"}]);
    let service = json!({"gateways": null, "hosts": null, "routeRefs": refs});
    json!({"provider": "gatewayapi:v1", "service": service, "analysis": steps()})
}

/// The route of the user.
pub fn http_route() -> Value {
    let backend = |name: &str, weight: u64| json!({"name": name, "port": 9898, "weight": weight});
    let rule = json!({"name": "all", "backendRefs": [backend("podinfo", 100), backend("podinfo-canary", 0)]});
    let spec = json!({"parentRefs": [{"name": "gateway"}], "hostnames": ["app.example.com"], "rules": [rule]});
    json!({"metadata": {"name": "podinfo", "labels": {"team": "a"}}, "spec": spec})
}

/// A spec with a VirtualService of the user.
pub fn on_own_virtual_service() -> Value {
    let mut spec = on_own_route();
    spec["provider"] = json!("istio");
    spec["service"]["routeRefs"] =
        json!([{"kind": "VirtualService", "name": "podinfo", "rules": ["all"]}]);
    spec
}

/// The VirtualService of the user.
pub fn own_virtual_service() -> Value {
    let to = |host: &str, weight: u64| json!({"destination": {"host": host}, "weight": weight});
    let all = json!({"name": "all", "timeout": "5s", "route": [to("podinfo", 100), to("podinfo-canary", 0)]});
    let spec = json!({"hosts": ["app.example.com"], "gateways": ["public"], "http": [all]});
    json!({"metadata": {"name": "podinfo", "labels": {"team": "a"}}, "spec": spec})
}

/// A spec for the operator's copy of a user's route.
pub fn on_template() -> Value {
    let parents = json!([{"name": "gateway"}]);
    let refs = json!([{"kind": "HTTPRoute", "name": "podinfo", "mode": "Template", "parentRefs": parents}]);
    let mut spec = on_own_route();
    spec["service"]["routeRefs"] = refs;
    spec
}

/// A route of the user without parents, which leads to the promoted version only.
pub fn route_template() -> Value {
    let mut route = http_route();
    let spec = route["spec"].as_object_mut().unwrap();
    spec.remove("parentRefs");
    let backends = &mut spec["rules"][0]["backendRefs"];
    backends.as_array_mut().unwrap().pop();
    route
}

/// A spec for another kind of target than a Deployment.
pub fn of(version: &str, kind: &str) -> Value {
    let target = json!({"apiVersion": version, "kind": kind});
    json!({"targetRef": target, "autoscalerRef": null, "analysis": steps()})
}

/// A workload without a HorizontalPodAutoscaler.
pub fn workload() -> Value {
    let labels = json!({"app": "podinfo"});
    json!({"metadata": {"name": "podinfo", "labels": labels}, "spec": {"selector": {"matchLabels": labels}, "template": template("podinfo", "3.1.0")}})
}

/// The ScaledObject of the workload.
pub fn scaled_object() -> Value {
    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "podinfo"});
    let trigger =
        json!({"type": "prometheus", "metadata": {"query": "rate(x[1m])", "threshold": "10"}});
    json!({"metadata": {"name": "podinfo"}, "spec": {"scaleTargetRef": target, "minReplicaCount": 2, "maxReplicaCount": 4, "triggers": [trigger]}})
}

/// The Service that users reach before the Canary exists.
pub fn service(app: &str) -> Value {
    json!({"metadata": {"name": "podinfo"}, "spec": {"selector": {"app": app}, "ports": [{"name": "http", "port": 9898}]}})
}

/// The route to that Service, as kubectl applied it.
pub fn virtual_service() -> Value {
    let route = json!([{"route": [{"destination": {"host": "podinfo"}}]}]);
    let spec = json!({"hosts": ["app.example.com"], "http": route});
    let applied = json!({"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": {"name": "podinfo"}, "spec": spec});
    let annotations =
        json!({"kubectl.kubernetes.io/last-applied-configuration": applied.to_string()});
    json!({"metadata": {"name": "podinfo", "annotations": annotations}, "spec": spec})
}

/// The two configs of the target: a `ConfigMap` and a Secret with this content.
pub fn configs(content: &str) -> [(&'static str, Value); 2] {
    let map = json!({"metadata": {"name": "podinfo-config"}, "data": {"colour": content}});
    let secret = json!({"metadata": {"name": "podinfo-secret"}, "type": "Opaque", "stringData": {"token": content}});
    [("configmaps", map), ("secrets", secret)]
}

/// The change that makes the target's container use the configs.
pub fn with_configs() -> Value {
    let from = json!([{"configMapRef": {"name": "podinfo-config"}}, {"secretRef": {"name": "podinfo-secret"}}]);
    let mut container = template("podinfo", "3.1.0")["spec"]["containers"][0].clone();
    container["envFrom"] = from;
    json!({"spec": {"template": {"spec": {"containers": [container]}}}})
}

/// The pods of one version of a target that is a Service.
pub fn pods_of_service(version: &str) -> Value {
    let (name, labels) = (format!("pods-{version}"), json!({"app": version}));
    json!({"metadata": {"name": name}, "spec": {"selector": {"matchLabels": labels}, "template": template(version, version)}})
}
