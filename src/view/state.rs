//! The state of a canary: one word of a closed set, and one sentence.

use serde::Serialize;

use super::text::clean;
use crate::api::{
    action::recorded,
    canary::{Canary, CanaryPhase, CanaryStatus, Strategy},
    percent::Percent,
    status::{ConditionType, VerdictCode},
};

/// The state of a canary in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum State {
    /// The operator has not seen the Canary yet.
    New,
    /// The operator creates the primary.
    Initializing,
    /// No run is in progress, and the primary has the last version.
    Promoted,
    /// A run takes its steps.
    Progressing,
    /// A person paused the run.
    Paused,
    /// A gate is closed.
    Waiting,
    /// The primary gets the version.
    Promoting,
    /// The operator returns the traffic of the version to the primary.
    RollingBack,
    /// The last version was rolled back.
    Failed,
    /// The operator waits until a user corrects the Canary, or an object that it needs.
    Blocked,
    /// The field `suspend` stops the canary.
    Suspended,
    /// The Canary is being deleted.
    Terminating,
}

impl State {
    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::New => "New",
            Self::Initializing => "Initializing",
            Self::Promoted => "Promoted",
            Self::Progressing => "Progressing",
            Self::Paused => "Paused",
            Self::Waiting => "Waiting",
            Self::Promoting => "Promoting",
            Self::RollingBack => "RollingBack",
            Self::Failed => "Failed",
            Self::Blocked => "Blocked",
            Self::Suspended => "Suspended",
            Self::Terminating => "Terminating",
        }
    }

    /// Whether a run is in progress.
    pub const fn is_in_run(self) -> bool {
        match self {
            Self::Progressing
            | Self::Paused
            | Self::Waiting
            | Self::Promoting
            | Self::RollingBack => true,
            Self::New
            | Self::Initializing
            | Self::Promoted
            | Self::Failed
            | Self::Blocked
            | Self::Suspended
            | Self::Terminating => false,
        }
    }

    /// Whether the run waits for a person.
    pub const fn waits_for_a_person(self) -> bool {
        match self {
            Self::Paused | Self::Waiting | Self::Blocked | Self::Suspended => true,
            Self::New
            | Self::Initializing
            | Self::Promoted
            | Self::Progressing
            | Self::Promoting
            | Self::RollingBack
            | Self::Failed
            | Self::Terminating => false,
        }
    }

    /// Whether the canary needs the attention of a person.
    pub const fn needs_attention(self) -> bool {
        self.waits_for_a_person() || matches!(self, Self::Failed | Self::RollingBack)
    }
}

/// A state with its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reasoned {
    /// The state.
    pub state: State,
    /// The reason in one word; may be empty.
    pub code: String,
    /// The reason in one sentence.
    pub sentence: String,
}

/// The conditions in which the operator waits for a user, the most important first.
const BLOCKING: [ConditionType; 3] = [
    ConditionType::Invalid,
    ConditionType::TargetConflict,
    ConditionType::ForeignObject,
];

/// The state of a canary with this status, with its reason, and with the write that the API server refuses.
pub fn state(canary: &Canary, status: &CanaryStatus) -> Reasoned {
    let mut reasoned = of_status(canary, status);
    let refused = status.condition(ConditionType::WriteRefused);
    let why = refused.and_then(|refused| refused.message.as_deref());
    if let Some(why) = why.map(clean).filter(|why| !why.is_empty()) {
        reasoned.sentence = format!("{} {why}", reasoned.sentence);
        if reasoned.code.is_empty() {
            ConditionType::WriteRefused
                .as_str()
                .clone_into(&mut reasoned.code);
        }
    }
    reasoned
}

fn of_status(canary: &Canary, status: &CanaryStatus) -> Reasoned {
    use ConditionType as C;
    let find = |type_| find(status, type_);
    if canary.metadata.deletion_timestamp.is_some() {
        return reasoned(
            State::Terminating,
            ("", None),
            "The Canary is being deleted.",
        );
    }
    if let Some(found) = BLOCKING.into_iter().find_map(find) {
        return reasoned(State::Blocked, found, "The Canary must be corrected.");
    }
    if let Some((code, message)) = find(C::RollingBack) {
        let (code, message) = find(C::Verdict).unwrap_or((code, message));
        // The message of this condition is a number for some reasons.
        let message = message.filter(|message| message.contains(' '));
        return reasoned(
            State::RollingBack,
            (code, message),
            "The version is being rolled back.",
        );
    }
    if canary.spec.suspend && status.phase != CanaryPhase::New {
        return reasoned(
            State::Suspended,
            ("", None),
            "spec.suspend is true: no version is released.",
        );
    }
    if let Some((_, message)) = find(C::Paused) {
        let who = message.map(clean).unwrap_or_default();
        let paused = format!("Paused {who}");
        let paused = format!("{}.", paused.trim().trim_end_matches('.'));
        return reasoned(State::Paused, ("Paused", Some(&paused)), "");
    }
    in_phase(canary, status)
}

