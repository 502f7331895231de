//! The metric checks of a canary: the query of each, and the reasons why there is none.

use std::time::Duration;

use super::metric_templates::{self, TemplateError};
use crate::{
    api::{
        canary::{Canary, CanaryMetric, CrossNamespaceRef},
        compare::CountQueries,
        limits,
    },
    metrics::{
        Asks, MetricError, Queried, Query, Server, ServerError, endpoint,
        observer::Builtin,
        template::{Model, RenderError, render},
    },
    providers,
    rollout::plan::Question,
    snapshot::{
        Origin, Snapshot, TargetKind,
        references::{self, Blocked},
    },
};

/// The reason why a metric cannot be queried, in Flagger's words.
#[derive(Debug, thiserror::Error)]
pub enum Unqueryable {
    /// The address of the built-in metrics' server is invalid.
    #[error("Error building Prometheus client for {address} {error}")]
    Server {
        /// The address without credentials.
        address: String,
        /// The reason.
        error: ServerError,
    },
    /// A query in the Canary cannot be rendered.
    #[error("Prometheus query failed for {metric}: {error}")]
    Query {
        /// The name of the metric.
        metric: String,
        /// The reason.
        error: RenderError,
    },
    /// A MetricTemplate cannot be used.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The query of a MetricTemplate cannot be rendered.
    #[error("Metric template {template} query render error: {error}")]
    TemplateQuery {
        /// `NAME.NAMESPACE` of the template.
        template: String,
        /// The reason.
        error: RenderError,
    },
    /// The query of a MetricTemplate cannot be sent to its server.
    #[error("Metric query failed for {metric}: {error}")]
    Malformed {
        /// The name of the metric.
        metric: String,
        /// The reason.
        error: MetricError,
    },
    /// The query of a MetricTemplate names an object of another namespace.
    #[error("Metric query failed for {metric}: {error}")]
    Blocked {
        /// The name of the metric.
        metric: String,
        /// The reason.
        error: Box<Blocked>,
    },
    /// The metric has neither a query nor a template.
    #[error("Metric query failed for no usable metrics template and query were configured")]
    NoSource,
}

/// The source of a check's value.
pub enum Source<'a> {
    /// A built-in metric.
    Builtin(Builtin),
    /// A query in the Canary.
    Inline(&'a str),
    /// A MetricTemplate.
    Template(&'a CrossNamespaceRef),
    /// Counters of both versions, which are compared. There is no value.
    Counts(&'a CountQueries),
    /// Neither a query nor a template.
    Nothing,
}

/// One check of one metric. A metric may be checked twice, as in Flagger.
pub struct Check<'a> {
    /// The place of the metric in the list.
    pub place: usize,
    /// The metric.
    pub metric: &'a CanaryMetric,
    /// The source of its value.
    pub source: Source<'a>,
}

impl Check<'_> {
    /// The query of the check.
    pub fn query(&self, snapshot: &Snapshot) -> Result<Query, Unqueryable> {
        let model = |default| self.model(snapshot, default);
        let (server, text) = match self.source {
            Source::Builtin(builtin) => {
                let text = providers::observer(snapshot).query(builtin, &model("1m"));
                (builtin_server(snapshot)?, text)
            }
            Source::Inline(query) => {
                let failed = |error| Unqueryable::Query {
                    metric: self.metric.name.clone(),
                    error,
                };
                let text = render(query, &model("1m")).map_err(failed)?;
                (builtin_server(snapshot)?, text)
            }
            Source::Template(reference) => {
                let (template, server) = metric_templates::read(snapshot, reference, self.metric)?;
                let failed = |error| Unqueryable::TemplateQuery {
                    template: metric_templates::full_name(snapshot, reference),
                    error,
                };
                let text = render(&template.query, &model("")).map_err(failed)?;
                self.check_queried(snapshot, &server, &text)?;
                (server, text)
            }
            Source::Counts(_) | Source::Nothing => return Err(Unqueryable::NoSource),
        };
        Ok(Query {
            server,
            asks: Asks::Value(text),
            budget: budget(snapshot),
        })
    }

    /// The names in the query.
    pub fn model(&self, snapshot: &Snapshot, default_interval: &str) -> Model {
        let mut model = Model::of(&snapshot.canary, self.metric, default_interval);
        if TargetKind::of(&snapshot.canary) == Some(TargetKind::Knative) {
            let revision = snapshot.canary_reference();
            model.route = revision.map_or(model.route, |revision| revision.name);
        }
        model
    }

    /// Checks that a query can be sent, and that this canary may read the object of the cluster that the query names, if it names one.
    fn check_queried(
        &self,
        snapshot: &Snapshot,
        server: &Server,
        query: &str,
    ) -> Result<(), Unqueryable> {
        let metric = || self.metric.name.clone();
        let queried = server.queried(query);
        let queried = queried.map_err(|error| Unqueryable::Malformed {
            metric: metric(),
            error,
        })?;
        let Some(Queried {
            what,
            name,
            namespace,
            ..
        }) = queried
        else {
            return Ok(());
        };
        let (own, others) = (snapshot.namespace(), snapshot.other_namespaces());
        let allowed = references::queried(what, (&name, &namespace), own, others);
        allowed.map_err(|error| Unqueryable::Blocked {
            metric: metric(),
            error: Box::new(error),
        })
    }
}

