//! The kinds that the model serves, and their differences.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};

use flagger_rs::snapshot::Kind;

use super::{
    invariants::KNATIVE_SERVICES,
    rig::NAMESPACE,
    routers::{ROUTERS, SOURCE, renamed, sources},
};

/// The changes that raise `metadata.generation`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generation {
    /// The kind has none.
    None,
    /// A change of `spec`.
    Spec,
    /// A change of `spec` or of the annotations: Deployments only.
    SpecAndAnnotations,
}

/// One kind, in all the versions in which it is served.
#[derive(Debug)]
pub struct Resource {
    /// Empty for the core group.
    pub group: &'static str,
    /// The first one is the stored version.
    pub versions: &'static [&'static str],
    /// Each resource has its own: that of Knative Services is [`KNATIVE_SERVICES`].
    pub plural: &'static str,
    pub kind: &'static str,
    /// Whether a CRD defines it. Built-in kinds are decoded into types; custom kinds are stored as they were sent.
    pub custom: bool,
    /// Whether it has a status subresource.
    pub status: bool,
    pub generation: Generation,
    /// Whether its objects are in no namespace.
    pub of_cluster: bool,
    /// Whether a PUT may leave out the resourceVersion.
    pub unconditional: bool,
    /// Whether a PUT creates a missing object.
    pub put_creates: bool,
    /// Whether a DELETE answers with the object, instead of with a Status.
    pub returns_deleted: bool,
}

const CORE: Resource = Resource {
    group: "",
    versions: &["v1"],
    plural: "",
    kind: "",
    custom: false,
    status: false,
    generation: Generation::None,
    of_cluster: false,
    unconditional: true,
    put_creates: false,
    returns_deleted: false,
};

const APPS: Resource = Resource {
    group: "apps",
    status: true,
    generation: Generation::Spec,
    ..CORE
};

const CUSTOM: Resource = Resource {
    custom: true,
    status: true,
    generation: Generation::Spec,
    unconditional: false,
    ..CORE
};

const FLAGGER: Resource = Resource {
    group: "flagger.app",
    versions: &["v1beta1"],
    ..CUSTOM
};

const ISTIO: Resource = Resource {
    group: "networking.istio.io",
    versions: &["v1", "v1beta1", "v1alpha3"],
    ..CUSTOM
};

const KNATIVE: Resource = Resource {
    group: "serving.knative.dev",
    versions: &["v1"],
    ..CUSTOM
};

/// All of them.
pub static RESOURCES: LazyLock<Vec<Resource>> = LazyLock::new(|| {
    let kinds = ROUTERS
        .iter()
        .flat_map(|row| row.objects)
        .map(|(kind, _)| *kind);
    let is_usual = |kind: &Kind| {
        let mut all = UNUSUAL.iter();
        kind.group_version().0 != "appmesh.k8s.aws"
            && all.all(|other| other.path() != kind.plural())
    };
    let usual: BTreeSet<_> = kinds.filter(is_usual).collect();
    let usual = usual.into_iter().map(|kind| Resource {
        group: kind.group_version().0,
        versions: vec![kind.group_version().1].leak(),
        plural: kind.plural(),
        kind: kind.name(),
        ..CUSTOM
    });
    UNUSUAL.into_iter().chain(usual).collect()
});

/// The names of the objects that routers use, by the plural of their kind.
static OF_ROUTERS: LazyLock<BTreeMap<&str, BTreeSet<&str>>> = LazyLock::new(|| {
    let sources = sources().into_iter().map(|source| (source.kind, SOURCE));
    let objects = ROUTERS.iter().flat_map(|row| row.objects).copied();
    let mut names = BTreeMap::<_, BTreeSet<_>>::new();
    for (kind, name) in objects.chain(sources) {
        if let Some(served) = Resource::at(kind.group_version().0, kind.plural()) {
            let name = renamed(name, ["podinfo", NAMESPACE, SOURCE, "9898"]);
            names
                .entry(served.plural)
                .or_default()
                .insert(&*name.leak());
        }
    }
    names
});

/// The names of the objects of this kind that routers use.
pub fn names_of_routers(plural: &str) -> Vec<&'static str> {
    let names = OF_ROUTERS.get(plural).into_iter();
    names.flatten().copied().collect()
}

