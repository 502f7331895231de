//! Runs the operator under test as a process.

use std::{path::Path, process::ExitStatus, time::Duration};

use nix::sys::signal::Signal;

use crate::{
    Error,
    control_plane::free_ports,
    process::{Process, Usage},
    wait::until,
};

/// The longest time in which the operator must become healthy, or end.
const PATIENCE: Duration = Duration::from_secs(30);

/// The command line and environment of an operator.
pub struct Launch<'a> {
    /// The name of the log file.
    pub name: &'a str,
    /// The operator's binary.
    pub program: &'a Path,
    /// The kubeconfig whose rights it has.
    pub kubeconfig: &'a Path,
    /// The URL of the proxy for its plain HTTP requests.
    pub proxy: &'a str,
    /// Further arguments.
    pub args: &'a [&'a str],
    /// The folder for the log.
    pub logs: &'a Path,
}

/// A running operator. Dropping it kills it.
pub struct Operator {
    process: Process,
    /// The URL of its `/metrics` and `/healthz`.
    pub url: String,
}

impl Operator {
    /// Starts the program, and waits until it is healthy.
    pub async fn start(launch: Launch<'_>) -> Result<Self, Error> {
        let Launch {
            name,
            program,
            kubeconfig,
            proxy,
            args,
            logs,
        } = launch;
        let [port] = free_ports()?;
        let mut all = vec![
            format!("-kubeconfig={}", kubeconfig.display()),
            format!("-port={port}"),
        ];
        all.extend(args.iter().map(|arg| (*arg).to_owned()));
        let env = [
            ("HTTP_PROXY", proxy),
            ("http_proxy", proxy),
            ("NO_PROXY", ""),
            ("no_proxy", ""),
        ];
        let env = env.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let process = Process::start(name, program, &all, &env, logs)?;
        let mut operator = Self {
            process,
            url: format!("http://127.0.0.1:{port}"),
        };
        operator.healthy().await?;
        Ok(operator)
    }

    async fn healthy(&mut self) -> Result<(), Error> {
        let client = direct()?;
        until(PATIENCE, "the operator to be healthy", async || {
            self.process.must_run().map_err(|e| e.to_string())?;
            let answer = client
                .get(format!("{}/healthz", self.url))
                .send()
                .await
                .map_err(|e| e.to_string())?;
            answer
                .status()
                .is_success()
                .then_some(())
                .ok_or_else(|| answer.status().to_string())
        })
        .await
    }

    /// Waits until the operator has listed all canaries, and leads.
    pub async fn ready(&self, within: Duration) -> Result<(), Error> {
        let client = direct()?;
        until(within, "the operator to be ready", async || {
            let answer = client.get(format!("{}/readyz", self.url)).send().await;
            let state = answer.map_err(|e| e.to_string())?.text().await;
            let state = state.map_err(|e| e.to_string())?;
            (state == "leading").then_some(()).ok_or(state)
        })
        .await
    }

    /// Its metrics, as text.
    pub async fn metrics(&self) -> Result<String, Error> {
        let answer = direct()?
            .get(format!("{}/metrics", self.url))
            .send()
            .await
            .map_err(|e| Error::Failed(e.to_string()))?;
        answer
            .text()
            .await
            .map_err(|e| Error::Failed(e.to_string()))
    }

    /// The process's memory and processor time.
    pub fn usage(&self) -> Result<Usage, Error> {
        self.process.usage()
    }

    /// Sends SIGSTOP: the operator does nothing, and its connections stay open.
    pub fn freeze(&self) -> Result<(), Error> {
        self.process.signal(Signal::SIGSTOP)
    }

    /// Sends SIGCONT.
    pub fn thaw(&self) -> Result<(), Error> {
        self.process.signal(Signal::SIGCONT)
    }

    /// Sends SIGKILL and waits for the end.
    pub async fn kill(self) {
        self.process.kill().await;
    }

    /// Sends SIGTERM. Returns the exit status.
    pub async fn terminate(self) -> Result<ExitStatus, Error> {
        self.process.terminate(PATIENCE).await
    }
}

/// A client that ignores proxies of the environment.
fn direct() -> Result<reqwest::Client, Error> {
    reqwest::Client::builder()
        .no_proxy()
        .build()
        .map_err(|e| Error::Failed(e.to_string()))
}
