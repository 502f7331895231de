mod kinds;
mod tenths;

use serde_json::{Value, json};

use super::*;
use crate::{
    routers::tests::{canary_analysis, selector, snapshot},
    snapshot::{Action, Kind},
};

/// A rule with these weights of the Service that clients call and of the canary's.
fn rule(name: &str, weights: [u64; 2]) -> Value {
    json!({"name": name, "matches": [{"path": {"type": "PathPrefix", "value": format!("/{name}")}}],
        "filters": [{"type": "URLRewrite", "urlRewrite": {"hostname": "new.example.com"}}], "backendRefs": [
            {"group": "", "kind": "Service", "name": "podinfo", "port": 80, "weight": weights[0]},
            {"group": "", "kind": "Service", "name": "podinfo-canary", "port": 80, "weight": weights[1]}]})
}

/// A user's route in the namespace `test`.
fn route(kind: Kind, name: &str, rules: Value) -> (ObjectRef, Value) {
    let metadata = json!({"name": name, "namespace": "test", "uid": "r", "generation": 3, "labels": {"team": "a"}});
    let spec = json!({"parentRefs": [{"name": "public"}], "rules": rules});
    let object = json!({"apiVersion": kind.api_version(), "kind": kind.name(), "metadata": metadata, "spec": spec});
    (kind.reference("test", name), object)
}

/// A snapshot of a Canary with these `routeRefs`, and of these routes.
fn with(refs: Value, routes: impl IntoIterator<Item = (ObjectRef, Value)>) -> Snapshot {
    let service = json!({"port": 80, "routeRefs": refs});
    let mut snapshot = snapshot("kubernetes", service, canary_analysis(), json!({}));
    snapshot.objects.extend(routes);
    snapshot
}

/// A snapshot of a Canary that names the HTTPRoute `web`, with these rules.
fn web(rules: Value) -> Snapshot {
    let refs = json!([{"kind": "HTTPRoute", "name": "web"}]);
    with(refs, [route(Kind::HttpRoute, "web", rules)])
}

/// Carries out the writes as the API server would.
fn apply(snapshot: &mut Snapshot, writes: Vec<Write>) {
    for write in writes {
        let Action::Patch(patch) = write.action else {
            panic!("{write:?} is no patch")
        };
        let patch: json_patch::Patch = serde_json::from_value(patch).unwrap();
        let object = snapshot.objects.get_mut(&write.object).unwrap();
        json_patch::patch(object, &patch).unwrap();
    }
}

fn repairs(snapshot: &Snapshot, weights: &Weights) -> Result<Vec<Write>, String> {
    let repairs = OwnRoutes.reconcile(snapshot, &selector(), weights);
    repairs.map_err(|error| error.to_string())
}

fn withdrawals(snapshot: &Snapshot) -> Result<Vec<Write>, String> {
    let writes = OwnRoutes.set_weights(snapshot, &Weights::PRIMARY);
    writes.map_err(|error| error.to_string())
}

fn weights_of(snapshot: &Snapshot, name: &str, rule: usize) -> Vec<u64> {
    let route = snapshot
        .objects
        .iter()
        .find(|(object, _)| object.name == name);
    let backends = route.unwrap().1["spec"]["rules"][rule]["backendRefs"].clone();
    let backends = backends.as_array().unwrap().iter();
    backends
        .map(|backend| backend["weight"].as_u64().unwrap())
        .collect()
}

/// The API server refuses the patch if anybody has moved, renamed or edited a rule since.
#[test]
fn a_write_tests_the_names_of_rules_and_backends_and_the_version_of_the_spec() {
    let snapshot = web(json!([rule("api", [100, 0])]));
    let writes = OwnRoutes
        .set_weights(&snapshot, &Weights::canary(10))
        .unwrap();
    let [write] = &writes[..] else {
        panic!("{writes:?}")
    };
    let test = |path: &str, value: Value| json!({"op": "test", "path": path, "value": value});
    let add = |path: &str, value: u64| json!({"op": "add", "path": path, "value": value});
    let expected = json!([
        test("/metadata/uid", json!("r")),
        test("/metadata/generation", json!(3)),
        test("/spec/rules/0/name", json!("api")),
        test("/spec/rules/0/backendRefs/0/name", json!("podinfo")),
        test("/spec/rules/0/backendRefs/1/name", json!("podinfo-canary")),
        add("/spec/rules/0/backendRefs/0/weight", 90),
        add("/spec/rules/0/backendRefs/1/weight", 10),
    ]);
    assert_eq!(write.action, Action::Patch(expected));
    assert_eq!(write.refusal("no"), "HTTPRoute web.test update error: no");
}

