//! A release under judgement: each interval the version is checked, then gets more traffic, another iteration, or is sent back
//! (Flagger's phases Progressing and `WaitingPromotion`).

use super::{
    Plan,
    facts::{Facts, event, event_in},
    hooks::{self, Outcome, Stage},
    metrics, phase,
    plan::{Decision, Evidence, Next, Question},
    promotion,
    rollback::{self, Cause},
    settled,
};
use crate::{
    api::canary::{CanaryPhase, CanaryStatus, Strategy, WebhookType},
    notice::{EventKind, Notice},
    world::{Readiness, Weights},
};

/// What the checks of a step came to.
enum Checked {
    Ask(Vec<Question>, Vec<Notice>),
    Passed(Vec<Notice>),
    Halted(Vec<Notice>),
}

/// One look at a release under judgement.
pub fn decide(facts: &Facts<'_>, evidence: &Evidence) -> Result<Decision, String> {
    let world = facts.world;
    if facts.changed() {
        if let Some(wait) = settled::debounce(world) {
            return Ok(wait);
        }
        return if facts.is_reverted() {
            Ok(rollback::begin(world, &Cause::Reverted))
        } else {
            restart(facts)
        };
    }
    if facts.to_adopt() {
        return Ok(Decision::commit(settled::adopted(facts), Vec::new()));
    }
    if facts.is_scaled_to_zero() {
        return Ok(Decision::Do(Plan {
            effects: facts.scale_up().into_iter().collect(),
            ..Plan::default()
        }));
    }
    let skip = world.canary.skip_analysis();
    if !skip && let Some(plan) = retreat(facts)? {
        return Ok(Decision::Do(plan));
    }
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
    if world.due.is_none() {
        return Ok(Decision::Wait(Next::Due, Vec::new()));
    }
    if skip {
        return skip_analysis(facts);
    }
    let failed = phase::status(world).failed_checks;
    if failed >= world.canary.threshold() {
        return Ok(rollback::begin(world, &Cause::FailedChecks(failed)));
    }
    Ok(match check(facts, evidence)? {
        Checked::Ask(questions, notices) => Decision::Ask(questions, notices),
        Checked::Halted(notices) => {
            let mut status = phase::step(world);
            status.failed_checks += 1;
            Decision::commit(status, notices)
        }
        Checked::Passed(notices) => {
            let mut plan = advance(facts)?;
            plan.notices.splice(0..0, notices);
            Decision::Do(plan)
        }
    })
}

/// The version changed under way: traffic returns to the primary, and the analysis begins anew.
pub fn restart(facts: &Facts<'_>) -> Result<Decision, String> {
    let text = format!(
        "New revision detected! Restarting analysis for {}",
        facts.world.full_target()
    );
    Ok(Decision::Do(Plan {
        effects: facts.set_weights(&Weights::PRIMARY)?,
        status: Some(settled::started(facts)),
        notices: vec![event(facts.world, EventKind::Normal, text)],
    }))
}

/// No pod is there for what is routed to the canary: traffic returns to the primary at once, which counts as a failed check, and the
/// analysis begins anew when pods are ready again. (Flagger leaves the weight as it is until the progress deadline.)
fn retreat(facts: &Facts<'_>) -> Result<Option<Plan>, String> {
    let world = facts.world;
    let mut status = phase::step(world);
    if world.phase() != CanaryPhase::Progressing
        || world.canary.strategy() != Strategy::Canary
        || status.canary_weight == 0
        || facts.canary_answers()
        || !facts.primary_answers()
    {
        return Ok(None);
    }
    status.canary_weight = 0;
    status.failed_checks += 1;
    let text = format!(
        "Halt {} advancement no pod of the canary is ready",
        world.full_name()
    );
    Ok(Some(Plan {
        effects: facts.set_weights(&Weights::PRIMARY)?,
        status: Some(status),
        notices: vec![event(world, EventKind::Warning, text)],
    }))
}

