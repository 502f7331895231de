//! The routed weights, and the writes that change them.

use std::ops::ControlFlow;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::{
    api::{
        canary::{CanaryPhase, CanaryStatus, Strategy},
        percent::Percent,
        status::ConditionType,
    },
    notifications::Notification,
    rollout::{
        blocked::Blocked,
        messages,
        plan::{Decision, Plan, Requeue},
        reads::users_routes,
        release::Release,
        safety::own_routes,
        status::{
            StatusChange,
            change::unconfirmed_start,
            transitions::{is_between_runs, is_under_analysis},
        },
    },
    routers::affinity::Cookies,
    snapshot::{Kind, Weights, Write, pods::labels},
    workload::label_selector::includes,
};

/// How the version reaches its users.
impl Release<'_> {
    /// Whether the provider can split traffic. If not, there are no routes, and no events about routes.
    pub fn splits_traffic(&self) -> bool {
        self.router.splits_traffic()
    }

    /// The strategy. A provider that cannot split traffic allows blue/green only.
    pub fn strategy(&self) -> Strategy {
        if self.splits_traffic() {
            self.snapshot.canary.strategy()
        } else {
            Strategy::BlueGreen
        }
    }

    /// The number of iterations of blue/green and A/B testing; 10 if the provider forces blue/green (as in Flagger).
    pub fn iterations(&self) -> i64 {
        let analysis = self.snapshot.canary.spec.analysis.as_ref();
        let iterations = analysis.and_then(|analysis| analysis.iterations);
        match iterations.unwrap_or(0) {
            ..1 if !self.splits_traffic() => 10,
            iterations => iterations,
        }
    }

    /// Whether requests are mirrored to the canary before it gets any of its own.
    pub fn mirrors(&self) -> bool {
        let analysis = self.snapshot.canary.spec.analysis.as_ref();
        self.router.mirrors() && analysis.is_some_and(|analysis| analysis.mirror)
    }

    /// The event about ports whose requests do not reach the version under analysis; `None` if there are none.
    pub fn unsplit_ports(&self) -> Option<Notification> {
        let ports = self.router.unsplit_ports(self.snapshot);
        messages::run::unsplit_ports(self.snapshot, &ports)
    }

    /// Whether requests have been mirrored for an interval: the route mirrors them, and the status records the step that began this. If the
    /// status was not committed after the route, the step is repeated. (After an earlier failed check, or in a run that began again, the
    /// status cannot show this; the step then counts as recorded.)
    pub fn has_mirrored(&self, routed: Weights) -> bool {
        self.mirrors() && routed.mirrored && unconfirmed_start(self.snapshot.status()).is_none()
    }
}

