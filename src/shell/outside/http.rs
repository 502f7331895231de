//! Calls of webhooks, metric servers and chats. Each call has a deadline and a limit for the size of its answer, and sends credentials to
//! no other host than the one it names. A redirect to another host is not followed.

mod client;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::future::BoxFuture;
use reqwest::Response;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep, timeout},
};

use crate::{
    shell::{
        clock,
        lock::lock,
        telemetry::operator_metrics::{CallInFlight, OperatorMetrics},
    },
    snapshot::{Destinations, Failure, HttpRequest, HttpResponse, Method},
};
use client::{Clients, describe};

/// The most bytes that are read of an answer.
const MAX_BODY: usize = 1 << 20;
/// The header in which a server without `Retry-After` says after how many seconds it accepts calls again. This is its meaning at
/// Datadog. Other servers send an instant, a very large number of seconds: then the call is not repeated, which does no harm.
const RATE_LIMIT_RESET: &str = "x-ratelimit-reset";
/// The longest pause between two attempts of a call without a budget.
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// The most calls under way at the same time.
const MAX_CALLS: usize = 512;
/// The most calls under way to one server, so that a hanging server does not delay calls to the others.
const MAX_CALLS_TO_ONE_HOST: usize = 64;

/// Sends calls. Clones share connections and limits.
#[derive(Clone)]
pub struct Http {
    clients: Clients,
    calls: Arc<Semaphore>,
    hosts: Arc<Mutex<HashMap<String, Arc<Semaphore>>>>,
    metrics: Option<OperatorMetrics>,
    fake: Option<Arc<FakeServers>>,
}

impl Default for Http {
    /// Sends calls to all destinations, without counting them.
    fn default() -> Self {
        Self {
            clients: Clients::default(),
            calls: Arc::new(Semaphore::new(MAX_CALLS)),
            hosts: Arc::default(),
            metrics: None,
            fake: None,
        }
    }
}

/// A call's place among the calls under way.
struct Slot {
    _permits: [Option<OwnedSemaphorePermit>; 2],
    _counted: Option<CallInFlight>,
}

/// A stand-in for all servers: returns the answer to a call, or why there is none.
pub type FakeServers =
    dyn Fn(&HttpRequest) -> BoxFuture<'static, Result<HttpResponse, String>> + Send + Sync;

/// The answer to one attempt.
struct Answer {
    response: HttpResponse,
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
    /// Sends calls and counts those under way. Users may have these destinations called.
    pub fn new(metrics: OperatorMetrics, destinations: Destinations) -> Self {
        Self {
            clients: Clients::new(destinations),
            metrics: Some(metrics),
            ..Self::default()
        }
    }

    /// Sends nothing: `fake` answers every attempt. For tests on virtual time, which sockets do not follow.
    pub fn faked(fake: Arc<FakeServers>) -> Self {
        Self {
            fake: Some(fake),
            ..Self::default()
        }
    }

    /// Sends a call and reads the answer. Repeats temporary failures as often as the request allows.
    ///
    /// # Errors
    /// No attempt had an answer.
    pub async fn send(&self, request: &HttpRequest) -> Result<HttpResponse, Failure> {
        let (mut end, mut attempts) = (None, 0_u64);
        loop {
            // The budget begins when the first attempt is sent: waiting for a slot is not the server's fault.
            let slot = self.slot(&request.url.0).await;
            let end =
                *end.get_or_insert_with(|| request.budget.map(|budget| Instant::now() + budget));
            let left = end.map_or(request.timeout, |end| end - Instant::now());
            let answer = timeout(left.min(request.timeout), self.attempt(request)).await;
            let answer = answer.unwrap_or_else(|_| {
                let seconds = request.timeout.as_secs_f64();
                Err(AttemptError::temporary(format!(
                    "context deadline exceeded: no answer within {seconds} s"
                )))
            });
            drop(slot);
            attempts += 1;
            let pause = pause(&answer, request, attempts)
                // With a budget, an attempt that would come too late is not made.
                .filter(|pause| end.is_none_or(|end| *pause < end - Instant::now()));
            let Some(pause) = pause else {
                return answer
                    .map(|answer| answer.response)
                    .map_err(|AttemptError { why, .. }| Failure { why, attempts });
            };
            sleep(pause).await;
        }
    }

    /// Waits until a call to this address may be sent.
    async fn slot(&self, address: &str) -> Slot {
        let host = url::Url::parse(address)
            .map(|url| format!("{:?} {:?}", url.host(), url.port_or_known_default()))
            .unwrap_or_default();
        let host = {
            let mut hosts = lock(&self.hosts);
            // Hosts without a call that is under way or waits are removed.
            hosts.retain(|_, calls| Arc::strong_count(calls) > 1);
            let limit = || Arc::new(Semaphore::new(MAX_CALLS_TO_ONE_HOST));
            hosts.entry(host).or_insert_with(limit).clone()
        };
        // These fail only for closed semaphores, and nothing closes them.
        let of_host = host.acquire_owned().await.ok();
        let of_all = self.calls.clone().acquire_owned().await.ok();
        Slot {
            _permits: [of_host, of_all],
            _counted: self.metrics.as_ref().map(OperatorMetrics::call_in_flight),
        }
    }

    async fn attempt(&self, request: &HttpRequest) -> Result<Answer, AttemptError> {
        if let Some(fake) = &self.fake {
            let response = fake(request).await.map_err(AttemptError::temporary)?;
            return Ok(Answer {
                response,
                retry_after: None,
            });
        }
        let client = self.clients.get(request).map_err(AttemptError::lasting)?;
        let mut call = match request.method {
            Method::Get => client.get(&request.url.0),
            Method::Post => client.post(&request.url.0),
            Method::Put => client.put(&request.url.0),
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
        let body = read(response).await?;
        let response = HttpResponse { status, body };
        Ok(Answer {
            response,
            retry_after,
        })
    }
}

/// Reads the body of an answer.
async fn read(mut response: Response) -> Result<String, AttemptError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > MAX_BODY {
            let why = "the answer is larger than 1 MiB".to_owned();
            return Err(AttemptError::lasting(why));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(String::from_utf8_lossy(&body).into_owned())
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
    let pause = wanted.unwrap_or(backoff);
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
