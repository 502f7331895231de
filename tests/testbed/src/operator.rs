//! The operator under test, as a process of its own.

use std::{path::Path, process::ExitStatus, time::Duration};

use nix::sys::signal::Signal;

use crate::{
    Error,
    control_plane::free_ports,
    process::{Process, Usage},
    wait::until,
};

/// The longest that it may take to answer, or to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running operator. Dropping it kills it.
pub struct Operator {
    process: Process,
    /// Where its `/metrics` and `/healthz` are.
    pub url: String,
}

impl Operator {
    /// Starts the program under a kubeconfig's rights; plain HTTP goes through the proxy.
    pub async fn start(
        name: &str,
        program: &Path,
        kubeconfig: &Path,
        proxy: &str,
        args: &[&str],
        logs: &Path,
    ) -> Result<Self, Error> {
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

    /// Until it knows all canaries, and leads.
    pub async fn ready(&self, within: Duration) -> Result<(), Error> {
        let client = direct()?;
        until(within, "the operator to be ready", async || {
            let answer = client.get(format!("{}/readyz", self.url)).send().await;
            let said = answer.map_err(|e| e.to_string())?.text().await;
            let said = said.map_err(|e| e.to_string())?;
            (said == "leading").then_some(()).ok_or(said)
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

    /// What it takes of the machine.
    pub fn usage(&self) -> Result<Usage, Error> {
        self.process.usage()
    }

    /// SIGSTOP: it does nothing any more, and its connections stay open.
    pub fn freeze(&self) -> Result<(), Error> {
        self.process.signal(Signal::SIGSTOP)
    }

    /// SIGCONT.
    pub fn thaw(&self) -> Result<(), Error> {
        self.process.signal(Signal::SIGCONT)
    }

    /// SIGKILL.
    pub async fn kill(self) {
        self.process.kill().await;
    }

    /// SIGTERM, and how it ended.
    pub async fn terminate(self) -> Result<ExitStatus, Error> {
        self.process.terminate(PATIENCE).await
    }
}

/// A client that goes to loopback directly, whatever the environment says.
fn direct() -> Result<reqwest::Client, Error> {
    reqwest::Client::builder()
        .no_proxy()
        .build()
        .map_err(|e| Error::Failed(e.to_string()))
}
