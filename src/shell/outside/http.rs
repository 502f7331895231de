//! Calls of webhooks, metric servers and chats. Each call has a deadline and a limit for the size of its answer, and sends credentials to
//! no other host than the one it names. A redirect to another host is not followed.

mod client;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use futures::future::BoxFuture;
use reqwest::Response;
use tokio::time::{Instant, sleep, timeout};

use super::{
    fair_queue::{Claim, Limits},
    large_answers::{LARGE, LargeAnswers, LargePlace, TIME},
    places::{Place, Places},
};
use crate::{
    shell::{
        clock,
        telemetry::operator_metrics::{CallInFlight, OperatorMetrics},
    },
    snapshot::{Destinations, Failure, HttpRequest, HttpResponse, LONGEST_BODY, Method, Origin},
};
use client::{Clients, describe};

/// The header with the number of seconds after which a server without `Retry-After` accepts calls again. This is its meaning at Datadog.
/// Other servers send an instant, a very large number of seconds: then the call is not repeated, which does no harm.
const RATE_LIMIT_RESET: &str = "x-ratelimit-reset";
/// The longest pause between two attempts of a call without a budget.
const MAX_PAUSE: Duration = Duration::from_secs(30);
/// The shortest pause, whatever a server asks for.
const MIN_PAUSE: Duration = Duration::from_millis(100);

/// The limits of the calls of all canaries. With them, a server that hangs delays no call to another server, and a namespace delays no call
/// of another namespace. The total limits the memory: a connection may keep 400 KB of an unfinished head of an answer.
const OF_CANARIES: Limits = Limits {
    total: 256,
    namespace: 64,
    host: 64,
};
/// The limits of the operator's own calls.
const OWN: Limits = Limits {
    total: 128,
    namespace: 64,
    host: 128,
};

/// Sends calls. Clones share connections and limits.
#[derive(Clone)]
pub struct Http {
    clients: Clients,
    of_canaries: Places,
    own: Places,
    large: LargeAnswers,
    metrics: Option<OperatorMetrics>,
    /// Sends the calls that go to the API server.
    api_server: Option<Arc<Servers>>,
    fake: Option<Arc<Servers>>,
}

impl Default for Http {
    /// Sends calls to all destinations, without counting them.
    fn default() -> Self {
        Self {
            clients: Clients::default(),
            of_canaries: Places::new(OF_CANARIES),
            own: Places::new(OWN),
            large: LargeAnswers::default(),
            metrics: None,
            api_server: None,
            fake: None,
        }
    }
}

/// The party for which a call is made: it shares the places with others.
#[derive(Clone, Copy, Debug)]
pub enum Caller<'a> {
    /// The canaries of this namespace.
    Namespace(&'a str),
    /// The operator itself.
    Operator,
}

impl Caller<'_> {
    /// The name of the party in queues. No namespace has the name of the operator.
    const fn name(&self) -> &str {
        match self {
            Self::Namespace(name) => name,
            Self::Operator => "",
        }
    }
}

/// A call's place among the calls under way.
struct Slot {
    _place: Place,
    _counted: Option<CallInFlight>,
}

/// Returns the answer of some servers to a call, or why there is none.
pub type Servers =
    dyn Fn(&HttpRequest) -> BoxFuture<'static, Result<HttpResponse, String>> + Send + Sync;

/// The answer to one attempt.
struct Answer {
    response: HttpResponse,
    /// The place of a large answer.
    place: Option<LargePlace>,
    /// The time after which the server accepts the next call; `None` if it did not ask for a pause.
    retry_after: Option<Duration>,
}

/// The reason why an attempt had no answer.
struct AttemptError {
    /// Whether another attempt may succeed.
    is_temporary: bool,
    why: String,
}

impl AttemptError {
    const fn temporary(why: String) -> Self {
        Self {
            is_temporary: true,
            why,
        }
    }

    const fn lasting(why: String) -> Self {
        Self {
            is_temporary: false,
            why,
        }
    }
}

impl From<reqwest::Error> for AttemptError {
    fn from(error: reqwest::Error) -> Self {
        Self {
            is_temporary: client::is_temporary(&error),
            why: describe(&error),
        }
    }
}