/// Otherwise a fight with another writer, who writes other weights each time, would not be seen as one.
#[test]
fn writes_of_equal_weights_are_equal_whatever_the_route_had_before() {
    let content = |weights: [u64; 2]| {
        let snapshot = web(json!([rule("api", weights), rule("site", [90, 10])]));
        let writes = repairs(&snapshot, &Weights::canary(10)).unwrap();
        writes[0].content()
    };
    assert_eq!(content([100, 0]), content([50, 50]));
}

#[test]
fn rules_that_are_not_named_and_rules_for_one_version_stay_as_they_are() {
    let mut only_canary = rule("debug", [0, 0]);
    only_canary["backendRefs"].as_array_mut().unwrap().remove(0);
    only_canary["backendRefs"][0]["weight"] = json!(1);
    let mut only_stable = rule("old", [7, 0]);
    only_stable["backendRefs"].as_array_mut().unwrap().remove(1);
    let rules = json!([
        only_canary,
        rule("api", [100, 0]),
        only_stable,
        rule("site", [60, 40])
    ]);
    for (names, api, site) in [
        (json!(["api"]), vec![70, 30], vec![60, 40]),
        (json!([]), vec![70, 30], vec![70, 30]),
    ] {
        let refs = json!([{"kind": "HTTPRoute", "name": "web", "rules": names}]);
        let mut snapshot = with(refs, [route(Kind::HttpRoute, "web", rules.clone())]);
        let writes = repairs(&snapshot, &Weights::canary(30)).unwrap();
        apply(&mut snapshot, writes);
        assert_eq!(weights_of(&snapshot, "web", 0), [1]);
        assert_eq!(weights_of(&snapshot, "web", 1), api);
        assert_eq!(weights_of(&snapshot, "web", 2), [7]);
        assert_eq!(weights_of(&snapshot, "web", 3), site);
    }
}

#[test]
fn a_third_backend_keeps_its_share_and_the_primarys_service_is_as_good_as_the_apex() {
    let mut rule = rule("api", [160, 40]);
    rule["backendRefs"][0]["name"] = json!("podinfo-primary");
    let other = json!({"name": "legacy", "port": 80, "weight": 50});
    rule["backendRefs"].as_array_mut().unwrap().insert(1, other);
    let mut snapshot = web(json!([rule]));
    assert_eq!(
        OwnRoutes.current_weights(&snapshot),
        Ok(Weights::canary(20))
    );
    let writes = repairs(&snapshot, &Weights::canary(50)).unwrap();
    apply(&mut snapshot, writes);
    assert_eq!(weights_of(&snapshot, "web", 0), [100, 50, 100]);
}

/// A list of rules with one rule that has this change.
fn changed(change: impl Fn(&mut Value)) -> Value {
    let mut rule = rule("api", [100, 0]);
    change(&mut rule);
    json!([rule])
}

fn backends(rule: &mut Value) -> &mut Vec<Value> {
    rule["backendRefs"].as_array_mut().unwrap()
}

