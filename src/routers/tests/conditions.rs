//! Each condition of a Canary is in the rules of each router, or the Canary is refused. A new condition of the schema fails here until
//! there is a sample of it.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    ROUTERS, Row, reconciled, routed, selector, snapshot,
    table::{ALL_CONDITIONS, Rules},
};
use crate::{
    routers::{RouteError, conditions},
    snapshot::{Kind, Snapshot, Weights},
};

const SERVICE: &str = "spec.service.match";
const TEST: &str = "spec.analysis.match";

/// A condition for each key of the schema and each way to match it, by its name, with a mark that the rule must have.
fn samples() -> Vec<(&'static str, Value, &'static str)> {
    let text = |way: &str| json!({way: "marked"});
    let entry = |way: &str| json!({"x-name": {way: "marked"}});
    vec![
        ("uri prefix", json!({"prefix": "/marked"}), "/marked"),
        ("uri exact", text("exact"), "marked"),
        ("uri regex", text("regex"), "marked"),
        ("method exact", text("exact"), "marked"),
        ("method prefix", text("prefix"), "marked"),
        ("scheme exact", text("exact"), "marked"),
        ("authority exact", text("exact"), "marked"),
        ("headers exact", entry("exact"), "marked"),
        ("headers regex", entry("regex"), "marked"),
        ("headers prefix", entry("prefix"), "marked"),
        ("headers suffix", entry("suffix"), "marked"),
        ("queryParams exact", entry("exact"), "marked"),
        ("queryParams regex", entry("regex"), "marked"),
        ("queryParams prefix", entry("prefix"), "marked"),
        ("withoutHeaders exact", entry("exact"), "marked"),
        ("port", json!(4711), "4711"),
        ("gateways", json!(["marked/gw"]), "marked/gw"),
        ("sourceLabels", json!({"team": "marked"}), "marked"),
        ("sourceNamespace", json!("marked"), "marked"),
        ("ignoreUriCase", json!(true), "ignoreUriCase"),
    ]
}

/// The field of a condition.
fn key(condition: &str) -> &str {
    condition.split(' ').next().unwrap()
}

/// Whether the rules of a router have the conditions of `spec.service.match`. The others take those of the user's object.
fn matches_service(row: &Row) -> bool {
    row.can("uri prefix")
}

fn canary(row: &Row, service: Value, test: &Value) -> Snapshot {
    let mut fields = json!({"port": 80, "gatewayRefs": [{"name": "gw"}]});
    for (key, value) in service.as_object().unwrap() {
        fields[key] = value.clone();
    }
    let analysis = json!({"interval": "1m", "threshold": 1, "iterations": 2, "match": test});
    snapshot(row.provider, fields, analysis, json!({}))
}

/// The rules that lead to the canary while a test gets all its traffic, or the reason why the Canary is refused.
fn rules(row: &Row, snapshot: Snapshot) -> Result<Vec<String>, String> {
    let refused = row
        .router
        .reconcile(&snapshot, &selector(), &Weights::PRIMARY);
    if let Err(why) = refused {
        let RouteError::InvalidCanary(why) = why else {
            panic!("{why}")
        };
        return Err(why);
    }
    let snapshot = reconciled(row.router, snapshot, &Weights::PRIMARY);
    let snapshot = routed(row.router, snapshot, &Weights::CANARY);
    let object = row.rules.unwrap();
    let live = snapshot.object(object.kind, object.name).unwrap();
    if object.kind == Kind::Ingress {
        return Ok(vec![live["metadata"]["annotations"].to_string()]);
    }
    let list = object.lists.iter().find_map(|list| live.pointer(list));
    let rules = list.unwrap().as_array().unwrap().iter();
    Ok(rules
        .filter(|rule| leads_to_canary(object, rule))
        .map(Value::to_string)
        .collect())
}

/// Whether the canary has a share of the requests of this rule.
fn leads_to_canary(rules: Rules, rule: &Value) -> bool {
    let destinations = rule.pointer(rules.destinations).and_then(Value::as_array);
    destinations.into_iter().flatten().any(|one| {
        let has_share = one.get("weight").is_some_and(|weight| *weight != 0);
        let name = one.pointer(rules.service).and_then(Value::as_str);
        has_share && name.is_some_and(|name| name.contains("podinfo-canary"))
    })
}

