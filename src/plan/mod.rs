//! `flagger plan`: what would change if a manifest were applied, as text and as JSON. Pure: `shell/client/plan.rs` asks the API server.

mod diff;
#[cfg(test)]
mod tests;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::view::{
    render::{Line, Style},
    text::clean,
};
pub use diff::{DiffLine, diff};

/// What applying one Canary would do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// The namespace and the name of the Canary.
    pub canary: String,
    /// The Canary itself, then the objects that the operator would write, in order.
    pub changes: Vec<Change>,
    /// What prevents the release, or may.
    pub problems: Vec<String>,
    /// The rights that the operator lacks.
    pub missing_rights: Vec<String>,
    /// What the operator would do then, in a sentence.
    pub then: String,
}

/// One object that would be written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// `create` or `update`.
    pub verb: Verb,
    /// The kind and the name.
    pub object: String,
    /// The lines that differ, with their surroundings.
    pub diff: Vec<DiffLine>,
    /// Why the API server would refuse the write, or did not try it.
    pub refused: Option<String>,
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

impl Verb {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
        }
    }
}

impl Change {
    /// The change of an object from one state to another; `None` if no field of a user differs.
    pub fn between(object: &str, before: Option<&Value>, after: &Value) -> Option<Self> {
        let old = before.map(text).unwrap_or_default();
        let new = text(after);
        (old != new).then(|| Self {
            verb: if before.is_some() { Verb::Update } else { Verb::Create },
            object: clean(object),
            diff: diff(&old, &new),
            refused: None,
        })
    }
}

impl Plan {
    /// Whether nothing would change, and nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.problems.is_empty() && self.missing_rights.is_empty()
    }

    /// The lines for a terminal.
    pub fn lines(&self) -> Vec<Line> {
        let mut lines = vec![Line::default().and(Style::Strong, format!("Canary {}", clean(&self.canary)))];
        let problem = |text: &String| Line::plain("  ").and(Style::Bad, "problem").and(Style::Plain, format!(": {}", clean(text)));
        lines.extend(self.problems.iter().map(problem));
        let right = |text: &String| Line::plain("  ").and(Style::Bad, "missing right").and(Style::Plain, format!(": {}", clean(text)));
        lines.extend(self.missing_rights.iter().map(right));
        for change in &self.changes {
            lines.push(Line::plain(format!("  {} {}", change.verb.as_str(), change.object)));
            if let Some(refused) = &change.refused {
                lines.push(Line::plain("    ").and(Style::Bad, "refused").and(Style::Plain, format!(": {}", clean(refused))));
            }
            lines.extend(change.diff.iter().map(DiffLine::line));
        }
        let then = if self.then.is_empty() { "nothing".to_owned() } else { clean(&self.then) };
        lines.push(Line::plain(format!("  then: {then}")));
        lines
    }
}

/// The fields of metadata that the API server sets.
const OF_SERVER: [&str; 7] = ["resourceVersion", "uid", "creationTimestamp", "managedFields", "generation", "selfLink", "ownerReferences"];

/// An object as YAML, without what the API server sets, and without the contents of Secrets.
fn text(object: &Value) -> String {
    let mut object = object.clone();
    let is_secret = object["kind"] == "Secret";
    let Some(fields) = object.as_object_mut() else {
        return String::new();
    };
    fields.remove("status");
    if let Some(metadata) = fields.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.retain(|field, _| !OF_SERVER.contains(&field.as_str()));
        if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
            annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
        }
    }
    for field in ["data", "stringData"].into_iter().filter(|_| is_secret) {
        let data: Option<&mut Map<String, Value>> = fields.get_mut(field).and_then(Value::as_object_mut);
        data.into_iter().flatten().for_each(|(_, value)| *value = "(hidden)".into());
    }
    // A JSON value always has a text.
    serde_saphyr::to_string(&object).unwrap_or_default()
}
