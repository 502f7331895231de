//! Copies of routes of the user (mode `Template`). The user's route has no parents, so it leads no request, and no tool that applies it can
//! change a weight. The operator makes a copy of its spec with parents and weights, and follows its changes. Labels and annotations are not
//! copied: a GitOps tool would take the copy for an object of its own and delete it.

use serde_json::{Map, Value, json};

use super::{
    acceptance,
    objects::{live, of_route, with_weights},
    patch::{operations, patch, weighed},
    rules::{self, Rule},
    used::Used,
};
use crate::{
    api::{
        canary::Canary,
        percent::Percent,
        route_refs::{Header, Mode, RouteRef},
    },
    routers::{
        RouteError,
        route::{full_object, has_parents, items, new_object},
    },
    snapshot::{Action, ObjectRef, Snapshot, Weights, Write},
    workload::{metadata::owner_reference, ownership::Ownership},
};

/// The beginning of the names of rules for testers.
const DEBUG: &str = "flagger-debug-";
/// The fields of a route's spec with its parents.
const PARENTS: [&str; 2] = ["parentRefs", "useDefaultGateways"];

/// The write that creates or updates a copy; `None` if the copy is as it must be.
///
/// # Errors
/// The user's route cannot be read, or a rule of it cannot be used.
pub fn copied(
    snapshot: &Snapshot,
    used: &Used,
    template: &ObjectRef,
    weights: &Weights,
) -> Result<Option<Write>, RouteError> {
    let source = live(snapshot, template)?;
    if weights.canary > Percent::ZERO && has_parents(source) {
        return Err(RouteError::NoWeights(format!(
            "{} has parents, so it leads requests beside its copy: remove its parentRefs",
            full_object(template)
        )));
    }
    let mut spec = spec(&snapshot.canary, used, source, weights)
        .map_err(|problem| of_route(template, problem))?;
    let entry = entry(&snapshot.canary, template);
    let parents = entry.parent_refs.unwrap_or_default();
    spec.insert("parentRefs".to_owned(), parents.into());
    if let Some(header) = entry
        .debug_header
        .filter(|_| weights.canary > Percent::ZERO)
    {
        lead_debugging(&mut spec, &snapshot.canary, &header);
    }
    let spec = Value::Object(spec);
    // A copy that an earlier Canary, or another one, has left behind.
    let is_orphan = |copy: &Value| Ownership::of(copy, &snapshot.canary) != Ownership::Own;
    let (action, failure) = match snapshot.objects.get(&used.route) {
        None => {
            let (kind, name) = (used.route.kind, &used.route.name);
            let object = new_object(snapshot, kind, name, [Map::new(), Map::new()], spec);
            (Action::Create(object), "create error: ")
        }
        Some(copy) if !is_orphan(copy) && is_same(&copy["spec"], &spec) => return Ok(None),
        Some(copy) => {
            let mut wanted = copy.clone();
            if is_orphan(copy) {
                let owner = owner_reference(&snapshot.canary);
                wanted["metadata"]["ownerReferences"] = json!([owner]);
            }
            wanted["spec"] = spec;
            (Action::Replace(wanted), "update error: ")
        }
    };
    Ok(Some(Write {
        object: used.route.clone(),
        action,
        failure: format!("{} {failure}", full_object(&used.route)),
    }))
}

/// The spec of the copy without parents.
fn spec(
    canary: &Canary,
    used: &Used,
    source: &Value,
    weights: &Weights,
) -> Result<Map<String, Value>, rules::Problem> {
    let chosen = rules::of_template(source, canary, used).into_iter();
    let chosen: Vec<Rule<'_>> = chosen.collect::<Result<_, _>>()?;
    chosen.iter().try_for_each(Rule::check)?;
    let operations = operations(&used.route, source, &chosen, weights.canary);
    let mut copy = json!({"spec": source["spec"]});
    let patched = serde_json::from_value::<json_patch::Patch>(operations.into())
        .is_ok_and(|patch| json_patch::patch(&mut copy, &patch).is_ok());
    let Some(spec) = copy["spec"].as_object().filter(|_| patched) else {
        return Err(rules::Problem::NoSpec);
    };
    let mut spec = spec.clone();
    spec.retain(|field, _| !PARENTS.contains(&field.as_str()));
    Ok(spec)
}

/// The entry of the Canary for a route.
fn entry(canary: &Canary, template: &ObjectRef) -> RouteRef {
    let is_it = |it: &RouteRef| {
        it.mode == Some(Mode::Template)
            && it.kind == template.kind.name()
            && it.name == template.name
    };
    let refs = canary.route_refs().unwrap_or_default();
    refs.into_iter().find(is_it).unwrap_or_default()
}

