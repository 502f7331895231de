//! Checks that the load tester limits endless commands, outputs and calls, and that no process in the process group of a command outlives
//! it.

use std::os::unix::process::ExitStatusExt;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::*;

/// A shell command that starts a child, writes its process id to a file, and waits for it.
fn waiting(file: &Path) -> String {
    format!("sleep 1000 & echo $! > {}; wait; true", file.display())
}

#[tokio::test]
async fn a_command_that_never_ends_is_killed_with_all_its_children() {
    let mut tester = Tester::start(&["-timeout=1s"]).await;
    let file = tester.path("pid");
    let command = waiting(&file);
    let (status, body) = tester.hook(json!({"type": "bash", "cmd": command})).await;
    let why = "signal: killed (it ran longer than -timeout=1s allows)";
    assert_eq!(
        (status, body),
        (500, format!("command {command} failed: : {why}"))
    );
    gone(&line(&file).await).await;

    // The output until then is returned, and the background processes are killed too.
    let command = "echo begun; exec sleep 1000";
    assert_eq!(tester.hook(json!({"cmd": command})).await.0, 202);
    tester
        .will_log(&format!("command failed {command} {why} begun"))
        .await;
}

#[tokio::test]
async fn a_long_output_is_read_to_its_end_and_returned_in_part() {
    let tester = Tester::start(&[]).await;
    let flood = "head -c 3000000 /dev/zero | tr '\\0' x";
    let (status, body) = tester
        .hook(json!({"type": "bash", "cmd": flood, "returnCmdOutput": "true"}))
        .await;
    assert_eq!(status, 200);
    let left_out = 3_000_000 - (1 << 20);
    let expected = format!(
        "{}\n[{left_out} bytes more were left out]",
        "x".repeat(1 << 20)
    );
    assert!(body == expected, "{} bytes", body.len());
    let (status, body) = tester
        .hook(json!({"type": "bash", "cmd": format!("{flood}; false")}))
        .await;
    assert_eq!(status, 500);
    assert!(body.ends_with("bytes more were left out]: exit status 1") && body.len() < 1_100_000);
}

#[tokio::test]
async fn an_endless_output_delays_no_other_call() {
    let tester = Tester::start(&["-timeout=3s"]).await;
    let flood = tester.hook_in_background(json!({"type": "bash", "cmd": "yes"}));
    let (status, body) = tester
        .hook(json!({"type": "bash", "cmd": "echo hi", "returnCmdOutput": "1"}))
        .await;
    assert_eq!((status, body.as_str()), (200, "hi\n"));
    assert_eq!(
        tester.send(Method::GET, "/healthz", String::new()).await.0,
        200
    );
    let (status, body) = flood.await.unwrap();
    assert_eq!(status, 500);
    assert!(body.ends_with("-timeout=3s allows)") && body.len() < 1_100_000);
}

#[tokio::test]
async fn a_command_that_does_not_exist_is_named() {
    let tester = Tester::start(&[]).await;
    let (status, body) = tester
        .hook(json!({"type": "bash", "cmd": "no-such-command"}))
        .await;
    assert_eq!(status, 500);
    assert!(
        body.contains("no-such-command: command not found\n: exit status 127"),
        "{body}"
    );
    let nul = tester.hook(json!({"type": "bash", "cmd": "echo \0"})).await;
    assert_eq!(nul.0, 500);
    assert!(nul.1.contains("exec: \"bash\": "), "{}", nul.1);
}

#[tokio::test]
async fn a_hook_that_is_called_twice_at_once_is_answered_twice() {
    let tester = Tester::start(&[]).await;
    // Each command waits for the other, so both must run at the same time, as in Flagger.
    let met = tester.path("met");
    let command = format!(
        "echo >> {0}; until [ $(wc -l < {0}) = 2 ]; do sleep 0.02; done",
        met.display()
    );
    let task = json!({"type": "bash", "cmd": command});
    let calls = [
        tester.hook_in_background(task.clone()),
        tester.hook_in_background(task),
    ];
    for call in calls {
        assert_eq!(
            timeout(PATIENCE, call).await.unwrap().unwrap(),
            (200, String::new())
        );
    }
}

#[tokio::test]
async fn too_many_commands_at_the_same_time_are_refused_with_a_retry() {
    let mut tester = Tester::start(&["-concurrency=2"]).await;
    let file = tester.path("pid");
    assert_eq!(tester.hook(json!({"cmd": waiting(&file)})).await.0, 202);
    line(&file).await;
    let go = tester.path("go");
    let command = format!("until [ -e {} ]; do sleep 0.02; done", go.display());
    let waited = tester.hook_in_background(json!({"type": "bash", "cmd": command}));
    tester.will_log("running command until").await;

    for task in [
        json!({"cmd": "true"}),
        json!({"type": "bash", "cmd": "true"}),
    ] {
        let (status, body) = tester.hook(task).await;
        assert_eq!(status, 429);
        assert!(
            body.starts_with("2 tasks run already, as many as -concurrency allows"),
            "{body}"
        );
    }
    // A second call for a running task does not count against the limit.
    assert_eq!(tester.hook(json!({"cmd": waiting(&file)})).await.0, 202);
    let (_, metrics) = tester.send(Method::GET, "/metrics", String::new()).await;
    for line in [
        "_running 2\n",
        "_total{outcome=\"refused\"} 2\n",
        "_total{outcome=\"skipped\"} 1\n",
    ] {
        assert!(
            metrics.contains(&format!("flagger_rs_loadtester_tasks{line}")),
            "{metrics}"
        );
    }
    std::fs::write(go, "").unwrap();
    assert_eq!(waited.await.unwrap().0, 200);
    assert_eq!(
        tester.hook(json!({"type": "bash", "cmd": "true"})).await.0,
        200
    );
}

