//! An outside call as a value: built by the pure modules, sent by `shell::http`.

use std::{fmt, time::Duration};

/// A value that must never be printed: credentials, and addresses that carry them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// One HTTP call. Bodies of answers are capped by the sender, redirects carry no credentials to another host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HttpRequest {
    /// `GET`, `POST` or `PUT`.
    pub method: Method,
    /// The whole URL, its query string included.
    pub url: Secret,
    /// Header names in the case in which they are to be sent.
    pub headers: Vec<(String, Secret)>,
    /// What is sent, if anything.
    pub body: Option<String>,
    /// The longest that one attempt may take.
    pub timeout: Duration,
    /// How often a failed attempt is repeated (0: never).
    pub retries: u32,
    /// The longest that all attempts and the pauses between them may take, for a question of a step, whose answer counts now. A server
    /// that wants no more calls before that time is over is not called again.
    pub budget: Option<Duration>,
    /// The proxy for this call, in place of the one that the environment names.
    pub proxy: Option<Secret>,
    /// Whether the server's certificate goes unchecked.
    pub insecure_skip_verify: bool,
}

/// The HTTP methods that we use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Method {
    /// Reads.
    Get,
    /// Sends a body.
    Post,
    /// Changes what is there.
    Put,
}

/// What a server answered: any status, the body cut at the cap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpResponse {
    /// The status code.
    pub status: u16,
    /// The body, as text (invalid UTF-8 replaced).
    pub body: String,
}

/// Why a call came to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What went wrong in the last attempt, fit to be shown.
    pub why: String,
    /// How many attempts were made.
    pub attempts: u64,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}
