//! What nearly every decision about a valid canary needs to know, worked out once from the World.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::phase;
use crate::{
    api::canary::{CanaryPhase, Strategy},
    notice::{EventKind, Notice, Severity, alert, hook},
    route::{self, Dialect, affinity::Cookies},
    workload::{
        self,
        config::{self, ConfigName},
        daemon_set,
        metadata::{included, owner_reference},
        primary::{self, Primary},
        scaler,
        service::Services,
        service_target,
    },
    world::{
        Action, Effect, Kind, ObjectRef, Readiness, TargetKind, Weights, World,
        readiness::{self, replicas},
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
    tracked: BTreeSet<ConfigName>,
    /// Where traffic is routed.
    dialect: Dialect,
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
    if let Some(reference) = &canary.spec.autoscaler_ref {
        needs.insert(world.reference(Kind::HorizontalPodAutoscaler, &reference.name));
        needs.insert(world.reference(
            Kind::HorizontalPodAutoscaler,
            &scaler::primary_name(reference),
        ));
    }
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
        let same_configs = self.configs.is_none() || self.configs == status.tracked_configs;
        // Between runs, going back to what is promoted is no new version; within a run it is a change like any other.
        let same_revision = *applied == self.revision
            || (!is_in_flight(status.phase)
                && status.last_promoted_spec.as_ref() == Some(&self.revision)
                && (status.phase != CanaryPhase::Failed || self.is_what_the_primary_runs()));
        match status.phase {
            _ if same_revision && same_configs => false,
            CanaryPhase::Initialized | CanaryPhase::Succeeded => !self.is_what_the_primary_runs(),
            // In flight or failed, a hash of Flagger's stands for the target as it is now.
            _ if !is_ours(applied) => !same_configs,
            _ => true,
        }
    }

    /// Whether the status names the target's revision by a hash other than ours, for the same content.
    pub fn to_adopt(&self) -> bool {
        let status = phase::status(self.world);
        let settled = matches!(
            status.phase,
            CanaryPhase::Initialized | CanaryPhase::Succeeded
        );
        status.last_applied_spec.as_ref().is_some_and(|applied| {
            *applied != self.revision
                && (!settled || status.last_promoted_spec.as_ref() != Some(&self.revision))
                && (settled || !is_ours(applied))
        }) && !self.changed()
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

    /// The weights as they are routed.
    pub fn weights(&self) -> Result<Weights, String> {
        route::read(self.dialect, self.world)
    }

    /// Whether traffic can be divided at all: otherwise there is nothing to say of routing.
    pub fn splits_traffic(&self) -> bool {
        self.dialect.splits()
    }

    /// How the version meets its users: where traffic cannot be divided there is only blue/green.
    pub fn strategy(&self) -> Strategy {
        if self.splits_traffic() {
            self.world.canary.strategy()
        } else {
            Strategy::BlueGreen
        }
    }

    /// How many iterations blue/green and A/B testing take; 10 where blue/green was not asked for (as in Flagger).
    pub fn iterations(&self) -> i64 {
        let analysis = self.world.canary.spec.analysis.as_ref();
        let asked = analysis.and_then(|analysis| analysis.iterations);
        match asked.unwrap_or(0) {
            ..1 if !self.splits_traffic() => 10,
            iterations => iterations,
        }
    }

    /// Whether the version gets copies of the requests before it gets any.
    pub fn mirrors(&self) -> bool {
        let analysis = self.world.canary.spec.analysis.as_ref();
        self.splits_traffic() && analysis.is_some_and(|analysis| analysis.mirror)
    }

    /// The cookies of session affinity that a share of the traffic for the canary needs, and the status lacks.
    pub fn new_cookies(&self) -> Option<Cookies> {
        route::new_cookies(self.dialect, &self.world.canary, self.world.nonce)
    }

    /// That the weights as they are written are in force; or what a user reads.
    pub fn routes_accepted(&self) -> Result<(), String> {
        route::accepted(self.dialect, self.world)
    }

    /// Routes these weights; nothing if they are routed already, and never more to a side where no pod answers while the
    /// other's do.
    pub fn set_weights(&self, weights: &Weights) -> Result<Vec<Effect>, String> {
        if !self.splits_traffic() {
            return Ok(Vec::new());
        }
        let now = self.weights()?;
        let (primary, canary) = (self.world.primary_answers(), self.world.canary_answers());
        let name = |name: &str| {
            format!(
                "{name}.{} has no ready pod: traffic stays where it is",
                self.world.namespace()
            )
        };
        if weights.primary > now.primary && !primary && canary {
            return Err(name(&self.world.canary.primary_workload_name()));
        }
        if weights.canary > now.canary && !canary {
            return Err(name(&self.world.canary.spec.target_ref.name));
        }
        route::set(self.dialect, self.world, weights)
    }

    /// Whether clients are answered by the primary. After a promotion that failed they are not: a version that mends it must be able
    /// to come, although the primary is not ready.
    pub fn primary_serves(&self) -> bool {
        let all_on_canary =
            self.splits_traffic() && self.weights().is_ok_and(|weights| weights.canary == 100);
        !all_on_canary || self.world.canary.strategy() == Strategy::AbTesting
    }

    /// Creates the routes, or repairs what drifted, with the weights as they are; as the status has them, if the routes are gone.
    pub fn routes(&self) -> Result<Vec<Effect>, String> {
        use CanaryPhase as P;
        let status = phase::status(self.world);
        if matches!(
            status.phase,
            P::Initialized | P::Waiting | P::Succeeded | P::Failed
        ) && status.canary_weight == 0
        {
            return self.routes_to(&Weights::PRIMARY);
        }
        let lost = || {
            if self.world.canary_answers() {
                self.expected_weights()
            } else {
                Weights::PRIMARY
            }
        };
        let weights = self.weights().unwrap_or_else(|_| lost());
        route::reconcile(self.dialect, self.world, &self.selector, &weights)
    }

    /// Creates the routes, or repairs what drifted, with these weights.
    pub fn routes_to(&self, weights: &Weights) -> Result<Vec<Effect>, String> {
        let effects = route::reconcile(self.dialect, self.world, &self.selector, weights)?;
        match self.weights() {
            // One write at a time: what is repaired gets its weights in the next look, if not in this.
            Ok(now) if effects.is_empty() && now != *weights => self.set_weights(weights),
            _ => Ok(effects),
        }
    }

    fn expected_weights(&self) -> Weights {
        use CanaryPhase as P;
        let status = phase::status(self.world);
        let all = self
            .world
            .canary
            .spec
            .analysis
            .as_ref()
            .map_or(0, |analysis| analysis.iterations.unwrap_or(0));
        match (status.phase, self.world.canary.strategy()) {
            (P::Progressing | P::WaitingPromotion | P::Promoting, Strategy::AbTesting)
                if status.iterations > 0 =>
            {
                Weights::CANARY
            }
            (P::Progressing | P::WaitingPromotion | P::Promoting, Strategy::BlueGreen)
                if status.iterations > all =>
            {
                Weights::CANARY
            }
            (P::Progressing | P::WaitingPromotion | P::Promoting | P::Failed, _) => {
                Weights::canary(u8::try_from(status.canary_weight.clamp(0, 100)).unwrap_or(0))
            }
            _ => Weights::PRIMARY,
        }
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

    fn services(&self) -> Services<'_> {
        Services {
            canary: &self.world.canary,
            selector: (&self.selector.0, &self.selector.1),
            template: self
                .target
                .pointer("/spec/template")
                .unwrap_or(&Value::Null),
        }
    }

    /// The canary's and the primary's Services, and the one that clients call. A Service that is released is the last itself.
    pub fn workload_services(&self) -> Vec<Effect> {
        let canary = &self.world.canary;
        let live = |name: &str| self.world.object(Kind::Service, name);
        if self.kind == TargetKind::Service {
            let name = format!("{}-canary", canary.spec.target_ref.name);
            let follows = service_target::canary_service(canary, self.target, live(&name));
            return follows.into_iter().collect();
        }
        let services = self.services();
        [
            services.canary(live(&canary.canary_name())),
            services.primary(live(&canary.primary_name())),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// The Service that clients call; it selects the primary's pods.
    pub fn apex_service(&self) -> Option<Effect> {
        let name = self.world.canary.apex_name();
        let live = self.world.object(Kind::Service, name);
        (self.kind != TargetKind::Service)
            .then(|| self.services().apex(live))
            .flatten()
    }

    /// The Service that clients call, as it led before the Canary.
    pub fn restored_apex(&self) -> Option<Effect> {
        let name = self.world.canary.apex_name();
        let live = self.world.object(Kind::Service, name);
        (self.kind != TargetKind::Service)
            .then(|| self.services().restored_apex(live))
            .flatten()
    }

    /// Scales the canary to zero.
    pub fn scale_down(&self) -> Vec<Effect> {
        let failure = format!(
            "scaling down canary {} {} failed: ",
            self.kind.kind().name(),
            self.world.full_target()
        );
        workload::scale_to_zero(self.kind, self.target, failure)
            .into_iter()
            .collect()
    }

    /// Scales the canary from zero: to what its autoscaler would give it at least, or to what the primary has.
    pub fn scale_up(&self) -> Vec<Effect> {
        match &self.world.canary.spec.autoscaler_ref {
            Some(reference) => {
                let scaler = self
                    .world
                    .object(Kind::HorizontalPodAutoscaler, &reference.name);
                let least = scaler.and_then(|scaler| scaler.pointer("/spec/minReplicas")?.as_i64());
                self.scale_to(least.unwrap_or(1))
            }
            None => self.scale_to_primary(),
        }
    }

    /// Scales a target that has no pods to what the primary has.
    pub fn scale_to_primary(&self) -> Vec<Effect> {
        self.scale_to(self.world.primary().map_or(1, replicas))
    }

    fn scale_to(&self, to: i64) -> Vec<Effect> {
        let to = to.max(1);
        let failure = format!("scaling up {} to {to} failed: ", self.world.full_target());
        workload::scale_from_zero(self.kind, self.target, to, failure)
            .into_iter()
            .collect()
    }

    /// Creates the primary, and its copies of the configs before it.
    fn create_primary(&self) -> Vec<Effect> {
        let mut effects = self.config_copies();
        #[expect(
            clippy::redundant_closure_for_method_calls,
            reason = "the method is not general enough over lifetimes"
        )]
        effects.push(self.with_primary(|wanted| wanted.create()));
        effects
    }

    /// Gives the primary what the target has: nothing, if it has it.
    pub fn promote(&self) -> Vec<Effect> {
        let Some(primary) = self.world.primary() else {
            return self.create_primary();
        };
        let mut effects = self.config_copies();
        effects.extend(self.with_primary(|wanted| wanted.promote(primary)));
        effects
    }

    /// Whether the primary was given the revision that this run is about.
    pub fn is_promoted(&self) -> bool {
        let applied = phase::status(self.world)
            .last_applied_spec
            .unwrap_or_default();
        let id = self.flagger_id(&applied);
        let was = |primary| self.with_primary(|wanted| wanted.was_promoted(primary, &id, &applied));
        self.world.primary().is_some_and(was)
            || (!is_ours(&applied) && self.is_what_the_primary_runs())
    }

    /// The primary's autoscaler: created if missing; in a promotion brought up to date as well.
    pub fn primary_scaler(&self, promotion: bool) -> Result<Option<Effect>, String> {
        let Some(reference) = &self.world.canary.spec.autoscaler_ref else {
            return Ok(None);
        };
        let find = |name: &str| self.world.object(Kind::HorizontalPodAutoscaler, name);
        let scaler = find(&reference.name).ok_or_else(|| {
            format!(
                "HorizontalPodAutoscaler {}.{} get query error: horizontalpodautoscalers.autoscaling {:?} not found",
                reference.name,
                self.world.namespace(),
                reference.name
            )
        })?;
        let workload = self.world.canary.primary_workload_name();
        Ok(match find(&scaler::primary_name(reference)) {
            None => Some(scaler::create(
                reference,
                scaler,
                &workload,
                &owner_reference(&self.world.canary),
            )),
            Some(primary) if promotion => scaler::promote(reference, scaler, primary, &workload),
            Some(_) => None,
        })
    }

    fn with_primary<T>(&self, f: impl FnOnce(&Primary<'_>) -> T) -> T {
        let settings = &self.world.settings;
        let name = self.world.canary.primary_workload_name();
        let id = self.flagger_id(&self.revision);
        f(&Primary {
            kind: self.kind,
            target: self.target,
            name: &name,
            selector: (&self.selector.0, &self.selector.1),
            selector_labels: &settings.selector_labels,
            include_label_prefix: &settings.include_label_prefix,
            tracked: &self.tracked,
            flagger_id: &id,
            owner: owner_reference(&self.world.canary),
            autoscaled: self.world.canary.spec.autoscaler_ref.is_some(),
        })
    }

    fn flagger_id(&self, revision: &str) -> String {
        let configs = serde_json::to_string(&self.configs).unwrap_or_default();
        primary::flagger_id(
            self.world
                .canary
                .metadata
                .uid
                .as_deref()
                .unwrap_or_default(),
            revision,
            &configs,
        )
    }

    fn config_copies(&self) -> Vec<Effect> {
        let owner = owner_reference(&self.world.canary);
        self.tracked
            .iter()
            .filter_map(|(kind, name)| {
                let source = self.world.object(*kind, name)?;
                let labels = source
                    .pointer("/metadata/labels")
                    .and_then(Value::as_object)
                    .cloned()
                    .unwrap_or_default();
                let labels = included(&labels, &self.world.settings.include_label_prefix);
                let copy = config::copy_name(name);
                let existing = self.world.object(*kind, &copy);
                let object = config::copy(*kind, source, existing, labels, &owner)?;
                let (action, verb) = if existing.is_some() {
                    (Action::Replace(object), "updating")
                } else {
                    (Action::Create(object), "creating")
                };
                let failure = format!(
                    "{verb} {} {copy}.{} failed: ",
                    kind.name().to_lowercase(),
                    self.world.namespace()
                );
                Some(Effect {
                    object: self.world.reference(*kind, &copy),
                    action,
                    failure,
                })
            })
            .collect()
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
                let (lower, plural) = (kind.name().to_lowercase(), kind.plural());
                return Err(format!(
                    "{lower} {name}.{} get query error: {plural} {name:?} not found",
                    world.namespace()
                ));
            }
        }
    }
    Ok((tracked, checksums))
}

