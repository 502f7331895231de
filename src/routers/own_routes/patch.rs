//! The patch that gives rules of a route their weights.

use serde_json::{Value, json};

use super::{kinds::Form, rules::Rule};
use crate::{
    api::percent::Percent,
    routers::route::full_object,
    snapshot::{Action, ObjectRef, Weights, Write},
    workload::patch::conditional,
};

/// The write that gives these rules their weights; `None` if they have them. All rules are in it, so that equal weights are equal writes.
pub fn patch(
    object: &ObjectRef,
    route: &Value,
    rules: &[Rule<'_>],
    weights: &Weights,
) -> Option<Write> {
    if rules.iter().all(|rule| rule.has(weights.canary)) {
        return None;
    }
    let operations = operations(object, route, rules, weights.canary);
    Some(weighed(object, route, operations))
}

/// The write with these operations, if the route has not changed since.
pub fn weighed(object: &ObjectRef, route: &Value, operations: Vec<Value>) -> Write {
    Write {
        object: object.clone(),
        action: Action::Patch(conditional(route, operations)),
        failure: format!("{} update error: ", full_object(object)),
    }
}

/// The operations that give the rules of a route the weights of a percentage, if the rules and backends are still in their places.
pub fn operations(
    object: &ObjectRef,
    route: &Value,
    rules: &[Rule<'_>],
    percent: Percent,
) -> Vec<Value> {
    let form = Form::of(object);
    let test = |path: String, value: &str| json!({"op": "test", "path": path, "value": value});
    // `add` replaces a field that exists.
    let add = |path: String, value: Value| json!({"op": "add", "path": path, "value": value});
    let mut operations = Vec::new();
    for rule in rules {
        let place = rule.place;
        if let Some(name) = rule.name {
            operations.push(test(format!("{}/name", place.path()), name));
        }
        for backend in [Some(rule.stable), rule.canary].into_iter().flatten() {
            let name = form.name_path(place, backend.index);
            operations.push(test(name, backend.service));
        }
        let [of_stable, of_canary] = rule.split(percent);
        let weight = |backend: usize| form.weight_path(place, backend);
        operations.push(add(weight(rule.stable.index), json!(of_stable)));
        match (rule.canary, rule.needs_canary(percent)) {
            (Some(canary), true) => operations.push(add(weight(canary.index), json!(of_canary))),
            (Some(canary), false) => {
                let path = form.backend_path(place, canary.index);
                operations.push(json!({"op": "remove", "path": path}));
            }
            (None, true) => {
                let stable = route.pointer(&form.backend_path(place, rule.stable.index));
                let backend =
                    stable.map(|stable| form.leading_to(stable, &rule.canary_service, of_canary));
                let path = form.backend_path(place, rule.stable.index + 1);
                operations.extend(backend.map(|backend| add(path, backend)));
            }
            (None, false) => {}
        }
    }
    operations
}
