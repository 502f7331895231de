//! Between releases: news still owed, and the start of the next run.

use std::ops::ControlFlow;

use jiff::{SignedDuration, Timestamp};

use super::{
    drain,
    facts::Facts,
    gate,
    hooks::{self, Outcome},
    phase::{self, Intent},
    plan::{Answer, Decision, Evidence, Next, Question},
    rollback::{self, Cause},
    say::{self, alert, event, event_in, opening},
};
use crate::{
    api::canary::{CanaryPhase, Strategy, WebhookType},
    notice::{EventKind, Notice, Severity},
    route::affinity,
    world::{Readiness, World},
};

/// How long a change must have rested before a run starts, so that a burst of edits is one run …
const DEBOUNCE: SignedDuration = SignedDuration::from_millis(500);
/// … and how long edits can hold it back.
const DEBOUNCE_LIMIT: SignedDuration = SignedDuration::from_secs(1);

/// Starts a run if there is something new, and nobody holds it back.
pub fn decide(facts: &Facts<'_>, evidence: &Evidence) -> Result<Decision, String> {
    let world = facts.world;
    facts.complete()?;
    if world.phase() == CanaryPhase::Waiting {
        if facts.is_reverted() {
            return Ok(rollback::begin(world, &Cause::Reverted));
        }
        if world.due.is_none() {
            return Ok(Decision::Wait(Next::Due, Vec::new()));
        }
        return start(facts, evidence);
    }
    if facts.to_adopt() {
        return Ok(Decision::commit(adopted(facts), Vec::new()));
    }
    if !facts.changed() {
        if let Some(wait) = facts.routes_lag().filter(|_| drain::is_over(world)) {
            return Ok(wait);
        }
        let end = drain::end(world).filter(|end| *end > world.now);
        let next = end.map_or(Next::Due, Next::At);
        return Ok(Decision::Wait(next, Vec::new()));
    }
    match debounce(world) {
        Some(wait) => Ok(wait),
        None => start(facts, evidence),
    }
}

/// The start of a run, once its gate is open.
fn start(facts: &Facts<'_>, evidence: &Evidence) -> Result<Decision, String> {
    let world = facts.world;
    if !world.canary.skip_analysis()
        && facts.primary_serves()
        && let Readiness::Waiting(why) | Readiness::Failed(why) = facts.primary_readiness()
    {
        return Ok(Decision::Wait(
            Next::Due,
            vec![event(world, EventKind::Warning, why)],
        ));
    }
    if let Some(wait) = facts.routes_pending() {
        return Ok(wait);
    }
    let passed = match gate::rollout(world, evidence) {
        ControlFlow::Continue(passed) => passed,
        ControlFlow::Break(decision) => return Ok(decision),
    };
    let mut status = started(facts);
    status.canary_weight = i64::from(facts.weights()?.canary);
    let text = format!("New revision detected! Scaling up {}", world.full_target());
    let news = vec![
        event_in(world, EventKind::Normal, text, CanaryPhase::Progressing),
        start_alert(world, phase::opened(&status)),
    ];
    Ok(Decision::commit(status, news).saying(passed))
}

/// The status at the start of a run: what it is about is on record before anything is done for it.
pub fn started(facts: &Facts<'_>) -> crate::api::canary::CanaryStatus {
    let status = phase::enter(facts.world, CanaryPhase::Progressing);
    // The target is wanted again.
    let mut status = phase::without_intent(status, Intent::Draining);
    status.canary_weight = 0;
    status.iterations = 0;
    status.failed_checks = 0;
    status.last_applied_spec = Some(facts.revision.clone());
    status.tracked_configs.clone_from(&facts.configs);
    affinity::retire(&mut status);
    status
}

/// Waits until a change has rested; `None` once it has.
pub fn debounce(world: &World) -> Option<Decision> {
    let Some(changed) = world.changed else {
        return Some(Decision::Wait(Next::Due, Vec::new()));
    };
    let rested = changed.last.saturating_add(DEBOUNCE).unwrap_or(world.now);
    let limit = changed
        .first
        .saturating_add(DEBOUNCE_LIMIT)
        .unwrap_or(world.now);
    let start = rested.min(limit);
    (world.now < start).then(|| Decision::Wait(Next::At(start), Vec::new()))
}

/// The same revision under our name for it: no event, no run, no restart.
pub fn adopted(facts: &Facts<'_>) -> crate::api::canary::CanaryStatus {
    let mut status = phase::status(facts.world);
    status.last_applied_spec = Some(facts.revision.clone());
    match status.phase {
        CanaryPhase::Initialized | CanaryPhase::Succeeded => {
            status.last_promoted_spec = Some(facts.revision.clone());
        }
        // Flagger's says neither the weight nor the iteration at which it waits.
        CanaryPhase::WaitingPromotion if facts.strategy() == Strategy::Canary => {
            let routed = facts.weights().map(|weights| i64::from(weights.canary));
            status.canary_weight = routed.unwrap_or(status.canary_weight);
            status.iterations = 0;
        }
        _ => {}
    }
    status.tracked_configs.clone_from(&facts.configs);
    match status.phase {
        // Flagger told that it began.
        CanaryPhase::Progressing | CanaryPhase::WaitingPromotion => {
            phase::as_told(status, facts.world)
        }
        _ => status,
    }
}

