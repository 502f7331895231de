//! Calls of the outside: each with a deadline and a cap on what is read, none with credentials for a host that was not meant.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::future::BoxFuture;
use reqwest::{Client, redirect};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep, timeout},
};

use super::{
    clock,
    meters::{Answering, Meters},
};
use crate::snapshot::{Failure, HttpRequest, HttpResponse, Method, excerpt};

/// What is read of an answer at most.
const BODY: usize = 1 << 20;
/// In so many seconds questions are taken again, where it is not `Retry-After` that says so. (Datadog's; that others mean an instant by
/// it does no harm, since no question waits so long.)
const RESET: &str = "x-ratelimit-reset";
/// As many redirects are followed.
const REDIRECTS: usize = 10;
/// The longest pause between two attempts.
const PAUSE: Duration = Duration::from_secs(30);

/// As many calls are under way at once.
const CALLS: usize = 512;
/// As many of them to one server, so that one that hangs does not hold up those of the others.
const CALLS_OF_A_HOST: usize = 64;

/// Sends calls.
#[derive(Clone)]
pub struct Http {
    clients: Arc<Mutex<HashMap<Variant, Client>>>,
    calls: Arc<Semaphore>,
    hosts: Arc<Mutex<HashMap<String, Arc<Semaphore>>>>,
    meters: Option<Meters>,
    played: Option<Arc<Play>>,
}

impl Default for Http {
    /// Sends calls, and counts none.
    fn default() -> Self {
        Self {
            clients: Arc::default(),
            calls: Arc::new(Semaphore::new(CALLS)),
            hosts: Arc::default(),
            meters: None,
            played: None,
        }
    }
}

/// A call's place among those that may be under way.
struct Place {
    _permits: [Option<OwnedSemaphorePermit>; 2],
    _counted: Option<Answering>,
}

/// Plays all servers: the answer to a call, or why there is none.
pub type Play =
    dyn Fn(&HttpRequest) -> BoxFuture<'static, Result<HttpResponse, String>> + Send + Sync;

/// What makes a client of its own necessary.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Variant {
    proxy: Option<String>,
    insecure: bool,
    /// Whether the call carries headers that are nobody else's business.
    guarded: bool,
    /// Whether it goes to this machine: past any proxy of the environment, as Go's calls do.
    local: bool,
}

impl Http {
    /// Sends calls, and counts those under way.
    pub fn new(meters: Meters) -> Self {
        Self {
            meters: Some(meters),
            ..Self::default()
        }
    }

    /// Sends nothing: every attempt is answered by `play`. For tests on virtual time, which no socket keeps to.
    pub fn played(play: Arc<Play>) -> Self {
        Self {
            played: Some(play),
            ..Self::default()
        }
    }

    /// Sends a call, again if it failed in a way that may pass, and reads the answer; or says why there is none.
    pub async fn send(&self, request: &HttpRequest) -> Result<HttpResponse, Failure> {
        let (mut end, mut attempts) = (None, 0_u64);
        loop {
            // What the first attempt waits for here is not the server's fault, and is not counted as its time.
            let place = self.place(&request.url.0).await;
            let end =
                *end.get_or_insert_with(|| request.budget.map(|budget| Instant::now() + budget));
            let left = end.map_or(request.timeout, |end| end - Instant::now());
            let answer = timeout(left.min(request.timeout), self.attempt(request)).await;
            let answer = answer.unwrap_or_else(|_| {
                Err((
                    true,
                    format!("no answer within {} s", request.timeout.as_secs_f64()),
                ))
            });
            drop(place);
            attempts += 1;
            let again = match &answer {
                Ok((response, after)) if response.is_worth_a_retry() => Some(*after),
                Err((true, _)) => Some(None),
                Ok(_) | Err(_) => None,
            };
            let backoff = Duration::from_secs(1 << (attempts - 1).min(5));
            let pause = again
                .filter(|_| attempts <= u64::from(request.retries))
                .map(|after| after.unwrap_or(backoff))
                // A question is not put again that would not be answered within its budget; a hook has none.
                .map(|pause| {
                    if end.is_some() {
                        pause
                    } else {
                        pause.min(PAUSE)
                    }
                })
                .filter(|pause| end.is_none_or(|end| *pause < end - Instant::now()));
            let Some(pause) = pause else {
                return answer
                    .map(|(response, _)| response)
                    .map_err(|(_, why)| Failure { why, attempts });
            };
            sleep(pause).await;
        }
    }

