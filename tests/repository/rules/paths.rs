//! Finds the full paths that a file uses. Resolves `use` trees, renames, globs, `self`, `super`, `crate`, and paths in macros.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use syn::{Item, UseTree, Visibility, spanned::Spanned, visit::Visit};

use super::source::Source;

/// The greatest length of a chain of renames. This code has no longer chain.
const DEPTH: usize = 8;

/// A full path: of this crate if it begins with `crate`, else of another crate.
pub type Path = Vec<String>;

/// A path that a file uses.
#[derive(Debug, Clone, PartialEq)]
pub struct Used {
    pub line: usize,
    pub path: Path,
    pub form: Form,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Form {
    /// The path is in a private `use`.
    Import,
    /// The path is in a `pub use`, or `pub(…) use`.
    ReExport,
    /// `use path::*`; the path is without the star.
    Glob,
    /// The path is in an expression, a type, a pattern, an attribute or a macro.
    Mention,
}

/// Something that makes code asynchronous.
#[derive(Debug, Clone, PartialEq)]
pub struct Async {
    pub line: usize,
    pub what: &'static str,
}

/// The names that one module has in scope.
#[derive(Default)]
pub struct Scope {
    /// Its own path, with `crate` at the beginning.
    pub module: Path,
    /// Names that a `use` brings in, with the path as it is written there.
    pub imports: BTreeMap<String, Path>,
    /// The paths of `use path::*`.
    pub globs: Vec<Path>,
    /// Names of items and modules that are defined here.
    pub items: BTreeSet<String>,
}

/// Everything that a file uses.
pub struct Uses {
    pub scope: Scope,
    pub paths: Vec<Used>,
    pub asyncs: Vec<Async>,
    pub macros: Vec<(usize, String)>,
}

impl Uses {
    pub fn of(source: &Source) -> Self {
        let mut module = vec!["crate".to_owned()];
        module.extend(source.module.iter().cloned());
        let mut reader = Reader::default();
        reader.scope.module = module;
        reader
            .scope
            .items
            .extend(source.items.iter().filter_map(name_of));
        source.items.iter().for_each(|item| reader.visit_item(item));
        let scope = reader.scope;
        let paths = reader.paths.into_iter().filter_map(|used| {
            let path = scope.resolve(&used.path, used.form)?;
            Some(Used { path, ..used })
        });
        Self {
            paths: paths.collect(),
            scope,
            asyncs: reader.asyncs,
            macros: reader.macros,
        }
    }
}

impl Scope {
    /// The full path; `None` for a local name and for the prelude.
    pub fn resolve(&self, path: &[String], form: Form) -> Option<Path> {
        // A local name may equal an imported one. A path in a `use` ignores local names: it begins at a crate or a child module.
        let is_use = form != Form::Mention;
        self.resolve_within(path, is_use, DEPTH)
    }

    fn resolve_within(&self, path: &[String], is_use: bool, depth: usize) -> Option<Path> {
        let (first, rest) = path.split_first()?;
        let join = |mut base: Path, rest: &[String]| {
            base.extend(rest.iter().cloned());
            base
        };
        match first.as_str() {
            "" => return Some(rest.to_vec()),
            "crate" => return Some(path.to_vec()),
            "self" => return self.resolve_super(self.module.clone(), rest),
            "super" => return self.resolve_super(self.module.clone(), path),
            "Self" => return None,
            _ => {}
        }
        if self.items.contains(first) {
            return Some(join(self.module.clone(), path));
        }
        if depth > 0
            && let Some(import) = self.imports.get(first)
            && import.as_slice() != path
            && import.first() != Some(first)
        {
            return Some(join(self.resolve_within(import, true, depth - 1)?, rest));
        }
        if let Some(import) = self.imports.get(first)
            && import.first() == Some(first)
            && import.len() > 1
            && !is_use
        {
            // `use a::{self, …}` brings in `a` itself; other imports of that shape begin at a crate.
            return Some(join(import.clone(), rest));
        }
        let is_crate = first.starts_with(|c: char| c.is_ascii_lowercase())
            && !PRIMITIVES.contains(&first.as_str());
        (is_crate && (is_use || path.len() > 1)).then(|| path.to_vec())
    }

