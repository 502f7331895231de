//! What nearly every decision about a valid canary needs to know, worked out once from the Snapshot.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::phase;
use crate::{
    api::canary::CanaryPhase,
    routers::{self, Dialect},
    snapshot::{
        Kind, ObjectRef, Readiness, Snapshot, TargetKind, readiness,
        revision::{is_ours, revision},
    },
    workload::{
        config::{self, ConfigName},
        daemon_set, primary, scaler,
    },
};

/// The Snapshot of a canary that can be run, and what follows from it.
pub struct Release<'a> {
    /// What was observed.
    pub snapshot: &'a Snapshot,
    /// What kind of workload is released.
    pub kind: TargetKind,
    /// The target.
    pub target: &'a Value,
    /// The label that selects the target's pods.
    pub selector: (String, String),
    /// The target's revision.
    pub revision: String,
    /// The checksums of the configs that the target uses, as the status has them; `None` without config tracking.
    pub configs: Option<BTreeMap<String, String>>,
    /// Why the configs could not be told; they count as unchanged then.
    problem: Option<String>,
    /// The configs of which the primary has copies.
    pub tracked: BTreeSet<ConfigName>,
    /// Where traffic is routed.
    pub dialect: Dialect,
}

/// The objects that a decision looks at: asked again with what was found, until nothing is missing.
pub fn needs(snapshot: &Snapshot) -> BTreeSet<ObjectRef> {
    let canary = &snapshot.canary;
    let Some(kind) = TargetKind::of(canary) else {
        return BTreeSet::new();
    };
    let target = &canary.spec.target_ref.name;
    let mut needs: BTreeSet<_> = [
        snapshot.reference(kind.kind(), target),
        snapshot.reference(kind.kind(), &canary.primary_workload_name()),
        snapshot.reference(Kind::Service, canary.apex_name()),
        snapshot.reference(Kind::Service, &canary.primary_name()),
        snapshot.reference(Kind::Service, &canary.canary_name()),
    ]
    .into();
    if kind == TargetKind::Service {
        needs.insert(snapshot.reference(Kind::Service, &format!("{target}-canary")));
    }
    if let Ok(dialect) = Dialect::of(snapshot) {
        needs.extend(routers::objects(dialect, canary));
    }
    needs.extend(scaler::objects(snapshot));
    if let (true, Some(template)) = (
        snapshot.settings.config_tracking,
        snapshot.target().and_then(|t| t.pointer("/spec/template")),
    ) {
        for (kind, name) in config::references(template).into_keys() {
            needs.insert(snapshot.reference(kind, &config::copy_name(&name)));
            needs.insert(snapshot.reference(kind, &name));
        }
    }
    needs.extend(super::metric_checks::needs(snapshot));
    needs
}

/// Of what was seen, that of which a decision needs all: the configs that the primary has no copy of as they are, and the credentials
/// of metric servers. Of other configs it is enough to know whether they changed.
pub fn needed_in_full(snapshot: &Snapshot) -> BTreeSet<ObjectRef> {
    let mut whole = super::metric_checks::needs(snapshot);
    whole.retain(|object| object.kind == Kind::Secret);
    let template = snapshot.target().and_then(|t| t.pointer("/spec/template"));
    for (kind, name) in template
        .map(config::references)
        .unwrap_or_default()
        .into_keys()
    {
        let copy = config::copy_name(&name);
        let Some(source) = snapshot.object(kind, &name) else {
            continue;
        };
        let existing = snapshot.object(kind, &copy);
        if config::is_tracked(source) && !existing.is_some_and(|copy| config::is_same(source, copy))
        {
            whole.insert(snapshot.reference(kind, &name));
            whole.insert(snapshot.reference(kind, &copy));
        }
    }
    whole
}

