//! The commands that a person may type next.

use super::{State, View};
use crate::api::{canary::CanaryPhase, status::VerdictCode};

/// The beginnings of commands that a person may type, with the flags that choose the same cluster and user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Typed {
    /// This program, as the person has called it: `kubectl flagger`.
    pub flagger: String,
    /// `kubectl`.
    pub kubectl: String,
}

impl Typed {
    /// The beginnings for this program and these flags, such as `--context prod`.
    pub fn new(program: &str, flags: &[String]) -> Self {
        let with = |program: &str| {
            let words = std::iter::once(program).chain(flags.iter().map(String::as_str));
            words.collect::<Vec<_>>().join(" ")
        };
        Self {
            flagger: with(program),
            kubectl: with("kubectl"),
        }
    }

    /// The command that shows whether an operator runs.
    pub fn operator_pods(&self) -> String {
        format!("{} get pods -A | grep flagger", self.kubectl)
    }
}

impl View {
    /// The commands that a person may type next, by the state.
    pub fn next_commands(&self, typed: &Typed) -> Vec<String> {
        let Typed { flagger, kubectl } = typed;
        let command = |verb: &str, reason: bool| {
            let reason = if reason { " --reason \"…\"" } else { "" };
            format!(
                "{flagger} -n {} {verb} {}{reason}",
                self.namespace, self.name
            )
        };
        match self.state {
            State::Progressing if self.silent_since.is_some() => {
                vec![typed.operator_pods()]
            }
            State::Progressing => vec![command("pause", false), command("abort", true)],
            State::Waiting if self.code == VerdictCode::Undecided.as_str() => {
                ["skip", "promote", "abort"]
                    .map(|verb| command(verb, true))
                    .to_vec()
            }
            // The gate before more traffic is a part of the step, which only a skip ends.
            State::Waiting if self.phase == CanaryPhase::Progressing.as_str() => {
                vec![command("skip", true), command("abort", true)]
            }
            State::Paused | State::Waiting => {
                vec![command("resume", false), command("abort", true)]
            }
            State::Failed if self.is_back() => vec![command("explain", false)],
            State::Failed => vec![command("explain", false), command("retry", false)],
            State::Blocked | State::New => {
                vec![format!(
                    "{kubectl} -n {} describe canary {}",
                    self.namespace, self.name
                )]
            }
            State::Suspended
            | State::Initializing
            | State::Promoted
            | State::Promoting
            | State::RollingBack
            | State::Terminating => Vec::new(),
        }
    }
}
