//! Routes of the user that a Canary names (`spec.service.routeRefs`): the operator changes two weights in them and nothing else.

use flagger_rs::{
    api::{canary::CanaryPhase, status::ConditionType},
    providers, rollout,
    snapshot::{Kind, ObjectRef, RefusedWrite, Weights},
};
use serde_json::{Value, json};

use super::{simulation::Simulation, transcript};

mod template;
mod tenths;
mod troubles;

/// The places of the weights in the routes of these tests.
const WEIGHTS: [&str; 2] = [
    "/spec/rules/0/backendRefs/0/weight",
    "/spec/rules/0/backendRefs/1/weight",
];

fn rule(name: &str) -> Value {
    let backend = |name: &str, weight: u64| json!({"name": name, "port": 9898, "weight": weight});
    let timeouts = json!({"request": "3s"});
    json!({"name": name, "timeouts": timeouts, "backendRefs": [backend("podinfo", 100), backend("podinfo-canary", 0)]})
}

/// A user's route with one rule.
fn route(kind: Kind) -> Value {
    let metadata = json!({"name": "web", "namespace": "test", "labels": {"team": "a"}, "annotations": {"b": "c"}});
    let spec = json!({"parentRefs": [{"name": "public"}], "hostnames": ["a.example.com"], "rules": [rule("api")]});
    json!({"apiVersion": kind.api_version(), "kind": kind.name(), "metadata": metadata, "spec": spec})
}

fn name(sim: &Simulation, kind: Kind) -> ObjectRef {
    sim.snapshot.reference(kind, "web")
}

/// A new Canary that names an HTTPRoute and a GRPCRoute, both with the name `web`.
fn new(spec: Value) -> Simulation {
    let refs = json!([{"kind": "HTTPRoute", "name": "web", "rules": ["api"]}, {"kind": "GRPCRoute", "name": "web"}]);
    let mut all = json!({"provider": "kubernetes", "service": {"port": 9898, "routeRefs": refs}});
    for (field, value) in spec.as_object().unwrap() {
        all[field] = value.clone();
    }
    let mut sim = Simulation::new(all);
    for kind in [Kind::HttpRoute, Kind::GrpcRoute] {
        let name = name(&sim, kind);
        sim.store(name, route(kind));
    }
    sim
}

/// The same after its initialization, with a new version of the target.
fn release_of(spec: Value) -> Simulation {
    let mut sim = new(spec);
    sim.run_until(CanaryPhase::Initialized);
    sim.image("podinfo:2");
    sim
}

fn release(analysis: Value) -> Simulation {
    release_of(json!({"analysis": analysis}))
}

fn weights(sim: &Simulation, kind: Kind) -> Vec<u64> {
    let route = &sim.snapshot.objects[&name(sim, kind)];
    let weight = |place: &&str| route.pointer(place).unwrap().as_u64().unwrap();
    WEIGHTS.iter().map(weight).collect()
}

/// Changes a route as its user would.
fn edit(sim: &mut Simulation, kind: Kind, change: impl FnOnce(&mut Value)) {
    let name = name(sim, kind);
    let route = sim.snapshot.objects.get_mut(&name).unwrap();
    change(route);
    let generation = route["metadata"]["generation"].as_i64().unwrap();
    route["metadata"]["generation"] = json!(generation + 1);
}

fn set(sim: &mut Simulation, kind: Kind, weights: [u64; 2]) {
    edit(sim, kind, |route| {
        for (place, weight) in WEIGHTS.iter().zip(weights) {
            *route.pointer_mut(place).unwrap() = json!(weight);
        }
    });
}

/// Reconciles until the canary has this weight in the status and in the routes.
fn run_until_weight(sim: &mut Simulation, weight: u8) {
    for _ in 0..500 {
        if sim.snapshot.status().canary_weight == i64::from(weight)
            && rollout::weights(&sim.snapshot) == Some(Weights::canary(weight))
        {
            return;
        }
        sim.reconcile();
    }
    panic!("never {weight}:\n{}", sim.transcript());
}

/// A route without the fields that the API server counts in.
fn content(route: &Value) -> Value {
    let mut content = route.clone();
    let metadata = content["metadata"].as_object_mut().unwrap();
    metadata.remove("generation");
    metadata.remove("uid");
    content
}

#[test]
fn a_release_changes_two_weights_of_each_route_and_no_byte_beside_them() {
    for (metric, end) in [("100", CanaryPhase::Succeeded), ("42", CanaryPhase::Failed)] {
        let mut sim = release(json!({"stepWeight": 20, "maxWeight": 40}));
        sim.metric = metric.to_owned();
        for _ in 0..400 {
            sim.reconcile();
            for kind in [Kind::HttpRoute, Kind::GrpcRoute] {
                let mut live = content(&sim.snapshot.objects[&name(&sim, kind)]);
                let mut sum = 0;
                for (place, usual) in WEIGHTS.iter().zip([100, 0]) {
                    let weight = live.pointer_mut(place).unwrap();
                    sum += weight.as_u64().unwrap();
                    *weight = json!(usual);
                }
                assert_eq!((live, sum), (route(kind), 100));
            }
        }
        assert_eq!(sim.snapshot.phase(), end);
        let made = sim.snapshot.objects.keys();
        let made = made.filter(|object| matches!(object.kind, Kind::HttpRoute | Kind::GrpcRoute));
        assert_eq!(made.count(), 2, "{}", sim.transcript());
        assert_eq!(sim.canary_weight(), 0);
        transcript(&format!("own-routes-{}", end.as_str().to_lowercase()), &sim);
    }
}

