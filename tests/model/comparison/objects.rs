//! The objects of the compared requests, each in several forms.

use serde_json::{Value, json};

/// The kinds that are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    ConfigMap,
    Secret,
    Service,
    Event,
    Deployment,
    DaemonSet,
    Scaler,
    Lease,
    Canary,
    VirtualService,
    HttpProxy,
    Ingress,
    TrafficSplit,
}

pub const KINDS: [Kind; 13] = [
    Kind::ConfigMap,
    Kind::Secret,
    Kind::Service,
    Kind::Event,
    Kind::Deployment,
    Kind::DaemonSet,
    Kind::Scaler,
    Kind::Lease,
    Kind::Canary,
    Kind::VirtualService,
    Kind::HttpProxy,
    Kind::Ingress,
    Kind::TrafficSplit,
];

/// Identifies an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Object {
    pub kind: Kind,
    pub name: String,
}

impl Kind {
    pub const fn root(self) -> &'static str {
        match self {
            Self::ConfigMap | Self::Secret | Self::Service | Self::Event => "/api/v1",
            Self::Deployment | Self::DaemonSet => "/apis/apps/v1",
            Self::Scaler => "/apis/autoscaling/v2",
            Self::Lease => "/apis/coordination.k8s.io/v1",
            Self::Canary => "/apis/flagger.app/v1beta1",
            Self::VirtualService => "/apis/networking.istio.io/v1beta1",
            Self::HttpProxy => "/apis/projectcontour.io/v1",
            Self::Ingress => "/apis/networking.k8s.io/v1",
            Self::TrafficSplit => "/apis/split.smi-spec.io/v1alpha1",
        }
    }

    pub const fn plural(self) -> &'static str {
        match self {
            Self::ConfigMap => "configmaps",
            Self::Secret => "secrets",
            Self::Service => "services",
            Self::Event => "events",
            Self::Deployment => "deployments",
            Self::DaemonSet => "daemonsets",
            Self::Scaler => "horizontalpodautoscalers",
            Self::Lease => "leases",
            Self::Canary => "canaries",
            Self::VirtualService => "virtualservices",
            Self::HttpProxy => "httpproxies",
            Self::Ingress => "ingresses",
            Self::TrafficSplit => "trafficsplits",
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::ConfigMap => "ConfigMap",
            Self::Secret => "Secret",
            Self::Service => "Service",
            Self::Event => "Event",
            Self::Deployment => "Deployment",
            Self::DaemonSet => "DaemonSet",
            Self::Scaler => "HorizontalPodAutoscaler",
            Self::Lease => "Lease",
            Self::Canary => "Canary",
            Self::VirtualService => "VirtualService",
            Self::HttpProxy => "HTTPProxy",
            Self::Ingress => "Ingress",
            Self::TrafficSplit => "TrafficSplit",
        }
    }

    pub const fn has_status(self) -> bool {
        matches!(self, Self::Deployment | Self::Canary | Self::HttpProxy)
    }

    /// An object without metadata, in one of three forms.
    pub fn content(self, form: usize, namespace: &str) -> Value {
        let a = form.to_string();
        match self {
            Self::ConfigMap => json!({"data": {"a": a}}),
            Self::Secret => [json!({"stringData": {"a": a}}), json!({"type": "Opaque", "data": {"a": "MQ=="}}), json!({"data": {}})][form].clone(),
            Self::Service => [
                json!({"spec": {"selector": {"app": a}, "ports": [{"port": 80}]}}),
                json!({"spec": {"type": "ClusterIP", "selector": {"app": a}, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]}}),
                json!({"spec": {"selector": {"app": a}, "ports": [{"name": "a", "port": 80}, {"name": "b", "port": 81, "targetPort": 82, "protocol": "UDP"}]}}),
            ][form]
                .clone(),
            Self::Event => json!({"involvedObject": {"kind": "Canary", "name": "x", "namespace": namespace}, "type": "Normal", "reason": "Synced",
                "message": a, "count": form, "source": {"component": "flagger"}, "firstTimestamp": "2026-01-01T00:00:00Z"}),
            Self::Deployment => {
                let extra = [json!({}), json!({"replicas": 0, "progressDeadlineSeconds": 60}), json!({"paused": true, "strategy": {"type": "Recreate"}})];
                with(json!({"selector": {"matchLabels": {"app": "x"}}, "template": template(form)}), &extra[form])
            }
            Self::DaemonSet => with(json!({"selector": {"matchLabels": {"app": "x"}}, "template": template(form)}), &json!({})),
            Self::Scaler => [
                json!({"spec": {"maxReplicas": 3, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "x"}}}),
                json!({"spec": {"minReplicas": 2, "maxReplicas": 4, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "x"},
                    "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 99}}}]}}),
                json!({"spec": {"maxReplicas": 5, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "y"}}}),
            ][form]
                .clone(),
            Self::Lease => [json!({}), json!({"spec": {"holderIdentity": "a", "leaseDurationSeconds": 15}}), json!({"spec": {"holderIdentity": "b",
                "renewTime": "2026-01-01T00:00:00.000000Z", "leaseTransitions": 1, "leaseDurationSeconds": 15}})][form]
                .clone(),
            Self::Canary => json!({"spec": {"targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "x"}, "service": {"port": form + 80},
                "analysis": {"interval": "1m", "threshold": form, "iterations": 5}}, "status": {"phase": "Progressing", "canaryWeight": form}}),
            Self::VirtualService => json!({"spec": {"hosts": ["x"], "http": [{"route": [
                {"destination": {"host": "a"}, "weight": 100 - form}, {"destination": {"host": "b"}, "weight": form}]}]}}),
            Self::HttpProxy => json!({"spec": {"routes": [{"conditions": [{"prefix": "/"}], "services": [
                {"name": "a", "port": 80, "weight": 100 - form}, {"name": "b", "port": 80}]}]}, "status": {"currentStatus": "valid"}}),
            Self::Ingress => json!({"spec": {"ingressClassName": "nginx", "rules": [{"host": "x", "http": {"paths": [
                {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "a", "port": {"number": form + 80}}}}]}}]}}),
            Self::TrafficSplit => json!({"spec": {"service": "x", "backends": [
                {"service": "a", "weight": 100 - form}, {"service": "b", "weight": a}]}}),
        }
    }

    /// A complete object.
    pub fn object(self, name: &str, form: usize, namespace: &str) -> Value {
        let root = self.root();
        let version = root
            .strip_prefix("/apis/")
            .or_else(|| root.strip_prefix("/api/"))
            .unwrap();
        let mut object = self.content(form, namespace);
        object["apiVersion"] = json!(version);
        object["kind"] = json!(self.name());
        object["metadata"] = json!({"name": name});
        let meta = &mut object["metadata"];
        match form {
            0 => {}
            1 => meta["labels"] = json!({"app": "x", "tier": "1"}),
            _ => {
                meta["labels"] = json!({"app": "y"});
                meta["annotations"] = json!({"note": "2"});
                meta["finalizers"] = json!(["test.example/hold"]);
            }
        }
        object
    }
}

fn with(mut spec: Value, extra: &Value) -> Value {
    for (key, value) in extra.as_object().unwrap() {
        spec[key] = value.clone();
    }
    json!({"spec": spec})
}

fn template(form: usize) -> Value {
    let containers = [
        json!([{"name": "a", "image": "podinfo"}]),
        json!([{"name": "a", "image": "podinfo:1", "ports": [{"name": "http", "containerPort": 80}], "readinessProbe": {"httpGet": {"port": 80}},
            "env": [{"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}, {"name": "X", "value": "1"}]}]),
        json!([{"name": "a", "image": "registry:5000/podinfo", "resources": {"limits": {"cpu": "1"}},
            "volumeMounts": [{"name": "c", "mountPath": "/c"}], "livenessProbe": {"exec": {"command": ["true"]}, "periodSeconds": 5}}]),
    ];
    let mut spec = json!({"containers": containers[form]});
    if form == 2 {
        spec["volumes"] = json!([{"name": "c", "configMap": {"name": "c"}}, {"name": "s", "secret": {"secretName": "s"}}, {"name": "e", "emptyDir": {}}]);
        spec["serviceAccountName"] = json!("x");
    }
    json!({"metadata": {"labels": {"app": "x"}}, "spec": spec})
}
