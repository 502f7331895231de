//! The preview of the first decision about a canary, in one line. `flagger check` prints it before an operator is installed.

use std::fmt;

use jiff::SignedDuration;

use super::{
    audit, decide,
    plan::{Decision, Evidence, Plan, Question, Requeue},
    status::{outcome, transitions::is_between_runs},
};
use crate::{
    api::{canary::CanaryPhase, percent::Percent, status::ConditionType},
    notifications::Notification,
    snapshot::{Changed, Kind, Snapshot, Tick},
};

/// A change of this age is no longer debounced.
const DEBOUNCED: SignedDuration = SignedDuration::from_mins(1);

/// The kind of the first decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstAction {
    /// The operator writes nothing.
    Nothing,
    /// The operator writes its own name of the current revision into the status, and nothing else.
    Adopts,
    /// A run continues from where it is.
    GoesOn,
    /// A run starts.
    Starts,
    /// The operator repairs objects between two runs.
    Repairs,
    /// The operator does nothing for the canary until a user corrects it.
    Refused,
    /// The operator waits for something.
    Waits,
    /// The Canary, or an object that it needs, cannot be read.
    Unreadable,
}

impl FirstAction {
    /// The name for scripts, one of a closed set.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Adopts => "adopts",
            Self::GoesOn => "goes-on",
            Self::Starts => "starts",
            Self::Repairs => "repairs",
            Self::Refused => "refused",
            Self::Waits => "waits",
            Self::Unreadable => "unreadable",
        }
    }

    /// Whether the operator would change more than a name in the status.
    pub const fn is_change(self) -> bool {
        match self {
            Self::Nothing | Self::Adopts => false,
            Self::GoesOn
            | Self::Starts
            | Self::Repairs
            | Self::Refused
            | Self::Waits
            | Self::Unreadable => true,
        }
    }

    const fn words(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Adopts => "adopts the status (one write)",
            Self::GoesOn => "goes on",
            Self::Starts => "starts a run",
            Self::Repairs => "repairs",
            Self::Refused => "refused",
            Self::Waits => "waits",
            Self::Unreadable => "cannot be read",
        }
    }
}

/// The first decision about a canary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preview {
    /// The kind of decision.
    pub action: FirstAction,
    /// The details or the reason; may be empty.
    pub why: String,
}

impl Preview {
    /// Puts texts of others on one line and removes control characters, which a terminal would interpret.
    pub fn new(action: FirstAction, why: impl AsRef<str>) -> Self {
        let why: String = why
            .as_ref()
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        let why = why.split_whitespace().collect::<Vec<_>>().join(" ");
        Self { action, why }
    }
}

impl fmt::Display for Preview {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.action.words())?;
        if self.why.is_empty() {
            return Ok(());
        }
        write!(f, ": {}", self.why)
    }
}

/// Previews the first decision. It assumes that the next tick has come, that a change is debounced, and that an adopted status is written,
/// because all this happens without an action of a user.
pub fn preview(snapshot: &Snapshot) -> Preview {
    let mut snapshot = snapshot.clone();
    if !snapshot.canary.spec.suspend {
        let (at, late) = (snapshot.now, false);
        snapshot.tick.get_or_insert(Tick { at, late });
    }
    let rested = snapshot
        .now
        .saturating_sub(DEBOUNCED)
        .unwrap_or(snapshot.now);
    snapshot.changed = snapshot.changed.map(|_| Changed {
        first: rested,
        last: rested,
    });
    match decide(&snapshot, &Evidence::new()) {
        Decision::Do(plan) if adopts(&snapshot, &plan) => {
            snapshot.canary.status = plan.status;
            let then = foreseen(&snapshot, decide(&snapshot, &Evidence::new()));
            match then.action {
                FirstAction::Nothing => Preview::new(FirstAction::Adopts, then.why),
                FirstAction::Adopts
                | FirstAction::GoesOn
                | FirstAction::Starts
                | FirstAction::Repairs
                | FirstAction::Refused
                | FirstAction::Waits
                | FirstAction::Unreadable => then,
            }
        }
        decision => foreseen(&snapshot, decision),
    }
}

/// Whether a plan only gives the revision another name.
fn adopts(snapshot: &Snapshot, plan: &Plan) -> bool {
    let before = snapshot.status();
    plan.writes.is_empty()
        && plan.notifications.is_empty()
        && plan.status.as_ref().is_some_and(|after| {
            after.phase == before.phase
                && (&after.last_applied_spec, &after.tracked_configs)
                    != (&before.last_applied_spec, &before.tracked_configs)
        })
}

fn foreseen(snapshot: &Snapshot, decision: Decision) -> Preview {
    match decision {
        Decision::Ask(questions, _) => asked(snapshot, &questions),
        Decision::Do(plan) => done(snapshot, &plan),
        Decision::Wait(requeue, notifications) => waited(snapshot, requeue, &notifications),
    }
}