#[test]
fn a_crash_at_any_write_ends_the_same_and_gives_no_version_more_than_its_step() {
    for (metric, end) in [("100", CanaryPhase::Succeeded), ("42", CanaryPhase::Failed)] {
        let play = |crash: Option<usize>| {
            let mut sim = new(json!({"analysis": {"stepWeight": 20, "maxWeight": 40}}));
            sim.metric = "100".to_owned();
            sim.crash_after = crash;
            sim.run_until(CanaryPhase::Initialized);
            sim.metric = metric.to_owned();
            sim.image("podinfo:2");
            sim.run_until(end);
            sim
        };
        let undisturbed = play(None);
        for crash in 1..=undisturbed.writes {
            let sim = play(Some(crash));
            assert_eq!(sim.outcome(), undisturbed.outcome(), "{}", sim.transcript());
            let most = |sim: &Simulation| sim.routed.iter().max().copied();
            assert_eq!(most(&sim), most(&undisturbed), "{}", sim.transcript());
            for kind in [Kind::HttpRoute, Kind::GrpcRoute] {
                assert_eq!(
                    content(&sim.snapshot.objects[&name(&sim, kind)]),
                    route(kind)
                );
            }
        }
    }
}

/// A newer version must not get the weight that the older one had reached.
#[test]
fn a_newer_version_gets_no_traffic_although_the_operator_is_killed_while_it_takes_it_away() {
    let play = |crash: Option<usize>| {
        let mut sim = release(json!({"stepWeight": 20, "maxWeight": 60}));
        run_until_weight(&mut sim, 40);
        sim.image("podinfo:3");
        sim.crash_after = crash.map(|crash| sim.writes + crash);
        sim.routed.clear();
        sim.run_until_phase(CanaryPhase::Progressing);
        sim.run(200);
        sim
    };
    for crash in 1..6 {
        let sim = play(Some(crash));
        // Both routes are written, one after the other. Then the new version begins at its first step.
        let rest: Vec<_> = sim
            .routed
            .iter()
            .skip_while(|weight| **weight != 0)
            .collect();
        assert!(rest.iter().take_while(|weight| ***weight == 0).count() > 0);
        let next = rest.iter().find(|weight| ***weight != 0);
        assert_eq!(next, Some(&&20), "{}", sim.transcript());
    }
}

#[test]
fn weights_that_another_actor_writes_are_put_back_at_once_and_are_no_progress() {
    for edited in [[100, 0], [0, 100], [50, 50], [140, 60]] {
        let mut sim = release(json!({"stepWeight": 20, "maxWeight": 60}));
        run_until_weight(&mut sim, 40);
        let second = sim.snapshot.now;
        set(&mut sim, Kind::HttpRoute, edited);
        sim.run(2);
        let sum: u64 = edited.iter().sum();
        assert_eq!(weights(&sim, Kind::HttpRoute), [sum * 6 / 10, sum * 4 / 10]);
        assert_eq!(weights(&sim, Kind::GrpcRoute), [60, 40]);
        let waited = sim.snapshot.now.duration_since(second).as_secs();
        assert!(waited <= 1, "{waited} s\n{}", sim.transcript());
        assert_eq!(sim.snapshot.status().canary_weight, 40);
        sim.run_until(CanaryPhase::Succeeded);
        assert!(!sim.notified.iter().any(|line| line.contains("halted")));
    }
}

#[test]
fn a_step_waits_for_every_parent_of_a_route_and_a_rollback_does_not() {
    let mut sim = release_of(
        json!({"progressDeadlineSeconds": 60, "analysis": {"stepWeight": 20, "maxWeight": 60}}),
    );
    run_until_weight(&mut sim, 20);
    let report = |status: &str| {
        let condition = json!({"type": "ResolvedRefs", "status": status, "reason": "RefNotPermitted", "observedGeneration": 99});
        json!({"parents": [{"parentRef": {"name": "public"}, "conditions": [condition]}]})
    };
    let grpc = name(&sim, Kind::GrpcRoute);
    sim.snapshot.objects.get_mut(&grpc).unwrap()["status"] = report("False");
    sim.run(30);
    let why = "GRPCRoute web.test is not ready at Gateway public (ResolvedRefs: False";
    assert!(sim.count_notified(why) > 0, "{}", sim.transcript());
    assert_eq!(sim.snapshot.status().canary_weight, 20);
    // After the deadline the version is rolled back, although the report is the same.
    sim.run_until(CanaryPhase::Failed);
    assert_eq!(weights(&sim, Kind::GrpcRoute), [100, 0]);
    assert_eq!(sim.canary_weight(), 0);
}

