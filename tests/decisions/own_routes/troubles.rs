//! Routes of the user that cannot be used, or that another actor writes: the release waits with a reason, then it ends.

use flagger_rs::rollout::{Decision, Evidence};
use jiff::SignedDuration;

use super::*;

/// Argo CD may sync the route every few seconds: the version must neither lose its steps nor end by a step that it never had.
#[test]
fn a_writer_that_never_stops_is_met_with_growing_pauses_and_the_step_waits() {
    let mut sim = release(json!({"stepWeight": 20, "maxWeight": 60}));
    run_until_weight(&mut sim, 20);
    sim.refusals.clear();
    let end = sim.snapshot.now.as_second() + 250;
    while sim.snapshot.now.as_second() < end {
        if weights(&sim, Kind::HttpRoute) != [100, 0] {
            set(&mut sim, Kind::HttpRoute, [100, 0]);
        }
        sim.reconcile();
    }
    let writes = sim.refusals.iter();
    let writes = writes.filter(|line| line.starts_with("HTTPRoute")).count();
    assert!(
        (3..10).contains(&writes),
        "{writes} writes\n{}",
        sim.transcript()
    );
    assert_eq!(sim.snapshot.phase(), CanaryPhase::Progressing);
    assert_eq!(sim.snapshot.status().canary_weight, 20);
    let why =
        "HTTPRoute web.test does not have the weights of the release: another actor changes them";
    assert!(sim.count_notified(why) > 0, "{}", sim.transcript());
    // It stops: the release goes on where it was.
    sim.run(2000);
    sim.run_until(CanaryPhase::Succeeded);
}

/// It leaves the right weights for a moment each time, but the version cannot be judged by them.
#[test]
fn a_writer_that_never_stops_ends_the_run_after_the_progress_deadline() {
    let spec =
        json!({"progressDeadlineSeconds": 120, "analysis": {"stepWeight": 20, "maxWeight": 60}});
    let mut sim = release_of(spec);
    run_until_weight(&mut sim, 20);
    let end = sim.snapshot.now.as_second() + 600;
    while sim.snapshot.now.as_second() < end {
        if weights(&sim, Kind::HttpRoute) != [100, 0] {
            set(&mut sim, Kind::HttpRoute, [100, 0]);
        }
        sim.reconcile();
    }
    assert_eq!(
        sim.snapshot.phase(),
        CanaryPhase::Failed,
        "{}",
        sim.transcript()
    );
    assert_eq!(weights(&sim, Kind::GrpcRoute), [100, 0]);
    let why = "another actor changes them";
    let verdict = sim.snapshot.status().condition(ConditionType::Verdict);
    let verdict = verdict.and_then(|verdict| verdict.message.clone()).unwrap();
    assert!(verdict.contains(why), "{verdict}");
}

/// The route shows the weights of the next step in one rule, and that step has not been taken.
#[test]
fn weights_of_the_next_step_that_another_actor_writes_raise_no_other_rule() {
    let mut sim = release(json!({"stepWeight": 20, "maxWeight": 60}));
    run_until_weight(&mut sim, 20);
    set(&mut sim, Kind::HttpRoute, [60, 40]);
    sim.run(2);
    assert_eq!(weights(&sim, Kind::HttpRoute), [80, 20]);
    assert_eq!(weights(&sim, Kind::GrpcRoute), [80, 20]);
    assert_eq!(sim.snapshot.status().canary_weight, 20);
}

/// The API server does not let the operator read a route any more.
fn forbid(sim: &mut Simulation, kind: Kind) {
    let name = name(sim, kind);
    sim.snapshot.objects.remove(&name);
    let why = "httproutes.gateway.networking.k8s.io \"web\" is forbidden".to_owned();
    sim.snapshot.forbidden.insert(name, why);
}