/// All but the kinds of routers that are one version of a CRD with a status subresource.
const UNUSUAL: [Resource; 28] = [
    Resource {
        plural: "configmaps",
        kind: "ConfigMap",
        ..CORE
    },
    Resource {
        plural: "secrets",
        kind: "Secret",
        ..CORE
    },
    Resource {
        plural: "services",
        kind: "Service",
        status: true,
        put_creates: true,
        returns_deleted: true,
        ..CORE
    },
    Resource {
        plural: "events",
        kind: "Event",
        put_creates: true,
        ..CORE
    },
    Resource {
        plural: "deployments",
        kind: "Deployment",
        generation: Generation::SpecAndAnnotations,
        ..APPS
    },
    Resource {
        plural: "daemonsets",
        kind: "DaemonSet",
        ..APPS
    },
    Resource {
        plural: "replicasets",
        kind: "ReplicaSet",
        ..APPS
    },
    Resource {
        group: "apps",
        plural: "controllerrevisions",
        kind: "ControllerRevision",
        ..CORE
    },
    Resource {
        group: "autoscaling",
        versions: &["v2"],
        plural: "horizontalpodautoscalers",
        kind: "HorizontalPodAutoscaler",
        status: true,
        ..CORE
    },
    Resource {
        group: "coordination.k8s.io",
        plural: "leases",
        kind: "Lease",
        unconditional: false,
        put_creates: true,
        ..CORE
    },
    Resource {
        plural: "canaries",
        kind: "Canary",
        ..FLAGGER
    },
    Resource {
        plural: "metrictemplates",
        kind: "MetricTemplate",
        ..FLAGGER
    },
    Resource {
        plural: "alertproviders",
        kind: "AlertProvider",
        ..FLAGGER
    },
    Resource {
        group: "flagger-rs.github.io",
        versions: &["v1alpha1"],
        plural: "releases",
        kind: "Release",
        status: false,
        ..CUSTOM
    },
    Resource {
        plural: "virtualservices",
        kind: "VirtualService",
        ..ISTIO
    },
    Resource {
        plural: "destinationrules",
        kind: "DestinationRule",
        ..ISTIO
    },
    Resource {
        group: "gateway.networking.k8s.io",
        versions: &["v1", "v1beta1"],
        plural: "httproutes",
        kind: "HTTPRoute",
        ..CUSTOM
    },
    Resource {
        group: "gateway.networking.k8s.io",
        versions: &["v1"],
        plural: "grpcroutes",
        kind: "GRPCRoute",
        ..CUSTOM
    },
    Resource {
        group: "gateway.networking.k8s.io",
        versions: &["v1"],
        plural: "tlsroutes",
        kind: "TLSRoute",
        ..CUSTOM
    },
    Resource {
        group: "gateway.networking.k8s.io",
        versions: &["v1"],
        plural: "tcproutes",
        kind: "TCPRoute",
        ..CUSTOM
    },
    Resource {
        group: "projectcontour.io",
        versions: &["v1"],
        plural: "httpproxies",
        kind: "HTTPProxy",
        ..CUSTOM
    },
    Resource {
        group: "networking.k8s.io",
        plural: "ingresses",
        kind: "Ingress",
        ..APPS
    },
    Resource {
        group: "split.smi-spec.io",
        versions: &["v1alpha3", "v1alpha2", "v1alpha1"],
        plural: "trafficsplits",
        kind: "TrafficSplit",
        status: false,
        ..CUSTOM
    },
    Resource {
        group: "traefik.io",
        versions: &["v1alpha1"],
        plural: "traefikservices",
        kind: "TraefikService",
        status: false,
        ..CUSTOM
    },
    Resource {
        group: "kuma.io",
        versions: &["v1alpha1"],
        plural: "trafficroutes",
        kind: "TrafficRoute",
        status: false,
        of_cluster: true,
        ..CUSTOM
    },
    Resource {
        plural: KNATIVE_SERVICES,
        kind: "Service",
        ..KNATIVE
    },
    Resource {
        plural: "revisions",
        kind: "Revision",
        ..KNATIVE
    },
    Resource {
        group: "keda.sh",
        versions: &["v1alpha1"],
        plural: "scaledobjects",
        kind: "ScaledObject",
        ..CUSTOM
    },
];

impl Resource {
    /// The resource of a plural.
    pub fn of(plural: &str) -> Option<&'static Self> {
        RESOURCES.iter().find(|resource| resource.plural == plural)
    }

    /// The resource with this plural in the paths of a group.
    pub fn at(group: &str, path: &str) -> Option<&'static Self> {
        { RESOURCES.iter() }.find(|resource| resource.group == group && resource.path() == path)
    }

    /// The plural in paths and messages.
    pub fn path(&self) -> &'static str {
        if self.plural == KNATIVE_SERVICES {
            "services"
        } else {
            self.plural
        }
    }

    /// The name in messages, for example `deployments.apps`.
    pub fn qualified(&self) -> String {
        if self.group.is_empty() {
            self.path().to_owned()
        } else {
            format!("{}.{}", self.path(), self.group)
        }
    }

    /// The `apiVersion` for one of its versions.
    pub fn api_version(&self, version: &str) -> String {
        if self.group.is_empty() {
            version.to_owned()
        } else {
            format!("{}/{version}", self.group)
        }
    }
}
