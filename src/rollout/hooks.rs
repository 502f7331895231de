//! The user's webhooks of a step: called one after another, in the order of the list, so that load comes before measurement.

use super::{
    facts::event,
    plan::{Answer, Evidence, Question},
};
use crate::{
    api::canary::{CanaryPhase, CanaryWebhook, WebhookType},
    notice::{EventKind, Notice, hook},
    world::World,
};

/// Answers that are still to be had, or what came of them.
pub enum Stage<T> {
    /// Ask these first.
    Ask(Vec<Question>),
    /// All are in.
    Done(T),
}

/// What came of the hooks of one type.
pub enum Outcome {
    /// Ask these first; so far these were passed.
    Ask(Vec<Question>, Vec<Notice>),
    /// All passed (or there is none).
    Passed(Vec<Notice>),
    /// One failed, and why; those after it were not called.
    Failed {
        /// The events of those that passed before it.
        passed: Vec<Notice>,
        /// Its name.
        hook: String,
        /// What it answered, or why it could not be asked.
        why: String,
    },
}

/// Whether hooks of this type are called in this version.
pub fn is_supported(hook: &CanaryWebhook) -> bool {
    matches!(
        hook.type_,
        WebhookType::PreRollout
            | WebhookType::Rollout
            | WebhookType::PostRollout
            | WebhookType::Event
    )
}

/// Runs the hooks of a type; they are told `phase`.
pub fn run(world: &World, evidence: &Evidence, kind: WebhookType, phase: CanaryPhase) -> Outcome {
    let mut passed = Vec::new();
    let hooks = world
        .canary
        .spec
        .analysis
        .iter()
        .flat_map(|analysis| &analysis.webhooks)
        .enumerate();
    for (i, hook) in hooks.filter(|(_, hook)| hook.type_ == kind) {
        let request = match hook::request(&world.canary, hook, phase) {
            Ok(request) => request,
            Err(why) => {
                return Outcome::Failed {
                    passed,
                    hook: hook.name.clone(),
                    why,
                };
            }
        };
        let question = Question::Call {
            label: format!("webhook {i}"),
            request: request.clone(),
        };
        let why = match evidence.get(&question) {
            Some(Answer::Response(response)) => hook::judge(&request, response),
            Some(Answer::Failed(why)) => Err(hook::gave_up(&request, Some(why))),
            Some(Answer::Told) | None => return Outcome::Ask(vec![question], passed),
        };
        if let Err(why) = why {
            return Outcome::Failed {
                passed,
                hook: hook.name.clone(),
                why,
            };
        }
        passed.extend(says_it_passed(kind).map(|kind| {
            event(
                world,
                EventKind::Normal,
                format!("{kind} check {} passed", hook.name),
            )
        }));
    }
    Outcome::Passed(passed)
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
