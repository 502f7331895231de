//! After a failed promotion, the primary gets the version back that it had before, and then its traffic.

use flagger_rs::{
    api::{canary::CanaryPhase, status::ConditionType},
    snapshot::Kind,
};
use serde_json::{Value, json};

use super::simulation::{Simulation, release_of};

fn image(workload: &Value) -> &Value {
    &workload["spec"]["template"]["spec"]["containers"][0]["image"]
}

fn primary(sim: &Simulation) -> &Value {
    image(sim.snapshot.primary().unwrap())
}

fn has_failed(sim: &Simulation) -> bool {
    let status = sim.snapshot.canary.status.as_ref().unwrap();
    status.has_condition(ConditionType::PromotionFailed)
}

/// A release whose promotion fails, reconciled until the primary has its last version.
fn restored(spec: &Value, crash: Option<usize>) -> Simulation {
    let mut sim = release_of(spec.clone());
    sim.run_until_phase(CanaryPhase::Promoting);
    sim.broken = Some("podinfo:2");
    sim.crash_after = crash.map(|crash| sim.writes + crash);
    sim.run(250);
    sim
}

/// Every strategy, target and way to split traffic.
fn specs() -> Vec<Value> {
    let test = json!([{"headers": {"x-user": {"exact": "insider"}}}]);
    let daemon_set = json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "podinfo"});
    vec![
        json!({"analysis": {"stepWeight": 50}}),
        json!({"analysis": {"stepWeight": 20, "maxWeight": 40}}),
        json!({"analysis": {"iterations": 2}}),
        json!({"analysis": {"iterations": 2, "match": test}}),
        json!({"analysis": {"iterations": 2}, "provider": "kubernetes"}),
        json!({"analysis": {"stepWeight": 50}, "targetRef": daemon_set, "progressDeadlineSeconds": 60}),
    ]
}

#[test]
fn the_primary_gets_its_version_and_its_traffic_back() {
    for spec in specs() {
        let sim = restored(&spec, None);
        assert_eq!(primary(&sim), "podinfo:1", "{}", sim.transcript());
        assert_eq!(sim.snapshot.phase(), CanaryPhase::Failed, "{spec}");
        assert!(!has_failed(&sim), "{}", sim.transcript());
        if spec["provider"] != "kubernetes" {
            assert_eq!(sim.canary_weight(), 0, "{}", sim.transcript());
        }
        let target = sim.snapshot.target().unwrap();
        let selector = &target["spec"]["template"]["spec"]["nodeSelector"];
        let is_at_zero = target["spec"]["replicas"] == 0 || selector.is_object();
        assert!(is_at_zero, "the canary has drained: {}", sim.transcript());
        assert_eq!(sim.count_notified("is restored"), 1, "{:#?}", sim.notified);
    }
}

/// A release of a changed template with a changed ConfigMap, whose promotion fails, reconciled until the primary has its last version.
fn restored_with_config(crash: Option<usize>) -> Simulation {
    let mut sim = release_of(json!({"analysis": {"stepWeight": 50}}));
    sim.image("podinfo:1");
    refer_to_color(&mut sim);
    color(&mut sim, "red");
    sim.run_until(CanaryPhase::Succeeded);
    sim.image("podinfo:2");
    color(&mut sim, "blue");
    sim.run_until_phase(CanaryPhase::Promoting);
    sim.broken = Some("podinfo:2");
    sim.crash_after = crash.map(|crash| sim.writes + crash);
    sim.run(250);
    sim
}

fn refer_to_color(sim: &mut Simulation) {
    let target = sim.snapshot.reference(Kind::Deployment, "podinfo");
    let target = sim.snapshot.objects.get_mut(&target).unwrap();
    target["spec"]["template"]["spec"]["containers"][0]["envFrom"] =
        json!([{"configMapRef": {"name": "color"}}]);
}

fn color(sim: &mut Simulation, color: &str) {
    let name = sim.snapshot.reference(Kind::ConfigMap, "color");
    let object =
        json!({"metadata": {"name": "color", "namespace": "test"}, "data": {"color": color}});
    sim.store(name, object);
}

fn color_of<'a>(sim: &'a Simulation, config: &str) -> &'a Value {
    let name = sim.snapshot.reference(Kind::ConfigMap, config);
    &sim.snapshot.objects[&name]["data"]["color"]
}