/// The state of the routes.
impl Release<'_> {
    /// The routed weights.
    pub fn weights(&self) -> Result<Weights, Blocked> {
        Ok(self.router.current_weights(self.snapshot)?)
    }

    /// The weights on which the next step builds: those that are routed or, in routes of the user, those of the status. Others may edit
    /// the weights of such a route at any time, and that is no progress of the release.
    pub fn reached_weights(&self) -> Result<Weights, Blocked> {
        if self.router.are_users() {
            return Ok(self.expected_weights(self.snapshot.status()));
        }
        self.weights()
    }

    /// The writes that take the canary's traffic from some routes of the user, while a rule of another one cannot be changed; none otherwise.
    pub fn partial_withdrawal(&self) -> Vec<Write> {
        let snapshot = self.snapshot;
        if !self.router.are_users() || self.weights().is_ok() || !snapshot.primary_has_ready_pods()
        {
            return Vec::new();
        }
        let writes = self.router.set_weights(snapshot, &Weights::PRIMARY);
        let mut writes = writes.unwrap_or_default();
        writes.retain(|write| !snapshot.is_paused(write));
        writes
    }

    /// The reason why a route of the user cannot be used, does not have the weights of the release, or cannot be given back; `None` if there
    /// is none.
    pub fn users_routes_trouble(&self) -> Option<String> {
        if let Some(why) = own_routes::not_given_back(self.snapshot) {
            return Some(why);
        }
        match self.router.are_users().then(|| self.routes())? {
            Ok(repairs) => {
                let first = repairs.first()?;
                Some(messages::run::weights_changed(&first.object))
            }
            Err(why) => Some(why.to_string()),
        }
    }

    /// Whether a repair is left out now. The weights of a user's route are put back at once, also within a step; if another actor changes
    /// them again and again, with growing pauses.
    pub fn leaves_out_repair(&self, write: &Write) -> bool {
        let snapshot = self.snapshot;
        let is_refused = || {
            snapshot
                .refused
                .as_ref()
                .is_some_and(|it| it.object == write.object)
        };
        let is_own = self
            .router
            .objects(&snapshot.canary)
            .contains(&write.object);
        if self.router.are_users() && is_own && !is_refused() {
            return snapshot.is_paused(write);
        }
        snapshot.leaves_out(write)
    }

    /// Whether clients reach the primary, through the routes and through the Service.
    pub fn leads_to_primary(&self) -> bool {
        let canary = &self.snapshot.canary;
        let is_selected = || {
            let apex = self.snapshot.object(Kind::Service, canary.apex_name())?;
            let selected = labels(apex.pointer("/spec/selector"));
            Some(includes(&selected, &self.selection.primary))
        };
        self.weights().is_ok_and(|now| now == Weights::PRIMARY)
            && (!self.kind.has_pods() || is_selected().unwrap_or(false))
    }

    /// Whether the primary counts as the workload that answers clients. After a failed promotion it does not, so that a fix can start
    /// although the primary is not ready.
    pub fn primary_serves(&self) -> bool {
        !self.promotion_failed() && self.primary_is_called()
    }

    /// Whether clients call the primary. In an A/B test, the clients that match no condition call it.
    pub fn primary_is_called(&self) -> bool {
        let all_on_canary = self.splits_traffic()
            && self
                .weights()
                .is_ok_and(|weights| weights.canary == Percent::ALL);
        !all_on_canary || self.snapshot.canary.strategy() == Strategy::AbTesting
    }

    /// Whether the primary still has a version with which it did not become ready.
    pub fn promotion_failed(&self) -> bool {
        let status = self.snapshot.status();
        status.has_condition(ConditionType::PromotionFailed)
    }

    /// The weights for a version that must get no traffic: all to the primary. After a failed promotion, the routed weights stay while the
    /// primary has no ready pod.
    pub fn fallback_weights(&self) -> Result<Weights, Blocked> {
        if !self.promotion_failed() || self.snapshot.primary_has_ready_pods() {
            return Ok(Weights::PRIMARY);
        }
        Ok(Weights::canary(self.weights()?.canary))
    }

    /// The decision to wait until the data plane has applied the written weights; `None` if it has. A delay after a write of the current
    /// tick is not reported.
    pub fn routes_pending(&self) -> Option<Decision> {
        if let Some(why) = self.users_routes_trouble() {
            let event = messages::warning(self.snapshot, why);
            return Some(Decision::Wait(Requeue::Ready, vec![event]));
        }
        let why = self.router.accepted(self.snapshot).err()?;
        let mut routes = self.router.objects(&self.snapshot.canary).into_iter();
        let is_fresh = self.router.lag(self.snapshot).is_some()
            && routes.any(|route| self.snapshot.recently_written.contains(&route));
        let event = (!is_fresh).then(|| messages::warning(self.snapshot, why.to_string()));
        Some(Decision::Wait(Requeue::Ready, event.into_iter().collect()))
    }

    /// Returns the reason why the data plane has not accepted the routes, or why routes of the user cannot be used, if this has lasted for
    /// longer than the progress deadline.
    pub fn routes_overdue(&self) -> Option<String> {
        let snapshot = self.snapshot;
        let refusal = || Some(self.router.accepted(snapshot).err()?.to_string());
        let why = self.users_routes_trouble().or_else(refusal)?;
        let canary = snapshot.reference(Kind::Canary, snapshot.name());
        let stalled = snapshot.stalled.get(&canary).copied();
        let since = stalled.into_iter().chain(self.users_routes_undone_since());
        snapshot
            .exceeds_deadline(Some(&Time(since.min()?)))
            .then_some(why)
    }

    /// The time since which another actor undoes the weights of a user's route and holds up the step. It may leave them alone for a moment
    /// each time, so the route does not count as stalled.
    fn users_routes_undone_since(&self) -> Option<Timestamp> {
        let snapshot = self.snapshot;
        let routes = users_routes(snapshot);
        let undone = routes.iter().filter_map(|route| snapshot.undone.get(route));
        let since = undone.min()?;
        let last_step = snapshot.status().last_transition_time.as_ref()?.0;
        let next_step = last_step.checked_add(snapshot.canary.interval()).ok()?;
        Some(next_step.max(*since))
    }

    /// The decision to wait for proxies that lag behind the written routes; `None` if they do not. The delay is reported only at a tick.
    pub fn routes_lag(&self) -> Option<Decision> {
        let why = self.router.lag(self.snapshot)?;
        let tick = self.snapshot.tick.as_ref();
        let event = tick.map(|_| messages::warning(self.snapshot, why.to_string()));
        Some(Decision::Wait(Requeue::Ready, event.into_iter().collect()))
    }
}

