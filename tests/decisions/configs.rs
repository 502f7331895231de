//! Checks that a change of a ConfigMap or Secret that the pods read is released like a new version.

use flagger_rs::{api::canary::CanaryPhase, snapshot::Kind};
use serde_json::{Value, json};

use super::simulation::{Simulation, release};

/// A finished release of a target that reads the ConfigMap `color`. If it is optional, the ConfigMap does not exist.
pub fn with_config(optional: bool) -> Simulation {
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

pub fn color(sim: &mut Simulation, color: &str) {
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

/// The optional config is created after the promotion, and the version that reads it fails. The pods of the primary may start anew at any
/// time.
#[test]
fn an_optional_config_that_is_created_later_reaches_the_primary_only_by_a_promotion() {
    let read = |sim: &Simulation| {
        let primary = sim.snapshot.primary().unwrap();
        let from = &primary["spec"]["template"]["spec"]["containers"][0]["envFrom"][0];
        assert_eq!(from["configMapRef"]["optional"], true);
        let name = from["configMapRef"]["name"].as_str().unwrap();
        let name = sim.snapshot.reference(Kind::ConfigMap, name);
        Some(sim.snapshot.objects.get(&name)?["data"]["color"].clone())
    };
    let mut sim = with_config(true);
    sim.metric = "97.5".to_owned();
    color(&mut sim, "blue");
    while sim.snapshot.phase() != CanaryPhase::Failed {
        assert_eq!(read(&sim), None, "{}", sim.transcript());
        sim.reconcile();
    }
    sim.metric = "100".to_owned();
    color(&mut sim, "green");
    sim.run_until(CanaryPhase::Succeeded);
    assert_eq!(read(&sim), Some(json!("green")), "{}", sim.transcript());
    // A version without the config has passed its analysis, so the primary must not read the old copy.
    let name = sim.snapshot.reference(Kind::ConfigMap, "color");
    sim.snapshot.objects.remove(&name);
    sim.run(60);
    sim.run_until(CanaryPhase::Succeeded);
    assert_eq!(read(&sim), None, "{}", sim.transcript());
}

/// The primary that Flagger promoted refers to the config itself.
#[test]
fn a_primary_of_flagger_that_lacks_an_optional_config_stays_as_it_is() {
    let mut sim = with_config(true);
    let name = sim.snapshot.reference(Kind::Deployment, "podinfo-primary");
    let template = &mut sim.snapshot.objects.get_mut(&name).unwrap()["spec"]["template"];
    template["metadata"]["annotations"]["flagger-id"] = json!("random");
    template["spec"]["containers"][0]["envFrom"][0]["configMapRef"]["name"] = json!("color");
    let status = sim.snapshot.canary.status.as_mut().unwrap();
    status.last_applied_spec = Some("5f4d8c7b9".to_owned());
    status.last_promoted_spec = Some("5f4d8c7b9".to_owned());
    let writes = sim.writes;
    sim.run(60);
    assert_eq!(sim.snapshot.phase(), CanaryPhase::Succeeded);
    assert_eq!(
        sim.writes,
        writes + 1,
        "the status alone: {}",
        sim.transcript()
    );
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

/// Flagger detects new versions only after the promotion.
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

/// The copy of this name.
fn config<'a>(sim: &'a Simulation, name: &str) -> Option<&'a Value> {
    sim.snapshot.object(Kind::ConfigMap, name)
}

fn edit_copy(sim: &mut Simulation, field: &str, value: Value) {
    let name = sim.snapshot.reference(Kind::ConfigMap, "color-primary");
    *sim.snapshot
        .objects
        .get_mut(&name)
        .unwrap()
        .pointer_mut(field)
        .unwrap() = value;
}

fn owner(name: &str, controller: bool) -> Value {
    let uid = if name == "podinfo" { "c" } else { name };
    json!({"apiVersion": "flagger.app/v1beta1", "kind": "Canary", "name": name, "uid": uid, "controller": controller})
}

/// The config that the primary's pods read.
fn used(sim: &Simulation) -> Value {
    sim.snapshot.primary().unwrap()["spec"]["template"]["spec"]["containers"][0]["envFrom"][0]["configMapRef"]["name"].clone()
}

fn owners(sim: &Simulation, name: &str) -> Vec<String> {
    let owners = config(sim, name).unwrap()["metadata"]["ownerReferences"].as_array();
    let name = |owner: &Value| {
        format!(
            "{} {}",
            owner["name"].as_str().unwrap(),
            owner["controller"]
        )
    };
    owners.unwrap().iter().map(name).collect()
}

/// F01. The other Canary owns the copy because its primary reads it, with the content that passed its own analysis.
#[test]
fn a_promotion_leaves_the_copy_of_another_canary_as_it_is_and_gets_one_of_its_own() {
    let mut sim = with_config(false);
    edit_copy(
        &mut sim,
        "/metadata/ownerReferences",
        json!([owner("podinfo", true), owner("other", false)]),
    );
    for (round, content) in ["blue", "green"].into_iter().enumerate() {
        color(&mut sim, content);
        sim.run(60);
        sim.run_until(CanaryPhase::Succeeded);
        assert_eq!(copy(&sim), Some(json!("red")), "{}", sim.transcript());
        assert_eq!(used(&sim), "color-primary-podinfo");
        assert_eq!(
            config(&sim, "color-primary-podinfo").unwrap()["data"]["color"],
            content
        );
        assert_eq!(owners(&sim, "color-primary-podinfo"), ["podinfo true"]);
        assert_eq!(
            owners(&sim, "color-primary"),
            ["podinfo true", "other false"]
        );
        let runs = lines(&sim, "New revision detected! Scaling up");
        sim.run(100);
        assert_eq!(
            lines(&sim, "New revision detected! Scaling up"),
            runs,
            "round {round}"
        );
        assert_eq!(sim.snapshot.phase(), CanaryPhase::Succeeded);
    }
    // The same content is no reason for another restart of the primary.
    edit_copy(&mut sim, "/data/color", json!("green"));
    let writes = sim.writes;
    sim.run(50);
    assert_eq!(
        (sim.writes, used(&sim)),
        (writes, json!("color-primary-podinfo"))
    );
}

/// F01b. Without a second owner, Kubernetes deletes the copy with the first one.
#[test]
fn a_canary_owns_each_copy_that_its_primary_uses() {
    let mut sim = with_config(false);
    edit_copy(
        &mut sim,
        "/metadata/ownerReferences",
        json!([owner("other", true)]),
    );
    sim.run(5);
    assert_eq!(
        owners(&sim, "color-primary"),
        ["other true", "podinfo false"]
    );
    assert_eq!(sim.snapshot.phase(), CanaryPhase::Succeeded);
    color(&mut sim, "blue");
    sim.metric = "97.5".to_owned();
    sim.run_until(CanaryPhase::Failed);
    edit_copy(
        &mut sim,
        "/metadata/ownerReferences",
        json!([owner("other", true)]),
    );
    sim.run(20);
    assert_eq!(
        owners(&sim, "color-primary"),
        ["other true", "podinfo false"]
    );
    assert_eq!(copy(&sim), Some(json!("red")), "content that failed");
}

#[test]
fn a_missing_copy_comes_back_unless_the_content_that_was_promoted_is_unknown() {
    let mut sim = with_config(false);
    let name = sim.snapshot.reference(Kind::ConfigMap, "color-primary");
    sim.snapshot.objects.remove(&name);
    sim.run(5);
    assert_eq!(copy(&sim), Some(json!("red")));
    assert_eq!(
        lines(&sim, "New revision detected! Scaling up"),
        1,
        "{}",
        sim.transcript()
    );
    color(&mut sim, "blue");
    sim.metric = "97.5".to_owned();
    sim.run_until(CanaryPhase::Failed);
    sim.snapshot.objects.remove(&name);
    sim.run(30);
    assert_eq!(copy(&sim), None, "the only known content failed");
}

/// The primary's pods may restart at any time of a run, and then read the copy.
#[test]
fn a_missing_copy_of_a_config_that_is_not_part_of_the_run_comes_back_at_once() {
    let mut sim = with_config(false);
    let name = sim.snapshot.reference(Kind::ConfigMap, "color-primary");
    sim.image("podinfo:3");
    while sim.canary_weight() == 0 {
        sim.reconcile();
    }
    sim.snapshot.objects.remove(&name);
    sim.run(2);
    assert_eq!(copy(&sim), Some(json!("red")), "{}", sim.transcript());
    sim.metric = "97.5".to_owned();
    sim.run_until(CanaryPhase::Failed);
    sim.snapshot.objects.remove(&name);
    sim.run(2);
    assert_eq!(copy(&sim), Some(json!("red")), "{}", sim.transcript());
}

#[test]
fn a_copy_that_cannot_be_changed_is_replaced_by_one_of_another_name() {
    for (field, value) in [("immutable", json!(true)), ("type", json!("other"))] {
        let mut sim = with_config(false);
        let names = ["color-primary-podinfo", "color-primary-podinfo-"];
        for (round, content) in ["blue", "green"].into_iter().enumerate() {
            let now = sim
                .snapshot
                .reference(Kind::ConfigMap, used(&sim).as_str().unwrap());
            sim.snapshot.objects.get_mut(&now).unwrap()[field] = value.clone();
            color(&mut sim, content);
            sim.run(60);
            sim.run_until(CanaryPhase::Succeeded);
            let used = used(&sim);
            let used = used.as_str().unwrap();
            assert!(
                used.starts_with(names[round]) && used.len() == [21, 30][round],
                "{used}"
            );
            assert_eq!(config(&sim, used).unwrap()["data"]["color"], content);
            assert_eq!(copy(&sim), Some(json!("red")));
        }
    }
}

/// The name of a copy is 8 bytes longer than the config's name, and the name of the copy's previous content another 17 bytes. At most 253
/// are allowed.
#[test]
fn a_config_with_a_long_name_is_promoted() {
    for (length, is_kept) in [(228, true), (229, false), (245, false)] {
        let name = "c".repeat(length);
        let mut sim = with_config(true);
        let target = sim.snapshot.reference(Kind::Deployment, "podinfo");
        let target = sim.snapshot.objects.get_mut(&target).unwrap();
        target["spec"]["template"]["spec"]["containers"][0]["envFrom"][0]["configMapRef"]["name"] =
            json!(name);
        for color in ["red", "blue"] {
            let config = sim.snapshot.reference(Kind::ConfigMap, &name);
            let object =
                json!({"metadata": {"name": name, "namespace": "test"}, "data": {"color": color}});
            sim.store(config, object);
            sim.run_until_phase(CanaryPhase::Progressing);
            sim.run_until(CanaryPhase::Succeeded);
            let copy = format!("{name}-primary");
            let copy = sim.snapshot.reference(Kind::ConfigMap, &copy);
            assert_eq!(sim.snapshot.objects[&copy]["data"]["color"], color);
        }
        let kept = format!("{name}-primary-podinfo-previous");
        let kept = sim.snapshot.reference(Kind::ConfigMap, &kept);
        assert_eq!(
            sim.snapshot.objects.contains_key(&kept),
            is_kept,
            "{length}"
        );
    }
}
