//! Checks, during the initialization, that the metric servers of a canary can be reached.

use std::collections::BTreeSet;

use super::{
    hooks::Stage,
    metric_query::{Source, Unqueryable, budget, builtin_server, checks, question},
    metric_templates,
};
use crate::{
    metrics::{Asks, OfflineError, Query, Server, observer::Builtin},
    rollout::plan::{Answer, Evidence},
    snapshot::Snapshot,
};

/// The reason why a metric server cannot be reached, in Flagger's words.
#[derive(Debug, thiserror::Error)]
pub enum Unreachable {
    /// The server cannot be asked. Flagger begins this text in lower case here.
    #[error("{}", .0.to_string().replacen("Metric template", "metric template", 1))]
    Unqueryable(Unqueryable),
    /// The server does not answer, or refuses. (The spelling is Flagger's.)
    #[error("{server} not avaiable: {error}")]
    Offline {
        /// The provider, and the MetricTemplate if it has one.
        server: String,
        /// The reason.
        error: OfflineError,
    },
}

/// Checks that all metric servers can be reached: the questions to ask first, or the first problem.
pub fn online(snapshot: &Snapshot, evidence: &Evidence) -> Stage<Result<(), Unreachable>> {
    let mut questions = Vec::new();
    for (within, server) in servers(snapshot) {
        let problem = match reach(snapshot, evidence, &within, server) {
            Stage::Ask(more) => {
                questions.extend(more);
                continue;
            }
            Stage::Done(Ok(())) => continue,
            Stage::Done(Err(problem)) => problem,
        };
        // Only the first problem is reported, so the servers before it must have answered.
        return if questions.is_empty() {
            Stage::Done(Err(problem))
        } else {
            Stage::Ask(questions)
        };
    }
    if questions.is_empty() {
        Stage::Done(Ok(()))
    } else {
        Stage::Ask(questions)
    }
}

/// Each server once, in the order of the metrics, with the MetricTemplate that it belongs to.
fn servers(snapshot: &Snapshot) -> Vec<(String, Result<Server, Unqueryable>)> {
    let mut checks = checks(&snapshot.canary);
    checks.sort_by_key(|check| check.place);
    let mut known = BTreeSet::new();
    let servers = checks.into_iter().filter_map(|check| match check.source {
        Source::Builtin(_) | Source::Counts(_) => Some((String::new(), builtin_server(snapshot))),
        // As in Flagger, the template of a metric with a built-in name is not checked, nor is the server of an inline query.
        Source::Template(_) if Builtin::named(&check.metric.name).is_some() => None,
        Source::Inline(_) | Source::Nothing => None,
        Source::Template(reference) => {
            let full = metric_templates::full_name(snapshot, reference);
            let template = metric_templates::read(snapshot, reference, check.metric);
            let server = template.map(|(_, server)| server);
            let within = format!(" in metric template {full}");
            Some((within, server.map_err(Unqueryable::from)))
        }
    });
    servers
        .filter(|(within, _)| known.insert(within.clone()))
        .collect()
}

/// Checks that one server can be reached.
fn reach(
    snapshot: &Snapshot,
    evidence: &Evidence,
    within: &str,
    server: Result<Server, Unqueryable>,
) -> Stage<Result<(), Unreachable>> {
    let server = match server {
        Ok(server) => server,
        Err(error) => return Stage::Done(Err(Unreachable::Unqueryable(error))),
    };
    let name = format!("{}{within}", server.name());
    let query = Query {
        server,
        asks: Asks::Online,
        budget: budget(snapshot),
    };
    let question = question(name.clone(), query);
    match evidence.get(&question) {
        Some(Answer::Online(online)) => {
            let online = online.clone();
            Stage::Done(online.map_err(|error| Unreachable::Offline {
                server: name,
                error,
            }))
        }
        Some(_) | None => Stage::Ask(vec![question]),
    }
}
