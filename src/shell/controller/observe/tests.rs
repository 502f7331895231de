use serde_json::json;

use super::*;
use crate::cli;

fn settings() -> Arc<Settings> {
    let Ok(cli::Command::Run(config)) = cli::parse([], |_| None) else {
        panic!("the operator runs without arguments")
    };
    Arc::new(config.settings)
}

/// A canary of this age (a larger number is younger), with this target.
fn canary(name: &str, second: u8, kind: &str, target: &str) -> Canary {
    serde_json::from_value(json!({"apiVersion": "flagger.app/v1beta1", "kind": "Canary",
        "metadata": {"name": name, "namespace": "shop", "creationTimestamp": format!("2026-01-02T03:04:{second:02}Z")},
        "spec": {"targetRef": {"apiVersion": "apps/v1", "kind": kind, "name": target}, "service": {"port": 80},
            "analysis": {"interval": "1m", "threshold": 1, "stepWeight": 10}}}))
    .unwrap()
}

fn snapshot(canary: Canary) -> Snapshot {
    let reference = ObjectRef {
        kind: crate::snapshot::Kind::Canary,
        namespace: "shop".to_owned(),
        name: canary.metadata.name.clone().unwrap(),
    };
    empty_snapshot(canary, &reference, &settings())
}

#[test]
fn the_oldest_canary_of_a_target_runs_and_by_name_if_they_are_equally_old() {
    let own = snapshot(canary("m", 30, "Deployment", "web"));
    let web = |name: &str, second| canary(name, second, "Deployment", "web");
    for (others, expected) in [
        (vec![], None),
        (vec![web("younger", 31)], None),
        (vec![web("older", 29)], Some("older.shop")),
        (
            vec![web("older", 29), web("oldest", 5)],
            Some("oldest.shop"),
        ),
        (vec![web("z", 30)], None),
        (vec![web("a", 30)], Some("a.shop")),
        (vec![canary("other", 5, "Deployment", "other")], None),
    ] {
        let conflicting = conflicting_among(&own, others.into_iter());
        let conflicting = conflicting.map(|conflict| conflict.canary);
        assert_eq!(conflicting.as_deref(), expected);
    }
}

/// Each row has the fields of an older canary, and the object that both would write.
#[test]
fn a_canary_conflicts_with_each_older_one_that_claims_an_object_of_its_own() {
    let with = |name: &str, second: u8, spec: Value| {
        let mut object = serde_json::to_value(canary(name, second, "Deployment", name)).unwrap();
        json_patch::merge(&mut object, &json!({"spec": spec}));
        serde_json::from_value::<Canary>(object).unwrap()
    };
    let scaler =
        json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "name": "load"});
    let own = json!({"service": {"name": "shop"}, "autoscalerRef": scaler});
    let own = snapshot(with("web", 30, own));
    for (spec, object) in [
        (json!({}), None),
        (
            json!({"targetRef": {"name": "web"}}),
            Some("Deployment web"),
        ),
        (
            json!({"targetRef": {"name": "web-primary"}}),
            Some("Deployment web-primary"),
        ),
        (json!({"service": {"name": "shop"}}), Some("Service shop")),
        (
            json!({"service": {"name": "shop-canary"}}),
            Some("Service shop-canary"),
        ),
        (
            json!({"autoscalerRef": scaler}),
            Some("HorizontalPodAutoscaler load"),
        ),
        (
            json!({"targetRef": {"kind": "DaemonSet", "name": "shop"}}),
            Some("Service shop"),
        ),
        // Without a mesh there is no route that both canaries would write. Both would write the Services.
        (
            json!({"provider": "kubernetes", "service": {"name": "shop"}}),
            Some("Service shop"),
        ),
    ] {
        let other = with("other", 5, spec.clone());
        let conflict = conflicting_among(&own, [other].into_iter());
        let found = conflict.map(|conflict| {
            assert_eq!(conflict.canary, "other.shop");
            format!("{} {}", conflict.object.kind.name(), conflict.object.name)
        });
        assert_eq!(found.as_deref(), object, "{spec}");
    }
}

/// Both would give the rule other weights each time, and their steps would not mean what their status says.
#[test]
fn of_two_canaries_with_one_rule_of_a_users_route_the_younger_one_is_not_run() {
    let with = |name: &str, second: u8, rules: Value| {
        let mut object = serde_json::to_value(canary(name, second, "Deployment", name)).unwrap();
        object["spec"]["service"]["routeRefs"] =
            json!([{"kind": "HTTPRoute", "name": "all", "rules": rules}]);
        serde_json::from_value::<Canary>(object).unwrap()
    };
    let backends = ["web", "web-canary", "other", "other-canary"];
    let backends = backends.map(|name| json!({"name": name, "port": 80, "weight": 100}));
    let rules = ["api", "site"].map(|name| json!({"name": name, "backendRefs": backends}));
    let route = json!({"metadata": {"name": "all", "namespace": "shop"}, "spec": {"rules": rules}});
    let name = Kind::HttpRoute.reference("shop", "all");
    for (second, theirs, is_conflict) in [
        (5, json!(["api"]), true),
        (5, json!([]), true),
        (5, json!(["site"]), false),
        (31, json!(["api"]), false),
    ] {
        let mut own = snapshot(with("web", 30, json!(["api"])));
        own.objects.insert(name.clone(), route.clone());
        let other = with("other", second, theirs.clone());
        let conflict = conflicting_among(&own, [other].into_iter());
        let expected = is_conflict.then(|| Conflict {
            canary: "other.shop".to_owned(),
            object: name.clone(),
        });
        assert_eq!(conflict, expected, "{theirs}");
        own.conflicting_canary = conflict;
        let evidence = rollout::Evidence::new();
        let status = json!({"phase": "Initializing"});
        own.canary.status = serde_json::from_value(status).unwrap();
        let rollout::Decision::Do(plan) = rollout::decide(&own, &evidence) else {
            panic!("the first decision writes the finalizer, or the condition")
        };
        let reported = format!("{plan:?}");
        let why = "canary web.shop is not run: other.shop sets the weights of the same rule of HTTPRoute all.shop; name other rules in routeRefs of one of both";
        assert_eq!(reported.contains(why), is_conflict, "{reported}");
    }
}

#[test]
fn a_canary_is_active_during_a_run_a_deletion_and_any_other_action() {
    let active = |change: Value| {
        let mut object = serde_json::to_value(canary("m", 30, "Deployment", "web")).unwrap();
        json_patch::merge(&mut object, &change);
        is_active(&snapshot(parse(object).unwrap()))
    };
    let condition =
        |kind: &str| json!({"type": kind, "status": "True", "reason": "r", "message": "m"});
    let status = |phase: &str, conditions: &[&str]| {
        let conditions: Vec<_> = conditions.iter().map(|kind| condition(kind)).collect();
        json!({"status": {"phase": phase, "canaryWeight": 0, "failedChecks": 0, "iterations": 0, "conditions": conditions}})
    };
    for phase in ["Initialized", "Succeeded", "Failed"] {
        assert!(!active(status(phase, &["Promoted"])), "{phase}");
        assert!(active(status(phase, &["Promoted", "Draining"])), "{phase}");
    }
    for phase in [
        "Initializing",
        "Progressing",
        "Waiting",
        "Promoting",
        "Finalising",
    ] {
        assert!(active(status(phase, &["Promoted"])), "{phase}");
    }
    let mut deleted = status("Succeeded", &["Promoted"]);
    deleted["metadata"] = json!({"deletionTimestamp": "2026-01-02T03:05:00Z"});
    assert!(active(deleted));
}
