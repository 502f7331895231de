//! `flagger plan`: the writes that the operator would make for a Canary, and the obstacles to a release. Pure: `shell/client/plan` asks the
//! API server.
//!
//! | question | place |
//! | --- | --- |
//! | Which fields has the JSON? | [`Plan`] |
//! | Which writes does the operator make? | `foresee.rs`, by the operator's own decisions |
//! | How are two states of an object compared? | `diff.rs` |
//! | How is a manifest applied to the object that exists? | `manifest.rs` |
//! | Through which connection is a metric server queried? | `way.rs` |
//! | How does a plan look in a terminal? | `lines.rs` |

mod diff;
mod foresee;
mod lines;
mod manifest;
#[cfg(test)]
mod tests;
mod way;

use serde::Serialize;
use serde_json::{Value, json};

pub use foresee::{Foreseen, Foresight, Next, analysed, first_step, result};
pub use lines::lines;
pub use manifest::{kind, write};
pub use way::{UNTRUSTED, Way, way};

use crate::{
    api::release,
    check::{Right, Scope},
    snapshot::ObjectRef,
    view::{API_VERSION, text::clean},
};

/// The plan of one Canary. Its JSON is an interface: fields are added, and none is renamed or removed.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// The namespace of the Canary.
    pub namespace: String,
    /// The name of the Canary.
    pub name: String,
    /// The Canary itself if a manifest changes it, then the objects that the operator would write, each once, in the order of the writes.
    pub changes: Vec<Change>,
    /// The changes that the operator would make in routes of the user (`routeRefs`) at the first step of the next run.
    pub first_step: Vec<Change>,
    /// The obstacles to a release.
    pub problems: Vec<String>,
    /// Other Canaries that claim an object of this one.
    pub conflicts: Vec<Conflict>,
    /// The rights that the person, or the operator's account, lacks.
    pub missing_rights: Vec<MissingRight>,
    /// The metrics that each step of a run checks.
    pub metrics: Vec<Metric>,
    /// The metrics by which the canary would be compared with the primary.
    pub comparisons: Vec<Comparison>,
    /// The checks that were not made, with reasons.
    pub not_checked: Vec<String>,
    /// The operator's next step, in a sentence.
    pub then: String,
}

/// The answer of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Answer {
    /// Nothing prevents a release.
    Good,
    /// The plan found nothing that prevents a release, but the person may not read, or try, all that it needs.
    Incomplete,
    /// Something prevents a release.
    Bad,
}

/// An object that would be written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// How it would be written.
    pub verb: Verb,
    /// The writer.
    pub by: By,
    /// Its kind.
    pub kind: &'static str,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The difference, as a unified diff of two YAML documents; empty if the write would be refused and nothing is known.
    pub diff: String,
    /// Why the API server would refuse the write; null if it would not.
    pub refused: Option<String>,
    /// Why the difference may not be exact; null if the API server has tried the first write of the object.
    pub untried: Option<String>,
}

/// How an object would be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verb {
    /// It does not exist.
    Create,
    /// It exists.
    Update,
}

/// The writer of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// The person who applies the manifest.
    You,
    /// The operator.
    Operator,
}

/// Another Canary that claims an object of this one. The older of both is run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Conflict {
    /// The name of the other Canary.
    pub canary: String,
    /// The kind and the name of the object.
    pub object: String,
    /// The name of the Canary that would not be run.
    pub not_run: String,
}

/// A right that is missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MissingRight {
    /// `you`, or the name of the operator's account.
    pub who: String,
    /// The verb of RBAC.
    pub verb: String,
    /// The API group; empty for the core group.
    pub group: String,
    /// The resource, with its subresource if there is one.
    pub resource: String,
    /// The namespace; null for all namespaces.
    pub namespace: Option<String>,
}

/// A metric, with its value now.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Metric {
    /// The metric with its rendered query, and its server.
    #[serde(flatten)]
    pub metric: release::Metric,
    /// The value now; null if there is none.
    pub value: Option<f64>,
    /// Why a step would fail with this answer; null if it would pass, or if the server was not asked.
    pub failure: Option<String>,
    /// Why the server was not asked; null if it was.
    pub not_asked: Option<String>,
}

