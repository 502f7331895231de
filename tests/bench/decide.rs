//! How long a decision takes: `cargo bench`. Prints a line for each moment of a release; the goal is 50 µs.

#![allow(
    clippy::pedantic,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    dead_code,
    reason = "a measurement that shares its cluster in memory with the tests"
)]

#[path = "../it/decisions/model.rs"]
mod model;

use std::{hint::black_box, time::Instant};

use flagger_rs::{
    api::canary::CanaryPhase,
    rollout::{Evidence, decide},
};
use model::{Model, release};
use serde_json::json;

const TIMES: u32 = 20_000;

fn main() {
    let begun = || release(json!({"stepWeight": 20, "maxWeight": 50}));
    let mut midway = begun();
    while midway.world.canary.status.as_ref().unwrap().canary_weight == 0 {
        midway.look();
    }
    let mut settled = begun();
    settled.run_until(CanaryPhase::Succeeded);
    let mut promoting = begun();
    promoting.run_until_phase(CanaryPhase::Promoting);
    for (moment, model) in [
        ("settled", settled),
        ("a step under way", midway),
        ("promoting", promoting),
    ] {
        measure(moment, &model);
    }
}

/// The median of three, so that a busy machine does not decide.
fn measure(moment: &str, model: &Model) {
    let evidence = Evidence::new();
    let mut micros: Vec<f64> = (0..3)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..TIMES {
                black_box(decide(black_box(&model.world), &evidence));
            }
            start.elapsed().as_secs_f64() * 1e6 / f64::from(TIMES)
        })
        .collect();
    micros.sort_by(f64::total_cmp);
    println!("decide, {moment}: {:.1} µs", micros[1]);
}
