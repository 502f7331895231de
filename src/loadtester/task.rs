//! The task that a webhook requests: reads its type and its command from the webhook's metadata.

use std::collections::BTreeSet;

use super::{
    Metadata,
    command_line::{self, SplitError},
    concord::{self, ConcordError},
    ngrinder::{self, NGrinderError},
};
use crate::cli::syntax::is_true;

/// A task, ready to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// A command that puts load on a version. The caller does not wait for its end.
    Load(Command),
    /// A command that tests a version. The caller waits for its result.
    Check(Command),
    /// A process on a Concord server. The caller waits for its result.
    Concord(concord::Job),
    /// A test on an nGrinder server that puts load on a version. The caller does not wait for its end.
    NGrinder(ngrinder::Job),
}

/// A command to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// The command as the hook has it. Errors show it.
    pub text: String,
    /// The name of the command in the log.
    pub name: String,
    /// Whether the output of a successful command is logged.
    pub log_output: bool,
    /// Whether the output of a successful command is the body of the answer.
    pub return_output: bool,
}

/// The reason why a task is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The webhook has no metadata.
    #[error("metadata not found in payload")]
    NoMetadata,
    /// The metadata have no command.
    #[error("cmd not found in metadata")]
    NoCommand,
    /// The command has no words.
    #[error("cmd is empty")]
    EmptyCommand,
    /// No type of task has this name.
    #[error("unknown task type {0}")]
    UnknownType(String),
    /// `-allow` does not contain the program.
    #[error("-allow does not name {program:?}, only {allowed}")]
    NotAllowed {
        /// The refused program.
        program: String,
        /// The allowed programs, separated by commas.
        allowed: String,
    },
    /// The command needs a shell, and `-allow` excludes shells.
    #[error(transparent)]
    Command(#[from] SplitError),
    /// The metadata do not describe a process of Concord.
    #[error(transparent)]
    Concord(#[from] ConcordError),
    /// The metadata do not describe a test of nGrinder.
    #[error(transparent)]
    NGrinder(#[from] NGrinderError),
}

impl Refusal {
    /// The HTTP status of the answer.
    pub const fn status(&self) -> u16 {
        match self {
            Self::NotAllowed { .. } => 403,
            // As in Flagger.
            Self::Concord(_) => 500,
            Self::NoMetadata
            | Self::NoCommand
            | Self::EmptyCommand
            | Self::UnknownType(_)
            | Self::Command(_)
            | Self::NGrinder(_) => 400,
        }
    }
}

/// The types of tasks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Type {
    Cmd,
    Bash,
    Helm,
    Kubectl,
    Concord,
    NGrinder,
}

impl Type {
    /// The type by its name in `metadata.type`.
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "cmd" => Self::Cmd,
            "bash" => Self::Bash,
            "helm" | "helmv3" => Self::Helm,
            "kubectl" => Self::Kubectl,
            "concord" => Self::Concord,
            "ngrinder" => Self::NGrinder,
            _ => return None,
        })
    }
}

/// The programs that `-allow` names. A task that runs no program has its type as the name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowed(BTreeSet<String>);

impl Allowed {
    /// Reads a list of names that are separated by commas.
    pub fn named(list: &str) -> Self {
        let names = list.split(',').map(str::trim);
        Self(
            names
                .filter(|name| !name.is_empty())
                .map(str::to_owned)
                .collect(),
        )
    }

    fn check(&self, program: &str) -> Result<(), Refusal> {
        if self.0.contains(program) {
            return Ok(());
        }
        let names: Vec<_> = self.0.iter().map(String::as_str).collect();
        Err(Refusal::NotAllowed {
            program: program.to_owned(),
            allowed: names.join(", "),
        })
    }
}

impl Task {
    /// Reads the task from the hook's metadata. With `allowed`, only these programs may run, and they run without a shell.
    pub fn of(metadata: &Metadata, allowed: Option<&Allowed>) -> Result<Self, Refusal> {
        if metadata.is_empty() {
            return Err(Refusal::NoMetadata);
        }
        let name = metadata.get("type").map_or("cmd", String::as_str);
        let kind = Type::named(name).ok_or_else(|| Refusal::UnknownType(name.to_owned()))?;
        let check = |program| allowed.map_or(Ok(()), |allowed| allowed.check(program));
        match kind {
            Type::Cmd if !metadata.contains_key("cmd") => Err(Refusal::NoCommand),
            Type::Cmd => script("sh", metadata, allowed).map(Self::Load),
            Type::Bash => script("bash", metadata, allowed).map(Self::Check),
            Type::Helm => {
                check("helm")?;
                Ok(Self::Check(tool("helm", metadata)))
            }
            Type::Kubectl => {
                check("kubectl")?;
                Ok(Self::Check(tool("kubectl", metadata)))
            }
            Type::Concord => {
                check("concord")?;
                Ok(Self::Concord(concord::Job::of(metadata)?))
            }
            Type::NGrinder => {
                check("ngrinder")?;
                Ok(Self::NGrinder(ngrinder::Job::of(metadata)?))
            }
        }
    }
}

/// A command that a shell runs. If only some programs are allowed, the command runs without a shell.
fn script(shell: &str, metadata: &Metadata, allowed: Option<&Allowed>) -> Result<Command, Refusal> {
    let text = text(metadata);
    let argv = match allowed {
        None => vec![shell.to_owned(), "-c".to_owned(), text.clone()],
        Some(allowed) => {
            let words = command_line::split(&text)?;
            let program = words.first().ok_or(Refusal::EmptyCommand)?;
            allowed.check(program)?;
            words
        }
    };
    Ok(command(argv, text.clone(), text, metadata))
}

