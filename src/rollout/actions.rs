//! Actions: a person promotes, skips, pauses, resumes, aborts or retries a release (not in Flagger; [`crate::api::action`] has the form).
//!
//! The operator accepts an action with one write of the status, which records the action and its effect. Then it removes the annotation. A
//! crash between the two writes repeats nothing, because the status has the ID of the action. The phases act on the recorded effect. An
//! action overrides gates and checks, but none of the rules in `safety`: traffic moves to ready pods only.

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::{
    messages::run,
    plan::Decision,
    release::Release,
    rollback,
    status::{Outcome, StatusChange, outcome::ACCEPTED},
};
use crate::{
    api::{
        action::{self, Action, EARLIER, InvalidAction, Signature, Verb},
        canary::CanaryPhase,
        status::ConditionType,
    },
    snapshot::{self, Kind, Snapshot, Write, excerpt, whole_second_after},
};

/// The greatest difference between the time of an action and now.
const VALID: SignedDuration = SignedDuration::from_mins(15);

/// `reason` of a refused action.
const REFUSED: &str = "Refused";

/// The number of handled actions whose IDs the status keeps, so that no action has its effect twice.
const REMEMBERED: usize = 8;

/// The reason why an action is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The line is no action.
    #[error(transparent)]
    Invalid(#[from] InvalidAction),
    /// The short form is not enough for this verb.
    #[error(
        "{0} needs REVISION ID TIME AUTHOR after the verb; only pause and abort are accepted without"
    )]
    Unsigned(Verb),
    /// The action names another revision than the current one.
    #[error("it means the revision {0}, but the revision is {1} now: look at the release again")]
    OtherRevision(String, String),
    /// The time of the action differs too much from now: the action is old, or a clock is wrong.
    #[error("its time {0} is more than 15 minutes from now, {1}")]
    NotNow(Timestamp, Timestamp),
    /// The operator does nothing for a suspended Canary.
    #[error(
        "spec.suspend is true, so the operator moves no traffic of this Canary: set it to false first"
    )]
    Suspended,
    /// The operator does not run this Canary.
    #[error("the operator does not run this Canary: correct it first, as its conditions tell")]
    NotRun,
    /// The action is not possible in this phase.
    #[error("it is not possible in the phase {0}{1}")]
    Phase(CanaryPhase, &'static str),
}

/// Accepts or refuses the action in the annotation, or removes the annotation of a handled action. Returns `None` if there is nothing to
/// do.
pub fn decide(release: &Release<'_>) -> Option<Decision> {
    let snapshot = release.snapshot;
    let handled = handled(snapshot);
    let Some(line) = line(snapshot) else {
        return (handled.first() == Some(&action::UNNAMED)).then(|| done_by_hand(snapshot));
    };
    let action = line.parse::<Action>();
    let id = id(&action);
    if handled.contains(&id.as_str()) {
        let removal = removal(snapshot, line);
        return (!waits(snapshot, &removal)).then(|| Decision::write(vec![removal]));
    }
    let ids = ids(&id, &handled);
    let asked = action.as_ref().ok().map(asked).unwrap_or_default();
    let action = action.as_ref().map_err(|why| why.clone().into());
    let possible = action.and_then(|action| check(release, action).map(|()| action));
    Some(match possible {
        Ok(action) => accept(release, &ids, action),
        Err(why) => refused(snapshot, &ids, &asked, &why),
    })
}

