//! Releases of a target that KEDA scales.

use flagger_rs::{api::canary::CanaryPhase, rollout, snapshot::Kind};
use serde_json::{Value, json};

use super::{
    crashes::crash_at_every_write_of,
    simulation::{Simulation, scaled},
    transcript,
};

fn replicas(sim: &Simulation, name: &str) -> Value {
    let name = sim.snapshot.reference(Kind::Deployment, name);
    sim.snapshot.objects[&name]["spec"]["replicas"].clone()
}

fn paused(sim: &Simulation, name: &str) -> Option<Value> {
    let name = sim.snapshot.reference(Kind::ScaledObject, name);
    let annotation = "/metadata/annotations/autoscaling.keda.sh~1paused-replicas";
    sim.snapshot.objects[&name].pointer(annotation).cloned()
}

#[test]
fn a_scaled_object_is_paused_before_its_target_scales_to_zero_and_resumed_before_it_scales_up() {
    let mut sim = scaled(json!({"stepWeight": 50}), &json!({"minReplicaCount": 2}));
    assert_eq!(paused(&sim, "podinfo-so"), Some(json!("0")));
    assert_eq!(paused(&sim, "podinfo-so-primary"), None);
    sim.run_until(CanaryPhase::Succeeded);
    assert_eq!(replicas(&sim, "podinfo"), 0);
    assert_eq!(replicas(&sim, "podinfo-primary"), 2);
    transcript("scaled-object", &sim);
    assert!(
        !sim.transcript().contains("KEDA"),
        "KEDA never scales against the operator"
    );
}

#[test]
fn a_rollback_pauses_the_scaled_object_again() {
    let mut sim = scaled(
        json!({"stepWeight": 20, "threshold": 2}),
        &json!({"minReplicaCount": 2}),
    );
    sim.metric = "97.5".to_owned();
    sim.run_until(CanaryPhase::Failed);
    assert_eq!(paused(&sim, "podinfo-so"), Some(json!("0")));
    assert_eq!(replicas(&sim, "podinfo"), 0);
}

#[test]
fn without_analysis_the_scaled_object_is_paused_and_resumed_too() {
    let mut sim = scaled(json!({"stepWeight": 20}), &json!({"minReplicaCount": 2}));
    sim.snapshot.canary.spec.skip_analysis = true;
    sim.run_until(CanaryPhase::Succeeded);
    assert_eq!(paused(&sim, "podinfo-so"), Some(json!("0")));
    assert_eq!(replicas(&sim, "podinfo"), 0);
}

#[test]
fn a_crash_at_any_write_of_a_release_of_a_scaled_object_loses_nothing() {
    let start = || {
        scaled(
            json!({"stepWeight": 20, "maxWeight": 50}),
            &json!({"minReplicaCount": 2}),
        )
    };
    crash_at_every_write_of(start, "100", CanaryPhase::Succeeded);
    crash_at_every_write_of(start, "97.5", CanaryPhase::Failed);
}

#[test]
fn a_deletion_resumes_the_scaled_object() {
    let mut sim = scaled(json!({"stepWeight": 50}), &json!({"minReplicaCount": 2}));
    sim.snapshot.canary.spec.revert_on_deletion = true;
    sim.run_until(CanaryPhase::Succeeded);
    sim.delete();
    sim.run(200);
    assert!(sim.is_gone(), "{}", sim.transcript());
    assert_eq!(paused(&sim, "podinfo-so"), None);
    assert_eq!(replicas(&sim, "podinfo"), 2);
}

/// The default of `minReplicaCount` is 0: without load, KEDA scales down the pods of a run.
#[test]
fn a_target_that_keda_scales_to_zero_is_scaled_up_at_most_once_an_interval() {
    let mut sim = scaled(json!({"stepWeight": 50}), &json!({}));
    sim.run(120);
    let ups = sim.transcript().matches("podinfo: replicas 1").count();
    let seconds = sim.snapshot.now.as_second();
    assert!(
        i64::try_from(ups).unwrap() <= seconds / 10 + 1,
        "{}",
        sim.transcript()
    );
    assert_eq!(
        sim.canary_weight(),
        0,
        "a target without pods gets no traffic"
    );
}

/// After the deletion KEDA may scale the target to zero again: the finalizer does not wait for pods without load.
#[test]
fn a_deletion_ends_even_if_keda_scales_the_target_to_zero_again() {
    let mut sim = scaled(json!({"stepWeight": 50}), &json!({}));
    sim.snapshot.canary.spec.revert_on_deletion = true;
    sim.snapshot.canary.spec.progress_deadline_seconds = Some(60);
    sim.reconcile();
    sim.delete();
    sim.run(300);
    let ups = sim.transcript().matches("podinfo: replicas 1").count();
    assert!((1..=8).contains(&ups), "{}", sim.transcript());
    assert!(sim.is_gone(), "{}", sim.transcript());
}

#[test]
fn the_audit_refuses_a_plan_that_pauses_the_primary_at_zero() {
    let sim = scaled(json!({"stepWeight": 50}), &json!({}));
    let audit_of_pause = |name: &str| {
        let object = sim.snapshot.reference(Kind::ScaledObject, name);
        let mut paused_object = sim.snapshot.objects[&object].clone();
        paused_object["metadata"]["annotations"]["autoscaling.keda.sh/paused-replicas"] =
            json!("0");
        let mut plan = rollout::Plan::default();
        plan.writes.push(flagger_rs::snapshot::Write {
            object,
            action: flagger_rs::snapshot::Action::Replace(paused_object),
            failure: String::new(),
        });
        rollout::audit(&sim.snapshot, &plan)
    };
    assert!(
        audit_of_pause("podinfo-so-primary")
            .unwrap_err()
            .to_string()
            .contains("scaled to zero")
    );
    assert_eq!(
        audit_of_pause("podinfo-so"),
        Ok(()),
        "the target is paused already"
    );
}

/// A paused ScaledObject scales the target down.
#[test]
fn the_audit_refuses_a_plan_that_pauses_a_target_with_traffic() {
    let mut sim = scaled(json!({"stepWeight": 50}), &json!({"minReplicaCount": 2}));
    while sim.canary_weight() == 0 {
        sim.reconcile();
    }
    let object = sim.snapshot.reference(Kind::ScaledObject, "podinfo-so");
    let mut paused_object = sim.snapshot.objects[&object].clone();
    paused_object["metadata"]["annotations"]["autoscaling.keda.sh/paused-replicas"] = json!("0");
    let mut plan = rollout::Plan::default();
    plan.writes.push(flagger_rs::snapshot::Write {
        object,
        action: flagger_rs::snapshot::Action::Replace(paused_object),
        failure: String::new(),
    });
    let refused = rollout::audit(&sim.snapshot, &plan).unwrap_err();
    assert!(
        refused
            .to_string()
            .contains("before its connections have drained"),
        "{refused}"
    );
}
