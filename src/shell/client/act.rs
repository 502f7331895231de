//! The actions of a person: writes the line that asks for one, and waits for the operator's answer.

use std::{pin::pin, time::Duration};

use futures::StreamExt;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout_at};

use super::{
    output::{print, unless_closed},
    read::{Context, Depth, now},
    trouble::Stop,
};
use crate::{
    api::{
        action::{ANNOTATION, Action, LONGEST, Signature, Verb, recorded},
        status::ConditionType,
    },
    cli::client::{Act, Code},
    shell::{api_server::ClusterError, random::nonce},
    snapshot::Kind,
    view::{Action as Answer, Seen, State, Target, View, text::clean},
};

/// How long the command waits for the operator's answer.
const ANSWER: Duration = Duration::from_secs(10);
/// The maximum number of attempts to write the line. An attempt fails if the canary has changed, or still has another line.
const ATTEMPTS: usize = 10;
/// The pause before the next attempt.
const PAUSE: Duration = Duration::from_millis(300);

/// An action that was asked for.
pub struct Asked {
    /// The identifier of the action.
    pub id: String,
    /// The version that it is for.
    pub revision: String,
    /// The name of the user.
    pub author: String,
}

/// Asks for an action, and prints the operator's answer.
pub async fn act(context: &Context, verb: Verb, act: &Act) -> Result<Code, Stop> {
    let Asked {
        id,
        revision,
        author,
    } = ask(context, verb, act).await?;
    let full = format!("{}/{}", context.person.namespace(), act.name);
    unless_closed(print(&format!(
        "asked to {verb} {full} at revision {revision}, as {author}\n"
    )))?;
    if !act.wait {
        return Ok(Code::Yes);
    }
    let asking = Asking { context, verb, act };
    asking.answer(&id).await
}

/// Asks for an action. Does not wait for the operator's answer.
pub async fn ask(context: &Context, verb: Verb, act: &Act) -> Result<Asked, Stop> {
    let asking = Asking { context, verb, act };
    let reason = asking.reason()?;
    let canary = context.canary(&act.name).await?;
    let revision = asking.revision(&canary).await?;
    let author = context.person.who_am_i().await;
    let author = author.map_err(|error| asking.who_failed(&error))?;
    let at = now();
    let id = id(at, nonce());
    let action = Action {
        verb,
        signature: Some(Signature {
            revision: revision.clone(),
            id: id.clone(),
            at: jiff::Timestamp::from_second(at.as_second()).unwrap_or(at),
            author: author.clone(),
        }),
        reason,
    };
    let line = action.to_string();
    if line.len() > LONGEST {
        let text = format!(
            "the reason is too long: the line of an action has at most {LONGEST} bytes, and this one has {}",
            line.len()
        );
        return Err(Stop::because(Code::Usage, text));
    }
    asking.write(canary, &revision, &line).await?;
    Ok(Asked {
        id,
        revision,
        author,
    })
}

/// A unique identifier: the time in milliseconds, and a random number. Later actions sort behind earlier ones.
fn id(at: jiff::Timestamp, random: u64) -> String {
    format!("{:011x}-{random:016x}", at.as_millisecond())
}

struct Asking<'a> {
    context: &'a Context,
    verb: Verb,
    act: &'a Act,
}

