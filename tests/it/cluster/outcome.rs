//! The result of a scenario.

use std::fmt::Display;

pub type Outcome = Result<(), String>;

pub fn text(error: impl Display) -> String {
    error.to_string()
}

/// Fails unless both are equal, line by line.
pub fn equal(what: &str, seen: &[String], expected: &[&str]) -> Outcome {
    if seen.iter().map(String::as_str).eq(expected.iter().copied()) {
        return Ok(());
    }
    Err(format!(
        "{what}: seen\n    {}\n  expected\n    {}",
        seen.join("\n    "),
        expected.join("\n    ")
    ))
}

pub fn ensure(holds: bool, why: impl Display) -> Outcome {
    if holds { Ok(()) } else { Err(why.to_string()) }
}
