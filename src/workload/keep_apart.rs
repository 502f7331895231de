//! The rules that keep pods apart: pod anti-affinity and topology spread constraints. A rule that keeps the target's pods apart must keep
//! the primary's pods apart from each other, so it gets the primary's labels (Flagger: `pkg/canary/deployment_controller.go`).

use serde_json::{Value, json};

use super::label_selector::matches;
use crate::snapshot::pods::Labels;

/// The lists of anti-affinity terms: the field, and the place of the term in each entry.
const ANTI_AFFINITY: [(&str, &str); 2] = [
    ("requiredDuringSchedulingIgnoredDuringExecution", ""),
    (
        "preferredDuringSchedulingIgnoredDuringExecution",
        "/podAffinityTerm",
    ),
];

/// The labels of the target's pods, and those that the primary's pods have instead.
#[derive(Clone, Copy, Debug)]
pub struct Renamed<'a> {
    /// The name of the target.
    pub target: &'a str,
    /// The namespace of the pods.
    pub namespace: &'a str,
    /// The labels of the target's pods.
    pub pods: &'a Labels,
    /// The labels that the primary's pods have instead.
    pub on_primary: &'a Labels,
}

/// Gives the template's rules the primary's labels, where a rule selects the target's own pods. As in Flagger, a rule also gets the
/// primary's label if the value of that label on the target's pods is the target's name. Other rules stay unchanged.
pub fn keep_apart(template: &mut Value, renamed: &Renamed<'_>) {
    for_each_rule(template, |rule| {
        let Some(rule_selector) = rule.get("labelSelector") else {
            return;
        };
        let is_own = is_in(rule, renamed.namespace) && matches(rule_selector, renamed.pods);
        for (key, value) in renamed.on_primary {
            if let Some(old) = renamed.pods.get(key)
                && (is_own || old == renamed.target)
            {
                rename(&mut rule["labelSelector"], key, old, value);
            }
        }
    });
}

/// Gives the template's rules the primary's labels as Flagger does: the target's name becomes the primary's, wherever it is the value of
/// one of the `selector_labels`.
pub fn keep_apart_like_flagger(template: &mut Value, target: &str, selector_labels: &[String]) {
    let primary = format!("{target}-primary");
    for_each_rule(template, |rule| {
        if let Some(rule_selector) = rule.get_mut("labelSelector") {
            for key in selector_labels {
                rename(rule_selector, key, target, &primary);
            }
        }
    });
}

/// Calls `change` with each topology spread constraint and each term of a pod anti-affinity.
fn for_each_rule(template: &mut Value, mut change: impl FnMut(&mut Value)) {
    let Some(spec) = template.get_mut("spec") else {
        return;
    };
    let constraints = spec.get_mut("topologySpreadConstraints");
    let constraints = constraints.and_then(Value::as_array_mut);
    constraints.into_iter().flatten().for_each(&mut change);
    for (list, term) in ANTI_AFFINITY {
        let entries = spec.pointer_mut(&format!("/affinity/podAntiAffinity/{list}"));
        let entries = entries.and_then(Value::as_array_mut).into_iter().flatten();
        entries
            .filter_map(|entry| entry.pointer_mut(term))
            .for_each(&mut change);
    }
}

/// Whether a term of an affinity is about pods of this namespace, in which the pods of the template are.
fn is_in(term: &Value, namespace: &str) -> bool {
    let namespaces = term.get("namespaces").and_then(Value::as_array);
    let namespaces = namespaces.filter(|namespaces| !namespaces.is_empty());
    let is_listed = namespaces.map(|list| list.iter().any(|listed| listed == namespace));
    let selects_all = |selector: &Value| *selector == json!({});
    match term.get("namespaceSelector").filter(|all| !all.is_null()) {
        Some(selector) => selects_all(selector) || is_listed == Some(true),
        None => is_listed.unwrap_or(true),
    }
}

/// Replaces a value of a label in a label selector.
fn rename(selector: &mut Value, key: &str, old: &str, new: &str) {
    let expressions = selector.get_mut("matchExpressions");
    let expressions = expressions.and_then(Value::as_array_mut);
    for expression in expressions.into_iter().flatten() {
        if expression.get("key").and_then(Value::as_str) == Some(key)
            && let Some(values) = expression.get_mut("values").and_then(Value::as_array_mut)
            && let Some(value) = values.iter_mut().find(|value| value.as_str() == Some(old))
        {
            *value = json!(new);
        }
    }
    let label = selector.pointer_mut("/matchLabels");
    if let Some(value) = label.and_then(|labels| labels.get_mut(key))
        && value.as_str() == Some(old)
    {
        *value = json!(new);
    }
}

#[cfg(test)]
mod tests;
