//! The operator's audit refuses each kind of unsafe plan, and accepts the plan beside it that is safe.

use std::fmt::Write as _;

use flagger_rs::{
    api::{
        canary::{CanaryPhase, CanaryStatus},
        percent::Percent,
    },
    providers,
    rollout::{self, Plan},
    snapshot::{Action, Kind, ObjectRef, Weights, Write},
};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    any_state::PHASES,
    routers::ROUTERS,
    simulation::{Simulation, release, release_of},
};

/// The audit's verdict about a plan with one write.
fn audit(sim: &Simulation, object: ObjectRef, action: Action) -> String {
    let write = Write {
        object,
        action,
        failure: String::new(),
    };
    let writes = vec![write];
    verdict(
        sim,
        &Plan {
            writes,
            ..Plan::default()
        },
    )
}

fn verdict(sim: &Simulation, plan: &Plan) -> String {
    match rollout::audit(&sim.snapshot, plan) {
        Ok(()) => "safe".to_owned(),
        Err(refusal) => refusal.to_string(),
    }
}

/// The verdict about a patch that sets this field of a workload.
fn audit_of_patch(sim: &Simulation, kind: Kind, name: &str, path: &str, value: Value) -> String {
    let object = sim.snapshot.reference(kind, name);
    let patch = json!([{"op": "test", "path": "/metadata/generation", "value": 1}, {"op": "add", "path": path, "value": value}]);
    audit(sim, object, Action::Patch(patch))
}

fn replicas(sim: &Simulation, name: &str, count: i64) -> String {
    audit_of_patch(sim, Kind::Deployment, name, "/spec/replicas", json!(count))
}

/// A release whose canary has some of the traffic.
fn with_traffic(spec: Value) -> Simulation {
    let mut sim = release_of(spec);
    while rollout::weights(&sim.snapshot).is_none_or(|weights| weights.canary == Percent::ZERO) {
        sim.reconcile();
    }
    sim
}

fn canary() -> Simulation {
    with_traffic(json!({"analysis": {"stepWeight": 20, "maxWeight": 60}}))
}

/// Each row has a phase and marks the phases that may follow it.
const TRANSITIONS: &str = "
                  Ne In Id Wa Pr WP Po Fi Su Fa Tg Td
                  x  x  .  .  .  .  .  .  .  .  x  .
Initializing      .  x  x  .  .  .  .  .  .  x  x  .
Initialized       .  .  x  x  x  .  .  .  .  x  x  .
Waiting           .  .  .  x  x  .  .  .  x  x  x  .
Progressing       .  .  .  .  x  x  x  .  x  x  x  .
WaitingPromotion  .  .  .  .  x  x  x  .  x  x  x  .
Promoting         .  .  .  .  x  .  x  x  x  x  x  .
Finalising        .  .  .  .  .  .  .  x  x  x  x  .
Succeeded         .  .  .  x  x  .  .  .  x  x  x  .
Failed            .  .  .  x  x  .  .  .  .  x  x  .
Terminating       .  .  .  .  .  .  .  .  .  .  x  x
Terminated        .  .  .  .  .  .  .  .  .  .  .  x
";

#[test]
fn only_these_phases_may_follow_each_other() {
    let mut sim = canary();
    let mut found = "\n                  Ne In Id Wa Pr WP Po Fi Su Fa Tg Td\n".to_owned();
    for from in PHASES {
        sim.snapshot.canary.status.as_mut().unwrap().phase = from;
        let mark = |phase| {
            let status = Some(CanaryStatus {
                phase,
                ..CanaryStatus::default()
            });
            let plan = Plan {
                status,
                ..Plan::default()
            };
            let refusal = format!("phase {phase} may not follow {from}");
            match verdict(&sim, &plan) {
                safe if safe == "safe" => "x",
                verdict if verdict == refusal => ".",
                other => panic!("{other}"),
            }
        };
        let marks = PHASES.map(mark).join("  ");
        writeln!(found, "{:<18}{marks}", from.as_str()).unwrap();
    }
    assert_eq!(found, TRANSITIONS, "{found}");
}

#[test]
fn the_primary_keeps_its_pods() {
    let sim = canary();
    let refused = "the primary podinfo-primary would be scaled to zero";
    assert_eq!(replicas(&sim, "podinfo-primary", 0), refused);
    assert_eq!(replicas(&sim, "podinfo-primary", 1), "safe");
    let primary = sim.snapshot.reference(Kind::Deployment, "podinfo-primary");
    let mut object = sim.snapshot.objects[&primary].clone();
    object["spec"]["replicas"] = json!(0);
    for action in [Action::Create(object.clone()), Action::Replace(object)] {
        assert_eq!(audit(&sim, primary.clone(), action), refused);
    }
    let daemon_set = json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "podinfo"});
    let sim = with_traffic(json!({"targetRef": daemon_set, "analysis": {"stepWeight": 20}}));
    let nowhere = json!({"flagger.app/scale-to-zero": "true"});
    let template = json!({"spec": {"nodeSelector": nowhere}});
    for (path, value) in [
        ("/spec/template/spec/nodeSelector", nowhere),
        ("/spec/template", template),
    ] {
        let verdict = |name| audit_of_patch(&sim, Kind::DaemonSet, name, path, value.clone());
        assert_eq!(verdict("podinfo-primary"), refused);
    }
}

