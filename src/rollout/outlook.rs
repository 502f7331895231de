//! What the first decisions about a canary would be, in a line that a user reads before this operator is let at it.

use std::fmt;

use jiff::SignedDuration;

use super::{
    audit, decide,
    phase::{self, Intent},
    plan::{Decision, Evidence, Next, Plan, Question},
    rollback,
};
use crate::{
    api::canary::CanaryPhase,
    notice::Notice,
    world::{Changed, Due, World},
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
pub struct Outlook {
    /// What comes first.
    pub verdict: Verdict,
    /// What exactly, or why; may be empty.
    pub why: String,
}

impl Outlook {
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

impl fmt::Display for Outlook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.verdict.words())?;
        if self.why.is_empty() {
            return Ok(());
        }
        write!(f, ": {}", self.why)
    }
}

/// What would come first, if the operator looked at this now. A step that is not due yet is foreseen as it would be if it were, a change
/// as if it had rested, and an adopted status as if it were written: for these the operator waits by itself.
pub fn outlook(world: &World) -> Outlook {
    let mut world = world.clone();
    if !world.canary.spec.suspend {
        let (at, late) = (world.now, false);
        world.due.get_or_insert(Due { at, late });
    }
    let rested = world.now.saturating_sub(RESTED).unwrap_or(world.now);
    world.changed = world.changed.map(|_| Changed {
        first: rested,
        last: rested,
    });
    match decide(&world, &Evidence::new()) {
        Decision::Do(plan) if adopts(&world, &plan) => {
            world.canary.status = plan.status;
            let then = foreseen(&world, decide(&world, &Evidence::new()));
            match then.verdict {
                Verdict::Nothing => Outlook::new(Verdict::Adopts, then.why),
                Verdict::Adopts
                | Verdict::GoesOn
                | Verdict::Starts
                | Verdict::Repairs
                | Verdict::Refused
                | Verdict::Waits
                | Verdict::Unreadable => then,
            }
        }
        decision => foreseen(&world, decision),
    }
}

/// Whether a plan does no more than to give the revision another name.
fn adopts(world: &World, plan: &Plan) -> bool {
    let before = phase::status(world);
    plan.effects.is_empty()
        && plan.notices.is_empty()
        && plan.status.as_ref().is_some_and(|after| {
            after.phase == before.phase
                && (&after.last_applied_spec, &after.tracked_configs)
                    != (&before.last_applied_spec, &before.tracked_configs)
        })
}

fn foreseen(world: &World, decision: Decision) -> Outlook {
    match decision {
        Decision::Ask(questions, _) => asked(world, &questions),
        Decision::Do(plan) => done(world, &plan),
        Decision::Wait(next, notices) => waited(world, next, &notices),
    }
}

fn asked(world: &World, questions: &[Question]) -> Outlook {
    if rollback::is_owed(world) {
        return Outlook::new(Verdict::GoesOn, "tells what it came to");
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
        matches!(question, Question::Measure { .. })
    });
    let asked: Vec<_> = hooks.into_iter().chain(metrics).collect();
    let asked = asked.join(" and ");
    if is_between_runs(world.phase()) {
        return Outlook::new(Verdict::Starts, format!("asks {asked} before"));
    }
    Outlook::new(Verdict::GoesOn, format!("{}, asks {asked}", place(world)))
}

fn done(world: &World, plan: &Plan) -> Outlook {
    if let Err(why) = audit(world, plan) {
        return Outlook::new(Verdict::Refused, format!("unsafe plan: {why}"));
    }
    let written: Vec<_> = plan
        .effects
        .iter()
        .map(|effect| format!("{} {}", effect.object.kind.name(), effect.object.name))
        .collect();
    let written = written.join(", ");
    let Some(status) = &plan.status else {
        return if is_between_runs(world.phase()) {
            Outlook::new(Verdict::Repairs, written)
        } else {
            Outlook::new(
                Verdict::GoesOn,
                format!("{}, writes {written}", place(world)),
            )
        };
    };
    let mut after = world.clone();
    after.canary.status = Some(status.clone());
    if let Some(why) = refusal(&after) {
        return Outlook::new(Verdict::Refused, why);
    }
    if is_between_runs(world.phase()) && status.phase == CanaryPhase::Progressing {
        return Outlook::new(Verdict::Starts, "");
    }
    let mut then = said(&plan.notices);
    if then.is_empty() && status.phase != world.phase() {
        then = format!("enters {}", status.phase);
    }
    if then.is_empty() && !written.is_empty() {
        then = format!("writes {written}");
    }
    if then.is_empty() {
        "writes its status".clone_into(&mut then);
    }
    Outlook::new(Verdict::GoesOn, format!("{}, {then}", place(world)))
}

fn waited(world: &World, next: Next, notices: &[Notice]) -> Outlook {
    if let Some(why) = refusal(world) {
        return Outlook::new(Verdict::Refused, why);
    }
    let said = said(notices);
    match next {
        Next::Change => Outlook::new(Verdict::Nothing, said),
        _ if !said.is_empty() => Outlook::new(Verdict::Waits, said),
        Next::At(end) => Outlook::new(Verdict::Waits, format!("until {end}")),
        Next::Approval(_) => Outlook::new(Verdict::Waits, "for an approval"),
        Next::Due | Next::Ready if is_between_runs(world.phase()) => {
            Outlook::new(Verdict::Nothing, "")
        }
        Next::Due | Next::Ready => Outlook::new(Verdict::Waits, place(world)),
    }
}

/// Why nothing is done for a canary, if a status says so.
fn refusal(world: &World) -> Option<String> {
    let mut refusals = [Intent::TargetConflict, Intent::Invalid].into_iter();
    refusals.find_map(|intent| Some(phase::intent(world, intent)?.1.to_owned()))
}

/// What the events say.
fn said(notices: &[Notice]) -> String {
    let texts: Vec<_> = notices
        .iter()
        .filter_map(|notice| match notice {
            Notice::Event { message, .. } => Some(message.as_str()),
            Notice::Alert { .. } => None,
        })
        .collect();
    texts.join("; ")
}

/// How far a run is.
fn place(world: &World) -> String {
    let status = phase::status(world);
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