#[test]
fn the_restored_primary_does_not_read_the_config_that_failed() {
    let mut sim = restored_with_config(None);
    assert_eq!(primary(&sim), "podinfo:1", "{}", sim.transcript());
    assert_eq!(color_of(&sim, "color-primary"), "red");
    let transcript = sim.transcript();
    let lines: Vec<_> = transcript.lines().collect();
    let template = lines
        .iter()
        .rposition(|line| line.contains("Deployment podinfo-primary: template"));
    let before = lines[template.unwrap() - 1];
    assert!(before.contains("ConfigMap color-primary"), "{transcript}");
    // The fix has its own content of the config, and its promotion fails, too.
    sim.image("podinfo:3");
    color(&mut sim, "green");
    sim.broken = Some("podinfo:3");
    sim.run_until_phase(CanaryPhase::Promoting);
    sim.run(250);
    assert_eq!(primary(&sim), "podinfo:1", "{}", sim.transcript());
    assert_eq!(color_of(&sim, "color-primary"), "red");
    sim.broken = None;
    sim.image("podinfo:4");
    sim.run_until(CanaryPhase::Succeeded);
    assert_eq!(color_of(&sim, "color-primary"), "green");
}

/// The kept content may be that of an older version.
#[test]
fn the_restored_primary_reads_the_config_of_its_own_version() {
    let mut sim = release_of(json!({"analysis": {"stepWeight": 50}}));
    sim.image("podinfo:1");
    refer_to_color(&mut sim);
    color(&mut sim, "red");
    sim.run_until(CanaryPhase::Succeeded);
    sim.image("podinfo:2");
    color(&mut sim, "blue");
    sim.run_until_phase(CanaryPhase::Progressing);
    sim.run_until(CanaryPhase::Succeeded);
    sim.image("podinfo:3");
    sim.broken = Some("podinfo:3");
    sim.run_until_phase(CanaryPhase::Promoting);
    sim.run(250);
    assert_eq!(primary(&sim), "podinfo:2", "{}", sim.transcript());
    assert_eq!(color_of(&sim, "color-primary"), "blue");
}

#[test]
fn a_crash_at_any_write_of_a_promotion_or_restoration_keeps_the_content_of_the_configs() {
    let undisturbed = restored_with_config(None);
    for crash in 1..12 {
        let sim = restored_with_config(Some(crash));
        assert_eq!(sim.outcome(), undisturbed.outcome(), "{crash}");
        assert_eq!(color_of(&sim, "color-primary"), "red", "{crash}");
    }
}

#[test]
fn a_config_of_someone_else_is_not_overwritten_by_the_content_that_is_kept() {
    let mut sim = release_of(json!({"analysis": {"stepWeight": 50}}));
    refer_to_color(&mut sim);
    color(&mut sim, "red");
    sim.run_until(CanaryPhase::Succeeded);
    let name = "color-primary-podinfo-previous";
    let object =
        json!({"metadata": {"name": name, "namespace": "test"}, "data": {"color": "mine"}});
    sim.store(sim.snapshot.reference(Kind::ConfigMap, name), object);
    color(&mut sim, "blue");
    sim.run_until_phase(CanaryPhase::Promoting);
    sim.run_until(CanaryPhase::Succeeded);
    assert_eq!(color_of(&sim, name), "mine");
    assert_eq!(color_of(&sim, "color-primary"), "blue");
}

#[test]
fn a_crash_at_any_write_of_a_restoration_changes_nothing() {
    for spec in specs() {
        let undisturbed = restored(&spec, None);
        for crash in 1..9 {
            let sim = restored(&spec, Some(crash));
            assert_eq!(sim.outcome(), undisturbed.outcome(), "{crash} {spec}");
        }
    }
}

/// In Flagger, the fix gets all requests at once, because the canary has all traffic.
#[test]
fn a_fix_takes_its_steps_after_a_failed_promotion() {
    let hook =
        json!([{"name": "acceptance", "type": "pre-rollout", "url": "http://hooks/acceptance"}]);
    let spec = json!({"analysis": {"stepWeight": 20, "maxWeight": 40, "webhooks": hook}});
    let mut sim = restored(&spec, None);
    let (steps, hooks) = (
        sim.routed.len(),
        sim.count_notified("check acceptance passed"),
    );
    sim.image("podinfo:3");
    sim.run_until(CanaryPhase::Succeeded);
    assert_eq!(sim.routed[steps..], [20, 40, 0], "{}", sim.transcript());
    assert_eq!(sim.count_notified("check acceptance passed"), hooks + 1);
    assert_eq!(primary(&sim), "podinfo:3");
}

/// A fix that is set at once waits until the primary is restored. The promoted version is no new version then.
#[test]
fn a_version_that_comes_during_the_restoration_waits_for_its_end() {
    for (image, ends) in [
        ("podinfo:3", CanaryPhase::Succeeded),
        ("podinfo:1", CanaryPhase::Failed),
    ] {
        let mut sim = release_of(json!({"analysis": {"stepWeight": 50}}));
        sim.run_until_phase(CanaryPhase::Promoting);
        sim.broken = Some("podinfo:2");
        while sim.count_notified("Restoring podinfo-primary.test") == 0 {
            sim.reconcile();
        }
        sim.broken = Some("podinfo:1");
        sim.image(image);
        sim.run(20);
        assert_eq!(sim.snapshot.phase(), CanaryPhase::Failed, "{image}");
        sim.broken = None;
        sim.run(300);
        assert_eq!(sim.snapshot.phase(), ends, "{}", sim.transcript());
        assert_eq!(primary(&sim), image);
        assert_eq!(sim.canary_weight(), 0);
    }
}