/// A command that runs a program with arguments. Splits them at white space only, as Flagger does: quotes stay in the arguments.
fn tool(program: &str, metadata: &Metadata) -> Command {
    let text = text(metadata);
    let argv = std::iter::once(program)
        .chain(text.split_whitespace())
        .map(str::to_owned)
        .collect();
    let name = format!("{program} {text}");
    command(argv, text, name, metadata)
}

fn command(argv: Vec<String>, text: String, name: String, metadata: &Metadata) -> Command {
    let asked = |key: &str| metadata.get(key).is_some_and(|value| is_true(value));
    Command {
        argv,
        text,
        name,
        log_output: asked("logCmdOutput"),
        return_output: asked("returnCmdOutput"),
    }
}

fn text(metadata: &Metadata) -> String {
    metadata.get("cmd").cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(metadata: &[(&str, &str)], allow: Option<&str>) -> Result<Task, Refusal> {
        let metadata = metadata
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        Task::of(&metadata, allow.map(Allowed::named).as_ref())
    }

    fn argv(metadata: &[(&str, &str)], allow: Option<&str>) -> Vec<String> {
        match task(metadata, allow).unwrap() {
            Task::Load(command) | Task::Check(command) => command.argv,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_type_runs_its_program() {
        for (metadata, words) in [
            (&[("cmd", "hey 'a b'")][..], &["sh", "-c", "hey 'a b'"][..]),
            (&[("type", "cmd"), ("cmd", "")], &["sh", "-c", ""]),
            (
                &[("type", "bash"), ("cmd", "bats x | cat")],
                &["bash", "-c", "bats x | cat"],
            ),
            (&[("type", "bash")], &["bash", "-c", ""]),
            (
                &[("type", "helm"), ("cmd", "test  'a b'\n")],
                &["helm", "test", "'a", "b'"],
            ),
            (
                &[("type", "helmv3"), ("cmd", "test podinfo")],
                &["helm", "test", "podinfo"],
            ),
            (
                &[("type", "kubectl"), ("cmd", "get pods")],
                &["kubectl", "get", "pods"],
            ),
            (&[("type", "kubectl")], &["kubectl"]),
        ] {
            assert_eq!(argv(metadata, None), words, "{metadata:?}");
        }
    }

    #[test]
    fn a_command_is_load_and_a_script_is_a_check() {
        let load = task(&[("cmd", "hey"), ("logCmdOutput", "true")], None).unwrap();
        assert!(
            matches!(load, Task::Load(command) if command.log_output && !command.return_output)
        );
        let check = [("type", "bash"), ("cmd", "true"), ("returnCmdOutput", "1")];
        let check = task(&check, None).unwrap();
        assert!(matches!(check, Task::Check(command) if command.return_output));
    }

    #[test]
    fn wrong_metadata_are_refused_with_flaggers_errors() {
        for (metadata, status, why) in [
            (&[][..], 400, "metadata not found in payload"),
            (&[("type", "cmd")], 400, "cmd not found in metadata"),
            (
                &[("logCmdOutput", "true")],
                400,
                "cmd not found in metadata",
            ),
            (&[("type", "k6")], 400, "unknown task type k6"),
            (&[("type", "")], 400, "unknown task type "),
            (
                &[("type", "concord")],
                500,
                "`server` is required with type concord",
            ),
            (
                &[("type", "ngrinder")],
                400,
                "server, clone, username and passwd are required metadata",
            ),
        ] {
            let refusal = task(metadata, None).unwrap_err();
            assert_eq!(
                (refusal.status(), refusal.to_string().as_str()),
                (status, why),
                "{metadata:?}"
            );
        }
    }

    #[test]
    fn only_allowed_programs_run_and_without_a_shell() {
        let allow = Some("hey, ghz,helm");
        for kind in ["cmd", "bash"] {
            let words = argv(
                &[("type", kind), ("cmd", "hey -m 'PUT' http://podinfo/")],
                allow,
            );
            assert_eq!(words, ["hey", "-m", "PUT", "http://podinfo/"]);
        }
        assert_eq!(
            argv(&[("type", "helm"), ("cmd", "test x")], allow),
            ["helm", "test", "x"]
        );
        for (metadata, status, why) in [
            (
                &[("cmd", "curl http://podinfo/")][..],
                403,
                "-allow does not name \"curl\", only ghz, helm, hey",
            ),
            (
                &[("cmd", "/tmp/hey http://podinfo/")],
                403,
                "-allow does not name \"/tmp/hey\"",
            ),
            (
                &[("cmd", "A=1 hey http://podinfo/")],
                403,
                "-allow does not name \"A=1\"",
            ),
            (
                &[("type", "kubectl"), ("cmd", "hey")],
                403,
                "-allow does not name \"kubectl\"",
            ),
            (
                &[("type", "concord")],
                403,
                "-allow does not name \"concord\"",
            ),
            (
                &[("type", "ngrinder")],
                403,
                "-allow does not name \"ngrinder\"",
            ),
            (
                &[("cmd", "hey http://podinfo/; curl x")],
                400,
                "`;` needs a shell",
            ),
            (&[("cmd", " ")], 400, "cmd is empty"),
            (&[("type", "bash")], 400, "cmd is empty"),
        ] {
            let refusal = task(metadata, allow).unwrap_err();
            assert_eq!(refusal.status(), status, "{metadata:?}");
            assert!(refusal.to_string().starts_with(why), "{refusal}");
        }
    }
}