/// Removes the record of the last actions at the start of another run. Their IDs stay as long as one of them could still be repeated.
pub fn forget(change: StatusChange<'_>) -> StatusChange<'_> {
    let snapshot = change.snapshot();
    let last = snapshot.status().condition(ConditionType::Action);
    let at = last.and_then(|last| last.last_update_time.as_ref());
    let is_valid = at.is_some_and(|at| snapshot.now.duration_since(at.0) <= VALID);
    if !is_valid {
        return change.clear(ConditionType::Action);
    }
    let ids = handled(snapshot).join(&action::SEPARATOR.to_string());
    change.set(ConditionType::Action, EARLIER, &ids)
}

/// Refuses the action in the annotation of a Canary that is not run, for this reason. `None` if there is no new action.
pub fn refuse(snapshot: &Snapshot) -> Option<Decision> {
    let line = line(snapshot)?;
    let action = line.parse::<Action>();
    let id = id(&action);
    let handled = handled(snapshot);
    if handled.contains(&id.as_str()) {
        return None;
    }
    let why = if snapshot.canary.spec.suspend {
        Refusal::Suspended
    } else {
        Refusal::NotRun
    };
    let asked = action.as_ref().ok().map(asked).unwrap_or_default();
    Some(refused(snapshot, &ids(&id, &handled), &asked, &why))
}

/// The ID of an action.
fn id(action: &Result<Action, InvalidAction>) -> String {
    let signature = action.as_ref().ok().and_then(|a| a.signature.as_ref());
    signature.map_or(action::UNNAMED.to_owned(), |signature| {
        signature.id.replace(action::SEPARATOR, "_")
    })
}

/// The IDs to remember, with this one first.
fn ids(id: &str, handled: &[&str]) -> String {
    let earlier = handled
        .iter()
        .filter(|it| ![action::UNNAMED, action::DONE].contains(it));
    let ids: Vec<_> = std::iter::once(&id).chain(earlier).copied().collect();
    ids[..ids.len().min(REMEMBERED)].join(&action::SEPARATOR.to_string())
}

/// The verb and the author, as the beginning of a sentence.
fn asked(action: &Action) -> String {
    format!("{} {}: ", action.verb, who(action))
}

/// Records that an action is refused.
fn refused(snapshot: &Snapshot, ids: &str, asked: &str, why: &Refusal) -> Decision {
    let message = format!("{ids} {asked}{why}");
    let change = StatusChange::within_step(snapshot);
    let change = change.set(ConditionType::Action, REFUSED, &message);
    let event = run::action_refused(snapshot, line(snapshot).unwrap_or_default(), why);
    Decision::commit(change.build(), vec![event])
}

/// Records that the annotation of an action without an ID is removed.
fn done_by_hand(snapshot: &Snapshot) -> Decision {
    let done = StatusChange::within_step(snapshot).with(|status| {
        let mut conditions = status.conditions.iter_mut().flatten();
        let action = conditions.find(|c| c.type_ == ConditionType::Action.as_str());
        if let Some(message) = action.and_then(|action| action.message.as_mut()) {
            *message = message.replacen(action::UNNAMED, action::DONE, 1);
        }
    });
    Decision::commit(done.build(), Vec::new())
}

/// The text of the annotation.
fn line(snapshot: &Snapshot) -> Option<&str> {
    let annotations = snapshot.canary.metadata.annotations.as_ref()?;
    annotations.get(action::ANNOTATION).map(String::as_str)
}

/// The IDs of the actions that were handled, the last one first.
fn handled(snapshot: &Snapshot) -> Vec<&str> {
    let condition = snapshot.status().condition(ConditionType::Action);
    let message = condition.and_then(|condition| condition.message.as_deref());
    message.map_or_else(Vec::new, |message| action::recorded(message).0)
}

/// Whether an action is possible now.
fn check(release: &Release<'_>, action: &Action) -> Result<(), Refusal> {
    use CanaryPhase as P;
    let snapshot = release.snapshot;
    match &action.signature {
        None if !matches!(action.verb, Verb::Pause | Verb::Abort) => {
            return Err(Refusal::Unsigned(action.verb));
        }
        None => {}
        Some(Signature { revision, at, .. }) => {
            let applied = snapshot.status().last_applied_spec.clone();
            // In the phase Waiting, the status does not name the version that waits, and the action can only be about that version.
            let current = match snapshot.phase() {
                P::Waiting => release.revision.clone(),
                _ => applied.unwrap_or_default(),
            };
            if *revision != current {
                return Err(Refusal::OtherRevision(revision.clone(), current));
            }
            if snapshot.now.duration_since(*at).abs() > VALID {
                return Err(Refusal::NotNow(*at, whole_second_after(snapshot.now)));
            }
        }
    }
    let phase = snapshot.phase();
    let waits = waits_at_gate(snapshot);
    let is_possible = !rollback::is_under_way(snapshot)
        && match action.verb {
            Verb::Promote | Verb::Skip | Verb::Pause => waits || phase == P::Progressing,
            Verb::Resume => waits || is_paused(snapshot),
            Verb::Abort => {
                waits
                    || phase == P::Progressing
                    || (phase == P::Promoting && !release.is_promoted())
            }
            Verb::Retry => phase == P::Failed && !release.is_reverted(),
        };
    if is_possible {
        return Ok(());
    }
    let advice = match (action.verb, phase) {
        _ if rollback::is_under_way(snapshot) => ": the version is being rolled back already",
        (Verb::Resume, P::Progressing) => {
            ": the release is not paused. Use skip to end this step, also if its gate is closed"
        }
        (Verb::Abort, P::Promoting | P::Finalising) => {
            ": the primary has the version already. To go back, release the earlier version"
        }
        (_, P::Promoting | P::Finalising) => ": the version is being promoted already",
        (Verb::Retry, P::Failed) => ": the target is back at the version of the primary",
        (Verb::Retry, _) => ": no version has failed",
        (_, P::Failed) => ": the version has failed. Use retry to release it again",
        _ => ": no release is in progress",
    };
    Err(Refusal::Phase(phase, advice))
}

/// Records an action and its effect.
fn accept<'a>(release: &Release<'a>, ids: &str, action: &Action) -> Decision {
    let snapshot = release.snapshot;
    let who = who(action);
    let change = StatusChange::within_step(snapshot).set(
        ConditionType::Action,
        ACCEPTED,
        &format!("{ids} {} {who}", action.verb),
    );
    let request = |change: StatusChange<'a>, type_| change.set(type_, ACCEPTED, &who);
    let opens_gate = waits_at_gate(snapshot)
        && (action.verb == Verb::Skip || action.verb == Verb::Resume && !is_paused(snapshot));
    let change = match action.verb {
        Verb::Promote => request(change, ConditionType::PromoteRequested),
        // A pause takes back what has been asked for and was not carried out yet.
        Verb::Pause => request(change, ConditionType::Paused)
            .clear(ConditionType::PromoteRequested)
            .clear(ConditionType::SkipRequested),
        Verb::Resume if !opens_gate => change.clear(ConditionType::Paused),
        Verb::Skip | Verb::Resume => request(change, ConditionType::SkipRequested),
        Verb::Abort => rollback::record(abandoned(release, change), &Outcome::Aborted(who.clone())),
        Verb::Retry => request(change, ConditionType::RetryRequested),
    };
    let event = if opens_gate {
        run::gate_opened_by(snapshot, &who)
    } else {
        run::action_accepted(snapshot, action.verb, &who)
    };
    Decision::commit(change.build(), vec![event])
}

