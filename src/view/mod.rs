//! The view of a canary: the information that commands print, as text, as JSON or as YAML.
//!
//! The JSON is an interface: fields are added, and none is renamed or removed. This module is pure: it makes a view from the objects that
//! the shell has read, and from the current time.
//!
//! | question | place |
//! | --- | --- |
//! | Which fields are there? | [`View`] |
//! | Where does each come from? | `build.rs`; `pods.rs` and `steps.rs` for these lists |
//! | In which state is a canary, in one word and one sentence? | `state.rs` |
//! | Has a version reached the goal of a pipeline? | [`goal`] |
//! | How does a view look in a terminal? | [`render`] |

mod build;
pub mod goal;
mod next;
mod pods;
pub mod render;
mod state;
mod steps;
#[cfg(test)]
mod tests;
pub mod text;

use std::fmt;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use crate::api::{
    canary::CanaryPhase, percent::Percent, release::ReleaseResult, status::VerdictCode,
};
pub use build::Seen;
pub use next::Typed;
pub use state::State;

/// `apiVersion` of all JSON that the commands print.
pub const API_VERSION: &str = "flagger-rs/v1";

/// The information about a canary.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct View {
    /// The namespace of the Canary.
    pub namespace: String,
    /// The name of the Canary.
    pub name: String,
    /// When the Canary was created.
    pub created: Option<Timestamp>,
    /// The state in one word.
    pub state: State,
    /// The reason of the state in one word: the reason of a condition, or empty.
    pub code: String,
    /// The state and its reason in one sentence.
    pub sentence: String,
    /// Whether the canary needs the attention of a person.
    pub needs_attention: bool,
    /// `status.phase`; empty before the operator has seen the Canary.
    pub phase: String,
    /// When the phase, the weight or the iteration last changed.
    pub since: Option<Timestamp>,
    /// The workload that is released.
    pub target: Target,
    /// The strategy: `canary`, `blue-green` or `ab-testing`.
    pub strategy: String,
    /// The images of the containers; null if the workloads cannot be read.
    pub images: Option<Vec<Image>>,
    /// The versions.
    pub revision: Revision,
    /// The share of the traffic that the canary gets, in percent.
    pub weight: Weight,
    /// The steps of a run, in order; empty without an analysis.
    pub steps: Vec<Step>,
    /// The earliest time of the next step; null unless the run is taking steps.
    pub next_step: Option<Timestamp>,
    /// The earliest time at which the run ends if it passes all checks; null unless the run is taking steps.
    pub ends: Option<Timestamp>,
    /// The last sign of the operator, if a step is overdue since; null otherwise. The operator may not run, or may not reach the API server.
    pub silent_since: Option<Timestamp>,
    /// The failed checks of this run, and how many lead to a rollback.
    pub failed_checks: Failed,
    /// The metrics that each step checks.
    pub checks: Vec<Check>,
    /// The webhooks of the Canary.
    pub hooks: Vec<Hook>,
    /// The pods of both versions; null if they cannot be read.
    pub pods: Option<Vec<Pod>>,
    /// The action of a person that was handled last.
    pub action: Option<Action>,
    /// The conditions of the status.
    pub conditions: Vec<Condition>,
    /// The last events of the Canary, newest last; null if they cannot be read.
    pub events: Option<Vec<Event>>,
    /// Whether the API server did not answer when a workload was read. A later view may then have more.
    #[serde(skip)]
    pub unanswered: bool,
    /// When the next sign of the operator is overdue; `None` unless the run is taking steps.
    #[serde(skip)]
    pub expected: Option<Expected>,
}

/// The next sign of the operator: a change of the status, or an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// The last sign.
    pub last: Timestamp,
    /// The time until which the next one comes if the operator works.
    pub until: Timestamp,
}

/// The workload that is released.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Target {
    /// Its kind.
    pub kind: String,
    /// Its name.
    pub name: String,
}

/// The images of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Image {
    /// The name of the container.
    pub container: String,
    /// The image in the primary; null if the primary has no such container.
    pub primary: Option<String>,
    /// The image in the target; null if the target has no such container.
    pub canary: Option<String>,
}

/// The versions of a canary.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Revision {
    /// The version of the current run or of the last one: `status.lastAppliedSpec`.
    pub applied: Option<String>,
    /// The version of the primary: `status.lastPromotedSpec`.
    pub promoted: Option<String>,
    /// The version of the target now; null if it cannot be read.
    pub target: Option<String>,
}

/// A share of the traffic, in percent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Weight {
    /// The share that the operator has routed.
    pub intended: Percent,
    /// The greatest share of a run.
    pub max: Percent,
}

/// A step of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// The weight of a canary, or the number of an iteration.
    pub at: At,
    /// Whether it was taken.
    pub state: Progress,
}