    /// Waits until a call to this address may be sent.
    async fn place(&self, address: &str) -> Place {
        let host = url::Url::parse(address)
            .map(|url| format!("{:?} {:?}", url.host(), url.port_or_known_default()))
            .unwrap_or_default();
        let host = {
            let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
            // Only those count to which a call is under way, or waits.
            hosts.retain(|_, calls| Arc::strong_count(calls) > 1);
            let limit = || Arc::new(Semaphore::new(CALLS_OF_A_HOST));
            hosts.entry(host).or_insert_with(limit).clone()
        };
        // Fails only for a semaphore that was closed, and none is.
        let of_host = host.acquire_owned().await.ok();
        let of_all = self.calls.clone().acquire_owned().await.ok();
        Place {
            _permits: [of_host, of_all],
            _counted: self.meters.as_ref().map(Meters::answering),
        }
    }

    /// One attempt: the answer and when the server wants the next; or why there is none, and whether another may help.
    async fn attempt(
        &self,
        request: &HttpRequest,
    ) -> Result<(HttpResponse, Option<Duration>), (bool, String)> {
        if let Some(play) = &self.played {
            let answer = play(request).await;
            return answer
                .map(|response| (response, None))
                .map_err(|why| (true, why));
        }
        let client = self.client(request).map_err(|why| (false, why))?;
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
        let why = |error: reqwest::Error| {
            (
                !error.is_builder() && !error.is_redirect() && !is_about_certificates(&error),
                describe(&error),
            )
        };
        let mut response = call.send().await.map_err(why)?;
        let status = response.status().as_u16();
        let header = |name| response.headers().get(name)?.to_str().ok();
        let after = header("retry-after")
            .and_then(|value| pause(value, clock::now()))
            .or_else(|| request.budget.and(seconds(header(RESET)?)));
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(why)? {
            if body.len() + chunk.len() > BODY {
                return Err((false, "the answer is larger than 1 MiB".to_owned()));
            }
            body.extend_from_slice(&chunk);
        }
        Ok((
            HttpResponse {
                status,
                body: String::from_utf8_lossy(&body).into_owned(),
            },
            after.filter(|_| matches!(status, 429 | 503)),
        ))
    }

    fn client(&self, request: &HttpRequest) -> Result<Client, String> {
        let guarded = request
            .headers
            .iter()
            .any(|(name, _)| !name.eq_ignore_ascii_case("content-type"));
        let proxy = request.proxy.as_ref().map(|proxy| proxy.0.clone());
        let host = url::Url::parse(&request.url.0)
            .ok()
            .and_then(|url| url.host().map(|host| host.to_owned()));
        let local = match &host {
            Some(url::Host::Domain(name)) => name == "localhost",
            Some(url::Host::Ipv4(address)) => address.is_loopback(),
            Some(url::Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        };
        let insecure = request.insecure_skip_verify;
        let variant = Variant {
            proxy,
            insecure,
            guarded,
            local,
        };
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&variant) {
            return Ok(client.clone());
        }
        let mut builder = Client::builder()
            // As Go writes them: some servers look no closer.
            .http1_title_case_headers()
            .tls_danger_accept_invalid_certs(variant.insecure)
            // The address that redirects may be a secret itself, as a chat's is: the next host is not told.
            .referer(false)
            .redirect(redirect::Policy::custom(move |attempt| {
                let moved = attempt.previous().last().is_some_and(|from| {
                    let bared = from.scheme() == "https" && attempt.url().scheme() != "https";
                    bared || from.host_str() != attempt.url().host_str()
                });
                if guarded && moved {
                    attempt.stop()
                } else if attempt.previous().len() > REDIRECTS {
                    attempt.error("too many redirects")
                } else {
                    attempt.follow()
                }
            }));
        if local {
            builder = builder.no_proxy();
        }
        if let Some(proxy) = &variant.proxy {
            builder = builder.proxy(
                reqwest::Proxy::all(proxy).map_err(|_| "unable to parse proxy URL".to_owned())?,
            );
        }
        let client = builder.build().map_err(|error| describe(&error))?;
        clients.insert(variant, client.clone());
        Ok(client)
    }
}

/// Whether a server's certificate was not accepted, as far down as that stands: the next attempt would meet the same.
fn is_about_certificates(error: &dyn std::error::Error) -> bool {
    std::iter::successors(Some(error), |error| error.source())
        .any(|error| error.to_string().starts_with("invalid peer certificate"))
}

/// A `Retry-After`: seconds, or a date.
fn pause(value: &str, now: jiff::Timestamp) -> Option<Duration> {
    if let Some(seconds) = seconds(value) {
        return Some(seconds);
    }
    let date = jiff::fmt::rfc2822::parse(value).ok()?.timestamp();
    // A date that has passed asks for no pause.
    Some(Duration::try_from(date.duration_since(now)).unwrap_or_default())
}

fn seconds(value: &str) -> Option<Duration> {
    value.trim().parse().ok().map(Duration::from_secs)
}

