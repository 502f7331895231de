//! Comments, names and documents use the standard terms of Kubernetes controllers and of Flagger, not terms of this project.

use std::{collections::BTreeSet, fs, path::PathBuf};

use proc_macro2::{TokenStream, TokenTree};

use crate::files;

/// A term of this project that was once used, and the standard term.
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

/// A word that names had once, and the term to use instead. In a sentence these are plain English.
const OLD_NAMES: [(&str, &str); 12] = [
    ("due", "next step, tick"),
    ("dues", "ticks"),
    ("look", "measurement, judge"),
    ("looks", "measurements"),
    ("rival", "conflicting canary"),
    ("said", "answer"),
    ("settle", "ended, idle"),
    ("settled", "ended, idle"),
    ("tell", "notify, print"),
    ("tells", "notifies, prints"),
    ("told", "notified, reported"),
    ("untold", "not sent yet"),
];

/// A name with more words is a sentence, like the names of tests.
const LONGEST_NAME: usize = 4;

/// A text of the repository, with the path of its file.
struct Text {
    file: String,
    text: String,
}

/// All files with this extension, except this one, because it names the words.
fn all(extension: &str) -> Vec<Text> {
    let mut found = Vec::new();
    let mut folders = vec![files::path("")];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(folder).unwrap();
        let paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        for path in paths {
            let name = path.file_name().unwrap_or_default();
            if path.is_dir() && name != ".git" && name != "target" {
                folders.push(path);
            } else if path.extension().is_some_and(|it| it == extension) {
                let file = path.strip_prefix(files::path("")).unwrap();
                let (file, text) = (file.display().to_string(), fs::read_to_string(&path));
                let text = text.unwrap();
                found.push(Text { file, text });
            }
        }
    }
    found.retain(|text| !text.file.ends_with("rules/vocabulary.rs"));
    assert!(found.len() > 2, "{extension}");
    found
}

/// The old words in these passages, each with its line.
fn offences<'a>(
    file: &str,
    passages: impl IntoIterator<Item = (usize, String)>,
    old: &'a [(&'a str, &'a str)],
) -> Vec<String> {
    let found = passages.into_iter().flat_map(|(line, text)| {
        let words = words(&text);
        old.iter()
            .filter(move |(old, _)| words.contains(&format!(" {old} ")))
            .map(move |(old, new)| format!("{file}:{line}: say {new:?} instead of {old:?}"))
    });
    found.collect()
}

fn offences_in_rust(source: &Text) -> Vec<String> {
    let comments = comments(&source.text);
    let comments = comments
        .iter()
        .map(|(line, text)| (*line, (*text).to_owned()));
    let mut found = offences(&source.file, comments, &OLD);
    let tokens: TokenStream = source.text.parse().unwrap();
    let mut names = BTreeSet::new();
    add_names(tokens, &mut names);
    found.extend(offences(&source.file, names, &OLD_NAMES));
    found
}

/// The names in some code, each as its words.
fn add_names(tokens: TokenStream, names: &mut BTreeSet<(usize, String)>) {
    for token in tokens {
        match token {
            TokenTree::Group(group) => add_names(group.stream(), names),
            TokenTree::Ident(name) => {
                let words = words_of_name(&name.to_string());
                if words.len() <= LONGEST_NAME {
                    names.insert((name.span().start().line, words.join(" ")));
                }
            }
            TokenTree::Literal(_) | TokenTree::Punct(_) => {}
        }
    }
}

/// The words of `a_name` or `AName`.
fn words_of_name(name: &str) -> Vec<String> {
    let mut separated = String::new();
    let mut was_lower = false;
    for character in name.chars() {
        if character.is_uppercase() && was_lower {
            separated.push('_');
        }
        was_lower = character.is_lowercase();
        separated.push(character);
    }
    let words = separated.split('_').filter(|word| !word.is_empty());
    words.map(str::to_lowercase).collect()
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

/// Fails with all offences at once.
fn assert_none(offences: Vec<String>) {
    assert!(offences.is_empty(), "\n{}", offences.join("\n"));
}

#[test]
fn comments_and_names_use_the_standard_terms() {
    assert_none(all("rs").iter().flat_map(offences_in_rust).collect());
}

#[test]
fn documents_use_the_standard_terms() {
    let lines = |text: &Text| -> Vec<_> {
        let lines = text.text.lines().enumerate();
        lines
            .map(|(line, text)| (line + 1, text.to_owned()))
            .collect()
    };
    let documents = ["md", "toml"].into_iter().flat_map(all);
    let found = documents.flat_map(|text| offences(&text.file, lines(&text), &OLD));
    assert_none(found.collect());
}

#[cfg(test)]
mod tests {
    use super::{Text, comments, offences_in_rust};

    fn offences(text: &str) -> Vec<String> {
        let (file, text) = ("src/api/mod.rs".to_owned(), text.to_owned());
        offences_in_rust(&Text { file, text })
    }

    #[test]
    fn an_old_word_in_a_comment_is_an_offence() {
        for text in [
            "//! Only hearsay.",
            "/// Its RIVAL, if any.\nfn a() {}",
            "fn a() { b() // in one breath, both\n}",
        ] {
            assert_eq!(offences(text).len(), 1, "{text}");
        }
    }

    #[test]
    fn an_old_word_in_a_name_is_an_offence() {
        for text in [
            "struct Looks;",
            "const SETTLED: u8 = 1;",
            "fn is_untold() {}",
            "macro_rules! a { () => { fn next_due() {} } }",
        ] {
            assert_eq!(offences(text).len(), 1, "{text}");
        }
    }

    #[test]
    fn other_words_sentences_and_strings_are_no_offence() {
        let text = "/// Arrival and recommended: look at it, which tells more.\nfn the_event_tells_why_a_run_failed(arrival: char) { let b = (\"// owed\", r#\"// \" mended\"#, '\"', '\\''); }";
        assert_eq!(offences(text), [""; 0]);
        assert_eq!(comments(text).len(), 1);
    }
}
