//! The measured figures, beside their goals and those of Flagger 1.44.

use std::fmt::Write;

use serde_json::{Value, json};

use super::Size;

/// One line of the table.
pub struct Figure {
    /// The measured values.
    pub what: String,
    /// The figure of Flagger 1.44 (1,000 canaries, two cores).
    pub flagger: &'static str,
    /// The highest value that meets the goal.
    pub goal: f64,
    /// The measured value.
    pub value: f64,
    /// The unit of the value and of the goal.
    pub unit: &'static str,
}

impl Figure {
    /// Whether the goal is met.
    pub fn is_met(&self) -> bool {
        self.value <= self.goal
    }
}

/// The figures as a table.
pub fn table(figures: &[Figure]) -> String {
    let mut table =
        String::from("| | Flagger 1.44 | goal | here | |\n| --- | --- | --- | --- | --- |\n");
    for figure in figures {
        let Figure {
            what,
            flagger,
            goal,
            value,
            unit,
        } = figure;
        let verdict = if figure.is_met() { "✓" } else { "✗" };
        let _ = writeln!(
            table,
            "| {what} | {flagger} | ≤ {goal} {unit} | {} {unit} | {verdict} |",
            short(*value)
        );
    }
    table
}

/// The figures for scripts.
pub fn json(size: &Size, figures: &[Figure]) -> Value {
    let figures: Vec<_> = figures
        .iter()
        .map(|f| json!({"what": f.what, "goal": f.goal, "value": f.value, "unit": f.unit, "met": f.is_met()}))
        .collect();
    json!({"canaries": size.canaries, "unrelated": size.unrelated, "progressing": size.progressing, "hostile": size.hostile, "figures": figures})
}

/// Two or three significant digits.
fn short(value: f64) -> String {
    match value {
        0.0 => "0".to_owned(),
        _ if value < 0.1 => format!("{value:.3}"),
        _ if value < 10.0 => format!("{value:.2}"),
        _ => format!("{value:.0}"),
    }
}