impl<'a> Release<'a> {
    /// The facts, or what a user reads if they cannot be had.
    pub fn of(snapshot: &'a Snapshot) -> Result<Self, String> {
        let reference = &snapshot.canary.spec.target_ref;
        let kind = TargetKind::of(&snapshot.canary)
            .ok_or_else(|| format!("{} is no kind of target", reference.kind))?;
        let target = snapshot.target().ok_or_else(|| not_found(snapshot, kind))?;
        if kind == TargetKind::DaemonSet {
            daemon_set::strategy(target).map_err(|error| error.to_string())?;
        }
        let selector = primary::selector(kind, target, &snapshot.settings.selector_labels)
            .map_err(|error| error.to_string())?;
        let version = kind.version(target);
        let (tracked, configs, problem) = match configs(snapshot, &version) {
            _ if !snapshot.settings.config_tracking || !kind.has_pods() => {
                (BTreeSet::new(), None, None)
            }
            Ok((tracked, checksums)) => (tracked, Some(checksums), None),
            Err(problem) => {
                let known = phase::status(snapshot).tracked_configs;
                (BTreeSet::new(), known, Some(problem))
            }
        };
        Ok(Self {
            snapshot,
            kind,
            target,
            selector,
            revision: revision(&version),
            configs,
            problem,
            tracked,
            dialect: Dialect::of(snapshot)?,
        })
    }

    /// That nothing is missing which a primary needs; or what a user reads.
    pub fn complete(&self) -> Result<(), String> {
        self.problem.clone().map_or(Ok(()), Err)
    }

    /// Whether the target or one of its configs is not what this run, or the last one, was about.
    /// A different revision is a suspicion, not a verdict: an API server's upgrade changes what it serves, and Flagger's own
    /// hashes compare with nothing. Where the primary was promoted to the same, nothing changed.
    pub fn changed(&self) -> bool {
        let status = phase::status(self.snapshot);
        let Some(applied) = &status.last_applied_spec else {
            return true;
        };
        let same_configs = self.same_configs(status.tracked_configs.as_ref());
        // Between runs, going back to what is promoted is no new version; within a run it is a change like any other.
        let same_revision = *applied == self.revision
            || (!is_in_flight(status.phase)
                && status.phase != CanaryPhase::Failed
                && status.last_promoted_spec.as_ref() == Some(&self.revision));
        match status.phase {
            _ if same_revision && same_configs => false,
            CanaryPhase::Initialized | CanaryPhase::Succeeded => !self.is_what_the_primary_runs(),
            // In flight or failed, a hash of Flagger's stands for the target as it is now.
            _ if !is_ours(applied) => !same_configs,
            CanaryPhase::Failed => !self.is_reverted(),
            _ => true,
        }
    }

    /// Whether the target's configs are those on record. Where none is on record, because tracking was off, none is the same.
    fn same_configs(&self, known: Option<&BTreeMap<String, String>>) -> bool {
        match (&self.configs, known) {
            (None, _) => true,
            (Some(configs), None) => configs.is_empty(),
            (Some(configs), Some(known)) => configs == known,
        }
    }

