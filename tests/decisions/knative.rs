//! Releases of a Knative Service.

use std::collections::BTreeSet;

use flagger_rs::{api::canary::CanaryPhase, snapshot::Kind};
use serde_json::{Value, json};

use super::{
    crashes::crash_at_every_write_of,
    simulation::{Simulation, release_of},
    transcript,
};

fn spec(analysis: Value) -> Value {
    let target =
        json!({"apiVersion": "serving.knative.dev/v1", "kind": "Service", "name": "podinfo"});
    json!({"provider": "knative", "targetRef": target, "analysis": analysis})
}

fn release(analysis: Value) -> Simulation {
    release_of(spec(analysis))
}

fn primary(sim: &Simulation) -> Value {
    let annotations = &sim.snapshot.target().unwrap()["metadata"]["annotations"];
    annotations["flagger.app/primary-revision"].clone()
}

fn service(sim: &mut Simulation) -> &mut Value {
    let name = sim.snapshot.reference(Kind::KnativeService, "podinfo");
    sim.snapshot.objects.get_mut(&name).unwrap()
}

fn shares(latest: u8, primary: &str) -> Value {
    json!([{"latestRevision": true, "percent": latest}, {"revisionName": primary, "percent": 100 - latest}])
}

#[test]
fn a_new_revision_is_released_by_the_routes_of_its_service() {
    let mut sim = release(json!({"stepWeight": 20, "maxWeight": 40}));
    assert_eq!(*sim.traffic(), shares(0, "podinfo-00001"));
    sim.run_until(CanaryPhase::Succeeded);
    transcript("knative", &sim);
    assert_eq!(primary(&sim), "podinfo-00002");
    assert_eq!(*sim.traffic(), shares(0, "podinfo-00002"));
    let kinds = sim.snapshot.objects.keys().map(|object| object.kind);
    let is_knatives = |kind| matches!(kind, Kind::KnativeService | Kind::KnativeRevision);
    assert!(kinds.into_iter().all(is_knatives), "nothing is created");
}

#[test]
fn a_bad_revision_keeps_no_requests() {
    let mut sim = release(json!({"stepWeight": 20, "threshold": 2}));
    sim.metric = "42".to_owned();
    sim.run_until(CanaryPhase::Failed);
    transcript("knative-rollback", &sim);
    assert_eq!(primary(&sim), "podinfo-00001");
    assert_eq!(*sim.traffic(), shares(0, "podinfo-00001"));
    // The fix is a third Revision.
    sim.metric = "100".to_owned();
    sim.image("podinfo:3");
    sim.run_until(CanaryPhase::Succeeded);
    assert_eq!(*sim.traffic(), shares(0, "podinfo-00003"));
}

/// Flagger waits for such a Revision for ever.
#[test]
fn a_revision_that_never_becomes_ready_fails_at_the_deadline_and_gets_no_request() {
    let mut spec = spec(json!({"stepWeight": 20}));
    spec["progressDeadlineSeconds"] = json!(60);
    let mut sim = release_of(spec);
    sim.dead = true;
    sim.run_until(CanaryPhase::Failed);
    assert!(sim.routed.is_empty(), "{:?}", sim.routed);
    let why = "Knative Revision podinfo-00002.test is not ready";
    assert!(sim.count_notified(why) > 0, "{:?}", sim.notified);
}

#[test]
fn a_revision_that_loses_its_pods_gets_its_share_again_when_it_is_ready() {
    let mut sim = release(json!({"stepWeight": 20, "maxWeight": 40}));
    while sim.canary_weight() < 20 {
        sim.reconcile();
    }
    sim.dead = true;
    while sim.canary_weight() > 0 {
        sim.reconcile();
    }
    sim.dead = false;
    sim.run_until(CanaryPhase::Succeeded);
    assert_eq!(primary(&sim), "podinfo-00002");
}

#[test]
fn a_revision_that_another_one_overtakes_is_not_promoted() {
    let mut sim = release(json!({"stepWeight": 20, "maxWeight": 40}));
    while sim.canary_weight() < 20 {
        sim.reconcile();
    }
    sim.image("podinfo:3");
    let mut promoted = BTreeSet::new();
    while sim.snapshot.phase() != CanaryPhase::Succeeded {
        sim.reconcile();
        promoted.insert(primary(&sim).as_str().unwrap().to_owned());
    }
    let names: Vec<_> = promoted.iter().map(String::as_str).collect();
    assert_eq!(names, ["podinfo-00001", "podinfo-00003"]);
}