/// Puts a rule before all others for each rule that leads to the canary: it leads the requests with the header to the canary alone.
fn lead_debugging(spec: &mut Map<String, Value>, canary: &Canary, header: &Header) {
    let Some(rules) = spec.get_mut("rules").and_then(Value::as_array_mut) else {
        return;
    };
    let condition = json!({"type": "Exact", "name": header.name, "value": header.value});
    let of_canary = |rule: &Value| {
        let mut backends = items(rule, "/backendRefs");
        backends
            .find(|it| it["name"] == canary.canary_name())
            .cloned()
    };
    let mut first = Vec::new();
    for rule in rules.iter() {
        let Some(mut backend) = of_canary(rule) else {
            continue;
        };
        backend["weight"] = json!(1);
        let mut debug = rule.clone();
        debug["name"] = json!(format!("{DEBUG}{}", first.len()));
        debug["backendRefs"] = json!([backend]);
        // Otherwise a tester without the header stays on the canary.
        if let Some(debug) = debug.as_object_mut() {
            debug.remove("sessionPersistence");
        }
        if items(rule, "/matches").next().is_none() {
            debug["matches"] = json!([{}]);
        }
        let matches = debug["matches"].as_array_mut();
        for one in matches.into_iter().flatten() {
            match one.get_mut("headers").and_then(Value::as_array_mut) {
                Some(headers) => headers.push(condition.clone()),
                None => one["headers"] = json!([condition]),
            }
        }
        first.push(debug);
    }
    rules.splice(..0, first);
}

/// Whether a copy has this spec. The API server adds defaults to the parents, and the rest comes from an object that has them.
fn is_same(live: &Value, wanted: &Value) -> bool {
    let without_parents = |spec: &Value| {
        let mut spec = spec.as_object().cloned().unwrap_or_default();
        spec.remove("parentRefs");
        spec
    };
    let parents = |spec: &Value| -> Vec<_> {
        let parents = items(spec, "/parentRefs");
        parents.map(|it| acceptance::identity(it, "")).collect()
    };
    without_parents(live) == without_parents(wanted) && parents(live) == parents(wanted)
}

/// The write that takes the canary's weight from a copy, and removes the rules for testers; `None` if it has neither.
pub fn withdrawn(copy: &ObjectRef, live: &Value, rules: &[Rule<'_>]) -> Option<Write> {
    let first = items(live, "/spec/rules").map(|rule| &rule["name"]);
    let is_debug = |name: &&Value| name.as_str().is_some_and(|name| name.starts_with(DEBUG));
    let debug: Vec<_> = first.take_while(is_debug).collect();
    if debug.is_empty() {
        return patch(copy, live, rules, &Weights::PRIMARY);
    }
    let mut operations = operations(copy, live, rules, Percent::ZERO);
    // The rules after a removed one get its place.
    for name in debug {
        operations.push(json!({"op": "test", "path": "/spec/rules/0/name", "value": name}));
        operations.push(json!({"op": "remove", "path": "/spec/rules/0"}));
    }
    Some(weighed(copy, live, operations))
}

/// The write that takes the parents from a copy that the Canary does not name any more, so that it leads no request. The user's route must
/// lead the requests before. `None` if the copy has no parents.
///
/// # Errors
/// The user's route has no parents, or they have not accepted it.
pub fn retired(
    snapshot: &Snapshot,
    used: &Used,
    template: &ObjectRef,
) -> Result<Option<Write>, RouteError> {
    let copy = &used.route;
    let existing = with_weights(snapshot, used)?;
    let Some(existing) = existing.filter(|copy| has_parents(copy)) else {
        return Ok(None);
    };
    match live(snapshot, template) {
        Ok(source) => leads(existing, template, source)?,
        // A user who has deleted the route wants no requests from it.
        Err(RouteError::NotFound { .. }) => {}
        Err(why) => return Err(why),
    }
    let remove = json!({"op": "remove", "path": "/spec/parentRefs"});
    Ok(Some(weighed(copy, existing, vec![remove])))
}

/// Checks that a route of the user leads the requests of its copy.
fn leads(copy: &Value, template: &ObjectRef, source: &Value) -> Result<(), RouteError> {
    let name = full_object(template);
    if !has_parents(source) {
        return Err(RouteError::NoWeights(format!(
            "{name} has no parents, so its copy still leads the requests: give it parentRefs"
        )));
    }
    let refusal = acceptance::refusal(template, source, |it| !it.is_good || !it.is_current);
    if let Some(why) = refusal {
        return Err(why);
    }
    let is_reported = |route: &Value| items(route, "/status/parents").next().is_some();
    if is_reported(copy) && !is_reported(source) {
        return Err(RouteError::NotAccepted(format!(
            "{name} is not accepted by its parents yet"
        )));
    }
    Ok(())
}
