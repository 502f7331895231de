//! After a failed promotion (not in Flagger): the primary gets its previous version back, with the content of its configs. When it is
//! ready, it gets its traffic back, and the next version takes its steps like any other.

use serde_json::Value;

use crate::{
    api::status::ConditionType,
    rollout::{
        blocked::Blocked,
        messages::{self, run},
        plan::{Answer, Decision, Evidence, Plan, Question, Requeue},
        release::Release,
        status::{StatusChange, draining},
    },
    snapshot::{Readiness, Snapshot, Weights, Write},
    workload::{config::copies::Copies, history, label_selector::shown},
};

/// The reason of the condition `PromotionFailed` until the primary's previous version is known.
pub const BROKEN: &str = "PrimaryNotReady";
/// The reason of the condition while the primary is restored.
const RESTORING: &str = "RestoringPrimary";
/// The reason of the condition if the primary cannot be restored.
pub const NOT_RESTORED: &str = "PrimaryNotRestored";

/// The message of the condition with this reason.
pub fn message(reason: &str) -> &'static str {
    match reason {
        BROKEN => "The primary did not become ready with the promoted version.",
        RESTORING => "The primary gets its previous version back.",
        _ => {
            "The primary is not ready, and it cannot get a previous version back. Release a version that works."
        }
    }
}

/// The decision while a primary is restored; `None` if there is none to restore.
pub fn decide(release: &Release<'_>, evidence: &Evidence) -> Result<Option<Decision>, Blocked> {
    let snapshot = release.snapshot;
    let condition = snapshot.status().condition(ConditionType::PromotionFailed);
    match condition.map(|condition| &*condition.reason) {
        Some(BROKEN) => Ok(Some(begin(release, evidence))),
        Some(RESTORING) => proceed(release).map(Some),
        _ => Ok(None),
    }
}

/// Gives the primary its previous version.
fn begin(release: &Release<'_>, evidence: &Evidence) -> Decision {
    let snapshot = release.snapshot;
    let Some(primary) = snapshot.primary() else {
        return give_up(snapshot, "it was deleted");
    };
    let restoring = || failed_because(snapshot, RESTORING).build();
    if !release.is_promoted() {
        // The operator was interrupted after the write.
        return Decision::commit(restoring(), vec![run::restoring_primary(snapshot)]);
    }
    let Some(question) = question(release) else {
        return give_up(snapshot, "it keeps no earlier versions");
    };
    let kept = match evidence.get(&question) {
        None => return Decision::Ask(vec![question], Vec::new()),
        Some(Answer::Objects(kept)) => kept,
        Some(Answer::Failed(failure)) if is_late(snapshot) => {
            return give_up(snapshot, &failure.why);
        }
        // The API server may be busy. The list is repeated at the next tick.
        Some(Answer::Failed(_)) => return Decision::wait(Requeue::Ready),
        Some(
            Answer::Response(_)
            | Answer::Value(_)
            | Answer::Series(_)
            | Answer::Online(_)
            | Answer::Delivered,
        ) => &Vec::new(),
    };
    // The configs are written first, because the pods of the template read them.
    let restore = |template: Value| {
        let mark = history::mark(&template)?;
        let mut writes = Copies::of(snapshot).restore(mark);
        writes.push(history::restore(release.kind, primary, &template)?);
        Some(writes)
    };
    let Some(writes) = history::previous_template(primary, kept).and_then(restore) else {
        return give_up(snapshot, "its earlier version is not kept any more");
    };
    Decision::Do(Plan {
        writes,
        status: Some(restoring()),
        notifications: vec![run::restoring_primary(snapshot)],
    })
}

/// The question for the objects that keep the primary's versions.
fn question(release: &Release<'_>) -> Option<Question> {
    Some(Question::List {
        kind: history::kind(release.kind)?,
        namespace: release.snapshot.namespace().to_owned(),
        selector: shown(&release.selection.primary),
    })
}

/// Waits until the restored primary is ready, then routes all traffic to it.
fn proceed(release: &Release<'_>) -> Result<Decision, Blocked> {
    let snapshot = release.snapshot;
    if let Readiness::Waiting(why) | Readiness::Failed(why) = release.primary_readiness() {
        if is_late(snapshot) {
            return Ok(give_up(snapshot, &why));
        }
        let tick = snapshot.tick.as_ref();
        let event = tick.map(|_| messages::warning(snapshot, why));
        return Ok(Decision::Wait(Requeue::Ready, event.into_iter().collect()));
    }
    let writes: Vec<Write> = release.set_weights(&Weights::PRIMARY)?;
    let change = StatusChange::end_step(snapshot)
        .keep(ConditionType::Verdict)
        .clear(ConditionType::PromotionFailed)
        .progress(0, 0)
        .retire_cookies();
    let change = if release.scale_down().is_empty() {
        change
    } else {
        draining::begin(change)
    };
    Ok(Decision::Do(Plan {
        writes,
        status: Some(change.build()),
        notifications: vec![run::restored_primary(snapshot)],
    }))
}

/// Whether the progress deadline has passed since the promotion failed, or since the primary got its previous version.
fn is_late(snapshot: &Snapshot) -> bool {
    let condition = snapshot.status().condition(ConditionType::PromotionFailed);
    snapshot.exceeds_deadline(condition.and_then(|c| c.last_transition_time.as_ref()))
}

/// Records that the primary keeps its version. The next version can then start although the primary is not ready.
fn give_up(snapshot: &Snapshot, why: &str) -> Decision {
    let status = failed_because(snapshot, NOT_RESTORED).build();
    Decision::commit(status, vec![run::primary_not_restored(snapshot, why)])
}

fn failed_because<'a>(snapshot: &'a Snapshot, reason: &str) -> StatusChange<'a> {
    StatusChange::within_step(snapshot).set(ConditionType::PromotionFailed, reason, message(reason))
}
