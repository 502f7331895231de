use super::*;
use crate::routers::tests::{apply, canary_analysis, reconciled, routed, selector};

/// A canary whose target has these routes and this Revision as the primary.
fn with(traffic: Value, primary: Option<&str>) -> Snapshot {
    let mut snapshot = crate::routers::tests::snapshot(
        "knative",
        json!({"port": 80}),
        canary_analysis(),
        Value::Null,
    );
    edit(&mut snapshot, |service| {
        service["spec"] = json!({"template": {"spec": {"x-future": [1]}}});
        if !traffic.is_null() {
            service["spec"]["traffic"] = traffic;
        }
        let primary = primary.map(|primary| json!({"a": "1", PRIMARY: primary}));
        service["metadata"]["annotations"] = json!(primary);
    });
    snapshot
}

fn edit(snapshot: &mut Snapshot, edit: impl FnOnce(&mut Value)) {
    let name = snapshot.reference(KIND, "podinfo");
    edit(snapshot.objects.get_mut(&name).unwrap());
}

fn service(snapshot: &Snapshot) -> &Value {
    snapshot.object(KIND, "podinfo").unwrap()
}

fn shares(primary: u8, canary: u8) -> Value {
    json!([{"latestRevision": true, "percent": canary}, {"revisionName": "podinfo-00001", "percent": primary}])
}

fn tag() -> Value {
    json!({"revisionName": "podinfo-00001", "tag": "stable"})
}

#[test]
fn both_revisions_have_shares_and_everything_else_stays() {
    let snapshot = with(json!([tag()]), Some("podinfo-00001"));
    let before = service(&snapshot).clone();
    let mut snapshot = reconciled(&Knative, snapshot, &Weights::PRIMARY);
    for (primary, canary) in [(100, 0), (70, 30), (0, 100)] {
        snapshot = routed(&Knative, snapshot, &Weights::canary(canary));
        let mut expected = before.clone();
        expected["spec"]["traffic"] = shares(primary, canary);
        let traffic = expected["spec"]["traffic"].as_array_mut().unwrap();
        traffic.push(tag());
        assert_eq!(*service(&snapshot), expected);
    }
}

/// The API server adds `latestRevision: false` to the entry of a Revision.
#[test]
fn a_default_of_the_api_server_is_no_drift() {
    let mut snapshot = with(shares(70, 30), Some("podinfo-00001"));
    edit(&mut snapshot, |service| {
        service["spec"]["traffic"][1]["latestRevision"] = json!(false);
    });
    let writes = Knative.reconcile(&snapshot, &selector(), &Weights::PRIMARY);
    assert_eq!(writes, Ok(Vec::new()));
    assert_eq!(Knative.current_weights(&snapshot), Ok(Weights::canary(30)));
}

#[test]
fn other_routes_are_replaced_and_their_weights_are_unknown() {
    let third = json!([{"latestRevision": true, "percent": 30}, {"revisionName": "podinfo-00001", "percent": 30}, {"revisionName": "x", "percent": 40}]);
    let whole = json!([{"latestRevision": true, "percent": 100}]);
    let other =
        json!([{"latestRevision": true, "percent": 0}, {"revisionName": "x", "percent": 100}]);
    for traffic in [Value::Null, whole, other, third] {
        let snapshot = with(traffic, Some("podinfo-00001"));
        let error = Knative.current_weights(&snapshot).unwrap_err().to_string();
        assert_eq!(error, "Knative Service podinfo.test traffic spec invalid");
        let snapshot = reconciled(&Knative, snapshot, &Weights::canary(20));
        assert_eq!(service(&snapshot)["spec"]["traffic"], shares(80, 20));
    }
}

#[test]
fn without_a_primary_nothing_is_routed() {
    let snapshot = with(Value::Null, None);
    let writes = Knative.reconcile(&snapshot, &selector(), &Weights::PRIMARY);
    assert_eq!(writes, Ok(Vec::new()));
    let text = "Knative Service podinfo.test annotation not found";
    let error = Knative.set_weights(&snapshot, &Weights::PRIMARY);
    assert_eq!(error.unwrap_err().to_string(), text);
    let error = Knative.current_weights(&snapshot);
    assert_eq!(error.unwrap_err().to_string(), text);
    assert_eq!(Knative.restore(&snapshot), None);
    let mut snapshot = snapshot;
    snapshot.objects.clear();
    let error = Knative.current_weights(&snapshot).unwrap_err().to_string();
    assert_eq!(
        error,
        "Knative Service podinfo.test get query error: services.serving.knative.dev \"podinfo\" not found"
    );
}

#[test]
fn the_revisions_are_read() {
    let mut snapshot = with(Value::Null, Some("podinfo-00001"));
    edit(&mut snapshot, |service| {
        service["status"] = json!({"latestCreatedRevisionName": "podinfo-00002"});
    });
    let names: Vec<_> = Knative.sources(&snapshot).into_iter().collect();
    let expected = ["podinfo-00001", "podinfo-00002"];
    let expected = expected.map(|name| snapshot.reference(Kind::KnativeRevision, name));
    assert_eq!(names, expected);
}

/// Flagger leaves all requests at the Revision that was promoted last, for ever.
#[test]
fn a_deletion_leads_all_requests_to_the_latest_revision() {
    let mut snapshot = with(shares(70, 30), Some("podinfo-00001"));
    edit(&mut snapshot, |service| {
        let traffic = service["spec"]["traffic"].as_array_mut().unwrap();
        traffic.push(tag());
    });
    let write = Knative.restore(&snapshot).into_iter().collect();
    apply(&mut snapshot, write);
    let service = service(&snapshot);
    assert_eq!(service["metadata"]["annotations"], json!({"a": "1"}));
    let traffic = json!([{"latestRevision": true, "percent": 100}, tag()]);
    assert_eq!(service["spec"]["traffic"], traffic);
    assert_eq!(Knative.restore(&snapshot), None);
}

#[test]
fn a_step_waits_until_knative_has_processed_the_routes() {
    let mut snapshot = with(shares(70, 30), Some("podinfo-00001"));
    let status = |generation: i64, canary: u8| {
        json!({"observedGeneration": generation, "traffic": [
        {"latestRevision": true, "percent": canary, "revisionName": "podinfo-00002"}, {"revisionName": "podinfo-00001", "percent": 100 - canary}]})
    };
    for (status, is_processed) in [
        (status(1, 30), false),
        (status(2, 0), false),
        (status(2, 30), true),
    ] {
        edit(&mut snapshot, |service| {
            service["metadata"]["generation"] = json!(2);
            service["status"] = status;
        });
        assert_eq!(Knative.accepted(&snapshot).is_ok(), is_processed);
        assert_eq!(Knative.lag(&snapshot).is_none(), is_processed);
    }
}
