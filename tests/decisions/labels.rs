//! The pods that the Services reach, if labels, flags and selectors of the cluster differ from the defaults. A label alone does not
//! identify a workload.

use std::sync::Arc;

use flagger_rs::{
    api::canary::CanaryPhase,
    snapshot::{Kind, Pods},
};
use serde_json::{Value, json};

use super::simulation::{Simulation, release_of};

/// The reason why a target with the primary's labels is refused.
const SHARED: &str = "the selector app=podinfo-primary for the pods of deployment podinfo-primary.test also selects those of deployment podinfo.test; \
    give the pods of deployment podinfo.test another value of the label app";

fn analysis() -> Value {
    json!({"stepWeight": 50, "maxWeight": 50})
}

fn target_of(kind: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": kind, "name": "podinfo"})
}

/// A cluster with a new Canary, whose target has these labels.
fn labelled(kind: &str, labels: &Value) -> Simulation {
    let mut sim = Simulation::new(json!({"targetRef": target_of(kind), "analysis": analysis()}));
    relabel(&mut sim, labels);
    sim
}

/// Creates the target anew with these labels, as `kubectl replace --force` does.
fn relabel(sim: &mut Simulation, labels: &Value) {
    let target = sim.snapshot.canary.spec.target_ref.clone();
    let kind = if target.kind == "DaemonSet" {
        Kind::DaemonSet
    } else {
        Kind::Deployment
    };
    let name = sim.snapshot.reference(kind, &target.name);
    let object = sim.snapshot.objects.get_mut(&name).unwrap();
    relabel_object(object, labels);
    object["metadata"]["uid"] = json!("made anew");
}

fn flag(sim: &mut Simulation, selector_labels: &[&str]) {
    let settings = Arc::make_mut(&mut sim.snapshot.settings);
    settings.selector_labels = selector_labels
        .iter()
        .map(|key| (*key).to_owned())
        .collect();
}

fn selector(sim: &Simulation, service: &str) -> Value {
    sim.snapshot.object(Kind::Service, service).unwrap()["spec"]["selector"].clone()
}

/// Whether every Service for clients selects the primary's pods and not the target's, and the canary's the reverse.
fn reaches_the_right_pods(sim: &Simulation) -> bool {
    let labels = |workload: Option<&Value>| {
        workload.unwrap()["spec"]["template"]["metadata"]["labels"].clone()
    };
    let selects = |service: &str, pods: &Value| {
        let selector = selector(sim, service);
        let mut wanted = selector.as_object().unwrap().iter();
        wanted.all(|(key, value)| pods[key] == *value)
    };
    let (primary, target) = (
        labels(sim.snapshot.primary()),
        labels(sim.snapshot.target()),
    );
    ["podinfo", "podinfo-primary"]
        .iter()
        .all(|service| selects(service, &primary) && !selects(service, &target))
        && selects("podinfo-canary", &target)
        && !selects("podinfo-canary", &primary)
}

/// The API server accepts no template that the workload's selector does not select.
fn is_valid(workload: &Value) -> bool {
    let labels = &workload["spec"]["template"]["metadata"]["labels"];
    let wanted = workload["spec"]["selector"]["matchLabels"].as_object();
    let mut wanted = wanted.unwrap().iter();
    wanted.all(|(key, value)| labels[key] == *value)
}

/// Runs a release to its end and checks at each reconcile which pods the Services reach.
fn releases(sim: &mut Simulation, image: &str) {
    sim.image(image);
    sim.run_until_phase(CanaryPhase::Progressing);
    for _ in 0..300 {
        sim.reconcile();
        assert!(reaches_the_right_pods(sim), "{}", sim.transcript());
        assert!(is_valid(sim.snapshot.primary().unwrap()));
    }
    assert_eq!(
        sim.snapshot.phase(),
        CanaryPhase::Succeeded,
        "{}",
        sim.transcript()
    );
    let primary = &sim.snapshot.primary().unwrap()["spec"]["template"];
    assert_eq!(primary["spec"]["containers"][0]["image"], image);
}