/// Otherwise the finalizer keeps the Canary, and its namespace, for ever.
#[test]
fn a_canary_can_be_deleted_although_the_operator_may_not_read_its_route_any_more() {
    for reverts in [false, true] {
        let spec = json!({"revertOnDeletion": reverts, "progressDeadlineSeconds": 60, "analysis": {"stepWeight": 20, "maxWeight": 60}});
        let mut sim = release_of(spec);
        run_until_weight(&mut sim, 40);
        forbid(&mut sim, Kind::HttpRoute);
        sim.delete();
        sim.run(30);
        assert!(!sim.is_gone(), "{}", sim.transcript());
        assert!(
            sim.count_notified("HTTPRoute web.test get error: httproutes") > 0,
            "{}",
            sim.transcript()
        );
        assert_eq!(weights(&sim, Kind::GrpcRoute), [100, 0]);
        sim.run(200);
        assert!(sim.is_gone(), "{}", sim.transcript());
    }
}

#[test]
fn a_route_that_must_not_be_read_any_more_holds_the_release_up_then_ends_it() {
    let spec =
        json!({"progressDeadlineSeconds": 60, "analysis": {"stepWeight": 20, "maxWeight": 60}});
    let mut sim = release_of(spec);
    run_until_weight(&mut sim, 40);
    forbid(&mut sim, Kind::HttpRoute);
    sim.run(30);
    assert_eq!(weights(&sim, Kind::GrpcRoute), [60, 40]);
    assert!(sim.count_notified("web\" is forbidden") > 0);
    // Before a rollback, objects that may be stale are read again. This one cannot be.
    let mut late = sim.snapshot.clone();
    late.now += SignedDuration::from_secs(100);
    late.seen.extend(late.objects.keys().cloned());
    late.seen.extend(late.forbidden.keys().cloned());
    let Decision::Do(plan) = rollout::decide(&late, &Evidence::default()) else {
        panic!("{}", sim.transcript());
    };
    let reread = rollout::stale_reads(&late, &plan);
    assert!(reread.contains(&name(&sim, Kind::GrpcRoute)), "{reread:?}");
    assert!(!reread.contains(&name(&sim, Kind::HttpRoute)), "{reread:?}");
    sim.run(100);
    assert_eq!(
        weights(&sim, Kind::GrpcRoute),
        [100, 0],
        "{}",
        sim.transcript()
    );
}

/// The operator does not know whether the route leads requests to the canary, so the version gets no pods.
#[test]
fn a_new_version_does_not_wait_for_ever_for_a_route_that_was_left_and_must_not_be_read() {
    let mut sim = new(
        json!({"progressDeadlineSeconds": 60, "analysis": {"stepWeight": 20, "maxWeight": 60}}),
    );
    sim.run_until(CanaryPhase::Initialized);
    forbid(&mut sim, Kind::HttpRoute);
    let refs = &mut sim.snapshot.canary.spec.service.route_refs;
    refs.as_mut().unwrap().retain(|it| it.kind == "GRPCRoute");
    sim.run(200);
    assert_eq!(sim.snapshot.phase(), CanaryPhase::Initialized);
    sim.image("podinfo:2");
    let until = sim.snapshot.now.as_second() + 50;
    while sim.snapshot.now.as_second() < until {
        sim.reconcile();
        assert_eq!(
            sim.snapshot.phase(),
            CanaryPhase::Initialized,
            "{}",
            sim.transcript()
        );
    }
    for _ in 0..100 {
        sim.reconcile();
        assert_eq!(
            sim.snapshot.target().unwrap()["spec"]["replicas"],
            0,
            "{}",
            sim.transcript()
        );
    }
    assert_eq!(
        sim.snapshot.phase(),
        CanaryPhase::Failed,
        "{}",
        sim.transcript()
    );
    assert!(
        sim.count_notified("alert Error") > 0,
        "{}",
        sim.transcript()
    );
    // A next version is released when the route can be read again.
    sim.snapshot.forbidden.clear();
    let http = name(&sim, Kind::HttpRoute);
    sim.store(http, route(Kind::HttpRoute));
    sim.image("podinfo:3");
    sim.run_until(CanaryPhase::Succeeded);
}