/// Whether a gate before the run or before the promotion is closed.
fn waits_at_gate(snapshot: &Snapshot) -> bool {
    use CanaryPhase as P;
    matches!(snapshot.phase(), P::Waiting | P::WaitingPromotion)
}

/// Records the revision of a version that is aborted while it waits for its run. It is not released until the target changes or a person
/// retries it.
fn abandoned<'a>(release: &Release<'a>, change: StatusChange<'a>) -> StatusChange<'a> {
    if release.snapshot.phase() != CanaryPhase::Waiting {
        return change;
    }
    change.with(|status| {
        status.last_applied_spec = Some(release.revision.clone());
        status.tracked_configs.clone_from(&release.configs);
    })
}

/// The author and the reason, as the end of a sentence.
fn who(action: &Action) -> String {
    match &action.signature {
        None => "by hand".to_owned(),
        Some(Signature { author, .. }) if action.reason.is_empty() => format!("by {author}"),
        Some(Signature { author, .. }) => format!("by {author}: {}", action.reason),
    }
}

/// The write that removes the annotation, unless the Canary has changed. The patch does not test the text of the annotation: the API server
/// compares texts as it has encoded them, and it encodes `<`, `>` and `&` in another way than this program.
fn removal(snapshot: &Snapshot, line: &str) -> Write {
    let path = format!(
        "/metadata/annotations/{}",
        action::ANNOTATION.replace('/', "~1")
    );
    let metadata = &snapshot.canary.metadata;
    let patch = json!([
        {"op": "test", "path": "/metadata/uid", "value": metadata.uid},
        {"op": "test", "path": "/metadata/resourceVersion", "value": metadata.resource_version},
        {"op": "remove", "path": path},
    ]);
    Write {
        object: snapshot.reference(Kind::Canary, snapshot.name()),
        action: snapshot::Action::Patch(patch),
        failure: format!(
            "removing the annotation {} of {} with the handled action {:?} failed: ",
            action::ANNOTATION,
            snapshot.full_name(),
            // The ellipsis marks the place of the API server's message.
            excerpt(line).replace('…', "...")
        ),
    }
}

/// Whether a removal waits, because the API server has refused it since the last tick, or because another actor puts the annotation back again and
/// again. The annotation then holds up neither its own effects nor the release. (Unlike [`Snapshot::leaves_out`], the removal of an earlier action does
/// not delay this one.)
fn waits(snapshot: &Snapshot, removal: &Write) -> bool {
    let is_it = |object| object == &removal.object;
    let is_refused = { snapshot.refused.iter() }.any(|refused| is_it(&refused.object));
    let is_refused_now = is_refused && snapshot.recently_written.iter().any(is_it);
    is_refused_now || snapshot.is_paused(removal)
}

/// Whether a person paused the release.
pub fn is_paused(snapshot: &Snapshot) -> bool {
    snapshot.status().has_condition(ConditionType::Paused)
}

/// Whether a person asked for the promotion of the version.
pub fn promotes(snapshot: &Snapshot) -> bool {
    let status = snapshot.status();
    status.has_condition(ConditionType::PromoteRequested)
}

/// Whether a person asked for the next step.
pub fn skips(snapshot: &Snapshot) -> bool {
    snapshot
        .status()
        .has_condition(ConditionType::SkipRequested)
}

/// Whether a person asked for another run of a failed version.
pub fn retries(snapshot: &Snapshot) -> bool {
    snapshot
        .status()
        .has_condition(ConditionType::RetryRequested)
}
