//! Measures how long the pure work takes: `cargo bench` prints a line for each piece. The goal is 50 µs for a decision, and 500 µs at a step
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

mod cases;
// The simulated cluster uses it.
#[path = "../files/routers.rs"]
mod routers;

use std::time::Instant;

use cases::{CASES, Work};

fn main() {
    for case in CASES {
        let work = (case.prepare)();
        println!("{}: {:.1} µs", case.name, median(&work, case.times));
    }
}

/// The median of three measurements in microseconds, because other processes may disturb one.
fn median(work: &Work, times: u32) -> f64 {
    let mut micros: Vec<f64> = (0..3)
        .map(|_| {
            let start = Instant::now();
            (0..times).for_each(|_| work());
            start.elapsed().as_secs_f64() * 1e6 / f64::from(times)
        })
        .collect();
    micros.sort_by(f64::total_cmp);
    micros[1]
}
