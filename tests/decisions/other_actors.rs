//! Releases in clusters where other actors change the same objects: admission policies, restarters, controllers.

use flagger_rs::{
    api::canary::{CanaryPhase, CanaryStatus},
    providers, rollout,
    snapshot::Kind,
};
use serde_json::{Value, json};

use super::simulation::{Simulation, release};

fn targets() -> [Value; 3] {
    [
        ("apps/v1", "Deployment"),
        ("apps/v1", "DaemonSet"),
        ("v1", "Service"),
    ]
    .map(|(version, kind)| json!({"apiVersion": version, "kind": kind, "name": "podinfo"}))
}

/// Adds to the pods of every workload what policies and injectors add: a label, an annotation, a container, a variable, a toleration.
fn add_to_pods(kind: Kind, object: &mut Value) {
    if !matches!(kind, Kind::Deployment | Kind::DaemonSet) {
        return;
    }
    let template = &mut object["spec"]["template"];
    template["metadata"]["labels"]["cost-center"] = json!("42");
    template["metadata"]["annotations"]["policy"] = json!("seen");
    let spec = &mut template["spec"];
    spec["tolerations"] = json!([{"key": "spot", "operator": "Exists"}]);
    let containers = spec["containers"].as_array_mut().unwrap();
    containers.truncate(1);
    containers[0]["env"] = json!([{"name": "ZONE", "value": "a"}]);
    containers.push(json!({"name": "proxy", "image": "proxy:1"}));
}

/// Changes a value of every pod template, as a policy that rewrites the registry of images does.
fn rewrite_pods(kind: Kind, object: &mut Value) {
    if matches!(kind, Kind::Deployment | Kind::DaemonSet) {
        let image = &mut object["spec"]["template"]["spec"]["containers"][0]["image"];
        let name = image.as_str().unwrap().trim_start_matches("mirror/");
        *image = json!(format!("mirror/{name}"));
    }
}

/// The number of writes of objects in an initialization and a release. (A status may name the changed target.)
fn writes_of(spec: &Value, policy: Option<fn(Kind, &mut Value)>) -> usize {
    let mut sim = Simulation::new(spec.clone());
    sim.policy = policy;
    sim.run_until(CanaryPhase::Initialized);
    if policy.is_some() {
        // The target's own pods were changed when it was scaled down. That is no new version.
        sim.run(100);
        assert_eq!(sim.snapshot.phase(), CanaryPhase::Initialized);
    }
    sim.image("podinfo:2");
    sim.run_until(CanaryPhase::Succeeded);
    sim.run(100);
    assert_eq!(sim.snapshot.phase(), CanaryPhase::Succeeded);
    assert_eq!(
        sim.count("New revision detected!"),
        1,
        "{}",
        sim.transcript()
    );
    sim.refusals.len()
}

#[test]
fn a_policy_that_changes_the_pods_of_each_workload_costs_no_write_and_no_run() {
    for target in targets() {
        let meshes = providers::routed().into_iter();
        for provider in meshes.filter(|provider| *provider != "knative") {
            let spec = json!({"provider": provider, "targetRef": target, "analysis": {"iterations": 1},
                "service": {"port": 9898, "meshName": "global", "gatewayRefs": [{"name": "gateway"}]}, "ingressRef": {"name": "podinfo"}, "routeRef": {"name": "podinfo"}});
            let alone = writes_of(&spec, None);
            for policy in [add_to_pods, rewrite_pods] as [fn(Kind, &mut Value); 2] {
                assert_eq!(writes_of(&spec, Some(policy)), alone, "{spec}");
            }
        }
    }
}

/// Removes the label that the operator sets on its Services, and the annotation that it sets on the primary.
fn undo(kind: Kind, object: &mut Value) {
    match kind {
        Kind::Service => object["metadata"]["labels"] = json!({"app": "of the policy"}),
        Kind::Deployment => {
            let template = &mut object["spec"]["template"];
            if template["metadata"]["annotations"]["flagger-id"].is_string() {
                template["metadata"]["annotations"] = json!({"flagger-id": "of the policy"});
                template["spec"]["containers"][0]["tty"] = json!(true);
            }
        }
        _ => {}
    }
}

#[test]
fn a_policy_that_undoes_each_write_is_met_with_growing_pauses() {
    let mut sim = Simulation::new(json!({"analysis": {"stepWeight": 50}}));
    sim.policy = Some(undo);
    let writes_until = |sim: &mut Simulation, second: i64| {
        let before = sim.refusals.len();
        while sim.snapshot.now.as_second() < second {
            sim.reconcile();
        }
        sim.refusals.len() - before
    };
    let first = writes_until(&mut sim, 600);
    assert!(first > 0);
    // The policy undoes the writes of three objects: two Services and the primary. None of them is written more often than once in ten
    // minutes now.
    writes_until(&mut sim, 3600);
    let later = writes_until(&mut sim, 2 * 3600);
    assert!(
        (3..=3 * 7).contains(&later),
        "{later}\n{}",
        sim.transcript()
    );
    sim.policy = None;
    sim.run_until(CanaryPhase::Initialized);
    sim.image("podinfo:2");
    sim.run_until(CanaryPhase::Succeeded);
}

