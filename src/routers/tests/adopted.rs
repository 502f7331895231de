//! The objects that a user had before the Canary: they keep what is the user's, and a deletion with `revertOnDeletion` gives them back.

use serde_json::{Value, json};

use super::{ROUTERS, Row, apply, canary_analysis, reconciled, routed, snapshot};
use crate::{
    routers::adoption::is_reference,
    snapshot::{Kind, ObjectRef, Snapshot, Weights},
    workload::{
        metadata::{LAST_APPLIED, ORIGINAL, ORIGINAL_METADATA, owner_reference},
        ownership::ADOPT,
    },
};

/// A Canary beside these objects, and the objects.
fn before(row: &Row, by_kubectl: bool) -> (Snapshot, Vec<(ObjectRef, Value)>) {
    let service = json!({"port": 80, "gatewayRefs": [{"name": "gw"}], "hosts": ["new.example.com"],
        "apex": {"labels": {"theirs": "ours", "a": "b"}, "annotations": {"theirs": "ours", "c": "d"}}});
    let mut snapshot = snapshot(row.provider, service, canary_analysis(), json!({}));
    let objects = (row.users)().into_iter().map(|(kind, name, spec)| {
        let mut object = json!({"metadata": {"name": name, "namespace": "test", "resourceVersion": "7",
            "labels": {"theirs": "1", "team": "shop"}, "annotations": {"theirs": "2", "note": "x", ADOPT: "true"}}, "spec": spec});
        if by_kubectl {
            let applied = json!({"metadata": {"labels": {"team": "shop"}}, "spec": {"applied": 1}});
            object["metadata"]["annotations"][LAST_APPLIED] = json!(applied.to_string());
        }
        (snapshot.reference(kind, name), object)
    });
    let objects: Vec<_> = objects.collect();
    snapshot.objects.extend(objects.iter().cloned());
    (snapshot, objects)
}

/// The snapshot after a deletion has restored all.
fn restored(row: &Row, mut snapshot: Snapshot) -> Snapshot {
    for _ in 0..20 {
        let write = row.router.restore(&snapshot);
        let write = write.or_else(|| row.router.tidy(&snapshot));
        let Some(write) = write else {
            return snapshot;
        };
        apply(&mut snapshot, vec![write]);
    }
    panic!("{}: the deletion never ends", row.provider);
}

/// Ways in which others change a route that leads to the Canary's Services.
const DRIFTS: [fn(&Row, &mut Value); 4] = [
    |_, _| {},
    |row, live| list(row, live)[0]["drifted"] = json!(1),
    |row, live| *list(row, live) = json!([]),
    |_, live| live["metadata"]["labels"] = json!({}),
];

/// The rules of a route.
fn list<'a>(row: &Row, live: &'a mut Value) -> &'a mut Value {
    let lists = row.rules.unwrap().lists;
    let has = |list: &&&str| live.pointer(list).is_some();
    let list = lists.iter().find(has).unwrap();
    live.pointer_mut(list).unwrap()
}

/// Without this test, the tests of this file could pass without any check of a router. (Knative's routes are those of the target, which is
/// never adopted.)
#[test]
fn a_user_may_have_the_route_of_each_router() {
    for row in ROUTERS {
        let first = (row.users)().first().map(|(kind, name, _)| (*kind, *name));
        let rules = row.rules.filter(|rules| rules.kind != Kind::KnativeService);
        let route = rules.map(|rules| (rules.kind, rules.name));
        assert_eq!(first, route, "{}", row.provider);
    }
}

#[test]
fn what_a_user_had_before_the_canary_stays_and_a_deletion_gives_it_back() {
    for row in ROUTERS {
        for (by_kubectl, drift) in [true, false]
            .into_iter()
            .flat_map(|by_kubectl| DRIFTS.map(|drift| (by_kubectl, drift)))
        {
            let (snapshot, objects) = before(row, by_kubectl);
            let Some((name, _)) = objects.first() else {
                continue;
            };
            let adopted = reconciled(row.router, snapshot, &Weights::PRIMARY);
            for (name, before) in &objects {
                let metadata = &adopted.objects[name]["metadata"];
                let kept = [
                    &metadata["labels"]["team"],
                    &metadata["annotations"]["note"],
                ];
                assert_eq!(kept, ["shop", "x"], "{} {name:?}", row.provider);
                assert_eq!(metadata["resourceVersion"], "7", "the write is conditional");
                assert!(
                    adopted.objects[name] != *before,
                    "{} {name:?}",
                    row.provider
                );
            }
            let mut adopted = routed(row.router, adopted, &Weights::canary(30));
            drift(row, adopted.objects.get_mut(name).unwrap());
            let adopted = reconciled(row.router, adopted, &Weights::canary(30));
            let again = row
                .router
                .reconcile(&adopted, &super::selector(), &Weights::canary(30));
            assert_eq!(again.unwrap(), [], "{}", row.provider);
            let given_back = restored(row, adopted);
            for (name, before) in &objects {
                let mut before = before.clone();
                // This drift removed the labels that the operator had not changed.
                if given_back.objects[name]["metadata"]["labels"]
                    .get("team")
                    .is_none()
                {
                    before["metadata"]["labels"] = json!({"theirs": "1"});
                    if given_back.objects[name]["metadata"]["labels"].is_null() {
                        before["metadata"].as_object_mut().unwrap().remove("labels");
                    }
                }
                assert_eq!(
                    given_back.objects[name], before,
                    "{} {by_kubectl}",
                    row.provider
                );
            }
        }
    }
}