/// The writes of routes.
impl Release<'_> {
    /// The plan that routes these weights and commits this status. If the routes need cookies of session affinity that the status does not
    /// have, the plan commits the cookies first.
    pub fn move_traffic(
        &self,
        weights: &Weights,
        step: StatusChange<'_>,
        event: Option<Notification>,
    ) -> Result<Decision, Blocked> {
        let step = if weights.canary == Percent::ZERO {
            step.retire_cookies()
        } else if let Some(cookies) = self.new_cookies() {
            let kept = StatusChange::within_step(self.snapshot).with(|status| cookies.keep(status));
            return Ok(Decision::commit(kept.build(), Vec::new()));
        } else {
            step
        };
        Ok(Decision::Do(Plan {
            writes: self.set_weights(weights)?,
            status: Some(step.build()),
            notifications: event.into_iter().collect(),
        }))
    }

    /// The cookies of session affinity that routes to the canary need and the status does not have.
    fn new_cookies(&self) -> Option<Cookies> {
        let Self {
            snapshot, router, ..
        } = self;
        router.new_cookies(&snapshot.canary, snapshot.nonce)
    }

    /// The writes that route these weights; none if they are routed already. It is an error to raise the weight of a workload without a
    /// ready pod while the other has one.
    pub fn set_weights(&self, weights: &Weights) -> Result<Vec<Write>, Blocked> {
        if !self.splits_traffic() {
            return Ok(Vec::new());
        }
        let now = self.weights()?;
        let no_ready_pod = |workload: String| Blocked::NoReadyPod {
            workload,
            namespace: self.snapshot.namespace().to_owned(),
        };
        if self.misses_primary(now, *weights) {
            return Err(no_ready_pod(self.snapshot.canary.primary_workload_name()));
        }
        if self.misses_canary(now, *weights) {
            let target = &self.snapshot.canary.spec.target_ref.name;
            return Err(no_ready_pod(target.clone()));
        }
        Ok(self.router.set_weights(self.snapshot, weights)?)
    }

    /// Whether more requests would reach a primary without a ready pod, although the canary has one.
    fn misses_primary(&self, now: Weights, then: Weights) -> bool {
        let snapshot = self.snapshot;
        then.primary > now.primary
            && !snapshot.primary_has_ready_pods()
            && snapshot.canary_has_ready_pods()
    }

    /// Whether more requests would reach a canary without a ready pod.
    fn misses_canary(&self, now: Weights, then: Weights) -> bool {
        then.canary > now.canary && !self.snapshot.canary_has_ready_pods()
    }

    /// The writes that create or repair the routes. Between runs the weights are those of the phase. During a run the routed weights stay;
    /// if the routes are gone, the weights follow from the status.
    pub fn routes(&self) -> Result<Vec<Write>, Blocked> {
        let status = self.snapshot.status();
        if is_between_runs(status.phase) && status.canary_weight == 0 {
            return self.routes_to(&Weights::PRIMARY);
        }
        let expected = self.expected_weights(status);
        if self.router.are_users() {
            return self.repaired(self.kept_weights(expected)?);
        }
        let weights = self.weights().unwrap_or({
            if self.snapshot.canary_has_ready_pods() {
                expected
            } else {
                Weights::PRIMARY
            }
        });
        // In an A/B test, the routed weight means all matching requests. If the match is removed, the same weight would mean the requests
        // of all clients, so the expected weight is the limit.
        let weights = if weights.canary > expected.canary && !self.to_adopt() {
            expected
        } else {
            weights
        };
        self.repaired(weights)
    }

    /// The weights that routes of the user must have: those of the status, or those that the operator may have written to all rules before it
    /// was interrupted and could not write the status.
    fn kept_weights(&self, expected: Weights) -> Result<Weights, Blocked> {
        let now = self.weights()?;
        let snapshot = self.snapshot;
        let is_left = if expected.canary > now.canary {
            // A newer version loses the traffic of the older one; a promoted version, or a failed one, gives it back to the primary.
            self.changed()
                || (!is_under_analysis(snapshot.phase()) && snapshot.primary_has_ready_pods())
        } else {
            let is_paused = snapshot.status().has_condition(ConditionType::Paused);
            // In one rule of several, another actor may have written them.
            let have_all = || self.router.set_weights(snapshot, &now);
            !is_paused
                && now == self.next_weights(expected)
                && have_all().is_ok_and(|writes| writes.is_empty())
        };
        Ok(if is_left { now } else { expected })
    }

    /// The weights after the next step, if it gives the canary more.
    fn next_weights(&self, expected: Weights) -> Weights {
        let status = self.snapshot.status();
        match (status.phase, self.strategy()) {
            (CanaryPhase::Progressing, Strategy::Canary) => {
                Weights::canary(self.snapshot.canary.next_weight(status.weight()))
            }
            (CanaryPhase::Progressing, Strategy::BlueGreen)
                if status.iterations >= self.iterations() =>
            {
                Weights::CANARY
            }
            // Before the primary gets the version, it may lose all its pods (`Recreate`).
            (CanaryPhase::Promoting, Strategy::Canary) => Weights::CANARY,
            _ => expected,
        }
    }

    /// The writes that create those objects of the router which must exist before the primary's pods.
    pub fn before_pods(&self) -> Result<Vec<Write>, Blocked> {
        let label = &self.selection.label;
        Ok(self.router.before_pods(self.snapshot, label)?)
    }

    /// The writes that create or repair the routes and give them these weights.
    pub fn routes_to(&self, weights: &Weights) -> Result<Vec<Write>, Blocked> {
        let writes = self.repaired(*weights)?;
        match self.weights() {
            // A reconcile writes each object once: repaired routes get their weights in the next one.
            Ok(now) if writes.is_empty() && now != *weights => self.set_weights(weights),
            _ => Ok(writes),
        }
    }

    /// The writes that create or repair the routes with these weights. If a workload without a ready pod would get more requests, the
    /// routed weights stay.
    fn repaired(&self, weights: Weights) -> Result<Vec<Write>, Blocked> {
        let weights = match self.weights() {
            Ok(now) if self.misses_primary(now, weights) || self.misses_canary(now, weights) => now,
            _ => weights,
        };
        let Self {
            snapshot,
            selection,
            ..
        } = self;
        Ok(self
            .router
            .reconcile(snapshot, &selection.label, &weights)?)
    }

    /// The weights that follow from a status.
    pub fn expected_weights(&self, status: &CanaryStatus) -> Weights {
        use CanaryPhase as P;
        match (status.phase, self.strategy()) {
            (P::Progressing | P::WaitingPromotion | P::Promoting, Strategy::AbTesting)
                if status.iterations > 0 =>
            {
                Weights::CANARY
            }
            (P::Progressing | P::WaitingPromotion | P::Promoting, Strategy::BlueGreen)
                if status.iterations > self.iterations() =>
            {
                // A promotion in steps (`stepWeightPromotion`) has taken traffic back from the canary already.
                match self.routable(status.weight()) {
                    left if status.phase == P::Promoting && left > Percent::ZERO => {
                        Weights::canary(left)
                    }
                    _ => Weights::CANARY,
                }
            }
            (P::Progressing | P::WaitingPromotion | P::Promoting | P::Failed, _) => {
                Weights::canary(self.routable(status.weight()))
            }
            _ => Weights::PRIMARY,
        }
    }

    /// The weight that the router can set in place of this one. A user may change the provider during a run.
    fn routable(&self, weight: Percent) -> Percent {
        if self.router.splits_tenths() {
            weight
        } else {
            weight.rounded_down()
        }
    }

    /// The writes that announce new Services to proxies before the `coming` routes lead there. Writes that were tried since the last tick
    /// are left out.
    pub fn announce(&self, coming: &[Write]) -> Vec<Write> {
        let first = |write| self.router.announce(self.snapshot, write);
        let mut writes: Vec<_> = coming.iter().filter_map(first).collect();
        writes.retain(|write| !self.snapshot.leaves_out(write));
        writes
    }

    /// Whether a write was tried since the last tick: if another actor reverts it, the next attempt waits for the next tick. While
    /// temporary routes exist, the announcement was written, not `coming`. So `coming` counts as tried only if the route leads to our
    /// Services already.
    pub fn is_tried(&self, coming: &Write) -> bool {
        if self.router.is_announced(self.snapshot, coming) {
            return self.weights().is_ok();
        }
        self.snapshot.leaves_out(coming)
    }

    /// The write that removes routes which proxies no longer need; `None` if there are none.
    pub fn tidy_routes(&self) -> Option<Write> {
        self.router.tidy(self.snapshot)
    }

    /// Continues with the value, or breaks with the report of the obstacle.
    pub fn or_report<T>(&self, result: Result<T, Blocked>) -> ControlFlow<Decision, T> {
        match result {
            Ok(value) => ControlFlow::Continue(value),
            Err(blocked) => ControlFlow::Break(blocked.report(self.snapshot)),
        }
    }
}
