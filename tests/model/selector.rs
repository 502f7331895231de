//! Label and field selectors: those forms that the operator uses.

use serde_json::Value;

/// The objects of a list or a watch.
#[derive(Clone, Debug, Default)]
pub struct Selector {
    /// All namespaces, if empty.
    pub namespace: String,
    terms: Vec<Term>,
}

#[derive(Clone, Debug)]
struct Term {
    pointer: String,
    /// The value to compare with. `None`: the field must exist, or with `differs`, not exist.
    value: Option<String>,
    differs: bool,
}

impl Selector {
    /// Parses `a=b,c!=d`, `a`, `!a` of labels and `metadata.name=x`, `type!=y` of fields. Panics on other forms.
    pub fn parse(namespace: &str, labels: &str, fields: &str) -> Self {
        assert!(
            !labels.contains('('),
            "the model does not know the selector {labels}"
        );
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
