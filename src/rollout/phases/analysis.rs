//! The analysis (Flagger's phases Progressing and `WaitingPromotion`): at each tick the version is checked; then it advances or fails.

use std::ops::ControlFlow;

use super::{advance, comparison, new_revision, skip, waiting};
use crate::{
    api::{
        canary::{CanaryPhase, WebhookType},
        percent::Percent,
    },
    notifications::Notification,
    rollout::{
        actions,
        blocked::Blocked,
        checks::{
            Halt, comparisons,
            hooks::{self, HookResult, Signal, Stage},
            metrics,
            pods::{self, Pods},
        },
        messages::{self, run},
        plan::{Decision, Evidence, Requeue},
        release::Release,
        rollback,
        status::{FailedCheck, Outcome, PodsLost, StatusChange, verdict},
    },
    snapshot::{Readiness, Snapshot, Weights, pods::Labels},
};

/// One reconcile of a release under analysis.
pub fn decide(release: &Release<'_>, evidence: &Evidence) -> Result<Decision, Blocked> {
    let snapshot = release.snapshot;
    if release.changed() {
        return match new_revision::debounce(snapshot) {
            Some(wait) => Ok(wait),
            None => new_revision::changed(release),
        };
    }
    if release.to_adopt() {
        let adopted = new_revision::adopted(release);
        return Ok(Decision::commit(adopted, Vec::new()));
    }
    let skips = snapshot.canary.skip_analysis();
    // In the phase WaitingPromotion no route changes, so overdue routes do not matter.
    let moves = !skips && snapshot.phase() == CanaryPhase::Progressing;
    if let Some(why) = release.routes_overdue().filter(|_| moves) {
        return Ok(rollback::routes_not_accepted(snapshot, why));
    }
    let up = release.scale_up();
    if !up.is_empty() {
        return Ok(Decision::write(up));
    }
    if let Some(decision) = lost_too_often(release, evidence).filter(|_| !skips) {
        return Ok(decision);
    }
    if let Some(decision) = unready(release, evidence, skips) {
        return Ok(decision);
    }
    let is_ready = is_ready(release);
    if is_ready && actions::promotes(snapshot) {
        return Ok(advance::promote(release));
    }
    let failed = snapshot.status().failed_checks;
    let is_over = !skips && failed >= snapshot.canary.threshold();
    // A failed version and a skipped step do not wait for the next tick. In Flagger, clients reach a failed version until the next tick.
    let is_skipped =
        is_ready && actions::skips(snapshot) && snapshot.phase() == CanaryPhase::Progressing;
    if snapshot.tick.is_none() && !is_over && !is_skipped {
        if !is_ready || skips {
            return Ok(Decision::wait(Requeue::AtTick));
        }
        if let ControlFlow::Break(decision) = comparison::between_ticks(snapshot, evidence) {
            return Ok(decision);
        }
    }
    if skips {
        return skip::decide(release);
    }
    if is_over {
        return Ok(rollback::begin(snapshot, &Outcome::FailedChecks(failed)));
    }
    if let Some(restored) = restore(release)? {
        return Ok(restored);
    }
    let mut notifications = Vec::new();
    let (ControlFlow::Break(decision) | ControlFlow::Continue(decision)) =
        step(release, evidence, &mut notifications);
    Ok(comparisons::kept(snapshot, evidence, decision).notifying(notifications))
}

/// Rolls a version back that has lost all its ready pods more often than the threshold allows.
fn lost_too_often(release: &Release<'_>, evidence: &Evidence) -> Option<Decision> {
    let PodsLost { losses, .. } = PodsLost::of(release.snapshot.status());
    let outcome = Outcome::PodsLost(losses);
    let labels = &release.selection.canary;
    (losses > release.snapshot.canary.threshold())
        .then(|| pods_failed(release, labels, evidence, &outcome))
}

/// Rolls the version back because pods with these labels are not ready, with the reason in the status of a pod.
fn pods_failed(
    release: &Release<'_>,
    labels: &Labels,
    evidence: &Evidence,
    outcome: &Outcome,
) -> Decision {
    match pods::reason(release, labels, evidence) {
        Pods::Ask(question) => Decision::Ask(vec![question], Vec::new()),
        Pods::Known(reason) => rollback::pods_failed(release.snapshot, outcome, reason.as_deref()),
    }
}

/// The decision while the primary or the canary is not ready; `None` if both are ready, or if a wait is only reported at the next tick.
fn unready(release: &Release<'_>, evidence: &Evidence, skips: bool) -> Option<Decision> {
    let snapshot = release.snapshot;
    let primary = (!skips && release.primary_serves())
        .then(|| (release.primary_readiness(), &release.selection.primary));
    let canary = || (release.canary_readiness(), &release.selection.canary);
    for (readiness, labels) in primary.into_iter().chain(std::iter::once_with(canary)) {
        match readiness {
            Readiness::Failed(why) => {
                let outcome = Outcome::NotReady(why);
                return Some(pods_failed(release, labels, evidence, &outcome));
            }
            Readiness::Waiting(why) if snapshot.tick.is_some() => {
                return Some(Decision::Wait(
                    Requeue::Ready,
                    vec![messages::warning(snapshot, why)],
                ));
            }
            Readiness::Waiting(_) | Readiness::Ready => {}
        }
    }
    None
}

/// Whether the canary is ready, and the primary if it serves.
fn is_ready(release: &Release<'_>) -> bool {
    let primary = || !release.primary_serves() || release.primary_readiness() == Readiness::Ready;
    release.canary_readiness() == Readiness::Ready && primary()
}

