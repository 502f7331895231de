//! Gates: webhooks that hold a release back until they pass (Flagger: `pkg/controller/scheduler_hooks.go`). A closed gate is no failed
//! check. It is asked again at each tick; reminders that it is closed become less and less frequent.

use std::ops::ControlFlow;

use jiff::{SignedDuration, Timestamp};

use super::hooks::{self, HookResult};
use crate::{
    api::{
        canary::{CanaryPhase, CanaryWebhook, WebhookType},
        status::ConditionType,
    },
    notifications::{Notification, webhook::WebhookError},
    rollout::{
        actions,
        messages::{announcing, checks as messages},
        plan::{Decision, Evidence, Requeue},
        status::{StatusChange, change::unconfirmed_start, verdict},
    },
    snapshot::Snapshot,
};

/// The time until the first reminder of a closed gate; it doubles with each reminder.
const REMINDER: SignedDuration = SignedDuration::from_hours(1);

/// The notifications of an open gate; or the decision, while the gate is closed or has not answered.
type Gate = ControlFlow<Decision, Vec<Notification>>;

/// The result of a gate that a person opened: its webhooks are not called.
const OPENED: Gate = Gate::Continue(Vec::new());

/// The gate before a new version is scaled up.
pub fn rollout(snapshot: &Snapshot, evidence: &Evidence) -> Gate {
    if actions::skips(snapshot) || actions::promotes(snapshot) {
        return OPENED;
    }
    let kind = WebhookType::ConfirmRollout;
    let result = hooks::run(snapshot, evidence, kind, snapshot.phase());
    pass(snapshot, result, |hook| Closed {
        waits: format!("waiting for approval {}", hook.name),
        alert: "Canary is waiting for approval.",
        phase: Some(CanaryPhase::Waiting),
    })
}

/// The gate before a version gets more traffic.
pub fn traffic(snapshot: &Snapshot, evidence: &Evidence) -> Gate {
    if actions::skips(snapshot) {
        return OPENED;
    }
    let kind = WebhookType::ConfirmTrafficIncrease;
    let result = hooks::run(snapshot, evidence, kind, CanaryPhase::Progressing);
    pass(snapshot, result, |hook| Closed {
        waits: format!("waiting for traffic increase approval {}", hook.name),
        alert: "Canary traffic increase is waiting for approval.",
        phase: None,
    })
}

/// The gate before a version is promoted.
pub fn promotion(snapshot: &Snapshot, evidence: &Evidence) -> Gate {
    if actions::skips(snapshot) {
        return OPENED;
    }
    let kind = WebhookType::ConfirmPromotion;
    let result = hooks::run(snapshot, evidence, kind, CanaryPhase::Progressing);
    pass(snapshot, result, |hook| Closed {
        waits: format!("waiting for promotion approval {}", hook.name),
        alert: "Canary promotion is waiting for approval.",
        phase: Some(CanaryPhase::WaitingPromotion),
    })
}

/// A closed gate: its texts, and the phase in which a release waits at it, if there is one.
struct Closed {
    waits: String,
    alert: &'static str,
    phase: Option<CanaryPhase>,
}

fn pass(
    snapshot: &Snapshot,
    result: HookResult<'_>,
    closed: impl FnOnce(&CanaryWebhook) -> Closed,
) -> Gate {
    let (passed, hook, why) = match result {
        HookResult::Passed(passed) => return Gate::Continue(passed),
        HookResult::Ask(questions, passed) => {
            return Gate::Break(Decision::Ask(questions, passed));
        }
        HookResult::Failed { passed, hook, why } => (passed, hook, why),
    };
    let decision = wait_at(snapshot, hook, &why, &closed(hook));
    Gate::Break(decision.notifying(passed))
}

fn wait_at(
    snapshot: &Snapshot,
    hook: &CanaryWebhook,
    why: &WebhookError,
    closed: &Closed,
) -> Decision {
    let event = messages::gate_closed(snapshot, &closed.waits);
    let alert = |entered| {
        let alert = messages::gate_alert(snapshot, closed.alert);
        (!hook.mute_alert).then(|| announcing(alert, entered))
    };
    match closed.phase {
        Some(phase) if snapshot.phase() != phase => {
            let waits = StatusChange::enter(snapshot, phase);
            let status = verdict::waits_at(waits, hook, why).build();
            let alert = alert(unconfirmed_start(&status));
            Decision::commit(status, [Some(event), alert].into_iter().flatten().collect())
        }
        // The event and the alert were sent when the phase began. The alert is repeated, because the process may have died before it sent
        // the alert.
        Some(_) if reminders(snapshot) == 0 => {
            let entered = unconfirmed_start(snapshot.status());
            let alert = entered.and_then(|at| alert(Some(at)));
            Decision::Wait(Requeue::Approval(0), alert.into_iter().collect())
        }
        None if !verdict::is_waiting_at(snapshot.status(), hook) => {
            let waits = StatusChange::within_step(snapshot);
            let status = verdict::waits_at(waits, hook, why).build();
            Decision::commit(status, Vec::new())
        }
        _ => {
            let notifications = [Some(event), alert(None)].into_iter().flatten().collect();
            Decision::Wait(Requeue::Approval(reminders(snapshot)), notifications)
        }
    }
}

/// The number of reminders of a closed gate that should have been sent by now.
fn reminders(snapshot: &Snapshot) -> u32 {
    let status = snapshot.status();
    let since = match snapshot.phase() {
        // A check that fails during the wait changes the time of the status, but not the time of the condition `Promoted`.
        CanaryPhase::WaitingPromotion => status
            .condition(ConditionType::Promoted)
            .and_then(|condition| condition.last_update_time.as_ref()),
        _ => status.last_transition_time.as_ref(),
    };
    since.map_or(0, |since| reminders_after(since.0, snapshot.now))
}

fn reminders_after(since: Timestamp, now: Timestamp) -> u32 {
    let waited = now.duration_since(since).as_secs() / REMINDER.as_secs();
    waited.checked_ilog2().map_or(0, |doublings| doublings + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reminders_become_less_and_less_frequent() {
        let since = Timestamp::UNIX_EPOCH;
        let sent: Vec<_> = (0..10)
            .map(|hours| reminders_after(since, since + SignedDuration::from_hours(hours)))
            .collect();
        assert_eq!(sent, [0, 1, 2, 2, 3, 3, 3, 3, 4, 4]);
    }
}
