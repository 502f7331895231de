//! The kinds of objects that the operator reads or writes, and the reference to one object.
//!
//! A new kind is a row in the table of [`Kind`] (and a rule in `kustomize/base/flagger/account.yaml`, for routes
//! in `kustomize/base/routers`).

/// The verbs for objects that are read once, when they are needed.
const READ: &[&str] = &["get"];
/// The verbs for objects that are listed once, when they are needed.
const LIST: &[&str] = &["list"];
/// The verbs for objects of the user that the operator watches and never writes.
const WATCH: &[&str] = &["get", "list", "watch"];
/// The verbs for objects of the user that the operator changes and does not create.
const CHANGE: &[&str] = &["get", "list", "watch", "update"];
/// The verbs for routes that the operator creates and replaces, or in which it sets weights if they are the user's.
const ROUTE: &[&str] = &["get", "list", "watch", "create", "update", "patch"];
/// The verbs for workloads. They are patched because their status changes all the time.
const PATCH: &[&str] = &["get", "list", "watch", "create", "patch"];
/// The verbs for the records of releases.
const RECORD: &[&str] = &["list", "create", "patch", "delete"];
/// The verbs for objects that the operator creates and replaces.
const REPLACE: &[&str] = &["get", "list", "watch", "create", "update"];

/// Declares [`Kind`] from its table. The columns are: variant, `kind` of a manifest, group (empty for the core group), version, plural
/// (the resource in API paths and RBAC rules), verbs that the operator needs.
macro_rules! kinds {
    ($($variant:ident, $name:literal, $group:literal, $version:literal, $plural:literal, $verbs:ident;)+) => {
        /// A kind of object that the operator reads or writes. Each version of a kind that the operator uses has a variant.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Kind {
            $(#[doc = concat!("`", $name, "`, version `", $version, "`.")] $variant,)+
        }

        impl Kind {
            /// All kinds, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            const fn row(self) -> Row {
                match self {
                    $(Self::$variant => Row {
                        name: $name,
                        group: $group,
                        version: $version,
                        plural: $plural,
                        verbs: $verbs,
                    },)+
                }
            }
        }
    };
}

