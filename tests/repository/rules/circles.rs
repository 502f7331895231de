//! Files do not import each other in a circle, nor do the parts of `rollout`, which are files and folders.
//!
//! `mod` declarations do not count, nor does a parent that re-exports the items of its children: an import of a re-exported item is an
//! import of the file that defines it.

use std::collections::{BTreeMap, VecDeque};

use super::{
    paths::{Form, Path, Scope, Uses},
    source::Source,
};

/// The greatest length of a chain of re-exports. This code has no longer chain.
const DEPTH: usize = 8;

/// The files that each file uses, with the place of the first use.
type Graph = BTreeMap<String, BTreeMap<String, String>>;

/// All modules that have a file, by their paths.
struct Modules {
    files: BTreeMap<Path, String>,
    scopes: BTreeMap<Path, Scope>,
}

impl Modules {
    /// The module that defines the item with this path.
    fn locate(&self, path: &[String], depth: usize) -> Option<Path> {
        let mut module: Path = vec!["crate".to_owned()];
        for (position, name) in path.iter().enumerate().skip(1) {
            let mut child = module.clone();
            child.push(name.clone());
            if self.files.contains_key(&child) {
                module = child;
                continue;
            }
            let scope = self.scopes.get(&module)?;
            if scope.items.contains(name) || depth == 0 {
                break;
            }
            let rest = &path[position + 1..];
            return self.follow(scope, name, rest, depth).or(Some(module));
        }
        Some(module)
    }

    /// The module that defines an item which this scope imports, by its name or by a glob.
    fn follow(&self, scope: &Scope, name: &str, rest: &[String], depth: usize) -> Option<Path> {
        if let Some(import) = scope.imports.get(name) {
            let full = scope.resolve(import, Form::Import)?;
            let full = [full.as_slice(), rest].concat();
            return (full[0] == "crate")
                .then(|| self.locate(&full, depth - 1))
                .flatten();
        }
        scope.globs.iter().find_map(|glob| {
            let target = scope.resolve(glob, Form::Import)?;
            let items = &self.scopes.get(&target)?.items;
            items.contains(name).then_some(target)
        })
    }
}

fn graph(sources: &[Source]) -> Graph {
    let library = || {
        sources
            .iter()
            .filter(|source| !source.is_binary() && !source.module.is_empty())
    };
    let uses: Vec<(&Source, Uses)> = library().map(|source| (source, Uses::of(source))).collect();
    let files = uses
        .iter()
        .map(|(source, uses)| (uses.scope.module.clone(), source.file.clone()));
    let files = files.collect();
    let mut edges = Vec::new();
    let mut scopes = BTreeMap::new();
    for (source, uses) in uses {
        let module = uses.scope.module.clone();
        edges.push((source.file.clone(), module.clone(), uses.paths));
        scopes.insert(module, uses.scope);
    }
    let modules = Modules { files, scopes };
    let mut graph = Graph::new();
    for (file, module, paths) in edges {
        let mut used_files = BTreeMap::new();
        for used in paths.iter().filter(|used| used.path[0] == "crate") {
            let Some(target) = modules.locate(&used.path, DEPTH) else {
                continue;
            };
            let is_re_export = used.form == Form::ReExport && target.starts_with(&module);
            if is_re_export || target == module {
                continue;
            }
            if let Some(used_file) = modules.files.get(&target) {
                let place = format!("line {}: {}", used.line, used.path.join("::"));
                used_files.entry(used_file.clone()).or_insert(place);
            }
        }
        graph.insert(file, used_files);
    }
    graph
}

/// A shortest circle for each group of files that reach each other.
fn circles(graph: &Graph) -> Vec<Vec<String>> {
    let mut found: Vec<Vec<String>> = Vec::new();
    for start in graph.keys() {
        if found.iter().any(|circle| circle.contains(start)) {
            continue;
        }
        found.extend(circle_through(graph, start));
    }
    found
}

fn circle_through(graph: &Graph, start: &str) -> Option<Vec<String>> {
    let mut came_from: BTreeMap<&str, &str> = BTreeMap::new();
    let mut queue = VecDeque::from([start]);
    while let Some(file) = queue.pop_front() {
        for next in graph.get(file).into_iter().flat_map(BTreeMap::keys) {
            if next == start {
                let mut circle = vec![file.to_owned()];
                let mut last = file;
                while last != start {
                    last = came_from[last];
                    circle.push(last.to_owned());
                }
                circle.reverse();
                return Some(circle);
            }
            if next != start && !came_from.contains_key(next.as_str()) {
                came_from.insert(next, file);
                queue.push_back(next);
            }
        }
    }
    None
}

