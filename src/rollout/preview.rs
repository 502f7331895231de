//! What the first decisions about a canary would be, in a line that a user reads before this operator is let at it.

use std::fmt;

use jiff::SignedDuration;

use super::{
    audit, decide,
    phase::{self, ConditionType},
    plan::{Decision, Evidence, Plan, Question, Requeue},
    rollback,
};
use crate::{
    api::canary::CanaryPhase,
    notifications::Notification,
    snapshot::{Changed, Snapshot, Tick},
};

/// So long ago, a change has rested.
const RESTED: SignedDuration = SignedDuration::from_mins(1);

/// What sort of thing comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing is written.
    Nothing,
    /// The status gets our name for the revision that it is about; nothing else happens.
    Adopts,
    /// What is under way goes on from where it is.
    GoesOn,
    /// A run starts.
    Starts,
    /// Objects that are not as they should be are written, between runs.
    Repairs,
    /// Nothing is done for the canary until somebody mends it.
    Refused,
    /// Something stands in the way for now.
    Waits,
    /// It cannot be told.
    Unreadable,
}

impl Verdict {
    /// A closed set of names, for scripts.
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

    /// Whether more would come of it than a name in the status.
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

/// What comes first, and what there is to say about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preview {
    /// What comes first.
    pub verdict: Verdict,
    /// What exactly, or why; may be empty.
    pub why: String,
}

impl Preview {
    /// With the words of others on one line, and without what a terminal would obey.
    pub fn new(verdict: Verdict, why: impl AsRef<str>) -> Self {
        let why: String = why
            .as_ref()
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        let why = why.split_whitespace().collect::<Vec<_>>().join(" ");
        Self { verdict, why }
    }
}

impl fmt::Display for Preview {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.verdict.words())?;
        if self.why.is_empty() {
            return Ok(());
        }
        write!(f, ": {}", self.why)
    }
}

/// What would come first, if the operator looked at this now. A step that is not tick yet is foreseen as it would be if it were, a change
/// as if it had rested, and an adopted status as if it were written: for these the operator waits by itself.
pub fn preview(snapshot: &Snapshot) -> Preview {
    let mut snapshot = snapshot.clone();
    if !snapshot.canary.spec.suspend {
        let (at, late) = (snapshot.now, false);
        snapshot.tick.get_or_insert(Tick { at, late });
    }
    let rested = snapshot.now.saturating_sub(RESTED).unwrap_or(snapshot.now);
    snapshot.changed = snapshot.changed.map(|_| Changed {
        first: rested,
        last: rested,
    });
    match decide(&snapshot, &Evidence::new()) {
        Decision::Do(plan) if adopts(&snapshot, &plan) => {
            snapshot.canary.status = plan.status;
            let then = foreseen(&snapshot, decide(&snapshot, &Evidence::new()));
            match then.verdict {
                Verdict::Nothing => Preview::new(Verdict::Adopts, then.why),
                Verdict::Adopts
                | Verdict::GoesOn
                | Verdict::Starts
                | Verdict::Repairs
                | Verdict::Refused
                | Verdict::Waits
                | Verdict::Unreadable => then,
            }
        }
        decision => foreseen(&snapshot, decision),
    }
}