fn not_found(world: &World, kind: TargetKind) -> String {
    let name = &world.canary.spec.target_ref.name;
    let (group, _) = kind.kind().group_version();
    let mut resource = kind.kind().plural().to_owned();
    if !group.is_empty() {
        resource += &format!(".{group}");
    }
    format!(
        "{} {} get query error: {resource} {name:?} not found",
        kind.kind().name().to_lowercase(),
        world.full_target()
    )
}

/// An event about the canary, as of its phase now.
pub fn event(world: &World, kind: EventKind, message: String) -> Notice {
    event_in(world, kind, message, world.phase())
}

/// An event that event webhooks are told with another phase than the one the status has now.
pub fn event_in(world: &World, kind: EventKind, message: String, phase: CanaryPhase) -> Notice {
    Notice::Event {
        kind,
        message,
        phase,
        checksum: hook::checksum(&phase::status(world)),
    }
}

/// An alert, with the fields that describe the canary or without.
pub fn alert(world: &World, severity: Severity, text: &str, described: bool) -> Notice {
    let fields = alert::fields(
        &world.settings.cluster_name,
        described.then_some(&world.canary),
    );
    Notice::Alert {
        severity,
        text: text.to_owned(),
        fields,
    }
}

/// What of the target and its configs makes a version, in one text, and whether it is the one that the status is about.
pub fn content(world: &World) -> (String, bool) {
    Facts::of(world).map_or_else(
        |_| (String::new(), true),
        |facts| {
            (
                format!("{} {:?}", facts.revision, facts.configs),
                !facts.changed(),
            )
        },
    )
}

/// Whether a run is under way.
fn is_in_flight(phase: CanaryPhase) -> bool {
    use CanaryPhase as P;
    matches!(
        phase,
        P::Progressing | P::WaitingPromotion | P::Promoting | P::Finalising
    )
}
