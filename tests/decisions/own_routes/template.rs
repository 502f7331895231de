//! Copies of routes of the user (`mode: Template`), and rules that keep clients on a version (`affinity: accept`).

use super::*;

/// A user's route without parents, whose rule leads to the promoted version only.
fn source() -> Value {
    let mut source = route(Kind::HttpRoute);
    source["spec"].as_object_mut().unwrap().remove("parentRefs");
    let backend = json!({"name": "podinfo", "port": 9898, "weight": 1});
    source["spec"]["rules"][0]["backendRefs"] = json!([backend]);
    source
}

/// A Canary that names this route, initialized, with a new version of the target.
fn release_with(entry: Value, route: Value, spec: Value) -> Simulation {
    let mut all =
        json!({"provider": "kubernetes", "service": {"port": 9898, "routeRefs": [entry]}});
    for (field, value) in spec.as_object().unwrap() {
        all[field] = value.clone();
    }
    let mut sim = Simulation::new(all);
    let name = name(&sim, Kind::HttpRoute);
    sim.store(name, route);
    sim.run_until(CanaryPhase::Initialized);
    sim.image("podinfo:2");
    sim
}

fn template(spec: Value) -> Simulation {
    let entry = json!({"kind": "HTTPRoute", "name": "web", "mode": "Template", "parentRefs": [{"name": "public"}]});
    release_with(entry, source(), spec)
}

fn copy(sim: &Simulation) -> &Value {
    &sim.snapshot.objects[&sim.snapshot.reference(Kind::HttpRoute, "web-flagger")]
}

fn weights_of_copy(sim: &Simulation) -> Vec<u64> {
    let weight = |place: &&str| copy(sim).pointer(place).unwrap().as_u64().unwrap();
    WEIGHTS.iter().map(weight).collect()
}

fn steps() -> Value {
    json!({"analysis": {"stepWeight": 20, "maxWeight": 40}})
}

#[test]
fn a_release_with_a_template_writes_the_copy_and_never_the_route_of_the_user() {
    for (metric, end) in [("100", CanaryPhase::Succeeded), ("42", CanaryPhase::Failed)] {
        let mut sim = template(steps());
        sim.metric = metric.to_owned();
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..400 {
            sim.reconcile();
            let name = name(&sim, Kind::HttpRoute);
            assert_eq!(content(&sim.snapshot.objects[&name]), source());
            let mut live = copy(&sim)["spec"].clone();
            seen.insert(weights_of_copy(&sim));
            live["rules"][0]["backendRefs"].take();
            let mut expected = source()["spec"].clone();
            expected["parentRefs"] = json!([{"name": "public"}]);
            expected["rules"][0]["backendRefs"].take();
            assert_eq!(live, expected);
            let metadata = &copy(&sim)["metadata"];
            assert_eq!(metadata["ownerReferences"][0]["kind"], "Canary");
            assert_eq!(metadata["labels"], Value::Null);
        }
        assert_eq!(sim.snapshot.phase(), end);
        assert_eq!(weights_of_copy(&sim), [100, 0]);
        let expected: &[[u64; 2]] = match end {
            CanaryPhase::Succeeded => &[[60, 40], [80, 20], [100, 0]],
            _ => &[[80, 20], [100, 0]],
        };
        assert!(seen.iter().eq(expected), "{seen:?}");
        if end == CanaryPhase::Succeeded {
            transcript("own-routes-template", &sim);
        }
    }
}

#[test]
fn a_change_of_the_template_reaches_the_copy_in_the_middle_of_a_release() {
    let mut sim = template(steps());
    run_until_weight(&mut sim, 20);
    edit(&mut sim, Kind::HttpRoute, |route| {
        route["spec"]["rules"][0]["timeouts"]["request"] = json!("9s");
    });
    sim.run(2);
    assert_eq!(copy(&sim)["spec"]["rules"][0]["timeouts"]["request"], "9s");
    assert_eq!(weights_of_copy(&sim), [80, 20]);
    sim.run_until(CanaryPhase::Succeeded);
}

