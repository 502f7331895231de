//! The message of an alert, before a chat service gives it its own form.

use super::Severity;
use crate::api::canary::Canary;

/// The message of an alert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlertMessage {
    /// `NAME.NAMESPACE` of the Canary.
    pub canary: String,
    /// The text.
    pub text: String,
    /// The severity.
    pub severity: Severity,
    /// Names and values, in order.
    pub fields: Vec<(String, String)>,
}

impl AlertMessage {
    /// A message about a canary.
    pub fn new(
        canary: &Canary,
        severity: Severity,
        text: String,
        fields: Vec<(String, String)>,
    ) -> Self {
        let name = canary.metadata.name.as_deref().unwrap_or_default();
        let namespace = canary.metadata.namespace.as_deref().unwrap_or_default();
        Self {
            canary: format!("{name}.{namespace}"),
            text,
            severity,
            fields,
        }
    }
}
