//! Measures the cost of many canaries: `cargo run --release --bin load -- --canaries 1000`.
//!
//! Runs the operator's release build on a real API server with that many canaries, and with three times as many Deployments that no
//! Canary names. There are no pods: a task of this program sets the Deployments' status to ready. Requests are counted from the API
//! server's audit log; the kernel accounts for time and memory. Prints a table, and writes the same as JSON to the file that `--json`
//! names. The exit code is 1 if a goal is missed.
//!
//! Flags: `--canaries N` (1000), `--unrelated N` (three times as many), `--progressing N` (a tenth, 500 at most), `--churn MINUTES` (0).
//! Churn means a new version and twenty changes of unrelated Deployments each second; memory is measured again after it.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::cast_precision_loss,
    reason = "a measurement ends at the first thing that goes wrong"
)]

mod lab;
mod measure;
mod report;
mod servers;
mod workloads;

use std::process::ExitCode;

/// The size of the measured cluster.
#[derive(Clone, Copy)]
pub struct Size {
    /// The number of canaries.
    pub canaries: usize,
    /// The number of Deployments that no Canary names.
    pub unrelated: usize,
    /// The number of canaries that progress at the same time.
    pub progressing: usize,
    /// Minutes of churn at the end.
    pub churn: usize,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let mut given = std::collections::BTreeMap::new();
    for pair in args.chunks(2) {
        let [name, value] = pair else { return usage() };
        given.insert(name.as_str(), value.as_str());
    }
    let json = given.remove("--json");
    let mut number = |name| given.remove(name).map(str::parse::<usize>);
    let asked = (
        number("--canaries").unwrap_or(Ok(1000)),
        number("--unrelated"),
        number("--progressing"),
        number("--churn").unwrap_or(Ok(0)),
    );
    let (Ok(canaries), Ok(unrelated), Ok(progressing), Ok(churn), true) = (
        asked.0,
        asked.1.transpose(),
        asked.2.transpose(),
        asked.3,
        given.is_empty(),
    ) else {
        return usage();
    };
    let size = Size {
        canaries,
        unrelated: unrelated.unwrap_or(3 * canaries),
        progressing: progressing.unwrap_or((canaries / 10).clamp(1, 500)),
        churn,
    };
    let figures = measure::all(size).await;
    print!("{}", report::table(&figures));
    if let Some(path) = json {
        std::fs::write(path, report::json(size, &figures).to_string()).unwrap();
    }
    if figures.iter().all(report::Figure::is_met) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn usage() -> ExitCode {
    eprintln!(
        "usage: load [--canaries N] [--unrelated N] [--progressing N] [--churn MINUTES] [--json FILE]"
    );
    ExitCode::from(2)
}