/// A tester reaches the version under analysis, and nobody reaches it after the run.
#[test]
fn a_debug_header_leads_to_the_canary_as_long_as_it_has_a_weight() {
    let entry = json!({"kind": "HTTPRoute", "name": "web", "mode": "Template", "parentRefs": [{"name": "public"}],
        "debugHeader": {"name": "x-debug", "value": "1"}});
    for metric in ["100", "42"] {
        let mut sim = release_with(entry.clone(), source(), steps());
        sim.metric = "100".to_owned();
        run_until_weight(&mut sim, 20);
        sim.metric = metric.to_owned();
        let rules = copy(&sim)["spec"]["rules"].as_array().unwrap().clone();
        let [debug, rule] = &rules[..] else {
            panic!("{rules:?}")
        };
        let header = json!({"type": "Exact", "name": "x-debug", "value": "1"});
        assert_eq!(debug["matches"], json!([{"headers": [header]}]));
        assert_eq!(debug["timeouts"], rule["timeouts"]);
        let to = debug["backendRefs"].as_array().unwrap();
        assert_eq!((to.len(), &to[0]["name"]), (1, &json!("podinfo-canary")));
        assert_eq!(rule["backendRefs"][1]["weight"], 20);
        sim.run(400);
        assert_eq!(copy(&sim)["spec"]["rules"].as_array().unwrap().len(), 1);
    }
}

#[test]
fn a_template_that_cannot_be_used_any_more_leaves_the_copy_as_it_is_and_then_ends_the_run() {
    let mut spec = steps();
    spec["progressDeadlineSeconds"] = json!(60);
    let mut sim = template(spec);
    run_until_weight(&mut sim, 20);
    edit(&mut sim, Kind::HttpRoute, |route| {
        route["spec"]["rules"] = json!([])
    });
    sim.run(30);
    assert_eq!(weights_of_copy(&sim), [80, 20]);
    assert!(sim.count_notified("HTTPRoute web.test has no rule that leads to both") > 0);
    sim.run(100);
    assert_eq!(sim.snapshot.phase(), CanaryPhase::Failed);
    assert_eq!(weights_of_copy(&sim), [100, 0]);
}

/// Without its parents the copy would lead no request any more, and the user's route would not lead them yet.
#[test]
fn a_copy_leads_the_requests_until_the_route_of_the_user_has_parents_again() {
    let mut sim = template(steps());
    sim.run_until(CanaryPhase::Succeeded);
    sim.snapshot.canary.spec.service.route_refs = None;
    sim.run(30);
    let has_parents = |sim: &Simulation| copy(sim)["spec"].get("parentRefs").is_some();
    assert!(has_parents(&sim), "{}", sim.transcript());
    let why = "HTTPRoute web.test has no parents, so its copy still leads the requests";
    assert!(sim.count_notified(why) > 0, "{}", sim.transcript());
    edit(&mut sim, Kind::HttpRoute, |route| {
        route["spec"]["parentRefs"] = json!([{"name": "public"}]);
    });
    sim.run(30);
    assert!(!has_parents(&sim), "{}", sim.transcript());
    assert!(
        !sim.snapshot
            .status()
            .has_condition(ConditionType::RouteRefs)
    );
}

#[test]
fn a_deletion_with_revert_waits_for_the_parents_of_the_route_and_one_without_does_not() {
    for reverts in [false, true] {
        let mut spec = steps();
        spec["revertOnDeletion"] = json!(reverts);
        let mut sim = template(spec);
        run_until_weight(&mut sim, 20);
        sim.delete();
        sim.run(60);
        assert_eq!(weights_of_copy(&sim), [100, 0], "{}", sim.transcript());
        assert_eq!(sim.is_gone(), !reverts, "{}", sim.transcript());
        edit(&mut sim, Kind::HttpRoute, |route| {
            route["spec"]["parentRefs"] = json!([{"name": "public"}]);
        });
        sim.run(60);
        assert!(sim.is_gone(), "{}", sim.transcript());
    }
}

#[test]
fn an_object_of_others_with_the_name_of_the_copy_is_never_overwritten() {
    let entry = json!({"kind": "HTTPRoute", "name": "web", "mode": "Template", "parentRefs": [{"name": "public"}]});
    let mut sim = Simulation::new(
        json!({"provider": "kubernetes", "service": {"port": 9898, "routeRefs": [entry]}, "analysis": {"stepWeight": 20}}),
    );
    let mut other = route(Kind::HttpRoute);
    other["metadata"]["name"] = json!("web-flagger");
    let of_other = sim.snapshot.reference(Kind::HttpRoute, "web-flagger");
    let of_user = name(&sim, Kind::HttpRoute);
    sim.store(of_user, source());
    sim.store(of_other.clone(), other.clone());
    sim.run(60);
    assert_eq!(content(&sim.snapshot.objects[&of_other]), other);
    assert!(
        sim.snapshot
            .status()
            .has_condition(ConditionType::ForeignObject),
        "{}",
        sim.transcript()
    );
}

