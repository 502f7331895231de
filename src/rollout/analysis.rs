//! A release under judgement: each interval the version is checked, then gets more traffic, another iteration, or is sent back
//! (Flagger's phases Progressing and `WaitingPromotion`).

use std::ops::ControlFlow;

use super::{
    Plan,
    events::event,
    gate,
    hooks::{self, HookResult, Signal, Stage},
    idle, metric_checks, phase,
    plan::{Decision, Evidence, Requeue},
    promotion,
    release::Release,
    rollback::{self, Outcome},
};
use crate::{
    api::canary::{CanaryPhase, CanaryStatus, Strategy, WebhookType},
    notifications::{EventKind, Notification},
    routers::affinity,
    snapshot::{Readiness, Snapshot, Weights},
};

/// One look at a release under judgement.
pub fn decide(release: &Release<'_>, evidence: &Evidence) -> Result<Decision, String> {
    let snapshot = release.snapshot;
    if release.changed() {
        if let Some(wait) = idle::debounce(snapshot) {
            return Ok(wait);
        }
        return changed(release);
    }
    if release.to_adopt() {
        return Ok(Decision::commit(idle::adopted(release), Vec::new()));
    }
    let up = release.scale_up();
    if !up.is_empty() {
        return Ok(Decision::Do(Plan {
            writes: up,
            ..Plan::default()
        }));
    }
    let skip = snapshot.canary.skip_analysis();
    for readiness in [
        (!skip && release.primary_serves()).then(|| release.primary_readiness()),
        Some(release.canary_readiness()),
    ]
    .into_iter()
    .flatten()
    {
        match readiness {
            Readiness::Failed(why) => {
                return Ok(rollback::begin(snapshot, &Outcome::NotReady(why)));
            }
            Readiness::Waiting(why) if snapshot.tick.is_some() => {
                return Ok(Decision::Wait(
                    Requeue::Ready,
                    vec![event(snapshot, EventKind::Warning, why)],
                ));
            }
            Readiness::Waiting(_) | Readiness::Ready => {}
        }
    }
    let failed = phase::status(snapshot).failed_checks;
    let is_over = !skip && failed >= snapshot.canary.threshold();
    // Flagger waits for the next tick, while clients meet a version that is known to be bad.
    if snapshot.tick.is_none() && !(is_over && failed > 0) {
        return Ok(Decision::Wait(Requeue::AtTick, Vec::new()));
    }
    if skip {
        return skip_analysis(release);
    }
    if is_over {
        return Ok(rollback::begin(snapshot, &Outcome::FailedChecks(failed)));
    }
    let mut said = Vec::new();
    let (ControlFlow::Break(decision) | ControlFlow::Continue(decision)) =
        step(release, evidence, &mut said);
    Ok(decision.notifying(said))
}

/// One step: the user may send the version back, it is checked, and then it goes on; ends early where something is to be asked,
/// stands in the way, or holds the release back.
fn step(
    release: &Release<'_>,
    evidence: &Evidence,
    said: &mut Vec<Notification>,
) -> ControlFlow<Decision, Decision> {
    match hooks::signal(release.snapshot, evidence) {
        Signal::Ask(question, silent) => {
            return ControlFlow::Break(Decision::Ask(vec![question], silent));
        }
        Signal::Back(hook) => {
            return ControlFlow::Break(rollback::begin(release.snapshot, &Outcome::Manual(hook)));
        }
        Signal::None(silent) => said.extend(silent),
    }
    if let Some(wait) = release.routes_pending() {
        return ControlFlow::Break(wait);
    }
    check(release, evidence, said)?;
    advance(release, evidence, said)
}

/// Whether the version under judgement is not the target's any more.
pub fn is_overtaken(release: &Release<'_>) -> bool {
    matches!(
        release.snapshot.phase(),
        CanaryPhase::Progressing | CanaryPhase::WaitingPromotion
    ) && release.changed()
}

/// The target changed under way: to another version, or back to what is promoted.
pub fn changed(release: &Release<'_>) -> Result<Decision, String> {
    if release.is_reverted() {
        Ok(rollback::begin(release.snapshot, &Outcome::Reverted))
    } else {
        restart(release)
    }
}

/// The version changed under way: traffic returns to the primary, and the analysis begins anew.
fn restart(release: &Release<'_>) -> Result<Decision, String> {
    let text = format!(
        "New revision detected! Restarting analysis for {}",
        release.snapshot.full_target()
    );
    let weights = release.fallback_weights()?;
    let mut status = idle::started(release);
    status.canary_weight = i64::from(weights.canary);
    Ok(Decision::Do(Plan {
        writes: release.set_weights(&weights)?,
        status: Some(status),
        notifications: vec![event(release.snapshot, EventKind::Normal, text)],
    }))
}

