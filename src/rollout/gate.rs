//! Gates: webhooks that hold a release back until they pass (`pkg/controller/scheduler_hooks.go`). A closed gate is no failed check;
//! it is asked again at every due, told once, and after that ever less often.

use std::ops::ControlFlow;

use jiff::{SignedDuration, Timestamp};

use super::{
    hooks::{self, Outcome},
    phase,
    plan::{Decision, Evidence, Next},
    say::{alert, event, opening},
};
use crate::{
    api::canary::{CanaryPhase, CanaryWebhook, WebhookType},
    notice::{EventKind, Notice, Severity},
    world::World,
};

/// After how long somebody is reminded of a gate for the first time; the time doubles with each reminder.
const REMINDER: SignedDuration = SignedDuration::from_hours(1);

/// What a gate comes to: what the hooks that passed said; or, where it is closed or has not answered yet, what there is to do.
type Gate = ControlFlow<Decision, Vec<Notice>>;

/// Before a new version is scaled up.
pub fn rollout(world: &World, evidence: &Evidence) -> Gate {
    let kind = WebhookType::ConfirmRollout;
    pass(
        world,
        hooks::run(world, evidence, kind, world.phase()),
        |hook| Closed {
            what: format!("waiting for approval {}", hook.name),
            alert: "Canary is waiting for approval.",
            phase: Some(CanaryPhase::Waiting),
        },
    )
}

/// Before a version gets more traffic.
pub fn traffic(world: &World, evidence: &Evidence) -> Gate {
    let kind = WebhookType::ConfirmTrafficIncrease;
    let asked = hooks::run(world, evidence, kind, CanaryPhase::Progressing);
    pass(world, asked, |hook| Closed {
        what: format!("waiting for traffic increase approval {}", hook.name),
        alert: "Canary traffic increase is waiting for approval.",
        phase: None,
    })
}

/// Before a version is promoted.
pub fn promotion(world: &World, evidence: &Evidence) -> Gate {
    let kind = WebhookType::ConfirmPromotion;
    let asked = hooks::run(world, evidence, kind, CanaryPhase::Progressing);
    pass(world, asked, |hook| Closed {
        what: format!("waiting for promotion approval {}", hook.name),
        alert: "Canary promotion is waiting for approval.",
        phase: Some(CanaryPhase::WaitingPromotion),
    })
}

/// How a closed gate is told, and the phase that stands for waiting at it, if there is one.
struct Closed {
    what: String,
    alert: &'static str,
    phase: Option<CanaryPhase>,
}

fn pass(world: &World, asked: Outcome<'_>, closed: impl FnOnce(&CanaryWebhook) -> Closed) -> Gate {
    let (passed, hook) = match asked {
        Outcome::Passed(passed) => return Gate::Continue(passed),
        Outcome::Ask(questions, passed) => {
            return Gate::Break(Decision::Ask(questions, passed));
        }
        Outcome::Failed { passed, hook, .. } => (passed, hook),
    };
    let Closed {
        what,
        alert: text,
        phase,
    } = closed(hook);
    let halt = format!("Halt {} advancement {what}", world.full_name());
    let halt = event(world, EventKind::Warning, halt);
    let alert = |opens| {
        let alert = alert(world, Severity::Warn, text, false);
        (!hook.mute_alert).then(|| opening(alert, opens))
    };
    let decision = match phase {
        Some(phase) if world.phase() != phase => {
            let status = phase::enter(world, phase);
            let news = [Some(halt), alert(phase::opened(&status))];
            Decision::commit(status, news.into_iter().flatten().collect())
        }
        // Who waits in a phase of its own was told when that began; by a process that may not have come to it.
        Some(_) if reminders(world) == 0 => {
            let opened = phase::opened(&phase::status(world));
            let news = opened.and_then(|at| alert(Some(at)));
            Decision::Wait(Next::Approval(0), news.into_iter().collect())
        }
        _ => {
            let news = [Some(halt), alert(None)];
            let news = news.into_iter().flatten().collect();
            Decision::Wait(Next::Approval(reminders(world)), news)
        }
    };
    Gate::Break(decision.saying(passed))
}

/// How many reminders of a closed gate are due by now.
fn reminders(world: &World) -> u32 {
    let status = phase::status(world);
    let entered = status.conditions.iter().flatten().next();
    let since = match world.phase() {
        // Checks that fail meanwhile move the time of the status, not that of its condition.
        CanaryPhase::WaitingPromotion => entered.and_then(|c| c.last_update_time.clone()),
        _ => status.last_transition_time,
    };
    let Some(since) = since else { return 0 };
    told_after(since.0, world.now)
}

fn told_after(since: Timestamp, now: Timestamp) -> u32 {
    let waited = now.duration_since(since).as_secs() / REMINDER.as_secs();
    waited.checked_ilog2().map_or(0, |doublings| doublings + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reminders_come_ever_less_often() {
        let since = Timestamp::UNIX_EPOCH;
        let told: Vec<_> = (0..10)
            .map(|hours| told_after(since, since + SignedDuration::from_hours(hours)))
            .collect();
        assert_eq!(told, [0, 1, 2, 2, 3, 3, 3, 3, 4, 4]);
    }
}