/// Tells what a run, or an initialization, came to: at least once, whatever happened in between. Only then is it settled.
/// A failure is told before its hooks are called, a success after them.
pub fn tell(world: &World, evidence: &Evidence) -> Decision {
    let (reason, message) = phase::intent(world, Intent::NoticePending).unwrap_or_default();
    let begun_in = rollback::phase_of(reason);
    let cause = Cause::read(reason, message);
    let mut news = news(world, &cause, begun_in);
    if world.phase() == CanaryPhase::Failed
        && let Some(question) = untold(std::mem::take(&mut news), evidence)
    {
        return Decision::Ask(vec![question], Vec::new());
    }
    let hooks = match cause {
        Cause::Initialized => Outcome::Passed(Vec::new()),
        _ => hooks::run(world, evidence, WebhookType::PostRollout, world.phase()),
    };
    let mut notices = match hooks {
        Outcome::Ask(questions, _) => return Decision::Ask(questions, Vec::new()),
        Outcome::Passed(passed) => passed,
        Outcome::Failed {
            mut passed,
            hook,
            why,
        } => {
            let text = format!("Post-rollout hook {} failed {why}", hook.name);
            passed.push(event(world, EventKind::Warning, text));
            passed
        }
    };
    notices.extend(news);
    match untold(notices, evidence) {
        Some(question) => Decision::Ask(vec![question], Vec::new()),
        None => Decision::commit(
            phase::without_intent(phase::status(world), Intent::NoticePending),
            Vec::new(),
        ),
    }
}

/// The start of a run, until a step of it is on record: nobody knows whether the process that began it came to tell it.
pub fn started_news(world: &World) -> Vec<Notice> {
    let opened = phase::opened(&phase::status(world));
    let opened = opened.filter(|_| world.phase() == CanaryPhase::Progressing);
    let news = opened.map(|at| start_alert(world, Some(at)));
    news.into_iter().collect()
}

fn start_alert(world: &World, entered: Option<Timestamp>) -> Notice {
    let text = "New revision detected, progressing canary analysis.";
    opening(alert(world, Severity::Info, text, true), entered)
}

/// What is still to be told of this.
fn untold(notices: Vec<Notice>, evidence: &Evidence) -> Option<Question> {
    let question = Question::Tell(notices);
    let is_told =
        evidence.get(&question) == Some(&Answer::Told) || question == Question::Tell(Vec::new());
    (!is_told).then_some(question)
}

fn news(world: &World, cause: &Cause, begun_in: CanaryPhase) -> Vec<Notice> {
    let (name, target) = (world.full_name(), world.full_target());
    let warning = |text: String, phase| event_in(world, EventKind::Warning, text, phase);
    let down = warning(
        format!("Canary failed! Scaling down {name}"),
        CanaryPhase::Failed,
    );
    let normal = |text: String| event(world, EventKind::Normal, text);
    let alert = |severity, text: &str| alert(world, severity, text, false);
    match cause {
        Cause::FailedChecks(n) => vec![
            warning(
                format!("Rolling back {name} failed checks threshold reached {n}"),
                begun_in,
            ),
            down,
            alert(
                Severity::Error,
                &format!("Failed checks threshold reached {n}"),
            ),
        ],
        Cause::Manual(hook) => vec![
            warning(format!("Rollback check {hook} passed"), begun_in),
            warning(
                format!("Rolling back {name} manual webhook invoked"),
                begun_in,
            ),
            down,
            alert(Severity::Warn, "Rolling back manual webhook invoked"),
        ],
        Cause::NotReady(why) => vec![
            warning(
                format!("Rolling back {name} progress deadline exceeded {why}"),
                begun_in,
            ),
            down,
            alert(
                Severity::Error,
                &format!("Progress deadline exceeded {why}"),
            ),
        ],
        Cause::FailedPromotion(why) => vec![
            warning(
                format!("Promotion of {target} failed, primary not ready: {why}"),
                CanaryPhase::Promoting,
            ),
            alert(
                Severity::Error,
                &format!("Promotion failed, primary not ready: {why}"),
            ),
        ],
        Cause::Initialized => vec![say::alert(
            world,
            Severity::Info,
            &format!(
                "New {} detected, initialization completed.",
                world.canary.spec.target_ref.kind
            ),
            true,
        )],
        Cause::Promoted => vec![
            normal(format!("Promotion completed! Scaling down {target}")),
            alert(
                Severity::Info,
                "Canary analysis completed successfully, promotion finished.",
            ),
        ],
        Cause::Skipped => vec![
            normal(format!(
                "Promotion completed! Canary analysis was skipped for {target}"
            )),
            alert(
                Severity::Info,
                "Canary analysis was skipped, promotion finished.",
            ),
        ],
        Cause::Reverted => vec![
            normal(format!(
                "Run ended without a promotion: {target} is back at the promoted revision"
            )),
            alert(
                Severity::Info,
                "The target is back at the promoted revision, canary analysis ended.",
            ),
        ],
    }
}
