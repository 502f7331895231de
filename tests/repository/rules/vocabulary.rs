//! Comments use the standard terms of Kubernetes controllers and of Flagger, not words of our own.

use super::source::Source;

/// A word of our own that was once used, and the term to use instead.
const OLD: [(&str, &str); 21] = [
    ("dialect", "router"),
    ("dialects", "routers"),
    ("dues", "ticks"),
    ("foretold", "not sent yet"),
    ("hearsay", "stale reads"),
    ("mend", "repair"),
    ("mended", "repaired"),
    ("mends", "repairs"),
    ("outlook", "preview"),
    ("owe", "not sent yet"),
    ("owed", "pending"),
    ("owes", "not sent yet"),
    ("refuge", "fallback weights"),
    ("rival", "conflicting canary"),
    ("rivals", "conflicting canaries"),
    ("settled", "idle"),
    ("settles", "becomes idle"),
    ("untold", "not sent yet"),
    ("in one breath", "at the same time"),
    ("in the same breath", "at the same time"),
    ("says so", "(name the message)"),
];

/// Files whose comments still have such words. Remove one from the list when they are gone.
const KNOWN: [&str; 0] = [];

fn offences(source: &Source) -> Vec<(String, String)> {
    let comments = comments(&source.text);
    let found = comments.iter().flat_map(|(line, text)| {
        let words = words(text);
        OLD.iter()
            .filter(move |(old, _)| words.contains(&format!(" {old} ")))
            .map(move |(old, new)| {
                (
                    source.file.clone(),
                    format!("src/{}:{line}: say {new:?} instead of {old:?}", source.file),
                )
            })
    });
    found.collect()
}

/// The words in lower case, with a space around each.
fn words(text: &str) -> String {
    let lower = text.to_lowercase();
    let words = lower.split(|c: char| !c.is_alphanumeric() && c != '_' && c != '\'');
    let words: Vec<_> = words.filter(|word| !word.is_empty()).collect();
    format!(" {} ", words.join(" "))
}

/// The comments of a file, each with its line.
fn comments(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(next) = rest.find(['/', '"', '\'', 'r']) {
        let (at, after) = (&rest[next..], text.len() - rest.len() + next);
        let is_comment = at.starts_with("//");
        let length = if is_comment {
            at.find('\n').unwrap_or(at.len())
        } else {
            literal(at, &text[..after])
        };
        if is_comment {
            let line = text[..after].matches('\n').count() + 1;
            found.push((line, &at[..length]));
        }
        rest = &at[length..];
    }
    found
}

/// The length of the string or character that begins here; one byte for anything else.
fn literal(at: &str, before: &str) -> usize {
    let is_in_word = before.ends_with(|c: char| c.is_alphanumeric() || c == '_');
    let hashes = at[1..].bytes().take_while(|byte| *byte == b'#').count();
    if at.starts_with('r')
        && at[1 + hashes..].starts_with('"')
        && (!is_in_word || before.ends_with('b'))
    {
        let end = format!("\"{}", "#".repeat(hashes));
        let start = hashes + 2;
        return at[start..]
            .find(&end)
            .map_or(at.len(), |found| start + found + end.len());
    }
    if at.starts_with('"') {
        return quoted(at, '"');
    }
    // A character, not a lifetime.
    let mut characters = at.chars().skip(1);
    let (first, second) = (characters.next(), characters.next());
    if at.starts_with('\'') && (first == Some('\\') || second == Some('\'')) {
        return quoted(at, '\'');
    }
    1
}

fn quoted(at: &str, end: char) -> usize {
    let mut is_escaped = false;
    for (position, character) in at.char_indices().skip(1) {
        match character {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            _ if character == end => return position + 1,
            _ => {}
        }
    }
    at.len()
}

#[test]
fn comments_use_the_standard_terms() {
    let sources = super::source::all();
    super::assert_none(sources.iter().flat_map(offences).collect(), &KNOWN);
}

#[cfg(test)]
mod tests {
    use super::{Source, comments, offences};

    #[test]
    fn an_old_word_in_a_comment_is_an_offence() {
        for text in [
            "//! Only hearsay.",
            "/// Its RIVAL, if any.\nfn a() {}",
            "fn a() { b() // in one breath, both\n}",
        ] {
            assert_eq!(
                offences(&Source::parse("api/mod.rs", text)).len(),
                1,
                "{text}"
            );
        }
    }

    #[test]
    fn other_words_code_and_strings_are_no_offence() {
        let text = "/// Arrival and recommended.\nfn a(rival: char) { let b = (\"// owed\", r#\"// \" mended\"#, '\"', '\\''); }";
        assert!(offences(&Source::parse("api/mod.rs", text)).is_empty());
        assert_eq!(comments(text).len(), 1);
    }
}
