//! Writes to the cluster as values. A write is complete and conditional on the observed object.

use serde_json::Value;

/// The kinds of objects that we read or write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `apps/v1`
    Deployment,
    /// `apps/v1`
    DaemonSet,
    /// `v1`
    Service,
    /// `v1`
    ConfigMap,
    /// `v1`
    Secret,
    /// `autoscaling/v2`
    HorizontalPodAutoscaler,
    /// `keda.sh/v1alpha1`
    ScaledObject,
    /// `networking.istio.io/v1beta1`
    VirtualService,
    /// `networking.istio.io/v1beta1`
    DestinationRule,
    /// `gateway.networking.k8s.io/v1`
    HttpRoute,
    /// `gateway.networking.k8s.io/v1beta1`
    HttpRouteV1Beta1,
    /// `networking.k8s.io/v1`
    Ingress,
    /// `projectcontour.io/v1`
    HttpProxy,
    /// `split.smi-spec.io/v1alpha1`
    TrafficSplitV1Alpha1,
    /// `split.smi-spec.io/v1alpha2`
    TrafficSplitV1Alpha2,
    /// `split.smi-spec.io/v1alpha3`
    TrafficSplitV1Alpha3,
    /// `flagger.app/v1beta1`
    Canary,
    /// `flagger.app/v1beta1`
    MetricTemplate,
    /// `flagger.app/v1beta1`
    AlertProvider,
}

impl Kind {
    /// Its name as in `kind:` of a manifest.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Deployment => "Deployment",
            Self::DaemonSet => "DaemonSet",
            Self::Service => "Service",
            Self::ConfigMap => "ConfigMap",
            Self::Secret => "Secret",
            Self::HorizontalPodAutoscaler => "HorizontalPodAutoscaler",
            Self::ScaledObject => "ScaledObject",
            Self::VirtualService => "VirtualService",
            Self::DestinationRule => "DestinationRule",
            Self::HttpRoute | Self::HttpRouteV1Beta1 => "HTTPRoute",
            Self::Ingress => "Ingress",
            Self::HttpProxy => "HTTPProxy",
            Self::TrafficSplitV1Alpha1
            | Self::TrafficSplitV1Alpha2
            | Self::TrafficSplitV1Alpha3 => "TrafficSplit",
            Self::Canary => "Canary",
            Self::MetricTemplate => "MetricTemplate",
            Self::AlertProvider => "AlertProvider",
        }
    }

    /// Its group (empty for the core group) and version.
    pub const fn group_version(self) -> (&'static str, &'static str) {
        match self {
            Self::Deployment | Self::DaemonSet => ("apps", "v1"),
            Self::Service | Self::ConfigMap | Self::Secret => ("", "v1"),
            Self::HorizontalPodAutoscaler => ("autoscaling", "v2"),
            Self::ScaledObject => ("keda.sh", "v1alpha1"),
            Self::VirtualService | Self::DestinationRule => ("networking.istio.io", "v1beta1"),
            Self::HttpRoute => ("gateway.networking.k8s.io", "v1"),
            Self::HttpRouteV1Beta1 => ("gateway.networking.k8s.io", "v1beta1"),
            Self::Ingress => ("networking.k8s.io", "v1"),
            Self::HttpProxy => ("projectcontour.io", "v1"),
            Self::TrafficSplitV1Alpha1 => ("split.smi-spec.io", "v1alpha1"),
            Self::TrafficSplitV1Alpha2 => ("split.smi-spec.io", "v1alpha2"),
            Self::TrafficSplitV1Alpha3 => ("split.smi-spec.io", "v1alpha3"),
            Self::Canary | Self::MetricTemplate | Self::AlertProvider => ("flagger.app", "v1beta1"),
        }
    }

    /// `apiVersion:` of a manifest.
    pub fn api_version(self) -> String {
        match self.group_version() {
            ("", version) => version.to_owned(),
            (group, version) => format!("{group}/{version}"),
        }
    }

    /// The resource in API paths and RBAC rules.
    pub const fn plural(self) -> &'static str {
        match self {
            Self::Deployment => "deployments",
            Self::DaemonSet => "daemonsets",
            Self::Service => "services",
            Self::ConfigMap => "configmaps",
            Self::Secret => "secrets",
            Self::HorizontalPodAutoscaler => "horizontalpodautoscalers",
            Self::ScaledObject => "scaledobjects",
            Self::VirtualService => "virtualservices",
            Self::DestinationRule => "destinationrules",
            Self::HttpRoute | Self::HttpRouteV1Beta1 => "httproutes",
            Self::Ingress => "ingresses",
            Self::HttpProxy => "httpproxies",
            Self::TrafficSplitV1Alpha1
            | Self::TrafficSplitV1Alpha2
            | Self::TrafficSplitV1Alpha3 => "trafficsplits",
            Self::Canary => "canaries",
            Self::MetricTemplate => "metrictemplates",
            Self::AlertProvider => "alertproviders",
        }
    }
}

/// Which object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectRef {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub struct Write {
    /// The object to write.
    pub object: ObjectRef,
    /// The form of the write.
    pub action: Action,
    /// The text before the API server's message when the write is refused, in Flagger's wording (`VirtualService podinfo.test update
    /// error: `). If it contains `…`, the message goes there.
    pub failure: String,
}

impl Write {
    /// The text of the Warning event when the API server refuses the write with this message.
    pub fn refusal(&self, message: &str) -> String {
        match self.failure.split_once('…') {
            Some((before, after)) => format!("{before}{message}{after}"),
            None => format!("{}{message}", self.failure),
        }
    }
}

/// The forms of a write. Each fails if the object has changed since it was observed.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// POST of the complete object. It fails if the object exists.
    Create(Value),
    /// PUT of the object, which was read in full, with our part changed. It fails unless the object still has the `resourceVersion` that
    /// it carries.
    Replace(Value),
    /// A JSON Patch for objects whose status changes often. It begins with `test` operations on `/metadata/uid` and
    /// `/metadata/generation`, so a change of the status does not make it fail.
    Patch(Value),
}
