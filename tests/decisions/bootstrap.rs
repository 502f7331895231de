//! How a canary begins.

use super::*;
use flagger_rs::rollout::Evidence;

/// Before its initialization, its target as it was.
fn beginning() -> Model {
    let mut model = release(json!({"stepWeight": 50}));
    model.image("podinfo:1");
    let status = model.snapshot.canary.status.as_mut().unwrap();
    status.phase = CanaryPhase::Initializing;
    model
}

fn says(model: &Model, text: &str) -> usize {
    let has = |line: &&String| line.contains(text);
    model.told.iter().filter(has).count()
}

#[test]
fn a_new_canary_is_known_before_its_target_is_there_and_it_is_said_again_that_it_is_not() {
    let mut model = beginning();
    model.snapshot.canary.status = None;
    let target = model.snapshot.reference(Kind::Deployment, "podinfo");
    let gone = model.snapshot.objects.remove(&target).unwrap();
    model.reconcile();
    assert_eq!(model.snapshot.phase(), CanaryPhase::Initializing);
    for _ in 0..25 {
        model.reconcile();
    }
    assert!(says(&model, "deployments.apps \"podinfo\" not found") >= 2);
    model.snapshot.objects.insert(target, gone);
    model.run_until(CanaryPhase::Initialized);
}

#[test]
fn a_new_canary_is_known_though_it_is_suspended() {
    let mut model = beginning();
    model.snapshot.canary.status = None;
    model.snapshot.canary.spec.suspend = true;
    model.reconcile();
    model.reconcile();
    assert_eq!(model.snapshot.phase(), CanaryPhase::Initializing);
    assert_eq!(says(&model, "suspended"), 1);
}

/// Flagger stays where it is, and tries again; the target must not go while clients have no other way.
#[test]
fn a_canary_whose_route_is_refused_is_not_initialized() {
    let mut model = beginning();
    model.snapshot.canary.spec.skip_analysis = true;
    let route = model.snapshot.reference(Kind::VirtualService, "podinfo");
    model.snapshot.objects.remove(&route);
    model.snapshot.recently_written.insert(route);
    let decision = rollout::decide(&model.snapshot, &Evidence::new());
    assert!(matches!(decision, Decision::Wait(..)), "{decision:?}");
}

/// The same of one that was there before, and leads elsewhere.
#[test]
fn a_canary_whose_service_cannot_be_taken_over_is_not_initialized() {
    let mut model = beginning();
    model.snapshot.canary.spec.skip_analysis = true;
    let service = model.snapshot.reference(Kind::Service, "podinfo");
    let live = model.snapshot.objects.get_mut(&service).unwrap();
    live["spec"]["selector"] = json!({"app": "podinfo"});
    model.snapshot.recently_written.insert(service.clone());
    let decision = rollout::decide(&model.snapshot, &Evidence::new());
    assert!(matches!(decision, Decision::Wait(..)), "{decision:?}");
    let live = model.snapshot.objects.get_mut(&service).unwrap();
    live["spec"]["selector"] = json!({"app": "podinfo-primary"});
    live["metadata"]["labels"]["by"] = json!("hand");
    let decision = rollout::decide(&model.snapshot, &Evidence::new());
    assert!(matches!(decision, Decision::Do(..)), "{decision:?}");
}

#[test]
fn of_the_metric_servers_that_are_out_of_reach_the_first_is_named() {
    let mut model = beginning();
    let metrics = &mut model
        .snapshot
        .canary
        .spec
        .analysis
        .as_mut()
        .unwrap()
        .metrics;
    let template = json!({"name": "mine", "templateRef": {"name": "gone"}});
    metrics.push(serde_json::from_value(template).unwrap());
    let primary = model
        .snapshot
        .reference(Kind::Deployment, "podinfo-primary");
    model.snapshot.objects.remove(&primary);
    model.online = "2";
    model.reconcile();
    model.reconcile();
    let first = "prometheus not avaiable: value is not 1 for query: vector(1)";
    assert_eq!(says(&model, first), 1, "{:?}", model.told);
}
