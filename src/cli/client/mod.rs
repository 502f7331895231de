//! The command line for people and pipelines: `kubectl flagger VERB` and `flagger VERB`, in kubectl's syntax.
//!
//! | question | place |
//! | --- | --- |
//! | Which verbs and flags are there? | [`Verb`], [`Reach`] |
//! | What do the exit codes mean? | [`Code`] |
//! | What completes a half-typed command? | [`complete`] |

pub mod complete;
mod terms;
mod verbs;

use clap::{CommandFactory, Parser, ValueEnum};

pub use terms::{CODES, Format};
pub use verbs::{
    Account, Act, Auth, Backtest, Canary, Dashboard, Explain, Get, Lint, List, Plan, Report,
    Status, Verb,
};

use super::syntax::Exit;

/// The meaning of an exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The command did what was asked, or the answer is yes.
    Yes = 0,
    /// The answer is no.
    No = 1,
    /// The command line, or the kubeconfig, is wrong.
    Usage = 2,
    /// The time limit is over, or the API server cannot be reached.
    Undecided = 3,
    /// The release waits for a person.
    WaitsForPerson = 4,
    /// There is no such object, or a newer version has taken its place.
    NotFound = 5,
    /// The user may not do this.
    Forbidden = 6,
}

/// The words of each verb: its name and its aliases.
pub const VERBS: [&str; 20] = [
    "list",
    "ls",
    "get",
    "watch",
    "status",
    "explain",
    "history",
    "promote",
    "skip",
    "pause",
    "resume",
    "abort",
    "retry",
    "lint",
    "plan",
    "backtest",
    "dashboard",
    "version",
    "completion",
    "help",
];

/// The word with which a completion script asks for candidates. The words after it are an unfinished command line.
pub const COMPLETE: &str = "__complete";

/// Watches and steers releases.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "flagger",
    disable_version_flag = true,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "The operator itself is started by `flagger` without a verb: `flagger -h` prints its flags. `flagger check -h` and `flagger crds` belong to it."
)]
pub struct Line {
    /// The verb.
    #[command(subcommand)]
    pub verb: Verb,
    /// The API server, and the user of the requests.
    #[command(flatten)]
    pub reach: Reach,
}

/// The API server, and the user of the requests: kubectl's flags.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Flags of all verbs")]
pub struct Reach {
    /// The namespace. Default: that of the context.
    #[arg(short, long, global = true, value_name = "NAME")]
    pub namespace: Option<String>,
    /// The context of the kubeconfig. Default: the current one.
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,
    /// The path of a kubeconfig. Default: $KUBECONFIG, or ~/.kube/config.
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<String>,
    /// The user to impersonate.
    #[arg(long = "as", global = true, value_name = "USER")]
    pub as_user: Option<String>,
    /// A group to impersonate; may be repeated.
    #[arg(long = "as-group", global = true, value_name = "GROUP")]
    pub as_groups: Vec<String>,
    /// Whether to use colors. By default only in a terminal, unless NO_COLOR is set or TERM is dumb.
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN")]
    pub color: Color,
}

impl Reach {
    /// The flags that choose the cluster and the user, for commands that a person types next. The namespace is in each command.
    pub fn flags(&self) -> Vec<String> {
        let one = |flag: &str, value: &String| format!("{flag} {}", quoted(value));
        let flags = [
            ("--context", &self.context),
            ("--kubeconfig", &self.kubeconfig),
            ("--as", &self.as_user),
        ];
        let flags = flags
            .into_iter()
            .filter_map(|(flag, value)| Some(one(flag, value.as_ref()?)));
        let groups = self.as_groups.iter().map(|group| one("--as-group", group));
        flags.chain(groups).collect()
    }
}

/// A value as a shell reads it.
fn quoted(value: &str) -> String {
    let is_plain =
        |character: char| character.is_ascii_alphanumeric() || "-_./:@=,+".contains(character);
    if !value.is_empty() && value.chars().all(is_plain) {
        return value.to_owned();
    }
    format!("'{}'", value.replace('\'', r"'\''"))
}

/// When to use colors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// In a terminal.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// The name by which the program was called. Messages with a command to type begin with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// `flagger`.
    Flagger,
    /// `kubectl flagger`: kubectl runs a program of the name `kubectl-flagger`.
    Plugin,
}

impl Program {
    /// The program that was called by this path.
    pub fn called(path: &str) -> Self {
        let name = path.rsplit('/').next().unwrap_or(path);
        if name.trim_end_matches(".exe") == "kubectl-flagger" {
            Self::Plugin
        } else {
            Self::Flagger
        }
    }

    /// The words with which a person calls the program.
    pub const fn typed(self) -> &'static str {
        match self {
            Self::Flagger => "flagger",
            Self::Plugin => "kubectl flagger",
        }
    }
}

/// Whether these arguments call a verb. The operator's own arguments are flags in Flagger's syntax, so a mistyped verb starts no operator.
pub fn is_meant(program: Program, args: &[String]) -> bool {
    match args.first().map(String::as_str) {
        Some("check" | "crds") => false,
        Some("") | None => program == Program::Plugin,
        Some(first) => {
            program == Program::Plugin || !first.starts_with('-') || has_verb_after_flags(args)
        }
    }
}

/// Whether flags of all verbs, and then a verb, are first. The value of one of the operator's own flags may look like a verb.
fn has_verb_after_flags(args: &[String]) -> bool {
    let reach = <Reach as clap::Args>::augment_args(clap::Command::new(""));
    let is_flag = |name: &str| {
        let is_long = |long: &str| name.strip_prefix("--") == Some(long);
        let is_short = |short: char| name.strip_prefix('-') == Some(short.to_string().as_str());
        let mut flags = reach.get_arguments();
        flags.any(|flag| {
            flag.get_long().is_some_and(is_long) || flag.get_short().is_some_and(is_short)
        })
    };
    let mut args = args.iter().map(String::as_str);
    while let Some(arg) = args.next() {
        if !arg.starts_with('-') {
            return VERBS.contains(&arg);
        }
        let (name, value) = match arg.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (arg, None),
        };
        if !is_flag(name) {
            return false;
        }
        if value.is_none() {
            args.next();
        }
    }
    false
}

/// Reads a command line, without the name of the program.
///
/// # Errors
/// The process has to exit at once: the command line is invalid, or asks for help.
pub fn parse(program: Program, args: &[String], colors: bool) -> Result<Line, Exit> {
    let words = std::iter::once(program.typed()).chain(args.iter().map(String::as_str));
    let parsed = command(program).try_get_matches_from(words);
    let parsed =
        parsed.and_then(|matches| <Line as clap::FromArgMatches>::from_arg_matches(&matches));
    parsed.map_err(|error| {
        let text = error.render();
        Exit {
            code: if error.use_stderr() {
                Code::Usage as u8
            } else {
                0
            },
            text: if colors {
                text.ansi().to_string()
            } else {
                text.to_string()
            },
        }
    })
}

/// The command line as clap knows it.
pub fn command(program: Program) -> clap::Command {
    Line::command().bin_name(program.typed())
}

#[cfg(test)]
mod tests;
