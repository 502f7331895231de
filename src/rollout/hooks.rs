//! The user's webhooks of a step: called one after another, in the order of the list, so that load comes before measurement
//! (`pkg/controller/webhook.go`).

use super::{
    events::event,
    plan::{Answer, Evidence, Question},
};
use crate::{
    api::canary::{CanaryPhase, CanaryWebhook, WebhookType},
    notifications::{EventKind, Notification, hook},
    snapshot::Snapshot,
};

/// Answers that are still to be had, or what came of them.
pub enum Stage<T> {
    /// Ask these first.
    Ask(Vec<Question>),
    /// All are in.
    Done(T),
}

/// What came of the hooks of one type.
pub enum HookResult<'a> {
    /// Ask these first; so far these were passed.
    Ask(Vec<Question>, Vec<Notification>),
    /// All passed (or there is none).
    Passed(Vec<Notification>),
    /// One failed, and why; those after it were not called.
    Failed {
        /// The events of those that passed before it.
        passed: Vec<Notification>,
        /// Which.
        hook: &'a CanaryWebhook,
        /// What it answered, or why it could not be asked.
        why: String,
    },
}

/// Runs the hooks of a type; they are told `phase`.
pub fn run<'a>(
    snapshot: &'a Snapshot,
    evidence: &Evidence,
    kind: WebhookType,
    phase: CanaryPhase,
) -> HookResult<'a> {
    let mut passed = Vec::new();
    for (i, hook) in of_type(snapshot, kind) {
        match call(snapshot, evidence, (i, hook), phase) {
            Called::Ask(question) => return HookResult::Ask(vec![question], passed),
            Called::Failed(why) => return HookResult::Failed { passed, hook, why },
            Called::Passed => passed.extend(says_it_passed(kind).map(|kind| {
                let text = format!("{kind} check {} passed", hook.name);
                event(snapshot, EventKind::Normal, text)
            })),
        }
    }
    HookResult::Passed(passed)
}

/// What the hooks say by which a user sends a version back.
pub enum Signal {
    /// Ask this first; so far these said nothing.
    Ask(Question, Vec<Notification>),
    /// This hook says: back.
    Back(String),
    /// None of them does.
    None(Vec<Notification>),
}

/// Asks the rollback hooks: each, until one passes.
pub fn signal(snapshot: &Snapshot, evidence: &Evidence) -> Signal {
    let mut silent = Vec::new();
    for (i, hook) in of_type(snapshot, WebhookType::Rollback) {
        match call(snapshot, evidence, (i, hook), snapshot.phase()) {
            Called::Ask(question) => return Signal::Ask(question, silent),
            Called::Passed => return Signal::Back(hook.name.clone()),
            Called::Failed(_) => {
                let text = format!("Rollback hook {} not signaling a rollback", hook.name);
                silent.push(event(snapshot, EventKind::Normal, text));
            }
        }
    }
    Signal::None(silent)
}

/// The hooks of a type, with their places in the list.
fn of_type(
    snapshot: &Snapshot,
    kind: WebhookType,
) -> impl Iterator<Item = (usize, &CanaryWebhook)> {
    let analysis = snapshot.canary.spec.analysis.iter();
    let hooks = analysis.flat_map(|analysis| &analysis.webhooks).enumerate();
    hooks.filter(move |(_, hook)| hook.type_ == kind)
}

/// What came of one call.
enum Called {
    Ask(Question),
    Passed,
    Failed(String),
}

fn call(
    snapshot: &Snapshot,
    evidence: &Evidence,
    (place, hook): (usize, &CanaryWebhook),
    phase: CanaryPhase,
) -> Called {
    let request = match hook::request(&snapshot.canary, hook, phase) {
        Ok(request) => request,
        Err(why) => return Called::Failed(why),
    };
    let question = Question::Call {
        label: format!("webhook {place}"),
        request: request.clone(),
    };
    let judged = match evidence.get(&question) {
        Some(Answer::Response(response)) => hook::judge(&request, response),
        Some(Answer::Failed(why)) => Err(hook::gave_up(&request, Some(why))),
        Some(Answer::Delivered) | None => return Called::Ask(question),
    };
    match judged {
        Ok(()) => Called::Passed,
        Err(why) => Called::Failed(why),
    }
}

/// How the event of a passed hook begins; Flagger says nothing of rollout hooks.
const fn says_it_passed(kind: WebhookType) -> Option<&'static str> {
    match kind {
        WebhookType::PreRollout => Some("Pre-rollout"),
        WebhookType::PostRollout => Some("Post-rollout"),
        WebhookType::ConfirmRollout => Some("Confirm-rollout"),
        WebhookType::ConfirmPromotion => Some("Confirm-promotion"),
        WebhookType::ConfirmTrafficIncrease => Some("Confirm-traffic-increase"),
        WebhookType::Rollback | WebhookType::Rollout | WebhookType::Event => None,
    }
}
