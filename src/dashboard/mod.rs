//! The pages of `flagger dashboard`, as HTML: pure functions from views and records to markup. `shell/dashboard` serves them.
//!
//! Each value from outside passes [`text`], which cuts it and removes control characters, and maud, which escapes it.
//!
//! | question | place |
//! | --- | --- |
//! | Which pages are there, and at which addresses? | [`Place`] |
//! | What is around each page? | [`site`] |
//! | Which canaries does the list show, and in which order? | `fleet.rs`, [`Filter`], [`Row`] |
//! | What does the page of a canary show? | `release.rs`; `actions.rs` has the buttons |
//! | How is a record shown? | `record.rs`; `chart.rs` draws the curves of a `series.rs`; `recorded.rs` has what the list shows |
//! | What is in the history? | `history.rs` |
//! | What does the page of the installation show? | [`setup`] |
//! | How do pages look in a browser? | `assets/style.css`; `assets/page.js` has the keys |

mod actions;
mod chart;
mod filter;
mod fleet;
mod history;
mod marks;
mod place;
mod record;
mod recorded;
mod release;
mod row;
mod series;
pub mod setup;
pub mod site;
#[cfg(test)]
mod tests;
pub mod text;

pub use actions::{REASON, possible};
pub use filter::Filter;
pub use fleet::fleet;
pub use history::history;
pub use place::{Named, Place, is_name, local};
pub use recorded::Recorded;
pub use release::{Shown, release};
pub use row::{Rank, Row};
pub use site::{Assets, Page, Site, document};
