//! The subcommands of `testbed` with a running cell.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
    time::Duration,
};

use testbed::{folder::Folder, programs, wait::until};

use crate::rig::processes;

const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_cell_can_be_inspected_and_leaves_nothing_behind() {
    let program = programs::build(&["testbed"]).unwrap().join("testbed");
    let folder = Folder::new().unwrap();
    let run = |args: &[&str]| {
        let mut command = Command::new(&program);
        command.args(args).env("TMPDIR", folder.path());
        command.output().unwrap()
    };
    let output = good(run(&["up"]));
    assert!(output.contains("export KUBECONFIG="), "{output}");
    assert!(bad(run(&["up"])).contains("a cell is up already"));

    let status = good(run(&["status"]));
    let pods = status.split_whitespace();
    let pod = pods.filter_map(|word| word.strip_prefix("pod/"));
    let pod = pod.into_iter().find(|pod| pod.starts_with("istiod-"));
    let pod = format!("istio-system/{}", pod.unwrap());
    let hostname = good(run(&["exec", &pod, "--", "hostname"]));
    assert!(pod.ends_with(hostname.trim()), "{hostname}");
    let code = run(&["exec", "node", "--", "sh", "-c", "exit 3"]).status;
    assert_eq!(code.code(), Some(3));
    assert!(good(run(&["logs", &pod])).contains("==> discovery"));
    let similar = bad(run(&["logs", "istio-system/istiod"]));
    assert!(similar.contains(&pod), "{similar}");

    good(run(&["down"]));
    gone(folder.path()).await;
    assert!(bad(run(&["down"])).contains("no cell is up"));

    good(run(&["up"]));
    let cell = fs::read_dir(folder.path()).unwrap().next().unwrap();
    let server = fs::read_to_string(cell.unwrap().path().join("server.pid")).unwrap();
    let killed = Command::new("kill").args(["-KILL", &server]).status();
    assert!(killed.unwrap().success());
    gone(folder.path()).await;
}

/// Waits until this folder is empty, and no process names it.
async fn gone(folder: &Path) {
    until(PATIENCE, "the folder to be empty", async || {
        let files = fs::read_dir(folder).unwrap().count();
        let processes = processes(folder);
        // One process is the guard of the folder itself.
        if files == 0 && processes.len() <= 1 {
            return Ok(());
        }
        Err(format!("{files} files, {processes:?}"))
    })
    .await
    .unwrap();
}

/// The output of a command that must succeed.
fn good(output: Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// The error output of a command that must fail.
fn bad(output: Output) -> String {
    assert!(!output.status.success());
    String::from_utf8(output.stderr).unwrap()
}
