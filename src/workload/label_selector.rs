//! Label selectors of workloads, affinities and spread constraints, as Kubernetes reads them.

use serde_json::Value;

use crate::snapshot::pods::{Labels, labels};

/// Whether a `LabelSelector` selects pods with these labels. A missing selector selects none, an empty one selects all.
pub fn matches(selector: &Value, pods: &Labels) -> bool {
    selector.is_object()
        && includes(pods, &labels(selector.get("matchLabels")))
        && expressions(selector).all(|expression| holds(expression, pods))
}

/// Whether pods have all `wanted` labels: how a Service selects pods.
pub fn includes(pods: &Labels, wanted: &Labels) -> bool {
    wanted
        .iter()
        .all(|(key, value)| pods.get(key) == Some(value))
}

/// The labels that all selected pods have: the part of a `LabelSelector` that a Service can have.
pub fn required(selector: &Value) -> Labels {
    let mut required = labels(selector.get("matchLabels"));
    for expression in expressions(selector) {
        if let ("In", [value]) = (operator(expression), values(expression).as_slice()) {
            required.insert(key(expression).to_owned(), (*value).to_owned());
        }
    }
    required
}

/// Labels in messages, as kubectl writes them: `app=web,tier=front`.
pub fn shown(labels: &Labels) -> String {
    let labels: Vec<_> = labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    labels.join(",")
}

fn holds(expression: &Value, pods: &Labels) -> bool {
    let value = pods.get(key(expression)).map(String::as_str);
    let is_among = || value.is_some_and(|value| values(expression).contains(&value));
    match operator(expression) {
        "In" => is_among(),
        "NotIn" => !is_among(),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        _ => false,
    }
}

fn expressions(selector: &Value) -> impl Iterator<Item = &Value> {
    let expressions = selector.get("matchExpressions").and_then(Value::as_array);
    expressions.into_iter().flatten()
}

fn key(expression: &Value) -> &str {
    text(expression, "key")
}

fn operator(expression: &Value) -> &str {
    text(expression, "operator")
}

fn values(expression: &Value) -> Vec<&str> {
    let values = expression.get("values").and_then(Value::as_array);
    values
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

fn text<'a>(expression: &'a Value, field: &str) -> &'a str {
    let text = expression.get(field).and_then(Value::as_str);
    text.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_selector_selects_the_pods_that_kubernetes_selects() {
        let pods = labels(Some(&json!({"app": "web", "tier": "front"})));
        let expression = |operator: &str, key: &str, values: Value| json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]});
        for (selector, expected) in [
            (Value::Null, false),
            (json!({}), true),
            (json!({"matchLabels": {"app": "web"}}), true),
            (json!({"matchLabels": {"app": "web", "x": "y"}}), false),
            (expression("In", "app", json!(["web", "api"])), true),
            (expression("In", "x", json!(["web"])), false),
            (expression("NotIn", "app", json!(["web"])), false),
            (expression("NotIn", "x", json!(["web"])), true),
            (expression("Exists", "tier", Value::Null), true),
            (expression("Exists", "x", Value::Null), false),
            (expression("DoesNotExist", "tier", Value::Null), false),
            (expression("DoesNotExist", "x", Value::Null), true),
            (expression("Unknown", "app", Value::Null), false),
            (
                json!({"matchLabels": {"app": "web"}, "matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["front"]}]}),
                false,
            ),
        ] {
            assert_eq!(matches(&selector, &pods), expected, "{selector}");
        }
    }

    #[test]
    fn a_service_can_have_the_part_of_a_selector_that_asks_for_one_value() {
        let selector = json!({"matchLabels": {"app": "web"}, "matchExpressions": [
            {"key": "tier", "operator": "In", "values": ["front"]}, {"key": "zone", "operator": "In", "values": ["a", "b"]},
            {"key": "old", "operator": "DoesNotExist"}]});
        assert_eq!(shown(&required(&selector)), "app=web,tier=front");
        assert_eq!(shown(&required(&Value::Null)), "");
    }
}
