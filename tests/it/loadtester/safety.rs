//! Checks which calls the load tester refuses, and that gates keep their state after a restart.

use super::*;

#[tokio::test]
async fn a_call_that_names_another_namespace_is_refused() {
    let tester = Tester::start(&["-namespace-regexp=^(test|prod)$"]).await;
    let canary = |namespace: &str| json!({"name": "podinfo", "namespace": namespace, "metadata": {"type": "bash", "cmd": "true"}});
    for (path, namespace, status, body) in [
        ("/", "test", 200, ""),
        ("/", "testing", 403, "Forbidden"),
        ("/", "", 403, "Forbidden"),
        ("/gate/open", "prod", 202, ""),
        ("/gate/open", "dev", 403, "Forbidden"),
        ("/rollback/check", "dev", 403, "Forbidden"),
        // As in Flagger, these endpoints need no namespace.
        ("/gate/approve", "dev", 200, "OK"),
        ("/gate/halt", "dev", 403, "Forbidden"),
    ] {
        let answer = tester.post(path, canary(namespace)).await;
        assert_eq!(answer, (status, body.to_owned()), "{path} {namespace}");
    }
}

#[tokio::test]
async fn with_a_token_only_callers_that_send_it_are_served() {
    let folder = Folder::new().unwrap();
    let tester = Tester::with(folder, &[], &[("LOADTESTER_TOKEN", "hush")]).await;
    for path in ["/healthz", "/metrics"] {
        assert_eq!(
            tester.send(Method::GET, path, String::new()).await.0,
            200,
            "{path}"
        );
    }
    let task = payload(
        json!({"type": "bash", "cmd": "echo \"$LOADTESTER_TOKEN\"", "returnCmdOutput": "true"}),
    );
    for path in ["/", "/gate/open", "/gate/approve", "/rollback/check"] {
        let (status, body) = tester.post(path, task.clone()).await;
        assert_eq!(status, 401, "{path}");
        assert!(
            body.starts_with("Unauthorized: send `Authorization: Bearer TOKEN`"),
            "{body}"
        );
    }
    let port = tester.port;
    let call = tester
        .client
        .post(format!("http://flagger:hush@127.0.0.1:{port}/"));
    let with_url = call.body(task.to_string()).send().await.unwrap();
    let call = tester.client.post(tester.url("/")).bearer_auth("hush");
    let with_header = call.body(task.to_string()).send().await.unwrap();
    for answer in [with_url, with_header] {
        assert_eq!(answer.status(), 200);
        // The command does not get the token in its environment.
        assert_eq!(answer.text().await.unwrap(), "\n");
    }
    let call = tester.client.post(tester.url("/")).bearer_auth("hash");
    assert_eq!(call.send().await.unwrap().status(), 401);
}

#[tokio::test]
async fn only_allowed_commands_run_and_without_a_shell() {
    let tester = Tester::start(&["-allow=echo,sleep"]).await;
    let ask = |cmd: &str| json!({"type": "bash", "cmd": cmd, "returnCmdOutput": "true"});
    let (status, answer) = tester.hook(ask("echo '$HOME; ls' \"a  b\"")).await;
    assert_eq!((status, answer.as_str()), (200, "$HOME; ls a  b\n"));
    for (task, status, why) in [
        (
            ask("ls /"),
            403,
            "-allow does not name \"ls\", only echo, sleep",
        ),
        (
            ask("echo $HOME"),
            400,
            "`$` needs a shell, and with -allow there is none",
        ),
        (
            json!({"cmd": "hey http://podinfo/"}),
            403,
            "-allow does not name \"hey\"",
        ),
        (
            json!({"type": "helm", "cmd": "test"}),
            403,
            "-allow does not name \"helm\"",
        ),
    ] {
        let (answered, body) = tester.hook(task.clone()).await;
        assert_eq!(answered, status, "{task}");
        assert!(body.starts_with(why), "{body}");
    }
    let load = tester.hook(json!({"cmd": "sleep 0"})).await;
    assert_eq!(load, (202, String::new()));
}

#[tokio::test]
async fn an_open_gate_is_open_after_a_restart() {
    let folder = Folder::new().unwrap();
    let file = folder.path().join("gates");
    let flag = format!("-gates={}", file.display());
    let canary = json!({"name": "podinfo", "namespace": "test"});
    let mut tester = Tester::with(folder, &[&flag], &[]).await;
    assert_eq!(tester.post("/gate/open", canary.clone()).await.0, 202);
    assert_eq!(tester.post("/rollback/open", canary.clone()).await.0, 202);
    assert_eq!(tester.post("/rollback/close", canary.clone()).await.0, 202);
    // The gate stays open even after a kill.
    tester.child.kill().await.unwrap();
    let again = Tester::with(Folder::new().unwrap(), &[&flag], &[]).await;
    assert_eq!(again.post("/gate/check", canary.clone()).await.0, 200);
    assert_eq!(again.post("/rollback/check", canary).await.0, 403);
    assert_eq!(
        std::fs::read_to_string(&file).unwrap(),
        "[\"podinfo.test\"]\n"
    );
}

#[tokio::test]
async fn a_gate_whose_file_cannot_be_written_stays_as_it_is() {
    let folder = Folder::new().unwrap();
    let place = folder.path().join("place");
    std::fs::create_dir(&place).unwrap();
    let flag = format!("-gates={}", place.join("gates").display());
    let tester = Tester::with(folder, &[&flag], &[]).await;
    // The load tester writes to the file before it listens.
    let well = tester.send(Method::GET, "/healthz", String::new()).await;
    assert_eq!(well.0, 200);
    std::fs::remove_dir_all(place).unwrap();
    let canary = json!({"name": "podinfo", "namespace": "test"});
    let (status, body) = tester.post("/gate/open", canary.clone()).await;
    assert_eq!(status, 500);
    assert!(
        body.starts_with(&format!("{flag}: cannot be written: ")),
        "{body}"
    );
    assert_eq!(tester.post("/gate/check", canary).await.0, 403);
}

#[tokio::test]
async fn invalid_flags_and_files_are_reported_at_startup() {
    let folder = Folder::new().unwrap();
    let broken = folder.path().join("gates");
    std::fs::write(&broken, "podinfo.test\n").unwrap();
    let broken = format!("-gates={}", broken.display());
    for (flag, code, why) in [
        (broken.as_str(), 1, "not a list of open gates"),
        (
            "-gates=/proc/gates",
            1,
            "-gates=/proc/gates: cannot be written: ",
        ),
        (
            "-namespace-regexp=(",
            2,
            "for flag -namespace-regexp: regex parse error",
        ),
        ("-nonsense", 2, "flag provided but not defined: -nonsense"),
    ] {
        let mut tester = Command::new(env!("CARGO_BIN_EXE_loadtester"));
        let ended = tester.args(["-port=0", flag]).output().await.unwrap();
        let error = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(code), "{error}");
        assert!(error.contains(why), "{error}");
    }
}
