//! Which version of a workload this is: a name for the content of its pod template.

use std::fmt::Write;

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::target::SCALE_TO_ZERO;

/// A revision's name begins with this. Flagger's own (a number of letters and digits) never does, so the two cannot be taken for each other.
const PREFIX: &str = "v1-";

/// The revision of a pod template, or of whatever makes a version of the target, as the API server returned it.
///
/// Fields that Rust types do not know count as well; keys are sorted, nulls removed (API servers older than 1.34 serve
/// `creationTimestamp: null`), and the node selector that scales a `DaemonSet` to zero is ignored.
pub fn revision(version: &Value) -> String {
    format!("{PREFIX}{}", digest(&canonical(version).to_string(), 8))
}

/// Whether a status field holds a revision of ours, not one that Flagger computed.
pub fn is_ours(revision: &str) -> bool {
    revision.starts_with(PREFIX)
}

/// The first `bytes` of the SHA-256 of a text, in hexadecimal.
pub fn digest(text: &str, bytes: usize) -> String {
    Sha256::digest(text.as_bytes())
        .iter()
        .take(bytes)
        .fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        })
}

/// `serde_json` keeps maps sorted, so what remains is to drop what carries no meaning.
fn canonical(value: &Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.iter()
                .filter(|(_, v)| !v.is_null())
                .filter_map(|(key, v)| match (key.as_str(), v) {
                    ("nodeSelector", Value::Object(selector)) => {
                        let rest = without_scale_to_zero(selector);
                        (!rest.is_empty()).then(|| (key.clone(), Value::Object(rest)))
                    }
                    _ => Some((key.clone(), canonical(v))),
                })
                .collect(),
        ),
        Value::Array(items) => Value::Array(items.iter().map(canonical).collect()),
        _ => value.clone(),
    }
}

fn without_scale_to_zero(selector: &Map<String, Value>) -> Map<String, Value> {
    selector
        .iter()
        .filter(|(key, v)| *key != SCALE_TO_ZERO && !v.is_null())
        .map(|(key, v)| (key.clone(), v.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_an_api_server_serves_as_null_is_no_new_revision() {
        let old = json!({"metadata": {"creationTimestamp": null, "labels": {"app": "a"}}, "spec": {"containers": [{"image": "a:1"}]}});
        let new = json!({"spec": {"containers": [{"image": "a:1"}]}, "metadata": {"labels": {"app": "a"}}});
        assert_eq!(revision(&old), revision(&new));
    }

    #[test]
    fn a_field_that_no_type_knows_is_a_new_revision() {
        let a = json!({"spec": {"containers": [{"image": "a:1", "fromTheFuture": 1}]}});
        let b = json!({"spec": {"containers": [{"image": "a:1", "fromTheFuture": 2}]}});
        assert_ne!(revision(&a), revision(&b));
    }

    #[test]
    fn a_daemonset_scaled_to_zero_is_the_same_revision() {
        let zero = json!({"spec": {"nodeSelector": {"flagger.app/scale-to-zero": "true"}}});
        assert_eq!(revision(&zero), revision(&json!({"spec": {}})));
        assert_eq!(
            revision(&zero),
            revision(&json!({"spec": {"nodeSelector": {}}}))
        );
    }

    #[test]
    fn flaggers_own_hashes_are_foreign() {
        assert!(is_ours(&revision(&json!({}))));
        assert!(!is_ours("76c965d4bf"));
    }
}
