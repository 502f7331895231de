//! The call of a webhook: its endpoint, its canary and its metadata. Endpoints and bodies are those of Flagger's load tester.

use serde_json::{Map, Value};

use super::{Metadata, gate::Gate};

/// An endpoint. The HTTP method does not matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// The health check of the load tester.
    Health,
    /// The load tester's own metrics.
    Metrics,
    /// A gate that is always open.
    Approve,
    /// A gate that is never open.
    Halt,
    /// An action on a gate of a canary.
    Gate(Gate, Action),
    /// Any other path: the caller requests a task.
    Task,
}

/// An action on a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Returns whether the gate is open.
    Check,
    /// Opens the gate.
    Open,
    /// Closes the gate.
    Close,
}

/// The reason why a body is not that of a webhook.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The body is not JSON.
    #[error("the body is not the JSON of a webhook: {0}")]
    NotJson(serde_json::Error),
    /// The body is JSON, but not an object.
    #[error("the body is not the JSON of a webhook: an object is expected")]
    NotAnObject,
    /// The field `metadata` is not an object.
    #[error("metadata must be an object")]
    MetadataNotAnObject,
    /// This field is not a string.
    #[error("{0} must be a string")]
    NotAString(String),
}

impl Endpoint {
    /// The endpoint at a path.
    pub fn at(path: &str) -> Self {
        match path {
            "/healthz" => Self::Health,
            "/metrics" => Self::Metrics,
            "/gate/approve" => Self::Approve,
            "/gate/halt" => Self::Halt,
            "/gate/check" => Self::Gate(Gate::Advance, Action::Check),
            "/gate/open" => Self::Gate(Gate::Advance, Action::Open),
            "/gate/close" => Self::Gate(Gate::Advance, Action::Close),
            "/rollback/check" => Self::Gate(Gate::Rollback, Action::Check),
            "/rollback/open" => Self::Gate(Gate::Rollback, Action::Open),
            "/rollback/close" => Self::Gate(Gate::Rollback, Action::Close),
            _ => Self::Task,
        }
    }
}

/// The fields of a webhook's body that the load tester uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Call {
    /// The canary's name.
    pub name: String,
    /// The canary's namespace.
    pub namespace: String,
    /// The hook's metadata, which describe the task.
    pub metadata: Metadata,
}

impl Call {
    /// Reads a body as leniently as Flagger does: missing fields and null count as empty, unknown fields are ignored.
    pub fn read(body: &[u8]) -> Result<Self, CallError> {
        let fields = match serde_json::from_slice(body).map_err(CallError::NotJson)? {
            Value::Object(fields) => fields,
            Value::Null => Map::new(),
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                return Err(CallError::NotAnObject);
            }
        };
        let metadata = match field(&fields, "metadata") {
            None | Some(Value::Null) => Metadata::new(),
            Some(Value::Object(metadata)) => metadata
                .iter()
                .map(|(key, value)| {
                    let value = text(Some(value), &format!("metadata.{key}"))?;
                    Ok((key.clone(), value))
                })
                .collect::<Result<_, CallError>>()?,
            Some(_) => return Err(CallError::MetadataNotAnObject),
        };
        Ok(Self {
            name: text(field(&fields, "name"), "name")?,
            namespace: text(field(&fields, "namespace"), "namespace")?,
            metadata,
        })
    }

    /// The canary as `NAME.NAMESPACE`.
    pub fn canary(&self) -> String {
        format!("{}.{}", self.name, self.namespace)
    }
}

/// Finds a field by its name. Ignores case if no name is equal, as Go does.
fn field<'a>(fields: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    let mut alike = fields
        .iter()
        .filter(|(key, _)| key.eq_ignore_ascii_case(name));
    fields.get(name).or_else(|| Some(alike.next()?.1))
}

fn text(value: Option<&Value>, name: &str) -> Result<String, CallError> {
    match value {
        None | Some(Value::Null) => Ok(String::new()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(_) => Err(CallError::NotAString(name.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_webhook_of_flagger_is_read() {
        let call = Call::read(
            br#"{"name":"podinfo","namespace":"test","phase":"Progressing","checksum":"85d557f47b","metadata":{"cmd":"hey","type":"cmd"}}"#,
        )
        .unwrap();
        assert_eq!(call.canary(), "podinfo.test");
        assert_eq!(call.metadata["cmd"], "hey");
        let alike = Call::read(
            br#"{"Name":"podinfo","NAMESPACE":"test","Metadata":{"cmd":null,"CMD":""}}"#,
        );
        let alike = alike.unwrap();
        assert_eq!(
            (alike.canary().as_str(), alike.metadata.len()),
            ("podinfo.test", 2)
        );
    }

    #[test]
    fn missing_fields_and_null_are_empty() {
        for body in [
            "{}",
            "null",
            r#"{"name":null,"metadata":null}"#,
            r#"{"metadata":{}}"#,
        ] {
            let call = Call::read(body.as_bytes()).unwrap();
            assert_eq!(call, Call::default(), "{body}");
        }
    }

    #[test]
    fn a_body_that_is_not_a_webhooks_is_refused_with_the_reason() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        let nested = format!(r#"{{"metadata":{deep}}}"#);
        for (body, why) in [
            ("", "EOF while parsing"),
            ("cmd=hey", "expected value at line 1 column 1"),
            (r#"{"name":"podinfo"} and more"#, "trailing characters"),
            ("[]", "an object is expected"),
            (r#"{"name":1}"#, "name must be a string"),
            (r#"{"metadata":"hey"}"#, "metadata must be an object"),
            (
                r#"{"metadata":{"cmd":["hey"]}}"#,
                "metadata.cmd must be a string",
            ),
            (&deep, "recursion limit exceeded"),
            (&nested, "recursion limit exceeded"),
        ] {
            let message = Call::read(body.as_bytes()).unwrap_err().to_string();
            assert!(message.contains(why), "{message}");
        }
    }
}