/// An error and its causes, without the URL, which may carry a secret.
fn describe(error: &reqwest::Error) -> String {
    let mut text = if error.is_connect() {
        "cannot connect".to_owned()
    } else if error.is_redirect() {
        "too many redirects".to_owned()
    } else if error.is_body() || error.is_decode() {
        "the answer broke off".to_owned()
    } else {
        "the call failed".to_owned()
    };
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if std::error::Error::source(error).is_none() {
            text = format!("{text}: {error}");
        }
        cause = error.source();
    }
    excerpt(&text)
}

#[cfg(test)]
mod tests {
    use wiremock::{Mock, MockServer, ResponseTemplate, matchers::path};

    use super::*;
    use crate::snapshot::Secret;

    fn get(url: String) -> HttpRequest {
        HttpRequest {
            method: Method::Get,
            url: Secret(url),
            headers: vec![("Authorization".to_owned(), Secret("Bearer hush".to_owned()))],
            body: None,
            timeout: Duration::from_secs(30),
            retries: 0,
            budget: None,
            proxy: None,
            insecure_skip_verify: false,
        }
    }

    async fn server(at: &str, answer: ResponseTemplate) -> MockServer {
        let server = MockServer::start().await;
        Mock::given(path(at))
            .respond_with(answer)
            .mount(&server)
            .await;
        server
    }

    #[tokio::test]
    async fn an_answer_is_read_up_to_a_mebibyte() {
        let server = server(
            "/",
            ResponseTemplate::new(200).set_body_string("x".repeat(BODY + 1)),
        )
        .await;
        let answer = Http::default().send(&get(server.uri())).await;
        assert_eq!(answer.unwrap_err().why, "the answer is larger than 1 MiB");
    }

    #[tokio::test]
    async fn a_server_that_hangs_holds_up_no_other() {
        let hanging = server(
            "/",
            ResponseTemplate::new(200).set_delay(Duration::from_secs(60)),
        )
        .await;
        let other = server("/", ResponseTemplate::new(200)).await;
        let http = Http::default();
        let patient = HttpRequest {
            timeout: Duration::from_secs(60),
            ..get(hanging.uri())
        };
        let calls: Vec<_> = (0..2 * CALLS_OF_A_HOST)
            .map(|_| {
                let (http, request) = (http.clone(), patient.clone());
                tokio::spawn(async move { http.send(&request).await })
            })
            .collect();
        let under_way = async || hanging.received_requests().await.unwrap().len();
        while under_way().await < CALLS_OF_A_HOST {
            tokio::task::yield_now().await;
        }
        let answer = http.send(&get(other.uri())).await;
        assert_eq!(answer.unwrap().status, 200);
        assert_eq!(under_way().await, CALLS_OF_A_HOST, "the others wait");
        calls.iter().for_each(tokio::task::JoinHandle::abort);
    }

    #[tokio::test]
    async fn a_server_that_never_answers_is_given_up() {
        let server = server(
            "/",
            ResponseTemplate::new(200).set_delay(Duration::from_secs(60)),
        )
        .await;
        let request = HttpRequest {
            timeout: Duration::from_millis(500),
            ..get(server.uri())
        };
        let answer = Http::default().send(&request).await;
        assert_eq!(answer.unwrap_err().why, "no answer within 0.5 s");
    }