#[test]
fn the_target_keeps_its_pods_until_its_connections_have_drained() {
    let refused = "podinfo would be scaled to zero before its connections have drained";
    let mut sim = canary();
    assert_eq!(replicas(&sim, "podinfo", 0), refused, "it has traffic");
    assert_eq!(replicas(&sim, "podinfo", 1), "safe");
    sim.metric = "1".to_owned();
    sim.run_until_phase(CanaryPhase::Failed);
    assert_eq!(
        replicas(&sim, "podinfo", 0),
        refused,
        "its traffic has just been moved"
    );
    let after = |sim: &mut Simulation, seconds| {
        let draining = sim.snapshot.status().conditions.iter().flatten();
        let mut draining = draining.filter(|condition| condition.type_ == "Draining");
        let since = draining
            .next()
            .unwrap()
            .last_transition_time
            .as_ref()
            .unwrap()
            .0;
        sim.snapshot.now = Timestamp::from_second(since.as_second() + seconds).unwrap();
    };
    after(&mut sim, 9);
    assert_eq!(replicas(&sim, "podinfo", 0), refused);
    after(&mut sim, 10);
    assert_eq!(replicas(&sim, "podinfo", 0), "safe");
    after(&mut sim, 0);
    let target = sim.snapshot.reference(Kind::Deployment, "podinfo");
    let target = sim.snapshot.objects.get_mut(&target).unwrap();
    target["status"]["readyReplicas"] = json!(0);
    target["status"]["availableReplicas"] = json!(0);
    assert_eq!(
        replicas(&sim, "podinfo", 0),
        "safe",
        "no pod serves a request"
    );
}

#[test]
fn weights_sum_to_100_on_every_router_that_has_two() {
    let mut with_two_weights = Vec::new();
    for provider in providers::routed() {
        let gateways =
            json!([{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "gateway"}]);
        let sim = release_of(json!({"provider": provider, "analysis": {"stepWeight": 20},
            "routeRef": {"name": "web"}, "service": {"port": 9898, "meshName": "global", "gatewayRefs": gateways}}));
        let router = providers::router(&sim.snapshot);
        let writes = router.set_weights(&sim.snapshot, &Weights::canary(30));
        for write in writes.unwrap_or_default() {
            let (Action::Create(route) | Action::Replace(route)) = write.action else {
                continue;
            };
            let text = route.to_string();
            // In the first API versions of SMI, weights are quantities.
            let less = [
                ("\"weight\":70", "\"weight\":60"),
                ("\"weight\":\"70\"", "\"weight\":\"60\""),
            ];
            let Some((from, to)) = less.into_iter().find(|(from, _)| text.contains(from)) else {
                continue;
            };
            with_two_weights.push(provider);
            let verdict = |route: &str| {
                let route = serde_json::from_str(route).unwrap();
                audit(&sim, write.object.clone(), Action::Replace(route))
            };
            let refused = verdict(&text.replace(from, to));
            assert_eq!(
                refused, "weights 60 and 30 are not 100 together",
                "{provider}"
            );
        }
    }
    with_two_weights.dedup();
    // An Ingress has the weight of the canary only. Knative needs another kind of target, so its router writes no weights here.
    let others = [Kind::Ingress, Kind::KnativeService];
    let rows = ROUTERS
        .iter()
        .filter(|row| row.rules.is_some_and(|rules| !others.contains(&rules.kind)));
    let mut all: Vec<_> = rows.map(|row| row.provider).collect();
    all.sort_unstable();
    assert_eq!(with_two_weights, all);
}

#[test]
fn traffic_moves_only_to_ready_pods() {
    let lose_pods = |sim: &mut Simulation, name: &str| {
        let name = sim.snapshot.reference(Kind::Deployment, name);
        let workload = sim.snapshot.objects.get_mut(&name).unwrap();
        workload["status"]["readyReplicas"] = json!(0);
        workload["status"]["availableReplicas"] = json!(0);
    };
    let route = |sim: &Simulation, weight| {
        let router = providers::router(&sim.snapshot);
        let writes = router
            .set_weights(&sim.snapshot, &Weights::canary(weight))
            .unwrap();
        verdict(
            sim,
            &Plan {
                writes,
                ..Plan::default()
            },
        )
    };
    let mut sim = canary();
    assert_eq!(
        (route(&sim, 40).as_str(), route(&sim, 0).as_str()),
        ("safe", "safe")
    );
    lose_pods(&mut sim, "podinfo");
    assert_eq!(
        route(&sim, 40),
        "weight 40 for a canary without a ready pod"
    );
    assert_eq!(route(&sim, 0), "safe");
    let mut sim = canary();
    lose_pods(&mut sim, "podinfo-primary");
    assert_eq!(
        route(&sim, 0),
        "weight 100 for a primary without a ready pod"
    );
    assert_eq!(route(&sim, 40), "safe");
    lose_pods(&mut sim, "podinfo");
    assert_eq!(route(&sim, 0), "safe", "traffic returns to the primary");
}

/// Before a route exists, all requests reach the primary.
#[test]
fn a_new_route_is_audited_like_a_change_of_it() {
    let mut sim = release(json!({"stepWeight": 20}));
    sim.dead = true;
    sim.run(20);
    let name = sim.snapshot.reference(Kind::VirtualService, "podinfo");
    let mut route = sim.snapshot.objects.remove(&name).unwrap();
    route["spec"]["http"][0]["route"][0]["weight"] = json!(90);
    route["spec"]["http"][0]["route"][1]["weight"] = json!(10);
    let verdict = audit(&sim, name, Action::Create(route));
    assert_eq!(verdict, "weight 10 for a canary without a ready pod");
}
