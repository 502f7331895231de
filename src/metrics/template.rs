//! Renders queries: Go templates that can name a few values of the release (Flagger: `pkg/metrics/observers/render.go`).
//!
//! Users write the templates, so a template must neither crash nor block the operator: `hazard` and the limits of the engine refuse the
//! ones that could.

use std::{cell::RefCell, collections::BTreeMap};

use gtmpl_ng::{Context, FuncError, Limits, Template, Value};

use crate::{
    api::canary::{Canary, CanaryMetric, ObjectRef},
    snapshot::excerpt,
};

/// The longest template, in bytes.
const TEXT: usize = 16 << 10;
/// The longest query, in bytes.
const OUTPUT: usize = 16 << 10;
/// The longest value within a template, in bytes.
const VALUE: usize = 8 << 10;
/// The most iterations of all loops of a template together.
const ITERATIONS: usize = 32;
/// The most bytes of actions (`{{ … }}`) in a template: a loop evaluates its actions each time, and a step renders the query repeatedly.
const ACTIONS: usize = 2 << 10;
/// The most `{{ template }}` and `{{ block }}` in a template. If each of twenty templates calls the next one twice, that is a million
/// calls.
const CALLS: usize = 4;
/// The most variables of a metric. (Each mention copies all of them.)
const VARIABLES: usize = 64;
/// The most bytes of a metric's variables.
const VARIABLES_TEXT: usize = 16 << 10;
/// The deepest nesting of parentheses within an action.
const PARENTHESES: usize = 16;
/// The most `{{ else }}` in a template.
const ELSES: usize = 32;

/// The reason why a query cannot be rendered. Each `Display` text begins as Flagger's, its typing error included.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// The template or the metric's variables exceed a limit of ours.
    #[error("template parsing failed: {0}")]
    Refused(Limit),
    /// The engine cannot parse the template.
    #[error("{}", failed("parsing", .0))]
    Parsing(String),
    /// The engine cannot evaluate the template; for example, a variable is missing.
    #[error("{}", failed("excution", .0))]
    Execution(String),
}

fn failed(stage: &str, why: &str) -> String {
    excerpt(&format!("template {stage} failed: {why}"))
}

/// A limit that protects the operator from a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Limit {
    /// The number of the metric's variables.
    #[error("the metric has more than 64 variables")]
    Variables,
    /// The size of the metric's variables.
    #[error("the metric's variables are larger than 16 KiB")]
    VariablesText,
    /// The size of the template.
    #[error("the template is larger than 16 KiB")]
    Text,
    /// The number of `{{ else }}`.
    #[error("the template has too many branches")]
    Branches,
    /// The number of templates called, and the size of all actions.
    #[error("the template asks for too much work")]
    Work,
    /// Escapes that the engine reads wrongly or never finishes reading.
    #[error("the escapes \\u and \\x are not supported")]
    Escapes,
    /// The nesting of parentheses.
    #[error("parentheses are nested too deeply")]
    Parentheses,
}

/// The names that a query can use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Model {
    /// The Canary's name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// The target's name.
    pub target: String,
    /// The name of the Service that clients use.
    pub service: String,
    /// The Ingress' name, or the target's.
    pub ingress: String,
    /// The route's name, or the target's; of a Knative Service, its latest Revision's.
    pub route: String,
    /// The metric's window; only built-in and inline metrics have a default (`1m`).
    pub interval: String,
    /// The metric's own values.
    pub variables: BTreeMap<String, String>,
    /// Whether the query is about the primary; `target` then has its name. No query of a user sees this field.
    pub is_primary: bool,
}

impl Model {
    /// The names for a metric of a canary.
    pub fn of(canary: &Canary, metric: &CanaryMetric, default_interval: &str) -> Self {
        let target = &canary.spec.target_ref.name;
        let name =
            |reference: &Option<ObjectRef>| reference.as_ref().map_or(target, |r| &r.name).clone();
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
            is_primary: false,
        }
    }

    /// The same names for the primary, whose workload has this name.
    #[must_use]
    pub fn of_primary(&self, primary: &str) -> Self {
        Self {
            target: primary.to_owned(),
            is_primary: true,
            ..self.clone()
        }
    }

    /// The end of the name of the version's Service.
    pub const fn version(&self) -> &'static str {
        if self.is_primary { "primary" } else { "canary" }
    }
}

