//! The intended differences from Flagger, listed in `departures.yaml`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    sync::{Mutex, MutexGuard, PoisonError},
};

use regex::Regex;
use serde::Deserialize;

use crate::scenario::folder;

/// All entries of `departures.yaml`, and the fields that were compared.
pub struct Departures {
    all: Vec<Departure>,
    compared: Mutex<Vec<Comparison>>,
}

/// A field of a scenario whose two sides differed.
struct Comparison {
    scenario: String,
    field: String,
    flagger: Vec<String>,
    here: Vec<String>,
}

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
    /// The names that each glob has matched where the departure explained a difference.
    #[serde(skip)]
    used: Mutex<BTreeMap<String, BTreeSet<String>>>,
}

impl Departures {
    pub fn none() -> Self {
        Self::of(Vec::new())
    }

    pub fn read() -> Self {
        let text = fs::read_to_string(folder("departures.yaml")).unwrap();
        let all: Vec<Departure> = serde_saphyr::from_str(&text).unwrap();
        for departure in &all {
            departure.check();
        }
        Self::of(all)
    }

    fn of(all: Vec<Departure>) -> Self {
        Self {
            all,
            compared: Mutex::default(),
        }
    }

    /// Removes the intended differences from both sides of a field.
    pub fn explain(
        &self,
        scenario: &str,
        field: &str,
        flagger: &mut Vec<String>,
        here: &mut Vec<String>,
    ) {
        if flagger == here {
            return;
        }
        lock(&self.compared).push(Comparison {
            scenario: scenario.to_owned(),
            field: field.to_owned(),
            flagger: flagger.clone(),
            here: here.clone(),
        });
        for departure in &self.all {
            let Some((of_scenario, of_field)) = departure.globs(scenario, field) else {
                continue;
            };
            let before = (flagger.clone(), here.clone());
            departure.forgive(flagger);
            departure.forgive(here);
            if before.0 != before.1 && (before.0 != *flagger || before.1 != *here) {
                let mut used = lock(&departure.used);
                for (glob, name) in [(of_scenario, scenario), (of_field, field)] {
                    used.entry(glob).or_default().insert(name.to_owned());
                }
            }
        }
    }

    /// Returns a text for each departure that is stale after a run of all scenarios: a glob of it matched no difference, a pattern of it
    /// matched only one name, or without it the run would have no other difference.
    pub fn stale(&self) -> Vec<String> {
        let globs = self.all.iter().filter_map(Departure::stale);
        let superfluous = (0..self.all.len()).filter_map(|n| self.superfluous(n));
        globs.chain(superfluous).collect()
    }

