//! The gates of canaries. Each canary has two gates, and both are closed until somebody opens them: one lets its release continue, the
//! other requests its rollback.

use std::collections::BTreeSet;

/// One of a canary's gates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// Lets the release continue while it is open.
    Advance,
    /// Requests a rollback while it is open.
    Rollback,
}

impl Gate {
    /// The name of the gate in the log.
    pub fn name(self) -> &'static str {
        match self {
            Self::Advance => "gate",
            Self::Rollback => "rollback",
        }
    }

    /// The key of a canary's gate, as in Flagger. `canary` is `NAME.NAMESPACE`.
    pub fn key(self, canary: &str) -> String {
        match self {
            Self::Advance => canary.to_owned(),
            Self::Rollback => format!("rollback.{canary}"),
        }
    }
}

/// The open gates, by their keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gates(BTreeSet<String>);

/// The text is not a list of open gates.
#[derive(Debug, thiserror::Error)]
#[error("not a list of open gates: {0}")]
pub struct NotGates(serde_json::Error);

impl Gates {
    /// Whether a gate is open.
    pub fn is_open(&self, key: &str) -> bool {
        self.0.contains(key)
    }

    /// Returns the gates with this one open.
    #[must_use]
    pub fn open(mut self, key: String) -> Self {
        self.0.insert(key);
        self
    }

    /// Returns the gates with this one closed.
    #[must_use]
    pub fn close(mut self, key: &str) -> Self {
        self.0.remove(key);
        self
    }

    /// Reads the text that [`text`](Self::text) wrote.
    pub fn read(text: &str) -> Result<Self, NotGates> {
        serde_json::from_str(text).map(Self).map_err(NotGates)
    }

    /// The text of the file with the open gates: a JSON list with one gate a line, so that people can read and edit it.
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
    fn a_gate_can_be_opened_and_closed() {
        let key = Gate::Advance.key("podinfo.test");
        let gates = Gates::default();
        assert!(!gates.is_open(&key));
        let gates = gates.open(key.clone()).open(key.clone());
        assert!(gates.is_open(&key));
        assert!(!gates.close(&key).is_open(&key));
    }

    #[test]
    fn a_canary_has_two_separate_gates() {
        let gates = Gates::default().open(Gate::Rollback.key("podinfo.test"));
        assert!(!gates.is_open(&Gate::Advance.key("podinfo.test")));
        assert!(gates.is_open("rollback.podinfo.test"));
    }

    #[test]
    fn the_written_gates_can_be_read() {
        let gates = Gates::default()
            .open("a.test".to_owned())
            .open("rollback.\"b\".test".to_owned());
        assert_eq!(
            gates.text(),
            "[\"a.test\",\n \"rollback.\\\"b\\\".test\"]\n"
        );
        for gates in [gates, Gates::default()] {
            assert_eq!(Gates::read(&gates.text()).unwrap(), gates);
        }
        let error = Gates::read("").unwrap_err().to_string();
        assert!(error.starts_with("not a list of open gates: "), "{error}");
    }
}