/// Rules that the operator cannot use, with the reason: rules or backends are missing, or there twice.
fn wrong_rules() -> Vec<(Value, Value, &'static str)> {
    let (named, unnamed) = (json!(["api"]), json!([]));
    let doubled = |i: usize| {
        changed(|rule| {
            let backend = rule["backendRefs"][i].clone();
            backends(rule).push(backend);
        })
    };
    let without = |i: usize| changed(|rule| drop(backends(rule).remove(i)));
    let of =
        |field: &str, value: &str| changed(|rule| rule["backendRefs"][1][field] = json!(value));
    let no_rule = "has no rule that leads to both podinfo and podinfo-canary: add the backend podinfo-canary with the weight 0";
    let no_canary = "does not lead to podinfo-canary in rule api: add this backend";
    let both = changed(|rule| {
        let other = json!({"name": "podinfo-primary", "port": 80, "weight": 10});
        backends(rule).push(other);
    });
    let twice = json!([rule("api", [100, 0]), rule("api", [100, 0])]);
    vec![
        (
            named.clone(),
            json!([rule("web", [100, 0])]),
            "has no rule named api",
        ),
        (named.clone(), json!([]), "has no rule named api"),
        (named.clone(), twice, "has more than one rule named api"),
        (named.clone(), without(1), no_canary),
        (named.clone(), of("namespace", "other"), no_canary),
        (named.clone(), of("kind", "ServiceImport"), no_canary),
        (named.clone(), of("group", "example.com"), no_canary),
        (
            named.clone(),
            without(0),
            "does not lead to podinfo in rule api: add this backend",
        ),
        (unnamed.clone(), without(1), no_rule),
        (unnamed, json!("rules"), no_rule),
        (
            named.clone(),
            doubled(0),
            "names podinfo more than once in rule api",
        ),
        (
            named.clone(),
            doubled(1),
            "names podinfo-canary more than once in rule api",
        ),
        (
            named,
            both,
            "leads to both podinfo and podinfo-primary in rule api: both are the promoted version, so remove one of them",
        ),
    ]
}

/// Rules whose weights cannot be used, with the reason.
fn wrong_weights() -> Vec<(Value, Value, &'static str)> {
    let zero =
        "has the weights 0 for both versions in rule api: give the promoted version the weight 100";
    let small = "has weights in rule api that add up to 15 for both versions: they must add up to 100 or more, so that each percent can be set";
    let sticky = "has sessionPersistence in rule api, which keeps clients on the canary whatever the weights are, also after a rollback: remove it, or set affinity: accept in routeRefs";
    let null = changed(|rule| rule["backendRefs"][0]["weight"] = Value::Null);
    let session = changed(|rule| rule["sessionPersistence"] = json!({"type": "Cookie"}));
    vec![
        (json!(["api"]), json!([rule("api", [0, 0])]), zero),
        (json!(["api"]), null, zero),
        (json!(["api"]), json!([rule("api", [15, 0])]), small),
        (json!(["api"]), session, sticky),
    ]
}

/// Each of these rules holds up steps, and no rollback: no request goes to the canary.
#[test]
fn a_route_that_cannot_be_used_is_refused_with_a_reason_and_keeps_its_weights() {
    for (names, rules, why) in wrong_rules().into_iter().chain(wrong_weights()) {
        let refs = json!([{"kind": "HTTPRoute", "name": "web", "rules": names}]);
        let snapshot = with(refs, [route(Kind::HttpRoute, "web", rules)]);
        for weights in [Weights::PRIMARY, Weights::canary(10)] {
            assert_eq!(
                repairs(&snapshot, &weights),
                Err(format!("HTTPRoute web.test {why}"))
            );
        }
        assert_eq!(withdrawals(&snapshot), Ok(vec![]), "{why}");
        assert_eq!(OwnRoutes.current_weights(&snapshot), Ok(Weights::PRIMARY));
    }
}

#[test]
fn a_route_that_is_named_twice_is_refused_however_its_namespace_is_written() {
    let refs = json!([{"kind": "HTTPRoute", "name": "web"}, {"kind": "HTTPRoute", "name": "web", "namespace": "test"}]);
    let snapshot = with(refs, []);
    let refused = named(&snapshot.canary).unwrap_err().to_string();
    assert_eq!(refused, "routeRefs: HTTPRoute web is named twice");
}

