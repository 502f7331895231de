//! The writes that `plan` foresees are those that the operator makes.

use flagger_rs::{
    api::canary::CanaryPhase,
    plan::{Foreseen, Foresight, Next, result},
    snapshot::{ObjectRef, Snapshot, Write},
};
use serde_json::{Value, json};

use super::{
    files::example_canaries,
    simulation::{Simulation, release},
};

/// Computes the plan of this snapshot, on an API server that adds no fields. Returns the writes, too.
fn foreseen(mut snapshot: Snapshot) -> (Foreseen, Vec<Write>) {
    let objects = std::mem::take(&mut snapshot.objects);
    snapshot.seen.clear();
    let mut foresight = Foresight::of(snapshot);
    let mut writes = Vec::new();
    for _ in 0..1_000 {
        match foresight.go_on() {
            Next::Read(names) => {
                for name in names {
                    let object = objects.get(&name).cloned();
                    foresight.read(name, object);
                }
            }
            Next::Try(write) => {
                let before = foresight.snapshot().objects.get(&write.object);
                let mut after = result(&write, before).unwrap();
                if before.is_none() {
                    let ObjectRef { kind, name, .. } = &write.object;
                    after["metadata"]["uid"] = json!(format!("{}-{name}", kind.name()));
                    after["metadata"]["generation"] = json!(1);
                }
                foresight.written(&write.object, after);
                writes.push(*write);
            }
            Next::End => return (foresight.end(), writes),
        }
    }
    panic!("there is no end");
}

/// An object without the fields that other actors write.
fn content(object: &Value) -> Value {
    let mut object = object.clone();
    object.as_object_mut().unwrap().remove("status");
    for field in ["generation", "resourceVersion"] {
        object["metadata"].as_object_mut().unwrap().remove(field);
    }
    object
}

#[test]
fn every_example_is_initialized_as_it_was_foreseen() {
    // KEDA scales workloads between two reconciles.
    let is_keda = |example: &Value| example["spec"]["autoscalerRef"]["kind"] == "ScaledObject";
    for example in example_canaries().into_iter().filter(|it| !is_keda(it)) {
        let mut sim = Simulation::new(example["spec"].clone());
        // The pods of the target get ready.
        sim.reconcile();
        let (foreseen, writes) = foreseen(sim.snapshot.clone());
        assert_eq!(foreseen.problems, Vec::<String>::new(), "{example}");
        assert!(
            foreseen.then.starts_with("initializes the canary"),
            "{}",
            foreseen.then
        );
        sim.run_until_phase(CanaryPhase::Initialized);
        let written: std::collections::BTreeSet<_> =
            writes.iter().map(|write| &write.object).collect();
        // On Knative, the target is the only object.
        let is_knative = example["spec"]["provider"] == "knative";
        assert!(is_knative || written.len() > 3, "{example}");
        for (name, object) in &sim.snapshot.objects {
            let planned = &foreseen.snapshot.objects[name];
            assert_eq!(content(planned), content(object), "{name:?} of {example}");
        }
    }
}

#[test]
fn obstacles_are_reported_in_the_words_of_the_operator() {
    let problems = |sim: &Simulation| foreseen(sim.snapshot.clone()).0.problems;
    let mut sim = Simulation::new(json!({"analysis": {"stepWeight": 20}}));
    let target = sim
        .snapshot
        .reference(flagger_rs::snapshot::Kind::Deployment, "podinfo");
    sim.snapshot.objects.remove(&target);
    assert_eq!(
        problems(&sim),
        [r#"deployment podinfo.test get query error: deployments.apps "podinfo" not found"#]
    );
    let mut sim = Simulation::new(json!({"analysis": {"stepWeight": 20}}));
    sim.conflict("other.test");
    let found = problems(&sim);
    assert!(
        found.len() == 1 && found[0].contains("is not run: other.test has the same target"),
        "{found:?}"
    );
    let sim = Simulation::new(json!({"analysis": {"stepWeight": 0}}));
    assert_eq!(
        problems(&sim),
        ["invalid canary spec: spec.analysis.stepWeight: must be greater than 0"]
    );
}

#[test]
fn a_new_version_starts_a_run_and_an_idle_canary_does_nothing() {
    let mut sim = release(json!({"stepWeight": 20, "webhooks": []}));
    let (starts, writes) = foreseen(sim.snapshot.clone());
    assert_eq!((starts.then.as_str(), writes.len()), ("starts a run", 0));
    sim.run_until(CanaryPhase::Succeeded);
    let (idle, writes) = foreseen(sim.snapshot.clone());
    assert_eq!((idle.then.as_str(), writes.len()), ("nothing", 0));
    assert_eq!(idle.problems, Vec::<String>::new());
    // An edit of the Canary changes its objects.
    sim.snapshot.canary.spec.service.timeout = Some("7s".to_owned());
    let (edited, writes) = foreseen(sim.snapshot.clone());
    assert!(edited.then.starts_with("repairs: "), "{}", edited.then);
    let routes: Vec<_> = writes
        .iter()
        .map(|write| write.object.kind.name())
        .collect();
    assert_eq!(routes, ["VirtualService"]);
}
