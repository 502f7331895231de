//! The revision of a workload: a name for the content of its pod template.

use std::fmt::Write;

use serde::{Serialize, Serializer};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::target::SCALE_TO_ZERO;

/// The prefix of every revision. Flagger's own hashes have only letters and digits, so the two cannot be confused.
const PREFIX: &str = "v1-";

/// The revision of a pod template, or of the part of another target that makes a version, as the API server returned it.
///
/// Fields that no Rust type knows count as well. Keys are sorted. Nulls are left out, because API servers older than 1.34 serve
/// `creationTimestamp: null`. The node selector that scales a DaemonSet to zero is ignored.
pub fn revision(version: &Value) -> String {
    // A JSON value always has a text.
    let text = serde_json::to_string(&Canonical(version)).unwrap_or_default();
    format!("{PREFIX}{}", digest(&text, 8))
}

/// Whether this operator computed a revision in a status; otherwise Flagger did.
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

/// A value that serializes without the fields whose change makes no new version. `serde_json` keeps maps sorted.
struct Canonical<'a>(&'a Value);

impl Serialize for Canonical<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Object(map) => {
                serializer.collect_map(map.iter().filter_map(|(key, value)| match value {
                    Value::Null => None,
                    Value::Object(selector) if key == "nodeSelector" => {
                        let nodes = Nodes(selector);
                        let is_empty = nodes.rest().next().is_none();
                        (!is_empty).then_some((key, Part::Nodes(nodes)))
                    }
                    _ => Some((key, Part::Whole(Canonical(value)))),
                }))
            }
            Value::Array(items) => serializer.collect_seq(items.iter().map(Canonical)),
            scalar => scalar.serialize(serializer),
        }
    }
}

/// A field of an object.
#[derive(Serialize)]
#[serde(untagged)]
enum Part<'a> {
    Whole(Canonical<'a>),
    Nodes(Nodes<'a>),
}

/// A node selector without the one that scales a `DaemonSet` to zero.
struct Nodes<'a>(&'a Map<String, Value>);

impl Nodes<'_> {
    fn rest(&self) -> impl Iterator<Item = (&String, &Value)> {
        let counts = |(key, value): &(&String, &Value)| *key != SCALE_TO_ZERO && !value.is_null();
        self.0.iter().filter(counts)
    }
}

impl Serialize for Nodes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.rest())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_null_field_of_an_older_api_server_makes_no_new_revision() {
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

    /// A revision that changes with the version of the operator would start a run of every canary.
    #[test]
    fn a_revision_keeps_its_name() {
        let template = json!({"metadata": {"labels": {"app": "podinfo"}, "creationTimestamp": null}, "spec": {"nodeSelector": {"disk": "ssd"},
            "containers": [{"name": "podinfod", "image": "podinfo:1", "args": ["a\"b", "<&>"], "ports": [{"containerPort": 9898}], "tty": false, "share": 0.5}]}});
        assert_eq!(revision(&template), "v1-6ff1e99b8e8b648b");
    }

    #[test]
    fn flaggers_own_hashes_are_foreign() {
        assert!(is_ours(&revision(&json!({}))));
        assert!(!is_ours("76c965d4bf"));
    }

    #[test]
    fn a_null_in_a_node_selector_makes_no_new_revision() {
        let with = |selector: Value| revision(&json!({"spec": {"nodeSelector": selector}}));
        assert_eq!(
            with(json!({"disk": "ssd", "zone": null})),
            with(json!({"disk": "ssd"}))
        );
        assert_ne!(with(json!({"disk": "ssd"})), with(json!({})));
    }
}
