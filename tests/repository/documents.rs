//! Checks the names in the Markdown files: each link, path, Cargo target, flag, variable, test, event text and Canary in them exists.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use flagger_rs::api::canary::Canary;

use crate::{files, reference::reference};

/// A Markdown file.
struct Document {
    /// Its path in the repository.
    name: String,
    text: String,
}

impl Document {
    /// The lines outside of code blocks.
    fn prose(&self) -> impl Iterator<Item = &str> {
        let blocks = self.text.split("```");
        blocks.step_by(2).flat_map(str::lines)
    }

    /// The code blocks in this language, without their fences.
    fn blocks(&self, language: &str) -> impl Iterator<Item = &str> {
        let blocks = self.text.split("```").skip(1).step_by(2);
        blocks.filter_map(move |block| block.strip_prefix(language)?.strip_prefix('\n'))
    }

    /// The code spans of the prose.
    fn spans(&self) -> impl Iterator<Item = &str> {
        self.prose()
            .flat_map(|line| line.split('`').skip(1).step_by(2))
    }

    /// All words of code: the code blocks, and the code spans.
    fn code_words(&self) -> impl Iterator<Item = &str> {
        let blocks = self.text.split("```").skip(1).step_by(2);
        blocks
            .chain(self.spans())
            .flat_map(|code| code.split(|c: char| c.is_whitespace() || "();,\"'=<>{}".contains(c)))
            .filter(|word| !word.is_empty())
    }

    /// The targets of its links and the files of its pictures, without those on the web.
    fn links(&self) -> impl Iterator<Item = &str> {
        let between = |start: &'static str, end: char| {
            let rests = self.prose().flat_map(move |line| line.split(start).skip(1));
            rests.filter_map(move |rest| rest.split(end).next())
        };
        let pictures = between("src=\"", '"').chain(between("srcset=\"", '"'));
        let targets = between("](", ')').chain(pictures);
        targets.filter(|target| !target.starts_with("https://"))
    }

    /// The anchors of its headings, as GitHub makes them.
    fn anchors(&self) -> BTreeSet<String> {
        let headings = self.prose().filter(|line| line.starts_with('#'));
        headings
            .map(|line| {
                let title = line.trim_start_matches('#').trim().to_lowercase();
                let kept = title
                    .chars()
                    .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
                kept.collect::<String>().replace(' ', "-")
            })
            .collect()
    }
}

/// All Markdown files of the repository.
fn documents() -> Vec<Document> {
    let extension = |path: &Path| path.extension().is_some_and(|extension| extension == "md");
    let found: Vec<_> = walk(extension)
        .into_iter()
        .map(|path| Document {
            text: fs::read_to_string(&path).unwrap(),
            name: path
                .strip_prefix(files::path(""))
                .unwrap()
                .display()
                .to_string(),
        })
        .collect();
    assert!(found.len() > 10, "{}", found.len());
    found
}

/// The files of the repository for which the test holds. The folders `.git` and `target` are not searched.
fn walk(is_wanted: impl Fn(&Path) -> bool) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![files::path("")]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap_or_default();
            if path.is_dir() && name != ".git" && name != "target" {
                folders.push(path);
            } else if path.is_file() && is_wanted(&path) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The text of all Rust files in some folders.
fn rust(folders: &[&str]) -> String {
    let wanted = |path: &Path| {
        path.extension().is_some_and(|extension| extension == "rs")
            && folders
                .iter()
                .any(|folder| path.starts_with(files::path(folder)))
            && !path.ends_with(file!())
    };
    let texts = walk(wanted).into_iter().map(fs::read_to_string);
    texts.map(Result::unwrap).collect()
}