#[test]
fn blue_green_routes_all_requests_to_the_analysed_revision_at_the_end() {
    let mut sim = release(json!({"iterations": 2}));
    sim.run_until(CanaryPhase::Succeeded);
    assert!(sim.routed.contains(&100), "{:?}", sim.routed);
    assert_eq!(primary(&sim), "podinfo-00002");
}

/// Flagger leaves all requests on the Revision that was promoted last.
#[test]
fn a_deletion_leads_to_the_latest_revision_again() {
    let mut spec = spec(json!({"stepWeight": 50}));
    spec["revertOnDeletion"] = json!(true);
    let mut sim = release_of(spec);
    sim.run_until(CanaryPhase::Succeeded);
    sim.delete();
    while !sim.is_gone() {
        sim.reconcile();
    }
    assert_eq!(
        *sim.traffic(),
        json!([{"latestRevision": true, "percent": 100}])
    );
    assert_eq!(primary(&sim), Value::Null);
}

#[test]
fn a_crash_at_any_write_changes_neither_the_steps_nor_the_outcome() {
    let start = || release(json!({"stepWeight": 20, "maxWeight": 40}));
    crash_at_every_write_of(start, "100", CanaryPhase::Succeeded);
    let start = || release(json!({"stepWeight": 20, "threshold": 2}));
    crash_at_every_write_of(start, "42", CanaryPhase::Failed);
}

#[test]
fn routes_and_the_primary_are_repaired_while_the_canary_is_idle() {
    let mut sim = release(json!({"stepWeight": 50}));
    sim.run_until(CanaryPhase::Succeeded);
    service(&mut sim)["spec"]["traffic"] = json!([{"latestRevision": true, "percent": 100}]);
    sim.run(30);
    assert_eq!(*sim.traffic(), shares(0, "podinfo-00002"));
    service(&mut sim)["metadata"]["annotations"] = json!({});
    sim.run(30);
    assert_eq!(primary(&sim), "podinfo-00002");
    assert_eq!(sim.snapshot.phase(), CanaryPhase::Succeeded);
}

#[test]
fn knative_has_a_provider_of_its_own() {
    let message = |change: fn(&mut Value)| {
        let mut spec = spec(json!({"stepWeight": 50}));
        change(&mut spec);
        let mut sim = Simulation::new(spec);
        sim.run(30);
        sim.notified.join("\n")
    };
    let other = message(|spec| spec["provider"] = json!("istio"));
    let text = "can't use istio provider with Knative Service as target";
    assert!(other.contains(text), "{other}");
    let deployment = message(|spec| {
        spec["targetRef"] =
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "podinfo"});
    });
    let text = "can't use apps/v1/Deployment as target if provider is set to knative";
    assert!(deployment.contains(text), "{deployment}");
    let scaled = message(|spec| {
        spec["autoscalerRef"] = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "name": "podinfo"});
    });
    let text = "can't use autoscaler with Knative Service";
    assert!(scaled.contains(text), "{scaled}");
}

/// Knative has not processed the Service yet, so the operator cannot release it.
#[test]
fn a_service_without_a_revision_is_waited_for() {
    let mut sim = Simulation::new(spec(json!({"stepWeight": 50})));
    sim.frozen = true;
    sim.reconcile();
    sim.frozen = true;
    sim.reconcile();
    let text = "Knative Service podinfo.test has no Revision yet";
    assert!(sim.count_notified(text) > 0, "{:?}", sim.notified);
    sim.run_until(CanaryPhase::Initialized);
}

#[test]
fn a_service_that_does_not_exist_is_reported() {
    let mut sim = Simulation::new(spec(json!({"stepWeight": 50})));
    sim.snapshot.objects.clear();
    sim.run(30);
    let text = "Knative Service podinfo.test get query error: services.serving.knative.dev \"podinfo\" not found";
    assert!(sim.count_notified(text) > 0, "{:?}", sim.notified);
    assert!(sim.snapshot.objects.is_empty());
}