/// Promotes without judgement, in two looks: the primary gets the version; then, and only then, the canary goes.
fn skip_analysis(release: &Release<'_>) -> Result<Decision, String> {
    let status = phase::status(release.snapshot);
    let is_elsewhere = release.weights()? != Weights::PRIMARY
        || status.canary_weight != 0
        || status.iterations != 0;
    if is_elsewhere && (!release.promotion_failed() || release.is_promoted()) {
        // The analysis was switched off in the middle, or the primary is mended.
        let mut status = phase::step(release.snapshot);
        (status.canary_weight, status.iterations) = (0, 0);
        return moved(release, &Weights::PRIMARY, status, None);
    }
    if release.is_promoted() {
        let end = || Decision::Do(promotion::succeed(release, &Outcome::Skipped));
        return Ok(release.routes_lag().unwrap_or_else(end));
    }
    release.complete()?;
    let mut writes = release.promote();
    writes.extend(release.primary_scaler(true)?);
    Ok(Decision::Do(Plan {
        writes,
        status: None,
        notifications: vec![copying(release)],
    }))
}

/// The hooks and the metrics of a step. Before its first share of the traffic a version is only shown to the pre-rollout hooks.
fn check(
    release: &Release<'_>,
    evidence: &Evidence,
    said: &mut Vec<Notification>,
) -> ControlFlow<Decision> {
    let snapshot = release.snapshot;
    let routed = or_warn(snapshot, release.weights())?;
    let status = reached(release, routed);
    let begins = status.canary_weight == 0
        && status.iterations == 0
        && !(release.mirrors() && routed.mirrored);
    let name = snapshot.full_name();
    let (kind, what) = if begins {
        let text = format!("Starting canary analysis for {}", snapshot.full_target());
        said.push(event(snapshot, EventKind::Normal, text));
        (WebhookType::PreRollout, "pre-rollout check")
    } else {
        (WebhookType::Rollout, "external check")
    };
    match hooks::run(snapshot, evidence, kind, CanaryPhase::Progressing) {
        HookResult::Ask(questions, passed) => {
            return ControlFlow::Break(Decision::Ask(questions, passed));
        }
        HookResult::Failed { passed, hook, why } => {
            said.extend(passed);
            let text = format!("Halt {name} advancement {what} {} failed {why}", hook.name);
            return ControlFlow::Break(halted(snapshot, vec![text]));
        }
        HookResult::Passed(passed) => said.extend(passed),
    }
    if begins {
        return ControlFlow::Continue(());
    }
    match metric_checks::check(snapshot, evidence) {
        Stage::Ask(questions) => ControlFlow::Break(Decision::Ask(questions, Vec::new())),
        Stage::Done(halts) if halts.is_empty() => ControlFlow::Continue(()),
        Stage::Done(halts) => ControlFlow::Break(halted(snapshot, halts)),
    }
}

/// A check failed.
fn halted(snapshot: &Snapshot, why: Vec<String>) -> Decision {
    let mut status = phase::step(snapshot);
    status.failed_checks += 1;
    let events = why
        .into_iter()
        .map(|text| event(snapshot, EventKind::Warning, text));
    Decision::commit(status, events.collect())
}

/// The checks passed: what comes next in the strategy.
fn advance(
    release: &Release<'_>,
    evidence: &Evidence,
    said: &mut Vec<Notification>,
) -> ControlFlow<Decision, Decision> {
    if !release.splits_traffic() {
        said.extend(not_without_routes(release));
    }
    match release.strategy() {
        Strategy::Canary => advance_weight(release, evidence, said),
        Strategy::BlueGreen | Strategy::AbTesting => advance_iteration(release, evidence, said),
    }
}

/// What was asked for and cannot be done where traffic cannot be divided.
fn not_without_routes(release: &Release<'_>) -> Vec<Notification> {
    let analysis = release.snapshot.canary.spec.analysis.as_ref();
    let is_ab = analysis.is_some_and(|analysis| !analysis.match_.is_empty());
    let is_blue_green = analysis.is_some_and(|analysis| analysis.iterations.unwrap_or(0) >= 1);
    let mut texts = Vec::new();
    if is_ab {
        texts.push("A/B testing is not supported when using the kubernetes provider".to_owned());
    }
    if !is_blue_green {
        let instead = release.iterations();
        texts.push(
            "Progressive traffic is not supported when using the kubernetes provider".to_owned(),
        );
        texts.push(format!("Setting canaryAnalysis.iterations: {instead}"));
    }
    let warning = |text| event(release.snapshot, EventKind::Warning, text);
    texts.into_iter().map(warning).collect()
}