    #[tokio::test]
    async fn credentials_do_not_follow_a_redirect_to_another_host() {
        let other = server("/", ResponseTemplate::new(200)).await;
        let elsewhere = other.uri().replace("127.0.0.1", "localhost");
        let first = server(
            "/",
            ResponseTemplate::new(302).insert_header("Location", elsewhere),
        )
        .await;
        let answer = Http::default().send(&get(first.uri())).await.unwrap();
        assert_eq!(answer.status, 302);
        assert!(other.received_requests().await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_redirect_does_not_tell_the_next_host_where_it_comes_from() {
        let other = server("/", ResponseTemplate::new(200)).await;
        let elsewhere = other.uri().replace("127.0.0.1", "localhost");
        let first = server(
            "/hush",
            ResponseTemplate::new(302).insert_header("Location", elsewhere),
        )
        .await;
        let request = HttpRequest {
            headers: Vec::new(),
            ..get(format!("{}/hush?token=hush", first.uri()))
        };
        let answer = Http::default().send(&request).await.unwrap();
        assert_eq!(answer.status, 200);
        let arrived = &other.received_requests().await.unwrap()[0];
        assert!(!format!("{:?}", arrived.headers).contains("hush"));
    }

    #[test]
    fn a_server_says_when_it_wants_the_next_call_in_seconds_or_by_date() {
        let now = "2026-01-02T03:04:05Z".parse().unwrap();
        for (value, seconds) in [
            ("7", Some(7)),
            ("Fri, 02 Jan 2026 03:04:25 GMT", Some(20)),
            ("Fri, 02 Jan 2026 03:00:00 GMT", Some(0)),
            ("-7", None),
            ("soon", None),
        ] {
            assert_eq!(
                pause(value, now),
                seconds.map(Duration::from_secs),
                "{value}"
            );
        }
    }

    #[tokio::test]
    async fn what_may_pass_is_tried_again_and_what_will_not_is_not() {
        for (status, calls) in [(500, 2), (429, 2), (501, 1), (403, 1)] {
            let server = server(
                "/",
                ResponseTemplate::new(status).insert_header("Retry-After", "0"),
            )
            .await;
            let request = HttpRequest {
                retries: 1,
                ..get(server.uri())
            };
            let answer = Http::default().send(&request).await.unwrap();
            assert_eq!(answer.status, status);
            assert_eq!(
                server.received_requests().await.unwrap().len(),
                calls,
                "{status}"
            );
        }
    }

    #[tokio::test]
    async fn an_error_does_not_say_the_address() {
        let answer = Http::default()
            .send(&get("http://127.0.0.1:1/hush".to_owned()))
            .await;
        let why = answer.unwrap_err().why;
        assert!(
            why.starts_with("cannot connect") && !why.contains("hush"),
            "{why}"
        );
    }

    #[tokio::test]
    async fn a_question_of_a_step_is_asked_three_times_of_a_server_that_fails_or_is_busy_and_once_of_one_that_refuses()
     {
        for (status, calls) in [(500, 3), (503, 3), (429, 3), (400, 1), (403, 1), (200, 1)] {
            let server = server("/", ResponseTemplate::new(status)).await;
            let request = HttpRequest {
                retries: 2,
                budget: Some(Duration::from_secs(9)),
                ..get(server.uri())
            };
            let answer = Http::default().send(&request).await.unwrap();
            assert_eq!(answer.status, status);
            let arrived = server.received_requests().await.unwrap();
            assert_eq!(arrived.len(), calls, "{status}");
        }
    }

    #[tokio::test]
    async fn a_busy_server_is_asked_again_when_it_says_and_not_at_all_if_the_step_ends_before() {
        for (name, value, calls) in [
            ("Retry-After", "0", 3),
            ("X-RateLimit-Reset", "0", 3),
            ("X-RateLimit-Reset", "1", 3),
            ("Retry-After", "40", 1),
            ("X-RateLimit-Reset", "40", 1),
            ("X-RateLimit-Reset", "1577232000", 1),
            ("X-RateLimit-Reset", "18446744073709551615", 1),
        ] {
            let busy = ResponseTemplate::new(429).insert_header(name, value);
            let server = server("/", busy).await;
            let request = HttpRequest {
                retries: 2,
                budget: Some(Duration::from_secs(9)),
                ..get(server.uri())
            };
            let answer = Http::default().send(&request).await.unwrap();
            assert_eq!(answer.status, 429);
            let arrived = server.received_requests().await.unwrap();
            assert_eq!(arrived.len(), calls, "{name}: {value}");
        }
    }

    #[tokio::test]
    async fn the_attempts_of_a_question_end_with_its_budget() {
        let server = server(
            "/",
            ResponseTemplate::new(200).set_delay(Duration::from_secs(60)),
        )
        .await;
        let request = HttpRequest {
            timeout: Duration::from_millis(1_500),
            retries: 2,
            budget: Some(Duration::from_secs(4)),
            ..get(server.uri())
        };
        let failure = Http::default().send(&request).await.unwrap_err();
        // A second and a half, a pause of one, and what is left; there is no time for another pause.
        assert_eq!(failure.attempts, 2);
        assert_eq!(failure.why, "no answer within 1.5 s");
    }

    #[tokio::test]
    async fn a_failure_says_how_often_it_was_tried() {
        let nowhere = |retries| HttpRequest {
            retries,
            ..get("http://127.0.0.1:1/".to_owned())
        };
        let failure = Http::default().send(&nowhere(1)).await.unwrap_err();
        assert_eq!(failure.attempts, 2);
        let unknown = HttpRequest {
            url: Secret("ftp://127.0.0.1/".to_owned()),
            ..nowhere(5)
        };
        let failure = Http::default().send(&unknown).await.unwrap_err();
        assert_eq!(failure.attempts, 1, "no attempt would help");
    }

    #[test]
    fn a_bad_certificate_does_not_get_better() {
        let error = |text: &str| std::io::Error::other(text.to_owned());
        assert!(is_about_certificates(&error(
            "invalid peer certificate: UnknownIssuer"
        )));
        assert!(!is_about_certificates(&error("connection reset")));
    }
}