/// Fails with all problems at once: each with the document that has it.
fn all_hold(problems: Vec<String>) {
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

/// The problems with the items of each document.
fn problems<'a, I: Iterator<Item = &'a str>>(
    documents: &'a [Document],
    items: impl Fn(&'a Document) -> I,
    is_wrong: impl Fn(&Document, &str) -> bool,
) -> Vec<String> {
    let mut wrong = Vec::new();
    for document in documents {
        let found = items(document).filter(|item| is_wrong(document, item));
        wrong.extend(found.map(|item| format!("{}: {item}", document.name)));
    }
    wrong
}

#[test]
fn every_link_leads_to_a_file_and_a_heading() {
    let documents = documents();
    let is_broken = |document: &Document, link: &str| {
        let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
        let own = files::path(&document.name);
        let target = if file.is_empty() {
            own
        } else {
            own.parent().unwrap().join(file)
        };
        let Ok(target) = target.canonicalize() else {
            return true;
        };
        let named = |other: &&Document| files::path(&other.name).canonicalize().unwrap() == target;
        !anchor.is_empty()
            && !documents
                .iter()
                .find(named)
                .is_some_and(|other| other.anchors().contains(anchor))
    };
    all_hold(problems(&documents, Document::links, is_broken));
}

/// A clone of the repository, and a page that shows them, stay small.
#[test]
fn each_picture_is_small_and_in_a_document() {
    let pictures = walk(|path| path.starts_with(files::path(".github/images")));
    assert!(pictures.len() > 1, "{pictures:?}");
    let documents = documents();
    for picture in pictures {
        let name = picture.file_name().unwrap().to_str().unwrap();
        let is_linked = |it: &Document| it.links().any(|link| link.ends_with(name));
        assert!(documents.iter().any(is_linked), "no document has {name}");
        let size = fs::metadata(&picture).unwrap().len();
        assert!(size < 120_000, "{name} has {size} bytes");
    }
}

#[test]
fn every_path_exists() {
    let folders = [
        ".ci/",
        ".github/",
        "crds/",
        "examples/",
        "kustomize/",
        "src/",
        "tests/",
    ];
    // `deploy/NAME` without an extension is a Deployment for kubectl; names in capitals are placeholders.
    let is_path = |word: &str| {
        folders.iter().any(|folder| word.starts_with(folder))
            || word.starts_with("deploy/") && word.contains('.')
    };
    let is_placeholder = |word: &str| {
        let mut letters = word.split(['/', '.', '-']);
        letters.any(|part| part.len() > 1 && part.chars().all(|c| c.is_ascii_uppercase()))
            && !word.ends_with(".md")
            || word.contains('*')
    };
    let is_missing = |_: &Document, word: &str| {
        let word = word.trim_end_matches(['.', ':']);
        is_path(word) && !is_placeholder(word) && !files::path(word).exists()
    };
    all_hold(problems(&documents(), Document::code_words, is_missing));
}

#[test]
fn every_cargo_target_feature_and_package_exists() {
    let manifests = [
        "Cargo.toml",
        "examples/Cargo.toml",
        "tests/testbed/Cargo.toml",
    ];
    let manifests = manifests.map(|path| fs::read_to_string(files::path(path)).unwrap());
    let is_known = |option: &str, value: &str| {
        let line = match option {
            "--features" => format!("\n{value} = ["),
            _ => format!("\nname = \"{value}\""),
        };
        manifests.iter().any(|manifest| manifest.contains(&line))
    };
    let options = [
        "--test",
        "--bin",
        "--example",
        "--bench",
        "--features",
        "-p",
    ];
    let mut wrong = Vec::new();
    let documents = documents();
    for document in &documents {
        let words: Vec<_> = document.code_words().collect();
        let commands = words.split(|word| *word == "cargo").skip(1);
        for pair in commands.flat_map(|command| command.windows(2)) {
            if options.contains(&pair[0]) && pair[1] != "NAME" && !is_known(pair[0], pair[1]) {
                wrong.push(format!("{}: {} {}", document.name, pair[0], pair[1]));
            }
        }
    }
    all_hold(wrong);
}

#[test]
fn every_flag_exists() {
    let reference = reference();
    let is_unknown = |_: &Document, span: &str| {
        let name = span.split([' ', '=']).next().unwrap_or_default();
        let is_flag = name.strip_prefix('-').is_some_and(|name| {
            name.len() > 1 && name.chars().all(|c| c.is_ascii_lowercase() || c == '-')
        });
        is_flag && !name.starts_with("--") && !reference.contains(&format!("`{name}`"))
    };
    all_hold(problems(&documents(), Document::spans, is_unknown));
}

/// The names of tests are statements, so they have many words.
#[test]
fn every_named_test_exists() {
    let mut documents = documents();
    documents.push(Document {
        name: "src/lib.rs".to_owned(),
        text: fs::read_to_string(files::path("src/lib.rs")).unwrap(),
    });
    let code = rust(&["src", "tests"]);
    let is_unknown = |_: &Document, span: &str| {
        // Names of metrics have many words, too.
        let is_name = span.matches('_').count() > 3
            && !span.starts_with("flagger_")
            && span.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        is_name && !code.contains(&format!("fn {span}("))
    };
    all_hold(problems(&documents, Document::spans, is_unknown));
}

#[test]
fn every_environment_variable_is_read() {
    let code = rust(&["src", "tests", "examples"]);
    let config = fs::read_to_string(files::path(".cargo/config.toml")).unwrap();
    let is_unknown = |_: &Document, word: &str| {
        let is_variable = word.contains('_')
            && word.len() > 5
            && word.chars().all(|c| c.is_ascii_uppercase() || c == '_');
        is_variable && !code.contains(&format!("\"{word}\"")) && !config.contains(word)
    };
    all_hold(problems(&documents(), Document::code_words, is_unknown));
}

/// The first column of the table of symptoms has texts of events, conditions and logs.
#[test]
fn every_symptom_is_a_text_of_the_operator() {
    // Long texts are broken into several lines of code.
    let code = rust(&["src"]).replace("\\\n", "");
    let code = code.split_whitespace().collect::<Vec<_>>().join(" ");
    let page = fs::read_to_string(files::path("deploy/TROUBLESHOOTING.md")).unwrap();
    let rows: Vec<_> = page.lines().filter(|line| line.starts_with("| ")).collect();
    let symptoms = rows.iter().filter_map(|line| line.split('|').nth(1));
    let texts: Vec<_> = symptoms
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .filter(|text| !["/readyz", "ImagePullBackOff"].contains(text))
        .collect();
    assert!(texts.len() > 12, "{texts:?}");
    let missing = texts.into_iter().filter(|text| !code.contains(text));
    all_hold(missing.map(str::to_owned).collect());

    // The README has the commonest symptoms, in the same words.
    let readme = fs::read_to_string(files::path("README.md")).unwrap();
    let section = readme.split("## Troubleshooting").nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let copies = section.lines().filter(|line| line.starts_with("| "));
    let squeezed = |row: &str| row.replace("deploy/", "").replace("../", "");
    let known: BTreeSet<_> = rows.iter().map(|row| squeezed(row)).collect();
    let others = copies.filter(|row| !known.contains(&squeezed(row)));
    all_hold(others.map(str::to_owned).collect());
}

/// The guide shows one of the tests, so its example compiles and passes.
#[test]
fn the_first_test_is_a_test() {
    let guide = fs::read_to_string(files::path(".github/CONTRIBUTING.md")).unwrap();
    let file = fs::read_to_string(files::path("tests/decisions/example.rs")).unwrap();
    let (_, code) = file.split_once("\n\n").unwrap();
    assert!(guide.contains(&format!("```rust\n{code}```")), "{code}");
}

/// The README shows outputs that unit tests check.
#[test]
fn the_readme_shows_the_commands_as_they_are() {
    let readme = fs::read_to_string(files::path("README.md")).unwrap();
    for file in [
        "src/view/tests/texts/progressing-80.txt",
        "src/records/tests/explanation.txt",
    ] {
        let text = fs::read_to_string(files::path(file)).unwrap();
        assert!(readme.contains(&text), "README.md does not contain {file}");
    }
}

#[test]
fn every_canary_can_be_read_completely() {
    let documents = documents();
    let blocks = documents
        .iter()
        .flat_map(|document| document.blocks("yaml"));
    let canaries: Vec<_> = blocks
        .filter(|block| block.contains("\nkind: Canary\n"))
        .collect();
    assert!(!canaries.is_empty());
    for yaml in canaries {
        let written: serde_json::Value = serde_saphyr::from_str(yaml).unwrap();
        let canary: Canary = serde_json::from_value(written.clone()).unwrap();
        let read = serde_json::to_value(&canary).unwrap();
        for (pointer, value) in leaves("", &written) {
            let kept = read.pointer(&pointer).is_some_and(|kept| {
                kept == value || kept.as_f64().is_some() && kept.as_f64() == value.as_f64()
            });
            assert!(kept, "{pointer} is not a field of a Canary:\n{yaml}");
        }
    }
}

/// The values of an object that contain no others, with their JSON pointers.
fn leaves<'a>(at: &str, value: &'a serde_json::Value) -> Vec<(String, &'a serde_json::Value)> {
    let inner: Vec<_> = match value {
        serde_json::Value::Object(map) => map
            .iter()
            .map(|(key, value)| (format!("{at}/{key}"), value))
            .collect(),
        serde_json::Value::Array(list) => list
            .iter()
            .enumerate()
            .map(|(i, value)| (format!("{at}/{i}"), value))
            .collect(),
        _ => return vec![(at.to_owned(), value)],
    };
    inner
        .into_iter()
        .flat_map(|(at, value)| leaves(&at, value))
        .collect()
}

/// The top level is short, so that a new reader finds the documents.
#[test]
fn the_top_level_has_no_other_files() {
    let allowed = [
        "Cargo.toml",
        "Cargo.lock",
        "Dockerfile",
        "LICENSE",
        "README.md",
        "crds",
        "deploy",
        "examples",
        "kustomize",
        "src",
        "target",
        "tests",
    ];
    let entries = fs::read_dir(files::path("")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let others: Vec<_> = names
        .filter(|name| !name.starts_with('.') && !allowed.contains(&name.as_str()))
        .collect();
    assert!(others.is_empty(), "{others:?}");
}