/// A restart of the primary, as by `kubectl rollout restart` or Stakater's Reloader.
fn restart_the_primary(sim: &mut Simulation) {
    let name = sim.snapshot.reference(Kind::Deployment, "podinfo-primary");
    let primary = sim.snapshot.objects.get_mut(&name).unwrap();
    let template = &mut primary["spec"]["template"];
    template["metadata"]["annotations"]["kubectl.kubernetes.io/restartedAt"] =
        json!("2026-11-28T12:00:00Z");
    template["spec"]["containers"][0]["env"] =
        json!([{"name": "STAKATER_SETTINGS_CONFIGMAP", "value": "1"}]);
}

fn status(sim: &mut Simulation) -> &mut CanaryStatus {
    sim.snapshot.canary.status.as_mut().unwrap()
}

#[test]
fn a_restart_of_the_primary_starts_no_run_when_the_operator_takes_over_from_flagger() {
    let mut sim = release(json!({"stepWeight": 50}));
    sim.image("podinfo:1");
    restart_the_primary(&mut sim);
    take_over(&mut sim);
    assert_eq!(rollout::new_version(&sim.snapshot), None);
    sim.run(100);
    assert_eq!(sim.snapshot.phase(), CanaryPhase::Initialized);
    // Flagger's status did not have the promoted version; the operator's status has it. So a version that removes a field of the primary is
    // a new one.
    sim.image("podinfo:2");
    sim.run_until(CanaryPhase::Succeeded);
}

/// Flagger's status names the versions by hashes that cannot be compared with those of the operator.
fn take_over(sim: &mut Simulation) {
    let hash = Some("7cdf59dbf5".to_owned());
    status(sim).last_applied_spec.clone_from(&hash);
    status(sim).last_promoted_spec = hash;
}

#[test]
fn a_version_that_came_between_flagger_and_the_operator_is_released() {
    let mut sim = release(json!({"stepWeight": 50}));
    take_over(&mut sim);
    sim.run_until(CanaryPhase::Succeeded);
    assert!(sim.outcome().contains("podinfo:2"), "{}", sim.outcome());
}

#[test]
fn a_return_to_the_version_that_flagger_promoted_ends_the_run() {
    let mut sim = release(json!({"stepWeight": 20}));
    let applied = status(&mut sim).last_applied_spec.clone();
    take_over(&mut sim);
    status(&mut sim).last_applied_spec = applied;
    while sim.canary_weight() == 0 {
        sim.reconcile();
    }
    sim.image("podinfo:1");
    sim.run(100);
    assert_eq!(sim.routed, [20, 0], "{}", sim.transcript());
    assert_eq!(sim.count_notified("Restarting analysis"), 0);
}

#[test]
fn a_return_to_the_promoted_version_starts_no_run_although_the_primary_was_restarted() {
    for is_taken_over in [false, true] {
        let mut sim = release(json!({"stepWeight": 50, "threshold": 1}));
        restart_the_primary(&mut sim);
        if is_taken_over {
            let name = sim.snapshot.reference(Kind::Deployment, "podinfo-primary");
            let primary = sim.snapshot.objects.get_mut(&name).unwrap();
            primary["spec"]["template"]["metadata"]["annotations"]["flagger-id"] =
                json!("a random number");
        }
        sim.metric = "1".to_owned();
        sim.run_until(CanaryPhase::Failed);
        sim.image("podinfo:1");
        sim.run(100);
        assert_eq!(
            sim.count("New revision detected!"),
            1,
            "{}",
            sim.transcript()
        );
        assert_eq!(sim.snapshot.phase(), CanaryPhase::Failed);
    }
}

