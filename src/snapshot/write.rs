//! Writes to the cluster as values. A write is complete and conditional on the observed object.

use std::hash::{DefaultHasher, Hash, Hasher};

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

/// The fields of an object's metadata that the API server changes with each write.
const VERSIONS: [&str; 2] = ["resourceVersion", "generation"];

impl Write {
    /// A checksum of the content that the write gives the object. It does not depend on the version of the object on which the write is
    /// conditional.
    pub fn content(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        match &self.action {
            Action::Create(object) | Action::Replace(object) => {
                for (field, value) in object.as_object().into_iter().flatten() {
                    match (field.as_str(), value) {
                        ("status", _) => {}
                        ("metadata", Value::Object(metadata)) => metadata
                            .iter()
                            .filter(|(key, _)| !VERSIONS.contains(&key.as_str()))
                            .for_each(|(key, value)| (key, value.to_string()).hash(&mut hasher)),
                        (field, value) => (field, value.to_string()).hash(&mut hasher),
                    }
                }
            }
            Action::Patch(patch) => {
                // Two actions of a person are different, although the same annotation is removed.
                self.failure.hash(&mut hasher);
                let operations = patch.as_array().into_iter().flatten();
                operations
                    .filter(|operation| !tests_version(operation))
                    .for_each(|operation| operation.to_string().hash(&mut hasher));
            }
        }
        hasher.finish()
    }

    /// The text of the Warning event when the API server refuses the write with this message.
    pub fn refusal(&self, message: &str) -> String {
        match self.failure.split_once('…') {
            Some((before, after)) => format!("{before}{message}{after}"),
            None => format!("{}{message}", self.failure),
        }
    }
}

/// A write that the API server refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedWrite {
    /// The object.
    pub object: ObjectRef,
    /// The API server's message.
    pub why: String,
    /// The generation of the Canary that needed the write. Another one may need other writes.
    pub generation: Option<i64>,
}

/// Whether an operation of a patch tests the version of the object.
fn tests_version(operation: &Value) -> bool {
    let path = operation["path"].as_str().unwrap_or_default();
    let field = path.strip_prefix("/metadata/").unwrap_or_default();
    operation["op"] == "test" && (field == "uid" || VERSIONS.contains(&field))
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::snapshot::Kind;

    fn content(action: Action) -> u64 {
        let object = ObjectRef {
            kind: Kind::Service,
            namespace: "shop".to_owned(),
            name: "web".to_owned(),
        };
        let failure = String::new();
        let write = Write {
            object,
            action,
            failure,
        };
        write.content()
    }

    #[test]
    fn writes_with_the_same_content_are_equal_whatever_version_of_the_object_they_need() {
        let patch = |generation: u32, replicas: u32| {
            let test = json!({"op": "test", "path": "/metadata/generation", "value": generation});
            let add = json!({"op": "add", "path": "/spec/replicas", "value": replicas});
            content(Action::Patch(json!([test, add])))
        };
        assert_eq!(patch(1, 2), patch(7, 2));
        assert_ne!(patch(1, 2), patch(1, 3));
        let replace = |version: u32, app: &str, label: &str| {
            let metadata = json!({"resourceVersion": version.to_string(), "generation": version, "labels": {"a": label}});
            content(Action::Replace(
                json!({"metadata": metadata, "spec": {"app": app}, "status": version}),
            ))
        };
        assert_eq!(replace(1, "web", "x"), replace(2, "web", "x"));
        assert_ne!(replace(1, "web", "x"), replace(1, "shop", "x"));
        assert_ne!(replace(1, "web", "x"), replace(1, "web", "y"));
    }
}
