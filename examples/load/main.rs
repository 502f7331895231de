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
//! `--pages N` measures `flagger dashboard` with N open pages in place of the operator, while the progressing canaries take a step in each
//! interval.
//! `--program FILE` measures another build of the operator. `--only steps` measures only the steps of the progressing canaries, and
//! `--only churn` only the memory during churn, with chats that never answer if `--chats hang` is given.
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

mod bare;
mod dashboard;
mod hostile;
mod lab;
mod measure;
mod report;
mod servers;
mod workloads;

use std::{collections::BTreeMap, path::PathBuf, process::ExitCode};

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
    /// The number of open pages of the dashboard; 0 measures the operator.
    pub pages: usize,
    /// The only measurement that is made; `None` makes all.
    pub only: Option<Only>,
    /// Whether chats never answer during churn.
    pub chats_hang: bool,
    /// The operator's binary; `None` if it has to be built.
    pub program: Option<PathBuf>,
}

/// A measurement that can be made alone.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Only {
    /// The processor time and the lateness of steps.
    Steps,
    /// The memory during churn.
    Churn,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|first| first == bare::MODE) {
        bare::run(&args).await;
    }
    let Some((size, json)) = read(&args) else {
        return usage();
    };
    let figures = match &size {
        size if size.pages > 0 => dashboard::all(size.clone()).await,
        size if size.hostile > 0 => hostile::all(size.clone()).await,
        size => measure::all(size.clone()).await,
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

/// Reads the flags. Returns the size, and the file for the figures.
fn read(args: &[String]) -> Option<(Size, Option<String>)> {
    let mut given = BTreeMap::new();
    for pair in args.chunks(2) {
        let [name, value] = pair else { return None };
        given.insert(name.as_str(), value.clone());
    }
    let json = given.remove("--json");
    let program = given.remove("--program").map(PathBuf::from);
    let only = match given.remove("--only").as_deref() {
        None => None,
        Some("steps") => Some(Only::Steps),
        Some("churn") => Some(Only::Churn),
        Some(_) => return None,
    };
    let chats_hang = match given.remove("--chats").as_deref() {
        None => false,
        Some("hang") => true,
        Some(_) => return None,
    };
    let mut number = |name, default| match given.remove(name) {
        Some(number) => number.parse::<usize>().ok(),
        None => Some(default),
    };
    let canaries = number("--canaries", 1000)?;
    let size = Size {
        canaries,
        unrelated: number("--unrelated", 3 * canaries)?,
        progressing: number("--progressing", (canaries / 10).clamp(1, 500))?.min(canaries),
        churn: number("--churn", 0)?,
        hostile: number("--hostile", 0)?,
        hostile_metrics: number("--hostile-metrics", limits::METRICS)?,
        pages: number("--pages", 0)?,
        only,
        chats_hang,
        program,
    };
    given.is_empty().then_some((size, json))
}

fn usage() -> ExitCode {
    eprintln!(
        "usage: load [--canaries N] [--unrelated N] [--progressing N] [--churn MINUTES] [--hostile N] [--hostile-metrics N] [--pages N] [--only steps|churn] [--chats hang] [--program FILE] [--json FILE]"
    );
    ExitCode::from(2)
}
