//! What nearly every decision about a valid canary needs to know, worked out once from the World.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::{drain, phase};
use crate::{
    api::canary::{CanaryPhase, Strategy},
    notice::{EventKind, Notice, Severity, alert, hook},
    route::{self, Dialect},
    workload::{
        config::{self, ConfigName},
        deployment::{self, Primary},
        metadata::{included, owner_reference},
        scaler::{self, Scaler},
        service::Services,
    },
    world::{
        Action, Effect, Kind, ObjectRef, Readiness, Weights, World,
        readiness::{self, replicas},
        revision::{is_ours, revision},
    },
};

/// The World of a canary that can be run, and what follows from it.
pub struct Facts<'a> {
    /// What was observed.
    pub world: &'a World,
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
    let mut needs: BTreeSet<_> = [
        world.reference(Kind::Deployment, &canary.spec.target_ref.name),
        world.reference(Kind::Deployment, &canary.primary_workload_name()),
        world.reference(Kind::Service, canary.apex_name()),
        world.reference(Kind::Service, &canary.primary_name()),
        world.reference(Kind::Service, &canary.canary_name()),
    ]
    .into();
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

impl<'a> Facts<'a> {
    /// The facts, or what a user reads if they cannot be had.
    pub fn of(world: &'a World) -> Result<Self, String> {
        let name = &world.canary.spec.target_ref.name;
        let target = world.target().ok_or_else(|| {
            format!(
                "deployment {name}.{} get query error: deployments.apps {name:?} not found",
                world.namespace()
            )
        })?;
        let selector = deployment::selector(target, &world.settings.selector_labels)?;
        let template = target
            .pointer("/spec/template")
            .cloned()
            .unwrap_or_default();
        let (tracked, configs, problem) = match configs(world, &template) {
            _ if !world.settings.config_tracking => (BTreeSet::new(), None, None),
            Ok((tracked, checksums)) => (tracked, Some(checksums), None),
            Err(problem) => {
                let known = phase::status(world).tracked_configs;
                (BTreeSet::new(), known, Some(problem))
            }
        };
        Ok(Self {
            world,
            target,
            selector,
            revision: revision(&template),
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

    /// Whether the target's configs are those on record. Where none is on record, because tracking was off, none is the same.
    fn same_configs(&self, known: Option<&BTreeMap<String, String>>) -> bool {
        match (&self.configs, known) {
            (None, _) => true,
            (Some(configs), None) => configs.is_empty(),
            (Some(configs), Some(known)) => configs == known,
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

    /// Routes these weights; nothing if they are routed already, and never more to a side where no pod answers while the
    /// other's do.
    pub fn set_weights(&self, weights: &Weights) -> Result<Vec<Effect>, String> {
        let now = self.weights()?;
        let (primary, canary) = (self.primary_answers(), self.canary_answers());
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
        let all_on_canary = self.weights().is_ok_and(|weights| weights.canary == 100);
        !all_on_canary || self.world.canary.strategy() == Strategy::AbTesting
    }

    /// Whether a pod of the primary can answer.
    pub fn primary_answers(&self) -> bool {
        self.world
            .primary()
            .is_some_and(|primary| readiness::ready_pods(primary) > 0)
    }

    /// Whether a pod of the canary can answer.
    pub fn canary_answers(&self) -> bool {
        readiness::ready_pods(self.target) > 0
    }

    /// Creates the routes, or repairs what drifted, with the weights as they are; as the status has them, if the routes are gone.
    pub fn routes(&self) -> Result<Vec<Effect>, String> {
        use CanaryPhase as P;
        let status = phase::status(self.world);
        if matches!(status.phase, P::Initialized | P::Succeeded | P::Failed)
            && status.canary_weight == 0
        {
            return self.routes_to(&Weights::PRIMARY);
        }
        let lost = || {
            if self.canary_answers() {
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
        self.readiness(
            self.target,
            analysis.and_then(|a| a.canary_ready_threshold),
            || format!("canary deployment {} not ready: ", self.world.full_target()),
        )
    }

    /// How the primary's roll-out stands; a missing one is waited for.
    pub fn primary_readiness(&self) -> Readiness {
        let name = format!(
            "{}.{}",
            self.world.canary.primary_workload_name(),
            self.world.namespace()
        );
        let Some(primary) = self.world.primary() else {
            return Readiness::Waiting(format!(
                "{name} not ready: deployment {name} get query error: not found"
            ));
        };
        let analysis = self.world.canary.spec.analysis.as_ref();
        self.readiness(
            primary,
            analysis.and_then(|a| a.primary_ready_threshold),
            || format!("{name} not ready: "),
        )
    }

    fn readiness(
        &self,
        object: &Value,
        threshold: Option<i64>,
        prefix: impl Fn() -> String,
    ) -> Readiness {
        let deadline = SignedDuration::from_secs(self.world.canary.progress_deadline_seconds());
        // A verdict from before this phase, or this step, is not about this roll-out.
        let since = phase::status(self.world).last_transition_time;
        let since = since.map_or(Timestamp::MIN, |time| time.0);
        let times = readiness::Times {
            deadline,
            since,
            now: self.world.now,
        };
        match readiness::deployment(object, threshold.unwrap_or(100), &times) {
            Readiness::Ready => Readiness::Ready,
            Readiness::Waiting(why) => Readiness::Waiting(prefix() + &why),
            Readiness::Failed(why) => Readiness::Failed(prefix() + &why),
        }
    }

    /// Whether the canary runs no pods by intention.
    pub fn is_scaled_to_zero(&self) -> bool {
        replicas(self.target) == 0
    }

    /// The Services that lead to the primary and the canary.
    pub fn services(&self) -> Services<'_> {
        Services {
            canary: &self.world.canary,
            selector: (&self.selector.0, &self.selector.1),
            template: self
                .target
                .pointer("/spec/template")
                .unwrap_or(&Value::Null),
        }
    }

    /// Scales the canary to zero; before that its scaler is paused, which would give it pods again. Nothing, if it is so.
    pub fn scale_down(&self) -> Vec<Effect> {
        let name = self.world.full_target();
        let pause = Scaler::of(self.world).and_then(|scaler| scaler.pause());
        let down = deployment::scale(
            self.target,
            0,
            format!("scaling down canary Deployment {name} failed: "),
        );
        pause.into_iter().chain(down).collect()
    }

    /// Lets the canary's scaler work, and scales the canary from zero: to what its scaler would give it at least, or to what the
    /// primary has. Nothing, if it is so, or if a scaler that may do so left it without pods in the course of its analysis.
    pub fn scale_up(&self) -> Vec<Effect> {
        let status = phase::status(self.world);
        let is_analysed = status.canary_weight > 0 || status.iterations > 0;
        let target = &self.world.canary.spec.target_ref.name;
        let target = self.world.reference(Kind::Deployment, target);
        let was_lately = self.world.mended.contains(&target);
        let to = match &self.world.canary.spec.autoscaler_ref {
            Some(_) => Scaler::of(self.world).map_or(1, |scaler| scaler.least()),
            None => self.world.primary().map_or(1, replicas),
        };
        self.wake(to, is_analysed || was_lately)
    }

    /// Lets the target's scaler work, and scales a target that has no pods to what the primary has. What its scaler does with it
    /// once it was given back, or when it is `late` for that, is the user's.
    pub fn scale_to_primary(&self, late: bool) -> Vec<Effect> {
        let may_rest = late || drain::end(self.world).is_some();
        self.wake(self.world.primary().map_or(1, replicas), may_rest)
    }

    /// `may_rest`: whether a scaler may leave the target without pods by now.
    fn wake(&self, to: i64, may_rest: bool) -> Vec<Effect> {
        let scaler = Scaler::of(self.world);
        let resume = scaler.as_ref().and_then(Scaler::resume);
        let rests = may_rest && scaler.is_some_and(|scaler| scaler.may_rest());
        let to = to.max(1);
        let up = (self.is_scaled_to_zero() && !rests).then(|| {
            let failure = format!("scaling up {} to {to} failed: ", self.world.full_target());
            deployment::scale(self.target, to, failure)
        });
        resume.into_iter().chain(up.flatten()).collect()
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
        let id = |primary: &Value| {
            primary
                .pointer("/spec/template/metadata/annotations/flagger-id")
                .cloned()
        };
        let ours = self
            .world
            .primary()
            .and_then(id)
            .is_some_and(|id| id == self.flagger_id(&applied).as_str());
        ours || (!is_ours(&applied) && self.is_what_the_primary_runs())
    }

    /// The primary's autoscaler: created if missing; in a promotion brought up to date as well.
    pub fn primary_scaler(&self, promotion: bool) -> Result<Option<Effect>, String> {
        let Some(scaler) = Scaler::of(self.world) else {
            return Ok(None);
        };
        if promotion {
            scaler.promote()
        } else {
            scaler.create()
        }
    }

    fn with_primary<T>(&self, f: impl FnOnce(&Primary<'_>) -> T) -> T {
        let settings = &self.world.settings;
        let name = self.world.canary.primary_workload_name();
        let id = self.flagger_id(&self.revision);
        f(&Primary {
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
        deployment::flagger_id(
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
                return Err(missing(world, kind, &name));
            }
        }
    }
    Ok((tracked, checksums))
}

/// That a config is missing, in the words of each of Flagger's functions that hand it on.
fn missing(world: &World, kind: Kind, name: &str) -> String {
    let (lower, plural) = (kind.name().to_lowercase(), kind.plural());
    let wrapped = format!("{lower} {name}.{} get query error: ", world.namespace());
    // The inner message has two spaces for a ConfigMap.
    let inner = wrapped.replacen("configmap ", "configmap  ", 1);
    format!("GetTargetConfigs failed: {wrapped}{inner}{plural} {name:?} not found")
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
