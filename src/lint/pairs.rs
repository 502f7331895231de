//! Conflicts between two objects.

use serde_json::Value;

use super::finding::{Found, Level, kind, name};

/// A rule about two objects: the values that may not be equal, and the reason.
struct Rule {
    /// The field of the finding.
    field: &'static str,
    /// The value of an object; `None` if the rule does not apply to the object.
    value: fn(&Value) -> Option<String>,
    /// The consequence if a second object has the same value.
    why: &'static str,
}

/// Overlays for several clusters may be in the same folder, so these are warnings.
const RULES: [Rule; 3] = [
    Rule {
        field: "metadata.name",
        value: |object| text(object, "/metadata/name").map(|_| name(object)),
        why: "is there twice: the one that is applied last replaces the other one",
    },
    Rule {
        field: "spec.targetRef",
        value: |object| {
            let target =
                ["kind", "name"].map(|key| text(object, &format!("/spec/targetRef/{key}")));
            let [kind, name] = target;
            of_canary(object, format!("{} {}", kind?, name?))
        },
        why: "has the same target: the operator serves the older Canary and refuses the younger one",
    },
    Rule {
        field: "spec.service.name",
        value: |object| {
            let own = text(object, "/spec/service/name");
            of_canary(
                object,
                own.or_else(|| text(object, "/spec/targetRef/name"))?
                    .to_owned(),
            )
        },
        why: "has the same Services: the operator serves the older Canary and refuses the younger one",
    },
];

/// The findings about an object and those before it. Of several findings about the same two objects, the first is enough.
pub(super) fn with_earlier(object: &Value, earlier: &[(&str, Value)]) -> Option<Found> {
    RULES.iter().find_map(|rule| {
        let value = (rule.value)(object)?;
        let mut earlier = earlier.iter();
        let (file, other) =
            earlier.find(|(_, other)| (rule.value)(other).as_ref() == Some(&value))?;
        let message = format!("{} in {file} {}", name(other), rule.why);
        Some((Level::Warning, rule.field.to_owned(), message))
    })
}

/// The value of a Canary, in its namespace.
fn of_canary(object: &Value, value: String) -> Option<String> {
    let namespace = text(object, "/metadata/namespace").unwrap_or_default();
    (kind(object) == "Canary").then(|| format!("{namespace} {value}"))
}

fn text<'a>(object: &'a Value, pointer: &str) -> Option<&'a str> {
    object.pointer(pointer).and_then(Value::as_str)
}
