//! Tests of the load tester as a process that webhooks and users call.
//!
//! | question | file |
//! | --- | --- |
//! | what do its endpoints answer? | `api.rs` |
//! | what limits commands and calls, and what happens at shutdown? | `bounds.rs` |
//! | which calls are refused, and which state survives a restart? | `safety.rs` |
//! | do real tools create load? | `load.rs` |
//! | do tests on other servers work? | `elsewhere.rs` |

mod api;
mod bounds;
mod elsewhere;
mod load;
mod safety;

use std::{
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use reqwest::{Client, Method};
use serde_json::{Value, json};
use testbed::{folder::Folder, wait::until};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    sync::mpsc,
    time::timeout,
};

const PATIENCE: Duration = Duration::from_secs(30);

/// A load tester.
struct Tester {
    child: Child,
    port: u16,
    /// The lines of its log after the first one.
    log: mpsc::UnboundedReceiver<Value>,
    client: Client,
    /// A new folder for the files of the test.
    folder: Folder,
}

impl Tester {
    async fn start(args: &[&str]) -> Self {
        Self::with(Folder::new().unwrap(), args, &[]).await
    }

    async fn with(folder: Folder, args: &[&str], env: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_loadtester"));
        command.envs(env.iter().copied());
        Self::run(command, folder, args).await
    }

    /// Runs this command, which starts the load tester.
    async fn run(mut command: Command, folder: Folder, args: &[&str]) -> Self {
        let mut child = command
            .args(["-port=0", "-log-level=info"])
            .args(args)
            // The input stays open: a command that inherits it would wait for it.
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let first = lines.next_line().await.unwrap().unwrap();
        let port = first.split("port ").nth(1).unwrap();
        let port = port.split('"').next().unwrap().parse().unwrap();
        let (logged, log) = mpsc::unbounded_channel();
        // The log must be read to its end; otherwise the load tester blocks when it writes.
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                let _ = logged.send(serde_json::from_str(&line).unwrap());
            }
        });
        Self {
            child,
            port,
            log,
            client: Client::builder().no_proxy().build().unwrap(),
            folder,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    async fn send(&self, method: Method, path: &str, body: String) -> (u16, String) {
        let call = self.client.request(method, self.url(path)).body(body);
        let response = call.send().await.unwrap();
        let status = response.status().as_u16();
        (status, response.text().await.unwrap())
    }

    async fn post(&self, path: &str, body: Value) -> (u16, String) {
        self.send(Method::POST, path, body.to_string()).await
    }

    /// Calls the webhook of a canary as Flagger does, and waits for the answer.
    async fn hook(&self, metadata: Value) -> (u16, String) {
        self.post("/", payload(metadata)).await
    }

    /// Like `hook`, without waiting for the answer.
    fn hook_in_background(&self, metadata: Value) -> tokio::task::JoinHandle<(u16, String)> {
        let call = self.client.post(self.url("/"));
        let call = call.body(payload(metadata).to_string());
        tokio::spawn(async move {
            let response = call.send().await.unwrap();
            let status = response.status().as_u16();
            (status, response.text().await.unwrap())
        })
    }

    /// Expects this text in the next line of the log.
    async fn logs(&mut self, expected: &str) {
        let line = timeout(PATIENCE, self.log.recv()).await.unwrap().unwrap();
        assert_eq!(line["msg"], expected, "{line}");
    }

    /// Waits for a line of the log that contains this text.
    async fn will_log(&mut self, part: &str) -> Value {
        let line = async {
            loop {
                let line = self.log.recv().await.unwrap();
                if line["msg"].as_str().unwrap().contains(part) {
                    return line;
                }
            }
        };
        timeout(PATIENCE, line).await.unwrap()
    }

    fn terminate(&self) {
        let pid = self.child.id().unwrap().to_string();
        let killed = std::process::Command::new("kill")
            .args(["-TERM", &pid])
            .status();
        assert!(killed.unwrap().success());
    }

    async fn ended(&mut self) -> ExitStatus {
        timeout(PATIENCE, self.child.wait()).await.unwrap().unwrap()
    }
}

/// Terminates the process as Kubernetes does. A killed load tester could not end its commands.
impl Drop for Tester {
    fn drop(&mut self) {
        if self.child.id().is_some() {
            self.terminate();
        }
    }
}

fn payload(metadata: Value) -> Value {
    json!({
        "name": "podinfo", "namespace": "test", "phase": "Progressing", "checksum": "85d557f47b", "metadata": metadata
    })
}

/// Waits until this returns something.
async fn eventually<T>(what: impl AsyncFn() -> Option<T>) -> T {
    let found = async || what().await.ok_or_else(|| "nothing".to_owned());
    until(PATIENCE, "something", found).await.unwrap()
}

/// Waits for a complete line in a file.
async fn line(file: &Path) -> String {
    eventually(async || {
        let text = std::fs::read_to_string(file).ok()?;
        Some(text.strip_suffix('\n')?.to_owned())
    })
    .await
}

/// Waits until a process has ended or is a zombie.
async fn gone(pid: &str) {
    eventually(async || (!runs(pid)).then_some(())).await;
}

fn runs(pid: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}