/// Flagger has replaced all labels and annotations, and kept at most the spec. A route that the operator has repaired since leads to the
/// Canary's Services, so its spec is not the user's.
#[test]
fn a_route_that_flagger_adopted_is_given_back_as_far_as_it_is_known() {
    for (row, is_repaired) in ROUTERS
        .iter()
        .flat_map(|row| [true, false].map(|is| (row, is)))
    {
        if !row.rules.is_some_and(|rules| rules.is_apex) {
            continue;
        }
        let (mut snapshot, objects) = before(row, true);
        let (name, before) = &objects[0];
        let applied = json!({"metadata": {"labels": {"team": "shop"}}, "spec": before["spec"]});
        snapshot.objects.remove(name);
        let mut snapshot = reconciled(row.router, snapshot, &Weights::PRIMARY);
        let live = snapshot.objects.get_mut(name).unwrap();
        live["metadata"]["ownerReferences"] = json!([]);
        live["metadata"]["annotations"][LAST_APPLIED] = json!(applied.to_string());
        live["metadata"]["annotations"][ORIGINAL] = json!(live["spec"].to_string());
        if is_repaired {
            list(row, live)[0]["drifted"] = json!(1);
            snapshot = reconciled(row.router, snapshot, &Weights::PRIMARY);
        }
        let snapshot = restored(row, snapshot);
        let live = &snapshot.objects[name];
        assert_eq!(live["spec"], before["spec"], "{}", row.provider);
        assert_eq!(
            live["metadata"]["labels"]["team"], "shop",
            "{}",
            row.provider
        );
        let annotations = live["metadata"]["annotations"].as_object().unwrap();
        let keys: Vec<_> = annotations.keys().map(String::as_str).collect();
        assert_eq!(keys, ["c", LAST_APPLIED, "theirs"], "{}", row.provider);
    }
}

#[test]
fn a_manifest_that_kubectl_applies_after_the_adoption_is_the_users_last_word() {
    for row in ROUTERS {
        let (snapshot, objects) = before(row, true);
        let Some((name, users)) = objects.first() else {
            continue;
        };
        for is_repaired in [true, false] {
            let mut snapshot = reconciled(row.router, snapshot.clone(), &Weights::PRIMARY);
            let mut newer = users["spec"].clone();
            newer["newer"] = json!(1);
            let live = snapshot.objects.get_mut(name).unwrap();
            live["spec"] = newer.clone();
            let applied = json!({"spec": newer}).to_string();
            live["metadata"]["annotations"][LAST_APPLIED] = json!(applied);
            if is_repaired {
                snapshot = reconciled(row.router, snapshot, &Weights::PRIMARY);
            }
            let snapshot = restored(row, snapshot);
            let live = &snapshot.objects[name];
            assert_eq!(live["spec"], newer, "{} {is_repaired}", row.provider);
            assert_eq!(live["metadata"]["labels"], users["metadata"]["labels"]);
        }
    }
}

/// A Canary that has adopted the user's first object, which has these managed fields; also the name of the object, and its value before.
fn adopted_with(row: &Row, managed: &Value) -> Option<(Snapshot, ObjectRef, Value)> {
    let (snapshot, objects) = before(row, false);
    let (name, users) = objects.first()?.clone();
    let mut snapshot = reconciled(row.router, snapshot, &Weights::PRIMARY);
    let live = snapshot.objects.get_mut(&name).unwrap();
    live["metadata"]["managedFields"] = managed.clone();
    Some((snapshot, name, users))
}

/// Argo CD, Flux and `kubectl apply --server-side` apply on the server side. A change without an apply does not count as the user's: the
/// deletion undoes it.
#[test]
fn a_server_side_apply_after_the_adoption_is_the_users_last_word() {
    for (row, operation, is_repaired) in ROUTERS.iter().flat_map(|row| {
        [("Apply", true), ("Apply", false), ("Update", true)].map(|(by, is)| (row, by, is))
    }) {
        let fields = |spec: &Value| -> Value {
            let spec = spec.as_object().unwrap();
            spec.keys()
                .map(|key| (format!("f:{key}"), json!({})))
                .collect()
        };
        let Some((mut snapshot, name, users)) = adopted_with(row, &json!([])) else {
            continue;
        };
        let mut newer = users["spec"].clone();
        newer["newer"] = json!(1);
        let live = snapshot.objects.get_mut(&name).unwrap();
        live["spec"] = newer.clone();
        live["metadata"]["managedFields"] = json!([{"manager": "argocd", "operation": operation, "fieldsV1": {"f:spec": fields(&newer)}}]);
        if is_repaired {
            snapshot = reconciled(row.router, snapshot, &Weights::PRIMARY);
            let live = snapshot.objects.get_mut(&name).unwrap();
            live["metadata"]["managedFields"] = json!([{"manager": "flagger", "operation": "Update", "fieldsV1": {"f:spec": fields(&newer)}}]);
        }
        let snapshot = restored(row, snapshot);
        let expected = if operation == "Apply" {
            &newer
        } else {
            &users["spec"]
        };
        assert_eq!(
            snapshot.objects[&name]["spec"], *expected,
            "{} {is_repaired}",
            row.provider
        );
    }
}