    /// Whether the status is about something else than the target, and yet nothing is to be done: it names the same content by a hash
    /// other than ours, or a version that failed and was taken back. (That one is a new version when it comes again.)
    pub fn to_adopt(&self) -> bool {
        use CanaryPhase as P;
        let status = phase::status(self.snapshot);
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

    /// Whether the target went back to what is promoted already.
    pub fn is_reverted(&self) -> bool {
        let promoted = phase::status(self.snapshot).last_promoted_spec;
        let known = match promoted {
            Some(promoted) if is_ours(&promoted) => promoted == self.revision,
            _ => true,
        };
        known && self.is_what_the_primary_runs()
    }

    /// Whether the primary runs what the target does.
    pub fn is_what_the_primary_runs(&self) -> bool {
        let same = |primary| self.with_primary(|wanted| wanted.runs_the_target(primary));
        self.snapshot.primary().is_some_and(same) && self.config_copies().is_empty()
    }

    /// How the canary's roll-out stands.
    pub fn canary_readiness(&self) -> Readiness {
        let analysis = self.snapshot.canary.spec.analysis.as_ref();
        let threshold = analysis.and_then(|a| a.canary_ready_threshold);
        let target = self.snapshot.full_target();
        let readiness = self.readiness(self.target, threshold);
        let prefix = match (self.kind, &readiness) {
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

    /// How the primary's roll-out stands; a missing one is waited for.
    pub fn primary_readiness(&self) -> Readiness {
        let name = format!(
            "{}.{}",
            self.snapshot.canary.primary_workload_name(),
            self.snapshot.namespace()
        );
        let prefix = match self.kind {
            TargetKind::DaemonSet => format!("primary daemonset {name} not ready: "),
            TargetKind::Deployment | TargetKind::Service => format!("{name} not ready: "),
        };
        let readiness = match self.snapshot.primary() {
            Some(primary) => {
                let analysis = self.snapshot.canary.spec.analysis.as_ref();
                self.readiness(primary, analysis.and_then(|a| a.primary_ready_threshold))
            }
            None => {
                let kind = self.kind.kind().name().to_lowercase();
                Readiness::Waiting(format!("{kind} {name} get query error: not found"))
            }
        };
        readiness.prefixed(&prefix)
    }

    fn readiness(&self, object: &Value, threshold: Option<i64>) -> Readiness {
        let deadline = SignedDuration::from_secs(self.snapshot.canary.progress_deadline_seconds());
        // A verdict from before this phase, or this step, is not about this roll-out.
        let since = phase::status(self.snapshot).last_transition_time;
        let since = since.map_or(Timestamp::MIN, |time| time.0);
        let times = readiness::Times {
            deadline,
            since,
            now: self.snapshot.now,
        };
        self.kind
            .readiness(object, threshold.unwrap_or(100), &times)
    }

    /// Whether the canary runs no pods by intention.
    pub fn is_scaled_to_zero(&self) -> bool {
        self.kind.is_at_zero(self.target)
    }
}

/// The configs that count, and their checksums. A missing one matters only if pods cannot start without it.
fn configs(
    snapshot: &Snapshot,
    template: &Value,
) -> Result<(BTreeSet<ConfigName>, BTreeMap<String, String>), String> {
    let mut tracked = BTreeSet::new();
    let mut checksums = BTreeMap::new();
    for ((kind, name), optional) in config::references(template) {
        match snapshot.object(kind, &name) {
            Some(object) if config::is_tracked(object) => {
                checksums.insert(config::status_key(kind, &name), config::checksum(object));
                tracked.insert((kind, name));
            }
            Some(_) => {}
            None if optional => {}
            None => {
                return Err(missing(snapshot, kind, &name));
            }
        }
    }
    Ok((tracked, checksums))
}

fn not_found(snapshot: &Snapshot, kind: TargetKind) -> String {
    let name = &snapshot.canary.spec.target_ref.name;
    let (group, _) = kind.kind().group_version();
    let plural = kind.kind().plural();
    let resource = match group {
        "" => plural.to_owned(),
        group => format!("{plural}.{group}"),
    };
    format!(
        "{} {} get query error: {resource} {name:?} not found",
        kind.kind().name().to_lowercase(),
        snapshot.full_target()
    )
}

/// That a config is missing, in the words of each of Flagger's functions that hand it on.
fn missing(snapshot: &Snapshot, kind: Kind, name: &str) -> String {
    let (lower, plural) = (kind.name().to_lowercase(), kind.plural());
    let wrapped = format!("{lower} {name}.{} get query error: ", snapshot.namespace());
    // The inner message has two spaces for a ConfigMap.
    let inner = wrapped.replacen("configmap ", "configmap  ", 1);
    format!("GetTargetConfigs failed: {wrapped}{inner}{plural} {name:?} not found")
}

/// What of the target and its configs makes a version, in one text, if it is another one than the status is about.
pub fn new_version(snapshot: &Snapshot) -> Option<String> {
    let release = Release::of(snapshot).ok()?;
    let text = || format!("{} {:?}", release.revision, release.configs);
    release.changed().then(text)
}

/// Whether a run is under way.
const fn is_in_flight(phase: CanaryPhase) -> bool {
    use CanaryPhase as P;
    matches!(
        phase,
        P::Progressing | P::WaitingPromotion | P::Promoting | P::Finalising
    )
}
