//! A change to the cluster as a value: complete, conditional on what was observed, with nothing left to choose.

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
    /// What is written.
    pub object: ObjectRef,
    /// How.
    pub action: Action,
    /// What a user reads before the API server's own words when the write is refused
    /// (`VirtualService podinfo.test update error: `), in Flagger's wording. Where it has a `…`, the words go there.
    pub failure: String,
}

impl Write {
    /// What a user reads when the write is refused with these words.
    pub fn refusal(&self, message: &str) -> String {
        match self.failure.split_once('…') {
            Some((before, after)) => format!("{before}{message}{after}"),
            None => format!("{}{message}", self.failure),
        }
    }
}

/// The forms of a write; each loses against a change that we did not see.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// POST of the complete object; loses if it exists.
    Create(Value),
    /// PUT of the object as it was read whole, with our part changed; loses unless it still has the `resourceVersion` it carries.
    Replace(Value),
    /// A JSON Patch for objects whose status churns: begins with `test` of `/metadata/uid` and `/metadata/generation`.
    Patch(Value),
}