impl Asking<'_> {
    /// The reason, on one line with single blanks.
    fn reason(&self) -> Result<String, Stop> {
        let reason = clean(self.act.reason.as_deref().unwrap_or_default());
        let verb = self.verb;
        if reason.is_empty() && verb.needs_reason() {
            let (program, name) = (&self.context.typed.flagger, &self.act.name);
            let namespace = self.context.person.namespace();
            let text = format!(
                "to {verb} a release needs a reason, which everybody reads who looks at it later\nTry: {program} -n {namespace} {verb} {name} --reason \"…\""
            );
            return Err(Stop::because(Code::Usage, text));
        }
        Ok(reason)
    }

    /// The version that the action is meant for: the one in the status that the command read first. If a version waits for its run, the
    /// status does not name it, so its name is taken from the target.
    async fn revision(&self, canary: &Value) -> Result<String, Stop> {
        let waits = canary.pointer("/status/phase") == Some(&json!("Waiting"));
        let revision = if waits {
            let view = self.context.view(canary.clone(), Depth::Workloads).await;
            let hidden = || self.hidden(&view);
            let named = view.revision.target.clone();
            named
                .or_else(|| self.act.revision.clone())
                .ok_or_else(hidden)?
        } else {
            self.applied(canary)?
        };
        match &self.act.revision {
            Some(meant) if *meant != revision => Err(self.superseded(meant, &revision)),
            _ => Ok(revision),
        }
    }

    /// `status.lastAppliedSpec`.
    fn applied(&self, canary: &Value) -> Result<String, Stop> {
        let revision = canary
            .pointer("/status/lastAppliedSpec")
            .and_then(Value::as_str);
        let revision = revision
            .filter(|revision| !revision.is_empty() && !revision.contains(char::is_whitespace));
        revision.map(str::to_owned).ok_or_else(|| {
            let text = format!(
                "canary {}/{} has no release yet: its status names no version\nSee why: {} -n {0} get {1}",
                self.context.person.namespace(),
                self.act.name,
                self.context.typed.flagger
            );
            Stop::because(Code::No, text)
        })
    }

    /// The target, which names the version that waits, cannot be read.
    fn hidden(&self, view: &View) -> Stop {
        let (verb, Target { kind, name }) = (self.verb, &view.target);
        let text = format!(
            "cannot {verb} {}: the {kind} {name} cannot be read, and it names the version that waits\nName the version that you mean with --revision, or see what you may do: {} auth can-i --list -n {}",
            view.full_name(),
            self.context.typed.kubectl,
            view.namespace
        );
        Stop::because(Code::Forbidden, text)
    }

    fn superseded(&self, meant: &str, now: &str) -> Stop {
        let (namespace, name) = (self.context.person.namespace(), &self.act.name);
        let program = &self.context.typed.flagger;
        let text = format!(
            "nothing was asked: canary {namespace}/{name} is at revision {}, not at {meant} any more\nLook at it again: {program} -n {namespace} get {name}",
            clean(now)
        );
        Stop::because(Code::NotFound, text)
    }

    fn who_failed(&self, error: &ClusterError) -> Stop {
        if error.code() == Some(404) {
            let text = "the API server does not tell who you are: Kubernetes 1.28 or newer does";
            return Stop::because(Code::No, text);
        }
        self.context
            .wants(self.verb.as_str(), &self.act.name)
            .failed(error)
    }

    /// Writes the line into the canary that was read. If the canary has changed, it is read again. The same line is then written, unless
    /// the version has changed, too.
    async fn write(&self, mut canary: Value, revision: &str, line: &str) -> Result<(), Stop> {
        let (person, name) = (&self.context.person, &self.act.name);
        for _ in 0..ATTEMPTS {
            if self.may_write(&canary) {
                let version = &canary["metadata"]["resourceVersion"];
                let patch = json!({"metadata": {"resourceVersion": version, "annotations": {ANNOTATION: line}}});
                match person.patch_canary(person.namespace(), name, patch).await {
                    Err(ClusterError::Lost(_)) => {}
                    Err(error) => return Err(self.refused(&error)),
                    Ok(()) => return Ok(()),
                }
            }
            sleep(PAUSE).await;
            canary = self.context.canary(name).await?;
            let now = self.revision(&canary).await?;
            if now != revision {
                return Err(self.superseded(revision, &now));
            }
        }
        let kubectl = &self.context.typed.kubectl;
        let text = format!(
            "nothing was asked: canary {}/{name} has an action that no operator has handled, or changes all the time\nSee the action: {kubectl} -n {0} get canary {name} -o yaml\nTake the action back: {kubectl} -n {0} annotate canary {name} {ANNOTATION}-",
            person.namespace()
        );
        Err(Stop::because(Code::Undecided, text))
    }

    /// Whether the annotation is free: it is missing, its action was handled, or this is an abort, which takes the place of any action.
    fn may_write(&self, canary: &Value) -> bool {
        let annotations = canary.pointer("/metadata/annotations");
        let line = annotations.and_then(|all| all.get(ANNOTATION)?.as_str());
        let Some(line) = line else {
            return true;
        };
        let id = line.parse::<Action>().ok().and_then(|it| it.signature);
        let conditions = canary.pointer("/status/conditions");
        let mut conditions = conditions.and_then(Value::as_array).into_iter().flatten();
        let answers = conditions.find(|it| it["type"] == ConditionType::Action.as_str());
        let answers = answers.and_then(|it| it["message"].as_str());
        let handled = answers.map_or_else(Vec::new, |answers| recorded(answers).0);
        self.verb == Verb::Abort || id.is_some_and(|it| handled.contains(&it.id.as_str()))
    }

    /// The API server refused the line. Its answer has the reason, such as the text of a policy.
    fn refused(&self, error: &ClusterError) -> Stop {
        self.context
            .wants(self.verb.as_str(), &self.act.name)
            .failed(error)
    }

    /// Waits for the operator's answer, and prints it.
    async fn answer(&self, id: &str) -> Result<Code, Stop> {
        let (person, name) = (&self.context.person, &self.act.name);
        let end = Instant::now() + ANSWER;
        let mut changes = pin!(person.watch(Kind::Canary, person.namespace(), name));
        while let Ok(Some(change)) = timeout_at(end, changes.next()).await {
            let canary = match change {
                Ok(Some(canary)) => canary,
                Ok(None) => return Err(self.context.wants("watch", name).missing()),
                Err(error) if error.code().is_some() => {
                    return Err(self.context.wants("watch", name).failed(&error));
                }
                // Repeat until the time is over: the API server may answer again.
                Err(_) => continue,
            };
            let seen = Seen {
                canary,
                ..Seen::default()
            };
            let view = View::of(&seen, now());
            if let Some(answer) = view.action.as_ref().filter(|answer| answer.id == id) {
                return self.print(answer, &view);
            }
        }
        let (namespace, kubectl) = (person.namespace(), &self.context.typed.kubectl);
        Err(Stop::because(
            Code::Undecided,
            format!(
                "no operator has answered within {} s; it acts on this for 15 minutes\nSee whether one runs: {}\nTake the action back: {kubectl} -n {namespace} annotate canary {name} {ANNOTATION}-",
                ANSWER.as_secs(),
                self.context.typed.operator_pods()
            ),
        ))
    }

    fn print(&self, answer: &Answer, view: &View) -> Result<Code, Stop> {
        let full = view.full_name();
        if answer.accepted {
            let state = match self.verb {
                // A gate may still hold the release that was paused.
                Verb::Resume if view.state != State::Waiting => String::new(),
                Verb::Pause | Verb::Abort | Verb::Resume => {
                    format!("{full}: {}: {}\n", view.state.as_str(), view.sentence)
                }
                // These verbs take effect with the next changes of the status.
                Verb::Promote | Verb::Skip | Verb::Retry => String::new(),
            };
            unless_closed(print(&format!("accepted: {}\n{state}", answer.text)))?;
            return Ok(Code::Yes);
        }
        let commands: Vec<_> = view
            .next_commands(&self.context.typed)
            .iter()
            .map(|command| format!("\nNext: {command}"))
            .collect();
        let verb = self.verb;
        Err(Stop::because(
            Code::No,
            format!(
                "refused to {verb} {full}: {}{}",
                answer.text,
                commands.concat()
            ),
        ))
    }
}

#[cfg(test)]
mod tests;
