//! The error answers of the API server, with its own texts.

use serde_json::{Value, json};

use super::store::Key;

/// A `Status` of a failed request.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    pub code: u16,
    pub reason: &'static str,
    pub message: String,
    pub details: Value,
}

impl Refusal {
    fn about(key: &Key, code: u16, reason: &'static str, message: &str) -> Self {
        let resource = key.resource();
        let mut details = json!({"name": key.name, "kind": resource.path()});
        if !resource.group.is_empty() {
            details["group"] = json!(resource.group);
        }
        Self {
            code,
            reason,
            message: message.to_owned(),
            details,
        }
    }

    pub fn not_found(key: &Key) -> Self {
        let message = format!("{} \"{}\" not found", key.resource().qualified(), key.name);
        Self::about(key, 404, "NotFound", &message)
    }

    /// The object exists, or is being deleted.
    pub fn exists(key: &Key, is_being_deleted: bool) -> Self {
        let message = format!(
            "{}{} \"{}\" already exists",
            if is_being_deleted {
                "object is being deleted: "
            } else {
                ""
            },
            key.resource().qualified(),
            key.name
        );
        Self::about(key, 409, "AlreadyExists", &message)
    }

    /// Another client has changed the object.
    pub fn conflict(key: &Key) -> Self {
        Self::precondition(
            key,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// A precondition of a write does not hold.
    pub fn precondition(key: &Key, why: &str) -> Self {
        let what = key.resource().qualified();
        let message = format!(
            "Operation cannot be fulfilled on {what} \"{}\": {why}",
            key.name
        );
        Self::about(key, 409, "Conflict", &message)
    }

    /// A precondition of a DELETE does not hold. Its texts name the kind instead of the resource.
    pub fn delete_precondition(key: &Key, why: &str) -> Self {
        let resource = key.resource();
        let mut refusal = Self::precondition(key, why);
        let what = resource
            .qualified()
            .replacen(resource.path(), resource.kind, 1);
        refusal.message = refusal.message.replacen(&resource.qualified(), &what, 1);
        refusal.details["kind"] = json!(resource.kind);
        refusal
    }

    /// A field of the object has an invalid value.
    pub fn invalid(key: &Key, field: &str, why: &str) -> Self {
        let resource = key.resource();
        let kind = if resource.group.is_empty() {
            resource.kind.to_owned()
        } else {
            format!("{}.{}", resource.kind, resource.group)
        };
        let message = format!("{kind} \"{}\" is invalid: {field}: {why}", key.name);
        let mut refusal = Self::about(key, 422, "Invalid", &message);
        refusal.details["kind"] = json!(resource.kind);
        let cause = if why.starts_with("Invalid value") {
            "FieldValueInvalid"
        } else {
            "FieldValueForbidden"
        };
        refusal.details["causes"] = json!([{"reason": cause, "message": why, "field": field}]);
        refusal
    }

    /// A PUT without a resourceVersion, of a kind that requires one. The texts name the resource instead of the kind.
    pub fn unconditional(key: &Key) -> Self {
        let resource = key.resource();
        let mut refusal = Self::invalid(
            key,
            "metadata.resourceVersion",
            "Invalid value: 0: must be specified for an update",
        );
        refusal.message = refusal.message.replacen(resource.kind, resource.path(), 1);
        refusal.details["kind"] = json!(resource.path());
        refusal
    }

    /// A JSON Patch that cannot be applied; a failed `test` is one reason.
    pub fn patch() -> Self {
        Self::plain(
            422,
            "Invalid",
            "the server rejected our request due to an error in our request",
        )
    }

    pub fn plain(code: u16, reason: &'static str, message: &str) -> Self {
        Self {
            code,
            reason,
            message: message.to_owned(),
            details: json!({}),
        }
    }

    /// The requested revision is compacted.
    pub fn expired(message: &str) -> Self {
        Self::plain(410, "Expired", message)
    }

    /// The body of the answer.
    pub fn status(&self) -> Value {
        let mut status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "code": self.code});
        if !self.reason.is_empty() {
            status["reason"] = json!(self.reason);
        }
        if !matches!(self.reason, "" | "Expired" | "BadRequest" | "InternalError") {
            status["details"] = self.details.clone();
        }
        status
    }
}
