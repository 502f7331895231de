//! Chromium without a window, driven over WebDriver.

use std::{
    env,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::{Value, json};
use testbed::{control_plane::free_ports, folder::Folder, process::Process, wait::until};
use thirtyfour::{
    By, ChromeCapabilities, ChromiumLikeCapabilities, LoggingPrefsLogLevel, WebDriver, WebElement,
};

/// The longest time for a change of a page. A busy machine is slow.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A browser with one page. Dropping it ends its processes.
pub struct Browser {
    /// The first field, so that it ends before its server.
    driver: WebDriver,
    _server: Process,
    _folder: Folder,
}

/// The path of the first of these programs that this machine has.
fn program(names: &[&str]) -> PathBuf {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders: Vec<_> = env::split_paths(&path).collect();
    let mut paths = names
        .iter()
        .flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
    paths.find(|path| path.is_file()).unwrap_or_else(|| {
        panic!(
            "{} is missing: sudo apt-get install chromium chromium-driver",
            names.join(" or ")
        )
    })
}

impl Browser {
    /// Starts Chromium with an empty page.
    pub async fn start() -> Self {
        let chromium = program(&["chromium", "chromium-browser", "google-chrome"]);
        let server = program(&["chromedriver"]);
        let folder = Folder::new().unwrap();
        let [port] = free_ports().unwrap();
        let args = [format!("--port={port}")];
        let server = Process::start("chromedriver", &server, &args, &[], folder.path()).unwrap();
        let mut wanted = ChromeCapabilities::new();
        wanted.set_binary(&chromium.display().to_string()).unwrap();
        let profile = format!(
            "--user-data-dir={}",
            folder.path().join("profile").display()
        );
        for arg in [
            "--headless=new",
            // Containers and root have no user namespaces for a sandbox. The browser loads pages of this test only.
            "--no-sandbox",
            // The browser ends when its driver ends.
            "--remote-debugging-pipe",
            "--disable-dev-shm-usage",
            "--disable-gpu",
            "--disable-background-networking",
            "--disable-extensions",
            "--no-first-run",
            "--hide-scrollbars",
            "--lang=en",
            &profile,
        ] {
            wanted.add_arg(arg).unwrap();
        }
        wanted
            .set_browser_log_level(LoggingPrefsLogLevel::All)
            .unwrap();
        let driver = until(PATIENCE, "Chromium", async || {
            // A proxy of the environment does not reach this machine.
            let client = reqwest::Client::builder().no_proxy().build();
            let builder = WebDriver::builder(format!("http://127.0.0.1:{port}"), wanted.clone());
            let connected = builder.client(client.unwrap()).connect().await;
            connected.map_err(|error| error.to_string())
        });
        Self {
            driver: driver.await.unwrap(),
            _server: server,
            _folder: folder,
        }
    }

    /// Opens a page.
    pub async fn open(&self, url: &str) {
        self.driver.goto(url).await.unwrap();
    }

    pub async fn url(&self) -> String {
        self.driver.current_url().await.unwrap().to_string()
    }

    /// The value that a script returns.
    pub async fn script(&self, script: &str) -> Value {
        self.try_script(script)
            .await
            .unwrap_or_else(|error| panic!("{script}: {error}"))
    }

    async fn try_script(&self, script: &str) -> Result<Value, String> {
        let returned = self.driver.execute(script, Vec::new()).await;
        returned
            .map(|it| it.json().clone())
            .map_err(|error| error.to_string())
    }

    /// Waits until an expression of JavaScript is true. A page that is being left has no answer yet.
    pub async fn until(&self, expression: &str) {
        let script = format!(
            "return ({expression}) ? null : location.href + '\\n' + document.body.innerText"
        );
        let holds = until(PATIENCE, expression, async || {
            match self.try_script(&script).await? {
                Value::Null => Ok(()),
                page => Err(page.as_str().unwrap_or_default().to_owned()),
            }
        });
        holds.await.unwrap_or_else(|error| panic!("{error}"));
    }

    /// Waits until the page has a text that people see.
    pub async fn shows(&self, text: &str) {
        self.until(&format!(
            "document.body.innerText.includes({})",
            json!(text)
        ))
        .await;
    }

    /// Waits until the page follows changes.
    pub async fn is_live(&self) {
        self.until("document.getElementById('connection').textContent === 'live'")
            .await;
    }

    /// The text of the page, as people see it.
    pub async fn text(&self) -> String {
        let text = self.script("return document.body.innerText").await;
        text.as_str().unwrap().to_owned()
    }

    pub async fn find(&self, selector: &str) -> WebElement {
        let found = self.driver.find(By::Css(selector.to_owned())).await;
        match found {
            Ok(element) => element,
            Err(_) => panic!("no {selector} in {}", self.text().await),
        }
    }

    pub async fn click(&self, selector: &str) {
        self.find(selector).await.click().await.unwrap();
    }

    pub async fn fill(&self, selector: &str, text: &str) {
        self.find(selector).await.send_keys(text).await.unwrap();
    }

    /// Presses keys, wherever the focus is.
    pub async fn press(&self, keys: impl Into<thirtyfour::TypingData>) {
        let focused = self.driver.active_element().await.unwrap();
        focused.send_keys(keys).await.unwrap();
    }

    /// A command of Chromium's own protocol.
    pub async fn command(&self, method: &str, params: Value) -> Value {
        self.driver.cdp().send_raw(method, params).await.unwrap()
    }

    /// Changes the size of the page.
    pub async fn resize(&self, width: u32, height: u32) {
        let size =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.command("Emulation.setDeviceMetricsOverride", size)
            .await;
    }

    /// Shows the page on a `screen` or on `print`, to a person who prefers `light` or `dark`.
    pub async fn show_on(&self, medium: &str, scheme: &str) {
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        let media = json!({"media": medium, "features": features});
        self.command("Emulation.setEmulatedMedia", media).await;
    }

    /// Writes a picture of the whole page, if the variable `BROWSER_SCREENSHOTS` is set.
    pub async fn picture(&self, name: &str) {
        if env::var_os("BROWSER_SCREENSHOTS").is_none_or(|it| it.is_empty()) {
            return;
        }
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("screenshots");
        std::fs::create_dir_all(&folder).unwrap();
        let size = "return [innerWidth, Math.max(document.documentElement.scrollHeight, 200)]";
        let size = self.script(size).await;
        let [width, height] = [0, 1].map(|at| u32::try_from(size[at].as_u64().unwrap()).unwrap());
        self.resize(width, height.min(4000)).await;
        let picture = self.driver.screenshot_as_png().await.unwrap();
        std::fs::write(folder.join(format!("{name}.png")), picture).unwrap();
    }

    /// The warnings and errors in the console since the last call, with violations of the policy for content.
    pub async fn complaints(&self) -> Vec<String> {
        let entries = self.driver.browser_log().await.unwrap();
        let complaints = entries
            .into_iter()
            .filter(|entry| ["WARNING", "SEVERE"].contains(&entry.level.as_str()));
        complaints.map(|entry| entry.message).collect()
    }

    /// Ends the browser. Nothing may have been complained about, other than what contains one of these texts.
    pub async fn end(self, expected: &[&str]) {
        let complaints = self.complaints().await;
        let is_expected = |it: &&String| !expected.iter().any(|text| it.contains(text));
        let other: Vec<_> = complaints.iter().filter(is_expected).collect();
        assert!(other.is_empty(), "{other:#?}");
        self.driver.quit().await.unwrap();
    }
}