/// The longest time for all attempts at one metric: less than an interval, so that the step ends before the next tick.
pub fn budget(snapshot: &Snapshot) -> Duration {
    snapshot.canary.interval().mul_f64(0.9)
}

/// All checks: first the built-in metrics and the inline queries, then the templates; each in the order of the list.
pub fn checks(canary: &Canary) -> Vec<Check<'_>> {
    let metrics = || {
        canary
            .spec
            .analysis
            .iter()
            .flat_map(|analysis| &analysis.metrics)
            // A Canary with more metrics is not run.
            .take(limits::METRICS)
            .enumerate()
    };
    let mut checks = Vec::new();
    for (place, metric) in metrics() {
        let builtin = Builtin::named(&metric.name).map(Source::Builtin);
        let inline = metric
            .query
            .as_deref()
            .filter(|query| !query.is_empty())
            .map(Source::Inline);
        checks.extend(builtin.into_iter().chain(inline).map(|source| Check {
            place,
            metric,
            source,
        }));
    }
    for (place, metric) in metrics() {
        let known = Builtin::named(&metric.name).is_some()
            || metric.query.as_ref().is_some_and(|query| !query.is_empty());
        let source = match (&metric.template_ref, &metric.counts) {
            (_, Some(counts)) if !known => Source::Counts(counts),
            (Some(reference), _) => Source::Template(reference),
            (None, _) if known => continue,
            (None, _) => Source::Nothing,
        };
        checks.push(Check {
            place,
            metric,
            source,
        });
    }
    checks
}

/// The objects of the cluster that the queries of a canary's metrics name.
pub fn queried(snapshot: &Snapshot) -> Vec<Queried> {
    let queries = checks(&snapshot.canary)
        .into_iter()
        .filter_map(|check| check.query(snapshot).ok());
    let objects = queries.filter_map(|query| match &query.asks {
        Asks::Value(text) => query.server.queried(text).ok().flatten(),
        Asks::Series { .. } | Asks::Online => None,
    });
    objects.collect()
}

/// The question about a metric. The label distinguishes two equal queries.
pub fn question(label: String, query: Query) -> Question {
    Question::Metric {
        label,
        query: Box::new(query),
    }
}

/// The Prometheus server of the built-in metrics and of the inline queries.
pub fn builtin_server(snapshot: &Snapshot) -> Result<Server, Unqueryable> {
    let own = snapshot
        .canary
        .spec
        .metrics_server
        .as_deref()
        .filter(|server| !server.is_empty());
    let ours = snapshot.settings.metrics_server.as_str();
    let (address, origin) = match own {
        Some(own) if own != ours => (own, Origin::User),
        Some(_) | None => (ours, Origin::Administrator),
    };
    Server::prometheus(address, origin).map_err(|error| Unqueryable::Server {
        address: endpoint::public(address),
        error,
    })
}