/// The user calls `kubectl label --overwrite`, or applies a manifest with another value.
#[test]
fn a_label_that_a_user_sets_after_the_adoption_is_given_back() {
    for (row, is_repaired) in ROUTERS
        .iter()
        .flat_map(|row| [true, false].map(|is| (row, is)))
    {
        for (manager, given_back) in [("kubectl-label", "3"), ("flagger", "1")] {
            let managed = json!([{"manager": manager, "operation": "Update",
                "fieldsV1": {"f:metadata": {"f:labels": {"f:theirs": {}}}}}]);
            let Some((mut snapshot, name, _)) = adopted_with(row, &managed) else {
                continue;
            };
            let live = snapshot.objects.get_mut(&name).unwrap();
            if live["metadata"]["labels"]["theirs"] != "ours" {
                // The router writes no labels of the Canary there.
                continue;
            }
            live["metadata"]["labels"]["theirs"] = json!("3");
            if is_repaired {
                snapshot = reconciled(row.router, snapshot, &Weights::PRIMARY);
                let labels = &mut snapshot.objects.get_mut(&name).unwrap()["metadata"];
                assert_eq!(labels["labels"]["theirs"], "ours", "{}", row.provider);
                labels["managedFields"] = json!([]);
            }
            let snapshot = restored(row, snapshot);
            let labels = &snapshot.objects[&name]["metadata"]["labels"];
            assert_eq!(
                labels["theirs"], given_back,
                "{} {is_repaired}",
                row.provider
            );
        }
    }
}

/// A header, or the name of a rule, may be the name of one of our Services.
#[test]
fn a_text_that_is_no_reference_does_not_make_a_route_ours() {
    let istio = ROUTERS.iter().find(|row| row.provider == "istio").unwrap();
    let (mut snapshot, objects) = before(istio, false);
    let (name, _) = &objects[0];
    let headers = json!({"x-version": {"exact": "podinfo-canary"}});
    let http = json!([{"name": "podinfo-primary", "match": [{"headers": headers}], "route": [{"destination": {"host": "podinfo"}}]}]);
    snapshot.objects.get_mut(name).unwrap()["spec"]["http"] = http.clone();
    let adopted = reconciled(istio.router, snapshot, &Weights::PRIMARY);
    let snapshot = restored(istio, adopted);
    assert_eq!(snapshot.objects[name]["spec"]["http"], http);
}

/// The garbage collector deletes such a route with the Canary, so nothing has to be given back.
#[test]
fn a_route_of_the_operator_keeps_no_record() {
    for row in ROUTERS {
        let Some(rules) = row.rules else { continue };
        let service = json!({"port": 80, "gatewayRefs": [{"name": "gw"}]});
        let snapshot = snapshot(row.provider, service, canary_analysis(), json!({}));
        let name = snapshot.reference(rules.kind, rules.name);
        if snapshot.objects.contains_key(&name) {
            // The route is the target, which belongs to the user.
            continue;
        }
        let mut snapshot = reconciled(row.router, snapshot, &Weights::PRIMARY);
        let owner =
            (!rules.kind.is_cluster_scoped()).then(|| json!([owner_reference(&snapshot.canary)]));
        let live = snapshot.objects.get_mut(&name).unwrap();
        assert_eq!(live["metadata"].get("ownerReferences"), owner.as_ref());
        live["metadata"]["labels"] = json!({"foreign": "1"});
        *list(row, live) = json!([]);
        let snapshot = reconciled(row.router, snapshot, &Weights::PRIMARY);
        let annotations = &snapshot.objects[&name]["metadata"]["annotations"];
        assert_eq!(annotations.get(ORIGINAL_METADATA), None, "{}", row.provider);
    }
}

/// If a rule names its Service in a field that is not in the list, the rules of the user's route would not be known as rules about the Canary.
#[test]
fn the_field_in_which_each_rule_names_its_service_is_known() {
    for row in ROUTERS {
        // The destinations of Knative are Revisions, and the rules of an Ingress are those of the user.
        let rules =
            (row.rules).filter(|it| !it.service.is_empty() && it.kind != Kind::KnativeService);
        for (rules, list) in rules
            .iter()
            .flat_map(|rules| rules.lists.iter().map(move |it| (rules, it)))
        {
            let path = format!("{list}{}{}", rules.destinations, rules.service);
            let fields: Vec<_> = path
                .split('/')
                .map(|field| field.replace("~1", "/"))
                .collect();
            let [.., parent, field] = fields.as_slice() else {
                panic!("{path}");
            };
            assert!(is_reference([parent, field]), "{}: {path}", row.provider);
        }
    }
}
