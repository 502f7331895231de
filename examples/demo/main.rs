//! The user's walkthrough, run and watched on a real control plane of this machine: `cargo run --example demo`.
//!
//! Installs the operator with `kubectl apply -k kustomize/istio`, runs it under its ServiceAccount's rights, plays a release, a
//! rollback, blue/green and alerts with the manifests of `examples/walkthrough` (with an interval of ten seconds), and compares what was
//! seen with what was expected. Exit code 0 only if all is as expected. With `--mesh`, the same with real traffic.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    reason = "an example shows, and ends where something is wrong"
)]

mod bed;
mod mesh;

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
use serde_json::json;

use bed::{PARTS, Part};

const PATIENCE: Duration = Duration::from_secs(300);
type Problem = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let given = |name: &str| args.iter().any(|arg| arg == name);
    let (keep, mesh) = (given("--keep"), given("--mesh"));
    let only = args
        .iter()
        .position(|arg| arg == "--only")
        .and_then(|i| args.get(i + 1));
    let parts: Vec<Part> = PARTS
        .iter()
        .filter(|(name, _)| only.is_none_or(|only| only == name))
        .map(|(_, part)| *part)
        .collect();
    let known = ["--keep", "--mesh", "--only"];
    let unknown = args
        .iter()
        .any(|arg| arg.starts_with('-') && !known.contains(&arg.as_str()));
    if parts.is_empty() || unknown || mesh && given("--only") {
        eprintln!(
            "usage: demo [--only canary|rollback|blue-green|alerts] [--keep]\n       demo --mesh [--keep]"
        );
        return ExitCode::from(2);
    }
    let play = async {
        if mesh {
            mesh::play(keep).await
        } else {
            bed::play(&parts, keep).await
        }
    };
    tokio::select! {
        result = play => match result {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(problem) => {
                eprintln!("error: {problem}");
                ExitCode::FAILURE
            }
        },
        _ = tokio::signal::ctrl_c() => {
            say("Interrupted: nothing of it runs any more");
            ExitCode::from(130)
        }
    }
}

fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn say(text: &str) {
    println!("\n==> {text}");
}

/// One thing expected, and what was seen.
type Row = (String, String, String);

/// `kubectl get events -w`, of the operator's.
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

fn row(what: &str, expected: &str, seen: &str) -> Row {
    (what.to_owned(), expected.to_owned(), seen.to_owned())
}

fn print_report(rows: &[Row]) {
    say("Expected against seen");
    for (what, expected, seen) in rows {
        if expected == seen {
            println!("  ok     {what}");
        } else {
            println!(
                "  DIFFERS  {what}\n    expected\n      {}\n    seen\n      {}",
                expected.replace('\n', "\n      "),
                seen.replace('\n', "\n      ")
            );
        }
    }
    let good = rows.iter().filter(|row| row.1 == row.2).count();
    println!("{}", json!({"expected": rows.len(), "as_expected": good}));
}

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
