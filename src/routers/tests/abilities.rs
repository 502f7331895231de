//! The abilities of each router, and the objects that it reads before it decides.

use serde_json::json;

use super::{ROUTERS, canary_analysis, selector, snapshot};
use crate::snapshot::Weights;

/// The operator skips a strategy that a router lacks.
#[test]
fn each_router_says_what_it_can() {
    for row in ROUTERS {
        let mut analysis = canary_analysis();
        analysis["sessionAffinity"] = json!({"cookieName": "c", "primaryCookieName": "p"});
        let snapshot = snapshot(row.provider, json!({"port": 80}), analysis, json!({}));
        let keeps_sessions = row.router.new_cookies(&snapshot.canary, 7).is_some();
        assert_eq!(
            (
                row.router.splits_traffic(),
                row.router.mirrors(),
                row.router.splits_tenths(),
                keeps_sessions
            ),
            (
                row.rules.is_some(),
                row.mirrors,
                row.splits_tenths,
                row.keeps_sessions
            ),
            "{}",
            row.provider
        );
    }
}

/// A decision would treat an object that was not read as one that does not exist.
#[test]
fn a_router_reads_each_object_that_it_writes() {
    for row in ROUTERS {
        let service = json!({"port": 80, "gatewayRefs": [{"name": "gw"}]});
        let snapshot = snapshot(row.provider, service, canary_analysis(), json!({}));
        let read = row.router.objects(&snapshot.canary);
        let written = row
            .router
            .reconcile(&snapshot, &selector(), &Weights::PRIMARY)
            .unwrap();
        for write in written {
            assert!(
                read.contains(&write.object),
                "{}: {:?}",
                row.provider,
                write.object
            );
        }
        let objects = row.objects.iter();
        let expected = objects.map(|(kind, name)| kind.reference("test", name));
        assert_eq!(read, expected.collect(), "{}", row.provider);
    }
}

/// Istio's mesh has no route without a destination, and a share of 0 for both is no share. (Knative takes shares of 100 percent only.)
#[test]
fn a_share_of_one_percent_is_a_share_and_none_for_both_is_no_route() {
    for row in ROUTERS
        .iter()
        .filter(|row| row.rules.is_some() && !["nginx", "knative"].contains(&row.provider))
    {
        let service = json!({"port": 80, "gatewayRefs": [{"name": "gw"}]});
        let snapshot = snapshot(row.provider, service, canary_analysis(), json!({}));
        let share = |primary: u8, canary: u8| Weights {
            primary: primary.into(),
            canary: canary.into(),
            mirrored: false,
        };
        for weights in [share(99, 1), share(1, 99), share(1, 0), share(0, 1)] {
            let snapshot = super::reconciled(row.router, snapshot.clone(), &weights);
            assert_eq!(
                row.router.current_weights(&snapshot),
                Ok(weights),
                "{}",
                row.provider
            );
        }
        let snapshot = super::reconciled(row.router, snapshot, &share(0, 0));
        assert!(
            row.router.current_weights(&snapshot).is_err(),
            "{}",
            row.provider
        );
    }
}

/// Each route with metadata of its own is repaired if only its labels or only its annotations differ, and its rules stay as they are.
#[test]
fn labels_and_annotations_are_repaired_and_the_rules_stay() {
    for row in ROUTERS {
        let Some(rules) = row.rules.filter(|rules| rules.is_apex) else {
            continue;
        };
        let apex = json!({"labels": {"a": "b"}, "annotations": {"c": "d"}});
        let service = json!({"port": 80, "gatewayRefs": [{"name": "gw"}], "apex": apex});
        let before = snapshot(row.provider, service, canary_analysis(), json!({}));
        let before = super::reconciled(row.router, before, &Weights::canary(30));
        let name = before.reference(rules.kind, rules.name);
        for (field, key) in [("labels", "a"), ("annotations", "c")] {
            let mut drifted = before.clone();
            let live = drifted.objects.get_mut(&name).unwrap();
            live["metadata"][field][key] = json!("drifted");
            live["spec"]["foreign"] = json!(1);
            let mut expected = before.objects[&name].clone();
            expected["spec"]["foreign"] = json!(1);
            let repaired = super::reconciled(row.router, drifted, &Weights::PRIMARY);
            assert_eq!(
                repaired.objects[&name], expected,
                "{} {field}",
                row.provider
            );
        }
    }
}

/// The canary's Service is deleted with the Canary.
#[test]
fn a_route_that_mirrors_requests_is_restored_without_copies_for_the_canary() {
    for row in ROUTERS.iter().filter(|row| row.router.mirrors()) {
        let shadow = json!([{"backendRef": {"name": "shadow", "port": 80}}]);
        let service = json!({"port": 80, "gatewayRefs": [{"name": "gw"}], "mirror": shadow});
        let analysis = json!({"interval": "1m", "threshold": 1, "iterations": 1, "mirror": true, "mirrorWeight": 20});
        let snapshot = snapshot(row.provider, service, analysis, json!({}));
        let snapshot = super::reconciled(row.router, snapshot, &Weights::PRIMARY);
        let mirrored = Weights {
            mirrored: true,
            ..Weights::PRIMARY
        };
        let mut snapshot = super::routed(row.router, snapshot, &mirrored);
        assert_eq!(row.router.current_weights(&snapshot), Ok(mirrored));
        let write = row.router.restore(&snapshot).unwrap();
        let name = write.object.clone();
        super::apply(&mut snapshot, vec![write]);
        if let Some(write) = row.router.tidy(&snapshot) {
            super::apply(&mut snapshot, vec![write]);
        }
        let spec = snapshot.objects[&name]["spec"].to_string();
        assert!(
            !spec.contains("podinfo-") && !spec.contains("mirrorPercentage"),
            "{} {spec}",
            row.provider
        );
        let keeps_shadow = row.provider.starts_with("gatewayapi");
        assert_eq!(
            spec.contains("shadow"),
            keeps_shadow,
            "{} {spec}",
            row.provider
        );
    }
}

/// The configuration that kubectl applied last counts only if it is the user's, from before the Canary.
#[test]
fn a_route_of_the_operator_is_not_restored_from_kubectls_annotation() {
    for row in ROUTERS {
        let Some(rules) = row.rules.filter(|rules| rules.name == "podinfo") else {
            continue;
        };
        // The route of Kuma cannot have an owner, and that of Knative is the target itself.
        if ["kuma", "knative"].contains(&row.provider) {
            continue;
        }
        let service = json!({"port": 80, "gatewayRefs": [{"name": "gw"}]});
        let before = snapshot(row.provider, service, canary_analysis(), json!({}));
        let before = super::reconciled(row.router, before, &Weights::canary(30));
        let name = before.reference(rules.kind, rules.name);
        let applied = json!({"spec": {"users": 1}}).to_string();
        for is_owned in [true, false] {
            let mut snapshot = before.clone();
            let live = snapshot.objects.get_mut(&name).unwrap();
            live["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"] =
                json!(applied);
            if !is_owned {
                live["metadata"]["ownerReferences"] = json!([]);
            }
            let write = row.router.restore(&snapshot).unwrap();
            super::apply(&mut snapshot, vec![write]);
            let spec = &snapshot.objects[&name]["spec"];
            assert_eq!(
                spec.get("users").is_some(),
                !is_owned,
                "{} {spec}",
                row.provider
            );
        }
    }
}
