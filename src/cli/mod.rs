//! The command line and the environment: of the operator, whose flags are Flagger's in Go's syntax, and of the client, whose verbs are in
//! kubectl's. No other module reads either.
//!
//! | question | place |
//! | --- | --- |
//! | which flags are there? | [`FLAGS`] |
//! | what is the syntax of flags? | [`syntax`] |
//! | what do their values mean? | [`Config`] |
//! | which verbs have people and pipelines? | [`client`] |

pub mod client;
mod config;
mod flags;
pub mod syntax;
#[cfg(test)]
mod tests;

use config::resolve;
pub use config::{Config, Slack, Teams};
pub use flags::{FLAGS, FlagSpec};
use flags::{LIBRARY_FLAGS, invalid, usage};
use syntax::{Exit, is_true};

/// The task of the process.
#[derive(Clone, Debug)]
pub enum Command {
    /// Run the operator.
    Run(Box<Config>),
    /// Print the CRDs.
    Crds,
    /// Print what the operator would do first with this configuration. Nothing is written.
    Check(Box<Config>, Output),
}

/// The format of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// For people.
    Table,
    /// For scripts.
    Json,
}

/// Reads a command line (without the name of the program) and the environment.
///
/// # Errors
/// The process has to exit at once: the command line is invalid, or asks for the usage or the version.
pub fn parse(
    args: impl IntoIterator<Item = String>,
    env: impl Fn(&str) -> Option<String>,
) -> Result<Command, Exit> {
    let args: Vec<_> = args.into_iter().collect();
    // A user who asks for a command that writes nothing must not start an operator.
    if let Some(word) = misplaced_command(&args) {
        return Err(invalid(&format!("{word} must be the first argument")));
    }
    let mut args = args.into_iter().peekable();
    if args.peek().map(String::as_str) == Some("crds") {
        return Ok(Command::Crds);
    }
    let is_check = args.next_if(|first| first == "check").is_some();
    let known: Vec<_> = FLAGS
        .iter()
        .map(|flag| (flag.name, flag.default))
        .chain(LIBRARY_FLAGS)
        .chain(is_check.then_some(("o", "table")))
        .collect();
    let given = syntax::read(args, &known, &usage())?;
    if given.get("version").is_some_and(|value| is_true(value)) {
        let version = env!("CARGO_PKG_VERSION");
        let text = format!("Flagger version {version} revision  unknown\n");
        return Err(Exit { code: 0, text });
    }
    let config = Box::new(resolve(&given, env)?);
    if !is_check {
        return Ok(Command::Run(config));
    }
    match given.get("o").map_or("table", String::as_str) {
        "table" => Ok(Command::Check(config, Output::Table)),
        "json" => Ok(Command::Check(config, Output::Json)),
        other => Err(invalid(&format!(
            "invalid value {other:?} for flag -o: must be table or json"
        ))),
    }
}

fn is_command(word: &str) -> bool {
    ["check", "crds"].contains(&word) || client::VERBS.contains(&word)
}

/// Returns a command that is not the first argument. The value of a flag is no command.
fn misplaced_command(args: &[String]) -> Option<&str> {
    let is_value = |i: usize| {
        let flag = i.checked_sub(1).and_then(|before| args.get(before));
        flag.is_some_and(|flag| flag.starts_with('-') && !flag.contains('='))
    };
    let mut words = args.iter().enumerate();
    words
        .find(|(i, word)| *i > 0 && !is_value(*i) && is_command(word))
        .map(|(_, word)| word.as_str())
}
