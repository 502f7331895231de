//! Tests of the objects that remain after the deletion of a Canary with `revertOnDeletion`.

use super::*;
use crate::workload::metadata::LAST_APPLIED;

/// The snapshot after a deletion has restored all, and the number of writes.
fn restored(mut snapshot: Snapshot) -> (Snapshot, usize) {
    let mut writes = 0;
    while let Some(write) = VERSION.restore(&snapshot) {
        apply(&mut snapshot, vec![write]);
        writes += 1;
        assert!(writes < 10, "the deletion never ends");
    }
    (snapshot, writes)
}

/// Flagger leaves the routes leading to a primary that is deleted.
#[test]
fn until_they_are_deleted_our_objects_lead_to_the_apex_service() {
    for weights in [Weights::PRIMARY, Weights::canary(30)] {
        let (snapshot, writes) = restored(reconciled(plain(), &weights));
        assert_eq!(VERSION.current_weights(&snapshot), Ok(Weights::PRIMARY));
        for name in ["podinfo-primary", "podinfo-canary"] {
            assert_eq!(
                VERSION.host(node(&snapshot, name)),
                Some("podinfo.test.svc.cluster.local.")
            );
        }
        assert_eq!(writes, if weights == Weights::PRIMARY { 2 } else { 3 });
    }
}

/// Objects of a user, as they were before the Canary.
fn adopted(by_kubectl: bool) -> (Snapshot, Vec<(Kind, Value)>) {
    let mut snapshot = plain();
    let targets = json!([{"virtualNodeRef": {"name": "podinfo-v1"}, "weight": 1}]);
    let routes = json!([{"name": "main", "httpRoute": {"match": {"prefix": "/"}, "action": {"weightedTargets": targets}}}]);
    let before = vec![
        (
            Kind::AppMeshRouter,
            json!({"listeners": [{"portMapping": {"port": 80, "protocol": "http"}}], "routes": routes}),
        ),
        (
            Kind::AppMeshService,
            json!({"provider": {"virtualNode": {"virtualNodeRef": {"name": "podinfo-v1"}}}}),
        ),
    ];
    for (kind, spec) in &before {
        let name = snapshot.reference(*kind, "podinfo");
        let mut live = json!({"metadata": {"name": "podinfo"}, "spec": spec});
        live["spec"]["meshRef"] = json!({"name": "global"});
        if by_kubectl {
            let applied = json!({"spec": spec}).to_string();
            live["metadata"]["annotations"] = json!({LAST_APPLIED: applied});
        }
        snapshot.objects.insert(name, live);
    }
    (snapshot, before)
}

#[test]
fn objects_of_a_user_become_what_they_were() {
    for by_kubectl in [true, false] {
        let (snapshot, before) = adopted(by_kubectl);
        let snapshot = routed(
            reconciled(snapshot, &Weights::PRIMARY),
            &Weights::canary(30),
        );
        // A later repair keeps the first spec.
        let mut drifted = snapshot;
        edit(&mut drifted, Kind::AppMeshRouter, "podinfo", |live| {
            live["spec"]["listeners"] = json!([]);
        });
        let snapshot = reconciled(drifted, &Weights::canary(30));
        assert_eq!(VERSION.current_weights(&snapshot), Ok(Weights::canary(30)));
        let (snapshot, _) = restored(snapshot);
        for (kind, mut spec) in before {
            spec["meshRef"] = json!({"name": "global"});
            assert_eq!(
                snapshot.object(kind, "podinfo").unwrap()["spec"],
                spec,
                "{kind:?} {by_kubectl}"
            );
        }
    }
}

#[test]
fn gateway_annotations_of_a_user_stay_if_the_canary_has_no_hosts() {
    let (mut snapshot, _) = adopted(false);
    let theirs = json!({"gateway.appmesh.k8s.aws/domain": "theirs"});
    edit(&mut snapshot, Kind::AppMeshService, "podinfo", |live| {
        live["metadata"]["annotations"] = theirs.clone();
    });
    let snapshot = reconciled(snapshot, &Weights::PRIMARY);
    let live = snapshot.object(Kind::AppMeshService, "podinfo").unwrap();
    assert_eq!(
        live["metadata"]["annotations"]["gateway.appmesh.k8s.aws/domain"],
        "theirs"
    );
    let missing = VERSION.routed(&snapshot.canary, &json!({"spec": {}}));
    assert!(missing.is_err());
}
