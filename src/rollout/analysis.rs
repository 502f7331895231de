//! A release under judgement: each interval the version is checked, then gets more traffic, another iteration, or is sent back
//! (Flagger's phases Progressing and `WaitingPromotion`).

use std::ops::ControlFlow;

use super::{
    Plan,
    facts::Facts,
    gate,
    hooks::{self, Outcome, Signal, Stage},
    metrics, phase,
    plan::{Decision, Evidence, Next},
    promotion,
    rollback::{self, Cause},
    say::event,
    settled,
};
use crate::{
    api::canary::{CanaryPhase, CanaryStatus, Strategy, WebhookType},
    notice::{EventKind, Notice},
    route::affinity,
    world::{Readiness, Weights, World},
};

/// One look at a release under judgement.
pub fn decide(facts: &Facts<'_>, evidence: &Evidence) -> Result<Decision, String> {
    let world = facts.world;
    if facts.changed() {
        if let Some(wait) = settled::debounce(world) {
            return Ok(wait);
        }
        return changed(facts);
    }
    if facts.to_adopt() {
        return Ok(Decision::commit(settled::adopted(facts), Vec::new()));
    }
    let up = facts.scale_up();
    if !up.is_empty() {
        return Ok(Decision::Do(Plan {
            effects: up,
            ..Plan::default()
        }));
    }
    let skip = world.canary.skip_analysis();
    for readiness in [
        (!skip && facts.primary_serves()).then(|| facts.primary_readiness()),
        Some(facts.canary_readiness()),
    ]
    .into_iter()
    .flatten()
    {
        match readiness {
            Readiness::Failed(why) => return Ok(rollback::begin(world, &Cause::NotReady(why))),
            Readiness::Waiting(why) if world.due.is_some() => {
                return Ok(Decision::Wait(
                    Next::Ready,
                    vec![event(world, EventKind::Warning, why)],
                ));
            }
            Readiness::Waiting(_) | Readiness::Ready => {}
        }
    }
    let failed = phase::status(world).failed_checks;
    let is_over = !skip && failed >= world.canary.threshold();
    // Flagger waits for the next due, while clients meet a version that is known to be bad.
    if world.due.is_none() && !(is_over && failed > 0) {
        return Ok(Decision::Wait(Next::Due, Vec::new()));
    }
    if skip {
        return skip_analysis(facts);
    }
    if is_over {
        return Ok(rollback::begin(world, &Cause::FailedChecks(failed)));
    }
    let mut said = Vec::new();
    let (ControlFlow::Break(decision) | ControlFlow::Continue(decision)) =
        step(facts, evidence, &mut said);
    Ok(decision.saying(said))
}

/// One step: the user may send the version back, it is checked, and then it goes on; ends early where something is to be asked,
/// stands in the way, or holds the release back.
fn step(
    facts: &Facts<'_>,
    evidence: &Evidence,
    said: &mut Vec<Notice>,
) -> ControlFlow<Decision, Decision> {
    match hooks::signal(facts.world, evidence) {
        Signal::Ask(question, silent) => {
            return ControlFlow::Break(Decision::Ask(vec![question], silent));
        }
        Signal::Back(hook) => {
            return ControlFlow::Break(rollback::begin(facts.world, &Cause::Manual(hook)));
        }
        Signal::None(silent) => said.extend(silent),
    }
    if let Some(wait) = facts.routes_pending() {
        return ControlFlow::Break(wait);
    }
    check(facts, evidence, said)?;
    advance(facts, evidence, said)
}

/// Whether the version under judgement is not the target's any more.
pub fn is_overtaken(facts: &Facts<'_>) -> bool {
    matches!(
        facts.world.phase(),
        CanaryPhase::Progressing | CanaryPhase::WaitingPromotion
    ) && facts.changed()
}

/// The target changed under way: to another version, or back to what is promoted.
pub fn changed(facts: &Facts<'_>) -> Result<Decision, String> {
    if facts.is_reverted() {
        Ok(rollback::begin(facts.world, &Cause::Reverted))
    } else {
        restart(facts)
    }
}

/// The version changed under way: traffic returns to the primary, and the analysis begins anew.
fn restart(facts: &Facts<'_>) -> Result<Decision, String> {
    let text = format!(
        "New revision detected! Restarting analysis for {}",
        facts.world.full_target()
    );
    let weights = facts.refuge()?;
    let mut status = settled::started(facts);
    status.canary_weight = i64::from(weights.canary);
    Ok(Decision::Do(Plan {
        effects: facts.set_weights(&weights)?,
        status: Some(status),
        notices: vec![event(facts.world, EventKind::Normal, text)],
    }))
}