/// The first rule was renamed in the route and then in the Canary, so the record has its old name.
#[test]
fn a_rule_that_was_renamed_in_the_route_and_the_canary_needs_no_return() {
    let refs = json!([{"kind": "HTTPRoute", "name": "web", "rules": ["new"]}]);
    let snapshot = with(
        refs,
        [route(
            Kind::HttpRoute,
            "web",
            json!([rule("new", [60, 40])]),
        )],
    );
    let kept = named(&snapshot.canary).unwrap();
    let mut before = kept.clone();
    before[0].rules = vec!["old".to_owned()];
    assert_eq!(
        super::withdrawals(&snapshot, &before, &kept),
        Ok(Vec::new())
    );
    assert!(super::withdrawals(&snapshot, &before, &[]).is_err());
}

#[test]
fn weights_that_the_operator_has_set_are_read_as_it_has_set_them() {
    for sum in [100, 101, 150, 997, 1000, 1_000_000] {
        for percent in 0..=100 {
            let canary = (sum * percent + 50) / 100;
            let snapshot = web(json!([rule("api", [sum - canary, canary])]));
            let read = OwnRoutes.current_weights(&snapshot).unwrap();
            assert_eq!(u64::from(read.canary.tenths()), 10 * percent, "{sum}");
        }
    }
}

#[test]
fn a_rollback_takes_the_weight_from_each_rule_that_it_knows_and_reports_one_that_it_cannot_tell() {
    let refs = json!([{"kind": "HTTPRoute", "name": "web", "rules": ["api", "site"]}]);
    let rules = |renamed: [u64; 2]| json!([rule("api", [70, 30]), rule("page", renamed)]);
    // The renamed rule gives the canary nothing, so the other one is enough.
    let mut snapshot = with(
        refs.clone(),
        [route(Kind::HttpRoute, "web", rules([100, 0]))],
    );
    assert_eq!(
        OwnRoutes.current_weights(&snapshot),
        Ok(Weights::canary(30))
    );
    let writes = withdrawals(&snapshot).unwrap();
    apply(&mut snapshot, writes);
    assert_eq!(weights_of(&snapshot, "web", 0), [100, 0]);
    let mut snapshot = with(refs, [route(Kind::HttpRoute, "web", rules([70, 30]))]);
    let why = "HTTPRoute web.test has no rule named site";
    let writes = withdrawals(&snapshot).unwrap();
    apply(&mut snapshot, writes);
    assert_eq!(weights_of(&snapshot, "web", 0), [100, 0]);
    assert_eq!(withdrawals(&snapshot), Err(why.to_owned()));
    let weights = OwnRoutes.current_weights(&snapshot);
    assert_eq!(weights.unwrap_err().to_string(), why);
    // Weights that add up to less than 100 can still be given to the promoted version.
    let mut snapshot = web(json!([rule("api", [10, 5])]));
    let writes = withdrawals(&snapshot).unwrap();
    apply(&mut snapshot, writes);
    assert_eq!(weights_of(&snapshot, "web", 0), [15, 0]);
}

#[test]
fn a_deleted_route_holds_up_steps_and_no_rollback() {
    let refs = json!([{"kind": "HTTPRoute", "name": "web"}, {"kind": "GRPCRoute", "name": "web"}]);
    let grpc = route(Kind::GrpcRoute, "web", json!([rule("api", [70, 30])]));
    let mut snapshot = with(refs, [grpc]);
    let why =
        "HTTPRoute web.test get error: httproutes.gateway.networking.k8s.io \"web\" not found";
    assert_eq!(
        repairs(&snapshot, &Weights::canary(30)),
        Err(why.to_owned())
    );
    assert_eq!(
        OwnRoutes.current_weights(&snapshot),
        Ok(Weights::canary(30))
    );
    let writes = withdrawals(&snapshot).unwrap();
    assert_eq!(writes.len(), 1);
    apply(&mut snapshot, writes);
    assert_eq!(OwnRoutes.current_weights(&snapshot), Ok(Weights::PRIMARY));
}

