//! Checks an object by the schema of its CRD, as the API server does. Fields that the API server drops silently are errors here.

use regex::Regex;
use serde_json::{Map, Value};

use super::finding::{Found, Level, kind};

/// The schema of an object's kind; `None` if the kind is not one of ours.
pub fn of<'a>(crds: &'a [Value], object: &Value) -> Option<&'a Value> {
    let version = object["apiVersion"].as_str()?;
    let crd = crds.iter().find(|crd| {
        let spec = &crd["spec"];
        let group = spec["group"].as_str().unwrap_or_default();
        spec["names"]["kind"] == kind(object)
            && version
                == format!(
                    "{group}/{}",
                    spec["versions"][0]["name"].as_str().unwrap_or_default()
                )
    })?;
    crd.pointer("/spec/versions/0/schema/openAPIV3Schema")
}

/// The error of an object that has one of our API groups, but an unknown kind or version.
pub fn unknown_kind(crds: &[Value], object: &Value) -> Option<Found> {
    let version = object["apiVersion"].as_str()?;
    let group = version.split('/').next();
    let ours = crds
        .iter()
        .filter(|crd| crd["spec"]["group"].as_str() == group);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let known = ours.map(|crd| {
        let spec = &crd["spec"];
        let version = text(&spec["versions"][0]["name"]);
        format!(
            "{} of {}/{version}",
            text(&spec["names"]["kind"]),
            text(&spec["group"])
        )
    });
    let known: Vec<_> = known.collect();
    let kind = kind(object);
    let message = format!(
        "{kind} of {version} is not known; there are {}",
        known.join(", ")
    );
    (!known.is_empty()).then(|| (Level::Error, "apiVersion".to_owned(), message))
}

/// The fields that do not fit the schema.
pub fn violations(schema: &Value, object: &Value) -> Vec<Found> {
    let mut found = Vec::new();
    // Metadata has a schema of its own, and the user does not write the status.
    let spec = (&schema["properties"]["spec"], object.get("spec"));
    match spec {
        (schema, Some(spec)) => check(schema, spec, "spec", &mut found),
        (_, None) => found.push((Level::Error, "spec".to_owned(), "is missing".to_owned())),
    }
    let known = ["apiVersion", "kind", "metadata", "spec", "status"];
    let fields = object.as_object().into_iter().flatten();
    for (field, _) in fields.filter(|(field, _)| !known.contains(&field.as_str())) {
        found.push(unknown(field, field, known.into_iter()));
    }
    found
}

fn check(schema: &Value, value: &Value, at: &str, found: &mut Vec<Found>) {
    if value.is_null()
        || schema["x-kubernetes-int-or-string"] == true && (value.is_i64() || value.is_string())
    {
        return;
    }
    let expected = schema["type"].as_str().unwrap_or_default();
    let fits = match (expected, value) {
        ("object", Value::Object(fields)) => {
            object(schema, fields, at, found);
            true
        }
        ("array", Value::Array(items)) => {
            array(schema, items, at, found);
            true
        }
        ("string", Value::String(text)) => {
            string(schema, text, at, found);
            true
        }
        ("integer", number) => number.is_i64() || number.is_u64(),
        ("number", number) => number.is_number(),
        ("boolean", Value::Bool(_)) | ("", _) => true,
        _ => false,
    };
    let mut error = |message: String| found.push((Level::Error, at.to_owned(), message));
    if !fits {
        let hint = if expected == "string" {
            ": put it in quotes"
        } else {
            ""
        };
        error(format!(
            "must be of the type {expected}, but is {value}{hint}"
        ));
    }
    let limit = |name: &str| Some((schema[name].as_f64()?, value.as_f64()?));
    if let Some((least, _)) = limit("minimum").filter(|(least, value)| value < least) {
        error(format!("must be at least {least}, but is {value}"));
    }
    if let Some((most, _)) = limit("maximum").filter(|(most, value)| value > most) {
        error(format!("must be at most {most}, but is {value}"));
    }
}

fn object(schema: &Value, fields: &Map<String, Value>, at: &str, found: &mut Vec<Found>) {
    let known = schema["properties"].as_object();
    for (name, value) in fields {
        let path = format!("{at}.{name}");
        let own = known.and_then(|known| known.get(name));
        let any = Some(&schema["additionalProperties"]).filter(|any| any.is_object());
        match own.or(any) {
            Some(schema) => check(schema, value, &path, found),
            None if schema["x-kubernetes-preserve-unknown-fields"] == true || known.is_none() => {}
            None => {
                let names = known.into_iter().flatten().map(|(name, _)| name.as_str());
                found.push(unknown(&path, name, names));
            }
        }
    }
    let required = schema["required"].as_array().into_iter().flatten();
    for name in required
        .filter_map(Value::as_str)
        .filter(|name| fields.get(*name).is_none_or(Value::is_null))
    {
        found.push((
            Level::Error,
            format!("{at}.{name}"),
            "is missing".to_owned(),
        ));
    }
}

fn array(schema: &Value, items: &[Value], at: &str, found: &mut Vec<Found>) {
    if let Some(most) = schema["maxItems"]
        .as_u64()
        .filter(|most| items.len() as u64 > *most)
    {
        let message = format!(
            "has {} entries, but at most {most} are supported",
            items.len()
        );
        found.push((Level::Error, at.to_owned(), message));
    }
    for (position, item) in items.iter().enumerate() {
        check(&schema["items"], item, &format!("{at}[{position}]"), found);
    }
}

fn string(schema: &Value, text: &str, at: &str, found: &mut Vec<Found>) {
    let mut error = |message: String| found.push((Level::Error, at.to_owned(), message));
    let values: Vec<_> = schema["enum"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    if !values.is_empty() && !values.contains(&text) {
        let values: Vec<_> = values
            .into_iter()
            .filter(|value| !value.is_empty())
            .collect();
        error(format!("{text:?} is not one of {}", values.join(", ")));
    }
    let pattern = schema["pattern"]
        .as_str()
        .and_then(|pattern| Regex::new(pattern).ok());
    if let Some(pattern) = pattern.filter(|pattern| !pattern.is_match(text)) {
        error(format!("{text:?} does not match {pattern}"));
    }
}

/// The error of a field that the API server drops silently.
fn unknown<'a>(at: &str, name: &str, known: impl Iterator<Item = &'a str>) -> Found {
    let nearest = known.map(|known| (distance(name, known), known)).min();
    let hint = match nearest {
        Some((distance, known)) if distance <= 3 => format!("; is it {known}?"),
        _ => String::new(),
    };
    let message = format!("is no field of this kind, and would be dropped{hint}");
    (Level::Error, at.to_owned(), message)
}

/// The number of letters to change, add or remove.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<_> = b.to_lowercase().chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.to_lowercase().chars().enumerate() {
        let mut before = i;
        row[0] = i + 1;
        for (j, right) in b.iter().enumerate() {
            let change = before + usize::from(left != *right);
            before = row[j + 1];
            row[j + 1] = change.min(before + 1).min(row[j] + 1);
        }
    }
    row.last().copied().unwrap_or_default()
}