/// The gate of the traffic may be closed for days.
#[test]
fn a_short_trouble_of_a_route_behind_a_closed_gate_does_not_end_the_run() {
    let gate =
        json!([{"name": "go", "type": "confirm-traffic-increase", "url": "http://hooks/go"}]);
    let analysis = json!({"stepWeight": 20, "maxWeight": 60, "webhooks": gate});
    let mut sim = release_of(json!({"progressDeadlineSeconds": 60, "analysis": analysis}));
    sim.closed.insert("go");
    sim.run_until_phase(CanaryPhase::Progressing);
    sim.run(1000);
    let good = sim.snapshot.objects[&name(&sim, Kind::HttpRoute)].clone();
    edit(&mut sim, Kind::HttpRoute, |route| {
        route["spec"]["rules"][0]["name"] = json!("site");
    });
    sim.run(20);
    edit(&mut sim, Kind::HttpRoute, |route| {
        route["spec"] = good["spec"].clone();
    });
    sim.run(200);
    assert_eq!(
        sim.snapshot.phase(),
        CanaryPhase::Progressing,
        "{}",
        sim.transcript()
    );
    sim.closed.clear();
    sim.run_until(CanaryPhase::Succeeded);
}

/// The version is checked, and rolled back in the end, while a route that the Canary names no more cannot be given back.
#[test]
fn a_route_that_cannot_be_given_back_ends_the_run_after_the_progress_deadline() {
    let spec =
        json!({"progressDeadlineSeconds": 60, "analysis": {"stepWeight": 20, "maxWeight": 60}});
    let mut sim = release_of(spec);
    run_until_weight(&mut sim, 20);
    edit(&mut sim, Kind::HttpRoute, |route| {
        route["spec"]["rules"][0]["name"] = json!("site");
    });
    let service = &mut sim.snapshot.canary.spec.service;
    let refs = service.route_refs.as_mut().unwrap();
    refs.retain(|it| it.kind == "GRPCRoute");
    sim.run(30);
    assert_eq!(sim.snapshot.phase(), CanaryPhase::Progressing);
    assert_eq!(weights(&sim, Kind::GrpcRoute), [80, 20]);
    sim.run(200);
    assert_eq!(
        sim.snapshot.phase(),
        CanaryPhase::Failed,
        "{}",
        sim.transcript()
    );
    assert_eq!(weights(&sim, Kind::GrpcRoute), [100, 0]);
    // The route still leads requests to the canary, so its pods stay.
    assert_eq!(weights(&sim, Kind::HttpRoute), [80, 20]);
    sim.run(200);
    let target = sim.snapshot.reference(Kind::Deployment, "podinfo");
    let replicas = |sim: &Simulation| sim.snapshot.objects[&target]["spec"]["replicas"].clone();
    assert_ne!(replicas(&sim), 0, "{}", sim.transcript());
    edit(&mut sim, Kind::HttpRoute, |route| {
        route["spec"]["rules"][0]["name"] = json!("api");
    });
    sim.run(60);
    assert_eq!(weights(&sim, Kind::HttpRoute), [100, 0]);
    assert_eq!(replicas(&sim), 0, "{}", sim.transcript());
}

/// An edit that a user may make to a route in the middle of a release, and the reason that the operator gives.
#[test]
fn a_route_that_cannot_be_used_any_more_holds_the_release_up_with_a_reason() {
    type Break = fn(&mut Value);
    let cases: [(Break, &str); 7] = [
        (
            |route| route["spec"]["rules"][0]["name"] = json!("site"),
            "has no rule named api",
        ),
        (
            |route| {
                let rules = route["spec"]["rules"].as_array_mut().unwrap();
                rules.push(rules[0].clone());
            },
            "has more than one rule named api",
        ),
        (
            |route| route["spec"]["rules"] = json!([]),
            "has no rule named api",
        ),
        (
            |route| {
                drop(
                    route["spec"]["rules"][0]["backendRefs"]
                        .as_array_mut()
                        .unwrap()
                        .pop(),
                )
            },
            "does not lead to podinfo-canary in rule api: add this backend",
        ),
        (
            |route| {
                for backend in route["spec"]["rules"][0]["backendRefs"]
                    .as_array_mut()
                    .unwrap()
                {
                    backend["weight"] = json!(0);
                }
            },
            "has the weights 0 for both versions in rule api",
        ),
        (
            |route| route["spec"]["rules"][0]["backendRefs"][0]["weight"] = json!(10),
            "has weights in rule api that add up to",
        ),
        (
            |route| route["spec"]["rules"][0]["sessionPersistence"] = json!({"type": "Cookie"}),
            "has sessionPersistence in rule api, which keeps clients on the canary",
        ),
    ];
    for (break_it, why) in cases {
        let mut sim = release(json!({"stepWeight": 20, "maxWeight": 60}));
        run_until_weight(&mut sim, 40);
        let usual = sim.snapshot.objects[&name(&sim, Kind::HttpRoute)].clone();
        edit(&mut sim, Kind::HttpRoute, break_it);
        let broken = content(&sim.snapshot.objects[&name(&sim, Kind::HttpRoute)]);
        sim.run(100);
        assert!(
            sim.count_notified(&format!("HTTPRoute web.test {why}")) > 0,
            "{why}\n{}",
            sim.transcript()
        );
        assert_eq!(
            content(&sim.snapshot.objects[&name(&sim, Kind::HttpRoute)]),
            broken
        );
        assert_eq!(weights(&sim, Kind::GrpcRoute), [60, 40]);
        assert_eq!(sim.snapshot.phase(), CanaryPhase::Progressing);
        assert_eq!(sim.snapshot.status().canary_weight, 40);
        edit(&mut sim, Kind::HttpRoute, |route| {
            route["spec"] = usual["spec"].clone()
        });
        set(&mut sim, Kind::HttpRoute, [100, 0]);
        sim.run(2);
        assert_eq!(weights(&sim, Kind::HttpRoute), [60, 40], "{why}");
        sim.run_until(CanaryPhase::Succeeded);
    }
}

