//! Queries are Go templates over a few names of the release (`pkg/metrics/observers/render.go`).

use std::{cell::RefCell, collections::BTreeMap};

use gtmpl_ng::{Context, FuncError, Limits, Template, Value};

use super::shown;
use crate::api::canary::{Canary, CanaryMetric};

/// The longest template, in bytes.
const TEXT: usize = 16 << 10;
/// The longest query, in bytes.
const OUTPUT: usize = 16 << 10;
/// The longest value within a template, in bytes.
const VALUE: usize = 8 << 10;
/// As many times may all loops of a template run together.
const ITERATIONS: usize = 32;
/// So much of a template may be actions, in bytes: what is in a loop is worked out each time, and a step looks more than once.
const ACTIONS: usize = 2 << 10;
/// So often may templates within a template be called; two that call the next twice would be a million calls after twenty.
const CALLS: usize = 4;
/// So many values of its own may a metric have, of so many bytes together: each mention of them is a copy.
const VARIABLES: usize = 64;
const VARIABLES_TEXT: usize = 16 << 10;
/// So deep may parentheses nest within an action.
const PARENTHESES: usize = 16;
/// So many `{{ else }}` may a template have.
const ELSES: usize = 32;

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

/// An object, not a map: of a map, the engine renders what is missing; of an object it is an error, as with Flagger's `missingkey=error`.
#[expect(
    clippy::unnecessary_wraps,
    reason = "the signature is the template engine's"
)]
fn variables(_: &[Value]) -> Result<Value, FuncError> {
    let map = MODEL.with_borrow(|model| model.variables.clone());
    Ok(Value::Object(
        map.into_iter()
            .map(|(key, value)| (key, Value::String(value)))
            .collect(),
    ))
}

/// Go's `index`: unlike `variables.k`, it finds an empty text where a variable is missing, which is how a query can do without one.
fn index(args: &[Value]) -> Result<Value, FuncError> {
    match args {
        [Value::Object(map), Value::String(key)] => Ok(map
            .get(key)
            .cloned()
            .unwrap_or_else(|| Value::String(String::new()))),
        _ => gtmpl_ng::funcs::index(args),
    }
}

/// Renders a query. An unknown name or a missing variable is an error, as in Flagger; so is a template that would take the
/// process down.
pub fn render(text: &str, model: &Model) -> Result<String, String> {
    let failed = |why: &str| shown(&format!("template parsing failed: {why}"));
    if let Some(why) = hazard(text) {
        return Err(failed(why));
    }
    if model.variables.len() > VARIABLES {
        return Err(failed("the metric has more than 64 variables"));
    }
    let bytes = |(key, value): (&String, &String)| key.len() + value.len();
    if model.variables.iter().map(bytes).sum::<usize>() > VARIABLES_TEXT {
        return Err(failed("the metric's variables are larger than 16 KiB"));
    }
    MODEL.set(model.clone());
    let mut template = Template::with_limits(
        Limits::default()
            .with_iterations(ITERATIONS)
            .with_total_iterations(ITERATIONS)
            .with_output_bytes(OUTPUT)
            .with_function_output(VALUE),
    );
    template.add_func("name", |_| Ok(field(|m| m.name.clone())));
    template.add_func("namespace", |_| Ok(field(|m| m.namespace.clone())));
    template.add_func("target", |_| Ok(field(|m| m.target.clone())));
    template.add_func("service", |_| Ok(field(|m| m.service.clone())));
    template.add_func("ingress", |_| Ok(field(|m| m.ingress.clone())));
    template.add_func("route", |_| Ok(field(|m| m.route.clone())));
    template.add_func("interval", |_| Ok(field(|m| m.interval.clone())));
    template.add_func("variables", variables);
    template.add_func("index", index);
    template
        .parse(text)
        .map_err(|error| failed(&error.to_string()))?;
    template
        .render(&Context::from(Value::Nil))
        .map_err(|error| shown(&format!("template excution failed: {error}")))
}

