use super::*;
use crate::routers::tests::{apply, canary_analysis, reconciled, routed};

fn snapshot() -> Snapshot {
    let service = json!({"port": 80});
    crate::routers::tests::snapshot("traefik", service, canary_analysis(), Value::Null)
}

fn spec(snapshot: &Snapshot) -> &Value {
    &snapshot.object(KIND, "podinfo").unwrap()["spec"]
}

fn entry(name: &str, weight: u8) -> Value {
    json!({"name": name, "namespace": "test", "port": 80, "weight": weight})
}

/// A snapshot with a TraefikService of this spec, as kubectl applied it.
fn with_theirs(spec: &Value) -> Snapshot {
    let mut snapshot = snapshot();
    let applied = json!({"spec": spec}).to_string();
    let metadata = json!({"name": "podinfo", "namespace": "test", "annotations": {"kubectl.kubernetes.io/last-applied-configuration": applied}});
    let name = snapshot.reference(KIND, "podinfo");
    snapshot
        .objects
        .insert(name, json!({"metadata": metadata, "spec": spec}));
    snapshot
}

fn restored(mut snapshot: Snapshot) -> Snapshot {
    let write = Traefik.restore(&snapshot).into_iter().collect();
    apply(&mut snapshot, write);
    assert_eq!(Traefik.restore(&snapshot), None);
    snapshot
}

#[test]
fn the_canary_has_an_entry_while_it_has_a_share() {
    let snapshot = reconciled(&Traefik, snapshot(), &Weights::PRIMARY);
    let primary = entry("podinfo-primary", 100);
    assert_eq!(
        *spec(&snapshot),
        json!({"weighted": {"services": [primary]}})
    );
    let snapshot = routed(&Traefik, snapshot, &Weights::canary(10));
    let both = [entry("podinfo-primary", 90), entry("podinfo-canary", 10)];
    assert_eq!(spec(&snapshot)["weighted"]["services"], json!(both));
    let snapshot = routed(&Traefik, snapshot, &Weights::PRIMARY);
    assert_eq!(spec(&snapshot)["weighted"]["services"], json!([primary]));
}

/// Flagger leaves the weight of 0 out, which means 1 to Traefik: a hundredth of the requests reaches a primary that has no pods.
#[test]
fn a_primary_without_a_share_has_the_weight_0() {
    let snapshot = reconciled(&Traefik, snapshot(), &Weights::PRIMARY);
    let mut snapshot = routed(&Traefik, snapshot, &Weights::CANARY);
    let to_canary = [entry("podinfo-primary", 0), entry("podinfo-canary", 100)];
    assert_eq!(spec(&snapshot)["weighted"]["services"], json!(to_canary));
    // As Flagger writes it.
    let name = snapshot.reference(KIND, "podinfo");
    let live = snapshot.objects.get_mut(&name).unwrap();
    let services = &mut live["spec"]["weighted"]["services"];
    services[0].as_object_mut().unwrap().remove("weight");
    assert_eq!(Traefik.current_weights(&snapshot), Ok(Weights::CANARY));
    let snapshot = reconciled(&Traefik, snapshot, &Weights::CANARY);
    assert_eq!(spec(&snapshot)["weighted"]["services"], json!(to_canary));
}

/// Flagger writes 100 for both.
#[test]
fn a_repair_keeps_the_weights() {
    let snapshot = reconciled(&Traefik, snapshot(), &Weights::PRIMARY);
    let mut snapshot = routed(&Traefik, snapshot, &Weights::canary(30));
    let name = snapshot.reference(KIND, "podinfo");
    let live = snapshot.objects.get_mut(&name).unwrap();
    live["spec"]["weighted"]["services"][1]["port"] = json!(8080);
    let snapshot = reconciled(&Traefik, snapshot, &Weights::canary(30));
    let both = [entry("podinfo-primary", 70), entry("podinfo-canary", 30)];
    assert_eq!(spec(&snapshot)["weighted"]["services"], json!(both));
}

#[test]
fn a_traefik_service_of_the_user_keeps_its_other_fields_and_is_given_back() {
    let sticky = json!({"cookie": {"name": "lb"}});
    let own = json!({"name": "podinfo", "port": 80, "scheme": "h2c"});
    let theirs = json!({"weighted": {"services": [own], "sticky": sticky}});
    let snapshot = reconciled(&Traefik, with_theirs(&theirs), &Weights::canary(40));
    let ours = |name: &str, weight| {
        let mut entry = entry(name, weight);
        entry["scheme"] = json!("h2c");
        entry
    };
    let services = [ours("podinfo-primary", 60), ours("podinfo-canary", 40)];
    let expected = json!({"weighted": {"services": services, "sticky": sticky}});
    assert_eq!(*spec(&snapshot), expected);
    assert_eq!(*spec(&restored(snapshot)), theirs);
}

#[test]
fn a_traefik_service_that_the_operator_created_leads_to_the_apex_in_the_end() {
    let snapshot = reconciled(&Traefik, snapshot(), &Weights::canary(40));
    let snapshot = restored(snapshot);
    let apex = json!({"weighted": {"services": [entry("podinfo", 100)]}});
    assert_eq!(*spec(&snapshot), apex);
}

/// Flagger crashes.
#[test]
fn a_traefik_service_without_entries_is_filled() {
    for theirs in [
        json!({}),
        json!({"weighted": null}),
        json!({"mirroring": {"name": "podinfo", "kind": "Service"}}),
    ] {
        let snapshot = with_theirs(&theirs);
        let error = Traefik.current_weights(&snapshot).unwrap_err().to_string();
        assert_eq!(error, "TraefikService podinfo.test services not found");
        let snapshot = reconciled(&Traefik, snapshot, &Weights::PRIMARY);
        let primary = entry("podinfo-primary", 100);
        assert_eq!(spec(&snapshot)["weighted"]["services"], json!([primary]));
        assert_eq!(*spec(&restored(snapshot)), theirs);
    }
}

/// Entries of the same name that lead elsewhere are not ours.
#[test]
fn an_entry_of_another_namespace_or_kind_is_not_the_primarys() {
    for other in [
        json!({"name": "podinfo-primary", "namespace": "other", "weight": 100}),
        json!({"name": "podinfo-primary", "kind": "TraefikService", "weight": 100}),
    ] {
        let snapshot = with_theirs(&json!({"weighted": {"services": [other]}}));
        assert!(Traefik.current_weights(&snapshot).is_err());
    }
}

#[test]
fn a_missing_traefik_service_is_named() {
    let error = Traefik.current_weights(&snapshot()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "TraefikService podinfo.test get query error: traefikservices.traefik.io \"podinfo\" not found"
    );
    assert!(Traefik.set_weights(&snapshot(), &Weights::PRIMARY).is_err());
}
