//! Chromium without a window, and what a visitor does with it.

use std::{
    env, fs,
    path::{Path, PathBuf},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use testbed::{control_plane::free_ports, folder::Folder, process::Process, wait::until};

use super::webdriver::{Failure, Session};

/// The longest time for a change of a page. A busy machine is slow.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A browser with one page. Dropping it ends its processes.
pub struct Browser {
    session: Session,
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
            "{} is missing. Type: sudo apt-get install chromium chromium-driver",
            names.join(" or ")
        )
    })
}

/// Chromium as these tests need it: its profile is in this folder.
fn capabilities(program: &Path, folder: &Path) -> Value {
    let profile = format!("--user-data-dir={}", folder.join("profile").display());
    let args = [
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
        // A proxy of the environment does not reach this machine.
        "--no-proxy-server",
        &profile,
    ];
    json!({"browserName": "chrome", "goog:chromeOptions": {"binary": program, "args": args}, "goog:loggingPrefs": {"browser": "ALL"},
        "timeouts": {"pageLoad": PATIENCE.as_millis(), "script": PATIENCE.as_millis()}})
}

/// Starts chromedriver. Returns its address.
async fn driver(folder: &Path) -> (Process, String) {
    let program = program(&["chromedriver"]);
    let [port] = free_ports().unwrap();
    let args = [format!("--port={port}")];
    let server = Process::start("chromedriver", &program, &args, &[], folder).unwrap();
    let started = until(PATIENCE, "chromedriver to start", async || {
        let log = server.log_tail();
        if log.contains("started successfully") {
            Ok(())
        } else {
            Err(log)
        }
    });
    started.await.unwrap();
    (server, format!("http://127.0.0.1:{port}"))
}

fn expect<T>(result: Result<T, Failure>) -> T {
    result.unwrap_or_else(|failure| panic!("{failure}"))
}

impl Browser {
    /// Starts Chromium with an empty page.
    pub async fn start() -> Self {
        let chromium = program(&["chromium", "chromium-browser", "google-chrome"]);
        let folder = Folder::new().unwrap();
        let (server, url) = driver(folder.path()).await;
        let session = Session::start(&url, capabilities(&chromium, folder.path())).await;
        Self {
            session: expect(session),
            _server: server,
            _folder: folder,
        }
    }

    /// Opens a page.
    pub async fn open(&self, url: &str) {
        expect(self.session.open(url).await);
    }

    pub async fn url(&self) -> String {
        expect(self.session.url().await)
    }

    /// The value that a script returns.
    pub async fn script(&self, script: &str) -> Value {
        expect(self.session.script(script).await)
    }

    /// Waits until an expression of JavaScript is true. A page that is being left has no answer yet.
    pub async fn until(&self, expression: &str) {
        self.until_within(PATIENCE, expression).await;
    }

    /// The same, with another patience.
    pub async fn until_within(&self, patience: Duration, expression: &str) {
        let script = format!(
            "return ({expression}) ? null : location.href + '\\n' + document.body.innerText"
        );
        let holds = until(patience, expression, async || {
            let page = self.session.script(&script).await;
            match page.map_err(|failure| failure.to_string())? {
                Value::Null => Ok(()),
                page => Err(page.as_str().unwrap_or_default().to_owned()),
            }
        });
        holds.await.unwrap_or_else(|error| panic!("{error}"));
    }

    /// Waits until the page has a text that people see.
    pub async fn shows(&self, text: &str) {
        let text = json!(text);
        self.until(&format!("document.body.innerText.includes({text})"))
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

    /// Waits for an element, and clicks on it.
    pub async fn click(&self, selector: &str) {
        self.when_there(selector, async || self.session.click(selector).await)
            .await;
    }

    /// Waits for a field, and types into it.
    pub async fn fill(&self, selector: &str, text: &str) {
        self.when_there(selector, async || self.session.fill(selector, text).await)
            .await;
    }

    /// Waits for an element. A message may replace it between two commands: then nothing has happened to it, and the new one is taken.
    async fn when_there(&self, selector: &str, act: impl AsyncFn() -> Result<(), Failure>) {
        let done = until(PATIENCE, selector, async || match act().await {
            Err(it) if ["no such element", "stale element reference"].contains(&&*it.code) => {
                Err(format!("{it}\n{}", self.text().await))
            }
            result => Ok(result),
        });
        expect(done.await.unwrap_or_else(|error| panic!("{error}")));
    }

    /// Presses keys, wherever the focus is.
    pub async fn press(&self, keys: &str) {
        expect(self.session.press(keys).await);
    }

    /// A command of Chromium's own protocol.
    pub async fn command(&self, method: &str, params: Value) -> Value {
        expect(self.session.command(method, params).await)
    }

    /// Changes the size of the page.
    pub async fn resize(&self, width: u32, height: u32) {
        let size =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.command("Emulation.setDeviceMetricsOverride", size)
            .await;
        self.until(&format!("innerWidth === {width}")).await;
    }

    /// Shows the page on a `screen` or on `print`, to a person who prefers `light` or `dark`.
    pub async fn show_on(&self, medium: &str, scheme: &str) {
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        let media = json!({"media": medium, "features": features});
        self.command("Emulation.setEmulatedMedia", media).await;
        let holds = format!("matchMedia('{medium} and (prefers-color-scheme: {scheme})').matches");
        self.until(&holds).await;
    }

    /// Writes a picture of the whole page, if the variable `BROWSER_SCREENSHOTS` has a format: `png` or `webp`.
    pub async fn picture(&self, name: &str) {
        self.picture_to("html", name).await;
    }

    /// The same, from the top of the page to the end of the first element that a CSS selector finds.
    pub async fn picture_to(&self, selector: &str, name: &str) {
        let format = env::var("BROWSER_SCREENSHOTS").unwrap_or_default();
        if format.is_empty() {
            return;
        }
        let size = format!(
            "const end = document.querySelector('{selector}').getBoundingClientRect().bottom + scrollY;
            return [innerWidth, Math.min(Math.ceil(end) + 2, 4000)]"
        );
        let size = self.script(&size).await;
        let clip = json!({"x": 0, "y": 0, "width": size[0], "height": size[1], "scale": 1});
        let mut params = json!({"format": format, "clip": clip, "captureBeyondViewport": true});
        if format == "webp" {
            params["quality"] = json!(90);
        }
        let picture = self.command("Page.captureScreenshot", params).await;
        let picture = STANDARD.decode(picture["data"].as_str().unwrap()).unwrap();
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("screenshots");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(format!("{name}.{format}")), picture).unwrap();
    }

    /// The warnings and errors in the console since the last call, with violations of the policy for content.
    pub async fn complaints(&self) -> Vec<String> {
        let entries = expect(self.session.log().await);
        let entries = entries.as_array().unwrap().iter();
        let is_complaint = |it: &&Value| it["level"] == "WARNING" || it["level"] == "SEVERE";
        let complaints = entries.filter(is_complaint);
        complaints
            .map(|it| it["message"].as_str().unwrap().to_owned())
            .collect()
    }

    /// Ends the browser. Nothing may have been complained about, other than what contains one of these texts.
    pub async fn end(self, expected: &[&str]) {
        let complaints = self.complaints().await;
        let is_expected = |it: &&String| !expected.iter().any(|text| it.contains(text));
        let other: Vec<_> = complaints.iter().filter(is_expected).collect();
        assert!(other.is_empty(), "{other:#?}");
        expect(self.session.end().await);
    }
}