#[tokio::test]
async fn a_caller_that_disconnects_does_not_end_its_command() {
    let tester = Tester::start(&[]).await;
    let (begun, go, ended) = (
        tester.path("begun"),
        tester.path("go"),
        tester.path("ended"),
    );
    let command = format!(
        "echo > {}; until [ -e {} ]; do sleep 0.02; done; echo yes > {}",
        begun.display(),
        go.display(),
        ended.display()
    );
    let caller = tester.hook_in_background(json!({"type": "bash", "cmd": command}));
    line(&begun).await;
    caller.abort();
    assert!(caller.await.is_err());
    std::fs::write(go, "").unwrap();
    assert_eq!(line(&ended).await, "yes");
}

#[tokio::test]
async fn a_body_that_is_no_webhook_is_refused_with_the_reason() {
    let tester = Tester::start(&[]).await;
    let deep = format!(
        "{{\"metadata\":{}{}}}",
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    let large = format!("{{\"metadata\":{{\"cmd\":\"{}\"}}}}", "x".repeat(2 << 20));
    for path in ["/", "/gate/check", "/gate/open", "/rollback/close"] {
        for (body, status, why) in [
            (
                "cmd=hey",
                400,
                "the body is not the JSON of a webhook: expected value at line 1 column 1",
            ),
            (
                "",
                400,
                "the body is not the JSON of a webhook: EOF while parsing a value",
            ),
            (
                r#"{"metadata":{"cmd":1}}"#,
                400,
                "metadata.cmd must be a string",
            ),
            (&deep, 400, "recursion limit exceeded"),
            (&large, 413, "the body is longer than 1048576 bytes"),
        ] {
            let (answered, body) = tester.send(Method::POST, path, body.to_owned()).await;
            assert_eq!(answered, status, "{path} {body}");
            assert!(body.contains(why), "{path} {body}");
        }
    }
}

#[tokio::test]
async fn at_shutdown_load_stops_and_waiting_callers_are_answered() {
    let mut tester = Tester::start(&[]).await;
    let file = tester.path("load");
    assert_eq!(tester.hook(json!({"cmd": waiting(&file)})).await.0, 202);
    let load = line(&file).await;
    // This command has ended, but left a background process without output.
    let file = tester.path("left");
    let command = format!("sleep 1000 > /dev/null 2>&1 & echo $! > {}", file.display());
    assert_eq!(
        tester.hook(json!({"type": "bash", "cmd": command})).await.0,
        200
    );
    let left = line(&file).await;
    assert!(runs(&left), "it outlives its command, as in Flagger");
    let go = tester.path("go");
    let command = format!(
        "until [ -e {} ]; do sleep 0.02; done; echo done",
        go.display()
    );
    let waited =
        tester.hook_in_background(json!({"type": "bash", "cmd": command, "returnCmdOutput": "1"}));
    tester.will_log("running command until").await;

    tester.terminate();
    gone(&load).await;
    std::fs::write(go, "").unwrap();
    assert_eq!(waited.await.unwrap(), (200, "done\n".to_owned()));
    let status = tester.ended().await;
    assert_eq!((status.code(), status.signal()), (Some(0), None));
    gone(&left).await;
}

/// As in a container, the load tester is process 1. It must reap processes without a parent before they fill the process table.
#[tokio::test]
#[cfg_attr(not(feature = "mesh"), ignore = "needs namespaces of its own")]
async fn as_process_1_it_reaps_the_processes_that_commands_leave_behind() {
    let mut first = Command::new("unshare");
    first
        .args([
            "--user",
            "--map-root-user",
            "--pid",
            "--fork",
            "--mount-proc",
            "--kill-child",
        ])
        .arg(env!("CARGO_BIN_EXE_loadtester"))
        .kill_on_drop(true);
    let mut tester = Tester::run(first, Folder::new().unwrap(), &[]).await;
    let children = |pid: &str| {
        let list = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let list = list.unwrap_or_default();
        list.split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let init = children(&tester.child.id().unwrap().to_string()).remove(0);
    let [program] = children(&init).try_into().unwrap();

    let left = json!({"type": "bash", "cmd": "sleep 0.1 > /dev/null 2>&1 & true"});
    assert_eq!(tester.hook(left).await.0, 200);
    eventually(async || (children(&init) == [program.clone()]).then_some(())).await;

    let killed = std::process::Command::new("kill")
        .args(["-TERM", &init])
        .status();
    assert!(killed.unwrap().success());
    assert_eq!(tester.ended().await.code(), Some(0));
    gone(&program).await;
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once_and_kills_the_groups_of_its_commands() {
    let mut tester = Tester::start(&[]).await;
    let file = tester.path("pid");
    let waited = tester.client.post(tester.url("/"));
    let waited = waited.body(payload(json!({"type": "bash", "cmd": waiting(&file)})).to_string());
    let waited = tokio::spawn(waited.send());
    let pid = line(&file).await;
    // This caller never finishes its call.
    let mut slow = TcpStream::connect(("127.0.0.1", tester.port))
        .await
        .unwrap();
    slow.write_all(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n{")
        .await
        .unwrap();

    tester.terminate();
    tester.will_log("shutting down the task runner").await;
    assert!(runs(&pid), "who waits may wait on");
    tester.terminate();
    assert_eq!(tester.ended().await.code(), Some(0));
    gone(&pid).await;
    // The answer says that its command was killed, or the connection is closed.
    drop(waited.await.unwrap());
    let _ = slow.read(&mut [0; 64]).await;
}
