//! Files of the repository that several test targets read: where they are, and the Canaries among the examples.

#![allow(dead_code, reason = "no test target uses all of it")]

use std::path::{Path, PathBuf};

use serde_json::Value;

/// A path in the repository.
pub fn path(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(relative)
}

/// The objects of a YAML file, without empty documents.
pub fn objects(file: &Path) -> Vec<Value> {
    documents(&std::fs::read_to_string(file).unwrap())
}

/// The objects of a YAML text, without empty documents.
pub fn documents(text: &str) -> Vec<Value> {
    let documents = text.split("\n---\n").map(|document| {
        serde_saphyr::from_str(document).unwrap_or_else(|error| panic!("{error}\n{document}"))
    });
    documents
        .filter(|document: &Value| !document.is_null())
        .collect()
}

/// The objects of each file of a folder.
pub fn folder(relative: &str) -> Vec<Vec<Value>> {
    let files = std::fs::read_dir(path(relative)).unwrap();
    files.map(|file| objects(&file.unwrap().path())).collect()
}

/// The Canaries that the examples show to users.
pub fn example_canaries() -> Vec<Value> {
    let files = ["examples/canaries", "examples/walkthrough"].map(folder);
    let objects = files.into_iter().flatten().flatten();
    let canaries: Vec<_> = objects
        .filter(|object| object["kind"] == "Canary")
        .collect();
    assert!(canaries.len() > 5);
    canaries
}

/// All objects of the examples of metric templates and alert providers.
pub fn example_templates_and_alerts() -> impl Iterator<Item = Value> {
    ["examples/metrics", "examples/alerts"]
        .into_iter()
        .flat_map(folder)
        .flatten()
}