    fn resolve_super(&self, mut base: Path, mut rest: &[String]) -> Option<Path> {
        while let Some((first, after)) = rest.split_first()
            && first == "super"
        {
            base.pop();
            rest = after;
        }
        base.extend(rest.iter().cloned());
        Some(base)
    }
}

const PRIMITIVES: [&str; 16] = [
    "bool", "char", "str", "u8", "u16", "u32", "u64", "u128", "usize", "i8", "i16", "i32", "i64",
    "i128", "f32", "f64",
];

#[derive(Default)]
struct Reader {
    scope: Scope,
    paths: Vec<Used>,
    asyncs: Vec<Async>,
    macros: Vec<(usize, String)>,
}

impl Reader {
    fn note(&mut self, line: usize, path: Path, form: Form) {
        self.paths.push(Used { line, path, form });
    }

    fn note_async(&mut self, line: usize, what: &'static str) {
        self.asyncs.push(Async { line, what });
    }

    fn read_use(&mut self, tree: &UseTree, prefix: &Path, form: Form) {
        let line = tree.span().start().line;
        let with = |name: &syn::Ident| {
            let mut path = prefix.clone();
            // `self` in a group is the prefix itself.
            if name != "self" || prefix.is_empty() {
                path.push(name.to_string());
            }
            path
        };
        match tree {
            UseTree::Path(path) => self.read_use(&path.tree, &with(&path.ident), form),
            UseTree::Name(name) => self.import(line, with(&name.ident), None, form),
            UseTree::Rename(name) => {
                let alias = name.rename.to_string();
                self.import(line, with(&name.ident), Some(alias), form);
            }
            UseTree::Glob(_) => {
                self.scope.globs.push(prefix.clone());
                self.note(line, prefix.clone(), Form::Glob);
            }
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.read_use(tree, prefix, form);
                }
            }
        }
    }

    fn import(&mut self, line: usize, path: Path, alias: Option<String>, form: Form) {
        if let Some(name) = alias.or_else(|| path.last().cloned()) {
            self.scope.imports.insert(name, path.clone());
        }
        self.note(line, path, form);
    }

    /// Finds `a::b` and the words `async` and `await` among the tokens of a macro.
    fn read_tokens(&mut self, tokens: TokenStream) {
        let mut path: Path = Vec::new();
        let mut line = 0;
        let mut colons = 0;
        for token in tokens {
            match &token {
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                TokenTree::Ident(ident) => {
                    if colons != 2 || path.is_empty() {
                        self.end_path(line, std::mem::take(&mut path));
                        line = ident.span().start().line;
                    }
                    match ident.to_string().as_str() {
                        "async" => self.note_async(line, "async"),
                        "await" => self.note_async(line, "await"),
                        name => path.push(name.to_owned()),
                    }
                    colons = 0;
                }
                _ => {
                    self.end_path(line, std::mem::take(&mut path));
                    colons = 0;
                }
            }
            if let TokenTree::Group(group) = token {
                debug_assert!(group.delimiter() != Delimiter::None || group.stream().is_empty());
                self.read_tokens(group.stream());
            }
        }
        self.end_path(line, path);
    }

    fn end_path(&mut self, line: usize, path: Path) {
        if !path.is_empty() {
            self.note(line, path, Form::Mention);
        }
    }
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        let form = match item.vis {
            Visibility::Inherited => Form::Import,
            _ => Form::ReExport,
        };
        let root = if item.leading_colon.is_some() {
            vec![String::new()]
        } else {
            Vec::new()
        };
        self.read_use(&item.tree, &root, form);
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        // An inline module shares the scope of its file, but `super` in it is this file's module.
        let Some((_, items)) = &item.content else {
            return;
        };
        let mut inner = Self::default();
        inner.scope.module = self.scope.module.clone();
        inner.scope.module.push(item.ident.to_string());
        inner.scope.items.extend(items.iter().filter_map(name_of));
        items.iter().for_each(|item| inner.visit_item(item));
        let scope = &inner.scope;
        let paths = inner.paths.into_iter().filter_map(|used| {
            let path = scope.resolve(&used.path, used.form)?;
            let absolute = if path[0] == "crate" {
                path
            } else {
                [vec![String::new()], path].concat()
            };
            Some(Used {
                path: absolute,
                ..used
            })
        });
        self.paths.extend(paths);
        self.asyncs.extend(inner.asyncs);
        self.macros.extend(inner.macros);
    }

    fn visit_expr_path(&mut self, expression: &'ast syn::ExprPath) {
        // `<T>::name` begins at a type, `<T as Trait>::name` at a trait. The name alone is no path.
        match &expression.qself {
            Some(of_type) if of_type.position == 0 => self.visit_qself(of_type),
            _ => syn::visit::visit_expr_path(self, expression),
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names = path
            .segments
            .iter()
            .map(|segment| segment.ident.to_string());
        let root = path.leading_colon.map(|_| String::new());
        let line = path.span().start().line;
        self.note(line, root.into_iter().chain(names).collect(), Form::Mention);
        syn::visit::visit_path(self, path);
    }

    fn visit_attribute(&mut self, attribute: &'ast syn::Attribute) {
        let tool = attribute.path().segments.first();
        let is_for_tool =
            tool.is_some_and(|tool| tool.ident == "rustfmt" || tool.ident == "clippy");
        if !is_for_tool {
            syn::visit::visit_attribute(self, attribute);
        }
    }

    fn visit_visibility(&mut self, _: &'ast Visibility) {
        // `pub(super)` names a module without using it.
    }

    fn visit_macro(&mut self, called: &'ast syn::Macro) {
        let line = called.span().start().line;
        if let Some(name) = called.path.segments.last() {
            self.macros.push((line, name.ident.to_string()));
        }
        self.visit_path(&called.path);
        self.read_tokens(called.tokens.clone());
    }

    fn visit_signature(&mut self, signature: &'ast syn::Signature) {
        if signature.asyncness.is_some() {
            self.note_async(signature.span().start().line, "async fn");
        }
        syn::visit::visit_signature(self, signature);
    }

    fn visit_expr_async(&mut self, block: &'ast syn::ExprAsync) {
        self.note_async(block.span().start().line, "async block");
        syn::visit::visit_expr_async(self, block);
    }

    fn visit_expr_await(&mut self, expression: &'ast syn::ExprAwait) {
        self.note_async(expression.span().start().line, "await");
        syn::visit::visit_expr_await(self, expression);
    }

    fn visit_expr_closure(&mut self, closure: &'ast syn::ExprClosure) {
        if closure.asyncness.is_some() {
            self.note_async(closure.span().start().line, "async closure");
        }
        syn::visit::visit_expr_closure(self, closure);
    }
}

