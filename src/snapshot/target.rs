//! The workloads that can be released, and what there is to see of one: its version, its pods, its readiness.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::{
    Kind, Readiness,
    readiness::{self, Times},
};
use crate::api::canary::Canary;

/// On a DaemonSet's pods this node selector matches no node: a DaemonSet cannot be scaled.
pub const SCALE_TO_ZERO: &str = "flagger.app/scale-to-zero";

/// The kinds of workloads that can be released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetKind {
    /// Pods, as many as its spec or an autoscaler says.
    Deployment,
    /// A pod on each node.
    DaemonSet,
    /// A core Service; whoever writes it takes care of what answers.
    Service,
}

impl TargetKind {
    /// The kind of a Canary's target, if this version knows it.
    pub fn of(canary: &Canary) -> Option<Self> {
        let target = &canary.spec.target_ref;
        match target.kind.as_str() {
            "Deployment" => Some(Self::Deployment),
            "DaemonSet" => Some(Self::DaemonSet),
            "Service" if !target.api_version.starts_with("serving.knative.dev/") => {
                Some(Self::Service)
            }
            _ => None,
        }
    }

    /// The kind of object.
    pub const fn kind(self) -> Kind {
        match self {
            Self::Deployment => Kind::Deployment,
            Self::DaemonSet => Kind::DaemonSet,
            Self::Service => Kind::Service,
        }
    }

    /// Whether it runs pods: then it has a template, and can be scaled to zero.
    pub const fn has_pods(self) -> bool {
        match self {
            Self::Deployment | Self::DaemonSet => true,
            Self::Service => false,
        }
    }

    /// The part of a workload that makes it a version: any other is a new revision.
    pub fn version(self, object: &Value) -> Cow<'_, Value> {
        match self {
            Self::Deployment | Self::DaemonSet => {
                Cow::Borrowed(object.pointer("/spec/template").unwrap_or(&Value::Null))
            }
            Self::Service => Cow::Owned(without_addresses(
                object.get("spec").unwrap_or(&Value::Null),
            )),
        }
    }

    /// Whether a pod of it can answer requests now. Of a Service that is its owner's affair.
    pub fn answers(self, object: &Value) -> bool {
        match self {
            Self::Deployment => readiness::number(object, "/status/readyReplicas") > 0,
            Self::DaemonSet => readiness::number(object, "/status/numberReady") > 0,
            Self::Service => true,
        }
    }

    /// Whether it runs no pods by intention.
    pub fn is_at_zero(self, object: &Value) -> bool {
        match self {
            Self::Deployment => readiness::replicas(object) == 0,
            Self::DaemonSet => object
                .pointer("/spec/template/spec/nodeSelector")
                .is_some_and(|selector| selector.get(SCALE_TO_ZERO).is_some()),
            Self::Service => false,
        }
    }

    /// How its roll-out stands.
    pub fn readiness(self, object: &Value, threshold: i64, times: &Times) -> Readiness {
        match self {
            Self::Deployment => readiness::deployment(object, threshold, times),
            Self::DaemonSet => readiness::daemon_set(object, threshold, times),
            Self::Service => Readiness::Ready,
        }
    }
}

/// A Service's spec without what the API server gives out.
fn without_addresses(spec: &Value) -> Value {
    let given = [
        "clusterIP",
        "clusterIPs",
        "healthCheckNodePort",
        "ipFamilies",
    ];
    let kept = |map: &Map<String, Value>, without: &[&str]| {
        let kept = map
            .iter()
            .filter(|(key, _)| !without.contains(&key.as_str()));
        kept.map(|(key, value)| (key.clone(), value.clone()))
            .collect::<Map<_, _>>()
    };
    let mut spec = spec
        .as_object()
        .map(|spec| kept(spec, &given))
        .unwrap_or_default();
    for port in spec
        .get_mut("ports")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        if let Some(map) = port.as_object() {
            *port = Value::Object(kept(map, &["nodePort"]));
        }
    }
    Value::Object(spec)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn canary(api_version: &str, kind: &str) -> Canary {
        let mut canary = Canary::default();
        canary.spec.target_ref.api_version = api_version.to_owned();
        canary.spec.target_ref.kind = kind.to_owned();
        canary
    }

    #[test]
    fn a_knative_service_is_not_a_service() {
        assert_eq!(
            TargetKind::of(&canary("v1", "Service")),
            Some(TargetKind::Service)
        );
        assert_eq!(
            TargetKind::of(&canary("serving.knative.dev/v1", "Service")),
            None
        );
        assert_eq!(TargetKind::of(&canary("apps/v1", "StatefulSet")), None);
    }

    #[test]
    fn an_address_that_the_api_server_gave_out_is_no_new_version() {
        let version = |spec: Value| {
            TargetKind::Service
                .version(&json!({"spec": spec}))
                .into_owned()
        };
        let before = version(json!({"selector": {"app": "blue"}, "ports": [{"port": 80}]}));
        let after = version(
            json!({"selector": {"app": "blue"}, "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"],
            "ipFamilies": ["IPv4"], "healthCheckNodePort": 1, "ports": [{"port": 80, "nodePort": 30000}]}),
        );
        assert_eq!(before, after);
        assert_ne!(before, version(json!({"selector": {"app": "green"}})));
    }

    #[test]
    fn a_daemon_set_whose_pods_match_no_node_is_at_zero() {
        let zero =
            json!({"spec": {"template": {"spec": {"nodeSelector": {SCALE_TO_ZERO: "true"}}}}});
        assert!(TargetKind::DaemonSet.is_at_zero(&zero));
        assert!(!TargetKind::DaemonSet.is_at_zero(&json!({"spec": {"template": {"spec": {}}}})));
    }
}