/// The status of a step, with as much on record as clients have seen of the version: where its traffic was taken back, by somebody or
/// by a look that came to write no status, it starts over.
fn reached(release: &Release<'_>, routed: Weights) -> CanaryStatus {
    let mut status = phase::step(release.snapshot);
    match release.strategy() {
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
    release: &Release<'_>,
    evidence: &Evidence,
    said: &mut Vec<Notification>,
) -> ControlFlow<Decision, Decision> {
    let snapshot = release.snapshot;
    let routed = or_warn(snapshot, release.weights())?;
    let mut status = reached(release, routed);
    if !routed.mirrored && snapshot.phase() != CanaryPhase::WaitingPromotion {
        said.extend(gate::traffic(snapshot, evidence)?);
    }
    if status.canary_weight >= snapshot.canary.max_weight() {
        said.extend(gate::promotion(snapshot, evidence)?);
        return ControlFlow::Continue(promote(release));
    }
    let weights = if release.mirrors() && status.canary_weight == 0 && !routed.mirrored {
        Weights {
            mirrored: true,
            ..Weights::PRIMARY
        }
    } else {
        let next = snapshot.canary.next_weight(status.canary_weight);
        Weights::canary(u8::try_from(next.clamp(0, 100)).unwrap_or(100))
    };
    status.canary_weight = i64::from(weights.canary);
    let (name, weight) = (snapshot.full_name(), weights.canary);
    let text = format!("Advance {name} canary weight {weight}");
    let moved = moved(release, &weights, status, Some(text));
    or_warn(snapshot, moved)
}

/// Another iteration; after the last, the promotion. Blue/green meets the whole traffic once before, for one interval.
fn advance_iteration(
    release: &Release<'_>,
    evidence: &Evidence,
    said: &mut Vec<Notification>,
) -> ControlFlow<Decision, Decision> {
    let snapshot = release.snapshot;
    let all = release.iterations();
    let is_ab = release.strategy() == Strategy::AbTesting;
    let routed = or_warn(snapshot, release.weights())?;
    let mut status = reached(release, routed);
    let (weights, text) = if status.iterations < all {
        status.iterations += 1;
        let weights = match (is_ab, release.mirrors()) {
            (true, _) => Weights::CANARY,
            (false, true) if release.primary_serves() => Weights {
                mirrored: true,
                ..Weights::PRIMARY
            },
            (false, _) => routed,
        };
        let (name, iteration) = (snapshot.full_name(), status.iterations);
        let text = format!("Advance {name} canary iteration {iteration}/{all}");
        (weights, Some(text))
    } else {
        said.extend(gate::promotion(snapshot, evidence)?);
        if is_ab || (status.iterations > all && routed.canary == 100) {
            return ControlFlow::Continue(promote(release));
        }
        status.iterations = all + 1;
        let text = if release.mirrors() {
            "Stop traffic mirroring and route all traffic to canary"
        } else {
            "Routing all traffic to canary"
        };
        (
            Weights::CANARY,
            release.splits_traffic().then(|| text.to_owned()),
        )
    };
    let moved = moved(release, &weights, status, text);
    or_warn(snapshot, moved)
}

/// Goes on where nothing stands in the way.
fn or_warn<T>(snapshot: &Snapshot, result: Result<T, String>) -> ControlFlow<Decision, T> {
    match result {
        Ok(value) => ControlFlow::Continue(value),
        Err(problem) => ControlFlow::Break(super::warn(snapshot, problem)),
    }
}

/// Routes these weights and commits this status; the cookies that the routes need are in the status before.
fn moved(
    release: &Release<'_>,
    weights: &Weights,
    mut status: CanaryStatus,
    text: Option<String>,
) -> Result<Decision, String> {
    if weights.canary == 0 {
        affinity::retire(&mut status);
    } else if let Some(cookies) = release.new_cookies() {
        let mut status = phase::status(release.snapshot);
        cookies.keep(&mut status);
        return Ok(Decision::commit(status, Vec::new()));
    }
    let event = text.map(|text| event(release.snapshot, EventKind::Normal, text));
    Ok(Decision::Do(Plan {
        writes: release.set_weights(weights)?,
        status: Some(status),
        notifications: event.into_iter().collect(),
    }))
}

/// The version is good. That it is promoted is on record before the primary is touched; Flagger records it afterwards.
fn promote(release: &Release<'_>) -> Decision {
    let status = phase::enter(release.snapshot, CanaryPhase::Promoting);
    Decision::commit(status, vec![copying(release)])
}

fn copying(release: &Release<'_>) -> Notification {
    let (target, snapshot) = (
        &release.snapshot.canary.spec.target_ref.name,
        release.snapshot,
    );
    let text = format!(
        "Copying {} template spec to {target}-primary.{}",
        snapshot.full_target(),
        snapshot.namespace()
    );
    event(snapshot, EventKind::Normal, text)
}
