//! Reads the recordings of Flagger, and writes those of this operator.

use std::{collections::BTreeSet, env, fs, path::PathBuf};

use serde_json::Value;

use crate::scenario::folder;

/// Returns the names of the scenarios that have a recording of Flagger.
pub fn recorded() -> BTreeSet<String> {
    let files = fs::read_dir(folder("golden")).unwrap();
    let stem = |path: PathBuf| path.file_stem().unwrap().display().to_string();
    files.map(|file| stem(file.unwrap().path())).collect()
}

/// Reads the recording of Flagger.
pub fn golden(scenario: &str) -> Value {
    let path = folder("golden").join(format!("{scenario}.json"));
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// Returns the folder for the recordings of this operator.
pub fn out() -> PathBuf {
    let usual = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/conformance");
    env::var_os("CONFORMANCE_OUT").map_or_else(usual, PathBuf::from)
}

/// Writes a recording of this operator.
pub fn write(scenario: &str, seen: &Value) {
    fs::create_dir_all(out()).unwrap();
    let text = serde_json::to_string_pretty(seen).unwrap();
    fs::write(out().join(format!("{scenario}.json")), text).unwrap();
}

/// One comparable part of a recording.
pub struct Field {
    /// `STEP/STREAM`, `shapes/KIND/NAME`, or `objects/AT/KIND/NAME`.
    pub name: String,
    /// The number of earlier fields of this name: a step or a snapshot may occur more than once.
    pub occurrence: usize,
    pub lines: Vec<String>,
}

/// Splits a recording into its fields.
pub fn fields(of: &Value) -> Vec<Field> {
    let mut fields = Vec::new();
    let mut add = |name: String, lines: Vec<String>| {
        let occurrence = fields
            .iter()
            .filter(|field: &&Field| field.name == name)
            .count();
        fields.push(Field {
            name,
            occurrence,
            lines,
        });
    };
    for step in of["steps"].as_array().unwrap() {
        let name = step["step"].as_str().unwrap();
        for (stream, seen) in step
            .as_object()
            .unwrap()
            .iter()
            .filter(|(key, _)| *key != "step")
        {
            add(format!("{name}/{stream}"), lines(seen));
        }
    }
    for (key, shapes) in of["shapes"].as_object().unwrap() {
        let mut numbered: Vec<_> = shapes.as_object().unwrap().iter().collect();
        numbered.sort_by_key(|(number, _)| number.parse::<u32>().unwrap());
        let flat = numbered.into_iter().flat_map(|(number, shape)| {
            let mut lines = vec![format!("— shape {number}")];
            flatten(shape, "", &mut lines);
            lines
        });
        add(format!("shapes/{key}"), flat.collect());
    }
    for snapshot in of["objects"].as_array().unwrap() {
        let at = snapshot["at"].as_str().unwrap();
        for (key, object) in snapshot["objects"].as_object().unwrap() {
            let mut lines = Vec::new();
            flatten(object, "", &mut lines);
            add(format!("objects/{at}/{key}"), lines);
        }
        let gone = lines(&snapshot["gone"]);
        if !gone.is_empty() {
            add(format!("objects/{at}/gone"), gone);
        }
    }
    fields
}

fn lines(of: &Value) -> Vec<String> {
    let lines = of.as_array().into_iter().flatten();
    lines
        .map(|line| line.as_str().unwrap().to_owned())
        .collect()
}

/// Adds a line for each value of an object: `spec.replicas = 1`.
fn flatten(value: &Value, path: &str, lines: &mut Vec<String>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (key, value) in fields {
                let path = if path.is_empty() {
                    key.clone()
                } else {
                    format!("{path}.{key}")
                };
                flatten(value, &path, lines);
            }
        }
        Value::Array(values) if !values.is_empty() => {
            for (index, value) in values.iter().enumerate() {
                flatten(value, &format!("{path}[{index}]"), lines);
            }
        }
        other => lines.push(format!("{path} = {other}")),
    }
}
