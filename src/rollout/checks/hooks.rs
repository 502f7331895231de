//! The user's webhooks of a step. They are called one after another in the order of the list, so that a load test runs before a
//! measurement (Flagger: `pkg/controller/webhook.go`).

use crate::{
    api::canary::{CanaryPhase, CanaryWebhook, WebhookType},
    notifications::{
        Notification,
        webhook::{self, WebhookError},
    },
    rollout::{
        messages::checks as messages,
        plan::{Answer, Evidence, Question},
    },
    snapshot::Snapshot,
};

/// Questions that must be answered first, or the result.
pub enum Stage<T> {
    /// Ask these questions first.
    Ask(Vec<Question>),
    /// All answers are known; this is the result.
    Done(T),
}

/// The result of all hooks of one type.
pub enum HookResult<'a> {
    /// Ask these questions first; the notifications are those of the hooks that have passed.
    Ask(Vec<Question>, Vec<Notification>),
    /// All hooks passed, or there is none.
    Passed(Vec<Notification>),
    /// A hook failed. The hooks after it were not called.
    Failed {
        /// The notifications of the hooks that passed before it.
        passed: Vec<Notification>,
        /// The hook that failed.
        hook: &'a CanaryWebhook,
        /// The reason.
        why: WebhookError,
    },
}

/// Runs the hooks of a type. Their payload has `phase`.
pub fn run<'a>(
    snapshot: &'a Snapshot,
    evidence: &Evidence,
    kind: WebhookType,
    phase: CanaryPhase,
) -> HookResult<'a> {
    let mut passed = Vec::new();
    for (place, hook) in of_type(snapshot, kind) {
        match call(snapshot, evidence, (place, hook), phase) {
            Called::Ask(question) => return HookResult::Ask(vec![question], passed),
            Called::Failed(why) => return HookResult::Failed { passed, hook, why },
            Called::Passed => passed.extend(messages::hook_passed(snapshot, kind, hook)),
        }
    }
    HookResult::Passed(passed)
}

/// The result of the rollback hooks, by which a user asks for a rollback.
pub enum Signal {
    /// Ask this question first; the notifications are those of the hooks that asked for no rollback.
    Ask(Question, Vec<Notification>),
    /// The hook of this name asks for a rollback.
    RollBack(String),
    /// No hook asks for a rollback.
    None(Vec<Notification>),
}

/// Calls the rollback hooks until one of them passes.
pub fn rollback_signal(snapshot: &Snapshot, evidence: &Evidence) -> Signal {
    let mut unsignaled = Vec::new();
    for (place, hook) in of_type(snapshot, WebhookType::Rollback) {
        match call(snapshot, evidence, (place, hook), snapshot.phase()) {
            Called::Ask(question) => return Signal::Ask(question, unsignaled),
            Called::Passed => return Signal::RollBack(hook.name.clone()),
            Called::Failed(_) => unsignaled.push(messages::no_rollback_signal(snapshot, hook)),
        }
    }
    Signal::None(unsignaled)
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

/// The result of one call.
enum Called {
    Ask(Question),
    Passed,
    Failed(WebhookError),
}

/// The label of the questions to the hook at this place of the list.
pub fn label(place: usize) -> String {
    format!("webhook {place}")
}

fn call(
    snapshot: &Snapshot,
    evidence: &Evidence,
    (place, hook): (usize, &CanaryWebhook),
    phase: CanaryPhase,
) -> Called {
    let request = match webhook::request(&snapshot.canary, hook, phase) {
        Ok(request) => request,
        Err(error) => return Called::Failed(error),
    };
    let question = Question::Call {
        label: label(place),
        request: request.clone(),
    };
    let judged = match evidence.get(&question) {
        Some(Answer::Response(response)) => webhook::judge(&request, Ok(response)),
        Some(Answer::Failed(failure)) => webhook::judge(&request, Err(failure)),
        Some(
            Answer::Value(_)
            | Answer::Series(_)
            | Answer::Online(_)
            | Answer::Objects(_)
            | Answer::Delivered,
        )
        | None => {
            return Called::Ask(question);
        }
    };
    match judged {
        Ok(()) => Called::Passed,
        Err(error) => Called::Failed(error),
    }
}
