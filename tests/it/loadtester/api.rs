//! Checks that each endpoint answers as in Flagger's load tester.

use std::os::unix::fs::symlink;

use super::*;

#[tokio::test]
async fn the_simple_endpoints_answer_any_method_and_any_body() {
    let tester = Tester::start(&[]).await;
    for method in [Method::GET, Method::POST, Method::PUT] {
        for (path, status, body) in [
            ("/healthz", 200, "OK"),
            ("/gate/approve", 200, "OK"),
            ("/gate/halt", 403, "Forbidden"),
        ] {
            let answer = tester
                .send(method.clone(), path, "no JSON".to_owned())
                .await;
            assert_eq!(answer, (status, body.to_owned()), "{method} {path}");
        }
    }
    let (status, metrics) = tester.send(Method::GET, "/metrics", String::new()).await;
    assert_eq!(status, 200);
    assert!(
        metrics.contains("flagger_rs_loadtester_tasks_running 0\n"),
        "{metrics}"
    );
}

#[tokio::test]
async fn the_gates_of_each_canary_are_closed_until_they_are_opened() {
    let mut tester = Tester::start(&[]).await;
    let podinfo = json!({"name": "podinfo", "namespace": "test"});
    let other = json!({"name": "podinfo", "namespace": "prod"});
    for (path, canary, status, body, logged) in [
        (
            "/gate/check",
            &podinfo,
            403,
            "Forbidden",
            "podinfo.test gate check: approved false",
        ),
        ("/gate/open", &podinfo, 202, "", "podinfo.test gate opened"),
        (
            "/gate/check",
            &podinfo,
            200,
            "Approved",
            "podinfo.test gate check: approved true",
        ),
        (
            "/gate/check",
            &other,
            403,
            "Forbidden",
            "podinfo.prod gate check: approved false",
        ),
        (
            "/rollback/check",
            &podinfo,
            403,
            "Forbidden",
            "rollback.podinfo.test rollback check: approved false",
        ),
        (
            "/rollback/open",
            &podinfo,
            202,
            "",
            "rollback.podinfo.test rollback opened",
        ),
        ("/gate/close", &podinfo, 202, "", "podinfo.test gate closed"),
        (
            "/gate/check",
            &podinfo,
            403,
            "Forbidden",
            "podinfo.test gate check: approved false",
        ),
        (
            "/rollback/check",
            &podinfo,
            200,
            "Approved",
            "rollback.podinfo.test rollback check: approved true",
        ),
        (
            "/rollback/close",
            &podinfo,
            202,
            "",
            "rollback.podinfo.test rollback closed",
        ),
        (
            "/rollback/check",
            &podinfo,
            403,
            "Forbidden",
            "rollback.podinfo.test rollback check: approved false",
        ),
    ] {
        assert_eq!(
            tester.post(path, canary.clone()).await,
            (status, body.to_owned()),
            "{path}"
        );
        tester.logs(logged).await;
    }
}

#[tokio::test]
async fn a_check_is_answered_after_its_end_with_its_result() {
    let tester = Tester::start(&[]).await;
    for (metadata, status, body) in [
        (
            json!({"type": "bash", "cmd": "echo some-output-not-to-be-returned"}),
            200,
            "",
        ),
        (
            json!({"type": "bash", "cmd": "echo some-output-to-be-returned", "returnCmdOutput": "true"}),
            200,
            "some-output-to-be-returned\n",
        ),
        (
            json!({"type": "bash", "cmd": "echo hi; echo ho >&2", "returnCmdOutput": "T"}),
            200,
            "hi\nho\n",
        ),
        (
            json!({"type": "bash", "cmd": "echo hi", "returnCmdOutput": "yes"}),
            200,
            "",
        ),
        (json!({"type": "bash"}), 200, ""),
        (
            json!({"type": "bash", "cmd": "false"}),
            500,
            "command false failed: : exit status 1",
        ),
        (
            json!({"type": "bash", "cmd": "echo no; exit 3"}),
            500,
            "command echo no; exit 3 failed: no\n: exit status 3",
        ),
        (
            json!({"type": "bash", "cmd": "kill $$"}),
            500,
            "command kill $$ failed: : signal: terminated",
        ),
        (
            json!({"type": "bash", "cmd": "kill -USR1 $$"}),
            500,
            "command kill -USR1 $$ failed: : signal: user defined signal 1",
        ),
        (
            json!({"type": "k6", "cmd": "true"}),
            400,
            "unknown task type k6",
        ),
        (json!({"type": "cmd"}), 400, "cmd not found in metadata"),
        (
            json!({"type": "concord"}),
            500,
            "`server` is required with type concord",
        ),
        (
            json!({"type": "ngrinder"}),
            400,
            "server, clone, username and passwd are required metadata",
        ),
        (json!({}), 400, "metadata not found in payload"),
        (json!(null), 400, "metadata not found in payload"),
    ] {
        assert_eq!(
            tester.hook(metadata.clone()).await,
            (status, body.to_owned()),
            "{metadata}"
        );
    }
    let (_, metrics) = tester.send(Method::GET, "/metrics", String::new()).await;
    for line in [
        "_running 0\n",
        "_total{outcome=\"finished\"} 5\n",
        "_total{outcome=\"failed\"} 4\n",
    ] {
        let line = format!("flagger_rs_loadtester_tasks{line}");
        assert!(metrics.contains(&line), "{line} {metrics}");
    }
}

