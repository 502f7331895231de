//! Runs the sample application as a process, as a cell does.
#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "that is how a test fails"
)]

use std::{
    os::unix::process::CommandExt,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use reqwest::{Client, Response};
use testbed::binaries;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::{sleep, timeout},
};

const PODINFO: &str = env!("CARGO_BIN_EXE_podinfo");
const PATIENCE: Duration = Duration::from_secs(20);

/// A running application.
struct App {
    child: Child,
    /// The ports in the first line of its output.
    ports: Vec<u16>,
    client: Client,
}

impl App {
    async fn start(program: &str, args: &[&str]) -> Self {
        let mut child = Command::new(program)
            .args(args)
            .env("IMAGE_TAG", "6.1.0")
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = stdout.next_line().await.unwrap().unwrap();
        // Read all output, or the program blocks when the pipe is full.
        tokio::spawn(async move { while let Ok(Some(_)) = stdout.next_line().await {} });
        let ports = first
            .split("port ")
            .skip(1)
            .map(|rest| rest.split(',').next().unwrap().parse().unwrap())
            .collect();
        let client = Client::builder().no_proxy().build().unwrap();
        Self {
            child,
            ports,
            client,
        }
    }

    async fn podinfo(args: &[&str]) -> Self {
        // The flags of podinfo's manifests, with other ports.
        let usual = [
            "--port=0",
            "--port-metrics=0",
            "--grpc-port=0",
            "--grpc-service-name=podinfo",
            "--level=info",
        ];
        Self::start(PODINFO, &[&usual, args].concat()).await
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.ports[0])
    }

    async fn get(&self, path: &str) -> Response {
        self.client.get(self.url(path)).send().await.unwrap()
    }

    async fn terminate(&self) {
        let pid = self.child.id().unwrap().to_string();
        Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .await
            .unwrap();
    }

    async fn ended(&mut self) -> ExitStatus {
        timeout(PATIENCE, self.child.wait()).await.unwrap().unwrap()
    }
}

/// Polls until this returns `Some`.
async fn eventually<T>(what: impl AsyncFn() -> Option<T>) -> T {
    let poll = async {
        loop {
            if let Some(found) = what().await {
                return found;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, poll).await.expect("in time")
}

#[tokio::test]
async fn podinfo_answers_its_paths() {
    let app = App::podinfo(&[]).await;
    for (path, status) in [
        ("/", 200),
        ("/version", 200),
        ("/healthz", 200),
        ("/readyz", 200),
        ("/delay/0", 200),
        ("/status/404", 404),
        ("/status/100", 400),
        ("/nowhere", 404),
        ("/token", 405),
    ] {
        let response = app.get(path).await;
        assert_eq!(response.status(), status, "{path}");
        assert_eq!(response.headers()["x-version"], "6.1.0", "{path}");
    }
    let version = app.get("/version").await.text().await.unwrap();
    assert_eq!(version, r#"{"commit":"unknown","version":"6.1.0"}"#);
    let token = app.client.post(app.url("/token")).send().await.unwrap();
    assert!(token.text().await.unwrap().contains(r#""token":""#));

    for port in &app.ports[..2] {
        let url = format!("http://127.0.0.1:{port}/metrics");
        let metrics = app
            .client
            .get(url)
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap();
        assert!(
            metrics.contains(r#"http_requests_total{status="405"} 1"#),
            "{metrics}"
        );
        assert!(
            metrics.contains(
                r#"http_request_duration_seconds_count{method="GET",path="root",status="200"} 1"#
            ),
            "{metrics}"
        );
    }
}

#[tokio::test]
async fn podinfo_answers_a_real_grpc_client() {
    let app = App::podinfo(&[]).await;
    let ghz = tokio::task::spawn_blocking(|| binaries::find_or_build(&[binaries::LOAD]));
    let tools = ghz.await.unwrap().unwrap();
    let proto = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../src/loadtester/health.proto"
    );
    for (method, status) in [("Check", "OK"), ("Watch", "Unimplemented")] {
        let output = Command::new(tools.path("ghz").unwrap())
            .args(["--insecure", "-n", "20", "-c", "2", "--proto", proto])
            .args(["--call", &format!("grpc.health.v1.Health/{method}")])
            .arg(format!("127.0.0.1:{}", app.ports[2]))
            .output()
            .await
            .unwrap();
        let report = String::from_utf8(output.stdout).unwrap();
        assert!(
            report.contains(&format!("[{status}]   20 responses")),
            "{report}"
        );
    }
    let metrics = app.get("/metrics").await.text().await.unwrap();
    assert!(metrics.contains("grpc_calls_total 20"), "{metrics}");
}

#[tokio::test]
async fn podinfo_fails_the_given_share_of_traffic() {
    let app = App::podinfo(&["--error-rate=0.3"]).await;
    for _ in 0..3 {
        let mut failed = 0;
        for _ in 0..10 {
            let response = app.get("/").await;
            assert_eq!(response.headers()["x-version"], "6.1.0");
            failed += u32::from(response.status() == 500);
            assert_eq!(app.get("/healthz").await.status(), 200);
        }
        assert_eq!(failed, 3);
    }
}

#[tokio::test]
async fn podinfo_crashes_after_the_given_number_of_requests() {
    let mut app = App::podinfo(&["--crash-after=2", "--delay=50ms"]).await;
    for _ in 0..2 {
        let started = std::time::Instant::now();
        assert_eq!(app.get("/").await.status(), 200);
        assert!(started.elapsed() >= Duration::from_millis(50));
        assert_eq!(app.get("/readyz").await.status(), 200);
    }
    assert!(app.client.get(app.url("/")).send().await.is_err());
    assert_eq!(app.ended().await.code(), Some(1));
}

#[tokio::test]
async fn podinfo_finishes_requests_in_flight_after_sigterm() {
    let mut app = App::podinfo(&[]).await;
    // Takes longer than the application goes on serving after SIGTERM.
    let slow = tokio::spawn(app.client.get(app.url("/delay/4")).send());
    assert_eq!(app.get("/readyz").await.status(), 200);
    app.terminate().await;
    let unready =
        eventually(async || Some(app.get("/readyz").await).filter(|r| r.status() == 503)).await;
    assert_eq!(unready.headers()["connection"], "close");
    assert_eq!(app.get("/").await.status(), 200);
    assert_eq!(app.get("/healthz").await.status(), 200);

    assert_eq!(slow.await.unwrap().unwrap().status(), 200);
    assert_eq!(app.ended().await.code(), Some(0));
}

#[tokio::test]
async fn podcli_exits_with_an_error_unless_the_answer_is_a_2xx_in_time() {
    let app = App::podinfo(&["--never-ready"]).await;
    let address = format!("127.0.0.1:{}", app.ports[0]);
    for (path, code) in [("/healthz", 0), ("/readyz", 1), ("/delay/2", 1)] {
        let mut podcli = std::process::Command::new(PODINFO);
        podcli
            .arg0("./podcli")
            .args(["check", "http", &format!("{address}{path}")]);
        let output = Command::from(podcli).output().await.unwrap();
        assert_eq!(output.status.code(), Some(code), "{path}");
        assert_eq!(output.stderr.is_empty(), code == 0, "{path}");
    }
}
