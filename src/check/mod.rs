//! The report of `flagger check`, for people and for scripts: the first action of the operator for each canary, and the missing rights.
//! Pure: `shell::check` reads the cluster.

mod rights;

use std::fmt;

use serde_json::{Value, json};

pub use rights::{Right, Scope, Subject, rights};

use crate::rollout::Preview;

/// The report.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The canaries, sorted by namespace and name.
    pub canaries: Vec<Row>,
    /// The rights that the account lacks, and in which namespaces.
    pub missing: Vec<(Right, Scope)>,
}

/// One canary of a report.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The phase as its status spells it; empty without a status.
    pub phase: String,
    /// The first action of the operator.
    pub preview: Preview,
}

impl Report {
    /// Whether no canary would change and no right is missing.
    pub fn is_clean(&self) -> bool {
        self.missing.is_empty() && self.changes() == 0
    }

    fn changes(&self) -> usize {
        let changes = self.canaries.iter();
        changes.filter(|row| row.preview.action.is_change()).count()
    }

    /// Returns the report as JSON, for scripts.
    pub fn json(&self) -> Value {
        let canaries: Vec<_> = self
            .canaries
            .iter()
            .map(|row| {
                json!({"namespace": row.namespace, "name": row.name, "phase": row.phase,
                    "first": row.preview.action.name(), "why": row.preview.why})
            })
            .collect();
        let missing: Vec<_> = self
            .missing
            .iter()
            .map(|(right, scope)| {
                json!({"verb": right.verb, "group": right.group, "resource": right.resource, "name": right.name,
                    "namespace": scope.namespace()})
            })
            .collect();
        json!({"canaries": canaries, "missing": missing, "clean": self.is_clean()})
    }
}

/// A table, for people.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = |row: &Row| {
            let phase = if row.phase.is_empty() {
                "-"
            } else {
                &row.phase
            };
            [
                row.namespace.clone(),
                row.name.clone(),
                phase.to_owned(),
                row.preview.to_string(),
            ]
        };
        let head = ["NAMESPACE", "NAME", "PHASE", "FIRST"].map(str::to_owned);
        let rows: Vec<_> = std::iter::once(head)
            .chain(self.canaries.iter().map(row))
            .collect();
        let width = |column: fn(&[String; 4]) -> &String| {
            let widths = rows.iter().map(column).map(|cell| cell.chars().count());
            widths.max().unwrap_or(0)
        };
        let widths = (
            width(|row| &row[0]),
            width(|row| &row[1]),
            width(|row| &row[2]),
        );
        for [namespace, name, phase, first] in &rows {
            let (a, b, c) = widths;
            writeln!(f, "{namespace:a$}  {name:b$}  {phase:c$}  {first}")?;
        }
        writeln!(f)?;
        for (right, scope) in &self.missing {
            writeln!(f, "missing right: {right} {scope}")?;
        }
        let (all, changes, missing) = (self.canaries.len(), self.changes(), self.missing.len());
        writeln!(
            f,
            "canaries: {all}, would change: {changes}, missing rights: {missing}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollout::FirstAction;

    fn report(action: FirstAction, missing: bool) -> Report {
        let right = Right {
            verb: "patch",
            group: "flagger.app",
            resource: "canaries/status",
            name: None,
        };
        Report {
            canaries: vec![Row {
                namespace: "shop".to_owned(),
                name: "cart".to_owned(),
                phase: "Succeeded".to_owned(),
                preview: Preview::new(action, "a\n\u{1b}[31mb"),
            }],
            missing: missing
                .then(|| (right, Scope::Namespace("shop".to_owned())))
                .into_iter()
                .collect(),
        }
    }

    #[test]
    fn the_report_for_people_is_a_table() {
        assert_eq!(
            report(FirstAction::GoesOn, true).to_string(),
            "NAMESPACE  NAME  PHASE      FIRST\n\
             shop       cart  Succeeded  goes on: a [31mb\n\
             \n\
             missing right: patch canaries.flagger.app/status in namespace shop\n\
             canaries: 1, would change: 1, missing rights: 1\n"
        );
    }

    #[test]
    fn the_report_for_scripts_is_json() {
        assert_eq!(
            report(FirstAction::GoesOn, true).json(),
            json!({"canaries": [{"namespace": "shop", "name": "cart", "phase": "Succeeded", "first": "goes-on", "why": "a [31mb"}],
                "missing": [{"verb": "patch", "group": "flagger.app", "resource": "canaries/status", "name": null, "namespace": "shop"}],
                "clean": false})
        );
    }

    #[test]
    fn an_adopted_status_is_no_change_but_a_missing_right_is_one() {
        assert!(report(FirstAction::Nothing, false).is_clean());
        assert!(report(FirstAction::Adopts, false).is_clean());
        assert!(!report(FirstAction::Adopts, true).is_clean());
        for action in [
            FirstAction::GoesOn,
            FirstAction::Starts,
            FirstAction::Repairs,
            FirstAction::Refused,
            FirstAction::Waits,
            FirstAction::Unreadable,
        ] {
            assert!(!report(action, false).is_clean(), "{action:?}");
        }
    }
}
