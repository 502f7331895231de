//! The servers that an operator calls besides the API server: metrics, hooks and chats. No request leaves the process.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use flagger_rs::{
    shell::outside::http::Http,
    snapshot::{HttpRequest, HttpResponse},
};
use futures::FutureExt;
use serde_json::{Value, json};
use url::Url;

use super::server::Model;

/// The address of a server that answers after ten minutes.
pub const SLOW: &str = "http://slow/";

/// The addresses of all servers but the metrics server. A request to any other address is an error of the test.
const KNOWN: [&str; 6] = [
    SLOW,
    "http://slack/global",
    "http://events/all",
    "http://gate/",
    "http://end/",
    "http://flagger-loadtester.test/",
];

/// A request to a hook or a chat.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivered {
    /// The revision of the API server at that time.
    pub revision: u64,
    pub url: String,
    pub body: Value,
}

/// The answers of the servers, and the requests they received. Clones share the state.
#[derive(Clone, Default)]
pub struct FakeServers(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    received: Vec<Delivered>,
    /// The success rate, if it is not 100.
    rate: Option<f64>,
    /// The addresses that answer 403.
    forbidden: BTreeSet<&'static str>,
    /// The number of answered requests.
    answered: usize,
    /// The operator is killed before it gets the answers of these numbers, counted from 1.
    killed_at: BTreeSet<usize>,
    /// The time that an answer takes.
    delay: Duration,
}

impl FakeServers {
    /// The HTTP client of one operator. A killed operator gets no answers.
    pub fn http(&self, model: &Model, operator: &str) -> Http {
        let (this, model, operator) = (self.clone(), model.clone(), operator.to_owned());
        Http::faked(Arc::new(move |request: &HttpRequest| {
            if model.plan().is_dead(&operator) {
                return std::future::pending().boxed();
            }
            let revision = model.store().revision;
            let answer = this.answer(request, revision);
            if this.kills() {
                model.kill(&operator);
                return std::future::pending().boxed();
            }
            let delay = if request.url.0.starts_with(SLOW) {
                Duration::from_secs(600)
            } else {
                this.0.lock().unwrap().delay
            };
            if delay.is_zero() {
                return std::future::ready(Ok(answer)).boxed();
            }
            tokio::time::sleep(delay).map(|()| Ok(answer)).boxed()
        }))
    }

    /// All requests to hooks and chats so far. Panics if one went to an unknown address.
    pub fn received(&self) -> Vec<Delivered> {
        let received = self.0.lock().unwrap().received.clone();
        for request in &received {
            let is_known = KNOWN.iter().any(|known| request.url.starts_with(known));
            assert!(is_known, "no fake server has the address {}", request.url);
        }
        received
    }

    /// The number of answered requests so far.
    pub fn answered(&self) -> usize {
        self.0.lock().unwrap().answered
    }

    /// Kills the operator before it gets the answer of this number, counted from 1.
    pub fn kill_at(&self, answer: usize) {
        self.0.lock().unwrap().killed_at.insert(answer);
    }

    fn kills(&self) -> bool {
        let mut inner = self.0.lock().unwrap();
        inner.answered += 1;
        inner.killed_at.contains(&inner.answered)
    }

    /// From now on each answer takes this time.
    pub fn set_delay(&self, delay: Duration) {
        self.0.lock().unwrap().delay = delay;
    }

    /// Sets the measured success rate.
    pub fn set_success_rate(&self, rate: f64) {
        self.0.lock().unwrap().rate = Some(rate);
    }

    /// From now on this address answers 403.
    pub fn forbid(&self, url: &'static str) {
        self.0.lock().unwrap().forbidden.insert(url);
    }

    /// From now on this address answers 200 again.
    pub fn allow(&self, url: &str) {
        self.0.lock().unwrap().forbidden.remove(url);
    }

    fn answer(&self, request: &HttpRequest, revision: u64) -> HttpResponse {
        let (url, mut inner) = (&request.url.0, self.0.lock().unwrap());
        let body = if let Some(counters) = counters(url) {
            counters.to_string()
        } else if url.contains("/api/v1/query") {
            let value = if url.contains("vector%281%29") {
                1.0
            } else if url.contains("histogram_quantile") {
                0.02
            } else {
                inner.rate.unwrap_or(100.0)
            };
            let sample = json!({"metric": {}, "value": [0, value.to_string()]});
            json!({"status": "success", "data": {"resultType": "vector", "result": [sample]}})
                .to_string()
        } else {
            inner.received.push(Delivered {
                revision,
                url: url.clone(),
                body: request
                    .body
                    .as_deref()
                    .and_then(|body| serde_json::from_str(body).ok())
                    .unwrap_or_default(),
            });
            String::new()
        };
        let is_forbidden = inner.forbidden.contains(url.as_str());
        let status = if is_forbidden { 403 } else { 200 };
        HttpResponse { status, body }
    }
}

/// The answer to a query for counters; `None` if it is another request. Both versions have a thousand requests each second, and none fails.
fn counters(url: &str) -> Option<Value> {
    const PER_SECOND: i64 = 1_000;
    let url = Url::parse(url).ok()?;
    let parameter = |name: &str| {
        let mut all = url.query_pairs();
        all.find_map(|(key, value)| (key == name).then(|| value.into_owned()))
    };
    let (query, time) = (parameter("query")?, parameter("time")?.parse::<i64>().ok()?);
    let series = if query.contains("[1h:1m]") {
        let minutes = (0..=60).map(|minute: i64| {
            let requests = minute * 60 * PER_SECOND;
            json!([time - 3_600 + minute * 60, requests.to_string()])
        });
        let minutes: Vec<_> = minutes.collect();
        ["all", "good"]
            .map(|part| json!({"metric": {"flagger": part}, "values": minutes}))
            .to_vec()
    } else if query.contains("label_replace(") {
        let parts = query.split("label_replace(").skip(1);
        let value = |part: &str| {
            let name = part.split("\"flagger\", \"").nth(1)?.split('"').next()?;
            let offset = part.split("offset ").nth(1)?.split('s').next()?;
            let at = time - offset.parse::<i64>().ok()?;
            let value = if name.ends_with("newest") {
                at
            } else {
                at * PER_SECOND
            };
            let pod = name.split(' ').next()?;
            let labels = json!({"flagger": name, "pod": pod});
            Some(json!({"metric": labels, "value": [time, value.to_string()]}))
        };
        parts.filter_map(value).collect()
    } else {
        return None;
    };
    Some(json!({"status": "success", "data": {"resultType": "vector", "result": series}}))
}