#[test]
fn the_greatest_weight_of_several_rules_counts_and_no_share_is_rounded_to_nothing() {
    let weights = |first, second| {
        let snapshot = web(json!([rule("api", first), rule("site", second)]));
        OwnRoutes.current_weights(&snapshot).unwrap().canary
    };
    assert_eq!(weights([100, 0], [80, 20]), 20.into());
    assert_eq!(weights([999_999, 1], [100, 0]), 1.into());
    assert_eq!(weights([1, 199], [100, 0]), 100.into());
    assert_eq!(weights([0, 0], [100, 0]), 0.into());
}

#[test]
fn routes_of_another_namespace_name_the_services_with_their_namespace() {
    let mut rule = rule("api", [100, 0]);
    let refs = json!([{"kind": "HTTPRoute", "name": "web", "namespace": "infra"}]);
    for (namespace, is_ours) in [
        (json!("test"), true),
        (json!("infra"), false),
        (Value::Null, false),
    ] {
        for backend in rule["backendRefs"].as_array_mut().unwrap() {
            backend["namespace"] = namespace.clone();
        }
        let (_, mut object) = route(Kind::HttpRoute, "web", json!([rule]));
        object["metadata"]["namespace"] = json!("infra");
        let name = Kind::HttpRoute.reference("infra", "web");
        let mut snapshot = with(refs.clone(), [(name.clone(), object)]);
        let writes = repairs(&snapshot, &Weights::canary(10));
        assert_eq!(writes.is_ok(), is_ours, "{namespace}");
        assert!(OwnRoutes.sources(&snapshot).contains(&name));
        let mut settings = snapshot.settings.as_ref().clone();
        settings.no_cross_namespace_refs = true;
        snapshot.settings = std::sync::Arc::new(settings);
        let blocked = repairs(&snapshot, &Weights::canary(10)).unwrap_err();
        assert!(
            blocked.starts_with(
                "can't access HTTPRoute web.infra, cross-namespace references are blocked"
            ),
            "{blocked}"
        );
        assert!(OwnRoutes.sources(&snapshot).is_empty());
    }
}

#[test]
fn canaries_may_share_a_route_but_no_rule() {
    let rules = json!([rule("api", [100, 0]), rule("site", [100, 0])]);
    let refs = |names: Value| json!([{"kind": "HTTPRoute", "name": "web", "rules": names}]);
    let of = |names: Value| with(refs(names), [route(Kind::HttpRoute, "web", rules.clone())]);
    for (own, other, shares) in [
        (json!(["api"]), json!(["site"]), false),
        (json!(["api"]), json!(["api", "site"]), true),
        (json!(["api"]), json!([]), true),
        (json!([]), json!([]), true),
        (json!(["api"]), json!(["none"]), false),
    ] {
        let shared = shared_with(&of(own), &of(other).canary);
        assert_eq!(shared.is_some(), shares);
    }
    // Another Canary without names uses only the rules that lead to its own Services.
    let mut other = of(json!([])).canary;
    other.spec.service.name = Some("shop".to_owned());
    assert_eq!(shared_with(&of(json!([])), &other), None);
}

/// The reports of a parent, about the generation 3 unless they say another one.
fn reported(parent: &Value, conditions: &[(&str, &str, i64)]) -> Value {
    let conditions: Vec<_> = conditions
        .iter()
        .map(|(type_, status, generation)| {
            json!({"type": type_, "status": status, "reason": "Why", "message": "because", "observedGeneration": generation})
        })
        .collect();
    json!({"parentRef": parent, "conditions": conditions})
}