impl Http {
    /// Creates a client that counts the calls under way. Calls of users may go to these destinations only.
    pub fn new(metrics: OperatorMetrics, destinations: Destinations) -> Self {
        Self {
            metrics: Some(metrics),
            ..Self::to(destinations)
        }
    }

    /// Creates a client that does not count calls. Calls of users may go to these destinations only.
    pub fn to(destinations: Destinations) -> Self {
        Self {
            clients: Clients::new(destinations),
            ..Self::default()
        }
    }

    /// Sends calls to the API server in this way.
    #[must_use]
    pub fn with_api_server(self, api_server: Arc<Servers>) -> Self {
        Self {
            api_server: Some(api_server),
            ..self
        }
    }

    /// Sends nothing: `fake` answers every attempt. For tests in virtual time, because sockets work in real time.
    pub fn faked(fake: Arc<Servers>) -> Self {
        Self {
            fake: Some(fake),
            ..Self::default()
        }
    }

    /// Sends a call of the operator itself. See [`Self::send_for`].
    ///
    /// # Errors
    /// No attempt had an answer.
    pub async fn send(&self, request: &HttpRequest) -> Result<HttpResponse, Failure> {
        self.send_for(Caller::Operator, request).await
    }

    /// Sends a call and reads the answer. Repeats temporary failures as often as the request allows.
    ///
    /// # Errors
    /// No attempt had an answer.
    pub async fn send_for(
        &self,
        caller: Caller<'_>,
        request: &HttpRequest,
    ) -> Result<HttpResponse, Failure> {
        let answer = self.answer(caller, request).await;
        answer.map(|answer| answer.response)
    }

    /// Sends a call, and returns the result of `read` for the answer, so that the body is dropped early.
    pub async fn ask<T: Send + 'static>(
        &self,
        caller: Caller<'_>,
        request: &HttpRequest,
        read: impl FnOnce(Result<HttpResponse, Failure>) -> T + Send + 'static,
    ) -> T {
        match self.answer(caller, request).await {
            Ok(Answer {
                response,
                place: Some(place),
                ..
            }) => self.large.read(place, move || read(Ok(response))).await,
            answer => read(answer.map(|answer| answer.response)),
        }
    }

    async fn answer(&self, caller: Caller<'_>, request: &HttpRequest) -> Result<Answer, Failure> {
        let (mut end, mut attempts) = (None, 0_u64);
        loop {
            // The budget begins when the first attempt is sent: the server does not cause the wait for a slot.
            let slot = self.slot(caller, &request.url.0).await;
            let end =
                *end.get_or_insert_with(|| request.budget.map(|budget| Instant::now() + budget));
            let left = end.map_or(request.timeout, |end| end - Instant::now());
            let attempt = self.attempt(caller, request);
            let answer = timeout(left.min(request.timeout), attempt).await;
            let answer = answer.unwrap_or_else(|_| {
                let seconds = request.timeout.as_secs_f64();
                Err(AttemptError::temporary(format!(
                    "context deadline exceeded: no answer within {seconds} s"
                )))
            });
            drop(slot);
            attempts += 1;
            let pause = pause(&answer, request, attempts)
                // A request with a time budget is not repeated if the attempt would come too late.
                .filter(|pause| end.is_none_or(|end| *pause < end - Instant::now()));
            let Some(pause) = pause else {
                return answer.map_err(|AttemptError { why, .. }| Failure { why, attempts });
            };
            drop(answer);
            sleep(pause).await;
        }
    }

    /// Waits until a call to this address may be sent.
    async fn slot(&self, caller: Caller<'_>, address: &str) -> Slot {
        let host = url::Url::parse(address)
            .map(|url| format!("{:?} {:?}", url.host(), url.port_or_known_default()))
            .unwrap_or_default();
        let places = match caller {
            Caller::Namespace(_) => &self.of_canaries,
            Caller::Operator => &self.own,
        };
        let claim = Claim {
            namespace: caller.name().to_owned(),
            host,
        };
        Slot {
            _place: places.take(claim).await,
            _counted: self.metrics.as_ref().map(OperatorMetrics::call_in_flight),
        }
    }

    async fn attempt(
        &self,
        caller: Caller<'_>,
        request: &HttpRequest,
    ) -> Result<Answer, AttemptError> {
        let servers = match request.origin {
            Origin::ApiServer => self.fake.as_ref().or(self.api_server.as_ref()),
            Origin::User | Origin::Administrator => self.fake.as_ref(),
        };
        if let Some(servers) = servers {
            let response = servers(request).await.map_err(AttemptError::temporary)?;
            return Ok(Answer {
                response,
                place: None,
                retry_after: None,
            });
        }
        let client = self.clients.get(request).map_err(AttemptError::lasting)?;
        let mut call = match request.method {
            Method::Get => client.get(&request.url.0),
            Method::Post => client.post(&request.url.0),
            Method::Put => client.put(&request.url.0),
            Method::Delete => client.delete(&request.url.0),
        };
        for (name, value) in &request.headers {
            call = call.header(name, &value.0);
        }
        if let Some(body) = &request.body {
            call = call.body(body.clone());
        }
        let response = call.send().await?;
        let status = response.status().as_u16();
        let header = |name| response.headers().get(name)?.to_str().ok();
        let retry_after = header("retry-after")
            .and_then(|value| retry_after(value, clock::now()))
            .or_else(|| request.budget.and(seconds(header(RATE_LIMIT_RESET)?)))
            .filter(|_| matches!(status, 429 | 503));
        let (body, place) = self.read(caller, response).await?;
        let response = HttpResponse { status, body };
        Ok(Answer {
            response,
            place,
            retry_after,
        })
    }

    /// Reads the body of an answer. If it is large, waits for a place before it reads on; meanwhile the server has to wait, too.
    async fn read(
        &self,
        caller: Caller<'_>,
        mut response: Response,
    ) -> Result<(String, Option<LargePlace>), AttemptError> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            body.extend_from_slice(&chunk);
            if body.len() > LARGE {
                let place = self.large.place(caller.name()).await;
                let rest = timeout(TIME, rest(response, body)).await;
                let text =
                    rest.unwrap_or_else(|_| Err(AttemptError::lasting(TOO_SLOW.to_owned())))?;
                return Ok((text, Some(place)));
            }
        }
        Ok((text(body), None))
    }
}