#[test]
fn routes_that_the_canary_names_no_more_are_given_back_before_the_release_goes_on() {
    let mut sim = release(json!({"stepWeight": 20, "maxWeight": 60}));
    run_until_weight(&mut sim, 40);
    sim.edit(
        "service",
        &json!({"port": 9898, "routeRefs": [{"kind": "GRPCRoute", "name": "web"}]}),
    );
    sim.run(3);
    assert_eq!(
        content(&sim.snapshot.objects[&name(&sim, Kind::HttpRoute)]),
        route(Kind::HttpRoute)
    );
    assert_eq!(weights(&sim, Kind::GrpcRoute), [60, 40]);
    sim.edit("service", &json!({"port": 9898}));
    sim.run(3);
    assert_eq!(
        content(&sim.snapshot.objects[&name(&sim, Kind::GrpcRoute)]),
        route(Kind::GrpcRoute)
    );
    assert!(
        !sim.snapshot
            .status()
            .has_condition(ConditionType::RouteRefs)
    );
    assert_eq!(
        sim.snapshot
            .canary
            .metadata
            .finalizers
            .iter()
            .flatten()
            .count(),
        0
    );
}

/// The canary's Service is deleted with the Canary, and requests that a route leads there fail.
#[test]
fn a_deletion_midway_gives_the_routes_back_also_if_the_operator_crashes_at_any_write() {
    for reverts in [false, true] {
        for crash in [None].into_iter().chain((1..12).map(Some)) {
            let mut sim = release_of(
                json!({"revertOnDeletion": reverts, "analysis": {"stepWeight": 20, "maxWeight": 60}}),
            );
            run_until_weight(&mut sim, 40);
            sim.crash_after = crash.map(|crash: usize| sim.writes + crash);
            sim.delete();
            sim.run(100);
            assert!(sim.is_gone(), "{}", sim.transcript());
            for kind in [Kind::HttpRoute, Kind::GrpcRoute] {
                assert_eq!(
                    content(&sim.snapshot.objects[&name(&sim, kind)]),
                    route(kind)
                );
            }
        }
    }
}

#[test]
fn all_strategies_that_need_only_weights_work_on_routes_of_the_user() {
    for (analysis, most) in [
        (json!({"iterations": 2}), 100),
        (json!({"iterations": 2, "stepWeightPromotion": 40}), 100),
        (
            json!({"stepWeights": [1, 10, 80], "stepWeightPromotion": 50}),
            80,
        ),
    ] {
        let mut sim = release(analysis);
        sim.run_until(CanaryPhase::Succeeded);
        assert_eq!(sim.routed.iter().max(), Some(&most), "{}", sim.transcript());
        assert_eq!(sim.canary_weight(), 0);
    }
}

#[test]
fn a_canary_that_asks_for_more_than_weights_is_refused_before_it_writes_anything() {
    let cookie = json!({"stepWeight": 20, "sessionAffinity": {"cookieName": "a"}});
    let test = json!({"iterations": 2, "match": [{"headers": {"a": {"exact": "b"}}}]});
    for (spec, why) in [
        (
            json!({"analysis": cookie}),
            "spec.analysis.sessionAffinity needs rules of its own",
        ),
        (
            json!({"analysis": test}),
            "spec.analysis.match needs rules of its own",
        ),
        (
            json!({"service": {"port": 9898, "routeRefs": [{"kind": "Ingress", "name": "web"}]}}),
            "spec.service.routeRefs[0].kind: \"Ingress\" is no kind of route",
        ),
    ] {
        let mut spec = spec;
        if spec.get("analysis").is_none() {
            spec["analysis"] = json!({"stepWeight": 20});
        }
        let mut sim = new(spec);
        sim.run(50);
        let condition = sim.snapshot.status().condition(ConditionType::Invalid);
        let message = condition.and_then(|condition| condition.message.clone());
        let expected = format!("invalid canary spec: {why}");
        assert!(
            message.unwrap_or_default().starts_with(&expected),
            "{}",
            sim.transcript()
        );
        assert!(sim.refusals.is_empty(), "{:?}", sim.refusals);
    }
}

#[test]
fn the_annotation_names_the_same_routes_as_the_field() {
    let mut sim =
        new(json!({"service": {"port": 9898}, "analysis": {"stepWeight": 50, "maxWeight": 50}}));
    let list = "- {kind: HTTPRoute, name: web}\n- {kind: GRPCRoute, name: web}\n";
    let annotations = sim
        .snapshot
        .canary
        .metadata
        .annotations
        .get_or_insert_default();
    annotations.insert(
        "flagger-rs.github.io/route-refs".to_owned(),
        list.to_owned(),
    );
    sim.run_until(CanaryPhase::Initialized);
    sim.image("podinfo:2");
    run_until_weight(&mut sim, 50);
    assert_eq!(weights(&sim, Kind::HttpRoute), [50, 50]);
    sim.run_until(CanaryPhase::Succeeded);
}