/// The state and its reason where no condition of a wait or of a rollback decides.
fn in_phase(canary: &Canary, status: &CanaryStatus) -> Reasoned {
    // Why the version failed, or what it waits for.
    let verdict = find(status, ConditionType::Verdict);
    let (mut state, otherwise) = of_phase(canary, status);
    // A comparison of the canary with the primary found too few requests, or the gate before more traffic is closed.
    let waits = [VerdictCode::Undecided, VerdictCode::Gate].map(VerdictCode::as_str);
    let is_waiting = verdict.is_some_and(|(code, _)| waits.contains(&code));
    if state == State::Progressing && is_waiting {
        state = State::Waiting;
    }
    if let Some(sentence) = accepted(status, state) {
        // The operator goes on with its next check, so the run does not wait for a person any more.
        let (state, code) = match state {
            State::Waiting => (State::Progressing, ""),
            state => (state, verdict.map_or("", |(code, _)| code)),
        };
        return reasoned(state, (code, None), &sentence);
    }
    let waits = VerdictCode::NotReady.as_str();
    let shown = verdict.filter(|(code, _)| state != State::Promoted || *code == waits);
    let shown = shown.or_else(|| find(status, ConditionType::PromotionFailed));
    reasoned(state, shown.unwrap_or_default(), &otherwise)
}

/// The sentence about an action that the operator has accepted and will carry out with its next check.
fn accepted(status: &CanaryStatus, state: State) -> Option<String> {
    use ConditionType::{PromoteRequested, RetryRequested, SkipRequested};
    let requests: &[ConditionType] = match state {
        State::Waiting | State::Progressing => &[PromoteRequested, SkipRequested],
        State::Failed => &[RetryRequested],
        _ => &[],
    };
    let (_, who) = requests.iter().find_map(|it| find(status, *it))?;
    let action = status.condition(ConditionType::Action);
    let action = action.filter(|action| action.reason == "Accepted");
    let words = action.and_then(|action| Some(recorded(action.message.as_deref()?).1));
    // An action that came later may have been refused.
    let words = words.map_or_else(
        || format!("an action {}", who.unwrap_or_default()),
        str::to_owned,
    );
    let words = clean(&words);
    let words = words.trim_end_matches(['.', '!', '?']);
    Some(format!(
        "Accepted: {words}. It takes effect with the operator's next check."
    ))
}

/// The reason and the message of a condition.
fn find(status: &CanaryStatus, type_: ConditionType) -> Option<(&str, Option<&str>)> {
    let condition = status.condition(type_)?;
    Some((&condition.reason, condition.message.as_deref()))
}

/// A state with this reason; `otherwise` is the sentence if the condition has none.
fn reasoned(state: State, (code, message): (&str, Option<&str>), otherwise: &str) -> Reasoned {
    let message = message.map(clean).filter(|message| !message.is_empty());
    Reasoned {
        state,
        code: clean(code),
        sentence: message.unwrap_or_else(|| otherwise.to_owned()),
    }
}

/// The share of the traffic that the canary gets, in percent. In blue/green, the status does not have the share after the last iteration.
pub fn weight(canary: &Canary, status: &CanaryStatus) -> Percent {
    use CanaryPhase as P;
    let analysis = canary.spec.analysis.as_ref();
    let iterations = analysis.and_then(|it| it.iterations).unwrap_or(0);
    let is_past = canary.strategy() == Strategy::BlueGreen && status.iterations > iterations;
    let has_all = matches!(
        status.phase,
        P::Progressing | P::WaitingPromotion | P::Promoting
    );
    let splits = canary.spec.provider.as_deref() != Some("kubernetes");
    if is_past && has_all && splits {
        Percent::ALL
    } else {
        status.weight()
    }
}

/// The state in this phase, and its sentence if no condition has one.
fn of_phase(canary: &Canary, status: &CanaryStatus) -> (State, String) {
    use CanaryPhase as P;
    let words = |state, words: &str| (state, words.to_owned());
    match status.phase {
        P::New => words(State::New, "No operator has seen the Canary yet."),
        P::Initializing => words(
            State::Initializing,
            "The primary is created, and its pods are waited for.",
        ),
        P::Initialized => words(
            State::Promoted,
            "The primary has the version of the target.",
        ),
        P::Succeeded => words(State::Promoted, "The last version was promoted."),
        P::Failed => words(State::Failed, "The last version was rolled back."),
        P::Waiting => words(
            State::Waiting,
            "A new version waits for the approval of its rollout.",
        ),
        P::WaitingPromotion => words(
            State::Waiting,
            "The version passed its analysis and waits for the approval of its promotion.",
        ),
        P::Promoting => words(State::Promoting, "The primary gets the version."),
        P::Finalising => words(
            State::Promoting,
            "The primary has the version and all traffic; the canary drains.",
        ),
        P::Terminating | P::Terminated => words(State::Terminating, "The Canary is being deleted."),
        P::Progressing => {
            let analysis = canary.spec.analysis.as_ref();
            let iterations = analysis.and_then(|it| it.iterations).unwrap_or(0);
            let at = if iterations > 0 {
                format!(
                    "iteration {} of {iterations}",
                    status.iterations.min(iterations)
                )
            } else {
                format!("{} % of the traffic", status.weight())
            };
            let sentence = if status.has_condition(ConditionType::PodsLost)
                && status.canary_weight == 0
            {
                "The version lost all its ready pods, so its traffic is with the primary until they are ready again.".to_owned()
            } else if iterations == 0 && status.canary_weight == 0 {
                "The version has no traffic yet: its pods must be ready first.".to_owned()
            } else {
                format!("The version is analysed: {at}.")
            };
            (State::Progressing, sentence)
        }
    }
}