#[test]
fn a_route_that_is_deleted_midway_holds_the_release_up_until_it_is_back() {
    let mut sim = release(json!({"stepWeight": 20, "maxWeight": 60}));
    run_until_weight(&mut sim, 40);
    let http = name(&sim, Kind::HttpRoute);
    sim.snapshot.objects.remove(&http);
    sim.run(50);
    let why =
        "HTTPRoute web.test get error: httproutes.gateway.networking.k8s.io \"web\" not found";
    assert!(sim.count_notified(why) > 0, "{}", sim.transcript());
    assert_eq!(sim.snapshot.status().canary_weight, 40);
    assert_eq!(weights(&sim, Kind::GrpcRoute), [60, 40]);
    sim.store(http, route(Kind::HttpRoute));
    sim.run(2);
    assert_eq!(weights(&sim, Kind::HttpRoute), [60, 40]);
    sim.run_until(CanaryPhase::Succeeded);
}

#[test]
fn a_canary_without_its_route_is_not_initialized_and_its_target_keeps_its_pods() {
    let mut sim = new(json!({"analysis": {"stepWeight": 50}}));
    let http = name(&sim, Kind::HttpRoute);
    let stored = sim.snapshot.objects.remove(&http).unwrap();
    sim.run(100);
    assert_eq!(sim.snapshot.phase(), CanaryPhase::Initializing);
    assert!(sim.count_notified("\"web\" not found") > 0);
    let target = sim.snapshot.target().unwrap();
    assert_eq!(target["spec"]["replicas"], 2);
    sim.store(http, stored);
    sim.run_until(CanaryPhase::Initialized);
}

#[test]
fn a_deletion_ends_although_a_route_cannot_be_given_back() {
    for reverts in [false, true] {
        let spec = json!({"revertOnDeletion": reverts, "progressDeadlineSeconds": 60, "analysis": {"stepWeight": 20, "maxWeight": 60}});
        let mut sim = release_of(spec);
        run_until_weight(&mut sim, 40);
        // The rule gets another name, and keeps its weights: the operator does not know that it is the same rule.
        edit(&mut sim, Kind::HttpRoute, |route| {
            route["spec"]["rules"][0]["name"] = json!("site")
        });
        sim.delete();
        sim.run(30);
        assert!(!sim.is_gone(), "{}", sim.transcript());
        sim.run(200);
        assert!(sim.is_gone(), "{}", sim.transcript());
        assert_eq!(weights(&sim, Kind::HttpRoute), [60, 40]);
    }
}

