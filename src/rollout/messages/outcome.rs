//! The notifications of an outcome, in the order in which they are sent.

use super::{alert, describing_alert, event_in, normal};
use crate::{
    api::canary::CanaryPhase,
    notifications::{EventKind, Notification, Severity},
    rollout::status::Outcome,
    snapshot::Snapshot,
};

/// The events and the alert of an outcome. `ended_in` is the phase in which the run ended; event webhooks receive it.
pub fn notifications(
    snapshot: &Snapshot,
    outcome: &Outcome,
    ended_in: CanaryPhase,
) -> Vec<Notification> {
    let target = snapshot.full_target();
    let info = |text| alert(snapshot, Severity::Info, text);
    match outcome {
        Outcome::FailedChecks(_)
        | Outcome::Regression(_)
        | Outcome::Manual(_)
        | Outcome::NotReady(_)
        | Outcome::PodsLost(_)
        | Outcome::Refused(_)
        | Outcome::Aborted(_) => rolled_back(snapshot, outcome, ended_in),
        Outcome::FailedPromotion(why) => failed_promotion(snapshot, why),
        Outcome::Initialized => vec![describing_alert(
            snapshot,
            &format!(
                "New {} detected, initialization completed.",
                snapshot.canary.spec.target_ref.kind
            ),
        )],
        Outcome::Promoted(by) => vec![
            normal(
                snapshot,
                format!("Promotion completed! Scaling down {target}"),
            ),
            if by.is_empty() {
                info("Canary analysis completed successfully, promotion finished.")
            } else {
                info(&format!("Promotion finished, requested {by}"))
            },
        ],
        Outcome::Skipped => vec![
            normal(
                snapshot,
                format!("Promotion completed! Canary analysis was skipped for {target}"),
            ),
            info("Canary analysis was skipped, promotion finished."),
        ],
        Outcome::Reverted => vec![
            normal(
                snapshot,
                format!("Run ended without a promotion: {target} is back at the promoted revision"),
            ),
            info("The target is back at the promoted revision, canary analysis ended."),
        ],
    }
}

fn failed_promotion(snapshot: &Snapshot, why: &str) -> Vec<Notification> {
    let target = snapshot.full_target();
    let event = event_in(
        snapshot,
        EventKind::Warning,
        format!("Promotion of {target} failed, primary not ready: {why}"),
        CanaryPhase::Promoting,
    );
    let text = format!("Promotion failed, primary not ready: {why}");
    vec![event, alert(snapshot, Severity::Error, &text)]
}

/// The notifications of a rollback.
fn rolled_back(snapshot: &Snapshot, outcome: &Outcome, ended_in: CanaryPhase) -> Vec<Notification> {
    let name = snapshot.full_name();
    let warning = |text, phase| event_in(snapshot, EventKind::Warning, text, phase);
    let scaling_down = warning(
        format!("Canary failed! Scaling down {name}"),
        CanaryPhase::Failed,
    );
    let mut notifications = Vec::new();
    if let Outcome::Manual(hook) = outcome {
        notifications.push(warning(format!("Rollback check {hook} passed"), ended_in));
    }
    let why = rollback_reason(outcome);
    let alerted = match outcome {
        Outcome::Manual(_) | Outcome::Aborted(_) => {
            alert(snapshot, Severity::Warn, &format!("Rolling back {why}"))
        }
        _ => alert(snapshot, Severity::Error, &capitalized(&why)),
    };
    let event = warning(format!("Rolling back {name} {why}"), ended_in);
    notifications.extend([event, scaling_down, alerted]);
    notifications
}

/// The reason of a rollback, as the end of a sentence.
fn rollback_reason(outcome: &Outcome) -> String {
    let why = outcome.message();
    match outcome {
        Outcome::FailedChecks(_) => format!("failed checks threshold reached {why}"),
        Outcome::Manual(_) => "manual webhook invoked".to_owned(),
        Outcome::Regression(_) => format!("regression found {why}"),
        Outcome::PodsLost(_) => format!("all ready pods lost {why} times"),
        Outcome::Refused(_) => format!("run cannot go on: {why}"),
        Outcome::Aborted(_) => format!("aborted {why}"),
        _ => format!("progress deadline exceeded {why}"),
    }
}

fn capitalized(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(letters).collect()
}
