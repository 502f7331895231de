//! The measurements and calls of a step, for the record of the run.

use super::{
    comparisons::{self, Compared, Effect},
    hooks::{self, Stage},
    metric_query::{Check, Source, checks},
};
use crate::{
    api::{
        canary::CanaryWebhook,
        release::{Comparison, HookCall, Measured, Metric},
    },
    metrics::{Query, Server},
    notifications::webhook,
    rollout::plan::{Answer, Evidence, Question},
    snapshot::{HttpRequest, Snapshot, redacted},
};

/// The longest query in a record, in bytes.
const QUERY: usize = 2048;

/// The measurements and calls of one step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measurements {
    /// The values, each with its metric.
    pub values: Vec<(Metric, Measured)>,
    /// The calls of webhooks.
    pub hooks: Vec<HookCall>,
}

/// The end of the name of a metric that is compared.
const COMPARED: &str = " (compared with the primary)";

impl Measurements {
    /// The comparisons, by the name of the metric.
    pub fn comparisons(&self) -> impl Iterator<Item = (&str, &Comparison)> {
        let values = self.values.iter();
        values.filter_map(|(metric, measured)| {
            let name = metric.name.strip_suffix(COMPARED)?;
            Some((name, measured.comparison.as_ref()?))
        })
    }
}

/// The measurements and calls whose answers are known in this step.
pub fn measurements(snapshot: &Snapshot, evidence: &Evidence) -> Measurements {
    if evidence.is_empty() {
        return Measurements::default();
    }
    let checks = checks(&snapshot.canary);
    let values = checks
        .iter()
        .filter_map(|check| check.measurement(snapshot, evidence));
    let compared = match comparisons::results(snapshot, evidence) {
        Stage::Done(compared) => compared,
        Stage::Ask(_) => Vec::new(),
    };
    Measurements {
        values: values.chain(compared.iter().map(comparison)).collect(),
        hooks: calls(snapshot, evidence),
    }
}

/// A comparison as a measurement: the value is the share of the canary's requests that were bad, in percent.
fn comparison(compared: &Compared) -> (Metric, Measured) {
    let server = compared.server.as_ref();
    let hosts = server.map(Server::hosts).unwrap_or_default();
    let metric = Metric {
        name: format!("{}{COMPARED}", compared.metric),
        provider: server.map_or("", Server::name).to_owned(),
        host: hosts.into_iter().next().unwrap_or_default(),
        query: cut(&compared.counters),
        unit: "%".to_owned(),
        ..Metric::default()
    };
    let finding = compared.finding.clone().unwrap_or_default();
    let (canary, primary) = (finding.seen.canary, finding.seen.primary);
    let holds = compared.decides && compared.effect != Effect::Pass;
    let measured = Measured {
        metric: 0,
        value: (canary.all() > 0.0).then(|| (canary.rate() * 1e4).round() / 100.0),
        failure: holds.then(|| compared.detail.clone()),
        comparison: Some(Comparison {
            state: compared.state.as_str().to_owned(),
            decides: compared.decides,
            detail: compared.detail.clone(),
            requests: canary.all(),
            bad: canary.bad(),
            primary_requests: primary.all(),
            primary_bad: primary.bad(),
            evidence: finding.worse,
        }),
    };
    (metric, measured)
}

/// The state of a metric check outside of a run.
#[derive(Clone, Debug, PartialEq)]
pub enum MetricState {
    /// The value is not known yet; this question asks for it.
    Open(Question),
    /// The judged value, or the reason why the metric cannot be queried.
    Known(Measured),
}

/// All metric checks of a canary, in the order in which a step judges them.
pub fn metric_measurements(snapshot: &Snapshot, evidence: &Evidence) -> Vec<(Metric, MetricState)> {
    let state =
        |check: &Check<'_>| match (check.measurement(snapshot, evidence), check.query(snapshot)) {
            (None, Ok(query)) => {
                let metric = check.described(Some(&query));
                Some((metric, MetricState::Open(check.question(query))))
            }
            (state, _) => state.map(|(metric, measured)| (metric, MetricState::Known(measured))),
        };
    let checks = checks(&snapshot.canary);
    let has_value = |check: &&Check<'_>| !matches!(check.source, Source::Counts(_));
    checks.iter().filter(has_value).filter_map(state).collect()
}