/// A gateway keeps clients on a backend that has the weight 0, and the canary's pods are gone then.
#[test]
fn a_rule_that_keeps_sessions_has_the_canarys_backend_only_while_the_version_gets_requests() {
    let mut before = route(Kind::HttpRoute);
    let rule = &mut before["spec"]["rules"][0];
    rule["sessionPersistence"] = json!({"sessionName": "s"});
    rule["backendRefs"].as_array_mut().unwrap().pop();
    rule["backendRefs"][0]["filters"] = json!([{"type": "RequestHeaderModifier"}]);
    for (metric, end) in [("100", CanaryPhase::Succeeded), ("42", CanaryPhase::Failed)] {
        for crash in [None, Some(1), Some(2), Some(3), Some(4)] {
            let entry =
                json!({"kind": "HTTPRoute", "name": "web", "rules": ["api"], "affinity": "accept"});
            let mut sim = release_with(entry, before.clone(), steps());
            sim.metric = metric.to_owned();
            sim.crash_after = crash.map(|crash| sim.writes + crash);
            let mut seen = false;
            for _ in 0..400 {
                sim.reconcile();
                let route = &sim.snapshot.objects[&name(&sim, Kind::HttpRoute)];
                let backends = route["spec"]["rules"][0]["backendRefs"].as_array().unwrap();
                if let [_, canary] = &backends[..] {
                    seen = true;
                    assert_eq!(canary["name"], "podinfo-canary");
                    assert_eq!(canary["filters"], backends[0]["filters"]);
                    assert_ne!(canary["weight"], 0);
                }
            }
            assert!(seen);
            assert_eq!(sim.snapshot.phase(), end, "{}", sim.transcript());
            let route = &sim.snapshot.objects[&name(&sim, Kind::HttpRoute)];
            assert_eq!(content(route), before);
        }
    }
}

#[test]
fn an_object_of_others_is_left_alone_when_the_canary_leaves_its_template_or_is_deleted() {
    for deletes in [false, true] {
        let mut sim = template(steps());
        sim.run_until(CanaryPhase::Succeeded);
        // Another actor replaces the copy.
        let of_copy = sim.snapshot.reference(Kind::HttpRoute, "web-flagger");
        let mut other = route(Kind::HttpRoute);
        other["metadata"]["name"] = json!("web-flagger");
        set_weights_of(&mut other, [100, 0]);
        sim.snapshot.objects.remove(&of_copy);
        sim.store(of_copy.clone(), other.clone());
        if deletes {
            sim.delete();
        } else {
            sim.snapshot.canary.spec.service.route_refs = None;
        }
        edit(&mut sim, Kind::HttpRoute, |route| {
            route["spec"]["parentRefs"] = json!([{"name": "public"}]);
        });
        sim.run(100);
        assert_eq!(content(&sim.snapshot.objects[&of_copy]), other);
        assert_eq!(sim.is_gone(), deletes, "{}", sim.transcript());
    }
}

fn set_weights_of(route: &mut Value, weights: [u64; 2]) {
    for (place, weight) in WEIGHTS.iter().zip(weights) {
        *route.pointer_mut(place).unwrap() = json!(weight);
    }
}

#[test]
fn an_entry_with_the_name_of_a_template_takes_no_parents_from_the_copy() {
    let mut sim = template(steps());
    sim.run_until(CanaryPhase::Succeeded);
    let refs = sim
        .snapshot
        .canary
        .spec
        .service
        .route_refs
        .as_mut()
        .unwrap();
    let patched = json!({"kind": "HTTPRoute", "name": "web", "namespace": "infra"});
    refs.insert(0, serde_json::from_value(patched).unwrap());
    sim.run(60);
    assert_eq!(
        copy(&sim)["spec"]["parentRefs"],
        json!([{"name": "public"}])
    );
}

/// The user's older route wins then, so the copy's weights mean nothing.
#[test]
fn a_template_with_parents_in_the_middle_of_a_release_holds_it_up_and_then_ends_it() {
    let mut spec = steps();
    spec["progressDeadlineSeconds"] = json!(60);
    let mut sim = template(spec);
    run_until_weight(&mut sim, 20);
    edit(&mut sim, Kind::HttpRoute, |route| {
        route["spec"]["parentRefs"] = json!([{"name": "public"}]);
    });
    sim.run(30);
    assert_eq!(sim.snapshot.status().canary_weight, 20);
    assert!(sim.count_notified("HTTPRoute web.test has parents") > 0);
    sim.run(100);
    assert_eq!(
        sim.snapshot.phase(),
        CanaryPhase::Failed,
        "{}",
        sim.transcript()
    );
    assert_eq!(weights_of_copy(&sim), [100, 0]);
}