/// The error about a server that sends a large answer too slowly. Without a limit, the answer would keep a place that other answers wait
/// for.
const TOO_SLOW: &str = "the answer is larger than 16 KiB, and its rest did not arrive within 10 s";

/// Reads the rest of a body. The body of an error is cut.
async fn rest(mut response: Response, mut body: Vec<u8>) -> Result<String, AttemptError> {
    let is_error = !response.status().is_success();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > LONGEST_BODY {
            // Of an error, the status and the beginning are enough.
            if is_error {
                break;
            }
            let why = "the answer is larger than 1 MiB".to_owned();
            return Err(AttemptError::lasting(why));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(text(body))
}

/// Replaces invalid UTF-8. A valid text is not copied.
fn text(body: Vec<u8>) -> String {
    String::from_utf8(body)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// Returns how long to wait before the next attempt; `None` if there is none.
fn pause(
    answer: &Result<Answer, AttemptError>,
    request: &HttpRequest,
    attempts: u64,
) -> Option<Duration> {
    let wanted = match answer {
        Ok(answer) if answer.response.is_worth_a_retry() => answer.retry_after,
        Err(error) if error.is_temporary => None,
        Ok(_) | Err(_) => return None,
    };
    if attempts > u64::from(request.retries) {
        return None;
    }
    let backoff = Duration::from_secs(1 << (attempts - 1).min(5));
    let pause = wanted.unwrap_or(backoff).max(MIN_PAUSE);
    Some(if request.budget.is_some() {
        pause
    } else {
        pause.min(MAX_PAUSE)
    })
}

/// Reads a `Retry-After`: seconds, or a date.
fn retry_after(value: &str, now: jiff::Timestamp) -> Option<Duration> {
    if let Some(seconds) = seconds(value) {
        return Some(seconds);
    }
    let date = jiff::fmt::rfc2822::parse(value).ok()?.timestamp();
    // A date in the past asks for no pause.
    Some(Duration::try_from(date.duration_since(now)).unwrap_or_default())
}

fn seconds(value: &str) -> Option<Duration> {
    value.trim().parse().ok().map(Duration::from_secs)
}
