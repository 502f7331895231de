//! Queries are Go templates over a few names of the release (`pkg/metrics/observers/render.go`).

use std::{cell::RefCell, collections::BTreeMap};

use gtmpl_ng::{Context, FuncError, Template, Value};

use crate::api::canary::{Canary, CanaryMetric};

/// What a query can name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Model {
    /// The Canary's name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// The target's name.
    pub target: String,
    /// The name of the Service that clients call.
    pub service: String,
    /// The Ingress' name, or the target's.
    pub ingress: String,
    /// The route's name, or the target's.
    pub route: String,
    /// The metric's window; only built-in and inline metrics have a default (`1m`).
    pub interval: String,
    /// The metric's own values.
    pub variables: BTreeMap<String, String>,
}

impl Model {
    /// The names of a metric of a canary.
    pub fn of(canary: &Canary, metric: &CanaryMetric, default_interval: &str) -> Self {
        let target = &canary.spec.target_ref.name;
        let name = |reference: &Option<crate::api::canary::ObjectRef>| {
            reference.as_ref().map_or(target, |r| &r.name).clone()
        };
        let interval = metric
            .interval
            .as_deref()
            .filter(|interval| !interval.is_empty());
        Self {
            name: canary.metadata.name.clone().unwrap_or_default(),
            namespace: canary.metadata.namespace.clone().unwrap_or_default(),
            target: target.clone(),
            service: canary.apex_name().to_owned(),
            ingress: name(&canary.spec.ingress_ref),
            route: name(&canary.spec.route_ref),
            interval: interval.unwrap_or(default_interval).to_owned(),
            variables: metric.template_variables.clone().unwrap_or_default(),
        }
    }
}

thread_local! {
    /// The template engine's functions are plain functions: they find the names here, for as long as one rendering lasts.
    static MODEL: RefCell<Model> = RefCell::default();
}

fn field(get: fn(&Model) -> String) -> Value {
    MODEL.with_borrow(|model| Value::String(get(model)))
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "the signature is the template engine's"
)]
fn variables(_: &[Value]) -> Result<Value, FuncError> {
    let map = MODEL.with_borrow(|model| model.variables.clone());
    Ok(Value::Map(
        map.into_iter()
            .map(|(key, value)| (key, Value::String(value)))
            .collect(),
    ))
}

/// Renders a query. An unknown name or a missing variable is an error, as in Flagger.
pub fn render(text: &str, model: &Model) -> Result<String, String> {
    MODEL.set(model.clone());
    let mut template = Template::default();
    template.add_func("name", |_| Ok(field(|m| m.name.clone())));
    template.add_func("namespace", |_| Ok(field(|m| m.namespace.clone())));
    template.add_func("target", |_| Ok(field(|m| m.target.clone())));
    template.add_func("service", |_| Ok(field(|m| m.service.clone())));
    template.add_func("ingress", |_| Ok(field(|m| m.ingress.clone())));
    template.add_func("route", |_| Ok(field(|m| m.route.clone())));
    template.add_func("interval", |_| Ok(field(|m| m.interval.clone())));
    template.add_func("variables", variables);
    template
        .parse(text)
        .map_err(|e| format!("template parsing failed: {e}"))?;
    let rendered = template
        .render(&Context::from(Value::Nil))
        .map_err(|e| format!("template excution failed: {e}"))?;
    // The engine renders what is missing; Flagger's refuses it.
    if rendered.contains("<no value>") {
        return Err("template excution failed: the query names a variable that templateVariables does not have".to_owned());
    }
    Ok(rendered)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model() -> Model {
        Model {
            name: "c".into(),
            namespace: "test".into(),
            target: "podinfo".into(),
            service: "podinfo".into(),
            interval: "1m".into(),
            variables: [("a".to_owned(), "x".to_owned())].into(),
            ..Model::default()
        }
    }

    #[test]
    fn go_templates_render() {
        let text = r#"{{ $t := printf "%s-%s" namespace target }}sum(x{t="{{ $t }}",v="{{ variables.a }}"}[{{ interval }}]){{ if eq name "c" }} > 0{{ end }}"#;
        assert_eq!(
            render(text, &model()).unwrap(),
            r#"sum(x{t="test-podinfo",v="x"}[1m]) > 0"#
        );
        assert_eq!(
            render(r#"{{ index variables "a" }}"#, &model()).unwrap(),
            "x"
        );
    }

    #[test]
    fn a_missing_variable_is_an_error() {
        assert!(render("{{ variables.b }}", &model()).is_err());
        assert!(render("{{ nonsense }}", &model()).is_err());
        assert!(
            render("{{", &model())
                .unwrap_err()
                .starts_with("template parsing failed: ")
        );
    }

    #[test]
    fn a_template_that_calls_itself_is_an_error() {
        assert!(
            render(
                r#"{{ define "a" }}{{ template "a" }}{{ end }}{{ template "a" }}"#,
                &model()
            )
            .is_err()
        );
    }
}