#[test]
fn a_template_that_was_left_without_parents_holds_up_no_promotion_and_no_new_version() {
    let mut sim = template(steps());
    run_until_weight(&mut sim, 40);
    sim.run_until_phase(CanaryPhase::Promoting);
    sim.snapshot.canary.spec.service.route_refs = None;
    sim.run_until(CanaryPhase::Succeeded);
    sim.image("podinfo:3");
    sim.run(30);
    sim.run_until(CanaryPhase::Succeeded);
    assert_eq!(weights_of_copy(&sim), [100, 0]);
    assert!(copy(&sim)["spec"].get("parentRefs").is_some());
}

/// A template that must not be read is no deleted one.
#[test]
fn a_copy_keeps_its_parents_while_the_operator_may_not_read_the_template() {
    let mut sim = template(steps());
    sim.run_until(CanaryPhase::Succeeded);
    let of_user = name(&sim, Kind::HttpRoute);
    sim.snapshot.objects.remove(&of_user);
    let why = "httproutes \"web\" is forbidden".to_owned();
    sim.snapshot.forbidden.insert(of_user, why);
    sim.snapshot.canary.spec.service.route_refs = None;
    sim.run(60);
    assert!(copy(&sim)["spec"].get("parentRefs").is_some());
}

/// The canary is scaled down after the rollback.
#[test]
fn a_rollback_removes_the_rule_for_testers_although_the_template_cannot_be_used() {
    let entry = json!({"kind": "HTTPRoute", "name": "web", "mode": "Template", "parentRefs": [{"name": "public"}],
        "debugHeader": {"name": "x-debug", "value": "1"}});
    let mut spec = steps();
    spec["progressDeadlineSeconds"] = json!(60);
    let mut sim = release_with(entry, source(), spec);
    run_until_weight(&mut sim, 20);
    assert_eq!(copy(&sim)["spec"]["rules"].as_array().unwrap().len(), 2);
    edit(&mut sim, Kind::HttpRoute, |route| {
        route["spec"]["rules"] = json!([]);
    });
    sim.run(150);
    assert_eq!(
        sim.snapshot.phase(),
        CanaryPhase::Failed,
        "{}",
        sim.transcript()
    );
    assert_eq!(copy(&sim)["spec"]["rules"].as_array().unwrap().len(), 1);
    assert_eq!(weights_of_copy(&sim), [100, 0]);
}

/// A rule that keeps sessions, at a weight of 20 for the canary.
fn keeping_sessions() -> (Simulation, Value) {
    let mut before = route(Kind::HttpRoute);
    let rule = &mut before["spec"]["rules"][0];
    rule["sessionPersistence"] = json!({"sessionName": "s"});
    rule["backendRefs"].as_array_mut().unwrap().pop();
    let entry = json!({"kind": "HTTPRoute", "name": "web", "rules": ["api"], "affinity": "accept"});
    let mut spec = steps();
    spec["progressDeadlineSeconds"] = json!(60);
    let mut sim = release_with(entry, before.clone(), spec);
    run_until_weight(&mut sim, 20);
    (sim, before)
}

/// A GitOps tool that ignores weights applies the rule without the backend.
#[test]
fn a_backend_that_another_actor_removes_comes_back_and_no_request_fails() {
    for left in [80, 0] {
        let (mut sim, before) = keeping_sessions();
        edit(&mut sim, Kind::HttpRoute, |route| {
            let backends = &mut route["spec"]["rules"][0]["backendRefs"];
            backends.as_array_mut().unwrap().pop();
            backends[0]["weight"] = json!(left);
        });
        sim.run(2);
        assert_eq!(
            weights(&sim, Kind::HttpRoute),
            [80, 20],
            "{}",
            sim.transcript()
        );
        sim.run_until(CanaryPhase::Succeeded);
        let route = &sim.snapshot.objects[&name(&sim, Kind::HttpRoute)];
        assert_eq!(content(route), before);
    }
}

#[test]
fn a_user_who_takes_the_affinity_back_in_the_middle_of_a_release_gets_the_route_back() {
    let (mut sim, before) = keeping_sessions();
    let refs = sim
        .snapshot
        .canary
        .spec
        .service
        .route_refs
        .as_mut()
        .unwrap();
    refs[0].affinity = None;
    sim.run(100);
    let route = &sim.snapshot.objects[&name(&sim, Kind::HttpRoute)];
    assert_eq!(content(route), before, "{}", sim.transcript());
    assert_eq!(
        sim.snapshot.phase(),
        CanaryPhase::Failed,
        "{}",
        sim.transcript()
    );
}

