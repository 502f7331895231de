//! Checks that a change of a ConfigMap or Secret that the pods read is released like a new version.

use flagger_rs::{api::canary::CanaryPhase, snapshot::Kind};
use serde_json::{Value, json};

use super::simulation::{Simulation, release};

/// A finished release of a target that reads the ConfigMap `color`. If it is optional, the ConfigMap does not exist.
fn with_config(optional: bool) -> Simulation {
    let mut sim = release(json!({"stepWeight": 50}));
    let target = sim.snapshot.reference(Kind::Deployment, "podinfo");
    let target = sim.snapshot.objects.get_mut(&target).unwrap();
    target["spec"]["template"]["spec"]["containers"][0]["envFrom"] =
        json!([{"configMapRef": {"name": "color", "optional": optional}}]);
    if !optional {
        color(&mut sim, "red");
    }
    sim.run_until(CanaryPhase::Succeeded);
    sim
}

fn color(sim: &mut Simulation, color: &str) {
    let name = sim.snapshot.reference(Kind::ConfigMap, "color");
    let object =
        json!({"metadata": {"name": "color", "namespace": "test"}, "data": {"color": color}});
    sim.store(name, object);
}

fn copy(sim: &Simulation) -> Option<Value> {
    let name = sim.snapshot.reference(Kind::ConfigMap, "color-primary");
    Some(sim.snapshot.objects.get(&name)?["data"]["color"].clone())
}

fn lines(sim: &Simulation, what: &str) -> usize {
    sim.transcript().matches(what).count()
}

#[test]
fn the_primary_gets_a_config_together_with_the_template_that_was_analysed_with_it() {
    let mut sim = with_config(false);
    assert_eq!(copy(&sim), Some(json!("red")));
    color(&mut sim, "blue");
    while sim.snapshot.phase() != CanaryPhase::Promoting {
        sim.reconcile();
        assert_eq!(copy(&sim), Some(json!("red")), "{}", sim.transcript());
    }
    sim.run_until(CanaryPhase::Succeeded);
    assert_eq!(copy(&sim), Some(json!("blue")));
    let transcript = sim.transcript();
    let lines: Vec<_> = transcript
        .lines()
        .map(|line| line.split_off_time())
        .collect();
    let at = lines
        .iter()
        .rposition(|line| line.contains("ConfigMap color-primary"))
        .unwrap();
    assert!(
        lines[at + 1].contains("patch  Deployment podinfo-primary: template"),
        "the template follows the config directly: {transcript}"
    );
}

trait Line {
    fn split_off_time(&self) -> String;
}

impl Line for &str {
    fn split_off_time(&self) -> String {
        self.split_once(" s ")
            .map_or(*self, |(_, rest)| rest)
            .to_owned()
    }
}

#[test]
fn a_config_that_fails_its_analysis_never_reaches_the_primary() {
    let mut sim = with_config(false);
    sim.metric = "97.5".to_owned();
    color(&mut sim, "blue");
    sim.run_until(CanaryPhase::Failed);
    assert_eq!(copy(&sim), Some(json!("red")));
}

#[test]
fn an_optional_config_is_a_new_version_when_it_is_created_and_when_it_is_deleted() {
    let mut sim = with_config(true);
    assert_eq!(copy(&sim), None);
    let runs = lines(&sim, "New revision detected! Scaling up");
    color(&mut sim, "red");
    sim.run(60);
    sim.run_until(CanaryPhase::Succeeded);
    assert_eq!(copy(&sim), Some(json!("red")));
    assert_eq!(lines(&sim, "New revision detected! Scaling up"), runs + 1);
    let name = sim.snapshot.reference(Kind::ConfigMap, "color");
    sim.snapshot.objects.remove(&name);
    sim.run(60);
    sim.run_until(CanaryPhase::Succeeded);
    assert_eq!(lines(&sim, "New revision detected! Scaling up"), runs + 2);
}

/// The status of an operator that did not track configs has no `trackedConfigs`.
#[test]
fn an_analysis_is_not_restarted_when_config_tracking_is_switched_on() {
    let mut sim = release(json!({"stepWeight": 20}));
    while sim.canary_weight() == 0 {
        sim.reconcile();
    }
    sim.snapshot.canary.status.as_mut().unwrap().tracked_configs = None;
    sim.run_until(CanaryPhase::Succeeded);
    assert_eq!(
        lines(&sim, "Restarting analysis"),
        0,
        "{}",
        sim.transcript()
    );
}

#[test]
fn a_missing_config_is_reported_with_flaggers_text_and_no_primary_is_created_without_it() {
    let mut sim = with_config(false);
    for object in [
        sim.snapshot.reference(Kind::ConfigMap, "color"),
        sim.snapshot.reference(Kind::Deployment, "podinfo-primary"),
    ] {
        sim.snapshot.objects.remove(&object);
    }
    sim.run(30);
    assert!(sim.snapshot.primary().is_none(), "{}", sim.transcript());
    let event = "GetTargetConfigs failed: configmap color.test get query error: configmap color.test get query error: configmaps \"color\" not found";
    assert!(
        sim.notified.iter().any(|line| line.contains(event)),
        "{:?}",
        sim.notified
    );
    color(&mut sim, "red");
    sim.run(30);
    assert!(sim.snapshot.primary().is_some(), "{}", sim.transcript());
}

/// Flagger detects new versions again after the promotion.
#[test]
fn a_config_that_changes_while_its_version_is_promoted_is_the_next_version() {
    let mut sim = with_config(false);
    color(&mut sim, "blue");
    while copy(&sim) != Some(json!("blue")) {
        sim.reconcile();
    }
    sim.run_until_phase(CanaryPhase::Promoting);
    sim.reconcile();
    color(&mut sim, "green");
    sim.run_until(CanaryPhase::Succeeded);
    assert_eq!(lines(&sim, "Restarting analysis"), 0);
    assert_eq!(copy(&sim), Some(json!("blue")));
    sim.run_until_phase(CanaryPhase::Progressing);
    sim.run_until(CanaryPhase::Succeeded);
    assert_eq!(copy(&sim), Some(json!("green")));
}