#[test]
fn another_order_of_the_selector_labels_leaves_each_service_with_its_pods() {
    for kind in ["Deployment", "DaemonSet"] {
        let mut sim = labelled(kind, &json!({"app": "podinfo", "deploy": "podinfo"}));
        flag(&mut sim, &["app"]);
        sim.run_until(CanaryPhase::Initialized);
        for flags in [&["deploy"] as &[&str], &["deploy", "app"]] {
            flag(&mut sim, flags);
            for _ in 0..100 {
                sim.reconcile();
                assert!(reaches_the_right_pods(&sim), "{}", sim.transcript());
            }
            assert_eq!(sim.snapshot.phase(), CanaryPhase::Initialized);
        }
        releases(&mut sim, "podinfo:2");
    }
}

#[test]
fn a_target_that_is_made_anew_with_another_label_is_released_and_no_service_loses_its_pods() {
    for kind in ["Deployment", "DaemonSet"] {
        for labels in [json!({"app": "shop"}), json!({"name": "podinfo"})] {
            let mut sim = labelled(kind, &json!({"app": "podinfo"}));
            flag(&mut sim, &["app", "name"]);
            sim.run_until(CanaryPhase::Initialized);
            relabel(&mut sim, &labels);
            releases(&mut sim, "podinfo:2");
            releases(&mut sim, "podinfo:3");
        }
    }
}

#[test]
fn a_target_that_is_made_anew_in_the_middle_of_a_run_starts_its_analysis_anew() {
    let mut sim = release_of(json!({"analysis": {"stepWeight": 20}}));
    while sim.canary_weight() < 40 {
        sim.reconcile();
    }
    relabel(&mut sim, &json!({"app": "shop"}));
    sim.run(5);
    assert_eq!(selector(&sim, "podinfo-canary"), json!({"app": "shop"}));
    assert_eq!(sim.canary_weight(), 0, "{}", sim.transcript());
    sim.run_until(CanaryPhase::Succeeded);
    assert!(reaches_the_right_pods(&sim));
}

/// The target has the primary's labels, so the Services that clients call would reach both versions.
#[test]
fn a_run_whose_target_gets_the_primarys_labels_is_rolled_back_with_an_alert() {
    let mut sim = release_of(json!({"analysis": {"stepWeight": 20}}));
    while sim.canary_weight() < 40 {
        sim.reconcile();
    }
    relabel(&mut sim, &json!({"app": "podinfo-primary"}));
    sim.run_until(CanaryPhase::Failed);
    assert_eq!(sim.canary_weight(), 0);
    let alert = format!("run cannot go on: {SHARED}");
    assert!(sim.count_notified(&alert) > 0, "{}", sim.transcript());
    relabel(&mut sim, &json!({"app": "podinfo"}));
    releases(&mut sim, "podinfo:3");
}

#[test]
fn a_promotion_whose_target_gets_the_primarys_labels_returns_its_traffic_and_waits_for_the_user() {
    let mut sim = release_of(json!({"analysis": {"stepWeight": 50, "maxWeight": 50}}));
    sim.run_until_phase(CanaryPhase::Promoting);
    assert_eq!(sim.canary_weight(), 50);
    relabel(&mut sim, &json!({"app": "podinfo-primary"}));
    sim.run(100);
    assert_eq!(sim.snapshot.phase(), CanaryPhase::Promoting);
    assert_eq!(sim.canary_weight(), 0);
    assert!(sim.count_notified(SHARED) > 1, "{}", sim.transcript());
    relabel(&mut sim, &json!({"app": "podinfo"}));
    sim.run_until(CanaryPhase::Succeeded);
}

fn beside(sim: &mut Simulation, name: &str, labels: &Value, are_ready: bool) {
    let name = sim.snapshot.reference(Kind::Deployment, name);
    let workload = json!({"spec": {"template": {"metadata": {"labels": labels}}},
        "status": {"readyReplicas": i64::from(are_ready)}});
    let pods = Pods::parse(&workload.to_string());
    Arc::make_mut(&mut sim.snapshot.workloads).insert(name, pods);
}

