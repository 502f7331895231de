use super::*;
use crate::{
    routers::tests::{apply, canary_analysis, selector},
    snapshot::Kind,
};

/// A canary whose Ingress has these annotations.
fn snapshot(annotations: &Value) -> Snapshot {
    let mut snapshot = crate::routers::tests::snapshot(
        "skipper",
        json!({"port": 80}),
        canary_analysis(),
        Value::Null,
    );
    let path = |path: &str, name: &str| json!({"path": path, "backend": {"service": {"name": name, "port": {"name": "http"}}}});
    let source = json!({
        "metadata": {"name": "web", "namespace": "test", "labels": {"l": "1"}, "annotations": annotations, "finalizers": ["x/y"]},
        "spec": {"rules": [{"host": "a", "http": {"paths": [path("/", "podinfo"), path("/other", "other")]}}, {"host": "none"}]}});
    let name = snapshot.reference(Kind::Ingress, "web");
    snapshot.objects.insert(name, source);
    snapshot
}

fn reconciled(mut snapshot: Snapshot, weights: &Weights) -> Snapshot {
    let writes = Skipper.reconcile(&snapshot, &selector(), weights).unwrap();
    apply(&mut snapshot, writes);
    snapshot
}

fn routed(mut snapshot: Snapshot, weights: &Weights) -> Snapshot {
    let writes = Skipper.set_weights(&snapshot, weights).unwrap();
    apply(&mut snapshot, writes);
    snapshot
}

fn ours(snapshot: &Snapshot) -> &Value {
    snapshot.object(Kind::Ingress, "web-canary").unwrap()
}

fn predicate(snapshot: &Snapshot) -> &Value {
    &ours(snapshot)["metadata"]["annotations"][PREDICATE]
}

fn edit(snapshot: &mut Snapshot, name: &str, edit: impl FnOnce(&mut Value)) {
    let name = snapshot.reference(Kind::Ingress, name);
    edit(snapshot.objects.get_mut(&name).unwrap());
}

#[test]
fn the_second_ingress_is_flaggers_and_the_users_ingress_is_only_read() {
    let before = snapshot(&json!({"own": "x", PREDICATE: "Method(\"GET\")"}));
    let after = reconciled(before.clone(), &Weights::PRIMARY);
    let ingress = ours(&after);
    let mut spec = before.object(Kind::Ingress, "web").unwrap()["spec"].clone();
    let paths = spec["rules"][0]["http"]["paths"].as_array_mut().unwrap();
    let mut copy = paths[0].clone();
    paths[0]["backend"]["service"]["name"] = json!("podinfo-primary");
    copy["backend"]["service"]["name"] = json!("podinfo-canary");
    paths.push(copy);
    assert_eq!(ingress["spec"], spec);
    assert_eq!(
        ingress["metadata"]["annotations"],
        json!({"own": "x", PREDICATE: "Weight(100) && Method(\"GET\")", WEIGHTS: "{\"podinfo-canary\":0,\"podinfo-primary\":100}"})
    );
    assert_eq!(ingress["metadata"]["labels"], json!({"l": "1"}));
    assert_eq!(ingress["metadata"]["finalizers"], Value::Null);
    assert_eq!(ingress["metadata"]["ownerReferences"][0]["kind"], "Canary");
    let source = |snapshot: &Snapshot| snapshot.object(Kind::Ingress, "web").cloned();
    assert_eq!(source(&after), source(&before));
}

#[test]
fn skipper_ignores_the_second_ingress_while_the_canary_has_no_share() {
    let snapshot = reconciled(
        snapshot(&json!({PREDICATE: "Method(\"GET\")"})),
        &Weights::PRIMARY,
    );
    for percent in [0, 10, 100, 0] {
        let before = ours(&snapshot).clone();
        let snapshot = routed(snapshot.clone(), &Weights::canary(percent));
        assert_eq!(
            Skipper.current_weights(&snapshot),
            Ok(Weights::canary(percent))
        );
        // The Ingress as it was created leads to the primary, too.
        assert_eq!(*ours(&snapshot) == before, percent == 0);
        assert_eq!(*predicate(&snapshot), "Weight(100) && Method(\"GET\")");
        let back = routed(snapshot, &Weights::PRIMARY);
        let expected = if percent == 0 {
            "Weight(100) && Method(\"GET\")"
        } else {
            "False() && Method(\"GET\")"
        };
        assert_eq!(*predicate(&back), expected);
        assert!(
            Skipper
                .reconcile(&back, &selector(), &Weights::PRIMARY)
                .unwrap()
                .is_empty()
        );
    }
}

/// Flagger ends its process.
#[test]
fn an_ingress_without_annotations_is_released() {
    for annotations in [Value::Null, json!({})] {
        let snapshot = reconciled(snapshot(&annotations), &Weights::PRIMARY);
        assert_eq!(*predicate(&snapshot), "Weight(100)");
        let snapshot = routed(snapshot, &Weights::canary(5));
        assert_eq!(Skipper.current_weights(&snapshot), Ok(Weights::canary(5)));
    }
}

#[test]
fn the_marker_is_replaced_and_the_other_predicates_stay() {
    for (predicates, expected) in [
        ("", "Weight(100)"),
        ("  ", "Weight(100)"),
        (
            "Host(`^a$`) &&  False() && Method(\"GET\")",
            "Weight(100) && Host(`^a$`) && Method(\"GET\")",
        ),
        (
            "Weight(100)&&Weight(100) && Weight(7)",
            "Weight(100) && Weight(7)",
        ),
        (
            "Query(\"a&&b\", \"\\\"&&\") && Path(/x&&y/)",
            "Weight(100) && Query(\"a&&b\", \"\\\"&&\") && Path(/x&&y/)",
        ),
        (
            "Header(\"é\", \"é\") && True()",
            "Weight(100) && Header(\"é\", \"é\") && True()",
        ),
        ("Open(\"&&", "Weight(100) && Open(\"&&"),
        ("a &&& b", "Weight(100) && a && & b"),
    ] {
        assert_eq!(marked(PREFERRED, predicates), expected, "{predicates}");
    }
}

