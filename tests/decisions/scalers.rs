//! Releases of targets that KEDA scales.

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
fn a_scaled_object_is_paused_before_its_target_goes_and_resumed_before_it_comes() {
    let mut sim = scaled(json!({"stepWeight": 50}), &json!({"minReplicaCount": 2}));
    assert_eq!(paused(&sim, "podinfo-so"), Some(json!("0")));
    assert_eq!(paused(&sim, "podinfo-so-primary"), None);
    sim.run_until(CanaryPhase::Succeeded);
    assert_eq!(replicas(&sim, "podinfo"), 0);
    assert_eq!(replicas(&sim, "podinfo-primary"), 2);
    transcript("scaled-object", &sim);
    assert!(!sim.transcript().contains("KEDA"), "nobody argues");
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
fn a_deletion_lets_the_scaled_object_work_again() {
    let mut sim = scaled(json!({"stepWeight": 50}), &json!({"minReplicaCount": 2}));
    sim.snapshot.canary.spec.revert_on_deletion = true;
    sim.run_until(CanaryPhase::Succeeded);
    sim.delete();
    sim.run(200);
    assert!(sim.is_gone(), "{}", sim.transcript());
    assert_eq!(paused(&sim, "podinfo-so"), None);
    assert_eq!(replicas(&sim, "podinfo"), 2);
}

/// KEDA's least is 0 unless told otherwise: where there is no load it takes away what a run scaled up.
#[test]
fn a_scaled_object_that_may_scale_to_zero_is_not_fought() {
    let mut sim = scaled(json!({"stepWeight": 50}), &json!({}));
    sim.run(120);
    let ups = sim.transcript().matches("podinfo: replicas 1").count();
    let seconds = sim.snapshot.now.as_second();
    assert!(
        i64::try_from(ups).unwrap() <= seconds / 10 + 1,
        "{}",
        sim.transcript()
    );
    assert_eq!(sim.canary_weight(), 0, "no traffic where nothing answers");
}

/// … and what it gave back with the Canary is the user's: the finalizer does not wait for pods that nobody needs.
#[test]
fn a_deletion_ends_though_keda_takes_the_target_back_to_zero() {
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
fn no_plan_has_the_primarys_scaler_keep_it_at_zero() {
    let sim = scaled(json!({"stepWeight": 50}), &json!({}));
    let pin = |name: &str| {
        let object = sim.snapshot.reference(Kind::ScaledObject, name);
        let mut pinned = sim.snapshot.objects[&object].clone();
        pinned["metadata"]["annotations"]["autoscaling.keda.sh/paused-replicas"] = json!("0");
        let mut plan = rollout::Plan::default();
        plan.writes.push(flagger_rs::snapshot::Write {
            object,
            action: flagger_rs::snapshot::Action::Replace(pinned),
            failure: String::new(),
        });
        rollout::audit(&sim.snapshot, &plan)
    };
    assert!(
        pin("podinfo-so-primary")
            .unwrap_err()
            .to_string()
            .contains("scaled to zero")
    );
    assert_eq!(pin("podinfo-so"), Ok(()), "it is so already");
}

/// To pause it is to scale it down.
#[test]
fn no_plan_pauses_the_scaled_object_of_a_target_with_traffic() {
    let mut sim = scaled(json!({"stepWeight": 50}), &json!({"minReplicaCount": 2}));
    while sim.canary_weight() == 0 {
        sim.reconcile();
    }
    let object = sim.snapshot.reference(Kind::ScaledObject, "podinfo-so");
    let mut pinned = sim.snapshot.objects[&object].clone();
    pinned["metadata"]["annotations"]["autoscaling.keda.sh/paused-replicas"] = json!("0");
    let mut plan = rollout::Plan::default();
    plan.writes.push(flagger_rs::snapshot::Write {
        object,
        action: flagger_rs::snapshot::Action::Replace(pinned),
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
