//! The filter of the list of canaries: words that must all match.

use url::form_urlencoded;

use super::row::Row;
use crate::view::text::clean;

/// The longest text of a filter, in characters.
const LONGEST: usize = 200;

/// A filter, and the page of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// The text, as a person typed it.
    pub text: String,
    /// The page, from 1.
    pub page: usize,
    terms: Vec<Term>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Term {
    /// `ns:shop`
    Namespace(String),
    /// `phase:failed`: the phase or the state.
    Phase(String),
    /// `team=a`: a label.
    Label(String, String),
    /// A part of the name, of the namespace or of the sentence.
    Text(String),
}

impl Filter {
    /// The filter of this text.
    pub fn new(text: &str, page: usize) -> Self {
        let text: String = text.chars().take(LONGEST).collect();
        let text = clean(&text);
        let term = |word: &str| match (word.split_once(':'), word.split_once('=')) {
            (Some(("ns" | "namespace", namespace)), _) => Term::Namespace(namespace.to_lowercase()),
            (Some(("phase" | "state", phase)), _) => Term::Phase(phase.to_lowercase()),
            (_, Some((key, value))) if !key.is_empty() => {
                Term::Label(key.to_owned(), value.to_owned())
            }
            _ => Term::Text(word.to_lowercase()),
        };
        Self {
            terms: text.split_whitespace().map(term).collect(),
            page: page.max(1),
            text,
        }
    }

    /// The same filter on another page.
    #[must_use]
    pub fn on_page(&self, page: usize) -> Self {
        Self {
            page,
            ..self.clone()
        }
    }

    /// The query of its address, with the question mark; empty without a filter.
    pub fn query(&self) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        if !self.text.is_empty() {
            query.append_pair("q", &self.text);
        }
        if self.page > 1 {
            query.append_pair("page", &self.page.to_string());
        }
        match query.finish() {
            query if query.is_empty() => query,
            query => format!("?{query}"),
        }
    }

    /// Whether a canary matches all words.
    pub fn matches(&self, row: &Row) -> bool {
        let view = &row.view;
        self.terms.iter().all(|term| match term {
            Term::Namespace(namespace) => view.namespace == *namespace,
            Term::Phase(phase) => view.has_phase(phase),
            Term::Label(key, value) => row.has_label(key, value),
            Term::Text(text) => row.searched().contains(text.as_str()),
        })
    }
}
