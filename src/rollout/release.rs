//! The release of a valid canary: the facts about it that nearly every decision needs, derived once from the snapshot.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::{blocked::Blocked, status::transitions::is_in_run};
use crate::{
    api::canary::CanaryPhase,
    providers,
    routers::Router,
    snapshot::{
        Readiness, Snapshot, TargetKind, knative, readiness,
        revision::{is_ours, revision},
    },
    workload::{
        config::{self, ConfigName, copies::Copies},
        daemon_set, metadata,
        selection::{Selection, Workloads},
    },
};

/// The name of the primary's copy of each config.
type CopyNames = BTreeMap<ConfigName, String>;

/// The release of a valid canary whose target exists.
pub struct Release<'a> {
    /// The snapshot.
    pub snapshot: &'a Snapshot,
    /// The kind of the target.
    pub kind: TargetKind,
    /// The target.
    pub target: &'a Value,
    /// The labels that distinguish the target's pods from the primary's.
    pub selection: Selection,
    /// The target's revision.
    pub revision: String,
    /// The checksums of the configs that the target uses, in the form of `status.trackedConfigs`; `None` without config tracking.
    pub configs: Option<BTreeMap<String, String>>,
    /// A config that is missing. The configs then count as unchanged.
    missing_config: Option<Blocked>,
    /// The configs that are copied for the primary, with the name of each copy, and those that do not exist and are optional.
    pub tracked: CopyNames,
    /// The router of the canary's provider.
    pub router: &'static dyn Router,
}

impl<'a> Release<'a> {
    /// Derives the release from a snapshot. The error is the obstacle, for example a missing target.
    pub fn of(snapshot: &'a Snapshot) -> Result<Self, Blocked> {
        let reference = &snapshot.canary.spec.target_ref;
        let kind = TargetKind::of(&snapshot.canary)
            .ok_or_else(|| Blocked::UnknownTargetKind(reference.kind.clone()))?;
        let target = snapshot.target().ok_or_else(|| not_found(snapshot, kind))?;
        match kind {
            TargetKind::DaemonSet => daemon_set::strategy(target)?,
            TargetKind::Knative if knative::latest(target).is_none() => {
                return Err(Blocked::NoRevision(snapshot.full_target()));
            }
            _ => {}
        }
        let workloads = workloads(snapshot, kind, target);
        let selection = Selection::of(&workloads, &snapshot.settings.selector_labels)?;
        let version = kind.version(target);
        let (tracked, configs, missing_config) = match configs(snapshot, &version) {
            _ if !snapshot.settings.config_tracking || !kind.has_pods() => {
                (BTreeMap::new(), None, None)
            }
            Ok((tracked, checksums)) => (tracked, Some(checksums), None),
            Err(missing) => {
                let known = snapshot.status().tracked_configs.clone();
                (BTreeMap::new(), known, Some(missing))
            }
        };
        Ok(Self {
            snapshot,
            kind,
            target,
            selection,
            revision: revision(&version),
            configs,
            missing_config,
            tracked,
            router: providers::router(snapshot),
        })
    }

    /// Fails if a config that the primary needs does not exist.
    pub fn has_all_configs(&self) -> Result<(), Blocked> {
        self.missing_config.clone().map_or(Ok(()), Err)
    }