#[test]
fn weights_that_cannot_be_read_are_an_error_and_are_repaired() {
    for (weights, why) in [
        (json!("x"), "get backendWeights error: "),
        (Value::Null, "get backendWeights error: "),
        (
            json!("{\"podinfo-canary\":0}"),
            "could not get weights[primarySvcName]",
        ),
        (
            json!("{\"podinfo-primary\":100}"),
            "could not get weights[canarySvcName]",
        ),
        (
            json!("{\"podinfo-canary\":0,\"podinfo-primary\":0}"),
            "gives nobody a share",
        ),
    ] {
        let mut drifted = reconciled(snapshot(&json!({})), &Weights::PRIMARY);
        edit(&mut drifted, "web-canary", |ours| {
            ours["metadata"]["annotations"][WEIGHTS] = weights;
        });
        let error = Skipper.current_weights(&drifted).unwrap_err().to_string();
        assert!(
            error.starts_with("ingress web-canary.test ") && error.contains(why),
            "{error}"
        );
        let repaired = reconciled(drifted, &Weights::canary(30));
        assert_eq!(Skipper.current_weights(&repaired), Ok(Weights::canary(30)));
    }
}

#[test]
fn predicates_follow_those_of_the_users_ingress() {
    let mut snapshot = reconciled(snapshot(&json!({PREDICATE: "a"})), &Weights::PRIMARY);
    edit(&mut snapshot, "web", |users| {
        users["metadata"]["annotations"][PREDICATE] = json!("b");
    });
    let snapshot = reconciled(snapshot, &Weights::canary(30));
    assert_eq!(*predicate(&snapshot), "Weight(100) && b");
}

/// Skipper prefers our Ingress during a run: without the user's filters, clients would bypass them. The annotations of others stay.
#[test]
fn filters_follow_those_of_the_users_ingress() {
    const FILTER: &str = "zalando.org/skipper-filter";
    let users = json!({LAST_APPLIED: "{}", WEIGHTS: "{}", FILTER: "a()"});
    let snapshot = reconciled(snapshot(&users), &Weights::PRIMARY);
    assert_eq!(
        ours(&snapshot)["metadata"]["annotations"],
        json!({FILTER: "a()", PREDICATE: "Weight(100)", WEIGHTS: "{\"podinfo-canary\":0,\"podinfo-primary\":100}"})
    );
    let mut snapshot = routed(snapshot, &Weights::canary(30));
    edit(&mut snapshot, "web", |users| {
        users["metadata"]["annotations"][FILTER] = json!("b()");
        users["metadata"]["annotations"]["added"] = json!("x");
    });
    edit(&mut snapshot, "web-canary", |ours| {
        ours["metadata"]["annotations"]["theirs"] = json!("y");
    });
    let followed = reconciled(snapshot, &Weights::canary(30));
    let mut expected = json!({FILTER: "b()", "added": "x", "theirs": "y"});
    expected[PREDICATE] = json!("Weight(100)");
    expected[WEIGHTS] = json!("{\"podinfo-canary\":30,\"podinfo-primary\":70}");
    assert_eq!(ours(&followed)["metadata"]["annotations"], expected);
    let again = Skipper.reconcile(&followed, &selector(), &Weights::canary(30));
    assert!(again.unwrap().is_empty());
}

#[test]
fn a_missing_ingress_and_one_without_the_apex_are_named() {
    let at_rest = snapshot(&json!({}));
    let reconcile = |snapshot: &Snapshot| {
        let refused = Skipper.reconcile(snapshot, &selector(), &Weights::PRIMARY);
        refused.unwrap_err().to_string()
    };
    let mut unnamed = at_rest.clone();
    unnamed.canary.spec.ingress_ref = None;
    assert_eq!(reconcile(&unnamed), "ingress selector is empty");
    let error = Skipper.current_weights(&unnamed).unwrap_err();
    assert_eq!(error.to_string(), "ingress selector is empty");
    let mut missing = at_rest.clone();
    missing.objects.clear();
    assert_eq!(
        reconcile(&missing),
        "apexIngress web.test get query error: ingresses.networking.k8s.io \"web\" not found"
    );
    let error = Skipper.current_weights(&missing).unwrap_err();
    assert_eq!(
        error.to_string(),
        "ingress web-canary.test get query error: ingresses.networking.k8s.io \"web-canary\" not found"
    );
    let mut other = at_rest;
    edit(&mut other, "web", |users| {
        users["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]["name"] = json!("x");
    });
    assert_eq!(
        reconcile(&other),
        "backend podinfo not found in ingress web"
    );
}

/// The Services behind our Ingress may be deleted before it.
#[test]
fn after_a_deletion_skipper_ignores_our_ingress() {
    assert_eq!(Skipper.restore(&snapshot(&json!({}))), None);
    let mut snapshot = reconciled(snapshot(&json!({PREDICATE: "a"})), &Weights::canary(30));
    let write = Skipper.restore(&snapshot).unwrap();
    apply(&mut snapshot, vec![write]);
    assert_eq!(*predicate(&snapshot), "False() && a");
    assert_eq!(Skipper.restore(&snapshot), None);
}
