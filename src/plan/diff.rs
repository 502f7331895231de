//! An object as text, and the difference of two states of it.

use serde_json::{Map, Value};
use similar::TextDiff;

use crate::{
    snapshot::{ObjectRef, excerpt::printable},
    workload::metadata::LAST_APPLIED,
};

/// The fields of metadata that the API server sets.
const OF_SERVER: [&str; 6] = [
    "resourceVersion",
    "uid",
    "creationTimestamp",
    "managedFields",
    "generation",
    "selfLink",
];
/// The addresses of a Service, which the API server chooses anew at each try to create it.
const ADDRESSES: [&str; 2] = ["clusterIP", "clusterIPs"];
/// How many equal lines are shown before and after a difference.
const AROUND: usize = 3;
/// The most lines of a state that are compared.
const COMPARED: usize = 10_000;
/// The most lines of a difference that are shown.
const SHOWN: usize = 500;
/// The most characters of a line that are shown.
const LINE: usize = 400;

/// The difference of two states of an object as a unified diff; `None` if nothing differs that a person could have written. Values of
/// Secrets are not shown, and neither is the status.
pub fn diff(object: &ObjectRef, before: Option<&Value>, after: &Value) -> Option<String> {
    let mut old = before.cloned().unwrap_or_default();
    let mut new = after.clone();
    hide_secrets(&mut old, &mut new);
    let is_new = before.is_none();
    let old = if is_new {
        String::new()
    } else {
        text(old, false)
    };
    let new = text(new, is_new);
    if old == new {
        return None;
    }
    let path = format!(
        "{}/{}/{}",
        object.kind.name(),
        object.namespace,
        object.name
    );
    let from = if is_new {
        "/dev/null".to_owned()
    } else {
        format!("live/{path}")
    };
    let (old, new) = (head(&old), head(&new));
    let compared = TextDiff::from_lines(old, new);
    let unified = compared
        .unified_diff()
        .context_radius(AROUND)
        .header(&from, &format!("planned/{path}"))
        .to_string();
    Some(bounded(&unified))
}

/// The first lines of a text.
fn head(text: &str) -> &str {
    let end = text.match_indices('\n').nth(COMPARED - 1);
    end.map_or(text, |(end, _)| text.get(..=end).unwrap_or(text))
}

/// A diff without control characters, with at most [`SHOWN`] lines of at most [`LINE`] characters.
fn bounded(diff: &str) -> String {
    let count = diff.lines().count();
    let mut shown: String = diff
        .lines()
        .take(SHOWN)
        .map(|line| short(line) + "\n")
        .collect();
    if count > SHOWN {
        shown.extend(["… ", &(count - SHOWN).to_string(), " more lines\n"]);
    }
    shown
}

fn short(line: &str) -> String {
    let line = printable(line);
    let length = line.chars().count();
    if length <= LINE {
        return line;
    }
    let start: String = line.chars().take(LINE).collect();
    format!("{start}… {} more characters", length - LINE)
}

/// An object as YAML, without what the API server sets.
fn text(mut object: Value, is_new: bool) -> String {
    let is_service = object["kind"] == "Service";
    let Some(fields) = object.as_object_mut() else {
        return String::new();
    };
    fields.remove("status");
    if let Some(metadata) = map(fields, "metadata") {
        metadata.retain(|field, _| !OF_SERVER.contains(&field.as_str()));
        if let Some(annotations) = map(metadata, "annotations") {
            // This annotation has a copy of the object. The copy of a Secret would show its values.
            annotations.remove(LAST_APPLIED);
        }
        let owners = metadata.get_mut("ownerReferences");
        let owners = owners.and_then(Value::as_array_mut).into_iter().flatten();
        // The API server gives a new Canary another uid at each dry run.
        for owner in owners.filter_map(Value::as_object_mut) {
            owner.remove("uid");
        }
        for empty in ["annotations", "labels"] {
            if metadata
                .get(empty)
                .is_some_and(|it| *it == Value::Object(Map::new()))
            {
                metadata.remove(empty);
            }
        }
    }
    if is_new
        && is_service
        && let Some(spec) = map(fields, "spec")
        && spec.get("clusterIP").is_some_and(|it| it != "None")
    {
        spec.retain(|field, _| !ADDRESSES.contains(&field.as_str()));
    }
    // A JSON value always has a text.
    serde_saphyr::to_string(&object).unwrap_or_default()
}

fn map<'a>(fields: &'a mut Map<String, Value>, field: &str) -> Option<&'a mut Map<String, Value>> {
    fields.get_mut(field)?.as_object_mut()
}

/// Replaces the values of Secrets by marks that show only which values differ.
fn hide_secrets(old: &mut Value, new: &mut Value) {
    if new["kind"] != "Secret" && old["kind"] != "Secret" {
        return;
    }
    for field in ["data", "stringData"] {
        let before = old.get(field).cloned().unwrap_or_default();
        let after = new.get(field).cloned().unwrap_or_default();
        hide(old, field, &after, "(hidden, before)");
        hide(new, field, &before, "(hidden, after)");
    }
}

fn hide(object: &mut Value, field: &str, other: &Value, differs: &str) {
    let Some(values) = object.get_mut(field) else {
        return;
    };
    let Some(values) = values.as_object_mut() else {
        *values = "(hidden)".into();
        return;
    };
    for (key, value) in values {
        let is_changed = other.get(key).is_some_and(|other| other != value);
        *value = if is_changed { differs } else { "(hidden)" }.into();
    }
}
