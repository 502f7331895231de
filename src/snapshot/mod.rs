//! The nouns we see: one snapshot of everything that a decision looks at, and the values that describe what to do.

pub mod http;
pub mod object;
pub mod readiness;
pub mod revision;
pub mod target;
pub mod weights;
pub mod write;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

pub use http::{Failure, HttpRequest, HttpResponse, Method, Secret};
pub use object::{Kind, ObjectRef};
pub use readiness::Readiness;
pub use target::TargetKind;
pub use weights::Weights;
pub use write::{Action, Write};

use crate::api::canary::{Canary, CanaryPhase};

/// JSON as Go's `encoding/json` writes it: `<`, `>`, `&` and two line separators are escaped.
pub fn go_escaped(json: &str) -> String {
    json.replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
        .replace('\u{2028}', "\\u2028")
        .replace('\u{2029}', "\\u2029")
}

/// What the operator was started with, as far as decisions depend on it.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `-mesh-provider`: for canaries that name none.
    pub mesh_provider: String,
    /// `-ingress-annotations-prefix`: of what ingress-nginx reads.
    pub ingress_annotations_prefix: String,
    /// `-ingress-class`: of Contour's HTTPProxies; empty for none.
    pub ingress_class: String,
    /// `-metrics-server`: for canaries that name none.
    pub metrics_server: String,
    /// `-selector-labels`, in order.
    pub selector_labels: Vec<String>,
    /// `-include-label-prefix`.
    pub include_label_prefix: Vec<String>,
    /// `-enable-config-tracking`.
    pub config_tracking: bool,
    /// `-no-cross-namespace-refs`.
    pub no_cross_namespace_refs: bool,
    /// `-cluster-name`: a field of every alert.
    pub cluster_name: String,
}

/// One snapshot of everything that a decision about one canary looks at.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The Canary as it is now.
    pub canary: Canary,
    /// The objects that exist, of those that were asked for.
    pub objects: BTreeMap<ObjectRef, Value>,
    /// The objects that were looked for, found or not.
    pub seen: BTreeSet<ObjectRef>,
    /// When this was observed.
    pub now: Timestamp,
    /// The instant that the step under way serves; `None` while no step is tick.
    pub tick: Option<Tick>,
    /// Since when the target and its configs are as they are, if they are not what the status says.
    pub changed: Option<Changed>,
    /// What was written since the last tick, or refused: it is not written again for the sake of repair before the next.
    pub recently_written: BTreeSet<ObjectRef>,
    /// The older canary that has the same target, if there is one.
    pub conflicting_canary: Option<String>,
    /// How long after a tick its step begins: so that not all begin in one breath.
    pub jitter: SignedDuration,
    /// A random number: what is made up in this look is made of it.
    pub nonce: u64,
    /// What the operator was started with.
    pub settings: Arc<Settings>,
}

/// An instant at which a step may be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tick {
    /// When; a multiple of the interval after `status.lastTransitionTime`, unless late.
    pub at: Timestamp,
    /// Whether the step had to wait beyond its instant for pods to become ready: then the cadence begins anew.
    pub late: bool,
}

/// When a difference from the status was first and last seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changed {
    /// When the target was first seen to differ.
    pub first: Timestamp,
    /// When it last changed again.
    pub last: Timestamp,
}

/// What answers belong to: a question asked in one step says nothing about another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    uid: String,
    applied: Option<String>,
    phase: CanaryPhase,
    weight: i64,
    iterations: i64,
    failed_checks: i64,
    tick: Option<Timestamp>,
    conditions: Vec<String>,
}

impl Step {
    /// The same at any tick.
    #[must_use]
    pub fn at_any_tick(self) -> Self {
        Self { tick: None, ..self }
    }
}

impl Snapshot {
    /// An object of the Canary's namespace.
    pub fn object(&self, kind: Kind, name: &str) -> Option<&Value> {
        self.objects.get(&self.reference(kind, name))
    }

