//! Gates: webhooks that hold a release back until they pass (`pkg/controller/scheduler_hooks.go`). A closed gate is no failed check;
//! it is asked again at every tick, told once, and after that ever less often.

use std::ops::ControlFlow;

use jiff::{SignedDuration, Timestamp};

use super::{
    events::{alert, event, opening},
    hooks::{self, HookResult},
    phase,
    plan::{Decision, Evidence, Requeue},
};
use crate::{
    api::canary::{CanaryPhase, CanaryWebhook, WebhookType},
    notifications::{EventKind, Notification, Severity},
    snapshot::Snapshot,
};

/// After how long somebody is reminded of a gate for the first time; the time doubles with each reminder.
const REMINDER: SignedDuration = SignedDuration::from_hours(1);

/// What a gate comes to: what the hooks that passed said; or, where it is closed or has not answered yet, what there is to do.
type Gate = ControlFlow<Decision, Vec<Notification>>;

/// Before a new version is scaled up.
pub fn rollout(snapshot: &Snapshot, evidence: &Evidence) -> Gate {
    let kind = WebhookType::ConfirmRollout;
    pass(
        snapshot,
        hooks::run(snapshot, evidence, kind, snapshot.phase()),
        |hook| Closed {
            what: format!("waiting for approval {}", hook.name),
            alert: "Canary is waiting for approval.",
            phase: Some(CanaryPhase::Waiting),
        },
    )
}

/// Before a version gets more traffic.
pub fn traffic(snapshot: &Snapshot, evidence: &Evidence) -> Gate {
    let kind = WebhookType::ConfirmTrafficIncrease;
    let asked = hooks::run(snapshot, evidence, kind, CanaryPhase::Progressing);
    pass(snapshot, asked, |hook| Closed {
        what: format!("waiting for traffic increase approval {}", hook.name),
        alert: "Canary traffic increase is waiting for approval.",
        phase: None,
    })
}

/// Before a version is promoted.
pub fn promotion(snapshot: &Snapshot, evidence: &Evidence) -> Gate {
    let kind = WebhookType::ConfirmPromotion;
    let asked = hooks::run(snapshot, evidence, kind, CanaryPhase::Progressing);
    pass(snapshot, asked, |hook| Closed {
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

fn pass(
    snapshot: &Snapshot,
    asked: HookResult<'_>,
    closed: impl FnOnce(&CanaryWebhook) -> Closed,
) -> Gate {
    let (passed, hook) = match asked {
        HookResult::Passed(passed) => return Gate::Continue(passed),
        HookResult::Ask(questions, passed) => {
            return Gate::Break(Decision::Ask(questions, passed));
        }
        HookResult::Failed { passed, hook, .. } => (passed, hook),
    };
    let Closed {
        what,
        alert: text,
        phase,
    } = closed(hook);
    let halt = format!("Halt {} advancement {what}", snapshot.full_name());
    let halt = event(snapshot, EventKind::Warning, halt);
    let alert = |opens| {
        let alert = alert(snapshot, Severity::Warn, text, false);
        (!hook.mute_alert).then(|| opening(alert, opens))
    };
    let decision = match phase {
        Some(phase) if snapshot.phase() != phase => {
            let status = phase::enter(snapshot, phase);
            let news = [Some(halt), alert(phase::opened(&status))];
            Decision::commit(status, news.into_iter().flatten().collect())
        }
        // Who waits in a phase of its own was told when that began; by a process that may not have come to it.
        Some(_) if reminders(snapshot) == 0 => {
            let opened = phase::opened(&phase::status(snapshot));
            let news = opened.and_then(|at| alert(Some(at)));
            Decision::Wait(Requeue::Approval(0), news.into_iter().collect())
        }
        _ => {
            let news = [Some(halt), alert(None)];
            let news = news.into_iter().flatten().collect();
            Decision::Wait(Requeue::Approval(reminders(snapshot)), news)
        }
    };
    Gate::Break(decision.notifying(passed))
}

/// How many reminders of a closed gate are tick by now.
fn reminders(snapshot: &Snapshot) -> u32 {
    let status = phase::status(snapshot);
    let entered = status.conditions.iter().flatten().next();
    let since = match snapshot.phase() {
        // Checks that fail meanwhile move the time of the status, not that of its condition.
        CanaryPhase::WaitingPromotion => entered.and_then(|c| c.last_update_time.clone()),
        _ => status.last_transition_time,
    };
    let Some(since) = since else { return 0 };
    told_after(since.0, snapshot.now)
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
