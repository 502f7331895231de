//! Views as text for terminals: pure functions from a view and a width to lines.

mod detail;
mod history;
mod line;
mod table;

pub use detail::{detail, next_step};
pub use history::{history_head, history_row};
pub use line::{Line, Style, paint};
pub use table::{Columns, Table, change_line, head, row};

use super::{State, View};

/// The color of a state. It only emphasizes the word.
const fn style_of(state: State) -> Style {
    match state {
        State::Promoted => Style::Good,
        State::Failed | State::RollingBack | State::Blocked => Style::Bad,
        State::Paused | State::Waiting | State::Suspended => Style::Warn,
        State::Progressing | State::Promoting => Style::Strong,
        State::New | State::Initializing | State::Terminating => Style::Plain,
    }
}

/// The progress of a run in a few words: `2/5`; a dash without a run.
fn progress(view: &View) -> String {
    match view.progress() {
        Some((taken, all)) => format!("{taken}/{all}"),
        None => "-".to_owned(),
    }
}
