//! The files of `src`, parsed, without the code that only unit tests use.

use std::{collections::BTreeSet, fs, path::Path};

use syn::{Attribute, Item, Meta};

use crate::files;

/// One file of the crate.
pub struct Source {
    /// Its path below `src`.
    pub file: String,
    /// Its module path: empty for `lib.rs`.
    pub module: Vec<String>,
    pub text: String,
    /// Its items, without those for unit tests.
    pub items: Vec<Item>,
}

impl Source {
    pub fn parse(file: &str, text: &str) -> Self {
        let parsed = syn::parse_file(text).unwrap_or_else(|error| panic!("{file}: {error}"));
        Self {
            file: file.to_owned(),
            module: module_of(file),
            text: text.to_owned(),
            items: without_tests(parsed.items),
        }
    }

    /// Whether this file belongs to a binary, not to the library.
    pub fn is_binary(&self) -> bool {
        self.file == "main.rs" || self.file.starts_with("bin/")
    }

    /// Whether the file is in a folder that may do I/O, or is a binary.
    pub fn is_shell(&self) -> bool {
        self.is_binary()
            || ["shell/", "loadtester/shell/"]
                .iter()
                .any(|shell| self.file.starts_with(shell))
    }
}

/// All files of `src`, without those that only unit tests use.
pub fn all() -> Vec<Source> {
    let root = files::path("src");
    let mut found = Vec::new();
    collect(&root, &root, &mut found);
    assert!(found.len() > 50, "{} files", found.len());
    let tests: BTreeSet<Vec<String>> = found.iter().flat_map(test_modules).collect();
    let is_test = |module: &[String]| (1..=module.len()).any(|n| tests.contains(&module[..n]));
    let mut sources: Vec<Source> = found
        .iter()
        .map(|(file, text)| Source::parse(file, text))
        .filter(|source| source.is_binary() || !is_test(&source.module))
        .collect();
    sources.sort_by(|a, b| a.file.cmp(&b.file));
    sources
}

fn collect(root: &Path, folder: &Path, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(root, &path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(root).unwrap().display().to_string();
            found.push((name, fs::read_to_string(&path).unwrap()));
        }
    }
}

fn module_of(file: &str) -> Vec<String> {
    let path = file.trim_end_matches(".rs").trim_end_matches("/mod");
    let segments = path.split('/').filter(|name| *name != "lib");
    segments.map(str::to_owned).collect()
}

/// The modules with a file of their own that this file declares for unit tests only.
fn test_modules((file, text): &(String, String)) -> Vec<Vec<String>> {
    let parent = module_of(file);
    let items = syn::parse_file(text).unwrap().items;
    let modules = items.iter().filter_map(|item| match item {
        Item::Mod(module) if module.content.is_none() && is_for_tests(&module.attrs) => {
            let mut path = parent.clone();
            path.push(module.ident.to_string());
            Some(path)
        }
        _ => None,
    });
    modules.collect()
}

fn without_tests(items: Vec<Item>) -> Vec<Item> {
    let items = items
        .into_iter()
        .filter(|item| !is_for_tests(attributes(item)));
    items.map(inner_without_tests).collect()
}

fn inner_without_tests(mut item: Item) -> Item {
    if let Item::Mod(module) = &mut item
        && let Some((_, items)) = &mut module.content
    {
        *items = without_tests(std::mem::take(items));
    }
    if let Item::Impl(block) = &mut item {
        block.items.retain(|item| match item {
            syn::ImplItem::Fn(function) => !is_for_tests(&function.attrs),
            _ => true,
        });
    }
    item
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// Whether one of these attributes is `#[cfg(test)]`.
fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::List(list) => list.path.is_ident("cfg") && list.tokens.to_string() == "test",
        _ => false,
    })
}

#[test]
fn code_for_unit_tests_is_left_out_and_all_other_code_is_kept() {
    let source = Source::parse(
        "rollout/mod.rs",
        "#[cfg(test)] use std::fs; #[cfg(test)] mod tests { fn a() {} } #[cfg(not(test))] fn b() {} mod c { #[cfg(test)] fn d() {} }",
    );
    assert_eq!(source.module, ["rollout"]);
    assert_eq!(source.items.len(), 2);
    let Item::Mod(module) = &source.items[1] else {
        panic!("the second item is the module c");
    };
    assert!(module.content.as_ref().unwrap().1.is_empty());
}
