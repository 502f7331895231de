//! The expected runs: a file for each scenario in `expected`, which `UPDATE_EXPECTED=1` writes. It has the length of the undisturbed run,
//! its messages in order, and its outcome.

use std::{fmt::Write, path::PathBuf};

use super::{
    super::scenario::Scenario,
    run::{Run, run},
};

/// The difference in length that the start of the clock between two milliseconds makes.
const ROUNDING: u64 = 1;

#[test]
fn each_undisturbed_release_is_as_expected() {
    let mut wrong = Vec::new();
    for scenario in super::scenarios() {
        let (path, run) = (path(scenario), run(scenario, &[]));
        let seen = text(&run);
        if std::env::var_os("UPDATE_EXPECTED").is_some() {
            std::fs::write(&path, &seen).unwrap();
        }
        let expected = std::fs::read_to_string(&path).unwrap_or_default();
        if let Some(what) = difference(&expected, &seen) {
            wrong.push(format!(
                "{scenario:?} differs from {} (UPDATE_EXPECTED=1 accepts it):\n{what}",
                path.display()
            ));
            if std::env::var_os("SWEEP_TRANSCRIPT").is_some() {
                wrong.push(run.transcript);
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn path(scenario: Scenario) -> PathBuf {
    let mut name = String::new();
    for letter in format!("{scenario:?}").chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('-');
        }
        name.push(match letter {
            '(' | ':' => '-',
            letter => letter.to_ascii_lowercase(),
        });
    }
    name.retain(|letter| letter.is_alphanumeric() || letter == '-');
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/model/expected");
    PathBuf::from(folder).join(name).with_extension("txt")
}

/// The file of a run.
fn text(run: &Run) -> String {
    let mut text = format!("{} seconds\n\n", run.length.as_millis().div_ceil(1000));
    let mut messages = run.messages.iter().peekable();
    while let Some(message) = messages.next() {
        let mut times = 1;
        while messages.next_if_eq(&message).is_some() {
            times += 1;
        }
        let times = match times {
            1 => String::new(),
            times => format!("  ({times} times)"),
        };
        writeln!(text, "{message}{times}").unwrap();
    }
    let outcome = serde_json::to_string_pretty(&run.outcome).unwrap();
    text + "\n" + &outcome + "\n"
}

/// The lines that differ; `None` if none do. The length may differ by its rounding.
fn difference(expected: &str, seen: &str) -> Option<String> {
    let split = |text: &str| {
        let (length, rest) = text.split_once(" seconds\n").unwrap_or_default();
        (length.parse::<u64>().unwrap_or(0), rest.to_owned())
    };
    let ((length, expected), (took, seen)) = (split(expected), split(seen));
    let mut wrong = String::new();
    if length.abs_diff(took) > ROUNDING {
        writeln!(wrong, "    takes {took} s, not {length} s").unwrap();
    }
    let (expected, seen): (Vec<_>, Vec<_>) = (expected.lines().collect(), seen.lines().collect());
    let same = |(a, b): &(&&str, &&str)| a == b;
    let start = { expected.iter().zip(&seen) }.take_while(same).count();
    let (expected, seen) = (&expected[start..], &seen[start..]);
    let end = { expected.iter().rev().zip(seen.iter().rev()) }
        .take_while(same)
        .count();
    for line in &expected[..expected.len() - end] {
        writeln!(wrong, "    - {line}").unwrap();
    }
    for line in &seen[..seen.len() - end] {
        writeln!(wrong, "    + {line}").unwrap();
    }
    (!wrong.is_empty()).then_some(wrong)
}
