//! The initialization of a new Canary, and the obstacles that hold it up.

use flagger_rs::{
    api::{canary::CanaryPhase, status::ConditionType},
    rollout::{self, Decision, Evidence},
    snapshot::Kind,
};
use serde_json::json;

use super::simulation::{Simulation, release};

/// A canary during its initialization, whose target has its first version.
fn initializing() -> Simulation {
    let mut sim = release(json!({"stepWeight": 50}));
    sim.image("podinfo:1");
    let status = sim.snapshot.canary.status.as_mut().unwrap();
    status.phase = CanaryPhase::Initializing;
    sim
}

#[test]
fn a_new_canary_without_its_target_is_initializing_and_reports_the_missing_target_again() {
    let mut sim = initializing();
    sim.snapshot.canary.status = None;
    let target = sim.snapshot.reference(Kind::Deployment, "podinfo");
    let removed = sim.snapshot.objects.remove(&target).unwrap();
    sim.reconcile();
    assert_eq!(sim.snapshot.phase(), CanaryPhase::Initializing);
    sim.run(25);
    assert!(sim.count_notified("deployments.apps \"podinfo\" not found") >= 2);
    sim.snapshot.objects.insert(target, removed);
    sim.run_until(CanaryPhase::Initialized);
}

#[test]
fn a_new_canary_that_is_suspended_is_initializing() {
    let mut sim = initializing();
    sim.snapshot.canary.status = None;
    sim.snapshot.canary.spec.suspend = true;
    sim.reconcile();
    sim.reconcile();
    assert_eq!(sim.snapshot.phase(), CanaryPhase::Initializing);
    assert_eq!(sim.count_notified("suspended"), 1);
}

/// Like Flagger, the operator retries: the target must keep its pods while clients have no other route.
#[test]
fn a_canary_whose_route_is_refused_is_not_initialized() {
    let mut sim = initializing();
    sim.snapshot.canary.spec.skip_analysis = true;
    let route = sim.snapshot.reference(Kind::VirtualService, "podinfo");
    sim.snapshot.objects.remove(&route);
    sim.snapshot.recently_written.insert(route);
    let decision = rollout::decide(&sim.snapshot, &Evidence::new());
    assert!(matches!(decision, Decision::Wait(..)), "{decision:?}");
}

/// The Service existed before, and its selector still leads to the target.
#[test]
fn a_canary_whose_service_cannot_be_taken_over_is_not_initialized() {
    let mut sim = initializing();
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
fn the_event_names_the_first_metric_server_that_is_offline() {
    let mut sim = initializing();
    let metrics = &mut sim.snapshot.canary.spec.analysis.as_mut().unwrap().metrics;
    let template = json!({"name": "mine", "templateRef": {"name": "gone"}});
    metrics.push(serde_json::from_value(template).unwrap());
    let primary = sim.snapshot.reference(Kind::Deployment, "podinfo-primary");
    sim.snapshot.objects.remove(&primary);
    sim.online = "2";
    sim.reconcile();
    sim.reconcile();
    let first = "prometheus not avaiable: value is not 1 for query: vector(1)";
    assert_eq!(sim.count_notified(first), 1, "{:?}", sim.notified);
}

/// For each obstacle, the operator sends the alert once, keeps the reason in the status until the end, and goes on with the initialization.
#[test]
fn an_initialization_that_takes_too_long_is_alerted_once() {
    type Obstacle = fn(&mut Simulation, bool);
    let obstacles: [(Obstacle, &str); 2] = [
        (
            |sim, is_there| sim.unready = is_there.then_some("podinfo-primary"),
            "waiting for rollout to finish",
        ),
        (
            |sim, is_there| {
                sim.snapshot.canary.spec.target_ref.name =
                    if is_there { "other" } else { "podinfo" }.to_owned();
            },
            "deployments.apps \"other\" not found",
        ),
    ];
    for (obstacle, why) in obstacles {
        let mut sim = initializing();
        sim.snapshot.canary.status = None;
        sim.snapshot.canary.spec.progress_deadline_seconds = Some(60);
        obstacle(&mut sim, true);
        sim.run(50);
        let alert = "alert Error: Initialization not completed until the progress deadline:";
        assert_eq!(sim.count_notified(alert), 0, "{why}: {:#?}", sim.notified);
        sim.run(200);
        assert_eq!(sim.count_notified(alert), 1, "{why}: {:#?}", sim.notified);
        let verdict = { sim.snapshot.status() }.condition(ConditionType::Verdict);
        let sentence = verdict.and_then(|verdict| verdict.message.clone());
        let sentence = sentence.unwrap_or_default();
        assert!(sentence.contains(why), "{why}: {sentence}");
        obstacle(&mut sim, false);
        sim.run_until(CanaryPhase::Initialized);
        assert!(!sim.snapshot.status().has_condition(ConditionType::Verdict));
    }
}
