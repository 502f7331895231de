//! Checks that the real tools `hey` and `ghz` create load when a webhook starts them.

use std::net::TcpListener;

use testbed::binaries::{CONTROL_PLANE, LOAD, find_or_build};
use wiremock::{Mock, MockServer, ResponseTemplate, matchers::any};

use super::*;

/// A load tester that finds its tools on its path, as in its image.
async fn with_tools(args: &[&str]) -> Tester {
    let tools = find_or_build(&[LOAD]).unwrap();
    let own = tools.path("hey").unwrap().parent().unwrap().to_owned();
    let own = [own, tools.path("ghz").unwrap().parent().unwrap().to_owned()];
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(own.into_iter().chain(std::env::split_paths(&path))).unwrap();
    let env = [("PATH", path.to_str().unwrap())];
    Tester::with(Folder::new().unwrap(), args, &env).await
}

#[tokio::test]
async fn hey_puts_load_on_an_address() {
    let version = MockServer::start().await;
    Mock::given(any())
        .respond_with(ResponseTemplate::new(200))
        .mount(&version)
        .await;
    let command = format!("hey -n 200 -c 2 {}/", version.uri());
    for allow in [&[][..], &["-allow=hey"]] {
        version.reset().await;
        Mock::given(any())
            .respond_with(ResponseTemplate::new(200))
            .mount(&version)
            .await;
        let mut tester = with_tools(allow).await;
        let task = json!({"type": "cmd", "cmd": command, "logCmdOutput": "true"});
        assert_eq!(tester.hook(task).await, (202, String::new()));
        let line = tester.will_log("Requests/sec").await;
        assert!(
            line["msg"]
                .as_str()
                .unwrap()
                .contains("[200]\t200 responses"),
            "{line}"
        );
        tester.logs(&format!("command finished {command}")).await;
        assert_eq!(version.received_requests().await.unwrap().len(), 200);
    }
}

#[tokio::test]
async fn hey_ends_with_the_load_tester() {
    let version = MockServer::start().await;
    let mut tester = with_tools(&[]).await;
    let file = tester.path("pid");
    let command = format!(
        "echo $$ > {}; exec hey -z 10m -q 5 -c 1 {}/",
        file.display(),
        version.uri()
    );
    assert_eq!(tester.hook(json!({"cmd": command})).await.0, 202);
    let pid = line(&file).await;
    eventually(async || {
        let requests = version.received_requests().await.unwrap();
        (!requests.is_empty()).then_some(())
    })
    .await;
    tester.terminate();
    tester.ended().await;
    gone(&pid).await;
}

#[tokio::test]
async fn ghz_asks_a_grpc_server_for_its_health() {
    // etcd serves the standard health checks of gRPC.
    let folder = Folder::new().unwrap();
    let free = || {
        TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
    };
    let (clients, peers) = (free(), free());
    let binaries = find_or_build(&[CONTROL_PLANE]).unwrap();
    let mut etcd = Command::new(binaries.path("etcd").unwrap());
    etcd.arg("--data-dir").arg(folder.path().join("data"));
    for (flag, address) in [
        ("--listen-client-urls", clients),
        ("--advertise-client-urls", clients),
        ("--listen-peer-urls", peers),
        ("--initial-advertise-peer-urls", peers),
    ] {
        etcd.arg(format!("{flag}=http://{address}"));
    }
    etcd.arg(format!("--initial-cluster=default=http://{peers}"));
    let _etcd = etcd
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();

    let tester = with_tools(&["-allow=ghz"]).await;
    let proto = concat!(env!("CARGO_MANIFEST_DIR"), "/src/loadtester/health.proto");
    let command = format!(
        "ghz --insecure --proto={proto} --call=grpc.health.v1.Health/Check -n 50 -c 2 --data '{{\"service\": \"\"}}' {clients}"
    );
    let task = json!({"type": "bash", "cmd": command, "returnCmdOutput": "true"});
    eventually(async || {
        let (status, answer) = tester.hook(task.clone()).await;
        (status == 200 && answer.contains("[OK]   50 responses")).then_some(())
    })
    .await;
}