/// The place of a step in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Serialize)]
#[serde(untagged)]
pub enum At {
    /// The weight of the canary.
    Weight(Percent),
    /// The number of the iteration.
    Iteration(i64),
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Weight(weight) => weight.fmt(f),
            Self::Iteration(number) => number.fmt(f),
        }
    }
}

/// Whether a step was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Progress {
    /// It has passed.
    Done,
    /// It is being taken.
    Now,
    /// It comes later.
    Later,
}

/// Failed checks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Failed {
    /// The number in this run.
    pub now: i64,
    /// The number that leads to a rollback.
    pub threshold: i64,
}

/// A metric that each step checks.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Check {
    /// Its name.
    pub name: String,
    /// The least value that passes.
    pub min: Option<f64>,
    /// The greatest value that passes.
    pub max: Option<f64>,
    /// The time window of the query.
    pub interval: String,
}

/// A webhook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Hook {
    /// Its name.
    pub name: String,
    /// The type: it decides when the operator calls the webhook, and how it uses the answer.
    #[serde(rename = "type")]
    pub type_: String,
}

/// A pod of one of the two versions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// `canary` or `primary`.
    pub of: Version,
    /// Whether it is ready.
    pub ready: bool,
    /// Its phase, or the reason why a container does not run.
    pub status: String,
    /// How often its containers were restarted.
    pub restarts: i64,
    /// When it was created.
    pub created: Option<Timestamp>,
}

/// One of the two versions of a canary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Version {
    /// The version under analysis.
    Canary,
    /// The last good version.
    Primary,
}

/// An action of a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Action {
    /// The identifier of the action.
    pub id: String,
    /// Whether the operator accepted it.
    pub accepted: bool,
    /// The verb and its author, or why it was refused.
    pub text: String,
}

/// A condition of the status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Its type.
    #[serde(rename = "type")]
    pub type_: String,
    /// True, False or Unknown.
    pub status: String,
    /// The reason, in one word.
    pub reason: String,
    /// The reason, in a sentence.
    pub message: String,
    /// When the condition was last written.
    pub updated: Option<Timestamp>,
}

/// An event of the Canary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Event {
    /// When it was last seen.
    pub at: Option<Timestamp>,
    /// Normal or Warning.
    #[serde(rename = "type")]
    pub type_: String,
    /// Its text.
    pub message: String,
    /// How often it was seen.
    pub count: i64,
}

impl View {
    /// The name with its namespace.
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// Whether the target has the version of the primary again, after another version has failed.
    pub fn is_back(&self) -> bool {
        self.state == State::Failed && self.code == VerdictCode::Reverted.as_str()
    }

    /// Whether the phase or the state has this name, in upper or lower case.
    pub fn has_phase(&self, name: &str) -> bool {
        let names = [self.phase.as_str(), self.state.as_str()];
        names.iter().any(|it| it.eq_ignore_ascii_case(name))
    }

    /// The number of steps that were taken.
    pub fn steps_taken(&self) -> usize {
        let is_taken = |step: &&Step| step.state != Progress::Later;
        self.steps.iter().filter(is_taken).count()
    }

    /// The number of steps that were taken, and of all; `None` if no run is in progress, or if it has no steps.
    pub fn progress(&self) -> Option<(usize, usize)> {
        let all = self.steps.len();
        (all > 0 && self.state.is_in_run()).then(|| (self.steps_taken(), all))
    }

    /// Whether the record of this revision is that of the current run, or of the last one if no run is in progress.
    pub fn is_recorded_by(&self, revision: &str, result: ReleaseResult) -> bool {
        let waits = self.phase == CanaryPhase::Waiting.as_str();
        self.revision.applied.as_deref() == Some(revision)
            || (waits && result == ReleaseResult::Running)
    }

    /// The last sign of an operator whose next one is overdue at this time; `None` also if the view reports that already.
    pub fn overdue_since(&self, now: Timestamp) -> Option<Timestamp> {
        let overdue = self.expected.filter(|expected| now > expected.until)?;
        self.silent_since.is_none().then_some(overdue.last)
    }

    /// Reports the operator that gives no sign, if its next one is overdue at this time.
    pub fn fall_silent(&mut self, now: Timestamp) {
        if let Some(last) = self.overdue_since(now) {
            self.silent_since = Some(last);
            self.needs_attention = true;
            // At the beginning, because a list cuts long sentences.
            let sign = format!("There is no sign of the operator since {last}. ");
            self.sentence.insert_str(0, &sign);
            (self.next_step, self.ends) = (None, None);
        }
    }

    /// The view as JSON, with its version and kind.
    pub fn json(&self) -> Value {
        let mut value = serde_json::to_value(self).unwrap_or_default();
        value["apiVersion"] = json!(API_VERSION);
        value["kind"] = json!("CanaryView");
        value
    }
}

/// Several views as one JSON object.
pub fn list_json(views: &[View]) -> Value {
    let items: Vec<_> = views.iter().map(View::json).collect();
    json!({"apiVersion": API_VERSION, "kind": "CanaryViewList", "items": items})
}
