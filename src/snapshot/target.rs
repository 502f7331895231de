//! The kinds of workloads that can be released: how to read the version, the pods and the readiness of each.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::{
    Kind, Progress, Readiness, knative,
    readiness::{self, Times},
};
use crate::api::canary::Canary;

/// The key of a node selector that matches no node. It scales a DaemonSet to zero, which has no replicas to set (as Flagger does).
pub const SCALE_TO_ZERO: &str = "flagger.app/scale-to-zero";

/// The kinds of workloads that can be released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetKind {
    /// `apps/v1` Deployment, with or without an autoscaler.
    Deployment,
    /// `apps/v1` DaemonSet.
    DaemonSet,
    /// A core Service. Its pods are not managed by the operator.
    Service,
    /// A Knative Service. Its workloads are Revisions, which Knative makes and scales.
    Knative,
}

impl TargetKind {
    /// The kind of a Canary's target; `None` if this version does not support it.
    pub fn of(canary: &Canary) -> Option<Self> {
        let target = &canary.spec.target_ref;
        match target.kind.as_str() {
            "Deployment" => Some(Self::Deployment),
            "DaemonSet" => Some(Self::DaemonSet),
            "Service" if target.api_version == "serving.knative.dev/v1" => Some(Self::Knative),
            "Service" if !target.api_version.starts_with("serving.knative.dev/") => {
                Some(Self::Service)
            }
            _ => None,
        }
    }

    /// The kind of the object.
    pub const fn kind(self) -> Kind {
        match self {
            Self::Deployment => Kind::Deployment,
            Self::DaemonSet => Kind::DaemonSet,
            Self::Service => Kind::Service,
            Self::Knative => Kind::KnativeService,
        }
    }

    /// The kind of the workloads with the pods of both versions.
    pub const fn workload(self) -> Kind {
        match self {
            Self::Knative => Kind::KnativeRevision,
            kind => kind.kind(),
        }
    }

    /// Whether the operator manages the pods of this kind. Such a workload has a template and can be scaled to zero.
    pub const fn has_pods(self) -> bool {
        match self {
            Self::Deployment | Self::DaemonSet => true,
            Self::Service | Self::Knative => false,
        }
    }

    /// The part of a workload that makes a version: a change of it is a new revision. For Knative, it is the name of a Revision, or of the
    /// latest Revision of a Service.
    pub fn version(self, object: &Value) -> Cow<'_, Value> {
        match self {
            Self::Deployment | Self::DaemonSet => {
                Cow::Borrowed(object.pointer("/spec/template").unwrap_or(&Value::Null))
            }
            Self::Service => Cow::Owned(without_addresses(
                object.get("spec").unwrap_or(&Value::Null),
            )),
            Self::Knative => {
                let name = object.pointer("/metadata/name").and_then(Value::as_str);
                Cow::Owned(Value::from(knative::latest(object).or(name)))
            }
        }
    }

    /// Whether at least one pod is ready. A Service counts as ready: its owner is responsible for its pods.
    pub fn has_ready_pods(self, object: &Value) -> bool {
        match self {
            Self::Deployment => readiness::number(object, "/status/readyReplicas") > 0,
            Self::DaemonSet => readiness::number(object, "/status/numberReady") > 0,
            Self::Service => true,
            Self::Knative => knative::is_ready(object),
        }
    }

    /// Whether the workload is scaled to zero.
    pub fn is_at_zero(self, object: &Value) -> bool {
        match self {
            Self::Deployment => readiness::replicas(object) == 0,
            Self::DaemonSet => object
                .pointer("/spec/template/spec/nodeSelector")
                .is_some_and(|selector| selector.get(SCALE_TO_ZERO).is_some()),
            Self::Service | Self::Knative => false,
        }
    }

    /// How far the workload's rollout has come.
    pub fn progress(self, object: &Value) -> Progress {
        let number = |pointer| readiness::number(object, pointer);
        let pods = match self {
            Self::Deployment => {
                let updated = number("/status/updatedReplicas");
                let old = number("/status/replicas") - updated;
                updated + number("/status/availableReplicas") - old
            }
            Self::DaemonSet => {
                number("/status/updatedNumberScheduled") + number("/status/numberAvailable")
            }
            Self::Service | Self::Knative => 0,
        };
        // A Deployment's revision changes with its template only, not when an autoscaler sets its replicas.
        let revision = object.pointer("/metadata/annotations/deployment.kubernetes.io~1revision");
        let revision = revision.and_then(|revision| revision.as_str()?.parse().ok());
        Progress {
            rollout: revision.unwrap_or_else(|| number("/metadata/generation")),
            pods,
        }
    }

    /// The state of the workload's rollout. `threshold` is the percentage of pods that must be available.
    pub fn readiness(self, object: &Value, threshold: i64, times: &Times) -> Readiness {
        match self {
            Self::Deployment => readiness::deployment(object, threshold, times),
            Self::DaemonSet => readiness::daemon_set(object, threshold, times),
            Self::Service => Readiness::Ready,
            Self::Knative => knative::readiness(object, times),
        }
    }
}

/// A Service's spec without the fields that the API server allocates.
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
            Some(TargetKind::Knative)
        );
        assert_eq!(
            TargetKind::of(&canary("serving.knative.dev/v1beta1", "Service")),
            None
        );
        assert_eq!(TargetKind::of(&canary("apps/v1", "StatefulSet")), None);
    }

    #[test]
    fn a_field_that_the_api_server_allocates_makes_no_new_version() {
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