/// A fix must be able to start although the primary cannot be restored: traffic stays on the canary until the fix is promoted.
#[test]
fn a_fix_starts_although_the_primary_cannot_be_restored() {
    type Obstacle = fn(&mut Simulation);
    let obstacles: [(Obstacle, &str); 2] = [
        (|sim| sim.kept.clear(), "its earlier version is not kept"),
        (
            // The primary cannot run the earlier version either: a node is missing.
            |sim| sim.short = Some("podinfo-primary"),
            "podinfo-primary.test not ready",
        ),
    ];
    for (obstacle, why) in obstacles {
        let mut sim = release_of(
            json!({"progressDeadlineSeconds": 60, "analysis": {"stepWeight": 50, "threshold": 1}}),
        );
        sim.run_until_phase(CanaryPhase::Promoting);
        sim.broken = Some("podinfo:2");
        sim.run_until_phase(CanaryPhase::Failed);
        obstacle(&mut sim);
        while sim.count_notified("podinfo-primary.test cannot be restored") == 0 {
            sim.reconcile();
        }
        assert!(sim.count_notified(why) > 0, "{:#?}", sim.notified);
        assert_eq!(sim.canary_weight(), 100);
        sim.run(50);
        let asked = sim.count_notified("cannot be restored");
        assert_eq!(asked, 1, "it is reported once: {:#?}", sim.notified);
        sim.short = None;
        sim.image("podinfo:3");
        sim.run_until(CanaryPhase::Succeeded);
        assert_eq!(primary(&sim), "podinfo:3");
        assert!(!has_failed(&sim));
    }
}

#[test]
fn the_versions_are_listed_again_until_the_progress_deadline() {
    const MANY: usize = 1000;
    for (failures, ends) in [(2, "podinfo:1"), (MANY, "podinfo:2")] {
        let mut sim =
            release_of(json!({"progressDeadlineSeconds": 60, "analysis": {"stepWeight": 50}}));
        sim.run_until_phase(CanaryPhase::Promoting);
        sim.broken = Some("podinfo:2");
        sim.failed_lists = failures;
        sim.run(250);
        assert_eq!(primary(&sim), ends, "{}", sim.transcript());
        let given_up = usize::from(failures == MANY);
        let why = "before the failed promotion: the API server is too busy";
        assert_eq!(sim.count_notified(why), given_up, "{:#?}", sim.notified);
    }
}

/// The operator reports the object after the primary is restored.
#[test]
fn an_object_of_someone_else_does_not_hold_up_the_restoration() {
    let mut sim = release_of(json!({"analysis": {"stepWeight": 50}}));
    sim.run_until_phase(CanaryPhase::Promoting);
    sim.broken = Some("podinfo:2");
    sim.run_until_phase(CanaryPhase::Failed);
    let service = sim.snapshot.reference(Kind::Service, "podinfo-canary");
    let other = json!([{"apiVersion": "v1", "kind": "Other", "name": "other", "uid": "o", "controller": true}]);
    sim.snapshot.objects.get_mut(&service).unwrap()["metadata"]["ownerReferences"] = other;
    sim.run(60);
    assert_eq!(primary(&sim), "podinfo:1", "{}", sim.transcript());
    assert_eq!(sim.canary_weight(), 0);
    assert_eq!(sim.count_notified("belongs to Other other"), 1);
}

/// If no version was good, a second failure must not restore the first failed version.
#[test]
fn a_second_failed_promotion_restores_no_failed_version() {
    let mut sim = release_of(json!({"analysis": {"stepWeight": 50}}));
    sim.run_until_phase(CanaryPhase::Promoting);
    sim.broken = Some("podinfo:2");
    sim.run_until_phase(CanaryPhase::Failed);
    let kept = std::mem::take(&mut sim.kept);
    sim.run(30);
    sim.kept = kept;
    sim.broken = Some("podinfo:3");
    sim.image("podinfo:3");
    sim.run_until_phase(CanaryPhase::Promoting);
    sim.run_until_phase(CanaryPhase::Failed);
    sim.run(100);
    assert_eq!(primary(&sim), "podinfo:3", "{}", sim.transcript());
    assert_eq!(sim.canary_weight(), 100);
}

#[test]
fn a_primary_that_was_deleted_after_its_failed_promotion_is_not_restored() {
    let mut sim = release_of(json!({"analysis": {"stepWeight": 50}}));
    sim.run_until_phase(CanaryPhase::Promoting);
    sim.broken = Some("podinfo:2");
    sim.run_until_phase(CanaryPhase::Failed);
    let primary = sim.snapshot.reference(Kind::Deployment, "podinfo-primary");
    sim.snapshot.objects.remove(&primary);
    sim.run(100);
    assert_eq!(sim.canary_weight(), 100, "{}", sim.transcript());
}