/// A webhook of the cluster, or a missing right.
#[test]
fn a_refused_weight_is_reported_and_the_other_writes_go_on() {
    let mut sim = release(json!({"stepWeight": 20, "maxWeight": 60}));
    run_until_weight(&mut sim, 20);
    sim.run(2);
    set(&mut sim, Kind::HttpRoute, [100, 0]);
    sim.snapshot.refused = Some(RefusedWrite {
        object: name(&sim, Kind::HttpRoute),
        why: "admission webhook \"policy\" denied the request".to_owned(),
        generation: None,
    });
    let http = name(&sim, Kind::HttpRoute);
    sim.memory.mark_written(&http);
    sim.run(3);
    assert_eq!(
        weights(&sim, Kind::HttpRoute),
        [100, 0],
        "{}",
        sim.transcript()
    );
    let refused = sim.snapshot.status().condition(ConditionType::WriteRefused);
    let refused = refused.and_then(|condition| condition.message.clone());
    assert_eq!(
        refused.as_deref(),
        Some(
            "The API server refuses the write of HTTPRoute web: admission webhook \"policy\" denied the request."
        )
    );
}

/// A rollback must not stop at the first route that the API server refuses to write.
#[test]
fn a_refused_route_does_not_keep_the_other_one_from_being_rolled_back() {
    let mut sim = release(json!({"stepWeight": 20, "maxWeight": 60}));
    run_until_weight(&mut sim, 20);
    sim.snapshot.refused = Some(RefusedWrite {
        object: name(&sim, Kind::HttpRoute),
        why: "no".to_owned(),
        generation: None,
    });
    let router = providers::router(&sim.snapshot);
    let writes = router
        .set_weights(&sim.snapshot, &Weights::PRIMARY)
        .unwrap();
    let kinds: Vec<_> = writes.iter().map(|write| write.object.kind).collect();
    assert_eq!(kinds, [Kind::GrpcRoute, Kind::HttpRoute]);
}

/// The version has traffic and cannot be checked meanwhile.
#[test]
fn a_route_that_stays_unusable_ends_the_run_after_the_progress_deadline() {
    let spec =
        json!({"progressDeadlineSeconds": 60, "analysis": {"stepWeight": 20, "maxWeight": 60}});
    for (edited, field, left) in [
        ("/spec/rules/0/sessionPersistence", json!({}), [100, 0]),
        // The operator does not know that it is the same rule.
        ("/spec/rules/0/name", json!("site"), [60, 40]),
    ] {
        let mut sim = release_of(spec.clone());
        run_until_weight(&mut sim, 40);
        edit(&mut sim, Kind::HttpRoute, |route| {
            let (rule, name) = edited.rsplit_once('/').unwrap();
            route.pointer_mut(rule).unwrap()[name] = field.clone();
        });
        sim.run(30);
        assert_eq!(weights(&sim, Kind::GrpcRoute), [60, 40], "{edited}");
        sim.run(100);
        assert_eq!(
            weights(&sim, Kind::GrpcRoute),
            [100, 0],
            "{edited}: {}",
            sim.transcript()
        );
        assert_eq!(
            weights(&sim, Kind::HttpRoute),
            left,
            "{edited}: {}",
            sim.transcript()
        );
    }
}

/// The record has every route with weights of the operator, also while another one cannot be given back.
#[test]
fn a_canary_that_moves_to_another_route_gives_both_back_when_it_is_deleted() {
    let mut spec =
        json!({"progressDeadlineSeconds": 600, "analysis": {"stepWeight": 20, "maxWeight": 60}});
    spec["service"] = json!({"port": 9898, "routeRefs": [{"kind": "HTTPRoute", "name": "web", "rules": ["api"]}]});
    let mut sim = release_of(spec);
    run_until_weight(&mut sim, 20);
    edit(&mut sim, Kind::HttpRoute, |route| {
        route["spec"]["rules"][0]["name"] = json!("site");
    });
    let service = &mut sim.snapshot.canary.spec.service;
    let refs = json!([{"kind": "GRPCRoute", "name": "web"}]);
    service.route_refs = serde_json::from_value(refs).unwrap();
    sim.run(30);
    assert_eq!(
        weights(&sim, Kind::GrpcRoute),
        [80, 20],
        "{}",
        sim.transcript()
    );
    edit(&mut sim, Kind::HttpRoute, |route| {
        route["spec"]["rules"][0]["name"] = json!("api");
    });
    sim.delete();
    sim.run(100);
    assert!(sim.is_gone(), "{}", sim.transcript());
    assert_eq!(weights(&sim, Kind::GrpcRoute), [100, 0]);
    assert_eq!(weights(&sim, Kind::HttpRoute), [100, 0]);
}
