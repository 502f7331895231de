//! How a canary begins.

use flagger_rs::{
    api::canary::CanaryPhase,
    rollout::{self, Decision, Evidence},
    snapshot::Kind,
};
use serde_json::json;

use super::simulation::{Simulation, release};

/// Before its initialization, its target as it was.
fn beginning() -> Simulation {
    let mut sim = release(json!({"stepWeight": 50}));
    sim.image("podinfo:1");
    let status = sim.snapshot.canary.status.as_mut().unwrap();
    status.phase = CanaryPhase::Initializing;
    sim
}

fn says(sim: &Simulation, text: &str) -> usize {
    let has = |line: &&String| line.contains(text);
    sim.notified.iter().filter(has).count()
}

#[test]
fn a_new_canary_is_known_before_its_target_is_there_and_it_is_said_again_that_it_is_not() {
    let mut sim = beginning();
    sim.snapshot.canary.status = None;
    let target = sim.snapshot.reference(Kind::Deployment, "podinfo");
    let gone = sim.snapshot.objects.remove(&target).unwrap();
    sim.reconcile();
    assert_eq!(sim.snapshot.phase(), CanaryPhase::Initializing);
    sim.run(25);
    assert!(says(&sim, "deployments.apps \"podinfo\" not found") >= 2);
    sim.snapshot.objects.insert(target, gone);
    sim.run_until(CanaryPhase::Initialized);
}

#[test]
fn a_new_canary_is_known_though_it_is_suspended() {
    let mut sim = beginning();
    sim.snapshot.canary.status = None;
    sim.snapshot.canary.spec.suspend = true;
    sim.reconcile();
    sim.reconcile();
    assert_eq!(sim.snapshot.phase(), CanaryPhase::Initializing);
    assert_eq!(says(&sim, "suspended"), 1);
}

/// Flagger stays where it is, and tries again; the target must not go while clients have no other way.
#[test]
fn a_canary_whose_route_is_refused_is_not_initialized() {
    let mut sim = beginning();
    sim.snapshot.canary.spec.skip_analysis = true;
    let route = sim.snapshot.reference(Kind::VirtualService, "podinfo");
    sim.snapshot.objects.remove(&route);
    sim.snapshot.recently_written.insert(route);
    let decision = rollout::decide(&sim.snapshot, &Evidence::new());
    assert!(matches!(decision, Decision::Wait(..)), "{decision:?}");
}

/// The same of one that was there before, and leads elsewhere.
#[test]
fn a_canary_whose_service_cannot_be_taken_over_is_not_initialized() {
    let mut sim = beginning();
    sim.snapshot.canary.spec.skip_analysis = true;
    let service = sim.snapshot.reference(Kind::Service, "podinfo");
    let live = sim.snapshot.objects.get_mut(&service).unwrap();
    live["spec"]["selector"] = json!({"app": "podinfo"});
    sim.snapshot.recently_written.insert(service.clone());
    let decision = rollout::decide(&sim.snapshot, &Evidence::new());
    assert!(matches!(decision, Decision::Wait(..)), "{decision:?}");
    let live = sim.snapshot.objects.get_mut(&service).unwrap();
    live["spec"]["selector"] = json!({"app": "podinfo-primary"});
    live["metadata"]["labels"]["by"] = json!("hand");
    let decision = rollout::decide(&sim.snapshot, &Evidence::new());
    assert!(matches!(decision, Decision::Do(..)), "{decision:?}");
}

#[test]
fn of_the_metric_servers_that_are_out_of_reach_the_first_is_named() {
    let mut sim = beginning();
    let metrics = &mut sim.snapshot.canary.spec.analysis.as_mut().unwrap().metrics;
    let template = json!({"name": "mine", "templateRef": {"name": "gone"}});
    metrics.push(serde_json::from_value(template).unwrap());
    let primary = sim.snapshot.reference(Kind::Deployment, "podinfo-primary");
    sim.snapshot.objects.remove(&primary);
    sim.online = "2";
    sim.reconcile();
    sim.reconcile();
    let first = "prometheus not avaiable: value is not 1 for query: vector(1)";
    assert_eq!(says(&sim, first), 1, "{:?}", sim.notified);
}
