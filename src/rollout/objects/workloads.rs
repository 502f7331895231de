//! The writes of everything but routes: Services, the scale of the target, the primary, its configs and its autoscaler.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{
    notifications::Notification,
    rollout::{blocked::Blocked, messages::run, release::Release, status::draining},
    snapshot::{
        Kind, Readiness, TargetKind, Write, pods::labels, readiness::replicas, revision::is_ours,
    },
    workload::{
        self, deployment, knative,
        metadata::owner_reference,
        primary::{self, Primary},
        scaler::Scaler,
        service::Services,
        service_target, strategy,
    },
};

impl Release<'_> {
    fn services(&self) -> Services<'_> {
        Services {
            canary: &self.snapshot.canary,
            selection: &self.selection,
            template: self
                .target
                .pointer("/spec/template")
                .unwrap_or(&Value::Null),
        }
    }

    /// The writes that create or repair the Services of the canary and of the primary. If the target is a Service, only a copy of it for
    /// the canary is needed, and none if Knative makes the Services.
    pub fn workload_services(&self) -> Vec<Write> {
        let canary = &self.snapshot.canary;
        let live = |name: &str| self.snapshot.object(Kind::Service, name);
        if self.kind == TargetKind::Knative {
            return Vec::new();
        }
        if self.kind == TargetKind::Service {
            let name = format!("{}-canary", canary.spec.target_ref.name);
            let follows = service_target::canary_service(canary, self.target, live(&name));
            return follows.into_iter().collect();
        }
        let services = self.services();
        let primary = canary.primary_name();
        let follows = services.canary(live(&canary.canary_name()));
        let primary = match self.serving_instead(&primary) {
            Some(_) => None,
            None => services.primary(live(&primary)),
        };
        follows.into_iter().chain(primary).collect()
    }

    /// The write that makes the Service that clients call select the primary's pods; `None` if it selects them already.
    pub fn apex_service(&self) -> Option<Write> {
        let name = self.snapshot.canary.apex_name();
        let live = self.snapshot.object(Kind::Service, name);
        (self.kind.has_pods() && self.serving_instead(name).is_none())
            .then(|| self.services().apex(live))
            .flatten()
    }

    /// The workload whose ready pods answer the requests to this Service of the primary, while no pod of the primary is ready. The Service
    /// keeps its selector until then. Returns `None` if the Service does not exist, or may lead to the primary.
    pub fn serving_instead(&self, service: &str) -> Option<String> {
        if !self.kind.has_pods() || self.snapshot.primary_has_ready_pods() {
            return None;
        }
        let live = self.snapshot.object(Kind::Service, service)?;
        let selected = labels(live.pointer("/spec/selector"));
        if selected.is_empty() || selected == self.selection.primary {
            return None;
        }
        self.workloads().serving(&selected)
    }

    /// The events about Services that keep a selector which is not the primary's.
    pub fn kept_selectors(&self) -> Vec<Notification> {
        let canary = &self.snapshot.canary;
        let primary = canary.primary_name();
        [canary.apex_name(), &primary]
            .into_iter()
            .filter_map(|service| {
                let serving = self.serving_instead(service)?;
                Some(run::keeps_selector(self.snapshot, service, &serving))
            })
            .collect()
    }

    /// The write that makes the Service that clients call select the target's pods again; `None` if it selects them already.
    pub fn restored_apex(&self) -> Option<Write> {
        let name = self.snapshot.canary.apex_name();
        let live = self.snapshot.object(Kind::Service, name);
        self.kind
            .has_pods()
            .then(|| self.services().restored_apex(live))
            .flatten()
    }

    /// The writes that scale the canary to zero; none if it is at zero. Its autoscaler, which would scale the canary up again, is
    /// paused first.
    pub fn scale_down(&self) -> Vec<Write> {
        let pause = Scaler::of(self.snapshot).and_then(|scaler| scaler.pause());
        let failure = format!(
            "scaling down canary {} {} failed: ",
            self.kind.kind().name(),
            self.snapshot.full_target()
        );
        let down = workload::scale_to_zero(self.kind, self.target, failure);
        pause.into_iter().chain(down).collect()
    }

    /// The writes that scale the canary up from zero and resume its autoscaler: to the autoscaler's minimum, or to the primary's replicas.
    /// Returns none if the canary has pods, or if an autoscaler that may scale to zero did so during the analysis.
    pub fn scale_up(&self) -> Vec<Write> {
        let status = self.snapshot.status();
        let is_analysed = status.canary_weight > 0 || status.iterations > 0;
        let target = &self.snapshot.canary.spec.target_ref.name;
        let target = self.snapshot.reference(self.kind.kind(), target);
        let was_just_written = self.snapshot.recently_written.contains(&target);
        let to = match &self.snapshot.canary.spec.autoscaler_ref {
            Some(_) => Scaler::of(self.snapshot).map_or(1, |scaler| scaler.min_replicas()),
            None => self.snapshot.primary().map_or(1, replicas),
        };
        self.wake(to, is_analysed || was_just_written)
    }

    /// The writes of a deletion that resume the target's autoscaler and give a target at zero as many pods as the primary has. Once the
    /// routes are restored, or if the deletion is `late`, the autoscaler may keep the target at zero.
    pub fn scale_to_primary(&self, late: bool) -> Vec<Write> {
        let may_stay_at_zero = late || draining::end(self.snapshot).is_some();
        self.wake(
            self.snapshot.primary().map_or(1, replicas),
            may_stay_at_zero,
        )
    }

    /// `may_stay_at_zero`: whether the autoscaler may keep the target at zero now.
    fn wake(&self, to: i64, may_stay_at_zero: bool) -> Vec<Write> {
        let scaler = Scaler::of(self.snapshot);
        let resume = scaler.as_ref().and_then(Scaler::resume);
        let stays = may_stay_at_zero && scaler.is_some_and(|scaler| scaler.may_scale_to_zero());
        let to = to.max(1);
        let up = (self.is_scaled_to_zero() && !stays).then(|| {
            let failure = format!(
                "scaling up {} to {to} failed: ",
                self.snapshot.full_target()
            );
            workload::scale_from_zero(self.kind, self.target, to, failure)
        });
        resume.into_iter().chain(up.flatten()).collect()
    }

    /// The writes that create the copies of the configs, then the primary.
    fn create_primary(&self) -> Vec<Write> {
        if let Some(revision) = self.unmarked_primary() {
            return vec![knative::mark(self.target, &revision)];
        }
        let mut writes = self.config_copies();
        #[expect(
            clippy::redundant_closure_for_method_calls,
            reason = "the method is not general enough over lifetimes"
        )]
        writes.extend(self.with_primary(|wanted| wanted.create()));
        writes
    }

    /// The writes that give the primary the target's template and configs; none if it has them.
    pub fn promote(&self) -> Vec<Write> {
        let Some(primary) = self.snapshot.primary() else {
            return self.create_primary();
        };
        let mut writes = self.config_copies();
        writes
            .extend(self.with_primary(|wanted| wanted.promote(primary, self.primary_is_called())));
        writes
    }

    /// The write that gives the primary the target's replicas after a promotion, if these are fewer and no autoscaler sets them.
    pub fn trim_primary(&self) -> Option<Write> {
        let primary = self.snapshot.primary()?;
        let is_free = self.kind == TargetKind::Deployment
            && self.snapshot.canary.spec.autoscaler_ref.is_none();
        let change = is_free.then(|| deployment::lower_replicas(self.target, primary))??;
        let name = self.snapshot.canary.primary_workload_name();
        let failure = format!("scaling down {name}.{} failed: ", self.snapshot.namespace());
        Some(workload::change_write(self.kind, primary, change, failure))
    }

    /// The write that scales the primary up from zero; `None` if it has pods. Its autoscaler, or a person, may have scaled it down while no
    /// client called it. It gets as many pods as the canary, because it takes over the canary's requests.
    pub fn wake_primary(&self) -> Option<Write> {
        let primary = self
            .snapshot
            .primary()
            .filter(|primary| self.kind.is_at_zero(primary))?;
        let to = replicas(self.target).max(1);
        let name = self.snapshot.canary.primary_workload_name();
        let failure = format!(
            "scaling up {name}.{} to {to} failed: ",
            self.snapshot.namespace()
        );
        workload::scale_from_zero(self.kind, primary, to, failure)
    }

    /// The write that gives the primary the target's strategy back, once the primary is ready after an update with a strategy that keeps
    /// pods.
    pub fn restored_strategy(&self) -> Option<Write> {
        let primary = self.snapshot.primary()?;
        let change = strategy::restored(self.kind, self.target, primary)?;
        // The strategy belongs to the version: if the target has a version that was not promoted, the primary must not get its strategy.
        if !self.primary_runs_the_target() {
            return None;
        }
        let is_ready = self.primary_readiness() == Readiness::Ready;
        let name = self.snapshot.canary.primary_workload_name();
        let namespace = self.snapshot.namespace();
        let failure = format!("updating the strategy of {name}.{namespace} failed: ");
        is_ready.then(|| workload::change_write(self.kind, primary, change, failure))
    }

    /// Whether the promotion may take all pods of the primary away before new ones are ready.
    pub fn promotion_stops_all_pods(&self) -> bool {
        let primary = self.snapshot.primary();
        primary.is_some_and(|primary| strategy::stops_all_pods(self.kind, self.target, primary))
    }

    /// Whether the primary has the revision of this run, with the configs of this run.
    pub fn is_promoted(&self) -> bool {
        let status = self.snapshot.status();
        let applied = status.last_applied_spec.clone().unwrap_or_default();
        let was = |primary| {
            [&self.configs, &status.tracked_configs]
                .into_iter()
                .any(|configs| {
                    let id = self.flagger_id(&applied, configs.as_ref());
                    self.with_primary(|wanted| wanted.was_promoted(primary, &id, &applied))
                })
        };
        self.snapshot.primary().is_some_and(was)
            || (!is_ours(&applied) && self.primary_runs_the_target())
    }

    /// Whether the mark of the primary shows that it was promoted with the present configs. It does not matter which run is in progress
    /// now.
    pub fn primary_has_these_configs(&self) -> bool {
        let promoted = self.snapshot.status().last_promoted_spec.as_ref();
        let has_mark = |promoted: &String| {
            let id = self.flagger_id(promoted, self.configs.as_ref());
            let was =
                |primary| self.with_primary(|wanted| wanted.was_promoted(primary, &id, promoted));
            self.kind.has_pods() && self.snapshot.primary().is_some_and(was)
        };
        promoted.is_some_and(has_mark)
    }

    /// The write that creates the primary's autoscaler, or in a promotion also updates it; `None` if it is up to date.
    pub fn primary_scaler(&self, promotion: bool) -> Result<Option<Write>, Blocked> {
        let Some(scaler) = Scaler::of(self.snapshot) else {
            return Ok(None);
        };
        let write = if promotion {
            scaler.promote()
        } else {
            scaler.create()
        };
        Ok(write?)
    }

    /// Calls `f` with the wanted primary.
    pub fn with_primary<T>(&self, f: impl FnOnce(&Primary<'_>) -> T) -> T {
        let settings = &self.snapshot.settings;
        let name = self.snapshot.canary.primary_workload_name();
        let id = self.flagger_id(&self.revision, self.configs.as_ref());
        f(&Primary {
            kind: self.kind,
            target: self.target,
            name: &name,
            selection: &self.selection,
            selector_labels: &settings.selector_labels,
            include_label_prefix: &settings.include_label_prefix,
            tracked: &self.tracked,
            flagger_id: &id,
            owner: owner_reference(&self.snapshot.canary),
            autoscaled: self.snapshot.canary.spec.autoscaler_ref.is_some(),
        })
    }

    fn flagger_id(&self, revision: &str, configs: Option<&BTreeMap<String, String>>) -> String {
        let configs = serde_json::to_string(&configs).unwrap_or_default();
        primary::flagger_id(
            self.snapshot
                .canary
                .metadata
                .uid
                .as_deref()
                .unwrap_or_default(),
            revision,
            &configs,
        )
    }
}