#[tokio::test]
async fn a_command_that_reads_its_input_finds_it_empty() {
    let tester = Tester::start(&["-timeout=20s"]).await;
    let task = json!({"type": "bash", "cmd": "cat", "returnCmdOutput": "true"});
    assert_eq!(tester.hook(task).await, (200, String::new()));
}

#[tokio::test]
async fn a_load_test_is_accepted_at_once_and_not_run_twice_at_the_same_time() {
    let mut tester = Tester::start(&[]).await;
    let (go, ran) = (tester.path("go"), tester.path("ran"));
    let command = format!(
        "until [ -e {} ]; do sleep 0.02; done; echo ran | tee -a {}",
        go.display(),
        ran.display()
    );
    let task = json!({"cmd": command, "logCmdOutput": "true"});
    let accepted = (202, String::new());

    assert_eq!(tester.hook(task.clone()).await, accepted);
    tester.logs(&format!("task starting {command}")).await;
    for _ in 0..2 {
        assert_eq!(tester.hook(task.clone()).await, accepted);
        tester
            .logs(&format!("command skipped {command} is already running"))
            .await;
    }
    // Another canary has a task of its own. (`src/loadtester/shell/runner.rs` tests the same command for two canaries.)
    let other = json!({"name": "other", "namespace": "test", "metadata": {"cmd": "true"}});
    assert_eq!(tester.post("/", other).await, accepted);
    assert_eq!(
        tester.will_log("command finished true").await["canary"],
        "other.test"
    );

    std::fs::write(&go, "").unwrap();
    tester.logs("ran\n").await;
    tester.logs(&format!("command finished {command}")).await;
    // The log line may come before the task is over. The task is over as soon as it can be started again.
    eventually(async || {
        tester.hook(task.clone()).await;
        let text = std::fs::read_to_string(&ran).unwrap();
        (text == "ran\nran\n").then_some(())
    })
    .await;

    assert_eq!(
        tester.hook(json!({"cmd": "echo oh; exit 2"})).await,
        accepted
    );
    tester
        .will_log("command failed echo oh; exit 2 exit status 2 oh")
        .await;
}

#[tokio::test]
async fn helm_and_kubectl_are_called_without_a_shell() {
    let folder = Folder::new().unwrap();
    // A script that prints its arguments stands in for both.
    let shown = folder.path().join("kubectl");
    std::fs::write(
        &shown,
        "#!/bin/sh\nfor word; do echo \"$word\"; done\n[ \"$1\" != fail ]\n",
    )
    .unwrap();
    std::fs::set_permissions(&shown, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let path = folder.path().display().to_string();
    let mut tester = Tester::with(folder, &[], &[("PATH", &path)]).await;

    let ask = |kind: &str, cmd: &str| json!({"type": kind, "cmd": cmd, "returnCmdOutput": "true"});
    let (status, answer) = tester.hook(ask("kubectl", " get  'a b' $HOME;\n")).await;
    assert_eq!((status, answer.as_str()), (200, "get\n'a\nb'\n$HOME;\n"));
    tester.will_log("command finished kubectl  get").await;
    let (status, answer) = tester.hook(ask("kubectl", "fail")).await;
    assert_eq!(
        (status, answer.as_str()),
        (500, "command fail failed: fail\n: exit status 1")
    );

    for kind in ["helm", "helmv3"] {
        let (status, answer) = tester.hook(ask(kind, "test podinfo")).await;
        let missing =
            "command test podinfo failed: : exec: \"helm\": executable file not found in $PATH";
        assert_eq!((status, answer.as_str()), (500, missing));
    }
    symlink(&shown, tester.path("helm")).unwrap();
    for kind in ["helm", "helmv3"] {
        let (status, answer) = tester.hook(ask(kind, "test podinfo")).await;
        assert_eq!((status, answer.as_str()), (200, "test\npodinfo\n"));
    }
}

#[tokio::test]
async fn an_answer_without_a_body_has_no_type_of_one() {
    let tester = Tester::start(&[]).await;
    for (cmd, expected) in [("true", None), ("false", Some("text/plain; charset=utf-8"))] {
        let call = tester.client.post(tester.url("/"));
        let task = payload(json!({"type": "bash", "cmd": cmd}));
        let answer = call.body(task.to_string()).send().await.unwrap();
        let kind = answer.headers().get("content-type");
        assert_eq!(kind.map(|kind| kind.to_str().unwrap()), expected, "{cmd}");
    }
}

#[tokio::test]
async fn both_programs_send_probes_under_the_name_wget() {
    let tester = Tester::start(&[]).await;
    let programs = [
        env!("CARGO_BIN_EXE_loadtester"),
        env!("CARGO_BIN_EXE_flagger"),
    ];
    for (n, program) in programs.into_iter().enumerate() {
        let wget = tester.path(&format!("{n}-wget"));
        symlink(program, &wget).unwrap();
        for (path, code) in [("/healthz", 0), ("/gate/halt", 1)] {
            let mut probe = Command::new(&wget);
            probe.args(["--quiet", "--tries=1", "--timeout=4", "--spider"]);
            let ended = probe.arg(tester.url(path)).status().await.unwrap();
            assert_eq!(ended.code(), Some(code), "{program} {path}");
        }
    }
}
