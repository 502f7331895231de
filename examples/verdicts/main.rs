//! Measures by simulation how often verdicts are wrong: the sequential test of the operator beside Flagger's threshold, Mann-Whitney as
//! PipeCD runs it, and an oracle. `cargo run --release --example verdicts`
//!
//! The seeds are fixed: each run prints the same numbers. Progress goes to stderr.

#![allow(clippy::disallowed_methods, reason = "a program reads its arguments")]

mod judges;
mod tables;
mod traffic;

#[cfg(test)]
mod tests;

use std::process::ExitCode;

/// The runs of each cell of a table.
const RUNS: u32 = 2_000;

fn main() -> ExitCode {
    let runs = match std::env::args().nth(1).as_deref().map(str::parse) {
        None => RUNS,
        Some(Ok(runs)) if runs > 0 => runs,
        Some(_) => {
            eprintln!(
                "Usage: cargo run --release --example verdicts -- [RUNS]\nRUNS: how many runs each number is measured with. Default: {RUNS}"
            );
            return ExitCode::from(2);
        }
    };
    println!(
        "Each number is a share of {runs} simulated runs of five steps of a minute, at weights of 10 to 50 %.\n"
    );
    let count = tables::TABLES.len();
    for (place, table) in tables::TABLES.iter().enumerate() {
        eprintln!("Simulating table {} of {count}", place + 1);
        println!("{}", table.markdown(runs));
    }
    ExitCode::SUCCESS
}
