//! `flagger lint`: checks manifests without a cluster. Pure: `shell/client/lint.rs` reads the files.
//!
//! | question | place |
//! | --- | --- |
//! | Would the API server accept and keep each field? | `schema.rs`, by the CRDs of this version |
//! | Would the operator run the Canary? | the operator's own validation, which the caller passes |
//! | Do two objects conflict? | `pairs.rs` |
//! | Are there fields that probably do not do what the author of the Canary wants? | `meaning.rs` |

mod finding;
mod meaning;
mod pairs;
mod schema;
#[cfg(test)]
mod tests;

use serde_json::Value;

pub use finding::{Finding, Level};
use finding::{Found, kind, name};

use crate::api::{self, canary::Canary};

/// The findings about the manifests in some files.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The findings, in the order of the files.
    pub findings: Vec<Finding>,
    /// The number of Canaries, MetricTemplates and AlertProviders.
    pub objects: usize,
}

impl Report {
    /// The number of findings of a level.
    pub fn count(&self, level: Level) -> usize {
        let findings = self.findings.iter();
        findings.filter(|finding| finding.level == level).count()
    }
}

/// Checks the manifests of these files, by their names and texts. `refusal` is the operator's own validation of a Canary.
pub fn lint<'a>(
    files: impl IntoIterator<Item = (&'a str, &'a str)>,
    refusal: &dyn Fn(&Canary) -> Option<String>,
) -> Report {
    let mut report = Report::default();
    let mut objects = Vec::new();
    for (file, text) in files {
        match manifests(text) {
            Ok(of_file) => objects.extend(of_file.into_iter().map(|object| (file, object))),
            Err(message) => report.findings.push(Finding {
                file: file.to_owned(),
                object: String::new(),
                level: Level::Error,
                field: String::new(),
                message,
            }),
        }
    }
    let templates = meaning::Templates::of(objects.iter().map(|(_, object)| object));
    let crds = api::crds();
    for (place, (file, object)) in objects.iter().enumerate() {
        let mut found = match (
            schema::of(&crds, object),
            schema::unknown_kind(&crds, object),
        ) {
            (Some(schema), _) => schema::violations(schema, object),
            (None, Some(unknown)) => vec![unknown],
            (None, None) => continue,
        };
        report.objects += 1;
        if kind(object) == "Canary" && schema::of(&crds, object).is_some() {
            found = with_meaning(found, object, &templates, refusal);
        }
        if schema::of(&crds, object).is_some() {
            found.extend(pairs::with_earlier(object, &objects[..place]));
        }
        let name = name(object);
        let finding = |(level, field, message)| Finding {
            file: (*file).to_owned(),
            object: name.clone(),
            level,
            field,
            message,
        };
        report.findings.extend(found.into_iter().map(finding));
    }
    if report.objects == 0 && report.findings.is_empty() {
        report.findings.push(Finding {
            file: String::new(),
            object: String::new(),
            level: Level::Warning,
            field: String::new(),
            message: "no Canary, MetricTemplate or AlertProvider is in these files".to_owned(),
        });
    }
    report
}

/// The objects in a text of YAML: of each document, and of each list all its items.
///
/// # Errors
/// The text is no YAML.
pub fn manifests(text: &str) -> Result<Vec<Value>, String> {
    let documents = serde_saphyr::from_multiple::<Value>(text);
    let documents =
        documents.map_err(|error| format!("is no YAML: {}", first_line(&error.to_string())))?;
    Ok(documents.into_iter().flat_map(items).collect())
}

/// The findings of the schema, and those about the meaning of a Canary. About one field, the schema's finding is enough.
fn with_meaning(
    mut found: Vec<Found>,
    object: &Value,
    templates: &meaning::Templates,
    refusal: &dyn Fn(&Canary) -> Option<String>,
) -> Vec<Found> {
    let meant = canary(object, templates, refusal, found.is_empty());
    let reported: Vec<_> = found.iter().map(|(_, field, _)| field.clone()).collect();
    let is_new = |(_, field, _): &Found| field.is_empty() || !reported.contains(field);
    found.extend(meant.into_iter().filter(is_new));
    found
}

/// The findings about a Canary. Its meaning is checked only if its fields can be read.
fn canary(
    object: &Value,
    templates: &meaning::Templates,
    refusal: &dyn Fn(&Canary) -> Option<String>,
    fits_schema: bool,
) -> Vec<Found> {
    let canary: Canary = match serde_json::from_value(object.clone()) {
        Ok(canary) => canary,
        // The schema has reported the same error, with the name of the field.
        Err(_) if !fits_schema => return Vec::new(),
        Err(error) => return vec![(Level::Error, String::new(), error.to_string())],
    };
    let refused = refusal(&canary).map(|why| (Level::Error, String::new(), why));
    refused
        .into_iter()
        .chain(meaning::findings(&canary, templates))
        .collect()
}

/// The objects of a document; for a list, its items.
fn items(document: Value) -> Vec<Value> {
    match document.get("items").and_then(Value::as_array) {
        Some(items) if kind(&document).ends_with("List") => items.clone(),
        _ => vec![document],
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}
