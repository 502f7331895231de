//! Asks the metric servers of a Canary for the current values.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use jiff::Timestamp;
use tokio::time::timeout;

use super::Planning;
use crate::{
    api::release,
    metrics::{MetricError, Next, Query, identity::environment::Environment},
    plan::{Metric, UNTRUSTED, Way, analysed, way},
    rollout::{self, Answer, Evidence, MetricState, Question, metric_measurements},
    shell::{
        client::{read::now, trouble::Stop},
        controller::querying::Querying,
        outside::{http::Http, tokens::Tokens},
    },
    snapshot::{Destinations, HttpRequest, Kind, Snapshot, excerpt},
};

/// How many metric servers are asked at the same time.
const PARALLEL: usize = 8;
/// How long one metric server may take to answer. The time is short because a person waits.
const PATIENCE: Duration = Duration::from_secs(10);

impl Planning<'_> {
    /// Renders the queries, asks for the values, and judges them as a step would.
    pub(super) async fn metrics(&mut self, snapshot: Snapshot) -> Result<(), Stop> {
        let mut snapshot = analysed(snapshot);
        loop {
            let needs = rollout::needs(&snapshot);
            let missing: Vec<_> = needs.difference(&snapshot.seen).cloned().collect();
            if missing.is_empty() {
                break;
            }
            for (object, value) in self.objects(missing).await? {
                snapshot.seen.insert(object.clone());
                snapshot.objects.extend(value.map(|value| (object, value)));
            }
        }
        let states = metric_measurements(&snapshot, &Evidence::new());
        let asked = states.iter().map(|(_, state)| self.asked(state));
        let asked: Vec<_> = stream::iter(asked).buffered(PARALLEL).collect().await;
        let mut evidence = Evidence::new();
        let mut unasked = Vec::new();
        for (answer, (_, state)) in asked.into_iter().zip(&states) {
            unasked.push(match (answer, state) {
                (Ok(answer), MetricState::Open(question)) => {
                    evidence.insert(Arc::new(question.clone()), answer);
                    None
                }
                (Err(why), _) => Some(why),
                (Ok(_), MetricState::Known(_)) => None,
            });
        }
        let judged = metric_measurements(&snapshot, &evidence);
        for ((metric, state), not_asked) in judged.into_iter().zip(unasked) {
            let measured = match state {
                MetricState::Known(measured) if not_asked.is_none() => Some(measured),
                _ => None,
            };
            self.plan.metrics.push(Metric {
                metric,
                value: measured.as_ref().and_then(|it| it.value),
                failure: measured.and_then(|it| it.failure),
                not_asked,
            });
        }
        self.unqueryable(&states);
        Ok(())
    }

    /// Adds the reasons why metrics cannot be queried to the problems of the plan: such a metric fails each step.
    fn unqueryable(&mut self, states: &[(release::Metric, MetricState)]) {
        let failures = states.iter().filter_map(|(_, state)| match state {
            MetricState::Known(measured) => measured.failure.clone(),
            MetricState::Open(_) => None,
        });
        let failures: Vec<_> = failures.collect();
        // The cause may be an object that the person may not read and that counts as missing.
        if self.unread.is_empty() {
            self.plan.problems.extend(failures);
        } else {
            self.plan.not_checked.extend(failures);
        }
    }

    /// The answer to the question of a metric, or why it was not asked.
    async fn asked(&self, state: &MetricState) -> Result<Answer, String> {
        let MetricState::Open(Question::Metric { query, .. }) = state else {
            return Err("it cannot be queried".to_owned());
        };
        if !self.args.ask {
            return Err("--ask=false".to_owned());
        }
        let (begun, account) = (now(), self.args.account.as_ref());
        let operator = account.map(|account| account.namespace.as_str());
        let mut kinds = self.manifests.iter().map(|(object, _)| object.kind);
        let are_trusted = kinds.all(|kind| kind != Kind::MetricTemplate);
        if let Some(identity) = query.server.identity() {
            if identity.is_of_the_pod() {
                return Err("it is asked with the identity of the operator's pod".to_owned());
            }
            if !are_trusted {
                return Err(UNTRUSTED.to_owned());
            }
        }
        let answer = match way(&query.request(begun), operator, are_trusted) {
            Way::None(why) => return Err(why),
            Way::Direct => timeout(PATIENCE, self.directly(query, begun)).await,
            Way::ApiServer(request) => {
                timeout(PATIENCE, self.through_api_server(query, &request, begun)).await
            }
        };
        answer.unwrap_or_else(|_| Err(format!("no answer within {} s", PATIENCE.as_secs())))
    }

    async fn directly(&self, query: &Query, begun: Timestamp) -> Result<Answer, String> {
        // A manifest must not cause calls to servers that only this machine can reach.
        let destinations = Destinations {
            link_local: false,
            loopback: false,
            ..self.config.destinations.clone()
        };
        let querying = Querying {
            // Queries with the identity of the operator's pod are not sent, so no environment is needed.
            tokens: Arc::new(Tokens::new(
                Http::to(destinations),
                Environment::of(|_| None),
            )),
            namespace: self.canary.namespace.clone(),
            query: query.clone(),
            begun,
        };
        match querying.value().await {
            Answer::Value(Err(MetricError::NoAnswer(why))) => {
                Err(format!("the server does not answer this machine: {why}"))
            }
            answer => Ok(answer),
        }
    }

    async fn through_api_server(
        &self,
        query: &Query,
        request: &HttpRequest,
        begun: Timestamp,
    ) -> Result<Answer, String> {
        let response = self.context.person.call(request).await?;
        if response.status >= 300 {
            return Err(format!(
                "through the API server, with your rights: status {}: {}",
                response.status,
                excerpt(&response.body)
            ));
        }
        match query.next(begun, &[Ok(response)]) {
            Next::Value(value) => Ok(Answer::Value(value)),
            Next::Send(..) => Err("the query needs several requests".to_owned()),
        }
    }
}