/// Why a template must not reach the engine. Its parser calls itself for each parenthesis and each `{{ else if }}`, until the
/// stack is gone and the process with it; and it never finishes `"\u"` and `"\x"` (longer ones it reads wrongly).
/// This walks the text as the engine's lexer does, so that nothing hides in a string or a comment.
fn hazard(text: &str) -> Option<&'static str> {
    if text.len() > TEXT {
        return Some("the template is larger than 16 KiB");
    }
    let (mut elses, mut calls, mut actions) = (0, 0, 0);
    let mut rest = text;
    while let Some((_, action)) = rest.split_once("{{") {
        let action = action.strip_prefix('-').map_or(action, |trimmed| {
            trimmed.strip_prefix(SPACE).unwrap_or(action)
        });
        if let Some(comment) = action.strip_prefix("/*") {
            rest = comment.split_once("*/")?.1;
            continue;
        }
        let word = action.trim_start_matches(SPACE);
        elses += usize::from(word.starts_with("else"));
        calls += usize::from(word.starts_with("template") || word.starts_with("block"));
        match after_action(action) {
            Ok(after) => rest = after,
            Err(why) => return Some(why),
        }
        actions += action.len() - rest.len();
        if elses > ELSES {
            return Some("the template has too many branches");
        }
        if calls > CALLS || actions > ACTIONS {
            return Some("the template asks for too much work");
        }
    }
    None
}

/// White space between the words of an action.
const SPACE: [char; 4] = [' ', '\t', '\r', '\n'];

/// What follows an action, or what is wrong within it.
fn after_action(action: &str) -> Result<&str, &'static str> {
    let mut depth = 0_usize;
    let mut rest = action;
    while !rest.starts_with("}}") {
        let mut chars = rest.chars();
        match chars.next() {
            None => return Ok(""),
            Some('(') => depth += 1,
            Some(')') => depth = depth.saturating_sub(1),
            Some(quote @ ('"' | '\'' | '`')) => {
                let literal = chars.as_str();
                let end = end_of_literal(literal, quote);
                let (literal, after) = literal.split_at(end);
                if has_numeric_escape(literal) {
                    return Err("the escapes \\u and \\x are not supported");
                }
                chars = after.chars();
                chars.next();
            }
            Some(_) => {}
        }
        if depth > PARENTHESES {
            return Err("parentheses are nested too deeply");
        }
        rest = chars.as_str();
    }
    Ok(rest.get(2..).unwrap_or_default())
}

/// Where the engine's lexer sees the end of a literal. (It lets `\\` escape what follows, and knows no escapes in back quotes.)
fn end_of_literal(literal: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in literal.char_indices() {
        if c == quote && !escaped {
            return at;
        }
        escaped = c == '\\' && quote != '`';
    }
    literal.len()
}

