//! The walkthrough, played and checked on a real control plane on this machine: `cargo run --profile demo --bin demo`.
//!
//! Installs the operator with `kubectl apply -k kustomize/istio`, runs it with the rights of its ServiceAccount, and plays a release, a
//! rollback, blue/green and alerts with the manifests of `examples/walkthrough` (at an interval of ten seconds). Then compares the
//! observed events, phases and messages with the expected ones. The exit code is 0 only if they all agree. With `--dashboard`, pages show the releases in a
//! browser, and the cluster keeps running. With `--mesh`, the demo plays
//! releases and rollbacks under real traffic through a real Istio.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    reason = "a demo ends at the first thing that goes wrong"
)]

mod bed;
mod mesh;
mod report;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use futures::TryStreamExt;
use k8s_openapi::api::core::v1::Event;
use kube::{
    Api,
    runtime::{WatchStreamExt, watcher},
};

use bed::{PARTS, Part};

/// The longest wait for any one condition.
const PATIENCE: Duration = Duration::from_secs(300);
type Error = Box<dyn std::error::Error>;

/// The command line.
struct Args {
    parts: Vec<Part>,
    keep: bool,
    mesh: bool,
    dashboard: bool,
}

impl Args {
    /// `None` if the arguments are not valid.
    fn parse(args: &[String]) -> Option<Self> {
        let given = |name: &str| args.iter().any(|arg| arg == name);
        let (keep, mesh, dashboard) = (given("--keep"), given("--mesh"), given("--dashboard"));
        let only = args
            .iter()
            .position(|arg| arg == "--only")
            .and_then(|i| args.get(i + 1));
        let parts: Vec<Part> = PARTS
            .iter()
            .filter(|(name, _)| only.is_none_or(|only| only == name))
            .map(|(_, part)| *part)
            .collect();
        let known = ["--keep", "--mesh", "--only", "--dashboard"];
        let unknown = args
            .iter()
            .any(|arg| arg.starts_with('-') && !known.contains(&arg.as_str()));
        if parts.is_empty() || unknown || mesh && (given("--only") || dashboard) {
            return None;
        }
        Some(Self {
            parts,
            keep,
            mesh,
            dashboard,
        })
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let Some(args) = Args::parse(&args) else {
        eprintln!(
            "usage: demo [--only canary|rollback|blue-green|alerts] [--keep] [--dashboard]\n       demo --mesh [--keep]"
        );
        return ExitCode::from(2);
    };
    let play = async {
        if args.mesh {
            mesh::play(args.keep).await
        } else {
            bed::play(&args.parts, args.keep, args.dashboard).await
        }
    };
    tokio::select! {
        result = play => match result {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(error) => {
                eprintln!("error: {error}");
                ExitCode::FAILURE
            }
        },
        _ = tokio::signal::ctrl_c() => {
            say("Interrupted: everything that the demo started has stopped");
            ExitCode::from(130)
        }
    }
}

/// A file of the repository.
fn file(path: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).join(path)
}

/// The text of a file of the repository.
fn read(path: &str) -> Result<String, Error> {
    Ok(std::fs::read_to_string(file(path))?)
}

fn say(text: &str) {
    println!("\n==> {text}");
}

/// Prints the operator's events as they come, like `kubectl get events -w`.
async fn show_events(events: Api<Event>) {
    let mut changes = Box::pin(
        watcher(events, watcher::Config::default())
            .default_backoff()
            .applied_objects(),
    );
    while let Ok(Some(event)) = changes.try_next().await {
        if event
            .source
            .as_ref()
            .and_then(|source| source.component.as_deref())
            == Some("flagger")
        {
            let times = event
                .count
                .filter(|count| *count > 1)
                .map(|count| format!(" (x{count})"))
                .unwrap_or_default();
            println!(
                "           {:<8} {}{times}",
                event.type_.unwrap_or_default(),
                event.message.unwrap_or_default()
            );
        }
    }
}

/// The phases and weights of a canary release that succeeds.
const CANARY: [&str; 9] = [
    "Progressing 0",
    "Progressing 10",
    "Progressing 20",
    "Progressing 30",
    "Progressing 40",
    "Progressing 50",
    "Promoting 50",
    "Finalising 0",
    "Succeeded 0",
];
