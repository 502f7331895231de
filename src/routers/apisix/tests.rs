use super::*;
use crate::routers::tests::{apply, canary_analysis, reconciled, routed, selector};

const OURS: &str = "web-podinfo-canary";

/// A canary beside the user's ApisixRoute with these rules.
fn with_rules(rules: Value) -> Snapshot {
    let service = json!({"port": 80});
    let mut snapshot =
        crate::routers::tests::snapshot("apisix", service, canary_analysis(), Value::Null);
    edit(&mut snapshot, "web", |route| route["spec"]["http"] = rules);
    snapshot
}

fn edit(snapshot: &mut Snapshot, name: &str, edit: impl FnOnce(&mut Value)) {
    let name = snapshot.reference(KIND, name);
    edit(snapshot.objects.get_mut(&name).unwrap());
}

/// The user's rule, with a field that the operator does not know.
fn rule() -> Value {
    json!({"name": "method", "priority": 7, "match": {"hosts": ["app.example.com"], "paths": ["/*"], "future": [{"a": null}]},
        "plugins": [{"name": "prometheus", "enable": true, "config": {"prefer_name": true}}],
        "backends": [{"serviceName": "podinfo", "servicePort": 80, "resolveGranularity": "service", "subset": "s", "weight": 5}]})
}

fn other() -> Value {
    json!({"name": "other", "match": {"paths": ["/other"]}, "backends": [{"serviceName": "other", "servicePort": 80}]})
}

fn backends(primary: u8, canary: u8) -> Value {
    let side = |name: &str, weight: u8| json!({"serviceName": name, "servicePort": 80, "resolveGranularity": "service", "subset": "s", "weight": weight});
    json!([
        side("podinfo-primary", primary),
        side("podinfo-canary", canary)
    ])
}

fn spec(snapshot: &Snapshot) -> &Value {
    &snapshot.object(KIND, OURS).unwrap()["spec"]
}

#[test]
fn the_second_route_has_the_users_rule_with_all_its_fields() {
    let mut snapshot = with_rules(json!([other(), rule()]));
    edit(&mut snapshot, "web", |route| {
        route["spec"]["ingressClassName"] = json!("apisix");
        route["spec"]["stream"] = json!([{"name": "tcp"}]);
        route["metadata"]["labels"] = json!({"l": "1"});
        route["metadata"]["annotations"] = json!({"a": "1", LAST_APPLIED: "{}"});
    });
    let before = snapshot.object(KIND, "web").cloned();
    let snapshot = reconciled(&Apisix, snapshot, &Weights::PRIMARY);
    let mut expected = rule();
    expected["priority"] = json!(10_000);
    expected["websocket"] = json!(false);
    expected["backends"] = backends(100, 0);
    assert_eq!(
        *spec(&snapshot),
        json!({"ingressClassName": "apisix", "http": [expected]})
    );
    let metadata = &snapshot.object(KIND, OURS).unwrap()["metadata"];
    assert_eq!(metadata["labels"], json!({"l": "1"}));
    assert_eq!(metadata["annotations"], json!({"a": "1"}));
    assert_eq!(metadata["ownerReferences"][0]["kind"], "Canary");
    let snapshot = routed(&Apisix, snapshot, &Weights::canary(30));
    assert_eq!(spec(&snapshot)["http"][0]["backends"], backends(70, 30));
    assert_eq!(snapshot.object(KIND, "web"), before.as_ref());
}

/// Flagger sends all requests to the primary until the next step.
#[test]
fn an_edit_of_the_users_rule_reaches_ours_with_the_current_weights() {
    let snapshot = reconciled(&Apisix, with_rules(json!([rule()])), &Weights::PRIMARY);
    let mut snapshot = routed(&Apisix, snapshot, &Weights::canary(30));
    edit(&mut snapshot, "web", |route| {
        route["spec"]["http"][0]["match"]["paths"] = json!(["/new"]);
    });
    let snapshot = reconciled(&Apisix, snapshot, &Weights::canary(30));
    let ours = &spec(&snapshot)["http"][0];
    assert_eq!(ours["match"]["paths"], json!(["/new"]));
    assert_eq!(ours["backends"], backends(70, 30));
}