#[test]
fn the_table_has_each_condition_of_the_schema() {
    let crds = crate::api::crds();
    let canary = crds
        .iter()
        .find(|crd| crd["spec"]["names"]["kind"] == "Canary");
    let schema = &canary.unwrap()["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    for field in ["analysis", "service"] {
        let schema = &schema["properties"]["spec"]["properties"][field]["properties"]["match"];
        let properties = schema["items"]["properties"].as_object().unwrap();
        let in_table = |field: &str| samples().iter().any(|sample| key(sample.0) == field);
        for key in properties.keys().filter(|key| *key != "name") {
            assert!(in_table(key), "{key}");
        }
    }
    let names: Vec<_> = samples().iter().map(|sample| sample.0).collect();
    assert_eq!(names, ALL_CONDITIONS);
    let rows = ROUTERS.iter().flat_map(|row| row.conditions);
    for name in rows {
        assert!(names.contains(name), "{name}");
    }
}

/// Without the condition, all requests, or those of other users, would go to the canary.
#[test]
fn a_condition_of_a_test_is_in_each_rule_that_leads_to_the_canary_or_the_canary_is_refused() {
    for row in ROUTERS.iter().filter(|row| row.rules.is_some()) {
        for (name, value, mark) in samples() {
            let key = key(name);
            let with_path = key == "ignoreUriCase";
            let mut one = json!({key: value});
            if with_path {
                one["uri"] = json!({"exact": "/x"});
            }
            let has_one_header = row.rules.is_some_and(|rules| rules.kind == Kind::Ingress);
            let other = if has_one_header && key == "headers" {
                json!([one])
            } else {
                json!([one, {"headers": {"x-other": {"exact": "marked"}}}])
            };
            let own = json!({"match": [{"uri": {"prefix": "/own"}}, {"uri": {"prefix": "/two"}}]});
            let has_path = ["uri", "ignoreUriCase"].contains(&key);
            for (service, test) in [
                (json!({}), json!([one])),
                (json!({}), other.clone()),
                (own, json!([one])),
            ] {
                let has_own = service.get("match").is_some();
                let context = format!("{} {service} {test}", row.provider);
                let is_able = row.can(name);
                match rules(row, canary(row, service, &test)) {
                    Err(why) => {
                        let is_conflict = has_own && (has_path || !matches_service(row));
                        assert!(!is_able || is_conflict, "{context}: {why}");
                        let names = [TEST, SERVICE].iter().any(|field| why.contains(field));
                        assert!(
                            names
                                || why.contains("cannot tell requests apart")
                                || why.contains("Gateway API"),
                            "{context}: {why}"
                        );
                    }
                    Ok(rules) => {
                        assert!(is_able && !rules.is_empty(), "{context}");
                        for rule in rules {
                            assert!(
                                rule.contains(mark) || rule.contains("x-other"),
                                "{context}: {rule}"
                            );
                            let has_both = rule.contains("/own") || rule.contains("/two");
                            assert!(!has_own || has_both, "{context}: {rule}");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn a_condition_of_the_service_is_in_each_rule_or_the_canary_is_refused() {
    for row in ROUTERS.iter().filter(|row| matches_service(row)) {
        for (name, value, mark) in samples() {
            let key = key(name);
            let is_header_suffix = value.to_string().contains("suffix");
            if is_header_suffix {
                continue;
            }
            let mut one = json!({key: value});
            if key == "ignoreUriCase" {
                one["uri"] = json!({"exact": "/x"});
            }
            let test = json!([{"headers": {"x-user": {"exact": "insider"}}}]);
            for test in [json!([]), test] {
                let context = format!("{} {one} {test}", row.provider);
                let service = json!({"match": [one]});
                match rules(row, canary(row, service, &test)) {
                    Err(why) => assert!(!row.can(name), "{context}: {why}"),
                    Ok(rules) => {
                        assert!(row.can(name), "{context}");
                        for rule in rules {
                            assert!(rule.contains(mark), "{context}: {rule}");
                            let is_tested = rule.contains("insider");
                            assert!(is_tested || test == json!([]), "{context}: {rule}");
                        }
                    }
                }
            }
        }
    }
}

/// The schema admits a condition without keys. The API server also makes such a condition when it drops keys that it does not know.
#[test]
fn a_test_without_a_condition_is_refused() {
    for row in ROUTERS.iter().filter(|row| row.rules.is_some()) {
        for empty in [
            json!({}),
            json!({"name": "x"}),
            json!({"headers": {}}),
            json!({"uri": {"prefix": "/"}}),
            json!(null),
        ] {
            let header = json!({"headers": {"x-user": {"exact": "insider"}}});
            for test in [json!([empty]), json!([header, empty])] {
                let refused = rules(row, canary(row, json!({}), &test));
                assert!(refused.is_err(), "{} {test}: {refused:?}", row.provider);
            }
        }
    }
}

/// Many manifests have the path prefix `/`.
#[test]
fn the_path_that_all_requests_have_narrows_no_test() {
    let all = json!({"uri": {"prefix": "/"}, "headers": {"a": {"exact": "1"}}});
    let api = json!({"uri": {"prefix": "/api"}});
    let both = json!({"uri": {"prefix": "/api"}, "headers": {"a": {"exact": "1"}}});
    for (test, own) in [(&all, &api), (&api, &all)] {
        let combined = conditions::product(std::slice::from_ref(test), std::slice::from_ref(own));
        assert_eq!(combined, Ok(vec![both.clone()]));
    }
}

/// A request that reaches the canary meets both fields, so the stricter rule counts.
#[test]
fn a_path_that_one_field_matches_with_its_case_is_matched_with_it() {
    let api = |ignores: Option<bool>| {
        let mut condition = json!({"uri": {"prefix": "/Api"}});
        if let Some(ignores) = ignores {
            condition["ignoreUriCase"] = json!(ignores);
        }
        condition
    };
    for (test, own, both) in [
        (Some(true), None, None),
        (None, Some(true), None),
        (Some(true), Some(false), Some(false)),
        (Some(true), Some(true), Some(true)),
    ] {
        let combined = conditions::product(&[api(test)], &[api(own)]);
        assert_eq!(combined, Ok(vec![api(both)]), "{test:?} {own:?}");
    }
}

/// A rule has one condition for each header. With the condition of the test alone, requests of all users would reach the canary, and not
/// only those that the service's condition admits.
#[test]
fn a_header_that_both_fields_match_differently_is_refused() {
    let header = |value: Value| json!({"headers": {"x-tenant": value}});
    let (exact, regex) = (
        header(json!({"exact": "a"})),
        header(json!({"regex": ".*"})),
    );
    let same_name = json!({"headers": {"X-Tenant": {"regex": ".*"}}});
    let own = [exact];
    assert!(conditions::product(&[regex], &own).is_err());
    assert!(conditions::product(&[same_name], &own).is_err());
    assert_eq!(conditions::product(&own, &own), Ok(own.to_vec()));
}

/// If a user replaces the conditions of a running test by ones that the router cannot express, the operator can still roll the version
/// back.
#[test]
fn a_rollback_needs_no_condition() {
    let bad = json!([{"unknown": 1}]);
    for row in ROUTERS.iter().filter(|row| row.tests()) {
        let test = json!([{"headers": {"x-user": {"exact": "insider"}}}]);
        let running = reconciled(row.router, canary(row, json!({}), &test), &Weights::PRIMARY);
        let running = routed(row.router, running, &Weights::CANARY);
        for (service, test) in [
            (json!({}), bad.clone()),
            (json!({"match": bad}), test.clone()),
        ] {
            let mut edited = canary(row, service, &test);
            edited.objects = running.objects.clone();
            let again = row.router.set_weights(&edited, &Weights::canary(50));
            assert!(again.is_err(), "{}", row.provider);
            let back = routed(row.router, edited, &Weights::PRIMARY);
            assert_eq!(
                row.router.current_weights(&back),
                Ok(Weights::PRIMARY),
                "{}",
                row.provider
            );
            let object = row.rules.unwrap();
            let live = back.object(object.kind, object.name).unwrap();
            let list = object.lists.iter().find_map(|list| live.pointer(list));
            let mut rules = list.unwrap().as_array().unwrap().iter();
            assert!(!rules.any(|rule| leads_to_canary(object, rule)), "{live}");
            assert_eq!(
                row.router.set_weights(&back, &Weights::PRIMARY),
                Ok(vec![]),
                "{}",
                row.provider
            );
        }
    }
}

/// The parts of a request that conditions compare.
#[derive(Clone, Debug)]
struct Request {
    path: String,
    headers: Vec<(&'static str, &'static str)>,
    labels: Vec<(&'static str, &'static str)>,
    port: i64,
}

fn meets(request: &Request, condition: &Value) -> bool {
    let text = |way: &Value, text: &str| {
        way.get("exact").is_none_or(|exact| exact == text)
            && way
                .get("prefix")
                .and_then(Value::as_str)
                .is_none_or(|prefix| text.starts_with(prefix))
    };
    let named = |key: &str, all: &[(&str, &str)]| {
        let map = condition.get(key).and_then(Value::as_object);
        map.into_iter().flatten().all(|(name, way)| {
            let value = all
                .iter()
                .find(|(other, _)| other.eq_ignore_ascii_case(name));
            value.is_some_and(|(_, value)| {
                if way.is_string() {
                    way == value
                } else {
                    text(way, value)
                }
            })
        })
    };
    let path = match condition.get("ignoreUriCase") {
        Some(Value::Bool(true)) => request.path.to_lowercase(),
        _ => request.path.clone(),
    };
    condition.get("uri").is_none_or(|uri| text(uri, &path))
        && condition
            .get("port")
            .is_none_or(|port| *port == request.port)
        && named("headers", &request.headers)
        && named("sourceLabels", &request.labels)
}

fn condition() -> impl Strategy<Value = Value> {
    let optional = |key: &'static str, values: Vec<Value>| {
        prop::option::of(prop::sample::select(values)).prop_map(move |value| (key, value))
    };
    let uri = optional(
        "uri",
        vec![
            json!({"prefix": "/a"}),
            json!({"exact": "/a/b"}),
            json!({"prefix": "/c"}),
            json!({"prefix": "/"}),
        ],
    );
    let case = optional("ignoreUriCase", vec![json!(true), json!(false)]);
    let headers = optional(
        "headers",
        vec![
            json!({"x": {"exact": "1"}}),
            json!({"y": {"prefix": "2"}}),
            json!({"x": {"exact": "1"}, "z": {"exact": "3"}}),
        ],
    );
    let labels = optional(
        "sourceLabels",
        vec![json!({"team": "a"}), json!({"app": "b"})],
    );
    let port = optional("port", vec![json!(80), json!(81)]);
    (uri, case, headers, labels, port).prop_map(|(a, b, c, d, e)| {
        let fields = [a, b, c, d, e].into_iter();
        fields
            .filter_map(|(key, value)| Some((key.to_owned(), value?)))
            .collect::<serde_json::Map<_, _>>()
            .into()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2048, ..ProptestConfig::default() })]

    /// Conditions that cannot be combined are refused; all others let exactly those requests pass that meet one of both sides.
    #[test]
    fn a_combined_condition_holds_exactly_if_both_hold(
        test in prop::collection::vec(condition(), 1..3),
        own in prop::collection::vec(condition(), 1..3),
        path in prop::sample::select(vec!["/a", "/A", "/a/b", "/A/b", "/c", "/d"]),
        headers in prop::sample::subsequence(vec![("X", "1"), ("y", "22"), ("z", "3")], 0..=3),
        labels in prop::sample::subsequence(vec![("team", "a"), ("app", "b")], 0..=2),
        port in prop::sample::select(vec![80, 81]),
    ) {
        let request = Request { path: path.to_owned(), headers, labels, port };
        let any = |conditions: &[Value]| conditions.iter().any(|one| meets(&request, one));
        if let Ok(combined) = conditions::product(&test, &own) {
            prop_assert_eq!(any(&combined), any(&test) && any(&own), "{:?}", combined);
        }
    }
}
