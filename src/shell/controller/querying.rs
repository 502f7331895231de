//! A query of a metric server under way: the requests that it needs, one after the other.

use std::{panic::resume_unwind, sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::time::sleep;

use crate::{
    metrics::{MetricError, Next, Query},
    rollout::Answer,
    shell::outside::tokens::Tokens,
    snapshot::{Failure, HttpRequest, HttpResponse},
};

/// The answers to the requests of a query.
type Replies = Vec<Result<HttpResponse, MetricError>>;

/// A query, and the way to ask it.
pub struct Querying {
    /// Sends the requests, with a proof of the query's identity.
    pub tokens: Arc<Tokens>,
    /// The namespace of the canary.
    pub namespace: String,
    /// The query.
    pub query: Query,
    /// When it began.
    pub begun: Timestamp,
}

impl Querying {
    /// Gets the value. If a query needs several requests, all are sent even if the value is not needed any more, because the last request
    /// removes the object that the first one has created.
    pub async fn value(self) -> Answer {
        let request = Box::new(self.query.request(self.begun));
        match self.send(request, Vec::new()).await {
            (Next::Value(value), _) => Answer::Value(value),
            (Next::Send(request, pause), replies) => {
                let rest = tokio::spawn(self.rest(request, pause, replies)).await;
                rest.unwrap_or_else(|error| resume_unwind(error.into_panic()))
            }
        }
    }

    /// Sends a request. Returns what to do next, and all answers.
    async fn send(&self, request: Box<HttpRequest>, mut replies: Replies) -> (Next, Replies) {
        let (query, begun) = (self.query.clone(), self.begun);
        let read = move |answer: Result<HttpResponse, Failure>| {
            replies.push(answer.map_err(|why| MetricError::NoAnswer(why.to_string())));
            match query.next(begun, &replies) {
                // Drop the answers, which may be long: only the value is needed.
                value @ Next::Value(_) => (value, Vec::new()),
                next @ Next::Send(..) => (next, replies),
            }
        };
        let identity = self.query.server.identity();
        self.tokens
            .ask(&self.namespace, identity, *request, read)
            .await
    }

    async fn rest(
        self,
        mut request: Box<HttpRequest>,
        mut pause: Duration,
        mut replies: Replies,
    ) -> Answer {
        loop {
            sleep(pause).await;
            match self.send(request, replies).await {
                (Next::Value(value), _) => return Answer::Value(value),
                (Next::Send(next, after), all) => (request, pause, replies) = (next, after, all),
            }
        }
    }
}

#[cfg(test)]
mod tests;
