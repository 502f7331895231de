//! Which gates are open. Each canary has two, both closed until somebody opens them: one lets its release go on, one asks to take it back.

use std::collections::BTreeSet;

/// One of a canary's gates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// Lets the release go on.
    Advance,
    /// Asks to take it back.
    Rollback,
}

impl Gate {
    /// What the log calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Advance => "gate",
            Self::Rollback => "rollback",
        }
    }

    /// What it is known by, as in Flagger; `canary` is `NAME.NAMESPACE`.
    pub fn key(self, canary: &str) -> String {
        match self {
            Self::Advance => canary.to_owned(),
            Self::Rollback => format!("rollback.{canary}"),
        }
    }
}

/// The gates that are open, by their keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gates(BTreeSet<String>);

impl Gates {
    /// Whether a gate is open.
    pub fn is_open(&self, key: &str) -> bool {
        self.0.contains(key)
    }

    /// The same, with a gate open.
    #[must_use]
    pub fn open(mut self, key: String) -> Self {
        self.0.insert(key);
        self
    }

    /// The same, with a gate closed.
    #[must_use]
    pub fn close(mut self, key: &str) -> Self {
        self.0.remove(key);
        self
    }

    /// Reads what [`text`](Self::text) wrote, or says what is wrong with it.
    pub fn read(text: &str) -> Result<Self, String> {
        serde_json::from_str(text)
            .map(Self)
            .map_err(|error| format!("not a list of open gates: {error}"))
    }

    /// The open gates, as they are kept: a list in JSON, one a line, for people may want to read and edit it.
    pub fn text(&self) -> String {
        let keys: Vec<_> = self
            .0
            .iter()
            .map(|key| serde_json::Value::from(key.as_str()).to_string())
            .collect();
        format!("[{}]\n", keys.join(",\n "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_is_closed_until_it_is_opened_and_after_it_is_closed() {
        let key = Gate::Advance.key("podinfo.test");
        let gates = Gates::default();
        assert!(!gates.is_open(&key));
        let gates = gates.open(key.clone()).open(key.clone());
        assert!(gates.is_open(&key));
        assert!(!gates.close(&key).is_open(&key));
    }

    #[test]
    fn the_gates_of_a_canary_are_two() {
        let gates = Gates::default().open(Gate::Rollback.key("podinfo.test"));
        assert!(!gates.is_open(&Gate::Advance.key("podinfo.test")));
        assert!(gates.is_open("rollback.podinfo.test"));
    }

    #[test]
    fn what_is_kept_is_read_again() {
        let gates = Gates::default()
            .open("a.test".to_owned())
            .open("rollback.\"b\".test".to_owned());
        assert_eq!(
            gates.text(),
            "[\"a.test\",\n \"rollback.\\\"b\\\".test\"]\n"
        );
        for gates in [gates, Gates::default()] {
            assert_eq!(Gates::read(&gates.text()), Ok(gates));
        }
        assert!(
            Gates::read("")
                .unwrap_err()
                .contains("not a list of open gates")
        );
    }
}
