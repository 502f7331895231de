//! Measures how long a decision takes. `cargo bench` prints a line for each moment of a release. The goal is 50 µs.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::pedantic,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    dead_code,
    unused_imports,
    reason = "a measurement that shares the simulated cluster with `tests/decisions`"
)]

#[path = "../decisions/simulation/mod.rs"]
mod simulation;

use std::{hint::black_box, time::Instant};

use flagger_rs::{
    api::canary::CanaryPhase,
    rollout::{Evidence, decide},
    snapshot::{TargetKind, revision::revision},
};
use serde_json::{Value, json};
use simulation::{Simulation, release};

const TIMES: u32 = 20_000;

fn main() {
    let begun = || release(json!({"stepWeight": 20, "maxWeight": 50}));
    let mut midway = begun();
    while midway
        .snapshot
        .canary
        .status
        .as_ref()
        .unwrap()
        .canary_weight
        == 0
    {
        midway.reconcile();
    }
    let mut idle = begun();
    idle.run_until(CanaryPhase::Succeeded);
    let mut promoting = begun();
    promoting.run_until_phase(CanaryPhase::Promoting);
    for sim in [&mut midway, &mut idle, &mut promoting] {
        grow(sim);
    }
    for (moment, sim) in [
        ("idle", idle),
        ("a step under way", midway),
        ("promoting", promoting),
    ] {
        measure(moment, &sim);
    }
}

/// Replaces the short pod templates of the tests by the one of the walkthrough.
fn grow(sim: &mut Simulation) {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/kustomize/podinfo/deployment.yaml"
    );
    let manifest: Value = serde_saphyr::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let container_spec = manifest
        .pointer("/spec/template/spec/containers/0")
        .unwrap();
    for object in sim.snapshot.objects.values_mut() {
        if let Some(container) = object.pointer_mut("/spec/template/spec/containers/0") {
            let image = container["image"].take();
            *container = container_spec.clone();
            container["image"] = image;
        }
    }
    // The longer template is the version that the run is about.
    let revision = revision(&TargetKind::Deployment.version(sim.snapshot.target().unwrap()));
    let status = sim.snapshot.canary.status.as_mut().unwrap();
    let promoted = status.last_promoted_spec == status.last_applied_spec;
    status.last_applied_spec = Some(revision);
    if promoted {
        status
            .last_promoted_spec
            .clone_from(&status.last_applied_spec);
    }
}

/// The median of three measurements, because other processes may disturb one.
fn measure(moment: &str, sim: &Simulation) {
    let evidence = Evidence::new();
    let mut micros: Vec<f64> = (0..3)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..TIMES {
                black_box(decide(black_box(&sim.snapshot), &evidence));
            }
            start.elapsed().as_secs_f64() * 1e6 / f64::from(TIMES)
        })
        .collect();
    micros.sort_by(f64::total_cmp);
    println!("decide, {moment}: {:.1} µs", micros[1]);
}