    /// The workloads among whose pods the selectors have to choose.
    pub fn workloads(&self) -> Workloads<'a> {
        workloads(self.snapshot, self.kind, self.target)
    }

    /// Whether the target or one of its configs has changed since the start of this run, or of the last one.
    ///
    /// A different revision alone proves nothing: an upgraded API server may serve the same template with other defaults, and Flagger's
    /// hashes cannot be compared with ours. If the primary runs the same version, nothing has changed.
    pub fn changed(&self) -> bool {
        let status = self.snapshot.status();
        let Some(applied) = &status.last_applied_spec else {
            return true;
        };
        let same_configs = self.same_configs(status.tracked_configs.as_ref());
        // Between runs, a return to the promoted revision is no new version. During a run it is a change like any other.
        let same_revision = *applied == self.revision
            || (!is_in_run(status.phase)
                && status.phase != CanaryPhase::Failed
                && status.last_promoted_spec.as_ref() == Some(&self.revision));
        match status.phase {
            _ if same_revision && same_configs => false,
            CanaryPhase::Initialized | CanaryPhase::Succeeded if is_ours(applied) => {
                !self.primary_runs_the_target()
            }
            CanaryPhase::Initialized | CanaryPhase::Succeeded => {
                !self.primary_contains_the_target()
            }
            // During a run or after a failure, a hash that Flagger wrote counts as the hash of the current target.
            _ if !is_ours(applied) => !same_configs,
            CanaryPhase::Failed => !self.is_reverted(),
            _ => true,
        }
    }

    /// Whether the target's configs equal those that the status records. If it records none, because tracking was off, they are the same
    /// only if the target uses none.
    pub fn same_configs(&self, known: Option<&BTreeMap<String, String>>) -> bool {
        match (&self.configs, known) {
            (None, _) => true,
            (Some(configs), None) => configs.is_empty(),
            (Some(configs), Some(known)) => configs == known,
        }
    }

    /// Whether the status names another revision although no run is needed: it names the same content by a hash of Flagger's, or it names
    /// a failed version that the user has taken back. (If that version comes again, it is a new one.)
    pub fn to_adopt(&self) -> bool {
        use CanaryPhase as P;
        let status = self.snapshot.status();
        let Some(applied) = &status.last_applied_spec else {
            return false;
        };
        let differs = *applied != self.revision;
        let is_other = match status.phase {
            P::Initialized | P::Succeeded => {
                differs && status.last_promoted_spec.as_ref() != Some(&self.revision)
            }
            P::Failed => differs || !self.same_configs(status.tracked_configs.as_ref()),
            _ => differs && !is_ours(applied),
        };
        is_other && !self.changed()
    }

    /// Whether the target went back to the promoted revision, which the primary still has.
    pub fn is_reverted(&self) -> bool {
        let promoted = self.snapshot.status().last_promoted_spec.as_ref();
        match promoted {
            Some(promoted) if is_ours(promoted) => {
                *promoted == self.revision
                    && (self.primary_runs_the_target()
                        || (self.primary_contains_the_target() && !self.is_promoted()))
            }
            _ => self.primary_runs_the_target(),
        }
    }

    /// Whether the primary runs the target's version with the target's configs. The operator's own mark on the primary shows this; without
    /// the mark of this version, the templates are compared.
    pub fn primary_runs_the_target(&self) -> bool {
        let runs =
            |primary| self.with_primary(|wanted| wanted.runs_the_target(primary, &self.revision));
        self.snapshot.primary().is_some_and(runs) && self.has_current_copies()
    }

    /// Whether a primary that Flagger promoted runs the target's version. Flagger's marks are random numbers, so the content is compared,
    /// and fields that others added to the primary do not count.
    fn primary_contains_the_target(&self) -> bool {
        let contains = |primary| self.with_primary(|wanted| wanted.contains_the_target(primary));
        self.snapshot.primary().is_some_and(contains) && self.has_current_copies()
    }

    /// The primary of a Knative Service whose annotation others have removed; `None` for any other target. (Flagger takes the latest
    /// Revision, which may be under analysis.)
    pub fn unmarked_primary(&self) -> Option<String> {
        let status = self.snapshot.status();
        let promoted = match status.phase {
            CanaryPhase::Finalising => &status.last_applied_spec,
            _ => &status.last_promoted_spec,
        };
        let is_primary = |name: &str| *promoted == Some(revision(&Value::from(name)));
        let is_knative = self.kind == TargetKind::Knative;
        is_knative
            .then(|| knative::unmarked_primary(self.target, is_primary))
            .flatten()
    }

    /// The state of the canary's rollout.
    pub fn canary_readiness(&self) -> Readiness {
        let analysis = self.snapshot.canary.spec.analysis.as_ref();
        let threshold = analysis.and_then(|a| a.canary_ready_threshold);
        let target = self.snapshot.full_target();
        let readiness = match self.snapshot.canary_workload() {
            Some(workload) => self.readiness(workload, threshold),
            None => Readiness::Waiting(self.no_revision(knative::latest(self.target))),
        };
        let prefix = match (self.kind, &readiness) {
            (TargetKind::Knative, _) => String::new(),
            (TargetKind::DaemonSet, Readiness::Failed(_)) => {
                format!("canary damonset {target} not ready with retryable false: ")
            }
            (TargetKind::DaemonSet, _) => {
                format!("canary damonset {target} not ready with retryable true: ")
            }
            (TargetKind::Deployment | TargetKind::Service, _) => {
                format!("canary deployment {target} not ready: ")
            }
        };
        readiness.prefixed(&prefix)
    }

    /// The state of the primary's rollout. A missing primary counts as waiting.
    pub fn primary_readiness(&self) -> Readiness {
        let name = format!(
            "{}.{}",
            self.snapshot.canary.primary_workload_name(),
            self.snapshot.namespace()
        );
        let prefix = match self.kind {
            TargetKind::Knative => String::new(),
            TargetKind::DaemonSet => format!("primary daemonset {name} not ready: "),
            TargetKind::Deployment | TargetKind::Service => format!("{name} not ready: "),
        };
        let readiness = match self.snapshot.primary() {
            Some(primary) => {
                let analysis = self.snapshot.canary.spec.analysis.as_ref();
                self.readiness(primary, analysis.and_then(|a| a.primary_ready_threshold))
            }
            None if self.kind == TargetKind::Knative => {
                Readiness::Waiting(self.no_revision(knative::primary(self.target)))
            }
            None => {
                let kind = self.kind.kind().name().to_lowercase();
                Readiness::Waiting(format!("{kind} {name} get query error: not found"))
            }
        };
        readiness.prefixed(&prefix)
    }

    /// Flagger's text for a Revision that does not exist, or that has no name yet.
    fn no_revision(&self, name: Option<&str>) -> String {
        match name {
            Some(name) => format!(
                "Knative Revision {name}.{} get query error: not found",
                self.snapshot.namespace()
            ),
            None => format!(
                "Knative Service {} primary revision annotation not found",
                self.snapshot.full_target()
            ),
        }
    }

    fn readiness(&self, object: &Value, threshold: Option<i64>) -> Readiness {
        let deadline = SignedDuration::from_secs(self.snapshot.canary.progress_deadline_seconds());
        // Conditions that are older than this phase, or this step, belong to an earlier rollout.
        let since = self.snapshot.status().last_transition_time.as_ref();
        let since = since.map_or(Timestamp::MIN, |time| time.0);
        let times = readiness::Times {
            deadline,
            since,
            stalled: self.stalled(object),
            now: self.snapshot.now,
        };
        self.kind
            .readiness(object, threshold.unwrap_or(100), &times)
    }

    /// The time since which a workload lacks pods and has not gained any.
    fn stalled(&self, workload: &Value) -> Option<Timestamp> {
        let name = metadata::name(workload);
        let workload = self.snapshot.reference(self.kind.workload(), name);
        self.snapshot.stalled.get(&workload).copied()
    }

    /// Whether the canary is scaled to zero.
    pub fn is_scaled_to_zero(&self) -> bool {
        self.kind.is_at_zero(self.target)
    }
}