    /// Returns a text if all fields are equal without the `n`-th departure that are equal with it.
    fn superfluous(&self, n: usize) -> Option<String> {
        let without = &self.all[n];
        let is_equal = |comparison: &Comparison, skipped: Option<usize>| {
            let (mut flagger, mut here) = (comparison.flagger.clone(), comparison.here.clone());
            for (m, departure) in self.all.iter().enumerate() {
                let globs = departure.globs(&comparison.scenario, &comparison.field);
                if Some(m) != skipped && globs.is_some() {
                    departure.forgive(&mut flagger);
                    departure.forgive(&mut here);
                }
            }
            flagger == here
        };
        let compared = lock(&self.compared);
        let mut concerned = compared
            .iter()
            .filter(|it| without.globs(&it.scenario, &it.field).is_some());
        let is_needed = concerned.any(|it| is_equal(it, None) && !is_equal(it, Some(n)));
        (!is_needed && !without.sometimes).then(|| {
            let reason = &without.reason;
            format!("a departure is superfluous, because others explain the same: {reason}")
        })
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
            let pattern = regex(pattern);
            lines.retain(|line| !pattern.is_match(line));
        }
        if let Some((pattern, with)) = &self.swap {
            let pattern = regex(pattern);
            for line in &mut *lines {
                *line = pattern.replace_all(line, with).into_owned();
            }
        }
        if self.counts {
            let count = regex(r" (×\d+|\(count \d+\))$");
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

    /// The globs that match a scenario and a field; `None` if the departure does not concern them.
    fn globs(&self, scenario: &str, field: &str) -> Option<(String, String)> {
        let of =
            |globs: &[String], name: &str| globs.iter().find(|glob| matches(glob, name)).cloned();
        let scenario = of(&self.scenarios, scenario)?;
        let field = of(&self.fields, field)?;
        Some((format!("scenario {scenario}"), format!("field {field}")))
    }

    fn stale(&self) -> Option<String> {
        let used = lock(&self.used);
        let scenarios = self.scenarios.iter().map(|glob| format!("scenario {glob}"));
        let fields = self.fields.iter().map(|glob| format!("field {glob}"));
        let mut problems = Vec::new();
        for glob in scenarios.chain(fields) {
            let names: Vec<_> = used.get(&glob).into_iter().flatten().collect();
            match names.as_slice() {
                [] => problems.push(format!("met no difference in {glob}")),
                [name] if glob.contains(['*', '?', '[']) => {
                    problems.push(format!("is too broad: of {glob} it concerns only {name}"));
                }
                _ => {}
            }
        }
        (!problems.is_empty() && !self.sometimes)
            .then(|| format!("a departure {}: {}", problems.join(", and "), self.reason))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Compiles a pattern once: the same few are used for each of thousands of fields.
fn regex(pattern: &str) -> Regex {
    static COMPILED: Mutex<BTreeMap<String, Regex>> = Mutex::new(BTreeMap::new());
    let mut compiled = lock(&COMPILED);
    if let Some(known) = compiled.get(pattern) {
        return known.clone();
    }
    let new = Regex::new(pattern).unwrap();
    compiled.insert(pattern.to_owned(), new.clone());
    new
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
    regex(&(pattern + "$")).is_match(name)
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

    fn departures(texts: &[&str]) -> Departures {
        let all = texts
            .iter()
            .map(|text| serde_saphyr::from_str(text).unwrap());
        Departures::of(all.collect())
    }

    /// Returns whether a difference in a field is explained.
    fn explains(departures: &Departures, name: [&str; 2], flagger: &[&str], here: &[&str]) -> bool {
        let lines = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect();
        let (mut flagger, mut here): (Vec<String>, Vec<String>) = (lines(flagger), lines(here));
        departures.explain(name[0], name[1], &mut flagger, &mut here);
        flagger == here
    }

    #[test]
    fn a_departure_explains_only_matching_differences_and_is_stale_without_any() {
        let one = departures(&["{reason: r, scenarios: ['a[bc]'], fields: ['?/x'], lines: '^b'}"]);
        assert!(!explains(&one, ["other", "s/x"], &["a", "b"], &["a"]));
        assert!(!explains(&one, ["ab", "s/y"], &["a", "b"], &["a"]));
        assert_eq!(one.stale().len(), 2);
        assert!(explains(&one, ["ab", "s/x"], &["a", "b"], &["a"]));
        assert!(explains(&one, ["ac", "t/x"], &["a", "b"], &["a"]));
        assert_eq!(one.stale(), [""; 0]);
        let same = departures(&["{reason: r, scenarios: ['*'], fields: ['*'], counts: true}"]);
        assert!(explains(&same, ["a", "s/x"], &["a ×2"], &["a ×2"]));
        assert_eq!(same.stale().len(), 2);
    }

    #[test]
    fn a_pattern_that_concerns_only_one_name_is_too_broad() {
        let broad = departures(&["{reason: r, scenarios: ['a*'], fields: [s/x], lines: '^b'}"]);
        assert!(explains(&broad, ["ab", "s/x"], &["b"], &[]));
        let why = "a departure is too broad: of scenario a* it concerns only ab: r";
        assert_eq!(broad.stale(), [why]);
        assert!(explains(&broad, ["ac", "s/x"], &["b"], &[]));
        assert_eq!(broad.stale(), [""; 0]);
    }

    #[test]
    fn a_departure_is_superfluous_if_others_explain_the_same() {
        let first = "{reason: first, scenarios: [a], fields: [s/x], lines: '^b'}";
        let second = "{reason: second, scenarios: [a], fields: [s/x], lines: '^[bc]'}";
        let both = departures(&[first, second]);
        assert!(explains(&both, ["a", "s/x"], &["b", "c"], &[]));
        let why = "a departure is superfluous, because others explain the same: first";
        assert_eq!(both.stale(), [why]);
    }
}
