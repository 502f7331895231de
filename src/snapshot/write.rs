//! Writes to the cluster as values. A write is complete and conditional on the observed object.

use serde_json::Value;

use super::ObjectRef;

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub struct Write {
    /// The object to write.
    pub object: ObjectRef,
    /// The form of the write.
    pub action: Action,
    /// The text before the API server's message when the write is refused, in Flagger's wording (`VirtualService podinfo.test update
    /// error: `). If it contains `…`, the message goes there.
    pub failure: String,
}

impl Write {
    /// The text of the Warning event when the API server refuses the write with this message.
    pub fn refusal(&self, message: &str) -> String {
        match self.failure.split_once('…') {
            Some((before, after)) => format!("{before}{message}{after}"),
            None => format!("{}{message}", self.failure),
        }
    }
}

/// The forms of a write. Each fails if the object has changed since it was observed.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// POST of the complete object. It fails if the object exists.
    Create(Value),
    /// PUT of the object, which was read in full, with our part changed. It fails unless the object still has the `resourceVersion` that
    /// it carries.
    Replace(Value),
    /// A JSON Patch for objects whose status changes often. It begins with `test` operations on `/metadata/uid` and
    /// `/metadata/generation`, so a change of the status does not make it fail.
    Patch(Value),
}