/// Promotes without judgement, in two looks: the primary gets the version; then, and only then, the canary goes.
fn skip_analysis(facts: &Facts<'_>) -> Result<Decision, String> {
    let status = phase::status(facts.world);
    if facts.weights()? != Weights::PRIMARY || status.canary_weight != 0 || status.iterations != 0 {
        // The analysis was switched off in the middle.
        let mut status = phase::step(facts.world);
        (status.canary_weight, status.iterations) = (0, 0);
        return moved(facts, &Weights::PRIMARY, status, None).map(Decision::Do);
    }
    if facts.is_promoted() {
        return Ok(Decision::Do(promotion::succeed(facts, &Cause::Skipped)));
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

fn check(facts: &Facts<'_>, evidence: &Evidence) -> Result<Checked, String> {
    let world = facts.world;
    let status = phase::status(world);
    let mirror = world
        .canary
        .spec
        .analysis
        .as_ref()
        .is_some_and(|a| a.mirror);
    let begins = status.canary_weight == 0
        && status.iterations == 0
        && !(mirror && facts.weights()?.mirrored);
    let name = world.full_name();
    let (kind, what, mut notices) = if begins {
        let text = format!("Starting canary analysis for {}", world.full_target());
        (
            WebhookType::PreRollout,
            "pre-rollout check",
            vec![event(world, EventKind::Normal, text)],
        )
    } else {
        (WebhookType::Rollout, "external check", Vec::new())
    };
    match hooks::run(world, evidence, kind, CanaryPhase::Progressing) {
        Outcome::Ask(questions, passed) => {
            notices.extend(passed);
            return Ok(Checked::Ask(questions, notices));
        }
        Outcome::Failed { passed, hook, why } => {
            notices.extend(passed);
            let text = format!("Halt {name} advancement {what} {hook} failed {why}");
            notices.push(event(world, EventKind::Warning, text));
            return Ok(Checked::Halted(notices));
        }
        Outcome::Passed(passed) => notices.extend(passed),
    }
    if begins {
        return Ok(Checked::Passed(notices));
    }
    Ok(match metrics::check(world, evidence) {
        Stage::Ask(questions) => Checked::Ask(questions, notices),
        Stage::Done(halts) if halts.is_empty() => Checked::Passed(notices),
        Stage::Done(halts) => {
            notices.extend(
                halts
                    .into_iter()
                    .map(|text| event(world, EventKind::Warning, text)),
            );
            Checked::Halted(notices)
        }
    })
}

/// The checks passed: what comes next in the strategy.
fn advance(facts: &Facts<'_>) -> Result<Plan, String> {
    match facts.world.canary.strategy() {
        Strategy::Canary => advance_weight(facts),
        Strategy::BlueGreen | Strategy::AbTesting => advance_iteration(facts),
    }
}

fn advance_weight(facts: &Facts<'_>) -> Result<Plan, String> {
    let world = facts.world;
    let mut status = phase::step(world);
    let mirror = world
        .canary
        .spec
        .analysis
        .as_ref()
        .is_some_and(|a| a.mirror);
    if status.canary_weight >= world.canary.max_weight() {
        return Ok(promote(facts));
    }
    let routed = facts.weights()?;
    let weights = if mirror && status.canary_weight == 0 && !routed.mirrored {
        Weights {
            mirrored: true,
            ..Weights::PRIMARY
        }
    } else {
        let next = world.canary.next_weight(status.canary_weight);
        Weights::canary(u8::try_from(next.clamp(0, 100)).unwrap_or(100))
    };
    status.canary_weight = i64::from(weights.canary);
    let text = format!(
        "Advance {} canary weight {}",
        world.full_name(),
        weights.canary
    );
    moved(facts, &weights, status, Some(text))
}

fn advance_iteration(facts: &Facts<'_>) -> Result<Plan, String> {
    let world = facts.world;
    let mut status = phase::step(world);
    let analysis = world.canary.spec.analysis.as_ref();
    let all = analysis.and_then(|a| a.iterations).unwrap_or(0);
    let mirror = analysis.is_some_and(|a| a.mirror);
    let is_ab = world.canary.strategy() == Strategy::AbTesting;
    let routed = facts.weights()?;
    if status.iterations < all {
        let weights = match (is_ab, mirror) {
            (true, _) => Weights::CANARY,
            (false, true) => Weights {
                mirrored: true,
                ..Weights::PRIMARY
            },
            (false, false) => routed,
        };
        status.iterations += 1;
        let text = format!(
            "Advance {} canary iteration {}/{all}",
            world.full_name(),
            status.iterations
        );
        return moved(facts, &weights, status, Some(text));
    }
    if is_ab || routed.canary == 100 {
        return Ok(promote(facts));
    }
    // Blue/green: the whole traffic meets the version once, for one interval, before it is promoted.
    let text = if mirror {
        "Stop traffic mirroring and route all traffic to canary"
    } else {
        "Routing all traffic to canary"
    };
    status.iterations = all + 1;
    moved(facts, &Weights::CANARY, status, Some(text.to_owned()))
}

fn moved(
    facts: &Facts<'_>,
    weights: &Weights,
    status: CanaryStatus,
    text: Option<String>,
) -> Result<Plan, String> {
    let notices = text
        .map(|text| event(facts.world, EventKind::Normal, text))
        .into_iter()
        .collect();
    Ok(Plan {
        effects: facts.set_weights(weights)?,
        status: Some(status),
        notices,
    })
}

/// The version is good. That it is promoted is on record before the primary is touched; Flagger records it afterwards.
fn promote(facts: &Facts<'_>) -> Plan {
    let status = phase::enter(facts.world, CanaryPhase::Promoting);
    Plan {
        effects: Vec::new(),
        status: Some(status),
        notices: vec![copying(facts)],
    }
}

fn copying(facts: &Facts<'_>) -> Notice {
    let (target, world) = (&facts.world.canary.spec.target_ref.name, facts.world);
    let text = format!(
        "Copying {} template spec to {target}-primary.{}",
        world.full_target(),
        world.namespace()
    );
    event_in(world, EventKind::Normal, text, CanaryPhase::Progressing)
}
