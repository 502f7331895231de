//! The servers that an operator calls besides the API server: metrics, hooks, chats. No call leaves the process.

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

use super::server::Model;

/// What takes ten minutes for each answer.
pub const SLOW: &str = "http://slow/";

/// A call that came in, other than of a metrics server.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivered {
    pub url: String,
    pub body: Value,
}

/// What the servers answer, and what they were told. Clones are the same.
#[derive(Clone, Default)]
pub struct Outside(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    told: Vec<Delivered>,
    /// The success rate that is measured, in place of 100.
    rate: Option<f64>,
    /// The addresses that answer 403.
    closed: BTreeSet<&'static str>,
    /// How many calls were answered.
    answered: usize,
    /// With this answer, counted from 1, the operator dies.
    last: Option<usize>,
}

impl Outside {
    /// The client of one operator: it dies with that.
    pub fn http(&self, model: &Model, operator: &str) -> Http {
        let (this, model, operator) = (self.clone(), model.clone(), operator.to_owned());
        Http::faked(Arc::new(move |request: &HttpRequest| {
            if model.plan().is_dead(&operator) {
                return std::future::pending().boxed();
            }
            let answer = this.answer(request);
            if this.is_last() {
                model.kill(&operator);
                return std::future::pending().boxed();
            }
            if request.url.0.starts_with(SLOW) {
                let minutes = tokio::time::sleep(Duration::from_secs(600));
                return minutes.map(|()| Ok(answer)).boxed();
            }
            std::future::ready(Ok(answer)).boxed()
        }))
    }

    pub fn told(&self) -> Vec<Delivered> {
        self.0.lock().unwrap().told.clone()
    }

    /// How many calls were answered so far.
    pub fn answered(&self) -> usize {
        self.0.lock().unwrap().answered
    }

    /// Whoever gets the answer of this number, counted from 1, dies of it.
    pub fn last(&self, answer: usize) {
        self.0.lock().unwrap().last = Some(answer);
    }

    fn is_last(&self) -> bool {
        let mut inner = self.0.lock().unwrap();
        inner.answered += 1;
        inner.last == Some(inner.answered)
    }

    /// From now on this is measured.
    pub fn measure(&self, rate: f64) {
        self.0.lock().unwrap().rate = Some(rate);
    }

    /// From now on this address answers 403 …
    pub fn close(&self, url: &'static str) {
        self.0.lock().unwrap().closed.insert(url);
    }

    /// … and from now on 200 again.
    pub fn open(&self, url: &str) {
        self.0.lock().unwrap().closed.remove(url);
    }

    fn answer(&self, request: &HttpRequest) -> HttpResponse {
        let (url, mut inner) = (&request.url.0, self.0.lock().unwrap());
        let body = if url.contains("/api/v1/query") {
            let value = if url.contains("vector%281%29") {
                1.0
            } else if url.contains("_bucket") {
                0.02
            } else {
                inner.rate.unwrap_or(100.0)
            };
            let sample = json!({"metric": {}, "value": [0, value.to_string()]});
            json!({"status": "success", "data": {"resultType": "vector", "result": [sample]}})
                .to_string()
        } else {
            inner.told.push(Delivered {
                url: url.clone(),
                body: request
                    .body
                    .as_deref()
                    .and_then(|body| serde_json::from_str(body).ok())
                    .unwrap_or_default(),
            });
            String::new()
        };
        let is_closed = inner.closed.contains(url.as_str());
        let status = if is_closed { 403 } else { 200 };
        HttpResponse { status, body }
    }
}
