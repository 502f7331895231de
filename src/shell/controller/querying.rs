//! A query of a metric server under way: the requests that it needs, one after the other.

use std::{panic::resume_unwind, sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::time::sleep;

use crate::{
    metrics::{MetricError, Next, Query},
    rollout::Answer,
    shell::outside::{
        http::{Caller, Http},
        tokens::Tokens,
    },
    snapshot::{Failure, HttpRequest, HttpResponse},
};

/// The answers to the requests of a query.
type Replies = Vec<Result<HttpResponse, MetricError>>;

/// A query, and the way to ask it.
pub struct Querying {
    /// Sends the requests.
    pub http: Http,
    /// Prove the identity of the query, if it has one.
    pub tokens: Arc<Tokens>,
    /// The namespace of the canary.
    pub namespace: String,
    /// The query.
    pub query: Query,
    /// When it began.
    pub begun: Timestamp,
}

impl Querying {
    /// Gets the value. Of a query that needs several requests, the rest is sent even if nobody wants the value any more, because the last
    /// request removes what the first one has created.
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
    /// A proof that the server does not accept is not used again.
    async fn send(&self, mut request: Box<HttpRequest>, mut replies: Replies) -> (Next, Replies) {
        let identity = self.query.server.identity();
        if let Some(identity) = identity {
            match self.tokens.pass(&self.namespace, identity).await {
                Ok(pass) => *request = pass.on(*request),
                Err(why) => {
                    replies.push(Err(MetricError::NoAnswer(why.to_string())));
                    return (self.query.next(self.begun, &replies), replies);
                }
            }
        }
        let (query, begun) = (self.query.clone(), self.begun);
        let read = move |answer: Result<HttpResponse, Failure>| {
            let is_rejected = answer.as_ref().is_ok_and(|answer| answer.status == 401);
            replies.push(answer.map_err(|why| MetricError::NoAnswer(why.to_string())));
            let (next, replies) = match query.next(begun, &replies) {
                // Nobody keeps the answers, which may be long.
                value @ Next::Value(_) => (value, Vec::new()),
                next @ Next::Send(..) => (next, replies),
            };
            (next, replies, is_rejected)
        };
        let caller = Caller::Namespace(&self.namespace);
        let (next, replies, is_rejected) = self.http.ask(caller, &request, read).await;
        if let Some(identity) = identity.filter(|_| is_rejected) {
            self.tokens.reject(&self.namespace, identity);
        }
        (next, replies)
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
