//! `flagger dashboard` as a process.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use super::chromium::Browser;

/// The process, and its address.
pub struct Dashboard {
    process: Child,
    pub url: String,
}

impl Drop for Dashboard {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Dashboard {
    /// Starts the dashboard with the rights of a kubeconfig.
    pub fn start(kubeconfig: &str, args: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flagger"));
        command.args(["dashboard", "--listen", "127.0.0.1:0"]);
        command.args(args).args(["--kubeconfig", kubeconfig]);
        let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let line = lines.next().unwrap().unwrap();
        let url = line.rsplit(' ').next().unwrap();
        Self {
            process,
            url: url.trim_end_matches('/').to_owned(),
        }
    }

    /// The address of a page.
    pub fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    /// Opens a page that needs a login, and logs in.
    pub async fn log_in(&self, browser: &Browser, path: &str, token: &str) {
        browser.open(&self.at(path)).await;
        browser.fill("#token", token).await;
        browser.click("form.login button").await;
        browser.until("!document.querySelector('form.login')").await;
    }
}

/// The complaint about a page that only shows the form for a login.
pub const NOT_LOGGED_IN: &str = "status of 401";
