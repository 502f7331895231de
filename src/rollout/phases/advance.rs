//! The next step of a version whose checks passed: more weight, another iteration, or the promotion.

use std::ops::ControlFlow;

use crate::{
    api::{
        canary::{CanaryPhase, Strategy},
        percent::Percent,
    },
    notifications::Notification,
    rollout::{
        checks::gates,
        messages::run,
        plan::{Decision, Evidence},
        release::Release,
        status::StatusChange,
    },
    snapshot::Weights,
};

/// The next step of the canary's strategy.
pub fn advance(
    release: &Release<'_>,
    routed: Weights,
    evidence: &Evidence,
    notifications: &mut Vec<Notification>,
) -> ControlFlow<Decision, Decision> {
    if !release.splits_traffic() {
        notifications.extend(unsupported_strategy(release));
    }
    match release.strategy() {
        Strategy::Canary => advance_weight(release, routed, evidence, notifications),
        Strategy::BlueGreen | Strategy::AbTesting => {
            advance_iteration(release, routed, evidence, notifications)
        }
    }
}

/// The warnings about a strategy that a provider without routes cannot follow.
fn unsupported_strategy(release: &Release<'_>) -> Vec<Notification> {
    let snapshot = release.snapshot;
    let analysis = snapshot.canary.spec.analysis.as_ref();
    let is_ab = analysis.is_some_and(|analysis| !analysis.match_.is_empty());
    let is_blue_green = analysis.is_some_and(|analysis| analysis.iterations.unwrap_or(0) >= 1);
    let mut warnings = Vec::new();
    if is_ab {
        warnings.push(run::no_ab_testing(snapshot));
    }
    if !is_blue_green {
        warnings.extend(run::no_weights(snapshot, release.iterations()));
    }
    warnings
}

/// Records no more progress than the routes show, if a user, or an interrupted reconcile, took traffic back from the canary: the version
/// repeats those steps. `None` if the status has no more. This is a write of its own, before the one of the route: an interruption after
/// the route's write would otherwise leave a step that begins again, and that looks finished.
pub fn forget_lost_steps(release: &Release<'_>, routed: Weights) -> Option<Decision> {
    let recorded = release.snapshot.status();
    let change = StatusChange::within_step(release.snapshot);
    let reached = match release.strategy() {
        Strategy::Canary if recorded.exceeds(routed.canary) => {
            change.with(|status| status.set_weight(routed.canary))
        }
        Strategy::AbTesting if recorded.iterations > 0 && routed.canary == Percent::ZERO => {
            change.with(|status| status.iterations = 0)
        }
        Strategy::Canary | Strategy::AbTesting | Strategy::BlueGreen => return None,
    };
    Some(Decision::commit(reached.build(), Vec::new()))
}

/// The gate before a version gets more traffic, if this step can give it some.
pub fn traffic_gate(
    release: &Release<'_>,
    evidence: &Evidence,
    routed: Weights,
) -> ControlFlow<Decision, Vec<Notification>> {
    let snapshot = release.snapshot;
    let gives_traffic = release.strategy() == Strategy::Canary
        && !release.has_mirrored(routed)
        && snapshot.phase() != CanaryPhase::WaitingPromotion;
    if gives_traffic {
        gates::traffic(snapshot, evidence)
    } else {
        ControlFlow::Continue(Vec::new())
    }
}

/// Raises the weight, up to the greatest weight; then promotes.
fn advance_weight(
    release: &Release<'_>,
    routed: Weights,
    evidence: &Evidence,
    notifications: &mut Vec<Notification>,
) -> ControlFlow<Decision, Decision> {
    let snapshot = release.snapshot;
    let canary = &snapshot.canary;
    let weight = snapshot.status().weight();
    notifications.extend(traffic_gate(release, evidence, routed)?);
    if weight >= canary.max_weight() {
        notifications.extend(gates::promotion(snapshot, evidence)?);
        return ControlFlow::Continue(promote(release));
    }
    let weights = if release.mirrors() && weight == Percent::ZERO && !release.has_mirrored(routed) {
        Weights {
            mirrored: true,
            ..Weights::PRIMARY
        }
    } else {
        Weights::canary(canary.next_weight(weight))
    };
    let step = StatusChange::end_step(snapshot).with(|status| status.set_weight(weights.canary));
    let event = run::canary_weight(snapshot, weights.canary);
    release.or_report(release.move_traffic(&weights, step, Some(event)))
}

/// Begins another iteration; after the last one, promotes. Blue/green routes all traffic to the canary for one interval before that.
fn advance_iteration(
    release: &Release<'_>,
    routed: Weights,
    evidence: &Evidence,
    notifications: &mut Vec<Notification>,
) -> ControlFlow<Decision, Decision> {
    let snapshot = release.snapshot;
    let all = release.iterations();
    let is_ab = release.strategy() == Strategy::AbTesting;
    let step = StatusChange::end_step(snapshot);
    let done = snapshot.status().iterations;
    if done < all {
        let weights = match (is_ab, release.mirrors()) {
            (true, _) => Weights::CANARY,
            (false, true) if release.primary_serves() => Weights {
                mirrored: true,
                ..Weights::PRIMARY
            },
            (false, _) => routed,
        };
        let step = step.with(|status| status.iterations = done + 1);
        let event = run::iteration(snapshot, done + 1, all);
        return release.or_report(release.move_traffic(&weights, step, Some(event)));
    }
    notifications.extend(gates::promotion(snapshot, evidence)?);
    if is_ab || (done > all && routed.canary == Percent::ALL) {
        return ControlFlow::Continue(promote(release));
    }
    let step = step.with(|status| status.iterations = all + 1);
    let event = release
        .splits_traffic()
        .then(|| run::all_traffic_to_canary(snapshot, release.mirrors()));
    release.or_report(release.move_traffic(&Weights::CANARY, step, event))
}

/// Records that the version is promoted, before the primary is changed. Flagger records it afterwards.
pub fn promote(release: &Release<'_>) -> Decision {
    let promoting = StatusChange::enter(release.snapshot, CanaryPhase::Promoting);
    Decision::commit(promoting.build(), vec![run::copying(release.snapshot)])
}