fn workloads<'a>(snapshot: &'a Snapshot, kind: TargetKind, target: &'a Value) -> Workloads<'a> {
    Workloads {
        kind,
        target,
        primary: snapshot.primary(),
        namespace: &snapshot.workloads,
    }
}

/// The tracked configs with the names of their copies, and their checksums. A missing config is an error only if pods cannot start without
/// it.
fn configs(
    snapshot: &Snapshot,
    template: &Value,
) -> Result<(CopyNames, BTreeMap<String, String>), Blocked> {
    let copies = Copies::of(snapshot);
    let mut tracked = BTreeMap::new();
    let mut checksums = BTreeMap::new();
    for ((kind, name), optional) in config::references(template) {
        match snapshot.object(kind, &name) {
            Some(object) if config::is_tracked(object) => {
                checksums.insert(config::status_key(kind, &name), config::checksum(object));
                tracked.insert((kind, name), copies.choose(kind, object).name);
            }
            Some(_) => {}
            None if optional => {
                let target = &snapshot.canary.spec.target_ref.name;
                let absent = config::absent_name(&name, target);
                tracked.insert((kind, name), absent);
            }
            None => {
                return Err(Blocked::ConfigNotFound {
                    kind,
                    name,
                    namespace: snapshot.namespace().to_owned(),
                });
            }
        }
    }
    Ok((tracked, checksums))
}

fn not_found(snapshot: &Snapshot, kind: TargetKind) -> Blocked {
    let kind = kind.kind();
    let (group, _) = kind.group_version();
    let resource = match group {
        "" => kind.plural().to_owned(),
        group => format!("{}.{group}", kind.plural()),
    };
    Blocked::TargetNotFound {
        kind,
        resource,
        name: snapshot.canary.spec.target_ref.name.clone(),
        namespace: snapshot.namespace().to_owned(),
    }
}

/// A text that identifies the version of the target and its configs; `None` if the status already names this version.
pub fn new_version(snapshot: &Snapshot) -> Option<String> {
    let release = Release::of(snapshot).ok()?;
    let text = || format!("{} {:?}", release.revision, release.configs);
    release.changed().then(text)
}

/// The revision of the target and the checksums of its configs, in the forms of the status; `None` if the target is missing or unusable.
pub fn version(snapshot: &Snapshot) -> Option<(String, Option<BTreeMap<String, String>>)> {
    let release = Release::of(snapshot).ok()?;
    Some((release.revision, release.configs))
}
