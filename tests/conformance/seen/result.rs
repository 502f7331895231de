//! Builds the finished recording of a scenario.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{STREAMS, Seen, Snapshot, State};
use crate::mask::Masks;

/// The streams whose lines have a resourceVersion. Several watches report them, so they are sorted by it.
const VERSIONED: [&str; 5] = ["status", "routes", "workloads", "timeline", "events"];

impl Seen {
    /// Records all objects as they are now.
    pub fn snapshot(&self, at: &str) {
        let mut state = self.state();
        let objects = state.objects.clone();
        state.snapshots.push(Snapshot {
            at: at.to_owned(),
            objects,
        });
    }

    pub fn has_snapshot(&self, at: &str) -> bool {
        self.state()
            .snapshots
            .last()
            .is_some_and(|last| last.at == at)
    }

    /// Returns the recording in the format of Flagger's recordings.
    pub fn result(&self, scenario: &str, does: &str) -> Value {
        let state = self.state();
        let fix = |text: &str| state.fixed(&self.masks, text);
        let steps: Vec<_> = (0..state.steps.len())
            .map(|step| state.step(step, &fix))
            .collect();
        let shapes: BTreeMap<_, BTreeMap<String, Value>> = state
            .shapes
            .iter()
            .map(|(key, shapes)| {
                let numbered = shapes.iter().enumerate();
                let numbered =
                    numbered.map(|(n, shape)| ((n + 1).to_string(), fixed_value(shape, &fix)));
                (key.clone(), numbered.collect())
            })
            .collect();
        json!({"scenario": scenario, "does": does, "steps": steps, "shapes": shapes, "objects": state.differences(&fix)})
    }
}

impl State {
    /// Masks random cookies in a line. Their values are known only at the end.
    fn fixed(&self, masks: &Masks, text: &str) -> String {
        let mut text = masks.line(text);
        for (number, cookie) in self
            .cookies
            .iter()
            .enumerate()
            .filter(|(_, cookie)| cookie.len() >= 6)
        {
            text = text.replace(cookie, &format!("<rand{}>", number + 1));
        }
        text
    }

    fn step(&self, step: usize, fix: &impl Fn(&str) -> String) -> Value {
        let mut result = json!({"step": self.steps[step]});
        for stream in STREAMS {
            let mut lines: Vec<_> = self
                .lines
                .iter()
                .filter(|line| line.step == step && line.stream == stream)
                .collect();
            if VERSIONED.contains(&stream) {
                lines.sort_by_key(|line| line.version);
            }
            let lines = lines.iter().map(|line| fix(&line.text)).collect();
            let lines = folded(calm(lines));
            if !lines.is_empty() {
                result[stream] = json!(lines);
            }
        }
        result
    }

    /// Returns, for each snapshot, the objects that changed since the snapshot before.
    fn differences(&self, fix: &impl Fn(&str) -> String) -> Vec<Value> {
        let (mut snapshots, mut before) = (Vec::new(), BTreeMap::new());
        for snapshot in &self.snapshots {
            let fixed = snapshot
                .objects
                .iter()
                .map(|(key, object)| (key.clone(), fixed_value(object, fix)));
            let now: BTreeMap<String, Value> = fixed.collect();
            let new: BTreeMap<_, _> = now
                .iter()
                .filter(|(key, object)| before.get(*key) != Some(*object))
                .collect();
            let gone: Vec<_> = before
                .keys()
                .filter(|key| !now.contains_key(*key))
                .collect();
            snapshots.push(json!({"at": snapshot.at, "gone": gone, "objects": new}));
            before = now;
        }
        snapshots
    }
}

fn fixed_value(value: &Value, fix: &impl Fn(&str) -> String) -> Value {
    serde_json::from_str(&fix(&value.to_string())).unwrap()
}

/// Sorts neighbouring lines whose order is not fixed: copies of configs, which Flagger writes in any order, and deletions by the garbage
/// collector.
fn calm(mut lines: Vec<String>) -> Vec<String> {
    let kind = |line: &String| {
        let words: Vec<_> = line
            .strip_prefix("route ")
            .unwrap_or(line)
            .split(' ')
            .collect();
        let is_config = line.starts_with("ConfigMap/") || line.starts_with("Secret/");
        if is_config && words[0].ends_with("-primary") && words[1].starts_with("data=") {
            1
        } else if words.len() == 2 && words[1] == "deleted" && line.contains('/') {
            2
        } else {
            0
        }
    };
    for neighbours in lines.chunk_by_mut(|a, b| kind(a) != 0 && kind(a) == kind(b)) {
        neighbours.sort();
    }
    lines
}

/// Joins equal neighbouring lines into one, with their number.
fn folded(lines: Vec<String>) -> Vec<String> {
    let same = lines.chunk_by(|a, b| a == b);
    let fold = |lines: &[String]| match lines.len() {
        1 => lines[0].clone(),
        n => format!("{} ×{n}", lines[0]),
    };
    same.map(fold).collect()
}
