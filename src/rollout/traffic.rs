//! Where traffic is, where it belongs, and the writes that move it.

use super::{
    facts::Facts,
    phase::{self, Intent},
    plan::{Decision, Next},
    say::event,
};
use crate::{
    api::canary::{CanaryPhase, Strategy},
    notice::EventKind,
    route::{self, affinity::Cookies},
    world::{Effect, Kind, TargetKind, Weights},
};

impl Facts<'_> {
    /// The weights as they are routed.
    pub fn weights(&self) -> Result<Weights, String> {
        route::read(self.dialect, self.world)
    }

    /// Whether clients come to the primary, by the routes as by the Service.
    pub fn leads_to_primary(&self) -> bool {
        let canary = &self.world.canary;
        let (label, value) = &self.selector;
        let is_selected = || {
            let apex = self.world.object(Kind::Service, canary.apex_name())?;
            let selected = apex.pointer("/spec/selector")?.get(label)?.as_str()?;
            Some(selected == format!("{value}-primary"))
        };
        self.weights().is_ok_and(|now| now == Weights::PRIMARY)
            && (self.kind == TargetKind::Service || is_selected().unwrap_or(false))
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
        self.dialect.mirrors() && analysis.is_some_and(|analysis| analysis.mirror)
    }

    /// The cookies of session affinity that a share of the traffic for the canary needs, and the status lacks.
    pub fn new_cookies(&self) -> Option<Cookies> {
        route::new_cookies(self.dialect, &self.world.canary, self.world.nonce)
    }

    /// Waits until the weights as they are written are in force. That those who carry them out are behind with what was written since the
    /// last due is not said.
    pub fn routes_pending(&self) -> Option<Decision> {
        let why = route::accepted(self.dialect, self.world).err()?;
        let mut routes = route::objects(self.dialect, &self.world.canary).into_iter();
        let is_fresh = route::lag(self.dialect, self.world).is_some()
            && routes.any(|route| self.world.mended.contains(&route));
        let said = (!is_fresh).then(|| event(self.world, EventKind::Warning, why));
        Some(Decision::Wait(Next::Ready, said.into_iter().collect()))
    }

    /// What proxies must know before these writes, as far as it has not been tried since the last due.
    pub fn announce(&self, coming: &[Effect]) -> Vec<Effect> {
        let first = |effect| route::announce(self.dialect, self.world, effect);
        let mut effects: Vec<_> = coming.iter().filter_map(first).collect();
        effects.retain(|effect| !self.world.mended.contains(&effect.object));
        effects
    }

    /// Whether a write has had its turn: what somebody changes back all the time is not argued with before the next due. One that goes on
    /// with what was announced has not; one that takes away what is left has time.
    pub fn is_tried(&self, coming: &Effect) -> bool {
        if route::is_announced(self.dialect, self.world, coming) {
            return self.weights().is_ok();
        }
        self.world.mended.contains(&coming.object)
    }

    /// Takes away what proxies need no more.
    pub fn tidy_routes(&self) -> Option<Effect> {
        route::tidy(self.dialect, self.world)
    }

    /// Waits for proxies that are behind with the routes as they are written; at a due that is said.
    pub fn routes_lag(&self) -> Option<Decision> {
        let why = route::lag(self.dialect, self.world)?;
        let due = self.world.due.as_ref();
        let said = due.map(|_| event(self.world, EventKind::Warning, why));
        Some(Decision::Wait(Next::Ready, said.into_iter().collect()))
    }

    /// Routes these weights; nothing if they are routed already, and never more to a side where no pod answers while the
    /// other's do.
    pub fn set_weights(&self, weights: &Weights) -> Result<Vec<Effect>, String> {
        if !self.splits_traffic() {
            return Ok(Vec::new());
        }
        let now = self.weights()?;
        let name = |name: &str| {
            format!(
                "{name}.{} has no ready pod: traffic stays where it is",
                self.world.namespace()
            )
        };
        if self.misses_primary(now, *weights) {
            return Err(name(&self.world.canary.primary_workload_name()));
        }
        if self.misses_canary(now, *weights) {
            return Err(name(&self.world.canary.spec.target_ref.name));
        }
        route::set(self.dialect, self.world, weights)
    }

    /// Whether more requests would meet a primary that does not answer, although the canary does.
    fn misses_primary(&self, now: Weights, then: Weights) -> bool {
        let world = self.world;
        then.primary > now.primary && !world.primary_answers() && world.canary_answers()
    }

    /// Whether more requests would meet a canary that does not answer.
    fn misses_canary(&self, now: Weights, then: Weights) -> bool {
        then.canary > now.canary && !self.world.canary_answers()
    }

    /// Makes the routes, or repairs them, with these weights; where these would miss, with those that are routed.
    fn repaired(&self, weights: Weights) -> Result<Vec<Effect>, String> {
        let weights = match self.weights() {
            Ok(now) if self.misses_primary(now, weights) || self.misses_canary(now, weights) => now,
            _ => weights,
        };
        route::reconcile(self.dialect, self.world, &self.selector, &weights)
    }

    /// Whether clients are answered by the primary. After a promotion that failed they are not: a version that mends it must be able
    /// to come, although the primary is not ready.
    pub fn primary_serves(&self) -> bool {
        let all_on_canary =
            self.splits_traffic() && self.weights().is_ok_and(|weights| weights.canary == 100);
        !self.promotion_failed()
            && (!all_on_canary || self.world.canary.strategy() == Strategy::AbTesting)
    }

    /// Whether the primary still has a version with which it did not become ready.
    pub fn promotion_failed(&self) -> bool {
        phase::intent(self.world, Intent::PromotionFailed).is_some()
    }

    /// Where traffic goes when a version is out of the question: to the primary; while that one is broken it stays where it is.
    pub fn refuge(&self) -> Result<Weights, String> {
        if !self.promotion_failed() || self.world.primary_answers() {
            return Ok(Weights::PRIMARY);
        }
        Ok(Weights::canary(self.weights()?.canary))
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
    pub fn routes_to(&self, weights: &Weights) -> Result<Vec<Effect>, String> {
        let effects = self.repaired(*weights)?;
        match self.weights() {
            // One write at a time: what is repaired gets its weights in the next look, if not in this.
            Ok(now) if effects.is_empty() && now != *weights => self.set_weights(weights),
            _ => Ok(effects),
        }
    }

    fn expected_weights(&self) -> Weights {
        use CanaryPhase as P;
        let status = phase::status(self.world);
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
