//! Compares the expected with the observed values.

use serde_json::json;

use super::say;

/// One comparison.
pub struct Check {
    what: String,
    expected: String,
    observed: String,
}

impl Check {
    pub fn new(what: &str, expected: &str, observed: &str) -> Self {
        Self {
            what: what.to_owned(),
            expected: expected.to_owned(),
            observed: observed.to_owned(),
        }
    }

    fn passed(&self) -> bool {
        self.expected == self.observed
    }
}

/// Prints all comparisons, and their count as JSON. Returns whether all of them agree.
pub fn print(checks: &[Check]) -> bool {
    say("Expected against observed");
    for check in checks {
        let Check {
            what,
            expected,
            observed,
        } = check;
        if check.passed() {
            println!("  ok     {what}");
        } else {
            println!(
                "  DIFFERS  {what}\n    expected\n      {}\n    observed\n      {}",
                expected.replace('\n', "\n      "),
                observed.replace('\n', "\n      ")
            );
        }
    }
    let passed = checks.iter().filter(|check| check.passed()).count();
    println!(
        "{}",
        json!({"expected": checks.len(), "as_expected": passed})
    );
    passed == checks.len()
}
