//! The intended differences from Flagger, listed in `departures.yaml`.

use std::{
    collections::BTreeSet,
    fs,
    sync::{Mutex, PoisonError},
};

use regex::Regex;
use serde::Deserialize;

use crate::scenario::folder;

/// All entries of `departures.yaml`.
pub struct Departures(Vec<Departure>);

/// One intended difference, for the scenarios and fields that match its globs.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Departure {
    /// The reason, written for a reader who knows Flagger but not this project.
    reason: String,
    scenarios: Vec<String>,
    fields: Vec<String>,
    /// Lines that match this pattern are ignored on both sides.
    lines: Option<String>,
    /// A pattern and its replacement, on both sides.
    swap: Option<(String, String)>,
    /// Whether to ignore how often a line repeats.
    #[serde(default)]
    counts: bool,
    /// Whether to ignore the order of the lines.
    #[serde(default)]
    order: bool,
    /// Whether to ignore the complete field.
    #[serde(default)]
    whole: bool,
    /// Whether the difference appears only in some runs. A run without it is then no failure.
    #[serde(default)]
    sometimes: bool,
    /// The globs that have matched a difference.
    #[serde(skip)]
    used: Mutex<BTreeSet<String>>,
}

impl Departures {
    #[cfg(test)]
    pub fn none() -> Self {
        Self(Vec::new())
    }

    pub fn read() -> Self {
        let text = fs::read_to_string(folder("departures.yaml")).unwrap();
        let all: Vec<Departure> = serde_saphyr::from_str(&text).unwrap();
        for departure in &all {
            departure.check();
        }
        Self(all)
    }

    /// Removes the intended differences from both sides of a field.
    pub fn explain(
        &self,
        scenario: &str,
        field: &str,
        flagger: &mut Vec<String>,
        here: &mut Vec<String>,
    ) {
        for departure in &self.0 {
            let of = |globs: &[String], name: &str| {
                globs.iter().find(|glob| matches(glob, name)).cloned()
            };
            let (Some(a), Some(b)) = (
                of(&departure.scenarios, scenario),
                of(&departure.fields, field),
            ) else {
                continue;
            };
            let before = (flagger.clone(), here.clone());
            departure.forgive(flagger);
            departure.forgive(here);
            if before.0 != before.1 && (before.0 != *flagger || before.1 != *here) {
                let mut used = departure
                    .used
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                used.insert(format!("scenario {a}"));
                used.insert(format!("field {b}"));
            }
        }
    }

    /// Returns a text for each departure with a glob that matched no difference in a run of all scenarios.
    pub fn stale(&self) -> Vec<String> {
        self.0.iter().filter_map(Departure::stale).collect()
    }
}

impl Departure {
    fn check(&self) {
        let forgives = [
            self.lines.is_some(),
            self.swap.is_some(),
            self.counts,
            self.order,
            self.whole,
        ];
        assert!(
            forgives.contains(&true),
            "a departure that forgives nothing: {}",
            self.reason
        );
        assert!(
            !self.whole || forgives.iter().filter(|set| **set).count() == 1,
            "`whole` and more: {}",
            self.reason
        );
        assert!(
            self.reason.split(' ').count() > 4,
            "no reason: {}",
            self.reason
        );
    }

    fn forgive(&self, lines: &mut Vec<String>) {
        if self.whole {
            lines.clear();
        }
        if let Some(pattern) = &self.lines {
            let pattern = Regex::new(pattern).unwrap();
            lines.retain(|line| !pattern.is_match(line));
        }
        if let Some((pattern, with)) = &self.swap {
            let pattern = Regex::new(pattern).unwrap();
            for line in &mut *lines {
                *line = pattern.replace_all(line, with).into_owned();
            }
        }
        if self.counts {
            let count = Regex::new(r" (×\d+|\(count \d+\))$").unwrap();
            for line in &mut *lines {
                *line = count.replace(line, "").into_owned();
            }
        }
        if self.order {
            lines.sort();
        }
        if self.counts {
            lines.dedup();
        }
    }

    fn stale(&self) -> Option<String> {
        let used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let scenarios = self.scenarios.iter().map(|glob| format!("scenario {glob}"));
        let fields = self.fields.iter().map(|glob| format!("field {glob}"));
        let unused: Vec<_> = scenarios
            .chain(fields)
            .filter(|glob| !used.contains(glob))
            .collect();
        (!unused.is_empty() && !self.sometimes).then(|| {
            format!(
                "a departure met no difference in {}: {}",
                unused.join(", "),
                self.reason
            )
        })
    }
}

/// Whether a name matches a glob: `*` is any text, `?` any character, `[ab]` one of these.
pub fn matches(glob: &str, name: &str) -> bool {
    let mut pattern = "^".to_owned();
    for c in glob.trim().chars() {
        match c {
            '*' => pattern += ".*",
            '?' => pattern.push('.'),
            '[' | ']' => pattern.push(c),
            other => pattern += &regex::escape(&other.to_string()),
        }
    }
    Regex::new(&(pattern + "$")).unwrap().is_match(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs() {
        assert!(matches("checks-[bl]*", "checks-legacy"));
        assert!(!matches("checks-[bl]*", "checks-alerts"));
        assert!(matches("*/status", "release 3.1.1/status"));
        assert!(!matches("*/status", "x/status/y"));
    }

    #[test]
    fn a_departure_explains_only_matching_differences_and_is_stale_without_any() {
        let departure = |text: &str| Departures(vec![serde_saphyr::from_str(text).unwrap()]);
        let lines = |lines: &[&str]| {
            lines
                .iter()
                .map(|line| (*line).to_owned())
                .collect::<Vec<_>>()
        };
        let one = departure("{reason: r, scenarios: ['a*'], fields: ['*/x'], lines: '^b'}");
        let (mut flagger, mut here) = (lines(&["a", "b"]), lines(&["a"]));
        one.explain("other", "s/x", &mut flagger, &mut here);
        assert_ne!(flagger, here);
        one.explain("ab", "s/y", &mut flagger, &mut here);
        assert_ne!(flagger, here);
        assert_eq!(one.stale().len(), 1);
        one.explain("ab", "s/x", &mut flagger, &mut here);
        assert_eq!(flagger, here);
        assert_eq!(one.stale().len(), 0);
        let same = departure("{reason: r, scenarios: ['*'], fields: ['*'], counts: true}");
        let (mut flagger, mut here) = (lines(&["a ×2"]), lines(&["a ×2"]));
        same.explain("a", "s/x", &mut flagger, &mut here);
        assert_eq!(same.stale().len(), 1);
    }
}
