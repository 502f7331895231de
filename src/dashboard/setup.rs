//! The state of the installation, as far as the user's rights show it.

use maud::{Markup, html};

use super::{
    marks,
    text::{cut, sentence},
};

/// One finding about the installation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The subject in a few words.
    pub subject: String,
    /// Whether it is as it should be.
    pub state: Known,
    /// The finding in a sentence.
    pub text: String,
    /// The command that shows or changes it.
    pub command: Option<String>,
}

/// Whether a part of the installation is as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// It is.
    Good,
    /// It is not.
    Bad,
    /// It is worth to know.
    Note,
    /// The user's rights do not show it.
    Hidden,
}

/// The page with all findings.
pub fn setup(findings: &[Finding]) -> Markup {
    html! {
        h1 { "Setup" }
        table.setup.stack {
            thead { tr { th scope="col" { "State" } th scope="col" { "Part" } th scope="col" { "Finding" } } }
            tbody { @for finding in findings {
                tr {
                    td { (state(finding.state)) }
                    th scope="row" { (finding.subject) }
                    td {
                        (sentence(&finding.text))
                        @if let Some(command) = &finding.command { div { code { (cut(command, 300)) } } }
                    }
                }
            } }
        }
    }
}

fn state(state: Known) -> Markup {
    match state {
        Known::Good => marks::chip("good", "✓", "good"),
        Known::Bad => marks::chip("bad", "✗", "problem"),
        Known::Note => marks::chip("warn", "!", "note"),
        Known::Hidden => marks::chip("idle", "·", "not known"),
    }
}