/// Flagger routes all requests to the latest Revision without an analysis.
#[test]
fn routes_of_a_user_to_an_older_revision_are_not_replaced() {
    let mut sim = Simulation::new(spec(json!({"stepWeight": 50})));
    let pinned = json!([{"revisionName": "podinfo-00001", "percent": 100}]);
    service(&mut sim)["spec"]["traffic"] = pinned.clone();
    sim.reconcile();
    sim.image("podinfo:2");
    sim.run(60);
    let text = "Knative Service podinfo.test leads requests to podinfo-00001, which is not its latest Revision: let a route of spec.traffic with latestRevision have all of them first";
    assert!(sim.count_notified(text) > 0, "{:?}", sim.notified);
    assert_eq!((sim.traffic(), primary(&sim)), (&pinned, Value::Null));
    service(&mut sim)["spec"]["traffic"] = json!([{"latestRevision": true, "percent": 100}, {"revisionName": "podinfo-00001", "tag": "old"}]);
    sim.run_until(CanaryPhase::Initialized);
    let mut expected = shares(0, "podinfo-00002");
    let tag = json!({"revisionName": "podinfo-00001", "tag": "old"});
    expected.as_array_mut().unwrap().push(tag);
    assert_eq!(*sim.traffic(), expected);
}

/// Flagger routes all requests to such a Revision at once.
#[test]
fn a_first_revision_that_is_not_ready_gets_no_route() {
    let mut sim = Simulation::new(spec(json!({"stepWeight": 50})));
    sim.dead = true;
    sim.run(60);
    let text = "Knative Revision podinfo-00001.test is not ready";
    assert!(sim.count_notified(text) > 0, "{:?}", sim.notified);
    assert_eq!((sim.traffic(), primary(&sim)), (&Value::Null, Value::Null));
    sim.dead = false;
    sim.run_until(CanaryPhase::Initialized);
    assert_eq!(*sim.traffic(), shares(0, "podinfo-00001"));
}

/// Flagger makes the latest Revision, which is under analysis, the primary.
#[test]
fn a_primary_whose_annotation_others_remove_stays_the_primary() {
    let without_routes = json!([{"latestRevision": true, "percent": 100}]);
    for routes in [None, Some(without_routes)] {
        let mut sim = release(json!({"stepWeight": 20, "maxWeight": 40}));
        while sim.canary_weight() < 20 {
            sim.reconcile();
        }
        sim.notified.clear();
        let service = service(&mut sim);
        let metadata = service["metadata"].as_object_mut().unwrap();
        metadata.remove("annotations");
        if let Some(routes) = routes {
            service["spec"]["traffic"] = routes;
        }
        // Knative reacts a second after the operator.
        sim.frozen = true;
        sim.reconcile();
        assert_eq!(primary(&sim), "podinfo-00001");
        sim.reconcile();
        assert_eq!(*sim.traffic(), shares(20, "podinfo-00001"));
        assert_eq!(sim.count_notified("its version is lost"), 0);
        sim.run_until(CanaryPhase::Succeeded);
        assert_eq!(*sim.traffic(), shares(0, "podinfo-00002"));
    }
}

/// A user replaces the Service by a manifest with a new version, and Knative reacts before the operator.
#[test]
fn a_service_that_is_replaced_by_its_manifest_keeps_its_primary_and_is_analysed() {
    let mut sim = release(json!({"stepWeight": 20, "maxWeight": 40}));
    sim.run_until(CanaryPhase::Succeeded);
    let service = service(&mut sim);
    service["metadata"]["annotations"].take();
    service["spec"].as_object_mut().unwrap().remove("traffic");
    sim.image("podinfo:3");
    sim.notified.clear();
    sim.reconcile();
    assert_eq!(primary(&sim), "podinfo-00002");
    while sim.traffic().is_null() {
        sim.reconcile();
    }
    assert_eq!(*sim.traffic(), shares(0, "podinfo-00002"));
    assert_eq!(sim.count_notified("its version is lost"), 0);
    sim.run_until(CanaryPhase::Progressing);
    sim.run_until(CanaryPhase::Succeeded);
    assert_eq!(*sim.traffic(), shares(0, "podinfo-00003"));
}

/// Only the latest Revision is left.
#[test]
fn a_primary_that_was_deleted_is_replaced_by_the_latest_revision() {
    let mut sim = release(json!({"stepWeight": 20, "maxWeight": 40}));
    while sim.canary_weight() < 20 {
        sim.reconcile();
    }
    let primary_revision = sim
        .snapshot
        .reference(Kind::KnativeRevision, "podinfo-00001");
    sim.snapshot.objects.remove(&primary_revision);
    sim.run(30);
    assert_eq!(sim.count_notified("its version is lost"), 1);
    assert_eq!(primary(&sim), "podinfo-00002");
    sim.run_until(CanaryPhase::Succeeded);
    assert_eq!(*sim.traffic(), shares(0, "podinfo-00002"));
}
