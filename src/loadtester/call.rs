//! What was called: which endpoint, by which canary. The endpoints, and what a call may say, are Flagger's.

use serde_json::{Map, Value};

use super::{Metadata, gate::Gate};

/// An endpoint, whatever the HTTP method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// Whether the load tester works.
    Health,
    /// What it measures of itself.
    Metrics,
    /// A gate that is always open.
    Approve,
    /// A gate that is never open.
    Halt,
    /// A gate of a canary.
    Gate(Gate, Action),
    /// Anything else asks for a task.
    Task,
}

/// What is to be done with a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Say whether it is open.
    Check,
    /// Open it.
    Open,
    /// Close it.
    Close,
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

/// The body of a webhook, as far as it matters here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Call {
    /// The canary's name.
    pub name: String,
    /// The canary's namespace.
    pub namespace: String,
    /// What the hook wants.
    pub metadata: Metadata,
}

impl Call {
    /// Reads a body as leniently as Flagger does: what is missing or null is empty, what is unknown is left out. Or says what is wrong.
    pub fn read(body: &[u8]) -> Result<Self, String> {
        let value = serde_json::from_slice(body)
            .map_err(|error| format!("the body is not the JSON of a webhook: {error}"))?;
        let fields = match value {
            Value::Object(fields) => fields,
            Value::Null => Map::new(),
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                return Err(
                    "the body is not the JSON of a webhook: an object is expected".to_owned(),
                );
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
                .collect::<Result<_, String>>()?,
            Some(_) => return Err("metadata must be an object".to_owned()),
        };
        Ok(Self {
            name: text(field(&fields, "name"), "name")?,
            namespace: text(field(&fields, "namespace"), "namespace")?,
            metadata,
        })
    }

    /// `NAME.NAMESPACE`
    pub fn canary(&self) -> String {
        format!("{}.{}", self.name, self.namespace)
    }
}

/// A field by its name; in any case, as Go finds it.
fn field<'a>(fields: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    let mut alike = fields
        .iter()
        .filter(|(key, _)| key.eq_ignore_ascii_case(name));
    fields.get(name).or_else(|| Some(alike.next()?.1))
}

fn text(value: Option<&Value>, of: &str) -> Result<String, String> {
    match value {
        None | Some(Value::Null) => Ok(String::new()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(_) => Err(format!("{of} must be a string")),
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
    fn what_is_missing_or_null_is_empty() {
        for body in [
            "{}",
            "null",
            r#"{"name":null,"metadata":null}"#,
            r#"{"metadata":{}}"#,
        ] {
            assert_eq!(Call::read(body.as_bytes()), Ok(Call::default()), "{body}");
        }
    }

    #[test]
    fn what_is_no_webhook_is_told() {
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
            let told = Call::read(body.as_bytes()).unwrap_err();
            assert!(told.contains(why), "{told}");
        }
    }
}