/// Otherwise the copy would lead requests beside the user's route, and nothing would remember it.
#[test]
fn a_copy_stays_on_record_while_the_api_server_refuses_to_take_its_parents() {
    let mut sim = template(steps());
    sim.run_until(CanaryPhase::Succeeded);
    let of_copy = sim.snapshot.reference(Kind::HttpRoute, "web-flagger");
    sim.snapshot.refused = Some(RefusedWrite {
        object: of_copy.clone(),
        why: "no".to_owned(),
        generation: None,
    });
    sim.memory.mark_written(&of_copy);
    sim.snapshot.canary.spec.service.route_refs = None;
    edit(&mut sim, Kind::HttpRoute, |route| {
        route["spec"]["parentRefs"] = json!([{"name": "public"}]);
    });
    sim.run(1);
    assert!(copy(&sim)["spec"].get("parentRefs").is_some());
    assert!(
        sim.snapshot
            .status()
            .has_condition(ConditionType::RouteRefs)
    );
    sim.snapshot.refused = None;
    sim.run(60);
    assert!(
        copy(&sim)["spec"].get("parentRefs").is_none(),
        "{}",
        sim.transcript()
    );
    assert!(
        !sim.snapshot
            .status()
            .has_condition(ConditionType::RouteRefs)
    );
}

/// A tool has written the copy without its owner. The operator does not write it any more, and requests still reach the canary.
#[test]
fn a_copy_that_lost_its_owner_keeps_the_pods_of_the_canary_and_holds_a_rollback_up() {
    let mut sim = template(steps());
    run_until_weight(&mut sim, 20);
    sim.metric = "42".to_owned();
    let of_copy = sim.snapshot.reference(Kind::HttpRoute, "web-flagger");
    let live = sim.snapshot.objects.get_mut(&of_copy).unwrap();
    let owner = live["metadata"]["ownerReferences"].take();
    sim.run(300);
    assert_eq!(weights_of_copy(&sim), [80, 20], "{}", sim.transcript());
    let target = sim.snapshot.reference(Kind::Deployment, "podinfo");
    assert_ne!(sim.snapshot.objects[&target]["spec"]["replicas"], 0);
    let why =
        "HTTPRoute web-flagger.test is not the operator's copy and leads requests to the canary";
    assert!(sim.count_notified(why) > 0, "{}", sim.transcript());
    let live = sim.snapshot.objects.get_mut(&of_copy).unwrap();
    live["metadata"]["ownerReferences"] = owner;
    sim.run(100);
    assert_eq!(weights_of_copy(&sim), [100, 0], "{}", sim.transcript());
    assert_eq!(sim.snapshot.objects[&target]["spec"]["replicas"], 0);
}

/// The user has moved the entry of a route from one Canary to another. The copy has the name that both give it.
#[test]
fn a_copy_that_another_canary_has_left_is_taken_over_and_one_that_leads_requests_is_not() {
    let entry = json!({"kind": "HTTPRoute", "name": "web", "mode": "Template", "parentRefs": [{"name": "public"}]});
    let service = json!({"port": 9898, "routeRefs": [entry]});
    let mut sim = Simulation::new(
        json!({"provider": "kubernetes", "service": service, "analysis": {"stepWeight": 20, "maxWeight": 40}}),
    );
    let of_user = name(&sim, Kind::HttpRoute);
    sim.store(of_user, source());
    let copied = sim.snapshot.reference(Kind::HttpRoute, "web-flagger");
    let owner = json!({"apiVersion": "flagger.app/v1beta1", "kind": "Canary", "name": "other", "uid": "o", "controller": true});
    let mut of_other = route(Kind::HttpRoute);
    of_other["metadata"] =
        json!({"name": "web-flagger", "namespace": "test", "ownerReferences": [owner]});
    sim.store(copied.clone(), of_other);
    let before = copy(&sim).clone();
    sim.run(30);
    let refused = sim
        .snapshot
        .status()
        .condition(ConditionType::ForeignObject);
    let why = refused.and_then(|condition| condition.message.clone());
    assert!(
        why.unwrap_or_default().contains("belongs to Canary other"),
        "{}",
        sim.transcript()
    );
    assert_eq!(*copy(&sim), before);
    // The other Canary leaves the copy.
    let left = sim.snapshot.objects.get_mut(&copied).unwrap();
    left["spec"].as_object_mut().unwrap().remove("parentRefs");
    sim.run_until(CanaryPhase::Initialized);
    let owners = &copy(&sim)["metadata"]["ownerReferences"];
    assert_eq!(
        (&owners[0]["name"], owners.as_array().unwrap().len()),
        (&json!("podinfo"), 1)
    );
    sim.image("podinfo:2");
    sim.run_until(CanaryPhase::Succeeded);
    assert_eq!(weights_of_copy(&sim), [100, 0]);
}
