//! Measures how long a decision takes. `cargo bench` prints a line for each moment of a release. The goal is 50 µs, and 500 µs at a step
//! that compares the canary with the primary.

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

#[path = "../files/routers.rs"]
mod routers;
#[path = "../decisions/simulation/mod.rs"]
mod simulation;

use std::{hint::black_box, sync::Arc, time::Instant};

use flagger_rs::{
    api::{canary::CanaryPhase, limits},
    metrics::Asks,
    notifications::Notification,
    rollout::{Decision, Evidence, Question, decide},
    snapshot::{HttpResponse, TargetKind, revision::revision},
};
use serde_json::{Map, Value, json};
use simulation::{Simulation, Traffic, release, release_of};

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
        measure(moment, &sim, &Evidence::new(), TIMES);
    }
    let plain = "sum(rate(requests{ns=\"{{ namespace }}\"}[{{ interval }}]))";
    for (moment, (sim, evidence)) in [
        ("100 metrics", metrics(plain)),
        (
            "100 metrics whose templates ask for the most work",
            metrics(&hostile_template()),
        ),
        ("1,000 combined conditions", (conditions(), Evidence::new())),
        ("a step that compares errors and durations", compared()),
    ] {
        measure(moment, &sim, &evidence, 20);
    }
}

/// Returns a release that checks as many metrics as a Canary may have, each with this query, and the answers of the hooks that are called
/// before.
fn metrics(query: &str) -> (Simulation, Evidence) {
    let variables: Map<String, Value> = (0..64)
        .map(|n| (format!("variable-{n:03}"), json!("x".repeat(230))))
        .collect();
    let metric = |n| json!({"name": format!("metric-{n}"), "query": query, "threshold": 1, "templateVariables": variables});
    let all: Vec<_> = (0..limits::METRICS).map(metric).collect();
    let mut sim = release(json!({"stepWeight": 20, "maxWeight": 50, "metrics": all}));
    loop {
        if let Some(evidence) = hooks(&sim) {
            return (sim, evidence);
        }
        sim.reconcile();
        assert_ne!(sim.snapshot.phase(), CanaryPhase::Succeeded);
    }
}

/// The answers of the hooks, if the next decision checks the metrics: it queries them, or reports that a query cannot be built. `None` if
/// it does not check them.
fn hooks(sim: &Simulation) -> Option<Evidence> {
    let mut evidence = Evidence::new();
    for _ in 0..10 {
        match decide(&sim.snapshot, &evidence) {
            Decision::Ask(questions, _) => {
                for question in questions {
                    if let Question::Metric { .. } = question {
                        return Some(evidence);
                    }
                    let (status, body) = (200, String::new());
                    let answer = question.read(Ok(HttpResponse { status, body }));
                    evidence.insert(Arc::new(question), answer);
                }
            }
            Decision::Do(plan) => {
                let is_halt =
                    |notified: &Notification| format!("{notified:?}").contains("query failed");
                return plan.notifications.iter().any(is_halt).then_some(evidence);
            }
            Decision::Wait(..) => return None,
        }
    }
    None
}

/// Returns a release at a step that compares both built-in metrics, and the answers that the step needs.
fn compared() -> (Simulation, Evidence) {
    let metric = |name: &str| json!({"name": name, "compare": {}});
    let metrics = ["request-success-rate", "request-duration"].map(metric);
    let mut sim = release(json!({"stepWeight": 10, "maxWeight": 50, "metrics": metrics}));
    sim.traffic = Some(Traffic::of(500.0));
    loop {
        let mut evidence = Evidence::new();
        while let Decision::Ask(questions, _) = decide(&sim.snapshot, &evidence) {
            for question in questions {
                let body = answer(&sim, &question);
                let answer = question.read(Ok(HttpResponse { status: 200, body }));
                evidence.insert(Arc::new(question), answer);
            }
        }
        let weight = sim.snapshot.canary.status.as_ref().unwrap().canary_weight;
        if weight == 20 && !evidence.is_empty() {
            return (sim, evidence);
        }
        sim.reconcile();
    }
}

/// The answer of a hook, or of Prometheus.
fn answer(sim: &Simulation, question: &Question) -> String {
    let Question::Metric { query, .. } = question else {
        return String::new();
    };
    let Asks::Series { query, at } = &query.asks else {
        return String::new();
    };
    let traffic = sim.traffic.as_ref().unwrap();
    traffic.answer(query, at.as_second()).unwrap().to_string()
}

/// A template that evaluates as much as the limits allow, and writes nothing.
fn hostile_template() -> String {
    let work = "{{$x := variables}}".repeat(100);
    format!("{{{{range variables}}}}{work}{{{{end}}}}")
}

/// An A/B test with the greatest allowed number of combinations of its conditions.
fn conditions() -> Simulation {
    let conditions = |header: &str, count: usize| -> Vec<Value> {
        let one = |n: usize| json!({"headers": {header: {"exact": n.to_string()}}});
        (0..count).map(one).collect()
    };
    let mut sim = release_of(json!({
        "service": {"port": 9898, "match": conditions("a", 40)},
        "analysis": {"iterations": 50, "threshold": 5, "match": conditions("b", 25)}}));
    sim.run_until_phase(CanaryPhase::Progressing);
    sim.run(30);
    sim
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
    // The run must be about the version with the longer template, so the status gets the revision of that version.
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
fn measure(moment: &str, sim: &Simulation, evidence: &Evidence, times: u32) {
    let mut micros: Vec<f64> = (0..3)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..times {
                black_box(decide(black_box(&sim.snapshot), evidence));
            }
            start.elapsed().as_secs_f64() * 1e6 / f64::from(times)
        })
        .collect();
    micros.sort_by(f64::total_cmp);
    println!("decide, {moment}: {:.1} µs", micros[1]);
}