kinds! {
    Deployment,              "Deployment",              "apps",                      "v1",       "deployments",              PATCH;
    DaemonSet,               "DaemonSet",               "apps",                      "v1",       "daemonsets",               PATCH;
    ReplicaSet,              "ReplicaSet",              "apps",                      "v1",       "replicasets",              LIST;
    ControllerRevision,      "ControllerRevision",      "apps",                      "v1",       "controllerrevisions",      LIST;
    Pod,                     "Pod",                     "",                          "v1",       "pods",                     LIST;
    Service,                 "Service",                 "",                          "v1",       "services",                 REPLACE;
    ConfigMap,               "ConfigMap",               "",                          "v1",       "configmaps",               REPLACE;
    Secret,                  "Secret",                  "",                          "v1",       "secrets",                  REPLACE;
    HorizontalPodAutoscaler, "HorizontalPodAutoscaler", "autoscaling",               "v2",       "horizontalpodautoscalers", REPLACE;
    ScaledObject,            "ScaledObject",            "keda.sh",                   "v1alpha1", "scaledobjects",            REPLACE;
    VirtualService,          "VirtualService",          "networking.istio.io",       "v1beta1",  "virtualservices",          ROUTE;
    DestinationRule,         "DestinationRule",         "networking.istio.io",       "v1beta1",  "destinationrules",         REPLACE;
    HttpRoute,               "HTTPRoute",               "gateway.networking.k8s.io", "v1",       "httproutes",               ROUTE;
    GrpcRoute,               "GRPCRoute",               "gateway.networking.k8s.io", "v1",       "grpcroutes",               ROUTE;
    TlsRoute,                "TLSRoute",                "gateway.networking.k8s.io", "v1",       "tlsroutes",                ROUTE;
    TcpRoute,                "TCPRoute",                "gateway.networking.k8s.io", "v1",       "tcproutes",                ROUTE;
    HttpRouteV1Beta1,        "HTTPRoute",               "gateway.networking.k8s.io", "v1beta1",  "httproutes",               REPLACE;
    Ingress,                 "Ingress",                 "networking.k8s.io",         "v1",       "ingresses",                REPLACE;
    HttpProxy,               "HTTPProxy",               "projectcontour.io",         "v1",       "httpproxies",              REPLACE;
    ApisixRoute,             "ApisixRoute",             "apisix.apache.org",         "v2",       "apisixroutes",             REPLACE;
    AppMeshNodeV1Beta1,      "VirtualNode",             "appmesh.k8s.aws",           "v1beta1",  "virtualnodes",             REPLACE;
    AppMeshServiceV1Beta1,   "VirtualService",          "appmesh.k8s.aws",           "v1beta1",  "virtualservices",          REPLACE;
    AppMeshNode,             "VirtualNode",             "appmesh.k8s.aws",           "v1beta2",  "virtualnodes",             REPLACE;
    AppMeshRouter,           "VirtualRouter",           "appmesh.k8s.aws",           "v1beta2",  "virtualrouters",           REPLACE;
    AppMeshService,          "VirtualService",          "appmesh.k8s.aws",           "v1beta2",  "virtualservices",          REPLACE;
    TrafficRoute,            "TrafficRoute",            "kuma.io",                   "v1alpha1", "trafficroutes",            REPLACE;
    KnativeService,          "Service",                 "serving.knative.dev",       "v1",       "services",                 CHANGE;
    KnativeRevision,         "Revision",                "serving.knative.dev",       "v1",       "revisions",                WATCH;
    TraefikService,          "TraefikService",          "traefik.io",                "v1alpha1", "traefikservices",          REPLACE;
    GlooRouteTable,          "RouteTable",              "gateway.solo.io",           "v1",       "routetables",              REPLACE;
    GlooUpstream,            "Upstream",                "gloo.solo.io",              "v1",       "upstreams",                REPLACE;
    TrafficSplitV1Alpha1,    "TrafficSplit",            "split.smi-spec.io",         "v1alpha1", "trafficsplits",            REPLACE;
    TrafficSplitV1Alpha2,    "TrafficSplit",            "split.smi-spec.io",         "v1alpha2", "trafficsplits",            REPLACE;
    TrafficSplitV1Alpha3,    "TrafficSplit",            "split.smi-spec.io",         "v1alpha3", "trafficsplits",            REPLACE;
    Canary,                  "Canary",                  "flagger.app",               "v1beta1",  "canaries",                 WATCH;
    MetricTemplate,          "MetricTemplate",          "flagger.app",               "v1beta1",  "metrictemplates",          WATCH;
    AlertProvider,           "AlertProvider",           "flagger.app",               "v1beta1",  "alertproviders",           READ;
    Release,                 "Release",                 "flagger-rs.github.io",      "v1alpha1", "releases",                 RECORD;
}

/// A row of the table.
struct Row {
    name: &'static str,
    group: &'static str,
    version: &'static str,
    plural: &'static str,
    verbs: &'static [&'static str],
}

impl Kind {
    /// The name, as in `kind:` of a manifest.
    pub const fn name(self) -> &'static str {
        self.row().name
    }

    /// The group (empty for the core group) and the version.
    pub const fn group_version(self) -> (&'static str, &'static str) {
        let Row { group, version, .. } = self.row();
        (group, version)
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
        self.row().plural
    }

    /// Whether objects of this kind are in no namespace. References to them have an empty namespace.
    pub const fn is_cluster_scoped(self) -> bool {
        matches!(self, Self::TrafficRoute)
    }

    /// The reference to an object of this kind with this name, for a canary in this namespace.
    pub fn reference(self, namespace: &str, name: &str) -> ObjectRef {
        let namespace = if self.is_cluster_scoped() {
            ""
        } else {
            namespace
        };
        ObjectRef {
            kind: self,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    /// The verbs of RBAC that the operator needs for objects that a canary refers to or owns.
    pub const fn verbs(self) -> &'static [&'static str] {
        self.row().verbs
    }
}

/// The reference to one object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectRef {
    /// The kind.
    pub kind: Kind,
    /// The namespace; empty if the kind is [cluster-scoped](Kind::is_cluster_scoped).
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl ObjectRef {
    /// Name and namespace, for messages.
    pub fn full_name(&self) -> String {
        match self.namespace.as_str() {
            "" => self.name.clone(),
            namespace => format!("{}.{namespace}", self.name),
        }
    }
}
