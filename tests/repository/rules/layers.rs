//! Modules depend downward only.

use super::{paths::Uses, source::Source};

/// Each module uses modules of the rows above its own, and itself. Modules of the same row do not use each other.
const LAYERS: [&[&str]; 12] = [
    &["api", "comparison"],
    &["snapshot"],
    &["workload"],
    &["routers", "metrics", "notifications"],
    &["providers"],
    &["rollout"],
    &["records"],
    &["check", "lint", "view"],
    &["backtest", "dashboard", "plan"],
    &["cli"],
    &["shell"],
    &["loadtester"],
];

/// The rows of the table of layers in the crate docs.
fn documented() -> Vec<Vec<String>> {
    let docs = std::fs::read_to_string(crate::files::path("src/lib.rs")).unwrap();
    let section = docs.split("# Layers").nth(1).unwrap();
    let section = section.split("//! # ").next().unwrap();
    let rows = section
        .lines()
        .filter(|line| line.contains('`') && line.contains('|'));
    let names = |row: &str| {
        row.split('`')
            .skip(1)
            .step_by(2)
            .map(str::to_owned)
            .collect()
    };
    rows.map(names).collect()
}

#[test]
fn the_crate_docs_have_the_same_layers() {
    assert_eq!(documented(), LAYERS.map(<[&str]>::to_vec));
}

/// Uses within a row, or of a higher one, that have a reason: the user, the used module.
const EXCEPTIONS: [(&str, &str); 0] = [];

/// The modules that do I/O. The other parts of `loadtester` must not use them either.
const SHELLS: [&[&str]; 2] = [&["crate", "shell"], &["crate", "loadtester", "shell"]];

fn row(module: &str) -> Option<usize> {
    LAYERS.iter().position(|row| row.contains(&module))
}

fn offences(source: &Source) -> Vec<(String, String)> {
    let Some(module) = source.module.first().filter(|_| !source.is_binary()) else {
        return Vec::new();
    };
    let Some(own) = row(module) else {
        let text = format!(
            "src/{}: the module {module} has no row in LAYERS",
            source.file
        );
        return vec![(source.file.clone(), text)];
    };
    let uses = Uses::of(source);
    let found = uses.paths.iter().filter_map(|used| {
        let [root, target, ..] = used.path.as_slice() else {
            return None;
        };
        let is_other = root == "crate" && target != module;
        let is_below = || row(target).is_some_and(|row| row < own);
        let is_excepted = EXCEPTIONS.contains(&(module, target));
        // An item at the root of the crate could be a module of a higher row under another name.
        let is_upward = is_other && !is_below() && !is_excepted;
        let is_shell = SHELLS.iter().any(|shell| {
            used.path.iter().zip(*shell).filter(|(a, b)| a == b).count() == shell.len()
        });
        let is_leak = is_shell && !source.is_shell();
        (is_upward || is_leak).then(|| {
            let text = format!(
                "src/{}:{}: {} is not below {module}",
                source.file,
                used.line,
                used.path.join("::")
            );
            (source.file.clone(), text)
        })
    });
    found.collect()
}

/// The other rules take the module of a file from its place.
#[test]
fn each_file_is_the_module_of_its_place() {
    let sources = super::source::all();
    let is_moved = |source: &&Source| {
        let text: String = source.text.split_whitespace().collect();
        text.contains("#[path=") || text.contains("include!(")
    };
    let moved: Vec<_> = sources.iter().filter(is_moved).map(|it| &it.file).collect();
    assert!(moved.is_empty(), "{moved:?}");
}

#[test]
fn modules_depend_downward_only() {
    let sources = super::source::all();
    super::assert_none(sources.iter().flat_map(offences).collect(), &[]);
}

#[cfg(test)]
mod tests {
    use super::{Source, offences};

    fn offends(file: &str, text: &str) -> bool {
        !offences(&Source::parse(file, text)).is_empty()
    }

    #[test]
    fn a_use_of_a_higher_module_by_any_spelling_is_an_offence() {
        for text in [
            "use crate::{shell, api};",
            "use crate::{api::canary::Canary, rollout::{self}};",
            "use super::rollout as r;",
            "fn a() { crate::shell::clock::now() }",
            "fn a(b: &super::super::rollout::Plan) {}",
            "fn a() { vec![crate::shell::clock::now()] }",
            "pub use crate::shell::*;",
            "use crate as c; fn a() { c::shell::now() }",
            "fn a() { crate::clock::now() }",
        ] {
            let file = if text.contains("super::super") {
                "routers/istio.rs"
            } else {
                "routers/mod.rs"
            };
            assert!(offends(file, text), "{text}");
        }
    }

    #[test]
    fn a_use_of_a_neighbour_is_an_offence() {
        assert!(offends("routers/mod.rs", "use crate::metrics::Query;"));
        assert!(!offends(
            "routers/mod.rs",
            "use crate::routers::istio; use crate::api::canary;"
        ));
    }

    #[test]
    fn the_pure_part_of_the_load_tester_uses_no_shell() {
        assert!(offends("loadtester/task.rs", "use super::shell::runner;"));
        assert!(offends("loadtester/task.rs", "use crate::shell::clock;"));
        assert!(!offends(
            "loadtester/shell/mod.rs",
            "use crate::shell::clock; use super::task;"
        ));
    }

    #[test]
    fn a_module_without_a_row_is_an_offence() {
        assert!(offends("helpers/mod.rs", ""));
    }
}
