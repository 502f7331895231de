//! Compares a recording of Flagger with one of this operator.

use std::fmt::Write;

use serde_json::Value;

use crate::{
    departures::Departures,
    transcript::{Field, fields},
};

/// The most lines of a field that are shown.
const SHOWN: usize = 12;

/// Returns a readable text of the differences that no departure explains; `None` if there are none.
pub fn differences(
    scenario: &str,
    flagger: &Value,
    here: &Value,
    departures: &Departures,
) -> Option<String> {
    let mut text = String::new();
    for (name, mut theirs, mut ours) in pairs(fields(flagger), fields(here)) {
        departures.explain(scenario, &name, &mut theirs, &mut ours);
        if theirs != ours {
            let _ = write!(text, "\n  {name}{}", difference(&theirs, &ours));
        }
    }
    let does = flagger["does"].as_str().unwrap_or_default();
    if here["does"] != flagger["does"] {
        let _ = write!(
            text,
            "\n  it is said to do something else than what was recorded"
        );
    }
    (!text.is_empty()).then(|| format!("{scenario}: {does}{text}"))
}

/// Pairs the fields of both recordings. If one of them lacks a field, it has no lines for that field.
fn pairs(flagger: Vec<Field>, mut here: Vec<Field>) -> Vec<(String, Vec<String>, Vec<String>)> {
    let mut pairs = Vec::new();
    for field in flagger {
        let same =
            |other: &Field| (&other.name, other.occurrence) == (&field.name, field.occurrence);
        let ours = here.iter().position(same).map(|at| here.remove(at).lines);
        pairs.push((field.name, field.lines, ours.unwrap_or_default()));
    }
    let ours = here
        .into_iter()
        .map(|field| (field.name, Vec::new(), field.lines));
    pairs.into_iter().chain(ours).collect()
}

fn difference(flagger: &[String], here: &[String]) -> String {
    let lines = edits(flagger, here);
    let mut text = String::new();
    for (who, line) in lines.iter().take(SHOWN) {
        let _ = write!(text, "\n    {who} {line}");
    }
    if lines.len() > SHOWN {
        let _ = write!(text, "\n    … and {} lines more", lines.len() - SHOWN);
    }
    text
}

/// Returns the lines that only one side has, in order: those outside the longest common subsequence.
fn edits<'a>(flagger: &'a [String], here: &'a [String]) -> Vec<(&'static str, &'a str)> {
    let mut common = vec![vec![0_usize; here.len() + 1]; flagger.len() + 1];
    for (i, a) in flagger.iter().enumerate().rev() {
        for (j, b) in here.iter().enumerate().rev() {
            common[i][j] = if a == b {
                common[i + 1][j + 1] + 1
            } else {
                common[i + 1][j].max(common[i][j + 1])
            };
        }
    }
    let (mut i, mut j, mut edits) = (0, 0, Vec::new());
    while i < flagger.len() || j < here.len() {
        if i < flagger.len() && j < here.len() && flagger[i] == here[j] {
            (i, j) = (i + 1, j + 1);
        } else if j == here.len() || i < flagger.len() && common[i + 1][j] >= common[i][j + 1] {
            edits.push(("Flagger ", flagger[i].as_str()));
            i += 1;
        } else {
            edits.push(("here    ", here[j].as_str()));
            j += 1;
        }
    }
    edits
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn recording(lines: &[&str]) -> Value {
        json!({"does": "It.", "steps": [{"step": "one", "status": lines}, {"step": "one", "status": ["last"]}], "shapes": {}, "objects": []})
    }

    #[test]
    fn a_difference_is_shown_line_by_line() {
        let departures = Departures::none();
        let flagger = recording(&["a", "b", "c"]);
        assert_eq!(differences("s", &flagger, &flagger, &departures), None);
        let text = differences("s", &flagger, &recording(&["a", "x", "c"]), &departures).unwrap();
        assert_eq!(text, "s: It.\n  one/status\n    Flagger  b\n    here     x");
        let empty = json!({"does": "It.", "steps": [], "shapes": {}, "objects": []});
        let text = differences("s", &flagger, &empty, &departures).unwrap();
        assert_eq!(text.matches("one/status").count(), 2);
    }
}