/// Promotes without judgement, in two looks: the primary gets the version; then, and only then, the canary goes.
fn skip_analysis(facts: &Facts<'_>) -> Result<Decision, String> {
    let status = phase::status(facts.world);
    let is_elsewhere =
        facts.weights()? != Weights::PRIMARY || status.canary_weight != 0 || status.iterations != 0;
    if is_elsewhere && (!facts.promotion_failed() || facts.is_promoted()) {
        // The analysis was switched off in the middle, or the primary is mended.
        let mut status = phase::step(facts.world);
        (status.canary_weight, status.iterations) = (0, 0);
        return moved(facts, &Weights::PRIMARY, status, None);
    }
    if facts.is_promoted() {
        let end = || Decision::Do(promotion::succeed(facts, &Cause::Skipped));
        return Ok(facts.routes_lag().unwrap_or_else(end));
    }
    facts.complete()?;
    let mut effects = facts.promote();
    effects.extend(facts.primary_scaler(true)?);
    Ok(Decision::Do(Plan {
        effects,
        status: None,
        notices: vec![copying(facts)],
    }))
}

/// The hooks and the metrics of a step. Before its first share of the traffic a version is only shown to the pre-rollout hooks.
fn check(facts: &Facts<'_>, evidence: &Evidence, said: &mut Vec<Notice>) -> ControlFlow<Decision> {
    let world = facts.world;
    let routed = or_warn(world, facts.weights())?;
    let status = reached(facts, routed);
    let begins = status.canary_weight == 0
        && status.iterations == 0
        && !(facts.mirrors() && routed.mirrored);
    let name = world.full_name();
    let (kind, what) = if begins {
        let text = format!("Starting canary analysis for {}", world.full_target());
        said.push(event(world, EventKind::Normal, text));
        (WebhookType::PreRollout, "pre-rollout check")
    } else {
        (WebhookType::Rollout, "external check")
    };
    match hooks::run(world, evidence, kind, CanaryPhase::Progressing) {
        Outcome::Ask(questions, passed) => {
            return ControlFlow::Break(Decision::Ask(questions, passed));
        }
        Outcome::Failed { passed, hook, why } => {
            said.extend(passed);
            let text = format!("Halt {name} advancement {what} {} failed {why}", hook.name);
            return ControlFlow::Break(halted(world, vec![text]));
        }
        Outcome::Passed(passed) => said.extend(passed),
    }
    if begins {
        return ControlFlow::Continue(());
    }
    match metrics::check(world, evidence) {
        Stage::Ask(questions) => ControlFlow::Break(Decision::Ask(questions, Vec::new())),
        Stage::Done(halts) if halts.is_empty() => ControlFlow::Continue(()),
        Stage::Done(halts) => ControlFlow::Break(halted(world, halts)),
    }
}

/// A check failed.
fn halted(world: &World, why: Vec<String>) -> Decision {
    let mut status = phase::step(world);
    status.failed_checks += 1;
    let events = why
        .into_iter()
        .map(|text| event(world, EventKind::Warning, text));
    Decision::commit(status, events.collect())
}

/// The checks passed: what comes next in the strategy.
fn advance(
    facts: &Facts<'_>,
    evidence: &Evidence,
    said: &mut Vec<Notice>,
) -> ControlFlow<Decision, Decision> {
    if !facts.splits_traffic() {
        said.extend(not_without_routes(facts));
    }
    match facts.strategy() {
        Strategy::Canary => advance_weight(facts, evidence, said),
        Strategy::BlueGreen | Strategy::AbTesting => advance_iteration(facts, evidence, said),
    }
}

/// What was asked for and cannot be done where traffic cannot be divided.
fn not_without_routes(facts: &Facts<'_>) -> Vec<Notice> {
    let analysis = facts.world.canary.spec.analysis.as_ref();
    let is_ab = analysis.is_some_and(|analysis| !analysis.match_.is_empty());
    let is_blue_green = analysis.is_some_and(|analysis| analysis.iterations.unwrap_or(0) >= 1);
    let mut texts = Vec::new();
    if is_ab {
        texts.push("A/B testing is not supported when using the kubernetes provider".to_owned());
    }
    if !is_blue_green {
        let instead = facts.iterations();
        texts.push(
            "Progressive traffic is not supported when using the kubernetes provider".to_owned(),
        );
        texts.push(format!("Setting canaryAnalysis.iterations: {instead}"));
    }
    let warning = |text| event(facts.world, EventKind::Warning, text);
    texts.into_iter().map(warning).collect()
}

/// The status of a step, with as much on record as clients have seen of the version: where its traffic was taken back, by somebody or
/// by a look that came to write no status, it starts over.
fn reached(facts: &Facts<'_>, routed: Weights) -> CanaryStatus {
    let mut status = phase::step(facts.world);
    match facts.strategy() {
        Strategy::Canary => {
            status.canary_weight = status.canary_weight.min(i64::from(routed.canary));
        }
        Strategy::AbTesting if routed.canary == 0 => status.iterations = 0,
        Strategy::AbTesting | Strategy::BlueGreen => {}
    }
    status
}

