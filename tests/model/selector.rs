//! Label and field selectors, as far as anybody here uses them.

use serde_json::Value;

/// What a list or a watch is about.
#[derive(Clone, Debug, Default)]
pub struct Selector {
    /// All namespaces, if empty.
    pub namespace: String,
    terms: Vec<Term>,
}

#[derive(Clone, Debug)]
struct Term {
    pointer: String,
    /// None: that it is there, or with `differs`, that it is not.
    value: Option<String>,
    differs: bool,
}

impl Selector {
    /// `a=b,c!=d`, `a`, `!a` of labels; `metadata.name=x`, `type!=y` of fields.
    pub fn parse(namespace: &str, labels: &str, fields: &str) -> Self {
        let terms = |text: &str, pointer: fn(&str) -> String| {
            let parts = text.split(',').filter(|term| !term.is_empty());
            parts
                .map(|term| {
                    let (name, value, differs) = if let Some((name, value)) = term.split_once("!=")
                    {
                        (name, Some(value), true)
                    } else if let Some((name, value)) = term.split_once('=') {
                        (name, Some(value.trim_start_matches('=')), false)
                    } else {
                        (term.trim_start_matches('!'), None, term.starts_with('!'))
                    };
                    Term {
                        pointer: pointer(name),
                        value: value.map(str::to_owned),
                        differs,
                    }
                })
                .collect::<Vec<_>>()
        };
        let label = |name: &str| {
            format!(
                "/metadata/labels/{}",
                name.replace('~', "~0").replace('/', "~1")
            )
        };
        let field = |name: &str| format!("/{}", name.replace('.', "/"));
        let mut all = terms(labels, label);
        all.extend(terms(fields, field));
        Self {
            namespace: namespace.to_owned(),
            terms: all,
        }
    }

    pub fn matches(&self, object: &Value) -> bool {
        let is_here =
            self.namespace.is_empty() || object["metadata"]["namespace"] == self.namespace;
        is_here
            && self.terms.iter().all(|term| {
                let found = object.pointer(&term.pointer).and_then(Value::as_str);
                let holds = match &term.value {
                    Some(value) => found == Some(value),
                    None => found.is_some(),
                };
                holds != term.differs
            })
    }
}
