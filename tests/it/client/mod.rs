//! The command line as a process, with an API server that tests control. `cluster/client.rs` uses a real API server.
//!
//! | question | file |
//! | --- | --- |
//! | what does a person see in a terminal? | `terminal.rs` is the terminal |
//! | what does a script see? | this file |
//! | what does the API server answer? | `api_server.rs` |
//! | what do the visitors of a dashboard see and do? | `dashboard.rs`, with the users of `many_users.rs` |

mod api_server;
mod dashboard;
mod many_users;
mod terminal;

use std::{
    io::{BufRead, BufReader},
    os::unix::fs::symlink,
    process::{Command, Output, Stdio},
};

use serde_json::{Value, json};
use testbed::folder::Folder;

use api_server::ApiServer;
use terminal::Terminal;

fn command(server: &ApiServer, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flagger"));
    command
        .args(args)
        .args(["--kubeconfig", &server.kubeconfig()]);
    command.env("TERM", "xterm-256color").env_remove("NO_COLOR");
    command
}

fn status(phase: &str, weight: i64) -> Value {
    let now = jiff::Timestamp::now().to_string();
    json!({"phase": phase, "canaryWeight": weight, "failedChecks": 0, "iterations": 0, "lastAppliedSpec": "v1-b",
        "lastPromotedSpec": "v1-a", "lastTransitionTime": now})
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_redraws_in_place_and_ends_with_the_run() {
    let server = ApiServer::start(status("Progressing", 10)).await;
    let mut terminal = Terminal::start(command(&server, &["watch", "podinfo"]), 80, 24);
    terminal.shows("step 1 of 5");
    terminal.until("the alternate screen", |screen| {
        screen.alternate_screen() && screen.hide_cursor()
    });
    assert!(!terminal.echoes());
    let cleared = terminal.count("\u{1b}[2J");
    server.set(status("Progressing", 20));
    let shown = terminal.shows("step 2 of 5");
    assert!(shown.contains("✓10 ▶20 ·30"), "{shown}");
    assert!(
        shown.lines().all(|line| line.chars().count() <= 80),
        "{shown}"
    );
    // The screen was never cleared, so it did not flicker.
    assert_eq!(terminal.count("\u{1b}[2J"), cleared);
    assert!(
        terminal.count("\u{1b}[33m") + terminal.count("\u{1b}[1m") > 0,
        "colors"
    );

    let long = "a reason of many words, which needs more than one line of a narrow terminal, but only one of a wide one.";
    let mut verdict = status("Progressing", 20);
    verdict["conditions"] =
        json!([{"type": "Verdict", "status": "True", "reason": "Hook", "message": long}]);
    server.set(verdict);
    terminal.until("two lines", |screen| {
        let contents = screen.contents();
        contents.contains("a reason of many words")
            && contents.contains("only one of a wide one.")
            && !contents.contains(long)
    });
    terminal.resize(200, 24);
    terminal.until("one line", |screen| screen.contents().contains(long));
    terminal.resize(80, 6);
    terminal.shows("more lines");
    terminal.resize(80, 24);

    server.set(status("Promoting", 20));
    terminal.shows("Promoting");
    let mut promoted = status("Succeeded", 0);
    promoted["lastPromotedSpec"] = json!("v1-b");
    server.set(promoted);
    assert_eq!(terminal.end().code(), Some(0));
    terminal.until("the screen from before", |screen| {
        !screen.alternate_screen() && !screen.hide_cursor()
    });
    assert!(terminal.echoes());
    let left = terminal.shows("Promoted");
    assert!(left.contains("test/podinfo"), "{left}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupt_gives_the_terminal_back() {
    let server = ApiServer::start(status("Progressing", 10)).await;
    for signal in ["INT", "TERM", "HUP", "QUIT"] {
        let mut terminal = Terminal::start(command(&server, &["get", "podinfo", "-w"]), 200, 50);
        terminal.shows("step 1 of 5");
        assert!(!terminal.echoes());
        terminal.signal(signal);
        assert_eq!(terminal.end().code(), Some(3), "{signal}");
        terminal.until("the screen from before", |screen| {
            !screen.alternate_screen() && !screen.hide_cursor()
        });
        assert!(terminal.echoes(), "{signal}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_that_is_read_by_a_script_prints_one_line_for_each_change() {
    let server = ApiServer::start(status("Progressing", 10)).await;
    let mut watch = command(&server, &["watch", "podinfo"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut next = || lines.next().map(Result::unwrap);
    assert!(next().unwrap().ends_with("test/podinfo  Progressing step 1/5 weight 10  The version is analysed: 10 % of the traffic."));
    server.set(status("Progressing", 20));
    assert!(next().unwrap().contains("weight 20"));
    server.set(status("Failed", 0));
    let last = next().unwrap();
    assert!(
        last.contains("Failed") && !last.contains('\u{1b}'),
        "{last}"
    );
    assert_eq!(next(), None);
    assert_eq!(watch.wait().unwrap().code(), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn colors_are_used_in_a_terminal_that_has_them_and_on_request() {
    let server = ApiServer::start(status("Failed", 0)).await;
    let colored = |args: &[&str], variable: Option<(&str, &str)>| {
        let mut command = command(&server, &[&["get", "podinfo"], args].concat());
        command.envs(variable);
        let mut terminal = Terminal::start(command, 80, 24);
        terminal.shows("Next");
        assert!(terminal.end().success());
        terminal.count("\u{1b}[31m") > 0
    };
    assert!(colored(&[], None));
    assert!(!colored(&[], Some(("NO_COLOR", "1"))));
    assert!(!colored(&[], Some(("TERM", "dumb"))));
    assert!(!colored(&["--color", "never"], None));
    assert!(colored(&["--color=always"], Some(("NO_COLOR", "1"))));
    let piped = command(&server, &["get", "podinfo"]).output().unwrap();
    assert!(!text(&piped.stdout).contains('\u{1b}'));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_that_is_waited_for_ends_with_the_code_of_its_answer() {
    let server = ApiServer::start(status("Progressing", 10)).await;
    let run = |args: &[&str]| {
        command(&server, &[&["status", "podinfo"], args].concat())
            .output()
            .unwrap()
    };
    let Output {
        status: code,
        stdout,
        ..
    } = run(&[]);
    assert_eq!(code.code(), Some(3), "a look at a run that goes on");
    assert_eq!(
        text(&stdout),
        "test/podinfo: Progressing: The version is analysed: 10 % of the traffic.\n"
    );
    let mut waiting = command(&server, &["status", "podinfo", "--until", "promoted"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // This person may not read the target, so the command can only wait for the end of a run that it has observed.
    let mut remarks = BufReader::new(waiting.stderr.take().unwrap()).lines();
    remarks.next().unwrap().unwrap();
    let mut promoted = status("Succeeded", 0);
    promoted["lastPromotedSpec"] = json!("v1-b");
    server.set(promoted);
    let Output {
        status: code,
        stdout,
        ..
    } = waiting.wait_with_output().unwrap();
    assert_eq!(
        (code.code(), text(&stdout)),
        (
            Some(0),
            "test/podinfo: Promoted: The last version was promoted.\n"
        )
    );
    server.set(status("WaitingPromotion", 50));
    let waits = run(&["--until", "promoted", "--timeout", "1s"]);
    assert_eq!(waits.status.code(), Some(4));
    assert!(
        text(&waits.stderr).contains(&format!(
            "next: flagger --kubeconfig {} -n test resume podinfo",
            server.kubeconfig()
        )),
        "{}",
        text(&waits.stderr)
    );
    assert_eq!(run(&["--until", "paused"]).status.code(), Some(0));
    server.set(status("Failed", 0));
    for (args, expected) in [
        (&["--until", "failed", "--revision", "v1-b"][..], 0),
        (&["--timeout", "5m", "--revision", "v1-b"], 1),
        // Without the right to read the target, this may be the failure of the version before.
        (&["--until", "failed"], 6),
        (&["--revision", "v1-old"], 5),
        (&["--image", "a:1"], 6),
    ] {
        assert_eq!(run(args).status.code(), Some(expected), "{args:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_done_is_explained_with_the_command_to_type_next() {
    let server = ApiServer::start(status("Failed", 0)).await;
    let folder = Folder::new().unwrap();
    let (broken, dead) = (folder.path().join("broken"), folder.path().join("dead"));
    std::fs::write(&broken, "clusters: 7").unwrap();
    let nobody = json!({"apiVersion": "v1", "kind": "Config", "current-context": "c", "users": [],
        "contexts": [{"name": "c", "context": {"cluster": "c"}}], "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}]});
    std::fs::write(&dead, nobody.to_string()).unwrap();
    let (good, broken, dead) = (
        server.kubeconfig(),
        broken.display().to_string(),
        dead.display().to_string(),
    );
    for (args, kubeconfig, code, expected) in [
        (
            &["get", "nobody"][..],
            &good,
            5,
            "canary test/nobody does not exist\nSee which there are: flagger --kubeconfig FILE list -A",
        ),
        (
            &["abort", "nobody", "--reason", "x"],
            &good,
            5,
            "canary test/nobody does not exist",
        ),
        (
            &["abort", "podinfo"],
            &good,
            2,
            "Try: flagger --kubeconfig FILE -n test abort podinfo --reason",
        ),
        (
            &["abort", "podinfo", "--reason", "x"],
            &good,
            6,
            "See what you may do: kubectl --kubeconfig FILE auth can-i --list -n test",
        ),
        (
            &["list", "-A"],
            &good,
            5,
            "flagger crds | kubectl --kubeconfig FILE apply",
        ),
        (
            &["list", "--context", "other"],
            &good,
            2,
            "Look at it: kubectl --context other --kubeconfig FILE config view",
        ),
        (&["list"], &broken, 2, "the kubeconfig cannot be used: "),
        (
            &["list"],
            &"/no/such/file".to_owned(),
            2,
            "the kubeconfig cannot be used: ",
        ),
        (
            &["get", "podinfo"],
            &dead,
            3,
            "See whether the API server answers: kubectl --kubeconfig FILE cluster-info",
        ),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flagger"));
        let Output {
            status,
            stdout,
            stderr,
        } = command
            .args(args)
            .args(["--kubeconfig", kubeconfig])
            .output()
            .unwrap();
        let stderr = text(&stderr).replace(kubeconfig, "FILE");
        assert_eq!(status.code(), Some(code), "{args:?} {stderr}");
        assert!(stderr.contains(expected), "{args:?} {stderr}");
        assert!(stdout.is_empty(), "{args:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_plugin_of_kubectl_is_the_same_program_and_completes_names() {
    let server = ApiServer::start(status("Failed", 0)).await;
    let folder = Folder::new().unwrap();
    let plugin = folder.path().join("kubectl-flagger");
    symlink(env!("CARGO_BIN_EXE_flagger"), &plugin).unwrap();
    let run = |args: &[&str]| {
        let output = Command::new(&plugin).args(args).output().unwrap();
        (
            output.status.code().unwrap(),
            text(&output.stdout).to_owned(),
            text(&output.stderr).to_owned(),
        )
    };
    let kubeconfig = format!("--kubeconfig={}", server.kubeconfig());
    let (code, listed, _) = run(&["-o", "name", "list"]);
    assert_eq!((code, listed.as_str()), (2, ""), "-o belongs to a verb");
    let (code, listed, _) = run(&[&kubeconfig, "ls", "-o", "name"]);
    assert_eq!((code, listed.as_str()), (0, "canary.flagger.app/podinfo\n"));
    let (code, _, stderr) = run(&[]);
    assert!(
        code == 2 && stderr.contains("Usage: kubectl flagger"),
        "{stderr}"
    );
    let (code, crds, _) = run(&["crds"]);
    assert!(code == 0 && crds.contains("kind: CustomResourceDefinition"));
    let (code, names, _) = run(&["__complete", &kubeconfig, "abort", ""]);
    assert_eq!((code, names.as_str()), (0, "podinfo\n:4\n"));
    let (_, verbs, _) = run(&["__complete", "ab"]);
    assert!(verbs.contains("abort\tReturns the traffic"), "{verbs}");
    let (_, script, _) = run(&["completion", "kubectl"]);
    assert!(
        script.starts_with("#!/bin/sh\n") && script.contains("__complete"),
        "{script}"
    );
}

#[test]
fn manifests_are_checked_without_a_cluster() {
    let examples = crate::files::path("examples/canaries")
        .display()
        .to_string();
    let run = |args: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_flagger"))
            .arg("lint")
            .args(args)
            .output()
            .unwrap()
    };
    let good = run(&["-f", &examples]);
    assert_eq!(good.status.code(), Some(0), "{}", text(&good.stdout));
    let folder = Folder::new().unwrap();
    let file = folder.path().join("canary.yaml");
    let canary =
        std::fs::read_to_string(crate::files::path("examples/canaries/gateway-api.yaml")).unwrap();
    std::fs::write(&file, canary.replace("stepWeight", "stepWeigth")).unwrap();
    let bad = run(&["-f", &folder.path().display().to_string(), "-o", "json"]);
    let report: Value = serde_json::from_slice(&bad.stdout).unwrap();
    assert_eq!(bad.status.code(), Some(1), "{report}");
    assert_eq!(
        report["findings"][0]["field"], "spec.analysis.stepWeigth",
        "{report}"
    );
    assert_eq!(run(&["-f", "/no/such/file"]).status.code(), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_records_of_releases_explain_them() {
    let mut now = status("Failed", 0);
    now["recorded"] = json!(true);
    let server = ApiServer::start(now.clone()).await;
    let run = |args: &[&str]| {
        let output = command(&server, args).output().unwrap();
        let stderr = text(&output.stderr).to_owned();
        (
            output.status.code().unwrap(),
            text(&output.stdout).to_owned(),
            stderr,
        )
    };
    let (code, history, _) = run(&["history", "podinfo"]);
    let rows: Vec<_> = history
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .collect();
    assert_eq!(code, 0);
    assert_eq!(
        rows[0],
        ["WHEN", "FROM", "TO", "RESULT", "TOOK", "BY", "RELEASE"]
    );
    assert_eq!(
        rows[1][2..],
        [
            "podinfo:2",
            "podinfo:3",
            "Failed",
            "5m",
            "argocd",
            "podinfo-2"
        ]
    );
    assert_eq!(rows[2][4], "Promoted");
    let (code, newest, _) = run(&["explain", "podinfo"]);
    assert!(code == 0 && newest.contains("Because of 3."), "{newest}");
    let (code, older, _) = run(&["explain", "podinfo", "--release", "podinfo-1", "-o", "json"]);
    let older: Value = serde_json::from_str(&older).unwrap();
    assert_eq!((code, &older["revision"]), (0, &json!("2")));
    let (code, _, stderr) = run(&["explain", "podinfo", "--release", "other"]);
    assert!(
        code == 5
            && stderr.contains(&format!(
                "kubectl --kubeconfig {} -n test get releases",
                server.kubeconfig()
            )),
        "{stderr}"
    );
    assert_eq!(run(&["history", "nobody"]).0, 5);

    now["recorded"] = json!(false);
    now["conditions"] = json!([{"type": "Verdict", "status": "True", "reason": "Hook", "message": "The hook said no."}]);
    server.set(now);
    let (code, without, stderr) = run(&["explain", "podinfo"]);
    assert_eq!((code, &*without), (0, "test/podinfo: The hook said no.\n"));
    assert!(stderr.contains("-release-history=0"), "{stderr}");
    server.set(status("Failed", 0));
    assert_eq!(run(&["explain", "podinfo"]).0, 6);
    assert_eq!(run(&["history", "podinfo"]).0, 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_pipe_ends_the_output_and_not_the_answer() {
    let server = ApiServer::start(status("Failed", 0)).await;
    let closed = |args: &[&str]| {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = command(&server, args);
        command.stdout(writer).status().unwrap().code()
    };
    let folder = Folder::new().unwrap();
    std::fs::write(folder.path().join("a.yaml"), "a: [").unwrap();
    let manifests = folder.path().display().to_string();
    for (args, expected) in [
        (&["lint", "-f", &manifests][..], 1),
        (&["status", "podinfo", "--revision", "v1-b"], 1),
        (&["watch", "podinfo"], 3),
        (&["get", "podinfo"], 0),
        (&["list"], 0),
    ] {
        assert_eq!(closed(args), Some(expected), "{args:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watched_list_prints_each_canary_once_and_then_its_changes() {
    let server = ApiServer::start(status("Progressing", 10)).await;
    let mut watch = command(&server, &["list", "-w", "--no-headers"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut next = || lines.next().unwrap().unwrap();
    let listed = next();
    server.set(status("Progressing", 20));
    let changed = next();
    watch.kill().unwrap();
    watch.wait().unwrap();
    assert!(listed.starts_with("podinfo"), "{listed}");
    assert!(changed.contains("weight 20"), "{changed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupt_is_heard_while_the_api_server_does_not_answer() {
    let server = ApiServer::start(status("Progressing", 10)).await;
    let mut watch = command(&server, &["watch", "podinfo"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    lines.next().unwrap().unwrap();
    let mut hangs = status("Progressing", 20);
    hangs["hangs"] = json!(true);
    server.set(hangs);
    server.hangs().await;
    let pid = watch.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-INT", &pid])
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(watch.wait().unwrap().code(), Some(3));
    // If the command waited for the answer, it would print the change before it handles the interrupt.
    assert!(lines.next().is_none());
}
