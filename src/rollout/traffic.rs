//! Where traffic is, where it belongs, and the writes that move it.

use super::{
    events::event,
    phase::{self, ConditionType},
    plan::{Decision, Requeue},
    release::Release,
};
use crate::{
    api::canary::{CanaryPhase, Strategy},
    notifications::EventKind,
    routers::affinity::Cookies,
    snapshot::{Kind, TargetKind, Weights, Write},
};

impl Release<'_> {
    /// The weights as they are routed.
    pub fn weights(&self) -> Result<Weights, String> {
        let weights = self.router.current_weights(self.snapshot);
        weights.map_err(|error| error.to_string())
    }

    /// Whether clients come to the primary, by the routes as by the Service.
    pub fn leads_to_primary(&self) -> bool {
        let canary = &self.snapshot.canary;
        let (label, value) = &self.selector;
        let is_selected = || {
            let apex = self.snapshot.object(Kind::Service, canary.apex_name())?;
            let selected = apex.pointer("/spec/selector")?.get(label)?.as_str()?;
            Some(selected == format!("{value}-primary"))
        };
        self.weights().is_ok_and(|now| now == Weights::PRIMARY)
            && (self.kind == TargetKind::Service || is_selected().unwrap_or(false))
    }

    /// Whether traffic can be divided at all: otherwise there is nothing to say of routing.
    pub fn splits_traffic(&self) -> bool {
        self.router.splits_traffic()
    }

    /// How the version meets its users: where traffic cannot be divided there is only blue/green.
    pub fn strategy(&self) -> Strategy {
        if self.splits_traffic() {
            self.snapshot.canary.strategy()
        } else {
            Strategy::BlueGreen
        }
    }

    /// How many iterations blue/green and A/B testing take; 10 where blue/green was not asked for (as in Flagger).
    pub fn iterations(&self) -> i64 {
        let analysis = self.snapshot.canary.spec.analysis.as_ref();
        let asked = analysis.and_then(|analysis| analysis.iterations);
        match asked.unwrap_or(0) {
            ..1 if !self.splits_traffic() => 10,
            iterations => iterations,
        }
    }

    /// Whether the version gets copies of the requests before it gets any.
    pub fn mirrors(&self) -> bool {
        let analysis = self.snapshot.canary.spec.analysis.as_ref();
        self.router.mirrors() && analysis.is_some_and(|analysis| analysis.mirror)
    }

    /// The cookies of session affinity that a share of the traffic for the canary needs, and the status lacks.
    pub fn new_cookies(&self) -> Option<Cookies> {
        let Self {
            snapshot, router, ..
        } = self;
        router.new_cookies(&snapshot.canary, snapshot.nonce)
    }

    /// Waits until the weights as they are written are in force. That those who carry them out are behind with what was written since the
    /// last tick is not said.
    pub fn routes_pending(&self) -> Option<Decision> {
        let why = self.router.accepted(self.snapshot).err()?.to_string();
        let mut routes = self.router.objects(&self.snapshot.canary).into_iter();
        let is_fresh = self.router.lag(self.snapshot).is_some()
            && routes.any(|route| self.snapshot.recently_written.contains(&route));
        let said = (!is_fresh).then(|| event(self.snapshot, EventKind::Warning, why));
        Some(Decision::Wait(Requeue::Ready, said.into_iter().collect()))
    }

    /// What proxies must know before these writes, as far as it has not been tried since the last tick.
    pub fn announce(&self, coming: &[Write]) -> Vec<Write> {
        let first = |write| self.router.announce(self.snapshot, write);
        let mut writes: Vec<_> = coming.iter().filter_map(first).collect();
        writes.retain(|write| !self.snapshot.recently_written.contains(&write.object));
        writes
    }

    /// Whether a write has had its turn: what somebody changes back all the time is not argued with before the next tick. One that goes on
    /// with what was announced has not; one that takes away what is left has time.
    pub fn is_tried(&self, coming: &Write) -> bool {
        if self.router.is_announced(self.snapshot, coming) {
            return self.weights().is_ok();
        }
        self.snapshot.recently_written.contains(&coming.object)
    }

    /// Takes away what proxies need no more.
    pub fn tidy_routes(&self) -> Option<Write> {
        self.router.tidy(self.snapshot)
    }

    /// Waits for proxies that are behind with the routes as they are written; at a tick that is said.
    pub fn routes_lag(&self) -> Option<Decision> {
        let why = self.router.lag(self.snapshot)?.to_string();
        let tick = self.snapshot.tick.as_ref();
        let said = tick.map(|_| event(self.snapshot, EventKind::Warning, why));
        Some(Decision::Wait(Requeue::Ready, said.into_iter().collect()))
    }

    /// Routes these weights; nothing if they are routed already, and never more to a side where no pod answers while the
    /// other's do.
    pub fn set_weights(&self, weights: &Weights) -> Result<Vec<Write>, String> {
        if !self.splits_traffic() {
            return Ok(Vec::new());
        }
        let now = self.weights()?;
        let name = |name: &str| {
            format!(
                "{name}.{} has no ready pod: traffic stays where it is",
                self.snapshot.namespace()
            )
        };
        if self.misses_primary(now, *weights) {
            return Err(name(&self.snapshot.canary.primary_workload_name()));
        }
        if self.misses_canary(now, *weights) {
            return Err(name(&self.snapshot.canary.spec.target_ref.name));
        }
        let writes = self.router.set_weights(self.snapshot, weights);
        writes.map_err(|error| error.to_string())
    }

    /// Whether more requests would meet a primary that does not answer, although the canary does.
    fn misses_primary(&self, now: Weights, then: Weights) -> bool {
        let snapshot = self.snapshot;
        then.primary > now.primary
            && !snapshot.primary_has_ready_pods()
            && snapshot.canary_has_ready_pods()
    }

    /// Whether more requests would meet a canary that does not answer.
    fn misses_canary(&self, now: Weights, then: Weights) -> bool {
        then.canary > now.canary && !self.snapshot.canary_has_ready_pods()
    }

    /// Makes the routes, or repairs them, with these weights; where these would miss, with those that are routed.
    fn repaired(&self, weights: Weights) -> Result<Vec<Write>, String> {
        let weights = match self.weights() {
            Ok(now) if self.misses_primary(now, weights) || self.misses_canary(now, weights) => now,
            _ => weights,
        };
        let writes = self
            .router
            .reconcile(self.snapshot, &self.selector, &weights);
        writes.map_err(|error| error.to_string())
    }

    /// Whether clients are answered by the primary. After a promotion that failed they are not: a version that mends it must be able
    /// to come, although the primary is not ready.
    pub fn primary_serves(&self) -> bool {
        let all_on_canary =
            self.splits_traffic() && self.weights().is_ok_and(|weights| weights.canary == 100);
        !self.promotion_failed()
            && (!all_on_canary || self.snapshot.canary.strategy() == Strategy::AbTesting)
    }

    /// Whether the primary still has a version with which it did not become ready.
    pub fn promotion_failed(&self) -> bool {
        phase::condition(self.snapshot, ConditionType::PromotionFailed).is_some()
    }

    /// Where traffic goes when a version is out of the question: to the primary; while that one is broken it stays where it is.
    pub fn fallback_weights(&self) -> Result<Weights, String> {
        if !self.promotion_failed() || self.snapshot.primary_has_ready_pods() {
            return Ok(Weights::PRIMARY);
        }
        Ok(Weights::canary(self.weights()?.canary))
    }

    /// Creates the routes, or repairs what drifted, with the weights as they are; as the status has them, if the routes are gone.
    pub fn routes(&self) -> Result<Vec<Write>, String> {
        use CanaryPhase as P;
        let status = phase::status(self.snapshot);
        if matches!(
            status.phase,
            P::Initialized | P::Waiting | P::Succeeded | P::Failed
        ) && status.canary_weight == 0
        {
            return self.routes_to(&Weights::PRIMARY);
        }
        let lost = || {
            if self.snapshot.canary_has_ready_pods() {
                self.expected_weights()
            } else {
                Weights::PRIMARY
            }
        };
        let weights = self.weights().unwrap_or_else(|_| lost());
        let expected = self.expected_weights();
        // All the traffic of an A/B test is that of the requests that match: when the test goes, everybody's would be too much.
        let weights = if weights.canary > expected.canary && !self.to_adopt() {
            expected
        } else {
            weights
        };
        self.repaired(weights)
    }

    /// Creates the routes, or repairs what drifted, with these weights.
    pub fn routes_to(&self, weights: &Weights) -> Result<Vec<Write>, String> {
        let writes = self.repaired(*weights)?;
        match self.weights() {
            // One write at a time: what is repaired gets its weights in the next look, if not in this.
            Ok(now) if writes.is_empty() && now != *weights => self.set_weights(weights),
            _ => Ok(writes),
        }
    }

    fn expected_weights(&self) -> Weights {
        use CanaryPhase as P;
        let status = phase::status(self.snapshot);
        match (status.phase, self.strategy()) {
            (P::Progressing | P::WaitingPromotion | P::Promoting, Strategy::AbTesting)
                if status.iterations > 0 =>
            {
                Weights::CANARY
            }
            (P::Progressing | P::WaitingPromotion | P::Promoting, Strategy::BlueGreen)
                if status.iterations > self.iterations() =>
            {
                Weights::CANARY
            }
            (P::Progressing | P::WaitingPromotion | P::Promoting | P::Failed, _) => {
                Weights::canary(u8::try_from(status.canary_weight.clamp(0, 100)).unwrap_or(0))
            }
            _ => Weights::PRIMARY,
        }
    }
}
