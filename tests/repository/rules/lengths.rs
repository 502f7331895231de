//! Functions have at most 60 lines, files at most 500.

use syn::{spanned::Spanned, visit::Visit};

use super::source::Source;

const FUNCTION: usize = 60;
const FILE: usize = 500;

/// Longer functions and files that are still there. Remove one from the list when it is short enough.
const KNOWN: [&str; 0] = [];

struct Functions<'a> {
    source: &'a Source,
    long: Vec<(String, String)>,
}

impl Functions<'_> {
    fn measure(&mut self, name: &syn::Ident, function: impl Spanned) {
        let span = function.span();
        let (first, last) = (name.span().start().line, span.end().line);
        let lines = last + 1 - first;
        if lines > FUNCTION {
            let name = format!("{}: {name}", self.source.file);
            let text = format!(
                "src/{}:{first}: {name} has {lines} lines, more than {FUNCTION}",
                self.source.file
            );
            self.long.push((name, text));
        }
    }
}

impl<'ast> Visit<'ast> for Functions<'_> {
    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        self.measure(&function.sig.ident, function);
        syn::visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        self.measure(&function.sig.ident, function);
        syn::visit::visit_impl_item_fn(self, function);
    }

    fn visit_trait_item_fn(&mut self, function: &'ast syn::TraitItemFn) {
        self.measure(&function.sig.ident, function);
        syn::visit::visit_trait_item_fn(self, function);
    }
}

fn offences(source: &Source) -> Vec<(String, String)> {
    let mut functions = Functions {
        source,
        long: Vec::new(),
    };
    source
        .items
        .iter()
        .for_each(|item| functions.visit_item(item));
    let mut found = functions.long;
    let lines = source.text.lines().count();
    if lines > FILE {
        let text = format!("src/{} has {lines} lines, more than {FILE}", source.file);
        found.push((source.file.clone(), text));
    }
    found
}

#[test]
fn functions_and_files_are_short() {
    let sources = super::source::all();
    super::assert_none(sources.iter().flat_map(offences).collect(), &KNOWN);
}

#[cfg(test)]
mod tests {
    use super::{Source, offences};

    fn names(text: &str) -> Vec<String> {
        let source = Source::parse("api/mod.rs", text);
        offences(&source)
            .into_iter()
            .map(|(name, _)| name)
            .collect()
    }

    #[test]
    fn a_function_of_61_lines_is_an_offence_and_one_of_60_is_not() {
        let function = |lines: usize| format!("fn a() {{{}}}", "\n".repeat(lines - 1));
        assert_eq!(names(&function(61)), ["api/mod.rs: a"]);
        assert_eq!(names(&function(60)), Vec::<String>::new());
        let method = format!("struct B; impl B {{ {} }}", function(61));
        assert_eq!(names(&method), ["api/mod.rs: a"]);
        assert_eq!(
            names(&format!("#[cfg(test)] mod tests {{ {} }}", function(61))),
            Vec::<String>::new()
        );
    }

    #[test]
    fn a_file_of_501_lines_is_an_offence() {
        assert_eq!(names(&"\n".repeat(501)), ["api/mod.rs"]);
    }
}