/// The name of an item that others can refer to.
fn name_of(item: &Item) -> Option<String> {
    let ident = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Macro(item) => item.ident.as_ref()?,
        Item::Mod(item) => &item.ident,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::Type(item) => &item.ident,
        Item::Union(item) => &item.ident,
        _ => return None,
    };
    Some(ident.to_string())
}

#[cfg(test)]
mod tests {
    use super::{Form, Uses};
    use crate::rules::source::Source;

    fn paths(text: &str) -> Vec<String> {
        let uses = Uses::of(&Source::parse("rollout/traffic.rs", text));
        let mut paths: Vec<_> = uses.paths.iter().map(|used| used.path.join("::")).collect();
        paths.dedup();
        paths
    }

    #[test]
    fn groups_renames_and_self_are_resolved() {
        assert_eq!(
            paths("use std::{fs, io::{self, Read as R}};"),
            ["std::fs", "std::io", "std::io::Read"]
        );
        assert_eq!(
            paths("use std::fs as files; fn a() { files::read(1) }"),
            ["std::fs", "std::fs::read"]
        );
        assert_eq!(paths("use std as s; use s::fs;"), ["std", "std::fs"]);
    }

    #[test]
    fn relative_paths_are_resolved() {
        assert_eq!(
            paths("use super::release::Run; use self::inner::A; mod inner;"),
            [
                "crate::rollout::release::Run",
                "crate::rollout::traffic::inner::A"
            ]
        );
        assert_eq!(
            paths("fn a() { super::super::shell::go() }"),
            ["crate::shell::go"]
        );
        assert_eq!(
            paths("mod inner { use super::super::b; }"),
            ["crate::rollout::b"]
        );
    }

    #[test]
    fn paths_in_types_expressions_and_macros_are_found() {
        assert_eq!(
            paths("fn a(b: Vec<tokio::time::Sleep>) {}"),
            ["tokio::time::Sleep"]
        );
        assert_eq!(
            paths("fn a() { vec![tokio::spawn(1), 2] }"),
            ["tokio::spawn"]
        );
        assert_eq!(
            paths("use jiff::Timestamp; fn a() { assert!(b(Timestamp::now())) }"),
            ["jiff::Timestamp", "jiff::Timestamp::now"]
        );
    }

    #[test]
    fn local_names_and_the_prelude_are_no_paths() {
        assert_eq!(
            paths("fn a(b: String) -> Option<u8> { let c = b; u8::from_str(c) }"),
            Vec::<String>::new()
        );
    }

    #[test]
    fn re_exports_and_globs_are_distinguished() {
        let uses = Uses::of(&Source::parse(
            "rollout/mod.rs",
            "pub use plan::Plan; use std::*; mod plan;",
        ));
        let forms: Vec<_> = uses.paths.iter().map(|used| used.form).collect();
        assert_eq!(forms, [Form::ReExport, Form::Glob]);
    }
}
