//! The input of a decision: one snapshot of the cluster as far as one canary is concerned; and the values that describe writes and
//! outside calls.

pub mod cadence;
pub mod clock_skew;
pub mod excerpt;
pub mod go;
pub mod hosts;
pub mod http;
pub mod knative;
pub mod object;
pub mod pods;
pub mod readiness;
pub mod redact;
pub mod references;
pub mod revision;
pub mod route_references;
pub mod secret;
pub mod shard;
pub mod step;
pub mod target;
pub mod weights;
pub mod write;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, LazyLock},
};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::Value;

pub use cadence::{Changed, Tick, last_tick, whole_second_after};
pub use clock_skew::FutureTimes;
pub use excerpt::excerpt;
pub use hosts::{Destinations, HostList};
pub use http::{Failure, HttpRequest, HttpResponse, LONGEST_BODY, Method, Origin};
pub use object::{Kind, ObjectRef};
pub use pods::Pods;
pub use readiness::{Progress, Readiness};
pub use redact::redacted;
pub use references::OtherNamespaces;
pub use secret::Secret;
pub use shard::Shard;
pub use step::Step;
pub use target::TargetKind;
pub use weights::Weights;
pub use write::{Action, RefusedWrite, Write};

use crate::api::canary::{Canary, CanaryPhase, CanaryStatus};

/// The canaries that an operator reconciles.
#[derive(Clone, Debug, Default)]
pub struct Watched {
    /// `-namespace`: the only namespace; `None` means all.
    pub namespace: Option<String>,
    /// `-watch-label-selector`: the labels; `None` means any.
    pub shard: Option<Shard>,
}

/// The flags that decisions depend on.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `-mesh-provider`: the provider of canaries that name none.
    pub mesh_provider: String,
    /// `-ingress-annotations-prefix`: the prefix of the annotations that ingress-nginx reads.
    pub ingress_annotations_prefix: String,
    /// `-ingress-class`: the class of Contour's HTTPProxies; empty for none.
    pub ingress_class: String,
    /// `-metrics-server`: the address of the metric server for canaries that name none.
    pub metrics_server: String,
    /// `-selector-labels`, in order of preference.
    pub selector_labels: Vec<String>,
    /// `-include-label-prefix`: the prefixes of the labels that are copied to the primary.
    pub include_label_prefix: Vec<String>,
    /// `-enable-config-tracking`: whether ConfigMaps and Secrets belong to a version.
    pub config_tracking: bool,
    /// `-no-cross-namespace-refs`: whether references to other namespaces are refused.
    pub no_cross_namespace_refs: bool,
    /// `-cluster-name`: the name of the cluster in every alert.
    pub cluster_name: String,
}

/// An older canary that claims an object of this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The older canary, as `NAME.NAMESPACE`.
    pub canary: String,
    /// The object: the target, if both have the same.
    pub object: ObjectRef,
}

/// Everything that a decision about one canary depends on.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The Canary.
    pub canary: Canary,
    /// The objects that were read and exist.
    pub objects: BTreeMap<ObjectRef, Value>,
    /// The pods of the Deployments and DaemonSets in the Canary's namespace, as far as their kind is watched.
    pub workloads: Arc<BTreeMap<ObjectRef, Pods>>,
    /// The objects that were read, whether they exist or not.
    pub seen: BTreeSet<ObjectRef>,
    /// When the snapshot was taken.
    pub now: Timestamp,
    /// The tick of the current step; `None` between two ticks.
    pub tick: Option<Tick>,
    /// When the target and its configs changed, if they differ from the status.
    pub changed: Option<Changed>,
    /// For each workload that lacks pods, the time since which it has got no further pod, and for the Canary, the time since which it waits
    /// for its routes. Only times since the start of this process count.
    pub stalled: BTreeMap<ObjectRef, Timestamp>,
    /// The objects that were written since the last tick, or whose write was refused. No repair writes them again before the next tick.
    pub recently_written: BTreeSet<ObjectRef>,
    /// The write that the API server refused last, unless one of the same object has succeeded since.
    pub refused: Option<RefusedWrite>,
    /// The contents ([`Write::content`]) that another actor undoes again and again. They are not written now.
    pub paused: BTreeMap<ObjectRef, u64>,
    /// The objects that another actor has changed back since the operator wrote them, and the time of the first such change.
    pub undone: BTreeMap<ObjectRef, Timestamp>,
    /// The routes of the user that the API server does not let the operator read, with its reason.
    pub forbidden: BTreeMap<ObjectRef, String>,
    /// The older canary that claims an object of this one.
    pub conflicting_canary: Option<Conflict>,
    /// How long after a tick the step begins. It spreads the steps of canaries that began together.
    pub jitter: SignedDuration,
    /// A random number, the source of all random values of this decision.
    pub nonce: u64,
    /// The flags.
    pub settings: Arc<Settings>,
}

impl Settings {
    /// Whether references to other namespaces are followed.
    pub const fn other_namespaces(&self) -> OtherNamespaces {
        OtherNamespaces::of_flag(self.no_cross_namespace_refs)
    }
}

