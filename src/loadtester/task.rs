//! What a webhook asks for: the types of tasks, and the words of the commands that they run.

use std::collections::BTreeSet;

use super::{Metadata, concord, ngrinder, words};
use crate::cli::syntax::is_true;

/// A task, ready to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// Puts load on a version: started, and not waited for.
    Load(Command),
    /// Tries whether a version is acceptable: the caller is told how it ends.
    Check(Command),
    /// Runs a process of Concord to its end.
    Concord(concord::Job),
    /// Puts load on a version from elsewhere: started, and not waited for.
    NGrinder(ngrinder::Job),
}

/// A command to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// What the hook says is to be run: how errors name it.
    pub text: String,
    /// How the log names it.
    pub name: String,
    /// Whether what it says goes to the log if it ends well.
    pub log_output: bool,
    /// Whether what it says is the answer if it ends well.
    pub return_output: bool,
}

/// A task that is not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What the caller is answered with.
    pub status: u16,
    /// And why.
    pub why: String,
}

impl Refusal {
    fn bad(why: impl Into<String>) -> Self {
        Self {
            status: 400,
            why: why.into(),
        }
    }
}

/// The types of tasks that a hook may name.
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

/// The commands that may be run, by name. Tasks that run none go by the name of their type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowed(BTreeSet<String>);

impl Allowed {
    /// Those of a list with commas.
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
        Err(Refusal {
            status: 403,
            why: format!(
                "-allow does not name {program:?}, only {}",
                names.join(", ")
            ),
        })
    }
}

impl Task {
    /// The task that metadata ask for. With `allowed`, only these commands, without a shell.
    pub fn of(metadata: &Metadata, allowed: Option<&Allowed>) -> Result<Self, Refusal> {
        if metadata.is_empty() {
            return Err(Refusal::bad("metadata not found in payload"));
        }
        let name = metadata.get("type").map_or("cmd", String::as_str);
        let kind =
            Type::named(name).ok_or_else(|| Refusal::bad(format!("unknown task type {name}")))?;
        let check = |program| allowed.map_or(Ok(()), |allowed| allowed.check(program));
        match kind {
            Type::Cmd if !metadata.contains_key("cmd") => {
                Err(Refusal::bad("cmd not found in metadata"))
            }
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
                // 500 is what Flagger answers with.
                let failed = |why| Refusal { status: 500, why };
                concord::Job::of(metadata)
                    .map(Self::Concord)
                    .map_err(failed)
            }
            Type::NGrinder => {
                check("ngrinder")?;
                ngrinder::Job::of(metadata)
                    .map(Self::NGrinder)
                    .map_err(Refusal::bad)
            }
        }
    }
}

/// A command for a shell; or, where only some commands are allowed, for none.
fn script(shell: &str, metadata: &Metadata, allowed: Option<&Allowed>) -> Result<Command, Refusal> {
    let text = text(metadata);
    let argv = match allowed {
        None => vec![shell.to_owned(), "-c".to_owned(), text.clone()],
        Some(allowed) => {
            let words = words::split(&text).map_err(Refusal::bad)?;
            let program = words.first().ok_or_else(|| Refusal::bad("cmd is empty"))?;
            allowed.check(program)?;
            words
        }
    };
    Ok(command(argv, text.clone(), text, metadata))
}

/// Arguments for a program, split where there is space and nowhere else, as Flagger does: quotes are part of them.
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
    fn only_load_is_not_waited_for() {
        let load = task(&[("cmd", "hey"), ("logCmdOutput", "true")], None).unwrap();
        assert!(
            matches!(load, Task::Load(command) if command.log_output && !command.return_output)
        );
        let check = [("type", "bash"), ("cmd", "true"), ("returnCmdOutput", "1")];
        let check = task(&check, None).unwrap();
        assert!(matches!(check, Task::Check(command) if command.return_output));
    }

    #[test]
    fn what_is_not_understood_is_refused_in_flaggers_words() {
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
            let refusal = Refusal {
                status,
                why: why.to_owned(),
            };
            assert_eq!(task(metadata, None), Err(refusal), "{metadata:?}");
        }
    }

    #[test]
    fn what_is_allowed_is_run_without_a_shell_and_nothing_else_is() {
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
            assert_eq!(refusal.status, status, "{metadata:?}");
            assert!(refusal.why.starts_with(why), "{}", refusal.why);
        }
    }
}