/// A metric by which the canary would be compared with the primary.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Comparison {
    /// Its name.
    pub metric: String,
    /// The counter of the primary's requests.
    pub counter: String,
    /// The number of the primary's requests in the last hour; null if the server was not asked.
    pub requests: Option<f64>,
    /// How many of them failed; 0 for durations, which have no bound before a run.
    pub bad: Option<f64>,
    /// Why the server was not asked, or why it has no answer; null otherwise.
    pub not_asked: Option<String>,
}

/// The word for the person in [`MissingRight::who`].
pub const YOU: &str = "you";

impl Plan {
    /// The answer of the plan: whether something prevents a release.
    pub fn answer(&self) -> Answer {
        let mut writes = self.changes.iter().chain(&self.first_step);
        let is_refused = writes.any(|change| change.refused.is_some());
        let operator_lacks = self.missing_rights.iter().any(|right| right.who != YOU);
        if is_refused || operator_lacks || !self.problems.is_empty() || !self.conflicts.is_empty() {
            Answer::Bad
        } else if self.not_checked.is_empty() && self.missing_rights.is_empty() {
            Answer::Good
        } else {
            Answer::Incomplete
        }
    }
}

/// Several plans as one JSON object.
pub fn list_json(plans: &[Plan]) -> Value {
    json!({"apiVersion": API_VERSION, "kind": "PlanList", "items": plans})
}

impl MissingRight {
    /// A right that someone lacks.
    pub fn of(who: &str, right: &Right, scope: &Scope) -> Self {
        Self {
            who: who.to_owned(),
            verb: right.verb.to_owned(),
            group: right.group.to_owned(),
            resource: right.resource.to_owned(),
            namespace: scope.namespace().map(str::to_owned),
        }
    }
}

/// The objects that would be written, each once.
#[derive(Clone, Debug, Default)]
pub struct Changes(Vec<Tried>);

/// An object that would be written, before and after.
#[derive(Clone, Debug)]
pub struct Tried {
    /// The object.
    pub object: ObjectRef,
    /// The user or controller that writes it.
    pub by: By,
    /// The object before the first write; `None` if there is none.
    pub before: Option<Value>,
    /// The object after the last write; `None` if it is not known.
    pub after: Option<Value>,
    /// Why the API server would refuse the write.
    pub refused: Option<String>,
    /// Why the API server did not try the write.
    pub untried: Option<String>,
}

impl Changes {
    /// Whether an earlier write is about this object. The API server did not store that write, so it cannot try another one.
    pub fn has(&self, object: &ObjectRef) -> bool {
        self.0.iter().any(|tried| tried.object == *object)
    }

    /// Adds a write. The next write of the same object begins where the last one ended.
    pub fn add(&mut self, tried: Tried) {
        match self.0.iter_mut().find(|it| it.object == tried.object) {
            Some(known) => known.after = tried.after.or(known.after.take()),
            None => self.0.push(tried),
        }
    }

    /// The changes that differ from the live objects, or would be refused.
    pub fn shown(self) -> Vec<Change> {
        self.0.into_iter().filter_map(shown).collect()
    }
}

fn shown(tried: Tried) -> Option<Change> {
    let Tried {
        object,
        by,
        before,
        after,
        refused,
        untried,
    } = tried;
    let after = after.as_ref();
    let diff = after.and_then(|after| diff::diff(&object, before.as_ref(), after));
    if diff.is_none() && refused.is_none() {
        return None;
    }
    Some(Change {
        verb: if before.is_some() {
            Verb::Update
        } else {
            Verb::Create
        },
        by,
        kind: object.kind.name(),
        namespace: object.namespace,
        name: object.name,
        diff: diff.unwrap_or_default(),
        refused: refused.map(|why| clean(&why)),
        untried: untried.map(|why| clean(&why)),
    })
}