/// The graph of the parts of a folder. A part is a file, or a folder with all its files.
fn of_parts(graph: &Graph, folder: &str) -> Graph {
    let part = |file: &str| {
        let inside = file.strip_prefix(folder)?;
        let part = inside.split('/').next()?;
        (part != "mod.rs").then(|| format!("{folder}{part}"))
    };
    let mut parts = Graph::new();
    for (file, used) in graph {
        let Some(from) = part(file) else { continue };
        let entry = parts.entry(from.clone()).or_default();
        for (other, place) in used {
            if let Some(to) = part(other).filter(|to| *to != from) {
                entry.entry(to).or_insert(format!("{file}, {place}"));
            }
        }
    }
    parts
}

fn offences(sources: &[Source]) -> Vec<(String, String)> {
    let graph = graph(sources);
    let parts = of_parts(&graph, "rollout/");
    [named_circles(&graph), named_circles(&parts)].concat()
}

fn named_circles(graph: &Graph) -> Vec<(String, String)> {
    let named = circles(graph).into_iter().map(|circle| {
        let next = circle.iter().cycle().skip(1);
        let edges = circle.iter().zip(next);
        let edges: Vec<_> = edges
            .map(|(file, next)| format!("src/{file} -> src/{next} ({})", graph[file][next]))
            .collect();
        (circle.join(" -> "), edges.join("\n    "))
    });
    named.collect()
}

/// Circles that are still there. Remove one from the list when it is gone.
const KNOWN: [&str; 0] = [];

#[test]
fn files_do_not_import_each_other_in_a_circle() {
    super::assert_none(offences(&super::source::all()), &KNOWN);
}

#[cfg(test)]
mod tests {
    use super::{Source, offences};

    fn circles(files: &[(&str, &str)]) -> Vec<String> {
        let sources: Vec<_> = files
            .iter()
            .map(|(file, text)| Source::parse(file, text))
            .collect();
        offences(&sources)
            .into_iter()
            .map(|(name, _)| name)
            .collect()
    }

    #[test]
    fn a_parent_and_its_child_that_use_each_other_are_a_circle() {
        let parent = (
            "routers/mod.rs",
            "mod istio; pub struct A; fn b() { istio::c() }",
        );
        let child = ("routers/istio.rs", "use super::A; pub fn c() {}");
        assert_eq!(
            circles(&[parent, child]),
            ["routers/istio.rs -> routers/mod.rs"]
        );
    }

    #[test]
    fn a_circle_of_three_is_found() {
        let a = ("api/a.rs", "use super::b::B; pub struct A;");
        let b = (
            "api/b.rs",
            "use crate::api::{c::{self}}; pub struct B; fn b() { c::c() }",
        );
        let c = ("api/c.rs", "pub fn c() { let a = crate::api::a::A; }");
        let parent = ("api/mod.rs", "pub mod a; mod b; mod c;");
        assert_eq!(
            circles(&[parent, a, b, c]),
            ["api/a.rs -> api/b.rs -> api/c.rs"]
        );
    }

    #[test]
    fn a_circle_through_a_re_export_is_found() {
        let parent = ("api/mod.rs", "mod a; mod b; pub use a::A; pub use b::*;");
        let a = ("api/a.rs", "use super::B; pub struct A;");
        let b = ("api/b.rs", "use super::A; pub struct B;");
        assert_eq!(circles(&[parent, a, b]), ["api/a.rs -> api/b.rs"]);
    }

    #[test]
    fn a_circle_of_two_folders_of_the_decision_is_found() {
        let parent = ("rollout/mod.rs", "mod phases; mod safety;");
        let phases = ("rollout/phases/mod.rs", "mod a; pub mod b; pub struct P;");
        let a = ("rollout/phases/a.rs", "use crate::rollout::safety::S;");
        let b = ("rollout/phases/b.rs", "pub struct B;");
        let safety = ("rollout/safety.rs", "pub struct S(super::phases::b::B);");
        assert_eq!(
            circles(&[parent, phases, a, b, safety]),
            ["rollout/phases -> rollout/safety.rs"]
        );
    }

    #[test]
    fn declarations_re_exports_and_tests_make_no_circle() {
        let parent = (
            "api/mod.rs",
            "mod a; mod b; pub use a::A; pub struct C; #[cfg(test)] mod tests { use super::a::A; }",
        );
        let a = ("api/a.rs", "use super::C; pub struct A;");
        let b = ("api/b.rs", "use super::A;");
        assert_eq!(circles(&[parent, a, b]), Vec::<String>::new());
    }
}
