//! The events of hooks and gates, and the reasons why a check failed.

use super::{alert, normal, recurring, warning};
use crate::{
    api::canary::{CanaryWebhook, WebhookType},
    notifications::{EventKind, Notification, Severity, webhook::WebhookError},
    snapshot::Snapshot,
};

/// A hook passed. `None` for the types of which Flagger sends no event.
pub fn hook_passed(
    snapshot: &Snapshot,
    kind: WebhookType,
    hook: &CanaryWebhook,
) -> Option<Notification> {
    let kind = match kind {
        WebhookType::PreRollout => "Pre-rollout",
        WebhookType::PostRollout => "Post-rollout",
        WebhookType::ConfirmRollout => "Confirm-rollout",
        WebhookType::ConfirmPromotion => "Confirm-promotion",
        WebhookType::ConfirmTrafficIncrease => "Confirm-traffic-increase",
        WebhookType::Rollback | WebhookType::Rollout | WebhookType::Event => return None,
    };
    let text = format!("{kind} check {} passed", hook.name);
    Some(normal(snapshot, text))
}

/// The text of a failed pre-rollout or rollout hook.
pub fn hook_halts(
    snapshot: &Snapshot,
    kind: WebhookType,
    hook: &CanaryWebhook,
    why: &WebhookError,
) -> String {
    let check = if kind == WebhookType::PreRollout {
        "pre-rollout check"
    } else {
        "external check"
    };
    let name = snapshot.full_name();
    format!("Halt {name} advancement {check} {} failed {why}", hook.name)
}

/// A post-rollout hook failed. The outcome of the run does not change.
pub fn post_rollout_failed(
    snapshot: &Snapshot,
    hook: &CanaryWebhook,
    why: &WebhookError,
) -> Notification {
    let text = format!("Post-rollout hook {} failed {why}", hook.name);
    warning(snapshot, text)
}

/// A rollback hook asked for no rollback.
pub fn no_rollback_signal(snapshot: &Snapshot, hook: &CanaryWebhook) -> Notification {
    let text = format!("Rollback hook {} not signaling a rollback", hook.name);
    recurring(snapshot, EventKind::Normal, text)
}

/// The event that a gate is closed. `waits` is the text of the gate: "waiting for … approval NAME".
pub fn gate_closed(snapshot: &Snapshot, waits: &str) -> Notification {
    let name = snapshot.full_name();
    warning(snapshot, format!("Halt {name} advancement {waits}"))
}

/// The alert that a gate is closed.
pub fn gate_alert(snapshot: &Snapshot, text: &str) -> Notification {
    alert(snapshot, Severity::Warn, text)
}