thread_local! {
    /// The names for the rendering under way: the engine's functions are plain `fn`s and cannot capture them.
    static MODEL: RefCell<Model> = RefCell::default();
}

fn field(get: fn(&Model) -> String) -> Value {
    MODEL.with_borrow(|model| Value::String(get(model)))
}

/// The metric's variables. They are an object, not a map: the engine renders a missing key of a map, but fails for one of an object, as
/// Flagger's `missingkey=error` does.
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

/// Go's `index`: unlike `variables.k`, it returns an empty text for a missing variable, so that a query can have optional ones.
fn index(args: &[Value]) -> Result<Value, FuncError> {
    match args {
        [Value::Object(map), Value::String(key)] => Ok(map
            .get(key)
            .cloned()
            .unwrap_or_else(|| Value::String(String::new()))),
        _ => gtmpl_ng::funcs::index(args),
    }
}

/// Renders a query. An unknown name or a missing variable is an error, as in Flagger.
pub fn render(text: &str, model: &Model) -> Result<String, RenderError> {
    if let Some(limit) = hazard(text).or_else(|| excess(&model.variables)) {
        return Err(RenderError::Refused(limit));
    }
    MODEL.set(model.clone());
    let mut template = engine();
    template
        .parse(text)
        .map_err(|error| RenderError::Parsing(error.to_string()))?;
    template
        .render(&Context::from(Value::Nil))
        .map_err(|error| RenderError::Execution(without_values(&error.to_string(), model)))
}

/// An error of the engine without the values of variables, which may be secret: the error is sent as an event. A missing variable has
/// Go's text.
fn without_values(error: &str, model: &Model) -> String {
    let missing = error.split_once("no field `");
    let missing = missing.and_then(|(place, rest)| Some((place, rest.split_once('`')?.0)));
    if let Some((place, key)) = missing {
        return format!("{place}map has no entry for key {key:?}");
    }
    let values = model.variables.values().filter(|value| value.len() > 3);
    values.fold(error.to_owned(), |error, value| error.replace(value, "…"))
}

fn engine() -> Template {
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
}

/// Returns the limit that the metric's variables exceed.
fn excess(variables: &BTreeMap<String, String>) -> Option<Limit> {
    if variables.len() > VARIABLES {
        return Some(Limit::Variables);
    }
    let bytes: usize = variables.iter().map(|(key, v)| key.len() + v.len()).sum();
    (bytes > VARIABLES_TEXT).then_some(Limit::VariablesText)
}

/// Returns the limit that a template exceeds, so that it must not reach the engine. The engine's parser recurses for each parenthesis and
/// each `{{ else if }}` until the stack overflows, which ends the process. It also loops forever on `"\u"` and `"\x"`, and misreads longer
/// escapes. This function reads the text exactly as the engine's lexer does, so that no string and no comment can conceal a part of the
/// template.
fn hazard(text: &str) -> Option<Limit> {
    if text.len() > TEXT {
        return Some(Limit::Text);
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
            Err(limit) => return Some(limit),
        }
        actions += action.len() - rest.len();
        if elses > ELSES {
            return Some(Limit::Branches);
        }
        if calls > CALLS || actions > ACTIONS {
            return Some(Limit::Work);
        }
    }
    None
}

/// White space between the words of an action.
const SPACE: [char; 4] = [' ', '\t', '\r', '\n'];

/// Returns the text after an action, or the limit that the action exceeds.
fn after_action(action: &str) -> Result<&str, Limit> {
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
                    return Err(Limit::Escapes);
                }
                chars = after.chars();
                chars.next();
            }
            Some(_) => {}
        }
        if depth > PARENTHESES {
            return Err(Limit::Parentheses);
        }
        rest = chars.as_str();
    }
    Ok(rest.get(2..).unwrap_or_default())
}

/// The index where the engine's lexer ends a literal. (`\\` escapes the next character, except within back quotes.)
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
mod tests;
