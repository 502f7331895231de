//! Secrets: values that must not be printed, and the reading of Kubernetes' Secret objects.

use std::{collections::BTreeMap, fmt};

use k8s_openapi::ByteString;
use serde_json::Value;

/// A credential, or an address that contains one. Its `Debug` is redacted, and it has no `Display`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Returns one value of a Secret object. `None` if the key is missing or its value is not UTF-8.
pub fn value(object: &Value, key: &str) -> Option<String> {
    text(object.get("data")?.get(key)?)
}

/// Returns all values of a Secret object that are UTF-8, by key.
pub fn values(object: &Value) -> BTreeMap<String, String> {
    let data = object.get("data").and_then(Value::as_object);
    let data = data.into_iter().flatten();
    data.filter_map(|(key, value)| Some((key.clone(), text(value)?)))
        .collect()
}

/// The text of a value without the line end that `echo TOKEN | base64` leaves: no header may contain it.
fn text(base64: &Value) -> Option<String> {
    let bytes: ByteString = serde_json::from_value(base64.clone()).ok()?;
    let text = String::from_utf8(bytes.0).ok()?;
    Some(text.trim_end_matches(['\r', '\n']).to_owned())
}
