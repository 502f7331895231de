//! A client for the parts of W3C WebDriver that these tests need. chromedriver is the server.
//!
//! The crates for WebDriver are not used: one turns on a feature of serde_json that changes the order of fields in all tests of this package,
//! the other one needs second versions of crates that are here already.

use std::{fmt, time::Duration};

use reqwest::{Client, Method};
use serde_json::{Value, json};

/// The codes of Enter, Backspace and the arrows in texts that are typed.
pub mod key {
    pub const ENTER: &str = "\u{e007}";
    pub const BACKSPACE: &str = "\u{e003}";
    pub const UP: &str = "\u{e013}";
    pub const DOWN: &str = "\u{e015}";
}

/// The longest time for one command. chromedriver itself gives up a page after a minute.
const LONGEST: Duration = Duration::from_secs(120);
/// The name of the field that has the id of an element.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A command failed.
#[derive(Debug)]
pub struct Failure {
    command: String,
    /// The code of WebDriver, such as `no such element`; empty if there is no answer.
    pub code: String,
    message: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            command,
            code,
            message,
        } = self;
        write!(f, "`{command}` failed: {code}: {message}")?;
        f.write_str(match code.as_str() {
            "session not created" => {
                "\nChromium did not start. It must have the version of chromedriver: sudo apt-get install chromium chromium-driver"
            }
            "invalid session id" | "" => {
                "\nChromium or chromedriver has ended. Is there enough memory? Its log is in the folder that this test names at its end"
            }
            "no such element" => "\nThe page has no such element. Does the selector agree with src/dashboard?",
            "timeout" => "\nThe page did not load in a minute. Does `flagger dashboard` still run?",
            _ => "",
        })
    }
}

/// A browser that chromedriver has started. It has one window.
pub struct Session {
    http: Client,
    /// The address of the session.
    url: String,
}

impl Session {
    /// Starts a browser. `server` is the address of chromedriver.
    pub async fn start(server: &str, capabilities: Value) -> Result<Self, Failure> {
        // A proxy of the environment does not reach this machine.
        let http = Client::builder().no_proxy().timeout(LONGEST).build();
        let mut session = Self {
            http: http.unwrap(),
            url: server.to_owned(),
        };
        let wanted = json!({"capabilities": {"alwaysMatch": capabilities}});
        let started = session.post("/session", wanted).await?;
        session.url += &format!("/session/{}", text(&started["sessionId"]));
        Ok(session)
    }

    /// Sends a command, and returns the value of its answer.
    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<Value, Failure> {
        let failure = |code: &str, message: String| Failure {
            command: format!("{method} {path}"),
            code: code.to_owned(),
            message,
        };
        let request = self
            .http
            .request(method.clone(), format!("{}{path}", self.url));
        let request = match body {
            Some(body) => request.body(body.to_string()),
            None => request,
        };
        let answer = async { request.send().await?.text().await };
        let answer = answer
            .await
            .map_err(|error| failure("", format!("{error:?}")))?;
        let answer: Value = serde_json::from_str(&answer)
            .map_err(|error| failure("", format!("{error} in {answer}")))?;
        let value = &answer["value"];
        match value["error"].as_str() {
            // The lines after the first one are addresses in the program of chromedriver.
            Some(code) => Err(failure(
                code,
                text(&value["message"]).lines().take(1).collect(),
            )),
            None => Ok(value.clone()),
        }
    }

    async fn get(&self, path: &str) -> Result<Value, Failure> {
        self.send(Method::GET, path, None).await
    }

    async fn post(&self, path: &str, body: Value) -> Result<Value, Failure> {
        self.send(Method::POST, path, Some(body)).await
    }

    /// Opens a page, and waits until it is loaded.
    pub async fn open(&self, url: &str) -> Result<(), Failure> {
        self.post("/url", json!({"url": url})).await.map(drop)
    }

    /// The address of the page.
    pub async fn url(&self) -> Result<String, Failure> {
        Ok(text(&self.get("/url").await?))
    }

    /// The value that a script returns.
    pub async fn script(&self, script: &str) -> Result<Value, Failure> {
        let body = json!({"script": script, "args": []});
        self.post("/execute/sync", body).await
    }

    /// Clicks on the first element that a CSS selector finds.
    pub async fn click(&self, selector: &str) -> Result<(), Failure> {
        let element = self.find(selector).await?;
        let path = format!("/element/{element}/click");
        self.post(&path, json!({})).await.map(drop)
    }

    /// Types into the first element that a CSS selector finds.
    pub async fn fill(&self, selector: &str, keys: &str) -> Result<(), Failure> {
        let element = self.find(selector).await?;
        self.keys(&element, keys).await
    }

    /// Types into the element that has the focus.
    pub async fn press(&self, keys: &str) -> Result<(), Failure> {
        let element = text(&self.get("/element/active").await?[ELEMENT]);
        self.keys(&element, keys).await
    }

    async fn find(&self, selector: &str) -> Result<String, Failure> {
        let wanted = json!({"using": "css selector", "value": selector});
        Ok(text(&self.post("/element", wanted).await?[ELEMENT]))
    }

    async fn keys(&self, element: &str, keys: &str) -> Result<(), Failure> {
        let path = format!("/element/{element}/value");
        self.post(&path, json!({"text": keys})).await.map(drop)
    }

    /// The entries of the console since the last call.
    pub async fn log(&self) -> Result<Value, Failure> {
        self.post("/se/log", json!({"type": "browser"})).await
    }

    /// A command of Chromium's own protocol: <https://chromedevtools.github.io/devtools-protocol/>.
    pub async fn command(&self, method: &str, params: Value) -> Result<Value, Failure> {
        let body = json!({"cmd": method, "params": params});
        self.post("/goog/cdp/execute", body).await
    }

    /// Ends the browser.
    pub async fn end(self) -> Result<(), Failure> {
        self.send(Method::DELETE, "", None).await.map(drop)
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
