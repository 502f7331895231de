//! Asks metric servers for a person: Services of the cluster through the API server, others from this machine.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::time::timeout;

use super::read::{Context, now};
use crate::{
    cli::{Config, client::Account},
    metrics::{Asks, MetricError, Next, Query, identity::environment::Environment},
    plan::{UNTRUSTED, Way, way},
    rollout::{Answer, Question},
    shell::{
        controller::querying::Querying,
        outside::{http::Http, tokens::Tokens},
    },
    snapshot::{Destinations, HttpRequest, HttpResponse, excerpt},
};

/// The longest time for an answer. It is short because a person waits.
const PATIENCE: Duration = Duration::from_secs(10);

/// A person who asks on behalf of a canary.
pub struct Asking<'a> {
    /// The connection to the API server.
    pub context: &'a Context,
    /// The flags of the operator.
    pub config: &'a Config,
    /// The account of the operator, if it is known.
    pub account: Option<&'a Account>,
    /// The namespace of the canary.
    pub namespace: &'a str,
    /// Whether the MetricTemplates are those of the cluster.
    pub are_trusted: bool,
}

impl Asking<'_> {
    /// The answer to a question, or the reason why it was not asked, or why no answer came.
    pub async fn ask(&self, question: &Question) -> Result<Answer, String> {
        let Question::Metric { query, .. } = question else {
            return Err("it is no question to a metric server".to_owned());
        };
        let begun = now();
        let operator = self.account.map(|account| account.namespace.as_str());
        if let Some(identity) = query.server.identity() {
            if identity.is_of_the_pod() {
                return Err("it is asked with the identity of the operator's pod".to_owned());
            }
            if !self.are_trusted {
                return Err(UNTRUSTED.to_owned());
            }
        }
        let answer = match way(&query.request(begun), operator, self.are_trusted) {
            Way::None(why) => return Err(why),
            Way::Direct => timeout(PATIENCE, self.directly(question, query, begun)).await,
            Way::ApiServer(request) => {
                timeout(
                    PATIENCE,
                    self.through_api_server(question, query, &request, begun),
                )
                .await
            }
        };
        answer.unwrap_or_else(|_| Err(format!("no answer within {} s", PATIENCE.as_secs())))
    }

    async fn directly(
        &self,
        question: &Question,
        query: &Query,
        begun: Timestamp,
    ) -> Result<Answer, String> {
        // A manifest must not reach addresses that only this machine can reach.
        let destinations = Destinations {
            link_local: false,
            loopback: false,
            ..self.config.destinations.clone()
        };
        // The operator's identity is not asked for here.
        let environment = Environment::of(|_| None);
        let tokens = Arc::new(Tokens::new(Http::to(destinations), environment));
        let answer = if matches!(query.asks, Asks::Value(_)) {
            let querying = Querying {
                tokens,
                namespace: self.namespace.to_owned(),
                query: query.clone(),
                begun,
            };
            querying.value().await
        } else {
            let question = question.clone();
            let read = move |answer| question.read(answer);
            let (request, identity) = (query.request(begun), query.server.identity());
            tokens.ask(self.namespace, identity, request, read).await
        };
        match answer {
            Answer::Value(Err(MetricError::NoAnswer(why)))
            | Answer::Series(Err(MetricError::NoAnswer(why))) => {
                Err(format!("the server does not answer this machine: {why}"))
            }
            answer => Ok(answer),
        }
    }

    async fn through_api_server(
        &self,
        question: &Question,
        query: &Query,
        request: &HttpRequest,
        begun: Timestamp,
    ) -> Result<Answer, String> {
        let response: HttpResponse = self.context.person.call(request).await?;
        if response.status >= 300 {
            return Err(format!(
                "through the API server, with your rights: status {}: {}",
                response.status,
                excerpt(&response.body)
            ));
        }
        if !matches!(query.asks, Asks::Value(_)) {
            return Ok(question.read(Ok(response)));
        }
        match query.next(begun, &[Ok(response)]) {
            Next::Value(value) => Ok(Answer::Value(value)),
            Next::Send(..) => Err("the query needs several requests".to_owned()),
        }
    }
}
