//! Calls to other servers as values: the pure modules build them, the shell sends them.

use std::{fmt, time::Duration};

use super::secret::Secret;

/// One HTTP call. The sender caps the size of the answer and drops credentials when it follows a redirect to another host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HttpRequest {
    /// The method.
    pub method: Method,
    /// The URL with its query string.
    pub url: Secret,
    /// The headers; names are sent in this case.
    pub headers: Vec<(String, Secret)>,
    /// The body, if there is one.
    pub body: Option<String>,
    /// The longest time that one attempt may take.
    pub timeout: Duration,
    /// How often a failed attempt is repeated; 0 means never.
    pub retries: u32,
    /// The longest time that all attempts and the pauses between them may take; `None` if the answer is not needed within a step. A
    /// server that asks for a longer pause (`Retry-After`) is not called again.
    pub budget: Option<Duration>,
    /// The proxy for this call. It replaces the proxy of the environment variables.
    pub proxy: Option<Secret>,
    /// Whether to accept any certificate of the server.
    pub insecure_skip_verify: bool,
    /// The author of the address.
    pub origin: Origin,
}

/// The author of a call's address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// A user, in an object of a namespace. The operator's [`super::Destinations`] limit such calls.
    #[default]
    User,
    /// The administrator, in a flag of the operator. Such calls are not limited.
    Administrator,
    /// The address has no author: the call goes to the API server, through the operator's own client and with the operator's rights. Of the
    /// URL, only the path and the query string are used.
    ApiServer,
}

/// The HTTP methods in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Method {
    /// GET
    Get,
    /// POST
    Post,
    /// PUT
    Put,
    /// DELETE
    Delete,
}

/// The greatest length of a body, in bytes.
pub const LONGEST_BODY: usize = 1 << 20;

/// The answer of a server, with any status. The body of an error is cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpResponse {
    /// The status code.
    pub status: u16,
    /// The body, as text (invalid UTF-8 replaced).
    pub body: String,
}

impl HttpResponse {
    /// Whether another attempt may get a better answer. (Flagger: the default policy of `hashicorp/go-retryablehttp`.)
    pub fn is_worth_a_retry(&self) -> bool {
        let status = self.status;
        // AWS throttles with status 400.
        let is_throttled = status == 400 && self.body.contains("ThrottlingException");
        is_throttled || status == 429 || status == 0 || (status >= 500 && status != 501)
    }
}

/// The reason why no answer came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The error of the last attempt, without credentials.
    pub why: String,
    /// How many attempts were made.
    pub attempts: u64,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}