/// More traffic, up to the greatest weight; then the promotion.
fn advance_weight(
    facts: &Facts<'_>,
    evidence: &Evidence,
    said: &mut Vec<Notice>,
) -> ControlFlow<Decision, Decision> {
    let world = facts.world;
    let routed = or_warn(world, facts.weights())?;
    let mut status = reached(facts, routed);
    if !routed.mirrored && world.phase() != CanaryPhase::WaitingPromotion {
        said.extend(gate::traffic(world, evidence)?);
    }
    if status.canary_weight >= world.canary.max_weight() {
        said.extend(gate::promotion(world, evidence)?);
        return ControlFlow::Continue(promote(facts));
    }
    let weights = if facts.mirrors() && status.canary_weight == 0 && !routed.mirrored {
        Weights {
            mirrored: true,
            ..Weights::PRIMARY
        }
    } else {
        let next = world.canary.next_weight(status.canary_weight);
        Weights::canary(u8::try_from(next.clamp(0, 100)).unwrap_or(100))
    };
    status.canary_weight = i64::from(weights.canary);
    let (name, weight) = (world.full_name(), weights.canary);
    let text = format!("Advance {name} canary weight {weight}");
    let moved = moved(facts, &weights, status, Some(text));
    or_warn(world, moved)
}

/// Another iteration; after the last, the promotion. Blue/green meets the whole traffic once before, for one interval.
fn advance_iteration(
    facts: &Facts<'_>,
    evidence: &Evidence,
    said: &mut Vec<Notice>,
) -> ControlFlow<Decision, Decision> {
    let world = facts.world;
    let all = facts.iterations();
    let is_ab = facts.strategy() == Strategy::AbTesting;
    let routed = or_warn(world, facts.weights())?;
    let mut status = reached(facts, routed);
    let (weights, text) = if status.iterations < all {
        status.iterations += 1;
        let weights = match (is_ab, facts.mirrors()) {
            (true, _) => Weights::CANARY,
            (false, true) if facts.primary_serves() => Weights {
                mirrored: true,
                ..Weights::PRIMARY
            },
            (false, _) => routed,
        };
        let (name, iteration) = (world.full_name(), status.iterations);
        let text = format!("Advance {name} canary iteration {iteration}/{all}");
        (weights, Some(text))
    } else {
        said.extend(gate::promotion(world, evidence)?);
        if is_ab || (status.iterations > all && routed.canary == 100) {
            return ControlFlow::Continue(promote(facts));
        }
        status.iterations = all + 1;
        let text = if facts.mirrors() {
            "Stop traffic mirroring and route all traffic to canary"
        } else {
            "Routing all traffic to canary"
        };
        (
            Weights::CANARY,
            facts.splits_traffic().then(|| text.to_owned()),
        )
    };
    let moved = moved(facts, &weights, status, text);
    or_warn(world, moved)
}

/// Goes on where nothing stands in the way.
fn or_warn<T>(world: &World, result: Result<T, String>) -> ControlFlow<Decision, T> {
    match result {
        Ok(value) => ControlFlow::Continue(value),
        Err(problem) => ControlFlow::Break(super::warn(world, problem)),
    }
}

/// Routes these weights and commits this status; the cookies that the routes need are in the status before.
fn moved(
    facts: &Facts<'_>,
    weights: &Weights,
    mut status: CanaryStatus,
    text: Option<String>,
) -> Result<Decision, String> {
    if weights.canary == 0 {
        affinity::retire(&mut status);
    } else if let Some(cookies) = facts.new_cookies() {
        let mut status = phase::status(facts.world);
        cookies.keep(&mut status);
        return Ok(Decision::commit(status, Vec::new()));
    }
    let event = text.map(|text| event(facts.world, EventKind::Normal, text));
    Ok(Decision::Do(Plan {
        effects: facts.set_weights(weights)?,
        status: Some(status),
        notices: event.into_iter().collect(),
    }))
}

/// The version is good. That it is promoted is on record before the primary is touched; Flagger records it afterwards.
fn promote(facts: &Facts<'_>) -> Decision {
    let status = phase::enter(facts.world, CanaryPhase::Promoting);
    Decision::commit(status, vec![copying(facts)])
}

fn copying(facts: &Facts<'_>) -> Notice {
    let (target, world) = (&facts.world.canary.spec.target_ref.name, facts.world);
    let text = format!(
        "Copying {} template spec to {target}-primary.{}",
        world.full_target(),
        world.namespace()
    );
    event(world, EventKind::Normal, text)
}