#[test]
fn a_route_that_cannot_be_copied_is_refused_with_flaggers_words() {
    let mut two = rule();
    two["backends"] = json!([{"serviceName": "podinfo"}, {"serviceName": "other"}]);
    for (rules, error) in [
        (json!([]), "APISIX route web.test's spec.http is empty"),
        (
            json!([other(), {}]),
            "Can not find podinfo backend on apisix route web.test ",
        ),
        (
            json!([two]),
            "APISIX route web.test's http route method only one http backend is supported",
        ),
    ] {
        let snapshot = with_rules(rules);
        let refused = Apisix.reconcile(&snapshot, &selector(), &Weights::PRIMARY);
        assert_eq!(refused.unwrap_err().to_string(), error);
    }
}

#[test]
fn a_route_that_is_missing_is_named() {
    let mut snapshot = with_rules(json!([rule()]));
    let error = Apisix.current_weights(&snapshot).unwrap_err().to_string();
    assert_eq!(
        error,
        "APISIX route web-podinfo-canary.test get query error: apisixroutes.apisix.apache.org \"web-podinfo-canary\" not found"
    );
    let reference = snapshot.reference(KIND, "web");
    snapshot.objects.remove(&reference);
    let refused = Apisix.reconcile(&snapshot, &selector(), &Weights::PRIMARY);
    let error = refused.unwrap_err().to_string();
    assert!(error.contains("apisixroutes.apisix.apache.org \"web\" not found"));
    snapshot.canary.spec.route_ref = None;
    let refused = Apisix.reconcile(&snapshot, &selector(), &Weights::PRIMARY);
    let error = refused.unwrap_err().to_string();
    assert!(
        error.starts_with("apisix route selector is empty"),
        "{error}"
    );
    assert!(Apisix.objects(&snapshot.canary).is_empty());
}

/// The user deletes the ApisixRoute, or makes it unusable, while the canary has traffic.
#[test]
fn a_rollback_needs_no_route_of_the_user() {
    let snapshot = reconciled(&Apisix, with_rules(json!([rule()])), &Weights::PRIMARY);
    let mut snapshot = routed(&Apisix, snapshot, &Weights::canary(30));
    let reference = snapshot.reference(KIND, "web");
    snapshot.objects.remove(&reference);
    let snapshot = routed(&Apisix, snapshot, &Weights::PRIMARY);
    assert_eq!(spec(&snapshot)["http"][0]["backends"], backends(100, 0));
    assert_eq!(Apisix.current_weights(&snapshot), Ok(Weights::PRIMARY));
}

/// Flagger crashes.
#[test]
fn a_backend_without_a_weight_has_no_share() {
    let mut snapshot = reconciled(&Apisix, with_rules(json!([rule()])), &Weights::PRIMARY);
    edit(&mut snapshot, OURS, |route| {
        let backends = &mut route["spec"]["http"][0]["backends"];
        backends[0].as_object_mut().unwrap().remove("weight");
    });
    assert!(Apisix.current_weights(&snapshot).is_err());
    let snapshot = reconciled(&Apisix, snapshot, &Weights::canary(20));
    assert_eq!(spec(&snapshot)["http"][0]["backends"], backends(80, 20));
}

#[test]
fn a_deletion_leads_ours_to_the_apex_service_and_nowhere_else() {
    let snapshot = reconciled(&Apisix, with_rules(json!([rule()])), &Weights::PRIMARY);
    let mut snapshot = routed(&Apisix, snapshot, &Weights::canary(30));
    edit(&mut snapshot, OURS, |route| {
        let backends = &mut route["spec"]["http"][0]["backends"];
        let theirs = json!({"serviceName": "theirs", "servicePort": 8080});
        backends.as_array_mut().unwrap().insert(0, theirs);
    });
    let write = Apisix.restore(&snapshot).into_iter().collect();
    apply(&mut snapshot, write);
    let mut apex = backends(100, 0)[0].take();
    apex["serviceName"] = json!("podinfo");
    assert_eq!(spec(&snapshot)["http"][0]["backends"], json!([apex]));
    assert_eq!(Apisix.restore(&snapshot), None);
}
