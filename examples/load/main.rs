//! Measures the cost of many canaries: `cargo run --release --bin load -- --canaries 1000`.
//!
//! Runs the operator's release build on a real API server with that many canaries, and with three times as many Deployments that no
//! Canary names. There are no pods: a task of this program sets the Deployments' status to ready. Requests are counted from the API
//! server's audit log; the kernel accounts for time and memory. Prints a table, and writes the same as JSON to the file that `--json`
//! names. The exit code is 1 if a goal is missed.
//!
//! Flags: `--canaries N` (1000), `--unrelated N` (three times as many), `--progressing N` (a tenth, 500 at most), `--churn MINUTES` (0).
//!
//! `--hostile N` measures the effect of hostile canaries: N canaries in as many namespaces query metric servers that answer 1 MiB, never
//! answer, or answer a byte a second. The figures are the delay of the steps of the other canaries, and the operator's memory. Each hostile
//! canary has `--hostile-metrics N` metrics (100, the most that the schema allows; for more, this program removes the limit from the
//! schema).
//! `--program FILE` measures another build of the operator.
//!
//! Churn means a new version and twenty changes of unrelated Deployments each second; memory is measured again after it.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::cast_precision_loss,
    reason = "a measurement ends at the first thing that goes wrong"
)]

mod hostile;
mod lab;
mod measure;
mod report;
mod servers;
mod workloads;

use std::{path::PathBuf, process::ExitCode};

use flagger_rs::api::limits;

/// The size of the measured cluster.
#[derive(Clone)]
pub struct Size {
    /// The number of canaries.
    pub canaries: usize,
    /// The number of Deployments that no Canary names.
    pub unrelated: usize,
    /// The number of canaries that progress at the same time.
    pub progressing: usize,
    /// Minutes of churn at the end.
    pub churn: usize,
    /// The number of hostile canaries.
    pub hostile: usize,
    /// The number of metrics of each hostile canary.
    pub hostile_metrics: usize,
    /// The operator's binary; `None` if it has to be built.
    pub program: Option<PathBuf>,
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
    let program = given.remove("--program").map(PathBuf::from);
    let mut number = |name| given.remove(name).map(str::parse::<usize>);
    let asked = (
        number("--canaries").unwrap_or(Ok(1000)),
        number("--unrelated"),
        number("--progressing"),
        number("--churn").unwrap_or(Ok(0)),
        number("--hostile").unwrap_or(Ok(0)),
        number("--hostile-metrics").unwrap_or(Ok(limits::METRICS)),
    );
    let (
        Ok(canaries),
        Ok(unrelated),
        Ok(progressing),
        Ok(churn),
        Ok(hostile),
        Ok(hostile_metrics),
        true,
    ) = (
        asked.0,
        asked.1.transpose(),
        asked.2.transpose(),
        asked.3,
        asked.4,
        asked.5,
        given.is_empty(),
    )
    else {
        return usage();
    };
    let size = Size {
        canaries,
        unrelated: unrelated.unwrap_or(3 * canaries),
        progressing: progressing.unwrap_or((canaries / 10).clamp(1, 500)),
        churn,
        hostile,
        hostile_metrics,
        program,
    };
    let figures = if size.hostile > 0 {
        hostile::all(size.clone()).await
    } else {
        measure::all(size.clone()).await
    };
    print!("{}", report::table(&figures));
    if let Some(path) = json {
        std::fs::write(path, report::json(&size, &figures).to_string()).unwrap();
    }
    if figures.iter().all(report::Figure::is_met) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn usage() -> ExitCode {
    eprintln!(
        "usage: load [--canaries N] [--unrelated N] [--progressing N] [--churn MINUTES] [--hostile N] [--hostile-metrics N] [--program FILE] [--json FILE]"
    );
    ExitCode::from(2)
}
