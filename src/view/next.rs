//! The commands that a person may type next.

use super::{State, View};
use crate::api::status::VerdictCode;

impl View {
    /// The commands that a person may type next, by the state. `program` is what the person typed.
    pub fn next_commands(&self, program: &str) -> Vec<String> {
        let command = |verb: &str, reason: bool| {
            let reason = if reason { " --reason \"…\"" } else { "" };
            format!(
                "{program} -n {} {verb} {}{reason}",
                self.namespace, self.name
            )
        };
        match self.state {
            State::Progressing => vec![command("pause", false), command("abort", true)],
            State::Waiting if self.code == VerdictCode::Undecided.as_str() => {
                ["skip", "promote", "abort"]
                    .map(|verb| command(verb, true))
                    .to_vec()
            }
            State::Paused | State::Waiting => {
                vec![command("resume", false), command("abort", true)]
            }
            State::Failed if self.is_back() => Vec::new(),
            State::Failed => vec![command("retry", false)],
            State::Blocked | State::New => {
                vec![format!(
                    "kubectl -n {} describe canary {}",
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