/// Without this run, the primary would keep the version that another actor wrote into it.
#[test]
fn a_return_to_the_promoted_version_after_a_failure_starts_a_run_if_the_primary_runs_another_one() {
    let mut sim = release(json!({"stepWeight": 50, "threshold": 1}));
    sim.metric = "1".to_owned();
    sim.run_until(CanaryPhase::Failed);
    let name = sim.snapshot.reference(Kind::Deployment, "podinfo-primary");
    let primary = sim.snapshot.objects.get_mut(&name).unwrap();
    let template = &mut primary["spec"]["template"];
    template["metadata"]["annotations"] = json!({});
    template["spec"]["containers"][0]["image"] = json!("podinfo:hotfix");
    sim.metric = "100".to_owned();
    sim.image("podinfo:1");
    sim.run_until(CanaryPhase::Succeeded);
    let primary = sim.snapshot.primary().unwrap();
    let container = &primary["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["image"], "podinfo:1", "{}", sim.transcript());
}

#[test]
fn a_version_that_only_removes_something_is_a_new_version() {
    let mut sim = release(json!({"stepWeight": 50}));
    let with_variable = |sim: &mut Simulation, has_it: bool| {
        let name = sim.snapshot.reference(Kind::Deployment, "podinfo");
        let container = &mut sim.snapshot.objects.get_mut(&name).unwrap()["spec"]["template"]["spec"]
            ["containers"][0];
        container["env"] = if has_it {
            json!([{"name": "DEBUG", "value": "1"}])
        } else {
            Value::Null
        };
    };
    with_variable(&mut sim, true);
    sim.run_until(CanaryPhase::Succeeded);
    with_variable(&mut sim, false);
    sim.run_until_phase(CanaryPhase::Progressing);
    sim.run_until(CanaryPhase::Succeeded);
    assert_eq!(sim.count("New revision detected!"), 2);
    assert_eq!(
        sim.snapshot.primary().unwrap()["spec"]["template"]["spec"]["containers"][0]["env"],
        Value::Null
    );
}

/// Without the restoration, the primary would keep the failed version.
#[test]
fn a_return_from_a_version_that_added_something_and_failed_in_its_promotion_finds_the_primary_restored()
 {
    let mut sim = release(json!({"stepWeight": 50}));
    let name = sim.snapshot.reference(Kind::Deployment, "podinfo");
    let set = |sim: &mut Simulation, env: Value| {
        sim.snapshot.objects.get_mut(&name).unwrap()["spec"]["template"]["spec"]["containers"][0]
            ["env"] = env;
    };
    sim.image("podinfo:1");
    set(&mut sim, json!([{"name": "DEBUG", "value": "1"}]));
    sim.run_until_phase(CanaryPhase::Promoting);
    sim.broken = Some("podinfo:1");
    sim.run_until(CanaryPhase::Failed);
    set(&mut sim, Value::Null);
    sim.broken = None;
    sim.run(100);
    let primary = sim.snapshot.primary().unwrap();
    let container = &primary["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container.get("env"), None, "{}", sim.transcript());
    assert_eq!(sim.canary_weight(), 0);
    assert_eq!(sim.count("New revision detected!"), 1);
}

#[test]
fn a_deletion_ends_although_another_actor_undoes_what_it_restores() {
    let mut sim = release(json!({"stepWeight": 50}));
    sim.snapshot.canary.spec.revert_on_deletion = true;
    sim.run_until(CanaryPhase::Succeeded);
    sim.policy = Some(|kind, object| {
        if kind == Kind::Service && object["metadata"]["name"] == "podinfo" {
            object["spec"]["selector"] = json!({"app": "elsewhere"});
        }
    });
    sim.delete();
    let deleted = sim.snapshot.now.as_second();
    while !sim.is_gone() && sim.snapshot.now.as_second() < deleted + 3600 {
        sim.reconcile();
    }
    assert!(sim.is_gone(), "{}", sim.transcript());
    let took = sim.snapshot.now.as_second() - deleted;
    assert!((600..700).contains(&took), "after its deadline: {took}");
}

/// The pause applies to the write that was undone, not to all writes of the object.
#[test]
fn a_corrected_spec_is_written_at_once_although_the_old_one_was_undone() {
    let mut sim = release(json!({"stepWeight": 50}));
    let apex = sim.snapshot.reference(Kind::Service, "podinfo");
    let ports = |sim: &Simulation| sim.snapshot.objects[&apex]["spec"]["ports"].clone();
    sim.run_until(CanaryPhase::Succeeded);
    sim.policy = Some(|kind, object| {
        if kind == Kind::Service
            && object["metadata"]["name"] == "podinfo"
            && object["spec"]["ports"][0]["port"] == 9898
        {
            object["spec"]["ports"][0]["port"] = json!(1);
        }
    });
    sim.snapshot.objects.get_mut(&apex).unwrap()["spec"]["ports"][0]["port"] = json!(1);
    for _ in 0..600 {
        sim.reconcile();
    }
    assert_eq!(ports(&sim)[0]["port"], 1);
    sim.edit("service", &json!({"port": 9999}));
    // The next tick comes within an interval.
    let edited = sim.snapshot.now.as_second();
    while ports(&sim)[0]["port"] != 9999 {
        sim.reconcile();
    }
    let took = sim.snapshot.now.as_second() - edited;
    assert!(took <= 10, "{took}\n{}", sim.transcript());
}