/// Gives a version that had lost its pods its traffic back. `None` if no traffic was withdrawn, or if the routes have changed since.
fn restore(release: &Release<'_>) -> Result<Option<Decision>, Blocked> {
    let snapshot = release.snapshot;
    let Some(lost) = PodsLost::withdrawn(snapshot.status()) else {
        return Ok(None);
    };
    let step = lost.restore(StatusChange::end_step(snapshot));
    let weights = release.expected_weights(&step.clone().build());
    if release.weights()? != Weights::PRIMARY || weights == Weights::PRIMARY {
        return Ok(None);
    }
    let event = run::restored(snapshot);
    release.move_traffic(&weights, step, Some(event)).map(Some)
}

/// One step: rollback hooks, checks, then the advance. It ends early to ask a question, to wait, or to hold the release back.
fn step(
    release: &Release<'_>,
    evidence: &Evidence,
    notifications: &mut Vec<Notification>,
) -> ControlFlow<Decision, Decision> {
    match hooks::rollback_signal(release.snapshot, evidence) {
        Signal::Ask(question, unsignaled) => {
            return ControlFlow::Break(Decision::Ask(vec![question], unsignaled));
        }
        Signal::RollBack(hook) => {
            return ControlFlow::Break(rollback::begin(release.snapshot, &Outcome::Manual(hook)));
        }
        Signal::None(unsignaled) => notifications.extend(unsignaled),
    }
    match release.routes_pending() {
        // In this phase no route changes, and the promotion waits for the routes itself. So the step only reports the delay.
        Some(Decision::Wait(_, events))
            if release.snapshot.phase() == CanaryPhase::WaitingPromotion =>
        {
            notifications.extend(events);
        }
        Some(wait) => {
            let waits = "The step waits for the routes";
            return ControlFlow::Break(waiting::recorded(release.snapshot, waits, wait));
        }
        None => {}
    }
    let routed = release.or_report(release.reached_weights())?;
    if let Some(recorded) = advance::forget_lost_steps(release, routed) {
        return ControlFlow::Break(recorded);
    }
    if !actions::skips(release.snapshot) {
        check(release, routed, evidence, notifications)?;
        if actions::is_paused(release.snapshot) {
            return ControlFlow::Break(Decision::wait(Requeue::AtTick));
        }
    }
    advance::advance(release, routed, evidence, notifications)
}

/// The hooks and the metrics of a step. A version that has had no traffic yet is checked by pre-rollout hooks only.
fn check(
    release: &Release<'_>,
    routed: Weights,
    evidence: &Evidence,
    notifications: &mut Vec<Notification>,
) -> ControlFlow<Decision> {
    let snapshot = release.snapshot;
    let progress = (snapshot.status().weight(), snapshot.status().iterations);
    let begins = progress == (Percent::ZERO, 0) && !release.has_mirrored(routed);
    if begins && actions::is_paused(snapshot) {
        return ControlFlow::Break(Decision::wait(Requeue::AtTick));
    }
    let kind = if begins {
        // Hooks have side effects, so none is called for a version whose gate is closed. The advance sends the notifications of the open
        // gate.
        advance::traffic_gate(release, evidence, routed)?;
        notifications.push(run::analysis_starts(snapshot));
        WebhookType::PreRollout
    } else {
        WebhookType::Rollout
    };
    match hooks::run(snapshot, evidence, kind, CanaryPhase::Progressing) {
        HookResult::Ask(questions, passed) => {
            return ControlFlow::Break(Decision::Ask(questions, passed));
        }
        HookResult::Failed { passed, hook, why } => {
            notifications.extend(passed);
            let halt = Halt {
                event: messages::checks::hook_halts(snapshot, kind, hook, &why),
                failed: FailedCheck::hook(hook, &why),
            };
            return ControlFlow::Break(failed_check(snapshot, vec![halt]));
        }
        HookResult::Passed(passed) => notifications.extend(passed),
    }
    if begins {
        return ControlFlow::Continue(());
    }
    measure(snapshot, evidence)
}

/// The metrics of a step, by their thresholds or by comparison. All are asked at the same time.
fn measure(snapshot: &Snapshot, evidence: &Evidence) -> ControlFlow<Decision> {
    if comparisons::are_kept(snapshot) {
        return ControlFlow::Break(Decision::wait(Requeue::AtTick));
    }
    let metrics = metrics::check(snapshot, evidence);
    let comparisons = comparisons::results(snapshot, evidence);
    let (mut halts, compared) = match (metrics, comparisons) {
        (Stage::Done(halts), Stage::Done(compared)) => (halts, compared),
        (Stage::Ask(mut questions), Stage::Ask(more)) => {
            questions.extend(more);
            return ControlFlow::Break(Decision::Ask(questions, Vec::new()));
        }
        (Stage::Ask(questions), _) | (_, Stage::Ask(questions)) => {
            return ControlFlow::Break(Decision::Ask(questions, Vec::new()));
        }
    };
    if let Some(rollback) = comparison::roll_back(snapshot, &compared) {
        return ControlFlow::Break(rollback);
    }
    halts.extend(comparison::failures(snapshot, &compared));
    if !halts.is_empty() {
        return ControlFlow::Break(failed_check(snapshot, halts));
    }
    let hold = comparison::hold(snapshot, &compared);
    hold.or_else(|| comparison::end_wait(snapshot, &compared))
        .map_or(ControlFlow::Continue(()), ControlFlow::Break)
}

/// Counts one failed check, for all these reasons.
fn failed_check(snapshot: &Snapshot, halts: Vec<Halt>) -> Decision {
    let (events, checks): (Vec<_>, Vec<_>) = halts
        .into_iter()
        .map(|halt| (messages::warning(snapshot, halt.event), halt.failed))
        .unzip();
    let failed = StatusChange::end_step(snapshot).failed_check();
    let failed = verdict::failed_check(failed, &checks);
    Decision::commit(failed.build(), events)
}