/// Two Helm releases of one chart in a namespace have the same value of the label that the chart sets.
#[test]
fn a_canary_whose_primary_would_get_the_clients_of_another_one_is_refused_before_anything_is_made()
{
    let labels = json!({"app": "podinfo", "instance": "b"});
    let mut sim = labelled("Deployment", &labels);
    beside(
        &mut sim,
        "other",
        &json!({"app": "podinfo", "instance": "a"}),
        true,
    );
    beside(
        &mut sim,
        "other-primary",
        &json!({"app": "podinfo-primary", "instance": "a"}),
        true,
    );
    sim.run(100);
    let objects: Vec<_> = sim.snapshot.objects.keys().collect();
    assert_eq!(objects.len(), 1, "{objects:?}");
    let event = "the selector app=podinfo-primary for the pods of deployment podinfo-primary.test also selects those of deployment other-primary.test";
    assert!(sim.count_notified(event) > 1, "{}", sim.transcript());
    flag(&mut sim, &["instance"]);
    sim.run_until(CanaryPhase::Initialized);
}

#[test]
fn a_canary_beside_a_workload_with_its_label_is_analysed_alone() {
    let mut sim = labelled("Deployment", &json!({"app": "podinfo", "part": "web"}));
    let worker = json!({"app": "podinfo", "part": "worker"});
    beside(&mut sim, "worker", &worker, true);
    sim.run_until(CanaryPhase::Initialized);
    assert_eq!(
        selector(&sim, "podinfo-canary"),
        json!({"app": "podinfo", "part": "web"})
    );
    releases(&mut sim, "podinfo:2");
}

#[test]
fn a_workload_that_gets_the_targets_labels_later_holds_up_new_versions_only() {
    let mut sim = release_of(json!({"analysis": analysis()}));
    sim.run_until_phase(CanaryPhase::Progressing);
    beside(&mut sim, "worker", &json!({"app": "podinfo"}), true);
    sim.run_until(CanaryPhase::Succeeded);
    sim.run(50);
    let event = "also selects those of deployment worker.test";
    assert_eq!(sim.count_notified(event), 0, "{}", sim.transcript());
    sim.image("podinfo:3");
    sim.run(50);
    assert_eq!(sim.snapshot.phase(), CanaryPhase::Succeeded);
    assert!(sim.count_notified(event) > 0, "{}", sim.transcript());
    sim.snapshot.workloads = Arc::default();
    sim.run_until_phase(CanaryPhase::Progressing);
    sim.run_until(CanaryPhase::Succeeded);
}

/// The user names another Deployment in `targetRef`. Until the new primary has ready pods, only the old primary has some.
#[test]
fn services_keep_the_old_primary_until_the_new_one_is_ready() {
    let service = json!({"port": 9898, "name": "podinfo"});
    let mut sim = Simulation::new(json!({"service": service, "analysis": analysis()}));
    sim.run_until(CanaryPhase::Initialized);
    let old = sim.snapshot.reference(Kind::Deployment, "podinfo");
    let mut next = sim.snapshot.objects[&old].clone();
    next["metadata"] = json!({"name": "next", "namespace": "test"});
    relabel_object(&mut next, &json!({"app": "next"}));
    next["spec"]["replicas"] = json!(2);
    let name = sim.snapshot.reference(Kind::Deployment, "next");
    sim.store(name, next);
    beside(
        &mut sim,
        "podinfo-primary",
        &json!({"app": "podinfo-primary"}),
        true,
    );
    sim.edit(
        "targetRef",
        &json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "next"}),
    );
    sim.unready = Some("next-primary");
    let new = |sim: &Simulation| selector(sim, "podinfo") == json!({"app": "next-primary"});
    for _ in 0..30 {
        sim.reconcile();
        assert!(!new(&sim), "{}", sim.transcript());
    }
    let event = "service podinfo.test still leads to deployment podinfo-primary.test, because next-primary.test has no ready pod; \
        it is changed once next-primary has one";
    assert!(sim.count_notified(event) > 0, "{}", sim.transcript());
    sim.unready = None;
    sim.run(30);
    assert!(new(&sim), "{}", sim.transcript());
}

fn relabel_object(object: &mut Value, labels: &Value) {
    object["spec"]["selector"] = json!({"matchLabels": labels});
    object["spec"]["template"]["metadata"]["labels"] = labels.clone();
}