fn has_numeric_escape(literal: &str) -> bool {
    let mut chars = literal.chars();
    while let Some(c) = chars.next() {
        if c == '\\' && matches!(chars.next(), Some('u' | 'x')) {
            return true;
        }
    }
    false
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

    #[test]
    fn a_missing_variable_is_an_error_wherever_it_is_looked_up() {
        for text in [
            "{{ if variables.b }}y{{ end }}",
            "{{ with variables.b }}y{{ end }}",
            r#"{{ printf "%s" variables.b }}"#,
            "{{ print variables.b }}",
            "{{ $v := variables.b }}ok",
            r#"{{ eq variables.b "x" }}"#,
        ] {
            let error = render(text, &model()).unwrap_err();
            assert!(
                error.starts_with("template excution failed: "),
                "{text}: {error}"
            );
        }
        for (text, rendered) in [
            (r#"[{{ index variables "b" }}]"#, "[]"),
            (r#"{{ if index variables "b" }}y{{ else }}n{{ end }}"#, "n"),
            (r#"x{l="<no value>"}"#, r#"x{l="<no value>"}"#),
            (
                "{{ range $k, $v := variables }}{{ $k }}={{ $v }}{{ end }}",
                "a=x",
            ),
            ("{{ len variables }}", "1"),
        ] {
            assert_eq!(render(text, &model()).as_deref(), Ok(rendered), "{text}");
        }
    }

    #[test]
    fn no_template_takes_the_process_down() {
        let parentheses = |n| format!("{{{{ {}1{} }}}}", "(".repeat(n), ")".repeat(n));
        let branches = |n| {
            format!(
                "{{{{ if 0 }}}}{}{{{{ end }}}}",
                "{{- else if 0 }}".repeat(n)
            )
        };
        for text in [
            parentheses(100_000),
            parentheses(200),
            branches(5_000),
            branches(200),
            format!("{{{{ {}", r#"")))" ("#.repeat(200)),
            format!(r#"{{{{ "}}}}" {} }}}}"#, "(".repeat(200)),
            format!(r#"{{{{- /* " */ -}}}}{{{{ {}"#, "(".repeat(200)),
            r#"{{ "\u" }}"#.to_owned(),
            r#"{{ "\x" }}"#.to_owned(),
            r"{{ `a\u00z` }}".to_owned(),
            r#"{{ "\uéé" }}"#.to_owned(),
            r#"{{/* " */}}{{ "\u" }}"#.to_owned(),
            r#"{{ "\\" "\u" }}"#.to_owned(),
            r#"{{ '"' }}{{ "\u" }}"#.to_owned(),
            r#"{{ range 200 }}{{ range 200 }}{{ if printf "%08000d" 1 | len }}{{ end }}{{ end }}{{ end }}"#.to_owned(),
            "a".repeat(TEXT + 1),
        ] {
            let error = render(&text, &model()).unwrap_err();
            assert!(error.len() <= 256, "{error}");
        }
    }

    /// Each of these took seconds, at every look.
    #[test]
    fn no_template_keeps_the_process_busy() {
        let halves: Vec<String> = (0..30)
            .map(|i| {
                let call = format!("{{{{ template \"{}\" }}}}", i + 1);
                format!("{{{{ define \"{i}\" }}}}{call}{call}{{{{ end }}}}")
            })
            .collect();
        for text in [
            halves.concat() + r#"{{ define "30" }}{{ end }}{{ template "0" }}"#,
            format!(
                "{{{{ range 32 }}}}{}{{{{ end }}}}",
                r#"{{ if printf "%08000d" 1 | len }}{{ end }}"#.repeat(300)
            ),
            format!(
                "{{{{ range 32 }}}}{{{{ if or {} }}}}{{{{ end }}}}{{{{ end }}}}",
                "variables.b ".repeat(1000)
            ),
            r#"{{ range 33 }}{{ printf "%08000d" 1 | len }}{{ end }}"#.to_owned(),
        ] {
            render(&text, &model()).unwrap_err();
        }
        let mut crowded = model();
        crowded.variables = (0..=VARIABLES)
            .map(|i| (i.to_string(), String::new()))
            .collect();
        render("{{ variables }}", &crowded).unwrap_err();
        crowded.variables = [("large".to_owned(), "x".repeat(VARIABLES_TEXT))].into();
        render("{{ variables }}", &crowded).unwrap_err();
    }

    #[test]
    fn what_a_query_needs_is_within_the_limits() {
        let deepest = format!(
            "{}{}{}1{}{{{{ end }}}}{}",
            "{{ if 1 }}".repeat(24),
            "{{ if 0 }}",
            "{{ else if 0 }}".repeat(ELSES) + "{{ " + &"(".repeat(PARENTHESES),
            ")".repeat(PARENTHESES) + " }}",
            "{{ end }}".repeat(24),
        );
        assert_eq!(render(&deepest, &model()).as_deref(), Ok(""));
        let text = r#"sum(rate(a{p=~"\\d+\u0041"}[{{ interval }}])) / ((((((((((((((((((1))))))))))))))))))"#;
        assert_eq!(
            render(text, &model()),
            Ok(text.replace("{{ interval }}", "1m"))
        );
        assert_eq!(
            render(r#"{{ printf "%q\t%v" target `x` }}"#, &model()).as_deref(),
            Ok("\"podinfo\"\tx")
        );
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_rendered_or_refused(parts in proptest::collection::vec(proptest::sample::select(vec![
            "{{", "}}", "{{-", "-}}", " ", "(", ")", "|", "$x", ":=", "=", "if", "else", "end", "range", "with", "define", "block",
            "template", "\"a\"", "\"", "'", "`", "\\", "u", "x", "é", "1", "-1", "0x", ".", ".b", ",", "variables", "name", "printf",
            "index", "slice", "len", "\"%d\"", "break", "nil", "true", "\n", "/*", "*/",
        ]), 0..40)) {
            // That it comes back at all is what is tested.
            let _ = render(&parts.concat(), &model());
        }
    }
}
