//! Checks, during the initialization, that the metric servers of a canary can be reached.

use std::collections::BTreeSet;

use super::{
    hooks::Stage,
    metric_query::{Source, Unqueryable, ask, budget, builtin_server, checks},
    metric_templates,
};
use crate::{
    metrics::{Asks, OfflineError, Query, observer::Builtin},
    rollout::plan::Evidence,
    snapshot::{ObjectRef, Snapshot},
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
    let mut checks = checks(&snapshot.canary);
    checks.sort_by_key(|check| check.place);
    let mut questions = Vec::new();
    let mut known = BTreeSet::new();
    for check in checks {
        let (within, server) = match check.source {
            Source::Builtin(_) => (String::new(), builtin_server(snapshot)),
            // As in Flagger, the template of a metric with a built-in name is not checked, nor is the server of an inline query.
            Source::Template(_) if Builtin::named(&check.metric.name).is_some() => continue,
            Source::Inline(_) | Source::Nothing => continue,
            Source::Template(reference) => {
                let ObjectRef {
                    name, namespace, ..
                } = metric_templates::reference(snapshot, reference);
                let server = metric_templates::read(snapshot, reference, check.metric);
                let server = server.map(|(_, server)| server);
                let server = server.map_err(Unqueryable::from);
                (format!(" in metric template {name}.{namespace}"), server)
            }
        };
        if !known.insert(within.clone()) {
            continue;
        }
        let problem = match server {
            Ok(server) => {
                let name = server.name();
                let query = Query {
                    server,
                    asks: Asks::Online,
                    budget: budget(snapshot),
                };
                match ask(&format!("{name}{within}"), &query, evidence) {
                    Stage::Ask(more) => {
                        questions.extend(more);
                        continue;
                    }
                    Stage::Done(answer) => match query.server.online(answer) {
                        Ok(()) => continue,
                        Err(error) => Unreachable::Offline {
                            server: format!("{name}{within}"),
                            error,
                        },
                    },
                }
            }
            Err(error) => Unreachable::Unqueryable(error),
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
