//! As much of Flagger's load tester as the test bed needs: webhooks start commands (`cmd`) or ask how a script ends (`bash`).
//!
//! Called by the name `wget` it is a probe: `wget --quiet --tries=1 --timeout=4 --spider URL`.
#![forbid(unsafe_code)]

use std::{
    collections::{HashMap, HashSet},
    env,
    error::Error,
    io,
    net::Ipv4Addr,
    process::{self, ExitCode, ExitStatus, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use clap::Parser;
use serde::Deserialize;
use testbed::apps::{called_as, duration, log, probe};
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, unix::pipe},
    process::{Child, Command},
    signal::unix::{SignalKind, signal},
    time::timeout,
};

/// So much of what a command says is kept.
const OUTPUT: u64 = 64 * 1024;

/// A load tester. Flags may also be written Go's way, with one dash.
#[derive(Parser)]
struct Flags {
    /// Where it serves; 0 takes a free port.
    #[arg(long, default_value_t = 9090)]
    port: u16,
    /// A command that runs longer is killed.
    #[arg(long, default_value = "1h", value_parser = duration)]
    timeout: Duration,
    /// Without effect.
    #[arg(long = "log-level", hide = true)]
    _log_level: Option<String>,
}

/// The body of a webhook.
#[derive(Deserialize)]
struct Call {
    #[serde(default)]
    name: String,
    #[serde(default)]
    namespace: String,
    metadata: Option<HashMap<String, String>>,
}

struct Tester {
    timeout: Duration,
    /// What runs in the background: for whom, and the command.
    running: Mutex<HashSet<(String, String)>>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let done = if called_as("wget") {
        wget().await
    } else {
        serve(Flags::parse_from(env::args().map(two_dashes))).await
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{e}");
            ExitCode::FAILURE
        }
    }
}

async fn wget() -> Result<(), Box<dyn Error>> {
    let mut within = Duration::from_secs(900);
    let mut url = None;
    for arg in env::args().skip(1) {
        if let Some(seconds) = arg.strip_prefix("--timeout=") {
            within = Duration::from_secs(seconds.parse()?);
        } else if !arg.starts_with('-') {
            url = Some(arg);
        }
    }
    Ok(probe(&url.ok_or("wget: missing URL")?, within).await?)
}

/// Returning ends the runtime, with it all tasks, and with them their commands.
async fn serve(flags: Flags) -> Result<(), Box<dyn Error>> {
    let mut terminated = signal(SignalKind::terminate())?;
    let tester = Arc::new(Tester {
        timeout: flags.timeout,
        running: Mutex::default(),
    });
    let router = Router::new()
        .route("/healthz", get(async || "OK"))
        .route("/", post(webhook))
        .with_state(tester);
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, flags.port)).await?;
    log(&format!(
        "Starting load tester v{} API on port {}",
        env!("CARGO_PKG_VERSION"),
        listener.local_addr()?.port(),
    ));
    tokio::select! {
        ended = axum::serve(listener, router) => Ok(ended?),
        _ = terminated.recv() => Ok(()),
    }
}

async fn webhook(State(tester): State<Arc<Tester>>, body: Bytes) -> Response {
    let Ok(call) = serde_json::from_slice::<Call>(&body) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let metadata = call.metadata.unwrap_or_default();
    if metadata.is_empty() {
        return refuse("metadata not found in payload");
    }
    let command = metadata.get("cmd").cloned();
    match metadata.get("type").map_or("cmd", String::as_str) {
        "cmd" => {
            let Some(command) = command else {
                return refuse("cmd not found in metadata");
            };
            let canary = format!("{}.{}", call.name, call.namespace);
            start(tester, canary, command, is_true(&metadata, "logCmdOutput"));
            StatusCode::ACCEPTED.into_response()
        }
        "bash" => {
            // Dropped when the caller hangs up.
            let command = command.unwrap_or_default();
            match run("bash", &command, tester.timeout, true).await {
                Ok(output) if is_true(&metadata, "returnCmdOutput") => output.into_response(),
                Ok(_) => StatusCode::OK.into_response(),
                Err(e) => (StatusCode::INTERNAL_SERVER_ERROR, e).into_response(),
            }
        }
        other => refuse(&format!("unknown task type {other}")),
    }
}

/// Runs a command in the background, unless it already runs for this canary.
fn start(tester: Arc<Tester>, canary: String, command: String, log_output: bool) {
    let task = (canary, command);
    if !tester.running().insert(task.clone()) {
        log(&format!("command skipped {} is already running", task.1));
        return;
    }
    tokio::spawn(async move {
        // How it ended is in the log.
        drop(run("sh", &task.1, tester.timeout, log_output).await);
        tester.running().remove(&task);
    });
}

/// Runs a command to its end and returns what it said, or what went wrong. If this is dropped, the command is killed.
async fn run(
    shell: &str,
    command: &str,
    limit: Duration,
    log_output: bool,
) -> Result<String, String> {
    log(&format!("task starting {command}"));
    let mut output = Vec::new();
    let failure = match timeout(limit, execute(shell, command, &mut output)).await {
        Ok(Ok(status)) if status.success() => None,
        // As Go words it.
        Ok(Ok(status)) => Some(match status.code() {
            Some(code) => format!("exit status {code}"),
            None => status.to_string(),
        }),
        Ok(Err(e)) => Some(e.to_string()),
        Err(_) => Some("signal: killed".to_owned()),
    };
    let output = String::from_utf8_lossy(&output).into_owned();
    if let Some(e) = failure {
        log(&format!("command failed {command} {e} {output}"));
        return Err(format!("command {command} failed: {output}: {e}"));
    }
    let shown = if log_output { &output } else { "" };
    log(format!("command finished {command} {shown}").trim_end());
    Ok(output)
}

async fn execute(shell: &str, command: &str, output: &mut Vec<u8>) -> io::Result<ExitStatus> {
    let (reader, writer) = io::pipe()?;
    let mut reader = pipe::Receiver::from_owned_fd(reader.into())?;
    // This process's ends for writing close with the statement, so that reading ends with the command.
    let mut running = Running(
        Command::new(shell)
            .args(["-c", command])
            .stdin(Stdio::null())
            .stdout(writer.try_clone()?)
            .stderr(writer)
            .process_group(0)
            .spawn()?,
    );
    (&mut reader).take(OUTPUT).read_to_end(output).await?;
    tokio::io::copy(&mut reader, &mut tokio::io::sink()).await?;
    running.0.wait().await
}

/// A command, in a process group of its own. Dropping it before it was waited for kills the group.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let Some(group) = self.0.id() else { return };
        let kill = format!("kill -s KILL -- -{group}");
        match process::Command::new("sh").args(["-c", &kill]).status() {
            Ok(status) if status.success() => log(&format!("killed process group {group}")),
            failed => log(&format!("cannot kill process group {group}: {failed:?}")),
        }
    }
}

impl Tester {
    fn running(&self) -> MutexGuard<'_, HashSet<(String, String)>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn refuse(why: &str) -> Response {
    (StatusCode::BAD_REQUEST, why.to_owned()).into_response()
}

/// Whether Go takes the value for true.
fn is_true(metadata: &HashMap<String, String>, key: &str) -> bool {
    let value = metadata.get(key).map(String::as_str);
    matches!(value, Some("1" | "t" | "T" | "true" | "True" | "TRUE"))
}

/// Turns `-flag` into `--flag`.
fn two_dashes(arg: String) -> String {
    if arg.starts_with('-') && !arg.starts_with("--") {
        format!("-{arg}")
    } else {
        arg
    }
}
