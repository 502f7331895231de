//! A finding: an error in an object, or a warning.

use serde::Serialize;
use serde_json::Value;

/// An error, or a warning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The file.
    pub file: String,
    /// The kind, the namespace and the name of the object; empty if the file cannot be read.
    pub object: String,
    /// Whether the object cannot be used as it is.
    pub level: Level,
    /// The field, or empty.
    pub field: String,
    /// The error, and how to correct it.
    pub message: String,
}

/// The severity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// The object cannot be used as it is, or loses a field.
    Error,
    /// The object probably does not do what its author wants.
    Warning,
}

impl Level {
    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// A finding before it is known in which object it is: level, field, message.
pub(super) type Found = (Level, String, String);

/// The kind of an object.
pub(super) fn kind(object: &Value) -> &str {
    object["kind"].as_str().unwrap_or_default()
}

/// The kind of an object, and its namespace and name.
pub(super) fn name(object: &Value) -> String {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
    let name = text("/metadata/name").unwrap_or("(no name)");
    match text("/metadata/namespace") {
        Some(namespace) => format!("{} {namespace}/{name}", kind(object)),
        None => format!("{} {name}", kind(object)),
    }
}
