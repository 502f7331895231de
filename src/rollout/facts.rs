//! What nearly every decision about a valid canary needs to know, worked out once from the World.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::phase;
use crate::{
    api::canary::CanaryPhase,
    route::{self, Dialect},
    workload::{
        config::{self, ConfigName},
        daemon_set, primary, scaler,
    },
    world::{
        Kind, ObjectRef, Readiness, TargetKind, World, readiness,
        revision::{is_ours, revision},
    },
};

/// The World of a canary that can be run, and what follows from it.
pub struct Facts<'a> {
    /// What was observed.
    pub world: &'a World,
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
pub fn needs(world: &World) -> BTreeSet<ObjectRef> {
    let canary = &world.canary;
    let Some(kind) = TargetKind::of(canary) else {
        return BTreeSet::new();
    };
    let target = &canary.spec.target_ref.name;
    let mut needs: BTreeSet<_> = [
        world.reference(kind.kind(), target),
        world.reference(kind.kind(), &canary.primary_workload_name()),
        world.reference(Kind::Service, canary.apex_name()),
        world.reference(Kind::Service, &canary.primary_name()),
        world.reference(Kind::Service, &canary.canary_name()),
    ]
    .into();
    if kind == TargetKind::Service {
        needs.insert(world.reference(Kind::Service, &format!("{target}-canary")));
    }
    if let Ok(dialect) = Dialect::of(world) {
        needs.extend(route::objects(dialect, canary));
    }
    needs.extend(scaler::objects(world));
    if let (true, Some(template)) = (
        world.settings.config_tracking,
        world.target().and_then(|t| t.pointer("/spec/template")),
    ) {
        for (kind, name) in config::references(template).into_keys() {
            needs.insert(world.reference(kind, &config::copy_name(&name)));
            needs.insert(world.reference(kind, &name));
        }
    }
    needs.extend(super::metrics::needs(world));
    needs
}

/// Of what was seen, that of which a decision needs all: the configs that the primary has no copy of as they are, and the credentials
/// of metric servers. Of other configs it is enough to know whether they changed.
pub fn whole(world: &World) -> BTreeSet<ObjectRef> {
    let mut whole = super::metrics::needs(world);
    whole.retain(|object| object.kind == Kind::Secret);
    let template = world.target().and_then(|t| t.pointer("/spec/template"));
    for (kind, name) in template
        .map(config::references)
        .unwrap_or_default()
        .into_keys()
    {
        let copy = config::copy_name(&name);
        let Some(source) = world.object(kind, &name) else {
            continue;
        };
        let existing = world.object(kind, &copy);
        if config::is_tracked(source) && !existing.is_some_and(|copy| config::is_same(source, copy))
        {
            whole.insert(world.reference(kind, &name));
            whole.insert(world.reference(kind, &copy));
        }
    }
    whole
}

