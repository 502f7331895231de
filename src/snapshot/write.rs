//! A change to the cluster as a value: complete, conditional on what was observed, with nothing left to choose.

use serde_json::Value;

use super::ObjectRef;

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub struct Write {
    /// What is written.
    pub object: ObjectRef,
    /// How.
    pub action: Action,
    /// What a user reads before the API server's own words when the write is refused
    /// (`VirtualService podinfo.test update error: `), in Flagger's wording. Where it has a `…`, the words go there.
    pub failure: String,
}

impl Write {
    /// What a user reads when the write is refused with these words.
    pub fn refusal(&self, message: &str) -> String {
        match self.failure.split_once('…') {
            Some((before, after)) => format!("{before}{message}{after}"),
            None => format!("{}{message}", self.failure),
        }
    }
}

/// The forms of a write; each loses against a change that we did not see.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// POST of the complete object; loses if it exists.
    Create(Value),
    /// PUT of the object as it was read whole, with our part changed; loses unless it still has the `resourceVersion` it carries.
    Replace(Value),
    /// A JSON Patch for objects whose status churns: begins with `test` of `/metadata/uid` and `/metadata/generation`.
    Patch(Value),
}
