//! Runs the programs as processes, the way the test bed does.
#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "that is how a test fails"
)]

use std::{
    fs,
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use reqwest::{Client, Response};
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    sync::mpsc,
    time::{sleep, timeout},
};

const PODINFO: &str = env!("CARGO_BIN_EXE_podinfo");
const LOADTESTER: &str = env!("CARGO_BIN_EXE_loadtester");
const PATIENCE: Duration = Duration::from_secs(20);

/// A program that serves.
struct App {
    child: Child,
    /// What it says after its first line.
    lines: mpsc::UnboundedReceiver<String>,
    /// The ports its first line names.
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
        let (said, lines) = mpsc::unbounded_channel();
        // Read it all, or the program waits with what it says.
        tokio::spawn(async move {
            while let Ok(Some(line)) = stdout.next_line().await {
                drop(said.send(line));
            }
        });
        let ports = first
            .split("port ")
            .skip(1)
            .map(|rest| rest.split(',').next().unwrap().parse().unwrap())
            .collect();
        let client = Client::builder().no_proxy().build().unwrap();
        Self {
            child,
            lines,
            ports,
            client,
        }
    }

    async fn podinfo(args: &[&str]) -> Self {
        // As in podinfo's manifests, but for the ports.
        let usual = [
            "--port=0",
            "--port-metrics=0",
            "--grpc-port=9999",
            "--grpc-service-name=podinfo",
            "--level=info",
        ];
        Self::start(PODINFO, &[&usual, args].concat()).await
    }

    async fn loadtester(timeout: &str) -> Self {
        Self::start(
            LOADTESTER,
            &["-port=0", "-log-level=info", "-timeout", timeout],
        )
        .await
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.ports[0])
    }

    async fn get(&self, path: &str) -> Response {
        self.client.get(self.url(path)).send().await.unwrap()
    }

    /// Posts a webhook, and returns status and body.
    async fn webhook(&self, metadata: serde_json::Value) -> (u16, String) {
        let response = post(&self.client, self.url("/"), metadata).await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    async fn says(&mut self, expected: &str) {
        let line = timeout(PATIENCE, self.lines.recv()).await.unwrap();
        assert_eq!(line.as_deref(), Some(expected));
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

async fn post(
    client: &Client,
    url: String,
    metadata: serde_json::Value,
) -> reqwest::Result<Response> {
    let body = json!({ "name": "podinfo", "namespace": "test", "phase": "Progressing", "metadata": metadata });
    client.post(url).body(body.to_string()).send().await
}

/// Waits until this yields something.
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

/// Waits for a line in a file.
async fn line(file: &Path) -> String {
    eventually(async || {
        fs::read_to_string(file)
            .ok()
            .and_then(|text| Some(text.strip_suffix('\n')?.to_owned()))
    })
    .await
}

/// Waits until a process is gone, or waits to be forgotten by its parent.
async fn gone(pid: &str) {
    eventually(
        async || match fs::read_to_string(format!("/proc/{pid}/stat")) {
            Ok(stat) => stat.contains(") Z ").then_some(()),
            Err(_) => Some(()),
        },
    )
    .await;
}

/// A fresh place for the files of a test.
fn place(name: &str) -> PathBuf {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    drop(fs::remove_dir_all(&place));
    fs::create_dir_all(&place).unwrap();
    place
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

    for port in &app.ports {
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
async fn podinfo_crashes_amid_traffic() {
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
async fn podinfo_finishes_what_it_began() {
    let mut app = App::podinfo(&[]).await;
    // Longer than it serves on after SIGTERM.
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
async fn probes() {
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

        let mut wget = std::process::Command::new(LOADTESTER);
        wget.arg0("wget").args([
            "--quiet",
            "--tries=1",
            "--timeout=1",
            "--spider",
            &format!("http://{address}{path}"),
        ]);
        assert_eq!(
            Command::from(wget).output().await.unwrap().status.code(),
            Some(code),
            "{path}"
        );
    }
}

#[tokio::test]
async fn bash_answers_how_it_ended() {
    let app = App::loadtester("1h").await;
    assert_eq!(app.get("/healthz").await.text().await.unwrap(), "OK");
    for (metadata, status, body) in [
        (json!({ "type": "bash", "cmd": "echo hi" }), 200, ""),
        (
            json!({ "type": "bash", "cmd": "echo hi; echo ho >&2", "returnCmdOutput": "true" }),
            200,
            "hi\nho\n",
        ),
        (
            json!({ "type": "bash", "cmd": "false" }),
            500,
            "command false failed: : exit status 1",
        ),
        (
            json!({ "type": "bash", "cmd": "echo no; exit 3" }),
            500,
            "command echo no; exit 3 failed: no\n: exit status 3",
        ),
        (
            json!({ "type": "k6", "cmd": "true" }),
            400,
            "unknown task type k6",
        ),
        (json!({ "type": "cmd" }), 400, "cmd not found in metadata"),
        (json!({}), 400, "metadata not found in payload"),
        (json!(null), 400, "metadata not found in payload"),
    ] {
        assert_eq!(
            app.webhook(metadata.clone()).await,
            (status, body.to_owned()),
            "{metadata}"
        );
    }
    let long = json!({ "type": "bash", "cmd": "head -c 1000000 /dev/zero | tr '\\0' x", "returnCmdOutput": "true" });
    assert_eq!(app.webhook(long).await.1.len(), 64 * 1024);
}

#[tokio::test]
async fn a_running_command_is_not_started_again() {
    let mut app = App::loadtester("1h").await;
    let place = place("dedupe");
    let (go, ran) = (place.join("go"), place.join("ran"));
    let command = format!(
        "until [ -e {} ]; do sleep 0.02; done; echo ran | tee -a {}",
        go.display(),
        ran.display()
    );
    let task = json!({ "cmd": command, "logCmdOutput": "true" });

    assert_eq!(app.webhook(task.clone()).await.0, 202);
    app.says(&format!("task starting {command}")).await;
    assert_eq!(app.webhook(task.clone()).await.0, 202);
    app.says(&format!("command skipped {command} is already running"))
        .await;
    fs::write(&go, "").unwrap();
    app.says(&format!("command finished {command} ran")).await;
    assert_eq!(app.webhook(task).await.0, 202);
    app.says(&format!("task starting {command}")).await;
    app.says(&format!("command finished {command} ran")).await;
    assert_eq!(fs::read_to_string(ran).unwrap(), "ran\nran\n");
}

#[tokio::test]
async fn commands_are_killed_with_their_children() {
    let place = place("killed");
    // The shell waits for a child of its own; both are to die.
    let script = |file: &Path| format!("sleep 1000 & echo $! > {}; wait; true", file.display());

    let app = App::loadtester("1s").await;
    let late = place.join("late");
    let (status, body) = app
        .webhook(json!({ "type": "bash", "cmd": script(&late) }))
        .await;
    assert_eq!(status, 500);
    assert!(body.ends_with("failed: : signal: killed"), "{body}");
    gone(&line(&late).await).await;

    let mut app = App::loadtester("1h").await;
    let left = place.join("left");
    let (client, url, metadata) = (
        app.client.clone(),
        app.url("/"),
        json!({ "type": "bash", "cmd": script(&left) }),
    );
    let caller = tokio::spawn(async move { post(&client, url, metadata).await });
    let pid = line(&left).await;
    caller.abort();
    gone(&pid).await;

    let stopped = place.join("stopped");
    assert_eq!(app.webhook(json!({ "cmd": script(&stopped) })).await.0, 202);
    let pid = line(&stopped).await;
    app.terminate().await;
    let status = app.ended().await;
    assert_eq!((status.code(), status.signal()), (Some(0), None));
    gone(&pid).await;
}