/// Whether a plan does no more than to give the revision another name.
fn adopts(snapshot: &Snapshot, plan: &Plan) -> bool {
    let before = phase::status(snapshot);
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
    if rollback::is_notification_pending(snapshot) {
        return Preview::new(Verdict::GoesOn, "tells what it came to");
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
    let asked: Vec<_> = hooks.into_iter().chain(metrics).collect();
    let asked = asked.join(" and ");
    if is_between_runs(snapshot.phase()) {
        return Preview::new(Verdict::Starts, format!("asks {asked} before"));
    }
    Preview::new(
        Verdict::GoesOn,
        format!("{}, asks {asked}", place(snapshot)),
    )
}

fn done(snapshot: &Snapshot, plan: &Plan) -> Preview {
    if let Err(why) = audit(snapshot, plan) {
        return Preview::new(Verdict::Refused, format!("unsafe plan: {why}"));
    }
    let written: Vec<_> = plan
        .writes
        .iter()
        .map(|write| format!("{} {}", write.object.kind.name(), write.object.name))
        .collect();
    let written = written.join(", ");
    let Some(status) = &plan.status else {
        return if is_between_runs(snapshot.phase()) {
            Preview::new(Verdict::Repairs, written)
        } else {
            Preview::new(
                Verdict::GoesOn,
                format!("{}, writes {written}", place(snapshot)),
            )
        };
    };
    let mut after = snapshot.clone();
    after.canary.status = Some(status.clone());
    if let Some(why) = refusal(&after) {
        return Preview::new(Verdict::Refused, why);
    }
    if is_between_runs(snapshot.phase()) && status.phase == CanaryPhase::Progressing {
        return Preview::new(Verdict::Starts, "");
    }
    let mut then = said(&plan.notifications);
    if then.is_empty() && status.phase != snapshot.phase() {
        then = format!("enters {}", status.phase);
    }
    if then.is_empty() && !written.is_empty() {
        then = format!("writes {written}");
    }
    if then.is_empty() {
        "writes its status".clone_into(&mut then);
    }
    Preview::new(Verdict::GoesOn, format!("{}, {then}", place(snapshot)))
}

fn waited(snapshot: &Snapshot, requeue: Requeue, notifications: &[Notification]) -> Preview {
    if let Some(why) = refusal(snapshot) {
        return Preview::new(Verdict::Refused, why);
    }
    let said = said(notifications);
    match requeue {
        Requeue::Change => Preview::new(Verdict::Nothing, said),
        _ if !said.is_empty() => Preview::new(Verdict::Waits, said),
        Requeue::At(end) => Preview::new(Verdict::Waits, format!("until {end}")),
        Requeue::Approval(_) => Preview::new(Verdict::Waits, "for an approval"),
        Requeue::AtTick | Requeue::Ready if is_between_runs(snapshot.phase()) => {
            Preview::new(Verdict::Nothing, "")
        }
        Requeue::AtTick | Requeue::Ready => Preview::new(Verdict::Waits, place(snapshot)),
    }
}

/// Why nothing is done for a canary, if a status says so.
fn refusal(snapshot: &Snapshot) -> Option<String> {
    let mut refusals = [ConditionType::TargetConflict, ConditionType::Invalid].into_iter();
    refusals.find_map(|condition| Some(phase::condition(snapshot, condition)?.1.to_owned()))
}

/// What the events say.
fn said(notifications: &[Notification]) -> String {
    let texts: Vec<_> = notifications
        .iter()
        .filter_map(|notification| match notification {
            Notification::Event { message, .. } => Some(message.as_str()),
            Notification::Alert { .. } => None,
        })
        .collect();
    texts.join("; ")
}

/// How far a run is.
fn place(snapshot: &Snapshot) -> String {
    let status = phase::status(snapshot);
    let phase = match status.phase {
        CanaryPhase::New => "new",
        phase => phase.as_str(),
    };
    match (status.canary_weight, status.iterations) {
        (0, 0) => phase.to_owned(),
        (weight, 0) => format!("{phase} at weight {weight}"),
        (0, iteration) => format!("{phase} at iteration {iteration}"),
        (weight, iteration) => format!("{phase} at weight {weight}, iteration {iteration}"),
    }
}

fn is_between_runs(phase: CanaryPhase) -> bool {
    use CanaryPhase as P;
    match phase {
        P::Initialized | P::Waiting | P::Succeeded | P::Failed => true,
        P::New
        | P::Initializing
        | P::Progressing
        | P::WaitingPromotion
        | P::Promoting
        | P::Finalising
        | P::Terminating
        | P::Terminated => false,
    }
}