impl Check<'_> {
    /// The measurement of this check; `None` if it is not known yet.
    fn measurement(&self, snapshot: &Snapshot, evidence: &Evidence) -> Option<(Metric, Measured)> {
        if matches!(self.source, Source::Counts(_)) {
            return None;
        }
        let judged = self.judge(snapshot, evidence)?;
        let metric = self.described(judged.query.as_ref());
        let measured = Measured {
            metric: 0,
            value: judged.value.filter(|value| value.is_finite()),
            failure: judged.halt.map(|halt| halt.failed.detail),
            comparison: None,
        };
        Some((metric, measured))
    }

    /// The metric in the form of a record. `query` is `None` if the metric cannot be queried.
    fn described(&self, query: Option<&Query>) -> Metric {
        let (min, max) = self.bounds();
        let server = query.map(|query| &query.server);
        Metric {
            name: self.metric.name.clone(),
            provider: server.map_or("", |server| server.name()).to_owned(),
            // Only hosts that get values of Secrets are listed, so the API server is not among them.
            host: server
                .and_then(|server| server.hosts().into_iter().next())
                .unwrap_or_default(),
            query: query.map(|query| cut(query.text())).unwrap_or_default(),
            window: self.metric.interval.clone().unwrap_or_default(),
            unit: self.unit().trim_start().to_owned(),
            min,
            max,
        }
    }
}

/// A query on one line, cut to the length that a record keeps.
fn cut(query: &str) -> String {
    let mut line = query.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.len() > QUERY {
        let end = (0..=QUERY).rev().find(|end| line.is_char_boundary(*end));
        line.truncate(end.unwrap_or(0));
    }
    line
}

/// The calls of webhooks that ended with an answer or with a failure, in the order of the list.
fn calls(snapshot: &Snapshot, evidence: &Evidence) -> Vec<HookCall> {
    let analysis = snapshot.canary.spec.analysis.iter();
    let hooks = analysis.flat_map(|analysis| &analysis.webhooks).enumerate();
    let calls = hooks.flat_map(|(place, hook)| {
        let label = hooks::label(place);
        evidence
            .iter()
            .filter_map(move |(question, answer)| match question.as_ref() {
                Question::Call { label: of, request } if *of == label => {
                    call(hook, request, answer)
                }
                _ => None,
            })
    });
    calls.collect()
}

fn call(hook: &CanaryWebhook, request: &HttpRequest, answer: &Answer) -> Option<HookCall> {
    let (status, answer) = match answer {
        // The answer of a passed hook may contain confidential data, and everyone who may read the namespace may read the record.
        Answer::Response(response) if response.status < 300 => {
            (Some(response.status), String::new())
        }
        Answer::Response(response) => (Some(response.status), redacted(&response.body)),
        Answer::Failed(failure) => (None, redacted(&failure.to_string())),
        _ => return None,
    };
    Some(HookCall {
        at: None,
        name: hook.name.clone(),
        kind: hook.type_.as_str().to_owned(),
        host: webhook::host(&request.url),
        status,
        answer,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::snapshot::{Failure, HttpResponse};

    /// Everyone who may read the namespace may read the record.
    #[test]
    fn a_record_shows_the_answer_of_a_hook_only_if_the_hook_failed() {
        let hook = json!({"name": "acceptance", "type": "pre-rollout", "url": "http://u:hush@hooks/x?token=hush"});
        let hook: CanaryWebhook = serde_json::from_value(hook).unwrap();
        let request = crate::metrics::identity::testing::request(&hook.url);
        let response = |status| {
            let body = "token: hush".to_owned();
            Answer::Response(HttpResponse { status, body })
        };
        for status in [200, 201, 204, 299, 300, 302, 400, 403, 429, 500, 503] {
            let call = call(&hook, &request, &response(status)).unwrap();
            assert_eq!(call.status, Some(status));
            assert_eq!(
                (call.host.as_str(), call.kind.as_str()),
                ("hooks", "pre-rollout")
            );
            let expected = if status < 300 {
                ""
            } else {
                "token: [redacted]"
            };
            assert_eq!(call.answer, expected, "{status}");
        }
        let failure = Failure {
            why: "no answer within 10 s".to_owned(),
            attempts: 1,
        };
        let failed = call(&hook, &request, &Answer::Failed(failure)).unwrap();
        assert_eq!(
            (failed.status, failed.answer.as_str()),
            (None, "no answer within 10 s")
        );
        assert_eq!(call(&hook, &request, &Answer::Objects(Vec::new())), None);
    }
}