#[test]
fn every_parent_of_any_kind_must_have_accepted_the_whole_route() {
    let gateway = json!({"name": "public"});
    let full = json!({"group": "gateway.networking.k8s.io", "kind": "Gateway", "namespace": "test", "name": "public"});
    let good = [("Accepted", "True", 3), ("ResolvedRefs", "True", 3)];
    for parent in [
        gateway.clone(),
        json!({"kind": "ListenerSet", "name": "extra"}),
        json!({"group": "gateway.networking.x-k8s.io", "kind": "XListenerSet", "name": "old", "sectionName": "http"}),
        json!({"group": "", "kind": "Service", "name": "podinfo", "port": 80}),
    ] {
        for (condition, is_accepted, lags) in [
            (("Accepted", "True", 3), true, false),
            (("Accepted", "False", 3), false, false),
            (("Accepted", "True", 2), false, true),
            (("ResolvedRefs", "False", 3), false, false),
            (("ResolvedRefs", "Unknown", 3), false, false),
            (("PartiallyInvalid", "True", 3), false, false),
            (("PartiallyInvalid", "False", 3), true, false),
            (("Programmed", "False", 1), true, false),
        ] {
            let mut snapshot = web(json!([rule("api", [100, 0])]));
            let name = Kind::HttpRoute.reference("test", "web");
            let route = snapshot.objects.get_mut(&name).unwrap();
            route["spec"]["parentRefs"] = json!([gateway, parent]);
            route["status"]["parents"] = json!([
                reported(&full, &good),
                reported(&parent, &[good[0], condition]),
                // This parent is named no more.
                reported(&json!({"name": "gone"}), &[("Accepted", "False", 1)]),
            ]);
            let accepted = OwnRoutes.accepted(&snapshot);
            assert_eq!(accepted.is_ok(), is_accepted, "{parent} {condition:?}");
            assert_eq!(
                OwnRoutes.lag(&snapshot).is_some(),
                lags,
                "{parent} {condition:?}"
            );
            if let Err(why) = accepted {
                let kind = parent["kind"].as_str().unwrap_or("Gateway");
                let (type_, status, observed) = condition;
                let name = parent["name"].as_str().unwrap();
                let expected = format!(
                    "HTTPRoute web.test is not ready at {kind} {name} ({type_}: {status}, observed generation: {observed}, current generation: 3): Why: because"
                );
                assert_eq!(why.to_string(), expected);
            }
        }
    }
}

#[test]
fn what_needs_rules_of_the_operator_is_refused() {
    let mut snapshot = web(json!([rule("api", [100, 0])]));
    assert_eq!(unsupported(&snapshot.canary), None);
    for (analysis, field) in [
        (
            json!({"iterations": 3, "match": [{"headers": {"a": {"exact": "b"}}}]}),
            "match",
        ),
        (
            json!({"stepWeight": 10, "sessionAffinity": {"cookieName": "a"}}),
            "sessionAffinity",
        ),
    ] {
        snapshot.canary.spec.analysis = serde_json::from_value(analysis).unwrap();
        let why = repairs(&snapshot, &Weights::PRIMARY).unwrap_err();
        let expected = format!(
            "spec.analysis.{field} needs rules of its own, but with routeRefs the operator only sets weights"
        );
        assert_eq!(why, expected);
    }
}

#[test]
fn routes_and_rules_that_the_canary_names_no_more_are_given_back() {
    let rules = json!([rule("api", [70, 30]), rule("site", [70, 30])]);
    let recorded = "HTTPRoute/test/web:api,site HTTPRoute/test/gone";
    for (refs, api, site) in [
        (json!([]), [100, 0], [100, 0]),
        (
            json!([{"kind": "HTTPRoute", "name": "web", "rules": ["api"]}]),
            [70, 30],
            [100, 0],
        ),
        (
            json!([{"kind": "HTTPRoute", "name": "web"}]),
            [70, 30],
            [70, 30],
        ),
        (
            json!([{"kind": "GRPCRoute", "name": "web"}]),
            [100, 0],
            [100, 0],
        ),
    ] {
        let mut snapshot = with(refs, [route(Kind::HttpRoute, "web", rules.clone())]);
        let condition = json!([{"type": "RouteRefs", "status": "True", "reason": "WeightsSet", "message": recorded}]);
        snapshot.canary.status = serde_json::from_value(json!({"conditions": condition})).unwrap();
        let kept = named(&snapshot.canary).unwrap();
        let writes = given_back(&snapshot, &kept).unwrap();
        apply(&mut snapshot, writes);
        assert_eq!(weights_of(&snapshot, "web", 0), api);
        assert_eq!(weights_of(&snapshot, "web", 1), site);
    }
}
