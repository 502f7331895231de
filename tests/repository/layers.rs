//! What the crate docs promise of the code's shape.

use std::{fs, path::Path};

use crate::cluster::folder;

fn sources(under: &str) -> Vec<(String, String)> {
    let mut files = Vec::new();
    let mut folders = vec![folder("src").join(under)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path
                    .strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src"))
                    .unwrap()
                    .display()
                    .to_string();
                files.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    files
}

/// Only the two shells, the operator's and the load tester's, touch the world: elsewhere no client, no clock, no environment, no `async`.
#[test]
fn only_the_shell_does_io() {
    let forbidden = [
        "async ",
        ".await",
        "tokio::",
        "reqwest::",
        "kube::Client",
        "kube::Api",
        "std::fs",
        "std::env",
        "std::net",
        "std::process",
        "Timestamp::now",
        "SystemTime",
        "Instant::now",
    ];
    for pure in [
        "api",
        "snapshot",
        "rollout",
        "workload",
        "routers",
        "metrics",
        "notifications",
        "check",
        "loadtester",
        "args.rs",
        "flags.rs",
    ] {
        let files = if pure.ends_with(".rs") {
            let path = folder("src").join(pure);
            vec![(pure.to_owned(), fs::read_to_string(path).unwrap())]
        } else {
            sources(pure)
        };
        let files = files
            .into_iter()
            .filter(|(name, _)| !name.starts_with("loadtester/shell/"));
        for (name, text) in files {
            for (number, line) in text
                .lines()
                .enumerate()
                .filter(|(_, line)| !line.trim_start().starts_with("//"))
            {
                for word in forbidden {
                    assert!(
                        !line.contains(word),
                        "src/{name}:{}: {word} belongs in the shell",
                        number + 1
                    );
                }
            }
        }
    }
}

/// Modules depend downward only: `api ← snapshot ← {workload, routers, metrics, notifications} ← rollout ← check ← shell ← loadtester`; and of the
/// last one, what is pure does not depend on what is not.
#[test]
fn modules_depend_downward() {
    let rank = |module: &str| match module {
        "api" => 0,
        "snapshot" => 1,
        "workload" | "routers" | "metrics" | "notifications" => 2,
        "rollout" => 3,
        "check" => 4,
        "shell" => 5,
        "loadtester" => 6,
        _ => 9,
    };
    let modules = [
        "api",
        "snapshot",
        "workload",
        "routers",
        "metrics",
        "notifications",
        "rollout",
        "check",
        "shell",
        "loadtester",
    ];
    for module in modules {
        for (name, text) in sources(module) {
            let is_pure = module == "loadtester" && !name.starts_with("loadtester/shell/");
            for used in modules {
                let uses = text.contains(&format!("crate::{used}::"))
                    || text.lines().any(|line| {
                        line.trim_start().starts_with(&format!("{used}::"))
                            && line.starts_with("    ")
                    });
                assert!(
                    !uses || rank(used) <= rank(module) && !(is_pure && used == "shell"),
                    "src/{name} uses {used}, which is above it"
                );
            }
        }
    }
}