fn asked(snapshot: &Snapshot, questions: &[Question]) -> Preview {
    if outcome::is_pending(snapshot) {
        return Preview::new(FirstAction::GoesOn, "sends the outcome");
    }
    let count = |one: &str, of: fn(&&Question) -> bool| {
        let questions = questions.iter().filter(of).count();
        let plural = if questions == 1 { "" } else { "s" };
        (questions > 0).then(|| format!("{questions} {one}{plural}"))
    };
    let hooks = count("webhook", |question| {
        matches!(question, Question::Call { .. })
    });
    let metrics = count("metric", |question| {
        matches!(question, Question::Metric { .. })
    });
    if questions.iter().any(|question| {
        matches!(
            question,
            Question::List {
                kind: Kind::Pod,
                ..
            }
        )
    }) {
        return Preview::new(
            FirstAction::GoesOn,
            "rolls back a version whose pods are not ready",
        );
    }
    if questions
        .iter()
        .any(|question| matches!(question, Question::List { .. }))
    {
        return Preview::new(FirstAction::GoesOn, "restores the primary");
    }
    let asked: Vec<_> = hooks.into_iter().chain(metrics).collect();
    let asked = asked.join(" and ");
    if is_between_runs(snapshot.phase()) {
        return Preview::new(FirstAction::Starts, format!("asks {asked} before"));
    }
    Preview::new(
        FirstAction::GoesOn,
        format!("{}, asks {asked}", place(snapshot)),
    )
}

fn done(snapshot: &Snapshot, plan: &Plan) -> Preview {
    if let Err(why) = audit(snapshot, plan) {
        return Preview::new(FirstAction::Refused, format!("unsafe plan: {why}"));
    }
    let written: Vec<_> = plan
        .writes
        .iter()
        .map(|write| format!("{} {}", write.object.kind.name(), write.object.name))
        .collect();
    let written = written.join(", ");
    let Some(status) = &plan.status else {
        return if is_between_runs(snapshot.phase()) {
            Preview::new(FirstAction::Repairs, written)
        } else {
            Preview::new(
                FirstAction::GoesOn,
                format!("{}, writes {written}", place(snapshot)),
            )
        };
    };
    let mut after = snapshot.clone();
    after.canary.status = Some(status.clone());
    if let Some(outcome) = outcome::recorded(&after, ConditionType::RollingBack) {
        let why = format!("{}, rolls back: {}", place(snapshot), outcome.message());
        return Preview::new(FirstAction::GoesOn, why);
    }
    if let Some(why) = refusal(&after) {
        return Preview::new(FirstAction::Refused, why);
    }
    if is_between_runs(snapshot.phase()) && status.phase == CanaryPhase::Progressing {
        return Preview::new(FirstAction::Starts, "");
    }
    let mut then = event_texts(&plan.notifications);
    if then.is_empty() && status.phase != snapshot.phase() {
        then = format!("enters {}", status.phase);
    }
    if then.is_empty() && !written.is_empty() {
        then = format!("writes {written}");
    }
    if then.is_empty() {
        "writes its status".clone_into(&mut then);
    }
    Preview::new(FirstAction::GoesOn, format!("{}, {then}", place(snapshot)))
}

fn waited(snapshot: &Snapshot, requeue: Requeue, notifications: &[Notification]) -> Preview {
    if let Some(why) = refusal(snapshot) {
        return Preview::new(FirstAction::Refused, why);
    }
    let texts = event_texts(notifications);
    match requeue {
        Requeue::OnChange => Preview::new(FirstAction::Nothing, texts),
        _ if !texts.is_empty() => Preview::new(FirstAction::Waits, texts),
        Requeue::At(end) => Preview::new(FirstAction::Waits, format!("until {end}")),
        Requeue::Approval(_) => Preview::new(FirstAction::Waits, "for an approval"),
        Requeue::AtTick | Requeue::Ready if is_between_runs(snapshot.phase()) => {
            Preview::new(FirstAction::Nothing, "")
        }
        Requeue::AtTick | Requeue::Ready => Preview::new(FirstAction::Waits, place(snapshot)),
    }
}

/// The reason, from the status, why the operator does nothing for the canary; `None` if there is none.
fn refusal(snapshot: &Snapshot) -> Option<String> {
    use ConditionType as C;
    let mut refusals = [C::TargetConflict, C::Invalid, C::ForeignObject].into_iter();
    refusals.find_map(|condition| {
        let condition = snapshot.status().condition(condition)?;
        Some(condition.message.clone().unwrap_or_default())
    })
}

/// The texts of all events.
fn event_texts(notifications: &[Notification]) -> String {
    let texts: Vec<_> = notifications
        .iter()
        .filter_map(|notification| match notification {
            Notification::Event { message, .. } => Some(message.as_str()),
            Notification::Alert { .. } => None,
        })
        .collect();
    texts.join("; ")
}

/// The progress of a run.
fn place(snapshot: &Snapshot) -> String {
    let status = snapshot.status();
    let phase = match status.phase {
        CanaryPhase::New => "new",
        phase => phase.as_str(),
    };
    match (status.weight(), status.iterations) {
        (Percent::ZERO, 0) => phase.to_owned(),
        (weight, 0) => format!("{phase} at weight {weight}"),
        (Percent::ZERO, iteration) => format!("{phase} at iteration {iteration}"),
        (weight, iteration) => format!("{phase} at weight {weight}, iteration {iteration}"),
    }
}
