//! Asks the metric servers of a Canary for the current values.

use std::sync::Arc;

use futures::{StreamExt, stream};

use super::Planning;
use crate::{
    api::release,
    comparison::Counts,
    plan::{Comparison, Metric, analysed},
    rollout::{
        self, Answer, Comparable, Evidence, MetricState, Question, comparable, metric_measurements,
        series_question,
    },
    shell::client::{asking::Asking, trouble::Stop},
    snapshot::{Kind, Snapshot},
};

/// How many metric servers are asked at the same time.
const PARALLEL: usize = 8;

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
        self.comparisons(&snapshot).await;
        Ok(())
    }

    /// Asks whether the primary has the counters that comparisons need.
    async fn comparisons(&mut self, snapshot: &Snapshot) {
        for (metric, comparable) in comparable(snapshot) {
            // The operator refuses a Canary whose comparison is impossible, which is a problem of the plan already.
            let Some(comparable) = comparable.ok().filter(|it| it.is_asked) else {
                continue;
            };
            let [_, counter] = comparable.counted.counters().map(str::to_owned);
            let asked = self.history(snapshot, &comparable).await;
            let counts = asked.as_ref().ok();
            self.plan.comparisons.push(Comparison {
                metric,
                counter,
                requests: counts.map(|counts| counts.all().round()),
                bad: counts.map(|counts| counts.bad().round()),
                not_asked: asked.err(),
            });
        }
    }

    async fn history(&self, snapshot: &Snapshot, of: &Comparable) -> Result<Counts, String> {
        let query = of.counted.history(of.rules.measure);
        let question = series_question(snapshot, "history".to_owned(), &query, snapshot.now);
        let question = question.map_err(|error| error.to_string())?;
        match self.ask(&question).await? {
            Answer::Series(series) => {
                let series = series.map_err(|error| error.to_string())?;
                Ok(of.counted.read_history(of.rules.measure, &series))
            }
            _ => Err("the server gave another answer than series".to_owned()),
        }
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
        match state {
            MetricState::Open(question) => self.ask(question).await,
            MetricState::Known(_) => Err("it cannot be queried".to_owned()),
        }
    }

    async fn ask(&self, question: &Question) -> Result<Answer, String> {
        if !self.args.ask {
            return Err("--ask=false".to_owned());
        }
        let mut kinds = self.manifests.iter().map(|(object, _)| object.kind);
        let asking = Asking {
            context: self.context,
            config: self.config,
            account: self.args.account.as_ref(),
            namespace: &self.canary.namespace,
            are_trusted: kinds.all(|kind| kind != Kind::MetricTemplate),
        };
        asking.ask(question).await
    }
}