    /// The name of an object of the Canary's namespace.
    pub fn reference(&self, kind: Kind, name: &str) -> ObjectRef {
        ObjectRef {
            kind,
            namespace: self.namespace().to_owned(),
            name: name.to_owned(),
        }
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

    /// The Canary's phase; `New` if it has no status.
    pub fn phase(&self) -> CanaryPhase {
        self.canary
            .status
            .as_ref()
            .map(|status| status.phase)
            .unwrap_or_default()
    }

    /// The step that answers given now belong to.
    pub fn step(&self) -> Step {
        let status = self.canary.status.clone().unwrap_or_default();
        let conditions = status.conditions.unwrap_or_default();
        let conditions: Vec<_> = conditions
            .into_iter()
            .map(|c| c.type_)
            .filter(|condition| condition != "Draining")
            .collect();
        // The end of a run is told once, however many ticks pass meanwhile.
        let is_notification_pending = conditions
            .iter()
            .any(|condition| condition == "NoticePending");
        Step {
            uid: self.canary.metadata.uid.clone().unwrap_or_default(),
            applied: status.last_applied_spec,
            phase: status.phase,
            weight: status.canary_weight,
            iterations: status.iterations,
            failed_checks: status.failed_checks,
            tick: self
                .tick
                .filter(|_| !is_notification_pending)
                .map(|tick| tick.at),
            conditions,
        }
    }

    /// The target, if it exists.
    pub fn target(&self) -> Option<&Value> {
        self.workload(&self.canary.spec.target_ref.name)
    }

    /// The primary, if it exists.
    pub fn primary(&self) -> Option<&Value> {
        self.workload(&self.canary.primary_workload_name())
    }

    fn workload(&self, name: &str) -> Option<&Value> {
        self.object(TargetKind::of(&self.canary)?.kind(), name)
    }

    /// Whether a pod of the target can answer requests.
    pub fn canary_has_ready_pods(&self) -> bool {
        self.answers(self.target())
    }

    /// Whether a pod of the primary can answer requests.
    pub fn primary_has_ready_pods(&self) -> bool {
        self.answers(self.primary())
    }

    fn answers(&self, workload: Option<&Value>) -> bool {
        let kind = TargetKind::of(&self.canary);
        kind.zip(workload)
            .is_some_and(|(kind, workload)| kind.answers(workload))
    }

    /// `NAME.NAMESPACE` of the Canary, as messages call it.
    pub fn full_name(&self) -> String {
        format!("{}.{}", self.name(), self.namespace())
    }

    /// `NAME.NAMESPACE` of the target, as messages call it.
    pub fn full_target(&self) -> String {
        format!("{}.{}", self.canary.spec.target_ref.name, self.namespace())
    }
}

/// The instants at which steps may be taken: `interval` apart, counted from the last transition that the status records,
/// so that neither a restart nor an unrelated write shortens the time that a version is watched for.
pub fn last_tick(transition: Timestamp, interval: Duration, now: Timestamp) -> Option<Timestamp> {
    let interval = i64::try_from(interval.as_nanos())
        .ok()
        .filter(|nanos| *nanos > 0)?;
    let elapsed = i64::try_from(now.as_nanosecond() - transition.as_nanosecond()).ok()?;
    let steps = elapsed.div_euclid(interval);
    (steps >= 1).then(|| {
        Timestamp::from_nanosecond(transition.as_nanosecond() + i128::from(steps * interval)).ok()
    })?
}

/// The first whole second not before an instant: the status has no finer times, and none may lie in the past.
pub fn whole_second_after(instant: Timestamp) -> Timestamp {
    let seconds = instant.as_second() + i64::from(instant.subsec_nanosecond() > 0);
    Timestamp::from_second(seconds).unwrap_or(instant)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn dues_are_whole_intervals_after_the_last_transition() {
        let start = at("2026-01-01T00:00:00Z");
        let tick = |now| last_tick(start, Duration::from_secs(10), at(now));
        assert_eq!(tick("2026-01-01T00:00:09.999Z"), None);
        assert_eq!(
            tick("2026-01-01T00:00:10Z"),
            Some(at("2026-01-01T00:00:10Z"))
        );
        assert_eq!(
            tick("2026-01-01T00:00:29.5Z"),
            Some(at("2026-01-01T00:00:20Z"))
        );
        assert_eq!(tick("2025-12-31T00:00:00Z"), None);
    }

    #[test]
    fn a_transition_is_never_recorded_in_the_past() {
        assert_eq!(
            whole_second_after(at("2026-01-01T00:00:00Z")),
            at("2026-01-01T00:00:00Z")
        );
        assert_eq!(
            whole_second_after(at("2026-01-01T00:00:00.001Z")),
            at("2026-01-01T00:00:01Z")
        );
    }
}
