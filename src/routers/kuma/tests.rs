use super::*;
use crate::routers::tests::{apply, canary_analysis, reconciled, routed, selector};

fn snapshot(service: Value) -> Snapshot {
    crate::routers::tests::snapshot("kuma", service, canary_analysis(), Value::Null)
}

fn plain() -> Snapshot {
    snapshot(json!({"port": 80}))
}

fn route(snapshot: &Snapshot) -> &Value {
    snapshot.object(KIND, "podinfo").unwrap()
}

fn edit(snapshot: &mut Snapshot, edit: impl FnOnce(&mut Value)) {
    let name = snapshot.reference(KIND, "podinfo");
    edit(snapshot.objects.get_mut(&name).unwrap());
}

fn to(service: &str, weight: u8) -> Value {
    let tag = format!("{service}_test_svc_80");
    json!({"weight": weight, "destination": {"kuma.io/service": tag}})
}

fn both(primary: u8, canary: u8) -> Value {
    json!([to("podinfo-primary", primary), to("podinfo-canary", canary)])
}

#[test]
fn the_route_is_flaggers_to_the_letter() {
    let apex = json!({"annotations": {"80.service.kuma.io/protocol": "http"}});
    let mut new = snapshot(json!({"port": 80, "apex": apex}));
    let mesh = ("kuma.io/mesh".to_owned(), "other".to_owned());
    new.canary.metadata.annotations = Some([mesh].into());
    let snapshot = reconciled(&Kuma, new, &Weights::PRIMARY);
    let expected = json!({
        "apiVersion": "kuma.io/v1alpha1",
        "kind": "TrafficRoute",
        "metadata": {
            "name": "podinfo",
            "labels": {"app": "podinfo"},
            "annotations": {
                "80.service.kuma.io/protocol": "http",
                "kustomize.toolkit.fluxcd.io/reconcile": "disabled",
                "helm.toolkit.fluxcd.io/driftDetection": "disabled",
            },
        },
        "mesh": "other",
        "spec": {
            "sources": [{"match": {"kuma.io/service": "*"}}],
            "destinations": [{"match": {"kuma.io/service": "podinfo_test_svc_80"}}],
            "conf": {"split": both(100, 0)},
        },
    });
    assert_eq!(*route(&snapshot), expected);
    let snapshot = routed(&Kuma, snapshot, &Weights::canary(50));
    assert_eq!(route(&snapshot)["spec"]["conf"]["split"], both(50, 50));
}

#[test]
fn the_mesh_is_kumas_default_unless_the_canary_names_another() {
    let snapshot = reconciled(&Kuma, plain(), &Weights::PRIMARY);
    assert_eq!(route(&snapshot)["mesh"], "default");
}

#[test]
fn the_route_is_in_no_namespace() {
    let snapshot = plain();
    let objects = Kuma.objects(&snapshot.canary);
    assert!(objects.iter().all(|object| object.namespace.is_empty()));
    let writes = Kuma.reconcile(&snapshot, &selector(), &Weights::PRIMARY);
    assert_eq!(writes.unwrap()[0].object.namespace, "");
}

#[test]
fn a_repair_keeps_the_weights_and_the_fields_of_others() {
    let snapshot = reconciled(&Kuma, plain(), &Weights::PRIMARY);
    let mut snapshot = routed(&Kuma, snapshot, &Weights::canary(30));
    let balancer = json!({"roundRobin": {}});
    edit(&mut snapshot, |route| {
        route["spec"]["conf"]["loadBalancer"] = balancer.clone();
        route["spec"]["sources"] = json!([]);
    });
    let snapshot = reconciled(&Kuma, snapshot, &Weights::canary(30));
    let expected = json!({"split": both(70, 30), "loadBalancer": balancer});
    let spec = &route(&snapshot)["spec"];
    assert_eq!(spec["conf"], expected);
    assert_eq!(
        spec["sources"],
        json!([{"match": {"kuma.io/service": "*"}}])
    );
}

/// Another port is still the same Service.
#[test]
fn a_route_about_another_service_is_refused_and_not_written() {
    let mut other = reconciled(&Kuma, plain(), &Weights::canary(30));
    other.canary.spec.service.port = 81;
    let writes = Kuma.set_weights(&other, &Weights::PRIMARY).unwrap();
    assert_eq!(writes.len(), 1);
    edit(&mut other, |route| {
        route["spec"]["destinations"][0]["match"]["kuma.io/service"] = json!("podinfo_b_svc_80");
    });
    for refused in [
        Kuma.reconcile(&other, &selector(), &Weights::PRIMARY),
        Kuma.set_weights(&other, &Weights::PRIMARY),
    ] {
        let error = refused.unwrap_err().to_string();
        assert_eq!(
            error,
            "TrafficRoute podinfo, an object of the whole cluster, exists already for podinfo_b_svc_80: delete it, or give this canary another spec.service.name"
        );
    }
    assert_eq!(Kuma.restore(&other), None);
}

#[test]
fn a_deletion_leads_the_route_to_the_apex() {
    let mut snapshot = reconciled(&Kuma, plain(), &Weights::canary(30));
    let write = Kuma.restore(&snapshot).into_iter().collect();
    apply(&mut snapshot, write);
    let split = &route(&snapshot)["spec"]["conf"]["split"];
    assert_eq!(*split, json!([to("podinfo", 100)]));
    assert_eq!(Kuma.restore(&snapshot), None);
    let error = Kuma.current_weights(&snapshot).unwrap_err().to_string();
    assert_eq!(
        error,
        "TrafficRoute podinfo does not contain routes for podinfo-primary and podinfo-canary"
    );
}

#[test]
fn a_deletion_gives_the_users_route_back() {
    let mut snapshot = reconciled(&Kuma, plain(), &Weights::canary(30));
    let spec = json!({"conf": {"destination": {"kuma.io/service": "podinfo_test_svc_80"}}});
    let applied = json!({"spec": spec}).to_string();
    edit(&mut snapshot, |route| {
        route["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"] =
            json!(applied);
    });
    let write = Kuma.restore(&snapshot).into_iter().collect();
    apply(&mut snapshot, write);
    assert_eq!(route(&snapshot)["spec"], spec);
}

#[test]
fn a_missing_route_is_named() {
    let error = Kuma.current_weights(&plain()).unwrap_err().to_string();
    assert_eq!(
        error,
        "TrafficRoute podinfo get query error: trafficroutes.kuma.io \"podinfo\" not found"
    );
}