impl Snapshot {
    /// Whether references to other namespaces are followed.
    pub fn other_namespaces(&self) -> OtherNamespaces {
        self.settings.other_namespaces()
    }

    /// Whether the progress deadline has passed since a time in the status; true if there is no such time.
    pub fn exceeds_deadline(&self, since: Option<&Time>) -> bool {
        let wait = SignedDuration::from_secs(self.canary.progress_deadline_seconds());
        let end = since.and_then(|since| since.0.checked_add(wait).ok());
        end.is_none_or(|end| end <= self.now)
    }

    /// The object of this kind and name in the Canary's namespace, if it exists.
    pub fn object(&self, kind: Kind, name: &str) -> Option<&Value> {
        self.objects.get(&self.reference(kind, name))
    }

    /// The reference to an object in the Canary's namespace, or to one that is in none.
    pub fn reference(&self, kind: Kind, name: &str) -> ObjectRef {
        kind.reference(self.namespace(), name)
    }

    /// Whether another actor undoes this write again and again, so that it is not repeated now.
    pub fn is_paused(&self, write: &Write) -> bool {
        self.paused.get(&write.object) == Some(&write.content())
    }

    /// Whether a write that nothing depends on is left out now, because it was made or refused since the last tick, or is paused.
    pub fn leaves_out(&self, write: &Write) -> bool {
        self.recently_written.contains(&write.object) || self.is_paused(write)
    }

    /// The Canary's name.
    pub fn name(&self) -> &str {
        self.canary.metadata.name.as_deref().unwrap_or_default()
    }

    /// The Canary's namespace.
    pub fn namespace(&self) -> &str {
        self.canary
            .metadata
            .namespace
            .as_deref()
            .unwrap_or_default()
    }

    /// The Canary's status; an empty one if it has none yet.
    pub fn status(&self) -> &CanaryStatus {
        static EMPTY: LazyLock<CanaryStatus> = LazyLock::new(CanaryStatus::default);
        self.canary.status.as_ref().unwrap_or(&EMPTY)
    }

    /// The Canary's phase; `New` if it has no status.
    pub fn phase(&self) -> CanaryPhase {
        self.status().phase
    }

    /// The step that is under way.
    pub fn step(&self) -> Step {
        Step::of(&self.canary, self.status(), self.tick)
    }

    /// The target, if it exists.
    pub fn target(&self) -> Option<&Value> {
        let kind = TargetKind::of(&self.canary)?.kind();
        self.object(kind, &self.canary.spec.target_ref.name)
    }

    /// The primary, if it exists. If the target is a Knative Service, the primary is a Revision.
    pub fn primary(&self) -> Option<&Value> {
        self.objects.get(&self.primary_reference()?)
    }

    /// The workload that has the canary's pods, if it exists: the target, or the latest Revision of a Knative Service.
    pub fn canary_workload(&self) -> Option<&Value> {
        self.objects.get(&self.canary_reference()?)
    }

    /// The reference to the primary; `None` if a Knative Service has no Revision that was promoted.
    pub fn primary_reference(&self) -> Option<ObjectRef> {
        match TargetKind::of(&self.canary)? {
            TargetKind::Knative => self.revision(knative::primary),
            kind => Some(self.reference(kind.kind(), &self.canary.primary_workload_name())),
        }
    }

    /// The reference to the workload that has the canary's pods; `None` if a Knative Service has no Revision yet.
    pub fn canary_reference(&self) -> Option<ObjectRef> {
        match TargetKind::of(&self.canary)? {
            TargetKind::Knative => self.revision(knative::latest),
            kind => Some(self.reference(kind.kind(), &self.canary.spec.target_ref.name)),
        }
    }

    fn revision(&self, of: fn(&Value) -> Option<&str>) -> Option<ObjectRef> {
        let name = of(self.target()?)?;
        Some(self.reference(Kind::KnativeRevision, name))
    }

    /// Whether the workload with the canary's pods has at least one ready pod.
    pub fn canary_has_ready_pods(&self) -> bool {
        self.has_ready_pods(self.canary_workload())
    }

    /// Whether the primary has at least one ready pod.
    pub fn primary_has_ready_pods(&self) -> bool {
        self.has_ready_pods(self.primary())
    }

    fn has_ready_pods(&self, workload: Option<&Value>) -> bool {
        let kind = TargetKind::of(&self.canary);
        kind.zip(workload)
            .is_some_and(|(kind, workload)| kind.has_ready_pods(workload))
    }

    /// `NAME.NAMESPACE` of the Canary, as messages show it.
    pub fn full_name(&self) -> String {
        format!("{}.{}", self.name(), self.namespace())
    }

    /// `NAME.NAMESPACE` of the target, as messages show it.
    pub fn full_target(&self) -> String {
        format!("{}.{}", self.canary.spec.target_ref.name, self.namespace())
    }
}

#[cfg(test)]
mod tests;