impl<'a> Facts<'a> {
    /// The facts, or what a user reads if they cannot be had.
    pub fn of(world: &'a World) -> Result<Self, String> {
        let reference = &world.canary.spec.target_ref;
        let kind = TargetKind::of(&world.canary)
            .ok_or_else(|| format!("{} is no kind of target", reference.kind))?;
        let target = world.target().ok_or_else(|| not_found(world, kind))?;
        if kind == TargetKind::DaemonSet {
            daemon_set::strategy(target)?;
        }
        let selector = primary::selector(kind, target, &world.settings.selector_labels)?;
        let version = kind.version(target);
        let (tracked, configs, problem) = match configs(world, &version) {
            _ if !world.settings.config_tracking || !kind.has_pods() => {
                (BTreeSet::new(), None, None)
            }
            Ok((tracked, checksums)) => (tracked, Some(checksums), None),
            Err(problem) => {
                let known = phase::status(world).tracked_configs;
                (BTreeSet::new(), known, Some(problem))
            }
        };
        Ok(Self {
            world,
            kind,
            target,
            selector,
            revision: revision(&version),
            configs,
            problem,
            tracked,
            dialect: Dialect::of(world)?,
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
        let status = phase::status(self.world);
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
        let status = phase::status(self.world);
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
        let promoted = phase::status(self.world).last_promoted_spec;
        let known = match promoted {
            Some(promoted) if is_ours(&promoted) => promoted == self.revision,
            _ => true,
        };
        known && self.is_what_the_primary_runs()
    }

    /// Whether the primary runs what the target does.
    pub fn is_what_the_primary_runs(&self) -> bool {
        let same = |primary| self.with_primary(|wanted| wanted.runs_the_target(primary));
        self.world.primary().is_some_and(same) && self.config_copies().is_empty()
    }

    /// How the canary's roll-out stands.
    pub fn canary_readiness(&self) -> Readiness {
        let analysis = self.world.canary.spec.analysis.as_ref();
        let threshold = analysis.and_then(|a| a.canary_ready_threshold);
        let target = self.world.full_target();
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
            self.world.canary.primary_workload_name(),
            self.world.namespace()
        );
        let prefix = match self.kind {
            TargetKind::DaemonSet => format!("primary daemonset {name} not ready: "),
            TargetKind::Deployment | TargetKind::Service => format!("{name} not ready: "),
        };
        let readiness = match self.world.primary() {
            Some(primary) => {
                let analysis = self.world.canary.spec.analysis.as_ref();
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
        let deadline = SignedDuration::from_secs(self.world.canary.progress_deadline_seconds());
        // A verdict from before this phase, or this step, is not about this roll-out.
        let since = phase::status(self.world).last_transition_time;
        let since = since.map_or(Timestamp::MIN, |time| time.0);
        let times = readiness::Times {
            deadline,
            since,
            now: self.world.now,
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
    world: &World,
    template: &Value,
) -> Result<(BTreeSet<ConfigName>, BTreeMap<String, String>), String> {
    let mut tracked = BTreeSet::new();
    let mut checksums = BTreeMap::new();
    for ((kind, name), optional) in config::references(template) {
        match world.object(kind, &name) {
            Some(object) if config::is_tracked(object) => {
                checksums.insert(config::status_key(kind, &name), config::checksum(object));
                tracked.insert((kind, name));
            }
            Some(_) => {}
            None if optional => {}
            None => {
                return Err(missing(world, kind, &name));
            }
        }
    }
    Ok((tracked, checksums))
}

fn not_found(world: &World, kind: TargetKind) -> String {
    let name = &world.canary.spec.target_ref.name;
    let (group, _) = kind.kind().group_version();
    let plural = kind.kind().plural();
    let resource = match group {
        "" => plural.to_owned(),
        group => format!("{plural}.{group}"),
    };
    format!(
        "{} {} get query error: {resource} {name:?} not found",
        kind.kind().name().to_lowercase(),
        world.full_target()
    )
}

/// That a config is missing, in the words of each of Flagger's functions that hand it on.
fn missing(world: &World, kind: Kind, name: &str) -> String {
    let (lower, plural) = (kind.name().to_lowercase(), kind.plural());
    let wrapped = format!("{lower} {name}.{} get query error: ", world.namespace());
    // The inner message has two spaces for a ConfigMap.
    let inner = wrapped.replacen("configmap ", "configmap  ", 1);
    format!("GetTargetConfigs failed: {wrapped}{inner}{plural} {name:?} not found")
}

/// What of the target and its configs makes a version, in one text, if it is another one than the status is about.
pub fn new_version(world: &World) -> Option<String> {
    let facts = Facts::of(world).ok()?;
    let text = || format!("{} {:?}", facts.revision, facts.configs);
    facts.changed().then(text)
}

/// Whether a run is under way.
const fn is_in_flight(phase: CanaryPhase) -> bool {
    use CanaryPhase as P;
    matches!(
        phase,
        P::Progressing | P::WaitingPromotion | P::Promoting | P::Finalising
    )
}
