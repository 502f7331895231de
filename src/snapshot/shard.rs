//! The canaries that one of several operators reconciles: those with matching labels (`-watch-label-selector`, as the controllers of Flux
//! have it).

use std::collections::{BTreeMap, BTreeSet};

use super::revision::digest;

/// A label selector, as `kubectl -l` has it. Each canary belongs to the operator whose selector matches its labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    text: String,
    terms: Vec<Term>,
}

/// The reason why a text is no label selector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no label selector: write key=value, key!=value, key in (a,b), key notin (a,b), key or !key, separated by commas"
)]
pub struct ShardError(String);

/// A condition on one label.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Term {
    key: String,
    /// The values that match; `None` if each value does.
    values: Option<BTreeSet<String>>,
    /// Whether labels match that have none of these values, or are missing.
    is_negated: bool,
}

impl Shard {
    /// Parses a selector.
    ///
    /// # Errors
    /// A term is empty or has an unknown form.
    pub fn parse(text: &str) -> Result<Self, ShardError> {
        let terms = split(text).into_iter().map(|term| {
            let found = Term::parse(term.trim());
            found.ok_or_else(|| ShardError(text.to_owned()))
        });
        Ok(Self {
            text: text.to_owned(),
            terms: terms.collect::<Result<_, _>>()?,
        })
    }

    /// The selector, for requests to the API server.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether an object with these labels belongs to this operator.
    pub fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        self.terms.iter().all(|term| term.matches(labels))
    }

    /// A short name that differs from shard to shard, for the name of the Lease.
    pub fn digest(&self) -> String {
        digest(&self.text, 4)
    }
}

impl Term {
    fn parse(text: &str) -> Option<Self> {
        let term = |key: &str, values, is_negated| {
            let key = key.trim().to_owned();
            is_key(&key).then_some(Self {
                key,
                values,
                is_negated,
            })
        };
        let one = |value: &str| {
            let value = value.trim();
            let is_value = value.is_empty() || is_key(value) && !value.contains('/');
            is_value.then(|| value.to_owned())
        };
        if let Some((rest, list)) = text.strip_suffix(')').and_then(|text| text.split_once('(')) {
            let (key, operator) = rest.trim().rsplit_once(char::is_whitespace)?;
            let values: Option<BTreeSet<_>> = list.split(',').map(one).collect();
            return match operator {
                "in" => term(key, Some(values?), false),
                "notin" => term(key, Some(values?), true),
                _ => None,
            };
        }
        if let Some(key) = text.strip_prefix('!') {
            return term(key, None, true);
        }
        if let Some((key, value)) = text.split_once("!=") {
            return term(key, Some([one(value)?].into()), true);
        }
        match text.split_once("==").or_else(|| text.split_once('=')) {
            Some((key, value)) => term(key, Some([one(value)?].into()), false),
            None => term(text, None, false),
        }
    }

    fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(&self.key);
        let is_found = match &self.values {
            Some(values) => value.is_some_and(|value| values.contains(value)),
            None => value.is_some(),
        };
        is_found != self.is_negated
    }
}

/// Splits at the commas that are not within parentheses.
fn split(text: &str) -> Vec<&str> {
    let mut depth = 0_usize;
    text.split(|c| {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    })
    .collect()
}

/// Whether the text has only the characters of keys and values of labels.
fn is_key(text: &str) -> bool {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
    !text.is_empty() && text.chars().all(is_allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selects(selector: &str, labels: &[(&str, &str)]) -> bool {
        let labels = { labels.iter() }.map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Shard::parse(selector).unwrap().selects(&labels.collect())
    }

    #[test]
    fn each_form_selects_the_labels_that_kubectl_selects() {
        const KEY: &str = "sharding.fluxcd.io/key";
        let (none, one, two) = (&[][..], &[(KEY, "one")][..], &[(KEY, "two")][..]);
        for (selector, expected) in [
            ("sharding.fluxcd.io/key=one", [false, true, false]),
            ("sharding.fluxcd.io/key == one", [false, true, false]),
            ("sharding.fluxcd.io/key!=one", [true, false, true]),
            ("sharding.fluxcd.io/key in (one, two)", [false, true, true]),
            ("sharding.fluxcd.io/key notin (two)", [true, true, false]),
            ("sharding.fluxcd.io/key", [false, true, true]),
            ("!sharding.fluxcd.io/key", [true, false, false]),
            (
                "sharding.fluxcd.io/key,sharding.fluxcd.io/key!=two",
                [false, true, false],
            ),
            (
                "sharding.fluxcd.io/key in (one,two),sharding.fluxcd.io/key notin (one)",
                [false, false, true],
            ),
            ("sharding.fluxcd.io/key=", [false, false, false]),
        ] {
            let found = [none, one, two].map(|labels| selects(selector, labels));
            assert_eq!(found, expected, "{selector}");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "", "a=b,", "a b", "a>1", "a=(b)", "a in b", "in (b)", "a in (b", "a=b=c", "!a=b",
            "a=b/c", "ä=b",
        ] {
            assert!(Shard::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn each_shard_has_a_lease_of_its_own() {
        let lease = |text| Shard::parse(text).unwrap().digest();
        assert_eq!(lease("!sharding.fluxcd.io/key").len(), 8);
        assert_ne!(
            lease("!sharding.fluxcd.io/key"),
            lease("sharding.fluxcd.io/key=one")
        );
    }
}
